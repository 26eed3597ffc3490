//! Requests that make a byte stream of their connection, and the answers that do.
//!
//! There are two: `CONNECT` (RFC 9110 §9.3.6), and `Upgrade` to a protocol that nobody here looks into (§7.8), which
//! over HTTP/2 and HTTP/3 is an extended CONNECT with a `:protocol` (RFC 8441, RFC 9220). WebSockets are not among
//! them: their handshake is checked (`ws::handshake`).
//!
//! What a tunnel carries is no HTTP. So whatever could be read both as a tunnel and as a request is refused, and an
//! answer opens one only where it says so in exactly one way: all that a gateway checks ends there.

use super::fields::Fields;
use super::head::RequestHead;
use super::method::Method;
use super::write::strip_connection_fields;
use crate::error::Refusal;

/// CONNECT, where no route takes it.
pub const CONNECT: Refusal = Refusal::new(501, "connect_unsupported", "CONNECT is not served here");
const CONNECT_BODY: Refusal = Refusal::new(400, "connect_body", "CONNECT has no body");

/// What a request wants to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Connect,
    /// One of these protocols, in the client's order and spelling; at least one.
    Upgrade(Vec<Box<[u8]>>),
}

/// What a request wants, of what is `allowed`: tokens in small letters. None: it is no request for a tunnel, or for one
/// that is not allowed.
pub fn wanted_upgrade(head: &RequestHead, allowed: &[String]) -> Option<Wanted> {
    let is_allowed = |token: &[u8]| allowed.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(token));
    let tokens: Vec<Box<[u8]>> = match &head.protocol {
        Some(protocol) => {
            Some(protocol.as_bytes()).filter(|token| is_allowed(token)).into_iter().map(Into::into).collect()
        }
        None if !asks_to_upgrade(head) => Vec::new(),
        None => head.fields.elements("Upgrade").filter(|token| is_allowed(token)).map(Into::into).collect(),
    };
    (!tokens.is_empty()).then_some(Wanted::Upgrade(tokens))
}

/// HTTP/1.0 knows no upgrades, and one to websocket among others is an attempt to open a WebSocket, and a bad one.
fn asks_to_upgrade(head: &RequestHead) -> bool {
    let fields = &head.fields;
    head.minor == 1
        && head.method != Method::Connect
        && fields.lists("Connection", "upgrade")
        && !fields.lists("Upgrade", "websocket")
}

/// Judges a CONNECT that its route takes.
///
/// # Errors
/// It announces content: some would read it as the first bytes of the tunnel (RFC 9110 §9.3.6).
pub fn check_connect(head: &RequestHead) -> Result<Wanted, Refusal> {
    let has_length = head.fields.all("Content-Length").any(|length| length != b"0");
    if has_length || !head.body.is_empty() { Err(CONNECT_BODY) } else { Ok(Wanted::Connect) }
}

impl Wanted {
    /// As logs and metrics name it: `connect`, or the token in small letters.
    pub fn name(&self) -> String {
        match self {
            Self::Connect => "connect".into(),
            Self::Upgrade(tokens) => {
                String::from_utf8_lossy(tokens.first().map_or(b"", |token| token)).to_ascii_lowercase()
            }
        }
    }

    /// The value of `Upgrade`.
    pub fn tokens(&self) -> Vec<u8> {
        match self {
            Self::Connect => Vec::new(),
            Self::Upgrade(tokens) => tokens.join(&b", "[..]),
        }
    }

    /// The token that a 101 answers with.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn chosen<'f>(&self, answer: &'f Fields) -> Result<&'f [u8], &'static str> {
        let Self::Upgrade(offered) = self else { return Err("the upstream answers CONNECT with 101") };
        let mut named = answer.elements("Upgrade");
        let (Some(token), None) = (named.next(), named.next()) else {
            return Err("the upstream's 101 does not have exactly one protocol in Upgrade");
        };
        match () {
            () if !offered.iter().any(|one| one.eq_ignore_ascii_case(token)) => {
                Err("the upstream's 101 is for a protocol that was not asked for")
            }
            () if !answer.lists("Connection", "upgrade") => Err("the upstream's 101 has no Connection: Upgrade"),
            () if announces_content(answer) => Err("the upstream's 101 announces a body"),
            () => Ok(token),
        }
    }
}

fn announces_content(answer: &Fields) -> bool {
    answer.has("Transfer-Encoding") || answer.all("Content-Length").any(|length| length != b"0")
}

/// The fields of a head, without those of its connection and of its length: a tunnel has none, and in the 2xx that
/// answers CONNECT a length means nothing (RFC 9110 §9.3.6).
pub fn tunnel_fields(fields: &Fields) -> Fields {
    let mut kept = fields.clone();
    strip_connection_fields(&mut kept);
    kept.remove("content-length");
    kept.remove("trailer");
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse_request};

    fn head(text: &str) -> RequestHead {
        let bytes = text.replace('\n', "\r\n") + "Host: a.test\r\n\r\n";
        let Parsed::Complete { head, .. } = parse_request(bytes.as_bytes(), 1024).unwrap() else { panic!("partial") };
        head
    }

    fn names(text: &str) -> String {
        let allowed = ["spdy/3.1".to_owned(), "tcp".to_owned()];
        let wanted = wanted_upgrade(&head(text), &allowed);
        wanted.map_or_else(String::new, |wanted| String::from_utf8(wanted.tokens()).unwrap())
    }

    #[test]
    fn upgrades_that_are_allowed() {
        assert_eq!(names("POST /x HTTP/1.1\nConnection: Upgrade\nUpgrade: SPDY/3.1\n"), "SPDY/3.1");
        assert_eq!(
            names("GET / HTTP/1.1\nConnection: upgrade, x\nUpgrade: h2c, tcp\nUpgrade: spdy/3.1\n"),
            "tcp, spdy/3.1"
        );
        for text in [
            "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: h2c\n",
            "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: spdy/3.1 x\n",
            "GET / HTTP/1.1\nUpgrade: tcp\n",
            "GET / HTTP/1.0\nConnection: Upgrade\nUpgrade: tcp\n",
            "GET / HTTP/1.1\nConnection: Upgrade\nUpgrade: tcp, WebSocket\n",
        ] {
            assert_eq!(names(text), "", "{text}");
        }
    }

    #[test]
    fn connect_has_no_body() {
        let connect = |more: &str| {
            let text = format!("CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n{more}\r\n");
            let Ok(Parsed::Complete { head, .. }) = parse_request(text.as_bytes(), 1024) else { panic!("{text}") };
            check_connect(&head)
        };
        assert_eq!((connect(""), connect("Content-Length: 0\r\n")), (Ok(Wanted::Connect), Ok(Wanted::Connect)));
        for more in ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"] {
            assert_eq!(connect(more), Err(CONNECT_BODY), "{more}");
        }
    }

    #[test]
    fn one_way_to_say_yes() {
        let wanted = Wanted::Upgrade(vec![b"tcp"[..].into(), b"SPDY/3.1"[..].into()]);
        let chosen = |list: &[(&str, &str)]| {
            let mut fields = Fields::new();
            list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
            wanted.chosen(&fields).map(<[u8]>::to_vec)
        };
        let good = [("Connection", "Upgrade"), ("Upgrade", "spdy/3.1")];
        assert_eq!(chosen(&good), Ok(b"spdy/3.1".to_vec()));
        assert_eq!(chosen(&[good[0], good[1], ("Content-Length", "0")]), Ok(b"spdy/3.1".to_vec()));
        for bad in [
            &good[..1],
            &good[1..],
            &[good[0], ("Upgrade", "websocket")],
            &[good[0], good[1], ("Upgrade", "tcp")],
            &[good[0], ("Upgrade", "tcp, spdy/3.1")],
            &[good[0], good[1], ("Content-Length", "5")],
            &[good[0], good[1], ("Transfer-Encoding", "chunked")],
        ] {
            assert!(chosen(bad).is_err(), "{bad:?}");
        }
        assert!(Wanted::Connect.chosen(&Fields::new()).is_err());
    }
}
