//! Fields that belong to one connection, not to the message (RFC 9110 §7.6.1).

use std::cmp::Ordering;

use crate::http::fields::Fields;

const OWN: [&[u8]; 9] = [
    b"Connection",
    b"Upgrade",
    b"Keep-Alive",
    b"Proxy-Connection",
    b"TE",
    b"Trailer",
    b"Transfer-Encoding",
    b"Content-Length", // neither an upgrade request nor a 101 has content
    b"HTTP2-Settings",
];

/// The fields that go on to the other side of a WebSocket: none of the connection, none that `Connection` names, none
/// of the handshake. `Host` stays even when it is named, or a client could take it from the upstream.
pub(super) fn end_to_end(fields: &Fields) -> Fields {
    let named = named_by_connection(fields);
    let mut kept = fields.clone();
    kept.retain(|name, _| {
        name.eq_ignore_ascii_case(b"Host") || !(is_own(name) || is_handshake(name) || is_named(&named, name))
    });
    kept
}

/// Whether a head says that content follows it. `Content-Length: 0` says that none does.
pub fn declares_body(fields: &Fields) -> bool {
    let empty = |length: &[u8]| !length.is_empty() && length.iter().all(|byte| *byte == b'0');
    fields.has("Transfer-Encoding") || fields.all("Content-Length").any(|length| !empty(length))
}

fn is_own(name: &[u8]) -> bool {
    OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
}

fn is_handshake(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"Sec-WebSocket-";
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// What `Connection` names besides our own list, sorted: a head may name thousands, and each field is looked up.
fn named_by_connection(fields: &Fields) -> Vec<&[u8]> {
    let mut named: Vec<&[u8]> = fields.elements("Connection").filter(|option| !is_own(option)).collect();
    named.sort_unstable_by(|a, b| compare(a, b));
    named
}

fn is_named(named: &[&[u8]], name: &[u8]) -> bool {
    named.binary_search_by(|option| compare(option, name)).is_ok()
}

fn compare(a: &[u8], b: &[u8]) -> Ordering {
    a.iter().map(u8::to_ascii_lowercase).cmp(b.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn only_the_message_s_own_fields_go_on() {
        let mut fields = Fields::new();
        for name in ["Host", "X-B", "Cookie", "x-A", "TE", "Keep-Alive", "sec-websocket-key1", "Sec-WebSocket", "HOST"]
        {
            fields.push(name.as_bytes(), b"1");
        }
        fields.push(b"Connection", b"Upgrade, x-b, host");
        fields.push(b"connection", b"X-a,keep-alive");
        assert_eq!(names(&end_to_end(&fields)), ["Host", "Cookie", "Sec-WebSocket", "HOST"]);
    }

    #[test]
    fn bodies() {
        let with = |name: &str, value: &str| {
            let mut fields = Fields::new();
            fields.push(name.as_bytes(), value.as_bytes());
            declares_body(&fields)
        };
        assert!(!with("Content-Length", "0") && !with("Content-Length", "00") && !with("Content-Type", "x"));
        assert!(with("content-length", "5") && with("Content-Length", "") && with("Content-Length", "0, 5"));
        assert!(with("Transfer-Encoding", "chunked") && with("transfer-encoding", "identity"));
    }
}
