//! Is a request an attempt to open a WebSocket, and is it a good one?
//!
//! An *attempt* is an HTTP/1.1 request whose `Upgrade` names websocket and whose `Connection` names upgrade, each as a
//! whole token. Everything else is plain HTTP and its upgrade fields go no further: h2c, a missing half, HTTP/1.0. Of
//! an attempt, what could be read in two ways is refused before anything is dialled: an upgrade with content, or one
//! that names other protocols, is how requests are smuggled through gateways.
//!
//! Over HTTP/2 an attempt is an extended CONNECT (RFC 8441), and there is little to get wrong.

use super::key::{accept_key, parse_key};
use super::{KEY, VERSION};
use crate::error::Refusal;
use crate::http::fields::Fields;

/// What a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt<T> {
    /// Plain HTTP.
    None,
    WebSocket(T),
    Refused(Refusal),
}

/// A good attempt by RFC 6455.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The client's key; none over HTTP/2, which has no use for it.
    pub key: Option<[u8; 24]>,
}

impl Offer {
    /// The answer to the client's key.
    pub fn accept(&self) -> Option<[u8; 28]> {
        self.key.map(|key| accept_key(&key))
    }
}

/// A good attempt on a route that takes any dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opaque {
    /// 8 bytes behind the head belong to the handshake: see [`hixie76`].
    pub hixie76: bool,
}

const METHOD: Refusal = Refusal::new(400, "websocket_method", "a WebSocket is opened with GET");
const BODY: Refusal = Refusal::new(400, "websocket_body", "a WebSocket handshake has no body");
const TOKENS: Refusal = Refusal::new(400, "websocket_upgrade", "Upgrade must name websocket once and nothing else");
const BAD_KEY: Refusal =
    Refusal::new(400, "websocket_key", "a WebSocket handshake has exactly one Sec-WebSocket-Key, base64 of 16 bytes");
const PROTOCOL: Refusal =
    Refusal::new(501, "protocol_unsupported", "of protocols over HTTP/2 only websocket is served here");
const BAD_VERSION: Refusal = Refusal::new(426, "websocket_version", "only Sec-WebSocket-Version 13 is spoken here");

/// Judges a request by RFC 6455. `has_body`: see [`declares_body`](super::declares_body).
pub fn classify(method: &[u8], version_1_1: bool, fields: &Fields, has_body: bool) -> Attempt<Offer> {
    if !is_attempt(version_1_1, fields) {
        return Attempt::None;
    }
    match judge(method, fields, has_body).and_then(|()| offer(fields)) {
        Ok(offer) => Attempt::WebSocket(offer),
        Err(refusal) => Attempt::Refused(refusal),
    }
}

/// Judges an extended CONNECT by RFC 8441 §5: `protocol` is its `:protocol`, which none other has. Key and upgrade
/// fields mean nothing here.
pub fn classify_connect(protocol: &str, fields: &Fields) -> Attempt<Offer> {
    if !protocol.eq_ignore_ascii_case("websocket") {
        return Attempt::Refused(PROTOCOL);
    }
    match only(fields, VERSION) {
        // What comes is frames, and their number nobody knows.
        _ if fields.has("Content-Length") => Attempt::Refused(BODY),
        Some(b"13") => Attempt::WebSocket(Offer { key: None }),
        _ => Attempt::Refused(Refusal { status: 400, ..BAD_VERSION }),
    }
}

/// Judges a request for a route with `frames: opaque`: key and version are the dialect's business.
pub fn classify_opaque(method: &[u8], version_1_1: bool, fields: &Fields, has_body: bool) -> Attempt<Opaque> {
    if !is_attempt(version_1_1, fields) {
        return Attempt::None;
    }
    match judge(method, fields, has_body) {
        Ok(()) => Attempt::WebSocket(Opaque { hixie76: hixie76(fields) }),
        Err(refusal) => Attempt::Refused(refusal),
    }
}

/// Whether this is a handshake of draft-hixie-thewebsocketprotocol-76, whose 8 bytes behind the head the server needs
/// before it answers.
pub fn hixie76(fields: &Fields) -> bool {
    fields.has("Sec-WebSocket-Key1") && fields.has("Sec-WebSocket-Key2")
}

/// A field's value if there is exactly one field of that name.
pub(super) fn only<'a>(fields: &'a Fields, name: &'a str) -> Option<&'a [u8]> {
    let mut values = fields.all(name);
    values.next().filter(|_| values.next().is_none())
}

/// Whether `Upgrade` names websocket, once, and nothing else.
pub(super) fn upgrades_to_websocket_only(fields: &Fields) -> bool {
    let mut tokens = fields.elements("Upgrade");
    tokens.next().is_some_and(|token| token.eq_ignore_ascii_case(b"websocket")) && tokens.next().is_none()
}

fn is_attempt(version_1_1: bool, fields: &Fields) -> bool {
    version_1_1 && fields.lists("Upgrade", "websocket") && fields.lists("Connection", "upgrade")
}

fn judge(method: &[u8], fields: &Fields, has_body: bool) -> Result<(), Refusal> {
    match () {
        () if method != b"GET" => Err(METHOD),
        () if has_body => Err(BODY),
        () if !upgrades_to_websocket_only(fields) => Err(TOKENS),
        () => Ok(()),
    }
}

fn offer(fields: &Fields) -> Result<Offer, Refusal> {
    let key = only(fields, KEY).and_then(parse_key).ok_or(BAD_KEY)?;
    match only(fields, VERSION) {
        Some(b"13") => Ok(Offer { key: Some(key) }),
        _ => Err(BAD_VERSION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("Connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn refused(attempt: Attempt<Offer>) -> &'static str {
        match attempt {
            Attempt::Refused(refusal) => refusal.reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_attempt() {
        let offer = Offer { key: Some(*b"dGhlIHNhbXBsZSBub25jZQ==") };
        assert_eq!(classify(b"GET", true, &fields(&GOOD), false), Attempt::WebSocket(offer));
    }

    #[test]
    fn half_an_attempt_is_plain_http() {
        assert_eq!(classify(b"GET", false, &fields(&GOOD), false), Attempt::None);
        assert_eq!(classify(b"GET", true, &fields(&GOOD[1..]), false), Attempt::None);
        assert_eq!(classify(b"GET", true, &fields(&[GOOD[0], GOOD[2], GOOD[3]]), false), Attempt::None);
        assert_eq!(classify_opaque(b"GET", true, &fields(&GOOD[1..]), false), Attempt::None);
    }

    #[test]
    fn refusals_in_their_order() {
        assert_eq!(refused(classify(b"POST", true, &fields(&GOOD), true)), "websocket_method");
        assert_eq!(refused(classify(b"get", true, &fields(&GOOD), false)), "websocket_method");
        assert_eq!(refused(classify(b"GET", true, &fields(&GOOD), true)), "websocket_body");
        let mut more = fields(&GOOD);
        more.push(b"Upgrade", b"h2c");
        assert_eq!(refused(classify(b"GET", true, &more, false)), "websocket_upgrade");
        assert_eq!(refused(classify(b"GET", true, &fields(&GOOD[..2]), false)), "websocket_key");
        assert_eq!(refused(classify(b"GET", true, &fields(&GOOD[..3]), false)), "websocket_version");
    }

    #[test]
    fn an_extended_connect() {
        let version = fields(&GOOD[3..]);
        assert_eq!(classify_connect("websocket", &version), Attempt::WebSocket(Offer { key: None }));
        assert_eq!(refused(classify_connect("connect-udp", &version)), "protocol_unsupported");
        assert_eq!(refused(classify_connect("websocket", &fields(&GOOD[..3]))), "websocket_version");
        let Attempt::Refused(refusal) = classify_connect("websocket", &fields(&[])) else { panic!() };
        assert_eq!(refusal.status, 400);
    }

    #[test]
    fn opaque_routes_judge_neither_key_nor_version() {
        let mut old = fields(&GOOD[..2]);
        assert_eq!(classify_opaque(b"GET", true, &old, false), Attempt::WebSocket(Opaque { hixie76: false }));
        old.push(b"Sec-WebSocket-Key1", b"4 @1  46546xW%0l 1 5");
        assert!(!hixie76(&old));
        old.push(b"sec-websocket-key2", b"12998 5 Y3 1  .P00");
        assert_eq!(classify_opaque(b"GET", true, &old, false), Attempt::WebSocket(Opaque { hixie76: true }));
        assert_eq!(classify_opaque(b"GET", true, &old, true), Attempt::Refused(BODY));
    }
}
