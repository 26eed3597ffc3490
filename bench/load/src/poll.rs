//! epoll, edge-triggered: a socket is registered once for everything, and no call is spent on changing its interest.
//!
//! The price is a rule for readers ([`crate::link::Link::receive`]): read on until the socket has nothing more. A read
//! that fills less than the buffer has emptied a stream socket (epoll(7)), unless the peer also ended its side.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::Outcome;

const BATCH: usize = 512;

pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// What a registered socket is ready for.
#[derive(Clone, Copy)]
pub struct Ready {
    pub token: u64,
    /// There is something to read: bytes, an end, or an error.
    pub input: bool,
    pub output: bool,
    /// The peer ended its side or the connection broke: a short read is not the last one.
    pub ending: bool,
}

impl Poll {
    pub fn new() -> Outcome<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    /// For sockets with a [`crate::link::Link`].
    pub fn add(&self, source: impl AsFd, token: u64) -> Outcome<()> {
        self.register(source, token, EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET)
    }

    /// For what is not read until it is empty: listeners, standard input.
    pub fn add_level(&self, source: impl AsFd, token: u64) -> Outcome<()> {
        self.register(source, token, EventFlags::IN)
    }

    fn register(&self, source: impl AsFd, token: u64, flags: EventFlags) -> Outcome<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token), flags)?)
    }

    /// Waits, and returns how many events there are to [`Poll::ready`]. A signal that comes between counts as none.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Outcome<usize> {
        self.events.clear();
        let timeout = timeout.map(timespec);
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.len()),
            Err(error) => Err(error.into()),
        }
    }

    pub fn ready(&self, index: usize) -> Ready {
        let Event { flags, data } = self.events[index];
        let ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let input = ending || flags.contains(EventFlags::IN);
        Ready { token: data.u64(), input, output: flags.contains(EventFlags::OUT), ending }
    }
}

/// In whole milliseconds, rounded up: the kernel call that takes them is the one every kernel has.
fn timespec(duration: Duration) -> Timespec {
    let milliseconds = duration.as_nanos().div_ceil(1_000_000) as i64;
    Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 }
}
