//! Load over HTTP/3: a few connections with many streams each.
//!
//! `quinn` speaks QUIC, so this load is the one that has a runtime under it: one thread, and a task for each stream. At
//! a barrier that thread waits for its line, and everything stands still as it does with the others. HTTP/3 itself is
//! as small here as HTTP/2 is in [`crate::h2`]: no dynamic table, and of an answer's head the status.

mod lanes;
mod message;
#[cfg(test)]
mod round_trip;
mod session;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::task::JoinSet;

use self::lanes::Lane;
use self::session::Session;
use crate::Outcome;
use crate::drive::{Plan, Report};

/// What an error is while it goes from task to task.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// WebSockets (RFC 9220), so many on each connection, with one message of `size` under way on each.
pub fn run_echo(plan: &Plan, streams: usize, size: usize) -> Outcome<Report> {
    run(plan, streams, What::Echo { size })
}

/// GETs, so many at once on each connection. `size` is that of the body asked for; 0 asks for the usual small one.
pub fn run_requests(plan: &Plan, streams: usize, size: usize) -> Outcome<Report> {
    run(plan, streams, What::Request { size })
}

#[derive(Clone, Copy)]
enum What {
    Echo { size: usize },
    Request { size: usize },
}

fn run(plan: &Plan, streams: usize, what: What) -> Outcome<Report> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(plan, streams, what)).map_err(|fault| fault as Box<dyn std::error::Error>)
}

async fn measure(plan: &Plan, streams: usize, what: What) -> Result<Report, Fault> {
    let tally = Arc::new(Tally::default());
    let mut lanes = JoinSet::new();
    let mut sessions = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        let session = Session::open(plan).await?;
        for _ in 0..streams {
            let lane = match what {
                What::Echo { size } => Lane::websocket(&session, &plan.place, size).await?,
                What::Request { size } => Lane::requests(&session, &plan.place, size),
            };
            lanes.spawn(lane.run(tally.clone()));
        }
        sessions.push(session);
    }
    go_on(&mut lanes, plan.warm_up()).await?;
    plan.pause("start").map_err(|error| error.to_string())?;
    tally.begin();
    let start = Instant::now();
    go_on(&mut lanes, plan.measured()).await?;
    let seconds = start.elapsed().as_secs_f64();
    plan.pause("end").map_err(|error| error.to_string())?;
    let seen = tally.take();
    match seen.operations {
        0 => Err("not one operation was completed in the measured time".into()),
        operations => Ok(Report { operations, seconds, latencies: seen.latencies }),
    }
}

/// For so long; a lane never ends but by an error.
async fn go_on(lanes: &mut JoinSet<Result<(), Fault>>, duration: Duration) -> Result<(), Fault> {
    tokio::select! {
        () = tokio::time::sleep(duration) => Ok(()),
        Some(ended) = lanes.join_next() => ended?,
    }
}

/// What the lanes have done.
#[derive(Default)]
pub struct Tally(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    since: Option<Instant>,
    operations: usize,
    latencies: Vec<u32>,
}

impl Tally {
    fn begin(&self) {
        *self.lock() = Seen { since: Some(Instant::now()), ..Seen::default() };
    }

    /// An operation is complete. Only one that was begun in the window tells how long one takes in it.
    pub fn count(&self, began: Instant) {
        let mut seen = self.lock();
        seen.operations += 1;
        if seen.since.is_some_and(|since| began >= since) {
            seen.latencies.push(began.elapsed().as_nanos().try_into().unwrap_or(u32::MAX));
        }
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
