//! `idle`: opens many WebSockets and holds them, answering Pings, until standard input ends. With `--h2` so many share
//! a connection each.

use std::io::{self, Read};
use std::net::SocketAddrV4;

use crate::Outcome;
use crate::arguments::Arguments;
use crate::drive::take_tls;
use crate::echo::MASK;
use crate::frame::{self, Header};
use crate::h2;
use crate::link::{Link, Received};
use crate::poll::{Poll, Ready};
use crate::socket::Dialler;
use crate::terminal;
use crate::upgrade::{Place, Upgrade};
use crate::wire;

const INPUT: u64 = u64::MAX;

pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let target: SocketAddrV4 = arguments.need("target")?;
    let tls = take_tls(&mut arguments)?;
    let host = arguments.take("host-header", target.to_string())?;
    let place = Place { host, path: arguments.take("path", "/".to_owned())? };
    let (connections, streams) = (arguments.take("connections", 10_000)?, arguments.take("streams", 50_usize)?.max(1));
    let over_h2 = arguments.flag("h2");
    arguments.finish()?;
    let mut held = match over_h2 {
        false => open(&mut Dialler::new(target, tls), &place, connections)?,
        true => {
            let tls = tls.map(|config| wire::speaking(config, b"h2"));
            open_streams(&mut Dialler::new(target, tls), &place, connections, streams)?
        }
    };
    terminal::say(&format!("{{\"event\": \"open\", \"connections\": {connections}}}"))?;
    hold(&mut held)?;
    terminal::say(&format!("{{\"event\": \"report\", \"connections\": {connections}}}"))
}

/// A connection, and its WebSockets where it has more than one.
pub struct Held {
    link: Link,
    streams: Option<h2::WebSockets>,
}

/// Opens `total` WebSockets, `streams` on each connection.
pub fn open_streams(dialler: &mut Dialler, place: &Place, total: usize, streams: usize) -> Outcome<Vec<Held>> {
    (0..total)
        .step_by(streams)
        .map(|opened| {
            let mut wire = dialler.connect()?;
            let sockets = h2::WebSockets::open(&mut wire, place, streams.min(total - opened), 1)
                .map_err(|error| numbered(opened, &*error))?;
            wire.stream().set_nonblocking(true)?;
            Ok(Held { link: Link::new(wire), streams: Some(sockets) })
        })
        .collect()
}

/// Opens them one after the other, each with a whole handshake.
pub fn open(dialler: &mut Dialler, place: &Place, connections: usize) -> Outcome<Vec<Held>> {
    (0..connections).map(|index| open_one(dialler, place).map_err(|error| numbered(index, &*error))).collect()
}

fn open_one(dialler: &mut Dialler, place: &Place) -> Outcome<Held> {
    let mut wire = dialler.connect()?;
    Upgrade::new().perform(place, &mut wire)?;
    wire.stream().set_nonblocking(true)?;
    Ok(Held { link: Link::new(wire), streams: None })
}

fn numbered(index: usize, error: &dyn std::error::Error) -> Box<dyn std::error::Error> {
    format!("WebSocket {} of the idle ones: {error}", index + 1).into()
}

/// Returns when standard input ends; fails when a connection does.
fn hold(held: &mut [Held]) -> Outcome<()> {
    let mut poll = Poll::new()?;
    poll.add_level(io::stdin(), INPUT)
        .map_err(|error| format!("standard input must be a pipe or terminal: {error}"))?;
    for (held, token) in held.iter().zip(0..) {
        poll.add(held.link.stream(), token)?;
    }
    loop {
        for index in 0..poll.wait(None)? {
            match poll.ready(index) {
                Ready { token: INPUT, .. } if io::stdin().read(&mut [0; 64])? == 0 => return Ok(()),
                Ready { token: INPUT, .. } | Ready { input: false, .. } => {}
                ready => attend(&mut held[ready.token as usize])?,
            }
        }
    }
}

/// A gateway may ask whether we live. Anything else that comes unasked is an error.
fn attend(held: &mut Held) -> Outcome<()> {
    let (mut bytes, link) = ([0; 4096], &mut held.link);
    loop {
        match (link.receive(&mut bytes)?, &mut held.streams) {
            (Received::Bytes(count), None) => link.send(&pong(&bytes[..count])?)?,
            (Received::Bytes(count), Some(streams)) => {
                let mut out = Vec::new();
                streams.answer(&bytes[..count], &mut out, pong)?;
                link.send(&out)?;
            }
            (Received::Nothing, _) => return Ok(()),
            (Received::End, _) => return Err("an idle WebSocket was closed".into()),
        }
    }
}

/// The answer to a Ping, which is small enough to come in one piece.
fn pong(bytes: &[u8]) -> Outcome<Vec<u8>> {
    let mut answer = Vec::new();
    match Header::read(bytes)? {
        Some(ping) if ping.opcode() == frame::PING && ping.length + ping.payload == bytes.len() => {
            frame::write_whole(&mut answer, frame::PONG, Some(MASK), &bytes[ping.length..]);
            Ok(answer)
        }
        _ => Err(format!("not a Ping, on an idle WebSocket: {bytes:02x?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_answered_and_the_rest_is_refused() {
        assert_eq!(pong(&[0x89, 0]).unwrap(), [0x8a, 0x80, 0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(pong(&[0x89, 1, b'x']).unwrap(), [0x8a, 0x81, 0x37, 0xfa, 0x21, 0x3d, b'x' ^ 0x37]);
        assert!(pong(&[0x88, 2, 3, 232]).is_err());
        assert!(pong(&[0x89, 1]).is_err());
    }
}
