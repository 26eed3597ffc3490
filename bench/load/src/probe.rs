//! `probe`: how long an echo takes at an even pace, far below what the gateway could do.
//!
//! One echo at a time, each on the next of the WebSockets, at instants that are fixed beforehand. An echo whose instant
//! has come before the last one was back is timed from its instant: what made one late counts for all that it delayed.

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::arguments::Arguments;
use crate::drive::{Conversation, Report, take_tls};
use crate::echo::Echo;
use crate::socket::Dialler;
use crate::terminal;
use crate::upgrade::{Place, Upgrade};
use crate::wire::Wire;

/// One of the WebSockets.
pub struct Probe {
    wire: Wire,
    echo: Echo,
}

pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let target: SocketAddrV4 = arguments.need("target")?;
    let mut dialler = Dialler::new(target, take_tls(&mut arguments)?);
    let host = arguments.take("host-header", target.to_string())?;
    let place = Place { host, path: arguments.take("path", "/".to_owned())? };
    let connections = arguments.take("connections", 40_usize)?.max(1);
    let (size, rate) = (arguments.take("size", 128)?, arguments.take("rate", 400.0)?);
    arguments.finish()?;
    let mut probes = (0..connections).map(|_| open(&mut dialler, &place, size)).collect::<Outcome<Vec<_>>>()?;
    let pace = Duration::try_from_secs_f64(1.0 / rate)?;
    terminal::say(&format!("{{\"event\": \"open\", \"connections\": {connections}}}"))?;
    for line in io::stdin().lock().lines() {
        run(&mut probes, pace, Duration::try_from_secs_f64(line?.trim().parse()?)?)?.say()?;
    }
    // Each one more time: none was lost.
    probes.iter_mut().try_for_each(Probe::echo)
}

pub fn open(dialler: &mut Dialler, place: &Place, size: usize) -> Outcome<Probe> {
    let mut wire = dialler.connect()?;
    Upgrade::new().perform(place, &mut wire)?;
    Ok(Probe { wire, echo: Echo::new(size) })
}

pub fn run(probes: &mut [Probe], pace: Duration, duration: Duration) -> Outcome<Report> {
    let (start, mut latencies) = (Instant::now(), Vec::new());
    let rounds = (duration.as_nanos() / pace.as_nanos().max(1)) as u32;
    for round in 0..rounds {
        let began = wait_for(start + pace * round);
        probes[round as usize % probes.len()].echo()?;
        latencies.push(began.elapsed().as_nanos().try_into().unwrap_or(u32::MAX));
    }
    Ok(Report { operations: latencies.len(), seconds: start.elapsed().as_secs_f64(), latencies })
}

/// Returns the instant, or, if that was still to come, when we woke: a sleep that took longer is nobody's delay.
fn wait_for(instant: Instant) -> Instant {
    match instant.checked_duration_since(Instant::now()) {
        None => instant,
        Some(left) => {
            std::thread::sleep(left);
            Instant::now()
        }
    }
}

impl Probe {
    /// There and back.
    fn echo(&mut self) -> Outcome<()> {
        let (mut out, mut scratch) = (Vec::new(), [0; 4096]);
        self.echo.begin(&mut out);
        self.wire.write_all(&out)?;
        self.wire.flush()?;
        loop {
            match self.wire.read(&mut scratch)? {
                0 => return Err("a WebSocket was closed".into()),
                count if self.echo.receive(&scratch[..count], &mut out)? => return Ok(()),
                _ => {}
            }
        }
    }
}
