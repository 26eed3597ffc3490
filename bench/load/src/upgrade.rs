//! The client's side of the opening handshake (RFC 6455 §4.1), and what both sides need of HTTP/1.1.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};

use crate::Outcome;
use crate::sha1::{accept_key, base64};

/// A head longer than this is not one of ours.
const LONGEST_HEAD: usize = 16 << 10;

/// Where to, as the request says it.
#[derive(Clone)]
pub struct Place {
    pub host: String,
    pub path: String,
}

/// One attempt: the key we sent and the answer it must get.
pub struct Upgrade {
    key: String,
}

impl Upgrade {
    pub fn new() -> Self {
        Self { key: base64(&random_bytes()) }
    }

    pub fn write_request(&self, place: &Place, out: &mut Vec<u8>) {
        let Place { host, path } = place;
        let key = &self.key;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
    }

    /// Checks status, upgrade and proof.
    pub fn check(&self, head: &str) -> Outcome<()> {
        let accepted = header(head, "sec-websocket-accept") == Some(accept_key(&self.key).as_str());
        let upgraded = names(head, "upgrade", "websocket") && names(head, "connection", "upgrade");
        match head.starts_with("HTTP/1.1 101 ") && accepted && upgraded {
            true => Ok(()),
            false => Err(format!("not the handshake answer expected: {head:?}").into()),
        }
    }

    /// The whole exchange on a blocking connection.
    pub fn perform(&self, place: &Place, stream: &mut (impl Read + Write)) -> Outcome<()> {
        let mut bytes = Vec::new();
        self.write_request(place, &mut bytes);
        stream.write_all(&bytes)?;
        bytes.clear();
        let length = loop {
            let mut piece = [0; 1024];
            match stream.read(&mut piece).map_err(|error| format!("no handshake answer: {error}"))? {
                0 => return Err("the peer closed the connection during the handshake".into()),
                count => bytes.extend_from_slice(&piece[..count]),
            }
            if let Some(length) = head_length(&bytes)? {
                break length;
            }
        };
        match length == bytes.len() {
            true => self.check(head_text(&bytes)?),
            false => Err("bytes nobody asked for came after the handshake answer".into()),
        }
    }
}

/// 16 bytes that differ from attempt to attempt. A test needs no better randomness than the hash seeds.
fn random_bytes() -> [u8; 16] {
    let state = RandomState::new();
    let half = |side: u8| {
        let mut hasher = state.build_hasher();
        hasher.write_u8(side);
        hasher.finish()
    };
    (u128::from(half(0)) << 64 | u128::from(half(1))).to_be_bytes()
}

/// The length of the head with its empty line, once it is whole.
pub fn head_length(bytes: &[u8]) -> Outcome<Option<usize>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    match end {
        None if bytes.len() > LONGEST_HEAD => Err("a head without an end".into()),
        end => Ok(end.map(|end| end + 4)),
    }
}

pub fn head_text(bytes: &[u8]) -> Outcome<&str> {
    std::str::from_utf8(bytes).map_err(|_| "a head that is not text".into())
}

/// The value of the first header of that name, which is given in lower case.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Whether a header of a comma-separated list names a token.
pub fn names(head: &str, name: &str, token: &str) -> bool {
    header(head, name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn only_the_right_answer_passes() {
        let upgrade = Upgrade { key: "dGhlIHNhbXBsZSBub25jZQ==".into() };
        assert!(upgrade.check(ANSWER).is_ok());
        for (good, bad) in [("101", "200"), ("s3pP", "S3pP"), ("WebSocket", "h2c"), ("keep-alive, Upgrade", "close")] {
            assert!(upgrade.check(&ANSWER.replace(good, bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_differ() {
        assert_ne!(Upgrade::new().key, Upgrade::new().key);
        assert_eq!(Upgrade::new().key.len(), 24);
    }

    #[test]
    fn heads_end_at_the_empty_line() {
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r").unwrap(), None);
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r\nrest").unwrap(), Some(18));
        assert!(head_length(&[b'a'; LONGEST_HEAD + 1]).is_err());
    }
}
