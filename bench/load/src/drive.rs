//! The closed loop: a fixed number of connections, one operation under way on each (over HTTP/2 one on each of its
//! streams), the next begun when it ends.
//!
//! Time is measured in three parts: a warm-up that counts nothing, a barrier, the measured window, a barrier. At a
//! barrier the load stands still, at most one operation per connection or stream is under way, and whoever holds the
//! other end of standard input can read the gateway's CPU clock at rest.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::Outcome;
use crate::arguments::Arguments;
use crate::link::{Link, Received};
use crate::poll::{Poll, Ready};
use crate::socket::Dialler;
use crate::terminal;
use crate::upgrade::Place;
use crate::wire::{self, Wire};

const SCRATCH: usize = 128 << 10;
/// A connection whose operation takes longer has lost something.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection's part, without its socket. A new connection begins with [`Conversation::begin`].
pub trait Conversation {
    /// Starts an operation: appends what is to be sent.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Takes what came; may append more to send. True when the operation is complete and the connection stays.
    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Outcome<bool>;

    /// The peer ended the connection. Fine only where that completes the operation; a new connection follows.
    fn end(&mut self) -> Outcome<()> {
        Err("the peer closed a connection".into())
    }

    /// Whether we have said all there is to say: our side of the connection ends.
    fn is_finished(&self) -> bool {
        false
    }
}

/// One connection's part where several operations may be under way at once, each in a lane of its own.
pub trait Carrier {
    fn lanes(&self) -> usize;

    /// See [`Conversation::begin`].
    fn begin(&mut self, lane: usize, out: &mut Vec<u8>);

    /// Takes what came; may append more to send, and notes the lanes whose operation is complete.
    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>, completed: &mut Vec<usize>) -> Outcome<()>;

    /// See [`Conversation::end`].
    fn end(&mut self) -> Outcome<()>;

    /// See [`Conversation::is_finished`].
    fn is_finished(&self) -> bool;
}

impl<C: Conversation> Carrier for C {
    fn lanes(&self) -> usize {
        1
    }

    fn begin(&mut self, _: usize, out: &mut Vec<u8>) {
        Conversation::begin(self, out);
    }

    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>, completed: &mut Vec<usize>) -> Outcome<()> {
        if Conversation::receive(self, input, out)? {
            completed.push(0);
        }
        Ok(())
    }

    fn end(&mut self) -> Outcome<()> {
        Conversation::end(self)
    }

    fn is_finished(&self) -> bool {
        Conversation::is_finished(self)
    }
}

/// Where, how many and how long.
pub struct Plan {
    pub target: SocketAddrV4,
    pub tls: Option<Arc<ClientConfig>>,
    pub place: Place,
    pub connections: usize,
    warm_up: Duration,
    measured: Duration,
    barrier: bool,
}

impl Plan {
    pub fn take(arguments: &mut Arguments, connections: usize) -> Outcome<Self> {
        let target: SocketAddrV4 = arguments.need("target")?;
        let host = arguments.take("host-header", target.to_string())?;
        let path = arguments.take("path", "/".to_owned())?;
        Ok(Self {
            target,
            tls: take_tls(arguments)?,
            place: Place { host, path },
            connections: arguments.take("connections", connections)?.max(1),
            warm_up: Duration::try_from_secs_f64(arguments.take("warm-up", 0.5)?)?,
            measured: Duration::try_from_secs_f64(arguments.take("seconds", 3.0)?)?,
            barrier: arguments.flag("barrier"),
        })
    }

    /// Which version of HTTP is asked for. Over TLS that is agreed on by ALPN.
    pub fn take_version(&mut self, arguments: &mut Arguments) -> Outcome<Version> {
        let streams = arguments.take("streams", 8_usize)?.max(1);
        match (arguments.flag("h2"), arguments.flag("h3")) {
            (false, false) => Ok(Version::H1),
            (true, false) => {
                self.tls = self.tls.take().map(|config| wire::speaking(config, b"h2"));
                Ok(Version::H2 { streams })
            }
            (false, true) => Ok(Version::H3 { streams }),
            (true, true) => Err("--h2 or --h3, not both".into()),
        }
    }

    pub fn warm_up(&self) -> Duration {
        self.warm_up
    }

    pub fn measured(&self) -> Duration {
        self.measured
    }

    #[cfg(test)]
    pub fn brief(target: SocketAddrV4, connections: usize) -> Self {
        let place = Place { host: "localhost".into(), path: "/".into() };
        let (warm_up, measured) = (Duration::from_millis(20), Duration::from_millis(100));
        Self { target, tls: None, place, connections, warm_up, measured, barrier: false }
    }

    /// Stands still where a barrier is asked for.
    pub fn pause(&self, event: &str) -> Outcome<()> {
        if self.barrier {
            terminal::say(&format!("{{\"event\": \"{event}\"}}"))?;
            terminal::wait_for_line()?;
        }
        Ok(())
    }
}

/// A version of HTTP, and how many streams each connection has.
#[derive(Clone, Copy)]
pub enum Version {
    H1,
    H2 { streams: usize },
    H3 { streams: usize },
}

/// TLS, where an authority is named.
pub fn take_tls(arguments: &mut Arguments) -> Outcome<Option<Arc<ClientConfig>>> {
    let authority: PathBuf = arguments.take("ca", PathBuf::new())?;
    match authority.as_os_str().is_empty() {
        true => Ok(None),
        false => wire::client_config(&authority).map(Some).map_err(|error| format!("--ca: {error}").into()),
    }
}

/// What the measured window saw.
pub struct Report {
    pub operations: usize,
    pub seconds: f64,
    /// Nanoseconds, of the operations begun and completed in the window.
    pub latencies: Vec<u32>,
}

impl Report {
    pub fn say(mut self) -> Outcome<()> {
        self.latencies.sort_unstable();
        let (operations, seconds) = (self.operations, self.seconds);
        let throughput = operations as f64 / seconds;
        let [p50, p99] = [0.50, 0.99].map(|share| self.microseconds(share));
        terminal::say(&format!(
            "{{\"event\": \"report\", \"operations\": {operations}, \"seconds\": {seconds:.6}, \
             \"throughput\": {throughput:.1}, \"p50_us\": {p50:.1}, \"p99_us\": {p99:.1}}}"
        ))
    }

    /// The nearest-rank percentile of the sorted latencies.
    fn microseconds(&self, share: f64) -> f64 {
        let rank = (self.latencies.len() as f64 * share).ceil() as usize;
        self.latencies.get(rank.max(1) - 1).map_or(0.0, |latency| f64::from(*latency) / 1000.0)
    }
}

/// Runs the whole plan. `open` makes a connection ready for its first operation, non-blocking or not.
pub fn drive<C: Carrier>(plan: &Plan, mut open: impl FnMut(&mut Dialler) -> Outcome<(Wire, C)>) -> Outcome<Report> {
    let mut drive = Drive::new(plan, &mut open)?;
    drive.run(plan.warm_up)?;
    plan.pause("start")?;
    drive.reset();
    let seconds = drive.run(plan.measured)?.as_secs_f64();
    plan.pause("end")?;
    match drive.operations {
        0 => Err("not one operation was completed in the measured time".into()),
        operations => Ok(Report { operations, seconds, latencies: drive.latencies }),
    }
}

type Open<'a, C> = &'a mut dyn FnMut(&mut Dialler) -> Outcome<(Wire, C)>;

struct Drive<'a, C> {
    poll: Poll,
    dialler: Dialler,
    open: Open<'a, C>,
    seats: Vec<Seat<C>>,
    scratch: Vec<u8>,
    out: Vec<u8>,
    completed: Vec<usize>,
    since: Instant,
    operations: usize,
    latencies: Vec<u32>,
}

struct Seat<C> {
    link: Link,
    carrier: C,
    /// Of the operation in each lane.
    began: Vec<Instant>,
    finished: bool,
}

impl<'a, C: Carrier> Drive<'a, C> {
    fn new(plan: &Plan, open: Open<'a, C>) -> Outcome<Self> {
        let mut drive = Self {
            poll: Poll::new()?,
            dialler: Dialler::new(plan.target, plan.tls.clone()),
            open,
            seats: Vec::with_capacity(plan.connections),
            scratch: vec![0; SCRATCH],
            out: Vec::new(),
            completed: Vec::new(),
            since: Instant::now(),
            operations: 0,
            latencies: Vec::new(),
        };
        for index in 0..plan.connections {
            let seat = drive.seat(index)?;
            drive.seats.push(seat);
        }
        Ok(drive)
    }

    /// A new connection with its first operations begun.
    fn seat(&mut self, index: usize) -> Outcome<Seat<C>> {
        let began = Instant::now();
        let (wire, mut carrier) = (self.open)(&mut self.dialler)?;
        wire.stream().set_nonblocking(true)?;
        self.poll.add(wire.stream(), index as u64)?;
        let mut link = Link::new(wire);
        self.out.clear();
        for lane in 0..carrier.lanes() {
            carrier.begin(lane, &mut self.out);
        }
        link.send(&self.out)?;
        Ok(Seat { link, began: vec![began; carrier.lanes()], carrier, finished: false })
    }

    fn reset(&mut self) {
        self.since = Instant::now();
        self.operations = 0;
        self.latencies.clear();
    }

    /// Goes on for this long; returns how long it really was.
    fn run(&mut self, duration: Duration) -> Outcome<Duration> {
        let start = Instant::now();
        while let Some(left) = duration.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            for index in 0..self.poll.wait(Some(left))? {
                self.attend(self.poll.ready(index))?;
            }
        }
        let patience = PATIENCE.max(duration / 2);
        match self.seats.iter().flat_map(|seat| &seat.began).any(|began| began.elapsed() > patience) {
            true => Err(format!("an operation got no answer in {PATIENCE:?}").into()),
            false => Ok(start.elapsed()),
        }
    }

    fn attend(&mut self, ready: Ready) -> Outcome<()> {
        let index = ready.token as usize;
        let link = &mut self.seats[index].link;
        if ready.output && !link.is_flushed() {
            link.flush()?;
        }
        match ready.input {
            true => self.read(index, ready.ending),
            false => Ok(()),
        }
    }

    fn read(&mut self, index: usize, ending: bool) -> Outcome<()> {
        loop {
            match self.seats[index].link.receive(&mut self.scratch)? {
                Received::Bytes(count) => {
                    self.converse(index, count)?;
                    if self.seats[index].link.is_drained(count, self.scratch.len()) && !ending {
                        return Ok(());
                    }
                }
                Received::Nothing => return Ok(()),
                Received::End => return self.replace(index),
            }
        }
    }

    fn converse(&mut self, index: usize, count: usize) -> Outcome<()> {
        let seat = &mut self.seats[index];
        self.out.clear();
        self.completed.clear();
        seat.carrier.receive(&self.scratch[..count], &mut self.out, &mut self.completed)?;
        if !self.completed.is_empty() {
            let now = Instant::now();
            for lane in &self.completed {
                let began = std::mem::replace(&mut seat.began[*lane], now);
                seat.carrier.begin(*lane, &mut self.out);
                self.operations += 1;
                note(&mut self.latencies, began, now, self.since);
            }
        }
        seat.link.send(&self.out)?;
        if !seat.finished && seat.carrier.is_finished() {
            seat.finished = true;
            seat.link.finish();
        }
        Ok(())
    }

    fn replace(&mut self, index: usize) -> Outcome<()> {
        self.seats[index].carrier.end()?;
        self.operations += 1;
        note(&mut self.latencies, self.seats[index].began[0], Instant::now(), self.since);
        self.seats[index] = self.seat(index)?;
        Ok(())
    }
}

/// Only operations that were begun in the window tell how long one takes in it.
fn note(latencies: &mut Vec<u32>, began: Instant, now: Instant, since: Instant) {
    if began >= since {
        latencies.push((now - began).as_nanos().try_into().unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let report = |latencies: Vec<u32>| Report { operations: 1, seconds: 1.0, latencies };
        let hundred = report((1..=100).map(|rank| rank * 1000).collect());
        assert_eq!((hundred.microseconds(0.50), hundred.microseconds(0.99)), (50.0, 99.0));
        assert_eq!(report(vec![7000]).microseconds(0.99), 7.0);
        assert_eq!(report(vec![]).microseconds(0.99), 0.0);
    }
}
