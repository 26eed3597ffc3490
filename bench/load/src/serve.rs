//! `serve`: the upstream behind every gateway, an echo for WebSockets and a small answer for plain requests, or, with
//! `--raw`, an echo of whatever bytes come.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use crate::Outcome;
use crate::arguments::Arguments;
use crate::link::{Link, Received};
use crate::poll::{Poll, Ready};
use crate::responder::Responder;
use crate::slots::Slots;
use crate::{socket, terminal};

const LISTENER: u64 = u64::MAX;
const SCRATCH: usize = 128 << 10;

pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let bind: SocketAddrV4 = arguments.take("bind", "127.0.0.1:0".parse()?)?;
    let respond = if arguments.flag("raw") { Responder::raw } else { Responder::new };
    arguments.finish()?;
    let listener = socket::listen(bind)?;
    announce(&listener)?;
    run(listener, respond)
}

/// Tells the starter which port the kernel gave.
pub fn announce(listener: &OwnedFd) -> Outcome<()> {
    let port = socket::local_address(listener)?.port();
    terminal::say(&format!("{{\"event\": \"listening\", \"port\": {port}}}"))
}

/// Serves until the process is ended, every connection by what `respond` makes.
pub fn run(listener: OwnedFd, respond: fn() -> Responder) -> Outcome<()> {
    let poll = Poll::new()?;
    poll.add_level(&listener, LISTENER)?;
    let (clients, scratch, out) = (Slots::new(), vec![0; SCRATCH], Vec::new());
    let mut server = Server { listener, respond, poll, clients, scratch, out, complained: false };
    loop {
        server.turn()?;
    }
}

struct Server {
    listener: OwnedFd,
    respond: fn() -> Responder,
    poll: Poll,
    clients: Slots<Client>,
    scratch: Vec<u8>,
    out: Vec<u8>,
    complained: bool,
}

struct Client {
    link: Link,
    responder: Responder,
}

impl Server {
    fn turn(&mut self) -> Outcome<()> {
        for index in 0..self.poll.wait(None)? {
            match self.poll.ready(index) {
                Ready { token: LISTENER, .. } => self.accept()?,
                ready => self.attend(ready),
            }
        }
        self.clients.recycle();
        Ok(())
    }

    fn accept(&mut self) -> Outcome<()> {
        while let Some(stream) = socket::accept(&self.listener)? {
            let index = self.clients.insert(Client { link: Link::new(stream), responder: (self.respond)() });
            if let Some(client) = self.clients.get_mut(index) {
                self.poll.add(client.link.stream(), index as u64)?;
            }
        }
        Ok(())
    }

    /// Whatever goes wrong with one client ends that client. Resets are how load ends; bad bytes are said aloud (once:
    /// ten thousand connections may end alike), for the gateway between sent them.
    fn attend(&mut self, ready: Ready) {
        let index = ready.token as usize;
        let Some(client) = self.clients.get_mut(index) else { return };
        let alive = client.attend(ready, &mut self.scratch, &mut self.out).unwrap_or_else(|error| {
            if !error.is::<io::Error>() && !std::mem::replace(&mut self.complained, true) {
                terminal::complain(&format!("tidegate-load serve: {error} (said once)"));
            }
            false
        });
        if !alive {
            self.clients.remove(index);
        }
    }
}

impl Client {
    /// Returns whether the connection goes on.
    fn attend(&mut self, ready: Ready, scratch: &mut [u8], out: &mut Vec<u8>) -> Outcome<bool> {
        if ready.output && !self.link.is_flushed() {
            self.link.flush()?;
        }
        while ready.input && !self.responder.is_finished() {
            match self.link.receive(scratch)? {
                Received::Bytes(count) => {
                    self.answer(&mut scratch[..count], out)?;
                    if count < scratch.len() && !ready.ending {
                        break;
                    }
                }
                Received::Nothing => break,
                Received::End => return Ok(false),
            }
        }
        Ok(!(self.responder.is_finished() && self.link.is_flushed()))
    }

    fn answer(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Outcome<()> {
        out.clear();
        self.responder.receive(input, out)?;
        Ok(self.link.send(out)?)
    }
}
