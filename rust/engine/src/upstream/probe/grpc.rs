//! The gRPC health checking protocol: `grpc.health.v1.Health/Check`, and what it says of a service.
//!
//! ```text
//! message HealthCheckRequest  { string service = 1; }
//! message HealthCheckResponse { ServingStatus status = 1; }      UNKNOWN SERVING NOT_SERVING SERVICE_UNKNOWN
//! ```
//! Each goes behind five bytes: whether it is compressed, which we do not offer, and its length.

use bytes::Bytes;

use super::{Failure, Probe, no_answer};
use crate::http::ResponseHead;
use crate::io::Stream;
use crate::snapshot::GrpcCheck;
use crate::upstream::{Question, Reached, Wish};

const PATH: &[u8] = b"/grpc.health.v1.Health/Check";
/// Bytes of an answer that are read.
const LIMIT: usize = 4096;
/// Bytes before each message.
const PREFIX: usize = 5;
const SERVING: u64 = 1;

impl Probe<'_> {
    pub(super) async fn ask_grpc(&self, check: &GrpcCheck) -> Result<(), Failure> {
        let Reached::Crossing(crossing) = self.reach(Wish::Request { kept: false }).await? else {
            return Err("it speaks no HTTP/2".to_owned());
        };
        let mut fields = self.fields(check.host.as_deref(), &[]);
        fields.push(b"Content-Type", b"application/grpc");
        fields.push(b"TE", b"trailers");
        let question = Question { method: b"POST", target: PATH, fields: &fields, protocol: None };
        let mut awaited = crossing.open(&question, false).map_err(|refusal| refusal.text)?;
        awaited.opened.send_all(request(&check.service)).await.map_err(|_| "the connection was lost")?;
        let head = awaited.final_head().await.map_err(|error| no_answer(&error))?;
        refused(&head)?;
        let link = awaited.into_link().ok_or("the answer has no message")?;
        verdict(&message(link.stream).await?)
    }
}

/// An answer without a message says why there is none.
fn refused(head: &ResponseHead) -> Result<(), Failure> {
    if head.status != 200 {
        return Err(format!("HTTP {}", head.status));
    }
    match head.fields.first("grpc-status") {
        None | Some(b"0") => Ok(()),
        Some(status) => Err(format!("gRPC status {}", status.escape_ascii())),
    }
}

/// The first message of an answer.
async fn message(mut stream: Stream) -> Result<Vec<u8>, Failure> {
    let mut read = Vec::new();
    loop {
        if let [compressed, a, b, c, d, message @ ..] = &read[..] {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            if *compressed != 0 || length > LIMIT {
                return Err("the answer is no health check's".to_owned());
            }
            if let Some(message) = message.get(..length) {
                return Ok(message.to_vec());
            }
        }
        let more = stream.read_more(&mut read).await;
        if !matches!(more, Ok(1..)) || read.len() > LIMIT + PREFIX {
            return Err("the answer has no message".to_owned());
        }
    }
}

fn request(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(16 + service.len());
    if !service.is_empty() {
        message.push(0x0a);
        write_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.append(&mut message);
    framed.into()
}

/// What a `HealthCheckResponse` says.
fn verdict(message: &[u8]) -> Result<(), Failure> {
    match status(message).ok_or("the answer is no health check's")? {
        SERVING => Ok(()),
        2 => Err("NOT_SERVING".to_owned()),
        3 => Err("SERVICE_UNKNOWN".to_owned()),
        _ => Err("UNKNOWN".to_owned()),
    }
}

/// The last value of the field `status`; 0 where it is left out. None where this is no such message.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let value = read_varint(&mut message)?;
                status = if tag >> 3 == 1 { value } else { status };
                0
            }
            1 => 8,
            2 => usize::try_from(read_varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_name_the_service() {
        assert_eq!(&*request(""), b"\0\0\0\0\0");
        assert_eq!(&*request("chat.v1"), b"\0\0\0\0\x09\x0a\x07chat.v1");
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], *b"\0\0\0\x01\x2f\x0a\xac\x02");
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    #[test]
    fn answers_say_whether_it_serves() {
        let why = |message: &[u8]| verdict(message).err();
        assert_eq!(why(b"\x08\x01"), None);
        assert_eq!(why(b"\x08\x02\x08\x01"), None, "the last one counts");
        assert_eq!(why(b"\x12\x03abc\x1d\0\0\0\0\x19\0\0\0\0\0\0\0\0\x08\x01"), None, "fields of others");
        assert_eq!(why(b""), Some("UNKNOWN".to_owned()));
        assert_eq!(why(b"\x08\x02"), Some("NOT_SERVING".to_owned()));
        assert_eq!(why(b"\x08\x03"), Some("SERVICE_UNKNOWN".to_owned()));
        for bad in [&b"\x08"[..], b"\x08\x80", b"\x0b", b"\x12\x09abc", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            assert_eq!(why(bad), Some("the answer is no health check's".to_owned()), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(message in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = verdict(&message);
        }

        #[test]
        fn varints_come_back(value: u64) {
            let mut written = Vec::new();
            write_varint(&mut written, value);
            prop_assert_eq!(read_varint(&mut &written[..]), Some(value));
        }
    }
}
