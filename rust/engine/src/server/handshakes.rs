//! How many TLS handshakes go on at once, and when each gets to work.
//!
//! A handshake costs a signature: a hundred microseconds with ECDSA, a millisecond with RSA, all of which the worker's
//! other connections wait. When every client of a gateway comes back at once there are thousands. Two things keep them
//! from starving the connections that are there already:
//!
//! * A listener has a number of *slots*, over all workers. A handshake takes one when its ClientHello is there (so a
//!   silent connection takes none) and gives it back at its end. Who finds none waits in line, and is closed when that
//!   takes too long: a client that has given up meanwhile must not cost a signature.
//! * A worker has one *turn*, which a handshake holds while it works, and gets only after the worker has looked at its
//!   sockets. So whatever is ready on live connections comes between any two signatures.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::metrics::Cell;

/// The slots of a listener. Live as long as their number stays the same, also across reloads.
#[derive(Debug)]
pub struct Slots {
    count: u32,
    free: Arc<Semaphore>,
}

impl Slots {
    pub fn new(count: u32) -> Self {
        Self { count, free: Arc::new(Semaphore::new(count as usize)) }
    }

    /// Whether there are as many as a configuration asks for.
    pub fn is_same(&self, count: u32) -> bool {
        self.count == count
    }
}

/// The turn of a worker.
#[derive(Debug)]
pub struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Turns {
    /// Waits for the turn, and then until the worker has looked at its sockets.
    pub async fn next(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.0.acquire().await.ok()?;
        // Wakes this task only after the runtime has polled for events and woken those that they are for.
        tokio::task::yield_now().await;
        Some(turn)
    }
}

/// Gauges of the handshakes of a listener on this worker.
#[derive(Clone, Debug)]
pub struct Gauges {
    pub waiting: Arc<Cell>,
    pub running: Arc<Cell>,
}

/// One more in a gauge, until dropped.
#[derive(Debug)]
pub struct Counted(Arc<Cell>);

impl Counted {
    pub fn new(cell: &Arc<Cell>) -> Self {
        cell.add(1);
        Self(cell.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.subtract(1);
    }
}

/// A handshake's place, given back when dropped.
#[derive(Debug)]
pub struct Place {
    _slot: OwnedSemaphorePermit,
    _running: Counted,
}

/// Waits for a slot and the first turn, at most `patience`; `None` when it ran out.
pub async fn enter<'t>(
    slots: &Slots,
    turns: &'t Turns,
    gauges: &Gauges,
    patience: Duration,
) -> Option<(Place, SemaphorePermit<'t>)> {
    let waiting = Counted::new(&gauges.waiting);
    let entering = async {
        let slot = slots.free.clone().acquire_owned().await.ok()?;
        Some((slot, turns.next().await?))
    };
    let (slot, turn) = timeout(patience, entering).await.ok()??;
    drop(waiting);
    Some((Place { _slot: slot, _running: Counted::new(&gauges.running) }, turn))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::io::run;

    #[test]
    fn who_waits_too_long_is_told() {
        run(async {
            let (slots, turns) = (Slots::new(1), Turns::default());
            let gauges = Gauges { waiting: Arc::default(), running: Arc::default() };
            let first = enter(&slots, &turns, &gauges, Duration::from_secs(10)).await;
            assert_eq!((gauges.waiting.value(), gauges.running.value()), (0, 1));
            assert!(enter(&slots, &turns, &gauges, Duration::from_millis(20)).await.is_none());
            drop(first);
            assert_eq!((gauges.waiting.value(), gauges.running.value()), (0, 0));
            assert!(enter(&slots, &turns, &gauges, Duration::from_secs(10)).await.is_some());
        });
    }

    /// A peer that answers a byte with a byte gets its answer between any two turns, however many wait for theirs.
    #[test]
    fn a_live_connection_comes_between_two_turns() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut near, _) = listener.accept().await.unwrap();
            let (turns, story) = (Rc::new(Turns::default()), Rc::new(RefCell::new(String::new())));
            let told = story.clone();
            let live = tokio::task::spawn_local(async move {
                let mut byte = [0];
                while near.read_exact(&mut byte).await.is_ok() {
                    told.borrow_mut().push('.');
                }
            });
            far.write_all(b"x").await.unwrap();
            while story.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            let far = Rc::new(RefCell::new(far));
            let mut working = Vec::new();
            for _ in 0..50 {
                let (turns, story, far) = (turns.clone(), story.clone(), far.clone());
                working.push(tokio::task::spawn_local(async move {
                    let _turn = turns.next().await.unwrap();
                    story.borrow_mut().push('T');
                    // In the middle of the work something comes for the live connection.
                    assert_eq!(far.borrow_mut().try_write(b"x").unwrap(), 1);
                }));
            }
            for one in working {
                one.await.unwrap();
            }
            assert_eq!(story.borrow().trim_end_matches('.'), format!(".{}T", "T.".repeat(49)));
            live.abort();
        });
    }
}
