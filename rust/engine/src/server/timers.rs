//! When each live WebSocket of a worker wants to be looked at.
//!
//! A heap of (time, connection). Entries are lazy: traffic only moves deadlines later, so nothing is touched per
//! message. The owner remembers the time of its one valid entry and drops the others as they come up.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::sync::Notify;

use crate::io::clock::{self, Millis};

/// Deadlines by time. `K` names a connection.
#[derive(Debug)]
pub struct Timers<K> {
    heap: RefCell<BinaryHeap<Reverse<(Millis, K)>>>,
    /// The next deadline came nearer.
    nearer: Notify,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self { heap: RefCell::default(), nearer: Notify::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Asks for `key` at `when`.
    pub fn arm(&self, when: Millis, key: K) {
        let mut heap = self.heap.borrow_mut();
        if heap.peek().is_none_or(|Reverse((first, _))| when < *first) {
            self.nearer.notify_one();
        }
        heap.push(Reverse((when, key)));
    }

    /// How many entries there are, valid or not.
    pub fn len(&self) -> usize {
        self.heap.borrow().len()
    }

    /// Drops the entries that are not valid any more, and the memory they took.
    pub fn retain(&self, is_valid: impl Fn(Millis, K) -> bool) {
        let mut heap = self.heap.borrow_mut();
        heap.retain(|Reverse((when, key))| is_valid(*when, *key));
        heap.shrink_to_fit();
    }

    /// Waits for the next deadline and returns it, and whose it was.
    pub async fn next(&self) -> (Millis, K) {
        loop {
            let first = self.heap.borrow().peek().map(|Reverse((when, _))| *when);
            let now = clock::now();
            match first {
                Some(when) if when <= now => {
                    if let Some(Reverse(entry)) = self.heap.borrow_mut().pop() {
                        return entry;
                    }
                }
                Some(when) => {
                    // The clock is coarse: one tick more, or the entry would still lie ahead when the sleep ends.
                    let sleep = tokio::time::sleep(Duration::from_millis(when - now + 1));
                    tokio::select! { () = sleep => {}, () = self.nearer.notified() => {} }
                }
                None => self.nearer.notified().await,
            }
        }
    }
}
