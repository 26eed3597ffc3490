//! The upstream's part of one connection, without its socket: HTTP/1.1 requests, then perhaps WebSocket frames.

use crate::Outcome;
use crate::frame::{self, Header};
use crate::sha1::accept_key;
use crate::upgrade::{head_length, head_text, header, names};

/// The body of a plain answer, unless the path is `/bytes/SIZE`.
pub const BODY: &str = "tidegate-load\n";

/// The body of `size` bytes; 0 stands for the usual one.
pub fn body(size: usize) -> Vec<u8> {
    let size = if size == 0 { BODY.len() } else { size };
    BODY.bytes().cycle().take(size).collect()
}

/// The size that a request asks for.
fn size_wanted(head: &str) -> usize {
    let path = head.strip_prefix("GET /bytes/").and_then(|rest| rest.split(' ').next());
    path.and_then(|size| size.parse().ok()).unwrap_or(0)
}

enum Speaking {
    Http,
    WebSocket,
    /// Whatever it is, it goes back.
    Raw,
    /// The last answer is given; more input is ignored.
    Nothing,
}

pub struct Responder {
    speaking: Speaking,
    /// The part of a head or frame that came so far.
    kept: Vec<u8>,
    /// The body that was asked for last: most clients ask for the same again.
    body: Vec<u8>,
}

impl Responder {
    pub fn new() -> Self {
        Self { speaking: Speaking::Http, kept: Vec::new(), body: Vec::new() }
    }

    /// Knows no protocol and returns the bytes.
    pub fn raw() -> Self {
        Self { speaking: Speaking::Raw, ..Self::new() }
    }

    /// Past its handshake.
    #[cfg(test)]
    pub fn upgraded() -> Self {
        Self { speaking: Speaking::WebSocket, ..Self::new() }
    }

    /// Appends the answers. The input serves as scratch space.
    pub fn receive(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Outcome<()> {
        if self.kept.is_empty() {
            let used = self.consume(input, out)?;
            self.kept.extend_from_slice(&input[used..]);
            return Ok(());
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.extend_from_slice(input);
        let used = self.consume(&mut kept, out)?;
        kept.drain(..used);
        self.kept = kept;
        Ok(())
    }

    /// Whether the connection ends once the answers are out.
    pub fn is_finished(&self) -> bool {
        matches!(self.speaking, Speaking::Nothing)
    }

    fn consume(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Outcome<usize> {
        let mut used = 0;
        loop {
            let rest = &mut bytes[used..];
            let step = match self.speaking {
                Speaking::Http => self.answer_request(rest, out)?,
                Speaking::WebSocket => self.answer_frame(rest, out)?,
                Speaking::Raw => {
                    out.extend_from_slice(rest);
                    rest.len()
                }
                Speaking::Nothing => rest.len(),
            };
            used += step;
            if step == 0 || used == bytes.len() {
                return Ok(used);
            }
        }
    }

    fn answer_request(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Outcome<usize> {
        let Some(length) = head_length(bytes)? else { return Ok(0) };
        let head = head_text(&bytes[..length])?;
        if names(head, "upgrade", "websocket") {
            self.accept(head, out)?;
        } else {
            self.answer_plainly(head, out)?;
        }
        Ok(length)
    }

    fn accept(&mut self, head: &str, out: &mut Vec<u8>) -> Outcome<()> {
        let key = header(head, "sec-websocket-key").ok_or("a handshake without a key")?;
        let accept = accept_key(key);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        out.extend_from_slice(answer.as_bytes());
        self.speaking = Speaking::WebSocket;
        Ok(())
    }

    fn answer_plainly(&mut self, head: &str, out: &mut Vec<u8>) -> Outcome<()> {
        if !head.starts_with("GET ") || header(head, "transfer-encoding").is_some() {
            return Err(format!("only GET without a body is served: {head:?}").into());
        }
        let size = size_wanted(head);
        if self.body.len() != if size == 0 { BODY.len() } else { size } {
            self.body = body(size);
        }
        let length = self.body.len();
        let close = names(head, "connection", "close") || head.contains(" HTTP/1.0\r\n");
        let connection = if close { "Connection: close\r\n" } else { "" };
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{connection}\r\n");
        out.extend_from_slice(answer.as_bytes());
        out.extend_from_slice(&self.body);
        if close {
            self.speaking = Speaking::Nothing;
        }
        Ok(())
    }

    fn answer_frame(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Outcome<usize> {
        let Some(header) = Header::read(bytes)? else { return Ok(0) };
        let end = header.length + header.payload;
        if bytes.len() < end {
            return Ok(0);
        }
        let mask = header.mask.ok_or("a client's frame without a mask")?;
        let payload = &mut bytes[header.length..end];
        frame::apply_mask(payload, mask);
        match header.opcode() {
            frame::PING => frame::write_whole(out, frame::PONG, None, payload),
            frame::PONG => {}
            frame::CLOSE => self.close(payload, out),
            _ => frame::write(out, header.first, None, payload),
        }
        Ok(end)
    }

    /// The server is the one to close the TCP connection (RFC 6455 §7.1.1).
    fn close(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        frame::write_whole(out, frame::CLOSE, None, payload);
        self.speaking = Speaking::Nothing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: &str = "GET /any HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// Feeds the input in pieces of this size; returns all answers.
    fn conversation(input: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let (mut responder, mut out) = (Responder::new(), Vec::new());
        for piece in input.chunks(piece) {
            responder.receive(&mut piece.to_vec(), &mut out).unwrap();
        }
        (out, responder.is_finished())
    }

    #[test]
    fn frames_are_echoed_however_they_are_cut() {
        let mut input = HANDSHAKE.as_bytes().to_vec();
        frame::write(&mut input, 0x02, Some([1, 2, 3, 4]), b"first ");
        frame::write_whole(&mut input, frame::PING, Some([5, 6, 7, 8]), b"alive?");
        frame::write(&mut input, 0x80, Some([9, 9, 9, 9]), b"second");
        frame::write_whole(&mut input, frame::CLOSE, Some([1, 1, 1, 1]), &[3, 232]);
        let mut frames = Vec::new();
        frame::write(&mut frames, 0x02, None, b"first ");
        frame::write_whole(&mut frames, frame::PONG, None, b"alive?");
        frame::write(&mut frames, 0x80, None, b"second");
        frame::write_whole(&mut frames, frame::CLOSE, None, &[3, 232]);
        for piece in 1..=input.len() {
            let (out, finished) = conversation(&input, piece);
            let head = head_length(&out).unwrap().unwrap();
            assert!(out.starts_with(b"HTTP/1.1 101 ") && finished);
            assert_eq!(out[head..], frames);
        }
    }

    #[test]
    fn plain_requests_are_answered_and_may_be_kept() {
        let (out, finished) = conversation(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", 7);
        assert_eq!(String::from_utf8(out).unwrap().matches(BODY).count(), 2);
        assert!(!finished);
        assert!(conversation(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n", 99).1);
    }

    #[test]
    fn what_is_not_served_is_an_error() {
        let mut unmasked = HANDSHAKE.as_bytes().to_vec();
        frame::write_whole(&mut unmasked, frame::BINARY, None, b"no mask");
        for input in [b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_vec(), unmasked] {
            assert!(Responder::new().receive(&mut input.clone(), &mut Vec::new()).is_err());
        }
    }
}
