//! `idle`: opens many WebSockets and holds them, answering Pings, until standard input ends.

use std::io::{self, Read};
use std::net::SocketAddrV4;

use crate::Outcome;
use crate::arguments::Arguments;
use crate::drive::take_tls;
use crate::echo::MASK;
use crate::frame::{self, Header};
use crate::link::{Link, Received};
use crate::poll::{Poll, Ready};
use crate::socket::Dialler;
use crate::terminal;
use crate::upgrade::{Place, Upgrade};

const INPUT: u64 = u64::MAX;

pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let target: SocketAddrV4 = arguments.need("target")?;
    let mut dialler = Dialler::new(target, take_tls(&mut arguments)?);
    let host = arguments.take("host-header", target.to_string())?;
    let place = Place { host, path: arguments.take("path", "/".to_owned())? };
    let connections = arguments.take("connections", 10_000)?;
    arguments.finish()?;
    let mut links = open(&mut dialler, &place, connections)?;
    terminal::say(&format!("{{\"event\": \"open\", \"connections\": {connections}}}"))?;
    hold(&mut links)?;
    terminal::say(&format!("{{\"event\": \"report\", \"connections\": {connections}}}"))
}

/// Opens them one after the other, each with a whole handshake.
pub fn open(dialler: &mut Dialler, place: &Place, connections: usize) -> Outcome<Vec<Link>> {
    (0..connections).map(|index| open_one(dialler, place).map_err(|error| numbered(index, &*error))).collect()
}

fn open_one(dialler: &mut Dialler, place: &Place) -> Outcome<Link> {
    let mut wire = dialler.connect()?;
    Upgrade::new().perform(place, &mut wire)?;
    wire.stream().set_nonblocking(true)?;
    Ok(Link::new(wire))
}

fn numbered(index: usize, error: &dyn std::error::Error) -> Box<dyn std::error::Error> {
    format!("WebSocket {} of the idle ones: {error}", index + 1).into()
}

/// Returns when standard input ends; fails when a connection does.
fn hold(links: &mut [Link]) -> Outcome<()> {
    let mut poll = Poll::new()?;
    poll.add_level(io::stdin(), INPUT)
        .map_err(|error| format!("standard input must be a pipe or terminal: {error}"))?;
    for (link, token) in links.iter().zip(0..) {
        poll.add(link.stream(), token)?;
    }
    loop {
        for index in 0..poll.wait(None)? {
            match poll.ready(index) {
                Ready { token: INPUT, .. } if io::stdin().read(&mut [0; 64])? == 0 => return Ok(()),
                Ready { token: INPUT, .. } | Ready { input: false, .. } => {}
                ready => attend(&mut links[ready.token as usize])?,
            }
        }
    }
}

/// A gateway may ask whether we live. Anything else that comes unasked is an error.
fn attend(link: &mut Link) -> Outcome<()> {
    let mut bytes = [0; 256];
    match link.receive(&mut bytes)? {
        Received::Bytes(count) => Ok(link.send(&pong(&bytes[..count])?)?),
        Received::Nothing => Ok(()),
        Received::End => Err("an idle WebSocket was closed".into()),
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
