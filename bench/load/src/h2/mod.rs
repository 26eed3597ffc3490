//! Load over HTTP/2: a few connections with many streams each.
//!
//! The client is as small as an honest one can be. It reads of an answer's head what its first field says, which is the
//! status; it keeps to the peer's windows and gives it windows of a browser's size; whatever else a server may send to
//! a client that asked for it is an error.

mod connection;
mod frame;
mod hpack;
mod lanes;
#[cfg(test)]
mod round_trip;

use std::io::{Read, Write};

pub use self::lanes::{Requests, WebSockets};
use crate::Outcome;
use crate::wire::Wire;
use connection::{Connection, Event};

/// Sends what is in `out` and reads once; for the part before the measured one, where reading may block.
fn exchange(wire: &mut Wire, connection: &mut Connection, out: &mut Vec<u8>) -> Outcome<()> {
    wire.write_all(out)?;
    wire.flush()?;
    out.clear();
    let mut piece = [0; 4096];
    match wire.read(&mut piece).map_err(|error| format!("no answer over HTTP/2: {error}"))? {
        0 => Err("the peer closed the connection before an answer over HTTP/2".into()),
        count => {
            connection.take(&piece[..count]);
            Ok(())
        }
    }
}

/// Says hello, and returns when the peer has.
fn greet(wire: &mut Wire, out: &mut Vec<u8>) -> Outcome<Connection> {
    let mut connection = Connection::begin(out);
    while !connection.is_greeted() {
        exchange(wire, &mut connection, out)?;
        if connection.next(out)?.is_some() {
            return Err("an answer before a question".into());
        }
    }
    Ok(connection)
}

/// The next event, however long it takes.
fn await_event(wire: &mut Wire, connection: &mut Connection, out: &mut Vec<u8>) -> Outcome<Event> {
    loop {
        if let Some(event) = connection.next(out)? {
            return Ok(event);
        }
        exchange(wire, connection, out)?;
    }
}
