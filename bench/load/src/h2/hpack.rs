//! Heads of requests, and the status of an answer (RFC 7541).
//!
//! The first request puts its fields in the peer's dynamic table; those that follow name them by their index, as every
//! browser does. Of an answer only the first field is read, which is the status.

use crate::Outcome;
use crate::upgrade::Place;

/// What four fields of ours take of the peer's table is less.
pub const TABLE_NEEDED: u32 = 1024;

const GET: u8 = 0x82;
const HTTP: u8 = 0x86;
const HTTPS: u8 = 0x87;
/// A literal that goes into the table; its name's index in the static table is added.
const INDEXED_LITERAL: u8 = 0x40;
/// The fields of that head, pseudo-fields first; the newest entry of the table is 62 (RFC 7541 §2.3.3).
const IN_TABLE: [u8; 4] = [0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
const OK: u8 = 0x88;

/// The head of a GET. `known`: the one before it was the same.
pub fn get(place: &Place, secure: bool, known: bool) -> Vec<u8> {
    let mut block = vec![GET, scheme(secure)];
    if known {
        block.extend_from_slice(&IN_TABLE);
        return block;
    }
    for (index, value) in [(1, &*place.host), (4, &*place.path), (19, "*/*"), (58, "tidegate-load")] {
        block.push(INDEXED_LITERAL | index);
        string(&mut block, value);
    }
    block
}

/// The head of an extended CONNECT for a WebSocket (RFC 8441 §4).
pub fn connect(place: &Place, secure: bool) -> Vec<u8> {
    let mut block = vec![0x02]; // :method
    string(&mut block, "CONNECT");
    literal(&mut block, ":protocol", "websocket");
    block.push(scheme(secure));
    block.push(0x04);
    string(&mut block, &place.path);
    block.push(0x01);
    string(&mut block, &place.host);
    literal(&mut block, "sec-websocket-version", "13");
    block
}

fn scheme(secure: bool) -> u8 {
    if secure { HTTPS } else { HTTP }
}

fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    string(block, name);
    string(block, value);
}

/// Without Huffman's code, and shorter than the 127 bytes that one byte of length can say.
fn string(block: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() < 127);
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

/// Fails unless the answer's status is 200: every encoder takes that from the static table.
pub fn check_ok(block: &[u8]) -> Outcome<()> {
    // Changes of the table's size go before the fields (RFC 7541 §4.2).
    let mut rest = block;
    while let [0x20..0x40, tail @ ..] = rest {
        let longer = rest[0] & 0x1f == 0x1f;
        let more = if longer { 1 + tail.iter().take_while(|byte| **byte & 0x80 != 0).count() } else { 0 };
        rest = tail.get(more..).unwrap_or_default();
    }
    match rest.first() {
        Some(&OK) => Ok(()),
        first => Err(format!("not the answer expected: {}", first.map_or("no status", |byte| status(*byte))).into()),
    }
}

/// The statuses of the static table.
fn status(field: u8) -> &'static str {
    match field & 0x7f {
        9 => "status 204",
        10 => "status 206",
        11 => "status 304",
        12 => "status 400",
        13 => "status 404",
        14 => "status 500",
        _ => "another status than 200",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ok_is_ok() {
        for good in [&[0x88][..], &[0x20, 0x88], &[0x3f, 0xe1, 0x1f, 0x88, 0x40]] {
            assert!(check_ok(good).is_ok(), "{good:02x?}");
        }
        for bad in [&[][..], &[0x20], &[0x3f], &[0x8d], &[0x48, 0x03, b'5', b'0', b'2']] {
            assert!(check_ok(bad).is_err(), "{bad:02x?}");
        }
        assert!(check_ok(&[0x8d]).unwrap_err().to_string().ends_with("status 404"));
    }

    #[test]
    fn a_known_head_is_short() {
        let place = Place { host: "localhost".into(), path: "/bytes/65536".into() };
        assert_eq!(get(&place, true, true).len(), 6);
        assert!(get(&place, true, false).windows(9).any(|window| window == b"localhost"));
    }
}
