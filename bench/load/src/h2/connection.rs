//! A client's connection without its socket: frames in, events and frames out, both directions within their windows
//! (RFC 9113 §5.2).

use std::ops::Range;

use super::frame::{self, Frame};
use super::hpack;
use crate::Outcome;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the protocol gives before anyone says otherwise.
const DEFAULT_WINDOW: i64 = 65_535;
/// What we give: a browser's.
const STREAM_WINDOW: u32 = 6 << 20;
const CONNECTION_WINDOW: u32 = 15 << 20;

/// What a peer said about a stream.
#[derive(Debug)]
pub enum Event {
    /// The head of its answer, which is a 200.
    Head { stream: u32, ended: bool },
    /// Bytes, to be had with [`Connection::bytes`] until the next event is asked for.
    Data { stream: u32, range: Range<usize>, ended: bool },
}

pub struct Connection {
    kept: Vec<u8>,
    used: usize,
    greeted: bool,
    /// The peer takes WebSockets (RFC 8441 §3).
    pub extended_connect: bool,
    streams: Vec<Stream>,
    next_stream: u32,
    /// What we may send.
    window: i64,
    initial_window: i64,
    largest: usize,
    /// What came since we last told the peer that it may send more.
    received: u32,
}

struct Stream {
    id: u32,
    window: i64,
    received: u32,
    unsent: Vec<u8>,
}

impl Connection {
    /// Our first words.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        let mut settings = Vec::new();
        for (name, value) in [(frame::ENABLE_PUSH, 0), (frame::INITIAL_WINDOW_SIZE, STREAM_WINDOW)] {
            settings.extend_from_slice(&u16::to_be_bytes(name));
            settings.extend_from_slice(&u32::to_be_bytes(value));
        }
        frame::write(out, frame::SETTINGS, 0, 0, &settings);
        widen(out, 0, CONNECTION_WINDOW - DEFAULT_WINDOW as u32);
        Self {
            kept: Vec::new(),
            used: 0,
            greeted: false,
            extended_connect: false,
            streams: Vec::new(),
            next_stream: 1,
            window: DEFAULT_WINDOW,
            initial_window: DEFAULT_WINDOW,
            largest: 16 << 10,
            received: 0,
        }
    }

    /// Whether the peer has told its settings.
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Opens a stream.
    pub fn open(&mut self, block: &[u8], ended: bool, out: &mut Vec<u8>) -> u32 {
        let id = self.next_stream;
        self.next_stream += 2;
        let flags = frame::END_HEADERS | if ended { frame::END_STREAM } else { 0 };
        frame::write(out, frame::HEADERS, flags, id, block);
        self.streams.push(Stream { id, window: self.initial_window, received: 0, unsent: Vec::new() });
        id
    }

    /// Sends bytes on a stream, now or when the windows let them.
    pub fn send(&mut self, id: u32, bytes: &[u8], out: &mut Vec<u8>) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            stream.unsent.extend_from_slice(bytes);
            stream.push(&mut self.window, self.largest, out);
        }
    }

    /// Takes what came; [`Connection::next`] tells what it was.
    pub fn take(&mut self, input: &[u8]) {
        self.kept.drain(..self.used);
        self.used = 0;
        self.kept.extend_from_slice(input);
    }

    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.kept[range]
    }

    /// What the next frame says that concerns a stream. Frames about the connection are answered here.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Outcome<Option<Event>> {
        while let Some(frame) = Frame::read(&self.kept[self.used..]) {
            let range = self.used + frame::HEADER..self.used + frame::HEADER + frame.length;
            if self.kept.len() < range.end {
                break;
            }
            self.used = range.end;
            if let Some(event) = self.attend(frame, range, out)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn attend(&mut self, frame: Frame, range: Range<usize>, out: &mut Vec<u8>) -> Outcome<Option<Event>> {
        let payload = &self.kept[range.clone()];
        let (stream, ended) = (frame.stream, frame.has(frame::END_STREAM));
        match frame.kind {
            frame::DATA | frame::HEADERS if frame.has(frame::PADDED | frame::PRIORITY) => {
                return Err("a frame with padding or a priority".into());
            }
            frame::HEADERS if frame.has(frame::END_HEADERS) => {
                hpack::check_ok(payload)?;
                self.close_if(stream, ended);
                return Ok(Some(Event::Head { stream, ended }));
            }
            frame::DATA => {
                self.count(stream, frame.length as u32, out);
                self.close_if(stream, ended);
                return Ok(Some(Event::Data { stream, range, ended }));
            }
            frame::SETTINGS if !frame.has(frame::ACK) => {
                let settings: Vec<_> = frame::settings(payload).collect();
                self.agree(&settings, out)?;
            }
            frame::PING if !frame.has(frame::ACK) => frame::write(out, frame::PING, frame::ACK, 0, payload),
            frame::WINDOW_UPDATE => {
                let more = i64::from(frame::number(payload));
                self.widened(stream, more, out);
            }
            frame::SETTINGS | frame::PING => {}
            frame::RST_STREAM => {
                let code = frame::number(payload);
                return Err(format!("stream {stream} was reset with code {code}").into());
            }
            frame::GOAWAY => {
                let code = frame::number(payload.get(4..).unwrap_or_default());
                return Err(format!("the peer ends the connection with code {code}").into());
            }
            other => return Err(format!("a frame of type {other}, flags {}", frame.flags).into()),
        }
        Ok(None)
    }

    fn agree(&mut self, settings: &[(u16, u32)], out: &mut Vec<u8>) -> Outcome<()> {
        self.greeted = true;
        for (name, value) in settings {
            match *name {
                frame::HEADER_TABLE_SIZE if *value < hpack::TABLE_NEEDED => {
                    return Err("the peer keeps no table for our heads".into());
                }
                frame::MAX_FRAME_SIZE => self.largest = *value as usize,
                frame::ENABLE_CONNECT_PROTOCOL => self.extended_connect = *value == 1,
                frame::INITIAL_WINDOW_SIZE => {
                    let change = i64::from(*value) - std::mem::replace(&mut self.initial_window, i64::from(*value));
                    self.streams.iter_mut().for_each(|stream| stream.window += change);
                }
                _ => {}
            }
        }
        frame::write(out, frame::SETTINGS, frame::ACK, 0, &[]);
        self.push_all(out);
        Ok(())
    }

    fn widened(&mut self, id: u32, more: i64, out: &mut Vec<u8>) {
        match self.streams.iter_mut().find(|stream| stream.id == id) {
            Some(stream) => {
                stream.window += more;
                stream.push(&mut self.window, self.largest, out);
            }
            None if id == 0 => {
                self.window += more;
                self.push_all(out);
            }
            None => {}
        }
    }

    fn push_all(&mut self, out: &mut Vec<u8>) {
        for stream in &mut self.streams {
            stream.push(&mut self.window, self.largest, out);
        }
    }

    /// Gives the peer room again when half of it is used.
    fn count(&mut self, id: u32, length: u32, out: &mut Vec<u8>) {
        self.received += length;
        if self.received > CONNECTION_WINDOW / 2 {
            widen(out, 0, std::mem::take(&mut self.received));
        }
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return };
        stream.received += length;
        if stream.received > STREAM_WINDOW / 2 {
            widen(out, id, std::mem::take(&mut stream.received));
        }
    }

    fn close_if(&mut self, id: u32, ended: bool) {
        if ended {
            self.streams.retain(|stream| stream.id != id);
        }
    }
}

impl Stream {
    fn push(&mut self, connection: &mut i64, largest: usize, out: &mut Vec<u8>) {
        let mut sent = 0;
        while sent < self.unsent.len() {
            let room = self.window.min(*connection).max(0) as usize;
            let length = room.min(largest).min(self.unsent.len() - sent);
            if length == 0 {
                break;
            }
            frame::write(out, frame::DATA, 0, self.id, &self.unsent[sent..sent + length]);
            sent += length;
            self.window -= length as i64;
            *connection -= length as i64;
        }
        self.unsent.drain(..sent);
    }
}

fn widen(out: &mut Vec<u8>, stream: u32, more: u32) {
    frame::write(out, frame::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_sent_than_the_windows_let() {
        let mut connection = Connection::begin(&mut Vec::new());
        let (mut out, mut sent) = (Vec::new(), Vec::new());
        let id = connection.open(&[], false, &mut out);
        out.clear();
        connection.send(id, &vec![7; 70_000], &mut sent);
        assert_eq!(sent.len(), 65_535 + 4 * frame::HEADER);
        let mut input = Vec::new();
        widen(&mut input, id, 10_000);
        connection.take(&input);
        assert!(connection.next(&mut out).unwrap().is_none() && out.is_empty(), "the connection's window is used up");
        input.clear();
        widen(&mut input, 0, 3);
        connection.take(&input);
        assert!(connection.next(&mut out).unwrap().is_none());
        assert_eq!(out[frame::HEADER..], [7; 3]);
    }

    #[test]
    fn ends_of_all_kinds_are_errors() {
        for (kind, payload) in [(frame::RST_STREAM, vec![0, 0, 0, 8]), (frame::GOAWAY, vec![0; 8])] {
            let mut connection = Connection::begin(&mut Vec::new());
            let mut input = Vec::new();
            frame::write(&mut input, kind, 0, 1, &payload);
            connection.take(&input);
            assert!(connection.next(&mut Vec::new()).is_err());
        }
    }
}
