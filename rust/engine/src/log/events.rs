//! Events of the engine for the control plane: few, and taken in batches by one thread of Python.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

/// Events that wait at once; beyond that the oldest go.
const CAPACITY: usize = 1024;

/// How bad it is; the labels are those of Python's `logging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Level {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that a person or the control plane should know.
#[derive(Clone, Debug)]
pub struct Event {
    pub level: Level,
    /// A stable id: `accept_paused`.
    pub event: &'static str,
    pub message: String,
    /// More values beside those three, whose names they must not bear.
    pub fields: Vec<(&'static str, Value)>,
}

impl Event {
    pub fn new(level: Level, event: &'static str, message: impl Into<String>) -> Self {
        Self { level, event, message: message.into(), fields: Vec::new() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn into_json(self) -> String {
        let mut object: Map<String, Value> =
            self.fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        object.insert("level".to_owned(), self.level.label().into());
        object.insert("event".to_owned(), self.event.into());
        object.insert("message".to_owned(), self.message.into());
        Value::Object(object).to_string()
    }
}

/// The events that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Events {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    /// Dropped since somebody last took events.
    dropped: u64,
}

impl Events {
    /// Adds an event; holds its lock for no more than that.
    pub fn push(&self, event: Event) {
        let mut waiting = self.lock();
        if waiting.events.len() == CAPACITY {
            waiting.events.pop_front();
            waiting.dropped += 1;
        }
        waiting.events.push_back(event);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// All events as JSON, oldest first; waits for one up to `timeout`. Lost ones are told by an `events_dropped`.
    pub fn wait(&self, timeout: Duration) -> Vec<String> {
        let is_empty = |waiting: &mut Waiting| waiting.events.is_empty();
        let waited = self.arrived.wait_timeout_while(self.lock(), timeout, is_empty);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *waiting);
        drop(waiting);
        lost(taken.dropped).into_iter().chain(taken.events).map(Event::into_json).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost(count: u64) -> Option<Event> {
    let message = format!("{count} events were dropped before anybody took them");
    (count > 0).then(|| Event::new(Level::Warning, "events_dropped", message).with("count", count))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    fn numbered(number: usize) -> Event {
        Event::new(Level::Info, "numbered", "one").with("number", number)
    }

    fn taken(events: &Events) -> Vec<Value> {
        events.wait(Duration::ZERO).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    #[test]
    fn events_are_taken_once_in_order() {
        let events = Events::default();
        events.push(numbered(1));
        events.push(Event::new(Level::Error, "bad", "line\nbreak").with("level", "no"));
        let first = json!({"level": "info", "event": "numbered", "message": "one", "number": 1});
        let second = json!({"level": "error", "event": "bad", "message": "line\nbreak"});
        assert_eq!(taken(&events), [first, second]);
        assert!(taken(&events).is_empty());
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let events = Events::default();
        (0..CAPACITY + 3).for_each(|number| events.push(numbered(number)));
        let taken = taken(&events);
        assert_eq!((&taken[0]["event"], &taken[0]["count"]), (&json!("events_dropped"), &json!(3)));
        assert_eq!((&taken[1]["number"], taken.len()), (&json!(3), CAPACITY + 1));
        events.push(numbered(0));
        assert_eq!(self::taken(&events).len(), 1, "told once");
    }

    #[test]
    fn a_push_wakes_who_waits() {
        let events = Arc::new(Events::default());
        let waiting = thread::spawn({
            let events = events.clone();
            move || events.wait(Duration::from_secs(60)).len()
        });
        thread::sleep(Duration::from_millis(20));
        events.push(numbered(1));
        assert_eq!(waiting.join().unwrap(), 1);
    }

    #[test]
    fn waiting_ends() {
        let start = Instant::now();
        assert!(Events::default().wait(Duration::from_millis(30)).is_empty());
        assert!(start.elapsed() >= Duration::from_millis(30));
    }
}
