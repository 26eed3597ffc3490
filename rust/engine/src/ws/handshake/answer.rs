//! The upstream's answer: is it our handshake's, and what does the client get of it?
//!
//! A 101 opens a pipe around everything that checks requests, so what only claims to be one is an error of the upstream
//! (502), and its connection must be destroyed: nobody knows what is on it.

use super::attempt::{only, upgrades_to_websocket_only};
use super::connection::{declares_body, end_to_end};
use super::offer::Offered;
use super::{ACCEPT, EXTENSIONS, PROTOCOL};
use crate::http::fields::Fields;
use crate::ws::deflate::{self, BadAnswer};

/// What the upstream agreed to. The default is no subprotocol and no extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    pub subprotocol: Option<Vec<u8>>,
    /// permessage-deflate with its parameters as the upstream wrote them: the client's value of
    /// `Sec-WebSocket-Extensions`.
    pub deflate: Option<Vec<u8>>,
}

/// Why an answer is not the end of our handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fake {
    /// Not a 101 at all: pass it to the client as the ordinary answer it is.
    Status,
    /// `Upgrade` is missing, repeated or names something else.
    Upgrade,
    /// `Connection` does not name upgrade.
    Connection,
    /// It announces content, which no 101 has.
    Body,
    NoAccept,
    RepeatedAccept,
    WrongAccept,
    RepeatedSubprotocol,
    /// A subprotocol that was not offered.
    Subprotocol,
    /// An extension that was not offered, or more than one.
    Extension,
    /// permessage-deflate with parameters that it may not have.
    DeflateParameter,
}

impl Fake {
    /// What was wrong, for the log and the 502.
    pub fn text(self) -> &'static str {
        match self {
            Self::Status => "the upstream did not switch protocols",
            Self::Upgrade => "the upstream's 101 does not have exactly one Upgrade: websocket",
            Self::Connection => "the upstream's 101 has no Connection: Upgrade",
            Self::Body => "the upstream's 101 announces a body",
            Self::NoAccept => "the upstream's 101 has no Sec-WebSocket-Accept",
            Self::RepeatedAccept => "the upstream's 101 has several Sec-WebSocket-Accept",
            Self::WrongAccept => "the upstream's 101 has a Sec-WebSocket-Accept that does not answer our key",
            Self::RepeatedSubprotocol => "the upstream's 101 has several Sec-WebSocket-Protocol",
            Self::Subprotocol => "the upstream chose a subprotocol that was not offered",
            Self::Extension => "the upstream chose an extension that was not offered",
            Self::DeflateParameter => "the upstream's permessage-deflate has parameters that it may not have",
        }
    }
}

impl From<BadAnswer> for Fake {
    fn from(bad: BadAnswer) -> Self {
        match bad {
            BadAnswer::NotOffered => Self::Extension,
            BadAnswer::Parameter => Self::DeflateParameter,
        }
    }
}

/// Checks the answer to a request made by [`offer_fields`](super::offer_fields). `expected_accept` is
/// [`accept_key`](super::accept_key) of the key we sent.
pub fn check_answer(status: u16, fields: &Fields, expected_accept: &[u8], offered: &Offered) -> Result<Accepted, Fake> {
    check_opaque_answer(status, fields)?;
    if !fields.lists("Connection", "upgrade") {
        return Err(Fake::Connection);
    }
    check_accept(fields, expected_accept)?;
    check_choices(fields, offered)
}

/// Checks the answer to an extended CONNECT (RFC 8441 §5), whose 2xx says all but what was chosen.
pub fn check_choices(fields: &Fields, offered: &Offered) -> Result<Accepted, Fake> {
    let subprotocol = chosen_subprotocol(fields, offered)?.map(<[u8]>::to_vec);
    let deflate = deflate::answer(fields, offered.deflate())?.map(<[u8]>::to_vec);
    Ok(Accepted { subprotocol, deflate })
}

/// Checks an answer on a route with `frames: opaque`: a 101 to websocket, the rest is the dialect's business.
pub fn check_opaque_answer(status: u16, fields: &Fields) -> Result<(), Fake> {
    match () {
        () if status != 101 => Err(Fake::Status),
        () if only(fields, "Upgrade").is_none() || !upgrades_to_websocket_only(fields) => Err(Fake::Upgrade),
        () if declares_body(fields) => Err(Fake::Body),
        () => Ok(()),
    }
}

/// The fields of the client's answer: the handshake's, then the upstream's own. `accept` is
/// [`accept_key`](super::accept_key) of the client's key; without one nothing is switched. Without an upstream,
/// `upstream` is empty.
pub fn answer_fields(upstream: &Fields, accept: Option<&[u8; 28]>, accepted: &Accepted) -> Fields {
    let mut fields = Fields::new();
    if let Some(accept) = accept {
        fields.push(b"Upgrade", b"websocket");
        fields.push(b"Connection", b"Upgrade");
        fields.push(ACCEPT.as_bytes(), accept);
    }
    if let Some(subprotocol) = &accepted.subprotocol {
        fields.push(PROTOCOL.as_bytes(), subprotocol);
    }
    if let Some(deflate) = &accepted.deflate {
        fields.push(EXTENSIONS.as_bytes(), deflate);
    }
    end_to_end(upstream).iter().for_each(|(name, value)| fields.push(name, value));
    fields
}

fn check_accept(fields: &Fields, expected: &[u8]) -> Result<(), Fake> {
    let accept = fields.first(ACCEPT).ok_or(Fake::NoAccept)?;
    only(fields, ACCEPT).ok_or(Fake::RepeatedAccept)?;
    if accept == expected { Ok(()) } else { Err(Fake::WrongAccept) }
}

fn chosen_subprotocol<'a>(fields: &'a Fields, offered: &Offered) -> Result<Option<&'a [u8]>, Fake> {
    let Some(chosen) = fields.first(PROTOCOL) else { return Ok(None) };
    only(fields, PROTOCOL).ok_or(Fake::RepeatedSubprotocol)?;
    if offered.subprotocols().any(|name| name == chosen) { Ok(Some(chosen)) } else { Err(Fake::Subprotocol) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::handshake::{OfferRules, accept_key, offer_fields};

    const KEY: &[u8; 24] = b"dfQAy9mlQ0EjD5MmvvsZaQ==";

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn good() -> Fields {
        fields(&[
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, upgrade"),
            ("sec-websocket-accept", "+mKC4huknIfMGJFOzclP9fO058g="),
        ])
    }

    fn check(fields: &Fields) -> Result<Accepted, Fake> {
        let client = self::fields(&[(PROTOCOL, "a, b"), (EXTENSIONS, "permessage-deflate")]);
        let (_, offered) = offer_fields(&client, &OfferRules { key: Some(KEY), subprotocols: None, deflate: true });
        check_answer(101, fields, &accept_key(KEY), &offered)
    }

    #[test]
    fn a_good_answer_with_and_without_choices() {
        assert_eq!(check(&good()), Ok(Accepted::default()));
        let mut chosen = good();
        chosen.push(b"Sec-Websocket-Protocol", b"b");
        chosen.push(b"Sec-Websocket-Extensions", b"permessage-deflate; server_no_context_takeover");
        let deflate = b"permessage-deflate; server_no_context_takeover".to_vec();
        assert_eq!(check(&chosen), Ok(Accepted { subprotocol: Some(b"b".to_vec()), deflate: Some(deflate) }));
    }

    #[test]
    fn choices_outside_the_offer() {
        for (name, value, fake) in [
            (PROTOCOL, "c", Fake::Subprotocol),
            (PROTOCOL, "a, b", Fake::Subprotocol),
            (PROTOCOL, "A", Fake::Subprotocol),
            (PROTOCOL, "", Fake::Subprotocol),
            (EXTENSIONS, "x-webkit-deflate-frame", Fake::Extension),
            (EXTENSIONS, "permessage-deflate, permessage-deflate", Fake::Extension),
            (EXTENSIONS, "permessage-deflate; client_max_window_bits=9", Fake::DeflateParameter),
        ] {
            let mut answer = good();
            answer.push(name.as_bytes(), value.as_bytes());
            assert_eq!(check(&answer), Err(fake), "{name}: {value}");
        }
        let mut twice = good();
        twice.push(b"Sec-WebSocket-Protocol", b"a");
        twice.push(b"Sec-WebSocket-Protocol", b"a");
        assert_eq!(check(&twice), Err(Fake::RepeatedSubprotocol));
    }

    #[test]
    fn the_client_s_answer() {
        let mut upstream = good();
        upstream.push(b"Set-Cookie", b"a=1");
        upstream.push(b"Keep-Alive", b"timeout=5");
        upstream.push(b"Sec-WebSocket-Version", b"13");
        upstream.push(b"set-cookie", b"b=2");
        let accepted = Accepted { subprotocol: Some(b"b".to_vec()), deflate: Some(deflate::NAME.to_vec()) };
        let answer = answer_fields(&upstream, Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), &accepted);
        let expected = fields(&[
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            (ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            (PROTOCOL, "b"),
            (EXTENSIONS, "permessage-deflate"),
            ("Set-Cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        assert!(answer.iter().eq(expected.iter()));
    }
}
