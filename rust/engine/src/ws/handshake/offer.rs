//! The request that we make of the client's: the upstream's half of the handshake.

use super::connection::end_to_end;
use super::{EXTENSIONS, KEY, PROTOCOL, VERSION};
use crate::http::fields::Fields;
use crate::ws::deflate::{self, Offers};

/// How the client's offer goes on.
#[derive(Clone, Copy, Debug)]
pub struct OfferRules<'a> {
    /// From [`fresh_key`](super::fresh_key); none over HTTP/2, which has no use for it (RFC 8441 §5).
    pub key: Option<&'a [u8; 24]>,
    /// The subprotocols that may be offered; `None` is all.
    pub subprotocols: Option<&'a [String]>,
    /// Whether permessage-deflate may be offered.
    pub deflate: bool,
}

/// What the upstream was offered, for [`check_answer`](super::check_answer).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    subprotocols: Option<Vec<u8>>,
    deflate: Option<Offers>,
}

impl Offered {
    pub(super) fn subprotocols(&self) -> impl Iterator<Item = &[u8]> {
        self.subprotocols.iter().flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    }

    pub(super) fn deflate(&self) -> Option<&Offers> {
        self.deflate.as_ref()
    }
}

/// The fields for the upstream: the client's own, then the handshake's in the spelling of RFC 6455, since some servers
/// compare it. Give it the fields as the client sent them: the names in `Connection` are dropped here, and a client
/// must not name away a field that the gateway added.
pub fn offer_fields(client: &Fields, rules: &OfferRules<'_>) -> (Fields, Offered) {
    let offered = Offered {
        subprotocols: subprotocols(client, rules.subprotocols),
        deflate: if rules.deflate { deflate::offers(client) } else { None },
    };
    let mut fields = end_to_end(client);
    if let Some(key) = rules.key {
        fields.push(b"Upgrade", b"websocket");
        fields.push(b"Connection", b"Upgrade");
        fields.push(KEY.as_bytes(), key);
    }
    fields.push(VERSION.as_bytes(), b"13");
    if let Some(value) = &offered.subprotocols {
        fields.push(PROTOCOL.as_bytes(), value);
    }
    if let Some(offers) = &offered.deflate {
        fields.push(EXTENSIONS.as_bytes(), &offers.value);
    }
    (fields, offered)
}

/// The client's subprotocols that are allowed, in its order; `None` when none is left.
fn subprotocols(client: &Fields, allowed: Option<&[String]>) -> Option<Vec<u8>> {
    let may_go = |name: &&[u8]| allowed.is_none_or(|allowed| allowed.iter().any(|one| one.as_bytes() == *name));
    let names: Vec<&[u8]> = client.elements(PROTOCOL).filter(may_go).collect();
    (!names.is_empty()).then(|| names.join(&b", "[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Fields {
        let mut fields = Fields::new();
        for (name, value) in [
            ("host", "chat.example.com"),
            ("Connection", "keep-alive, Upgrade, X-Secret"),
            ("Upgrade", "WEBSOCKET"),
            ("X-Secret", "1"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat.v1, chat.v2"),
            ("Sec-WebSocket-Protocol", "Chat.v2"),
            ("sec-websocket-extensions", "x-other, permessage-deflate; client_max_window_bits"),
            ("Content-Length", "0"),
            ("Cookie", "sid=1"),
        ] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn offered(subprotocols: Option<&[String]>, deflate: bool) -> (Vec<(String, String)>, Offered) {
        let rules = OfferRules { key: Some(b"AAAAAAAAAAAAAAAAAAAAAA=="), subprotocols, deflate };
        let (fields, offered) = offer_fields(&client(), &rules);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (fields.iter().map(|(name, value)| (text(name), text(value))).collect(), offered)
    }

    #[test]
    fn the_whole_request() {
        let (fields, offered) = offered(None, true);
        let expected = [
            ("host", "chat.example.com"),
            ("Cookie", "sid=1"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "chat.v1, chat.v2, Chat.v2"),
            ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        ];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(offered.subprotocols().collect::<Vec<_>>(), [b"chat.v1", b"chat.v2", b"Chat.v2"]);
    }

    #[test]
    fn only_what_is_allowed_is_offered() {
        let (fields, offered) = offered(Some(&["chat.v2".to_owned()]), false);
        assert_eq!(fields.last().unwrap(), &("Sec-WebSocket-Protocol".to_owned(), "chat.v2".to_owned()));
        assert_eq!(offered.deflate(), None);
    }

    #[test]
    fn nothing_allowed_leaves_no_field() {
        let (fields, offered) = offered(Some(&[]), false);
        assert_eq!(fields.last().unwrap().0, "Sec-WebSocket-Version");
        assert_eq!(offered, Offered::default());
    }
}
