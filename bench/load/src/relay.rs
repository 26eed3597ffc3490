//! `relay`: the floor. What epoll, two reads and two writes an echo cost when nobody looks at the bytes.
//!
//! It has backpressure (one side is not read while the other has bytes waiting) and passes on the end of each side,
//! for a relay without these would not be a floor that a gateway could reach.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use crate::Outcome;
use crate::arguments::Arguments;
use crate::link::{Link, Received};
use crate::poll::{Poll, Ready};
use crate::serve::announce;
use crate::slots::Slots;
use crate::socket;

const LISTENER: u64 = u64::MAX;
const SCRATCH: usize = 64 << 10;

pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let bind: SocketAddrV4 = arguments.take("bind", "127.0.0.1:0".parse()?)?;
    let upstream = arguments.need("to")?;
    arguments.finish()?;
    let listener = socket::listen(bind)?;
    announce(&listener)?;
    run(listener, upstream)
}

/// Relays until the process is ended.
pub fn run(listener: OwnedFd, upstream: SocketAddrV4) -> Outcome<()> {
    let poll = Poll::new()?;
    poll.add_level(&listener, LISTENER)?;
    let mut relay = Relay { listener, upstream, poll, pairs: Slots::new(), scratch: vec![0; SCRATCH] };
    loop {
        relay.turn()?;
    }
}

struct Relay {
    listener: OwnedFd,
    upstream: SocketAddrV4,
    poll: Poll,
    pairs: Slots<Pair>,
    scratch: Vec<u8>,
}

/// The client and its upstream. The epoll token is the pair's place, doubled, plus one for the upstream.
struct Pair {
    sides: [Side; 2],
}

struct Side {
    link: Link,
    ended: bool,
}

impl Relay {
    fn turn(&mut self) -> Outcome<()> {
        for index in 0..self.poll.wait(None)? {
            match self.poll.ready(index) {
                Ready { token: LISTENER, .. } => self.accept()?,
                ready => self.attend(ready),
            }
        }
        self.pairs.recycle();
        Ok(())
    }

    fn accept(&mut self) -> Outcome<()> {
        while let Some(client) = socket::accept(&self.listener)? {
            let streams = [client, socket::dial(self.upstream)?];
            let sides = streams.map(|stream| Side { link: Link::new(stream), ended: false });
            let index = self.pairs.insert(Pair { sides });
            let Some(Pair { sides }) = self.pairs.get_mut(index) else { continue };
            for (side, token) in sides.iter().zip(2 * index as u64..) {
                self.poll.add(side.link.stream(), token)?;
            }
        }
        Ok(())
    }

    fn attend(&mut self, ready: Ready) {
        let index = ready.token as usize / 2;
        let Some(pair) = self.pairs.get_mut(index) else { return };
        let broken = pair.attend(ready, &mut self.scratch).is_err(); // a reset of one side is an end of both
        if broken || pair.sides.iter().all(|side| side.ended) {
            self.pairs.remove(index);
        }
    }
}

impl Pair {
    fn attend(&mut self, ready: Ready, scratch: &mut [u8]) -> std::io::Result<()> {
        let [client, upstream] = &mut self.sides;
        let (near, far) = if ready.token.is_multiple_of(2) { (client, upstream) } else { (upstream, client) };
        if ready.output && !near.link.is_flushed() {
            near.link.flush()?;
            transfer(far, near, scratch, true)?; // its edge came and went while it was not read
        }
        match ready.input {
            true => transfer(near, far, scratch, ready.ending),
            false => Ok(()),
        }
    }
}

/// Reads until the socket is empty or the other side takes no more. After a short read it is empty, unless `ending`.
fn transfer(from: &mut Side, to: &mut Side, scratch: &mut [u8], ending: bool) -> std::io::Result<()> {
    while !from.ended && to.link.is_flushed() {
        match from.link.receive(scratch)? {
            Received::Bytes(count) => {
                to.link.send(&scratch[..count])?;
                if count < scratch.len() && !ending {
                    break;
                }
            }
            Received::Nothing => break,
            Received::End => {
                from.ended = true;
                if !to.ended {
                    to.link.finish(); // else both are closed at once
                }
            }
        }
    }
    Ok(())
}
