//! What calls of gRPC are told by us (the protocol: gRPC over HTTP2, PROTOCOL-HTTP2.md).
//!
//! A call's outcome is its `grpc-status`, not the status of HTTP: a client that gets an ordinary refusal can only guess
//! at what it means. So a refusal is "Trailers-Only", one head that also ends the stream.

use std::borrow::Cow;
use std::fmt::Write;

use super::answer::Reply;
use crate::error::{Refusal, refusal};
use crate::http::Fields;

/// Whether a request is a call of gRPC.
pub fn is_call(request: &Fields) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let Some(media) = request.first("content-type") else { return false };
    let is_grpc = media.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE));
    is_grpc && matches!(media.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
}

/// The answer to a call that is refused. `media` is the type of its answers.
pub fn refusal(refusal: &Refusal, media: &[u8], mut fields: Fields) -> Reply<'static> {
    fields.push(b"Content-Type", media);
    fields.push(b"Content-Length", b"0");
    fields.push(b"Grpc-Status", status(refusal).to_string().as_bytes());
    fields.push(b"Grpc-Message", message(refusal).as_bytes());
    Reply { status: 200, fields, body: Cow::Borrowed(&[]) }
}

/// By gRPC's table for answers of intermediaries that know nothing of it (http-grpc-status-mapping.md), and more
/// exactly where we know more.
fn status(refused: &Refusal) -> u8 {
    const UNKNOWN: u8 = 2;
    const DEADLINE_EXCEEDED: u8 = 4;
    const PERMISSION_DENIED: u8 = 7;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    const UNAUTHENTICATED: u8 = 16;
    match refused.status {
        _ if *refused == refusal::REQUEST_TIMEOUT => DEADLINE_EXCEEDED,
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        408 => DEADLINE_EXCEEDED,
        413 => RESOURCE_EXHAUSTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// Percent-encoded, as everything but printable ASCII must be, and `%` itself.
fn message(refusal: &Refusal) -> String {
    let mut encoded = String::new();
    for byte in format!("{}: {}", refusal.reason, refusal.text).bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(media: &str) -> bool {
        let mut fields = Fields::new();
        fields.push(b"Content-Type", media.as_bytes());
        is_call(&fields)
    }

    #[test]
    fn calls() {
        assert!(call("application/grpc") && call("Application/gRPC+proto") && call("application/grpc;x=y"));
        assert!(!call("application/grpc-web") && !call("application/json") && !is_call(&Fields::new()));
    }

    #[test]
    fn a_refusal_is_a_status_of_grpc() {
        let reply = refusal(&Refusal::new(403, "why", "100 % no\u{e9}"), b"application/grpc", Fields::new());
        assert_eq!((reply.status, reply.fields.first("grpc-status")), (200, Some(&b"7"[..])));
        assert_eq!(reply.fields.first("grpc-message"), Some(&b"why: 100 %25 no%C3%A9"[..]));
        assert_eq!(status(&refusal::REQUEST_TIMEOUT), 4);
        assert_eq!(status(&refusal::UPSTREAM_LOST), 14);
    }
}
