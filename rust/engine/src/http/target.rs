//! Request targets and hosts (RFC 9112 §3.2, RFC 3986 §3.2).
//!
//! A target keeps its bytes: percent-encoding and dot segments are for the router to judge. A host, on the other hand,
//! chooses routes, certificates and upstreams, so only names and addresses that can exist are let in: letters, digits,
//! `-`, `.`, `_`, `~`, or an IPv6 address in brackets, with a port. User information, percent-encoding and the
//! sub-delims that RFC 3986 would allow in a registered name are refused; no name in use has them, and many parsers
//! stumble on them.

use std::net::Ipv6Addr;

use memchr::memchr;

use super::fault::{self, BadHead};
use super::method::Method;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The target as received; an absolute one without a path, and that of CONNECT, has got its path here.
    text: Vec<u8>,
    scheme: Option<Scheme>,
    /// Where the authority of an absolute target, or of CONNECT, begins, and where the path begins.
    authority: usize,
    path: usize,
    /// Where the path ends: at the `?` or the end.
    path_end: usize,
}

/// The scheme of a target in absolute form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// The port of an authority that names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Target {
    /// Reads the target of a request.
    pub fn parse(method: &Method, bytes: &[u8]) -> Result<Self, BadHead> {
        if bytes.is_empty() {
            return Err(fault::REQUEST_LINE);
        }
        if has_forbidden_byte(bytes) {
            return Err(fault::TARGET_CHARACTER);
        }
        match bytes[0] {
            _ if *method == Method::Connect => Self::parse_authority(bytes),
            b'/' => Ok(Self::over(bytes.to_vec(), None, 0, 0)),
            b'*' if bytes.len() == 1 && *method == Method::Options => Ok(Self::over(bytes.to_vec(), None, 0, 0)),
            _ => Self::parse_absolute(method, bytes),
        }
    }

    /// RFC 9110 §9.3.6: a host and a port. There is no path; `/` stands in for it where routes and templates want one.
    fn parse_authority(bytes: &[u8]) -> Result<Self, BadHead> {
        Authority::parse(bytes).filter(|authority| authority.port().is_some()).ok_or(fault::CONNECT_TARGET)?;
        Ok(Self::over([bytes, b"/"].concat(), None, 0, bytes.len()))
    }

    fn parse_absolute(method: &Method, bytes: &[u8]) -> Result<Self, BadHead> {
        let (scheme, authority) = split_scheme(bytes).ok_or(fault::TARGET_FORM)?;
        let rest = &bytes[authority..];
        let path = authority + rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let mut text = bytes.to_vec();
        if text.get(path) != Some(&b'/') {
            // RFC 9112 §3.2.1 and §3.2.4: no path is `/`, and to OPTIONS `*`.
            let is_asterisk = *method == Method::Options && path == text.len();
            text.insert(path, if is_asterisk { b'*' } else { b'/' });
        }
        Ok(Self::over(text, Some(scheme), authority, path))
    }

    fn over(text: Vec<u8>, scheme: Option<Scheme>, authority: usize, path: usize) -> Self {
        let path_end = memchr(b'?', &text).unwrap_or(text.len());
        Self { text, scheme, authority, path, path_end }
    }

    /// The path as received: begins with `/`, or is `*`.
    pub fn path(&self) -> &[u8] {
        &self.text[self.path..self.path_end]
    }

    /// What follows the first `?`, if there is one.
    pub fn query(&self) -> Option<&[u8]> {
        self.text.get(self.path_end + 1..)
    }

    /// Path and query as they go into a request line in origin form.
    pub fn path_and_query(&self) -> &[u8] {
        &self.text[self.path..]
    }

    /// The scheme, when the target was in absolute form.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// The authority, when the target was in absolute form, or that of CONNECT.
    pub fn authority(&self) -> Option<&[u8]> {
        let has_one = self.scheme.is_some() || self.path > 0;
        has_one.then(|| &self.text[self.authority..self.path])
    }
}

/// Not printable ASCII, or the `#` of a fragment, which is never sent. Folded rather than short-circuited, so that the
/// compiler can look at many bytes at once.
fn has_forbidden_byte(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |bad, byte| bad | !byte.is_ascii_graphic() | (*byte == b'#'))
}

fn split_scheme(bytes: &[u8]) -> Option<(Scheme, usize)> {
    let begins = |prefix: &str| bytes.get(..prefix.len()).is_some_and(|b| b.eq_ignore_ascii_case(prefix.as_bytes()));
    if begins("http://") {
        Some((Scheme::Http, 7))
    } else if begins("https://") {
        Some((Scheme::Https, 8))
    } else {
        None
    }
}

/// A host with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    text: Vec<u8>,
    host: usize,
    port: Option<u16>,
}

impl Authority {
    /// Reads `host [ ":" port ]`. An empty port counts as none (RFC 3986 §3.2.3).
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let host = if bytes.first() == Some(&b'[') { address_length(bytes)? } else { name_length(bytes)? };
        let port = match bytes.split_at(host).1 {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return None,
        };
        Some(Self { text: bytes.to_vec(), host, port })
    }

    /// The host as received, an IPv6 address with its brackets.
    pub fn host(&self) -> &[u8] {
        &self.text[..self.host]
    }

    /// The port, when one was named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Host and port as received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Whether both name the same host and port, where `scheme` gives the port that is not named.
    pub fn is_same(&self, other: &Self, scheme: Scheme) -> bool {
        let default = scheme.default_port();
        self.host().eq_ignore_ascii_case(other.host()) && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

fn address_length(bytes: &[u8]) -> Option<usize> {
    let end = memchr(b']', bytes)?;
    std::str::from_utf8(&bytes[1..end]).ok()?.parse::<Ipv6Addr>().ok()?;
    Some(end + 1)
}

fn name_length(bytes: &[u8]) -> Option<usize> {
    let end = memchr(b':', bytes).unwrap_or(bytes.len());
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    (end > 0 && bytes[..end].iter().all(is_name)).then_some(end)
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    // The check for digits matters: `parse` would take a sign.
    let is_plain = digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit);
    let port = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (is_plain && port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_targets() {
        let target = Target::parse(&Method::Get, b"/a/%2e?b=/?c").unwrap();
        assert_eq!((target.path(), target.query()), (&b"/a/%2e"[..], Some(&b"b=/?c"[..])));
        assert_eq!((target.scheme(), target.authority()), (None, None));
        let target = Target::parse(&Method::Get, b"/?").unwrap();
        assert_eq!((target.path(), target.query()), (&b"/"[..], Some(&b""[..])));
        let target = Target::parse(&Method::Get, b"HTTPS://a:1/b?c").unwrap();
        assert_eq!((target.scheme(), target.authority()), (Some(Scheme::Https), Some(&b"a:1"[..])));
        assert_eq!(target.path_and_query(), b"/b?c");
    }

    #[test]
    fn connects_to_a_host_and_a_port() {
        let target = Target::parse(&Method::Connect, b"[::1]:22").unwrap();
        assert_eq!((target.authority(), target.path_and_query()), (Some(&b"[::1]:22"[..]), &b"/"[..]));
        for text in ["/", "a.test", "a.test:", "http://a.test:1", "a.test:1/", "u@a.test:1", "*", ":1"] {
            let fault = Target::parse(&Method::Connect, text.as_bytes()).unwrap_err();
            assert_eq!(fault.reason, "connect_target", "{text}");
        }
        assert_eq!(Target::parse(&Method::Get, b"a.test:1").unwrap_err().reason, "target_form");
    }

    #[test]
    fn fills_in_a_missing_path() {
        for (method, text, expected) in [
            (Method::Get, "http://a", "/"),
            (Method::Get, "http://a?b", "/?b"),
            (Method::Options, "http://a", "*"),
            (Method::Options, "http://a?b", "/?b"),
        ] {
            let target = Target::parse(&method, text.as_bytes()).unwrap();
            assert_eq!(target.path_and_query(), expected.as_bytes(), "{text}");
            assert_eq!(target.authority(), Some(&b"a"[..]));
        }
    }

    #[test]
    fn accepts_hosts() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("example.com.:8080", "example.com.", Some(8080)),
            ("a_b:", "a_b", None),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]:65535", "[::1]", Some(65535)),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", None),
        ] {
            let authority = Authority::parse(text.as_bytes()).unwrap();
            assert_eq!((authority.host(), authority.port()), (host.as_bytes(), port));
            assert_eq!(authority.as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn refuses_hosts() {
        for text in [
            "", ":80", "a b", "u@a", "u:p@a", "a:x", "a:+1", "a:0", "a:65536", "a:000080", "a:1:2", "::1", "[::1",
            "[a]",
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), None, "{text}");
        }
        for text in ["[::1]x", "[fe80::1%25eth0]", "a,b", "a/b", "a%2eb", "é", "a;b", "[v1.a]", "a\tb", "[::1]:x"] {
            assert_eq!(Authority::parse(text.as_bytes()), None, "{text}");
        }
    }
}
