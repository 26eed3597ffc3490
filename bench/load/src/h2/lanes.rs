//! What the streams of one connection do: WebSockets that stay, or one request after the other in each lane.

use super::connection::{Connection, Event};
use super::{await_event, greet, hpack};
use crate::Outcome;
use crate::drive::{Carrier, Conversation};
use crate::echo::Echo;
use crate::responder::body;
use crate::upgrade::Place;
use crate::wire::Wire;

/// WebSockets over one connection (RFC 8441), a lane each.
pub struct WebSockets {
    connection: Connection,
    lanes: Vec<(u32, Echo)>,
    /// What is to go out on a stream.
    message: Vec<u8>,
}

impl WebSockets {
    /// Opens them, one after the other.
    pub fn open(wire: &mut Wire, place: &Place, count: usize, size: usize) -> Outcome<Self> {
        let mut out = Vec::new();
        let mut connection = greet(wire, &mut out)?;
        if !connection.extended_connect {
            return Err("the peer takes no WebSockets over HTTP/2".into());
        }
        let block = hpack::connect(place, wire.is_secure());
        let mut lanes = Vec::with_capacity(count);
        for _ in 0..count {
            let id = connection.open(&block, false, &mut out);
            match await_event(wire, &mut connection, &mut out)? {
                Event::Head { stream, ended: false } if stream == id => lanes.push((id, Echo::new(size))),
                event => return Err(format!("not the handshake answer expected: {event:?}").into()),
            }
        }
        std::io::Write::write_all(wire, &out)?;
        std::io::Write::flush(wire)?;
        Ok(Self { connection, lanes, message: Vec::new() })
    }
}

impl WebSockets {
    /// Takes what came for WebSockets that say nothing themselves, and sends what `reply` makes of each message.
    pub fn answer(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        reply: impl Fn(&[u8]) -> Outcome<Vec<u8>>,
    ) -> Outcome<()> {
        self.connection.take(input);
        while let Some(event) = self.connection.next(out)? {
            let Event::Data { stream, range, ended: false } = event else {
                return Err(format!("a WebSocket was ended: {event:?}").into());
            };
            let answer = reply(self.connection.bytes(range))?;
            self.connection.send(stream, &answer, out);
        }
        Ok(())
    }
}

impl Carrier for WebSockets {
    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn begin(&mut self, lane: usize, out: &mut Vec<u8>) {
        let (id, echo) = &mut self.lanes[lane];
        self.message.clear();
        Conversation::begin(echo, &mut self.message);
        self.connection.send(*id, &self.message, out);
    }

    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>, completed: &mut Vec<usize>) -> Outcome<()> {
        self.connection.take(input);
        while let Some(event) = self.connection.next(out)? {
            let Event::Data { stream, range, ended: false } = event else {
                return Err(format!("a WebSocket was ended: {event:?}").into());
            };
            let lane = self.lanes.iter().position(|(id, _)| *id == stream).ok_or("bytes of an unknown stream")?;
            if Conversation::receive(&mut self.lanes[lane].1, self.connection.bytes(range), out)? {
                completed.push(lane);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Outcome<()> {
        Err("the peer closed a connection".into())
    }

    fn is_finished(&self) -> bool {
        false
    }
}

/// GETs over one connection, one at a time in each lane.
pub struct Requests {
    connection: Connection,
    place: Place,
    secure: bool,
    /// The peer's table has our fields.
    known: bool,
    body: Vec<u8>,
    /// Each lane's stream, and how much of its answer has come.
    lanes: Vec<(u32, usize)>,
}

impl Requests {
    /// `size` is that of the body asked for; 0 asks for the upstream's usual small one.
    pub fn open(wire: &mut Wire, place: &Place, count: usize, size: usize) -> Outcome<Self> {
        let mut out = Vec::new();
        let connection = greet(wire, &mut out)?;
        std::io::Write::write_all(wire, &out)?;
        std::io::Write::flush(wire)?;
        let path = if size == 0 { place.path.clone() } else { format!("/bytes/{size}") };
        let place = Place { host: place.host.clone(), path };
        let (secure, lanes) = (wire.is_secure(), vec![(0, 0); count]);
        Ok(Self { connection, place, secure, known: false, body: body(size), lanes })
    }

    fn receive_body(&mut self, lane: usize, range: std::ops::Range<usize>, ended: bool) -> Outcome<bool> {
        let (_, matched) = &mut self.lanes[lane];
        let bytes = self.connection.bytes(range);
        if !self.body[*matched..].starts_with(bytes) {
            return Err("an answer with another body than the upstream's".into());
        }
        *matched += bytes.len();
        match ended && *matched < self.body.len() {
            true => Err("an answer that ends before its body does".into()),
            false => Ok(ended),
        }
    }
}

impl Carrier for Requests {
    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn begin(&mut self, lane: usize, out: &mut Vec<u8>) {
        let block = hpack::get(&self.place, self.secure, std::mem::replace(&mut self.known, true));
        self.lanes[lane] = (self.connection.open(&block, true, out), 0);
    }

    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>, completed: &mut Vec<usize>) -> Outcome<()> {
        self.connection.take(input);
        while let Some(event) = self.connection.next(out)? {
            let (Event::Head { stream, ended } | Event::Data { stream, ended, .. }) = event;
            let lane = self.lanes.iter().position(|(id, _)| *id == stream).ok_or("an answer that nobody asked for")?;
            let range = if let Event::Data { range, .. } = event { range } else { 0..0 };
            if self.receive_body(lane, range, ended)? {
                completed.push(lane);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Outcome<()> {
        Err("the peer closed a connection".into())
    }

    fn is_finished(&self) -> bool {
        false
    }
}
