//! Heads of HTTP/2 (RFC 9113 §8): from and to the values that the `h2` crate has for them.
//!
//! `h2` has refused what RFC 9113 calls malformed: pseudo-header fields in wrong places, names with capitals, fields of
//! a connection, lengths that are no numbers. What is left to judge is what HTTP/1.1 requests are judged by as well, so
//! that a request means the same however it came: one host, one length, a target that can be forwarded, the limits.

use ::http::header::{HeaderName, HeaderValue};
use ::http::{HeaderMap, request};
use h2::ext::Protocol;

use super::fault::{self, BadHead};
use super::fields::Fields;
use super::framing::BodyLength;
use super::head::RequestHead;
use super::method::Method;
use super::scan::MAX_FIELDS;
use super::target::{Authority, Target};
use super::write::is_one_of;

/// Reads a request's head of at most `limit` bytes. `ended`: no body follows.
pub fn read_request(parts: &request::Parts, ended: bool, limit: usize) -> Result<RequestHead, BadHead> {
    let path = parts.uri.path_and_query().map(|path| path.as_str().as_bytes());
    check_size(parts, path.unwrap_or_default().len(), limit)?;
    let mut fields = from_map(&parts.headers);
    check_fields(&fields)?;
    let host = decide_host(parts, &fields)?;
    fields.set("Host", host.as_bytes());
    join_cookies(&mut fields);
    let protocol = parts.extensions.get::<Protocol>().map(|protocol| protocol.as_str().into());
    let method = match (parts.method.as_str(), &protocol) {
        // An extended CONNECT is to HTTP/2 what a GET with `Upgrade` is to HTTP/1.1 (RFC 8441 §5).
        ("CONNECT", Some(_)) => Method::Get,
        (method, _) => Method::new(method.as_bytes()).ok_or(fault::METHOD)?,
    };
    // What comes of a tunnel is no body, and nobody knows its length.
    let is_connect = method == Method::Connect;
    let body = length(&fields, ended || is_connect || protocol.is_some())?;
    let target = if is_connect { host.as_bytes() } else { path.unwrap_or_default() };
    Ok(RequestHead {
        target: Target::parse(&method, target)?,
        method,
        minor: 1,
        expect_continue: !body.is_empty() && expects_continue(&fields),
        fields,
        body,
        keep_alive: true,
        host: Some(host),
        protocol,
    })
}

/// As RFC 9113 §6.5.2 counts, without what it adds for each field.
fn check_size(parts: &request::Parts, path: usize, limit: usize) -> Result<(), BadHead> {
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    match () {
        () if parts.headers.len() > MAX_FIELDS => Err(fault::TOO_MANY_FIELDS),
        () if path > limit / 2 => Err(fault::FIRST_LINE_TOO_LONG),
        () if authority + path + parts.headers.iter().map(size).sum::<usize>() > limit => Err(fault::HEAD_TOO_LARGE),
        () => Ok(()),
    }
}

fn check_fields(fields: &Fields) -> Result<(), BadHead> {
    for (name, value) in fields.iter() {
        // RFC 9113 §8.2.1: what HTTP/1.1 would trim is malformed here.
        if value.trim_ascii().len() != value.len() {
            return Err(fault::FIELD_VALUE);
        }
        if is_one_of(name, &["content_length", "transfer_encoding"]) {
            return Err(fault::FRAMING_NAME);
        }
    }
    Ok(())
}

/// RFC 9113 §8.3.1: `:authority` is the host, and a Host field, if there is one, says the same.
fn decide_host(parts: &request::Parts, fields: &Fields) -> Result<Authority, BadHead> {
    let mut named = fields.all("host");
    let (first, second) = (named.next(), named.next());
    if second.is_some() {
        return Err(fault::HOST_REPEATED);
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = Authority::parse(authority.or(first).ok_or(fault::HOST_MISSING)?).ok_or(fault::HOST_INVALID)?;
    let agrees = first.is_none_or(|named| named.eq_ignore_ascii_case(host.as_bytes()));
    if agrees { Ok(host) } else { Err(fault::HOST_MISMATCH) }
}

/// RFC 9113 §8.2.3: a client may split its cookies over several fields, which HTTP/1.1 does not know.
fn join_cookies(fields: &mut Fields) {
    if fields.all("cookie").nth(1).is_some() {
        let joined = fields.all("cookie").collect::<Vec<_>>().join(&b"; "[..]);
        fields.set("cookie", &joined);
    }
}

fn length(fields: &Fields, ended: bool) -> Result<BodyLength, BadHead> {
    let mut lengths = fields.all("content-length");
    let (first, second) = (lengths.next(), lengths.next());
    match (first, second) {
        (_, Some(_)) => Err(fault::LENGTH_REPEATED),
        (None, None) if ended => Ok(BodyLength::None),
        // Nobody has said how much comes.
        (None, None) => Ok(BodyLength::Chunked),
        (Some(digits), None) => {
            let digits = Some(digits).filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
            let length = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            length.map(BodyLength::Length).ok_or(fault::LENGTH_INVALID)
        }
    }
}

fn expects_continue(fields: &Fields) -> bool {
    fields.all("expect").any(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// The fields of a head or of trailers.
pub fn from_map(map: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    map.iter().for_each(|(name, value)| fields.push(name.as_str().as_bytes(), value.as_bytes()));
    fields
}

/// A field whose value never comes again: in the peer's table it would only push out what does. `h2` keeps values out
/// of there that are said to be sensitive (RFC 7541 §7.1.3).
const ONCE: &[u8] = b"x-request-id";

/// Fields as HTTP/2 takes them: with names in small letters, and without those of a connection of HTTP/1.1 (RFC 9113
/// §8.2.2).
pub fn to_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.iter().filter(|(name, _)| !is_of_connection(name)) {
        // Names and values that were read, or made by us, are what both versions take.
        let is_once = name.eq_ignore_ascii_case(ONCE);
        if let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            value.set_sensitive(is_once);
            map.append(name, value);
        }
    }
    map
}

pub fn is_of_connection(name: &[u8]) -> bool {
    const OWN: [&str; 6] =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"];
    is_one_of(name, &OWN)
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    fn parts(uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn fault(uri: &str, fields: &[(&str, &str)]) -> &'static str {
        read_request(&parts(uri, fields), false, 1024).unwrap_err().reason
    }

    #[test]
    fn a_head_like_any_other() {
        let fields = [("accept", "*/*"), ("cookie", "a=1"), ("cookie", "b=2"), ("content-length", "3")];
        let head = read_request(&parts("https://a.test:8/x?y", &fields), false, 1024).unwrap();
        assert_eq!(head.target.path_and_query(), b"/x?y");
        assert_eq!(head.host.unwrap().as_bytes(), b"a.test:8");
        assert_eq!(head.fields.all("cookie").collect::<Vec<_>>(), [b"a=1; b=2"]);
        assert_eq!(head.fields.first("Host"), Some(&b"a.test:8"[..]));
        assert_eq!((head.body, head.method), (BodyLength::Length(3), Method::Get));
    }

    #[test]
    fn the_end_of_the_body() {
        let read = |ended| read_request(&parts("https://a.test/", &[]), ended, 1024).unwrap().body;
        assert_eq!((read(true), read(false)), (BodyLength::None, BodyLength::Chunked));
        assert_eq!(fault("https://a.test/", &[("content-length", "1"), ("content-length", "1")]), "length_repeated");
        assert_eq!(fault("https://a.test/", &[("content-length", "+1")]), "length_invalid");
    }

    #[test]
    fn one_host() {
        assert_eq!(fault("/", &[]), "host_missing");
        assert_eq!(fault("https://a.test/", &[("host", "b.test")]), "host_mismatch");
        assert_eq!(fault("/", &[("host", "b.test"), ("host", "b.test")]), "host_repeated");
        assert_eq!(fault("https://me@a.test/", &[]), "host_invalid");
        let head = read_request(&parts("/", &[("host", "b.test")]), true, 1024).unwrap();
        assert_eq!(head.host.unwrap().as_bytes(), b"b.test");
    }

    #[test]
    fn connect() {
        let mut tunnel = parts("db.test:5432", &[]);
        tunnel.method = ::http::Method::CONNECT;
        let head = read_request(&tunnel, false, 1024).unwrap();
        assert_eq!((head.method, head.body), (Method::Connect, BodyLength::None));
        assert_eq!(head.host.unwrap().as_bytes(), b"db.test:5432");
        let mut nowhere = parts("db.test", &[]);
        nowhere.method = ::http::Method::CONNECT;
        assert_eq!(read_request(&nowhere, false, 1024).unwrap_err().reason, "connect_target");
    }

    #[test]
    fn limits() {
        let long = "x".repeat(600);
        assert_eq!(fault(&format!("https://a.test/{long}"), &[]), "first_line_too_long");
        assert_eq!(fault("https://a.test/", &[("a", &long), ("b", &long)]), "head_too_large");
        let many: Vec<(String, &str)> = (0..101).map(|index| (format!("a{index}"), "")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, *value)).collect();
        assert_eq!(fault("https://a.test/", &many), "too_many_fields");
    }

    #[test]
    fn what_http_1_1_would_read_in_another_way() {
        assert_eq!(fault("https://a.test/", &[("a", " b")]), "field_value");
        assert_eq!(fault("https://a.test/", &[("content_length", "3")]), "framing_name");
    }

    #[test]
    fn fields_of_a_connection_stay_behind() {
        let mut fields = Fields::new();
        for (name, value) in [("Connection", "close"), ("Set-Cookie", "a"), ("Upgrade", "x"), ("set-cookie", "b")] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let map = to_map(&fields);
        assert_eq!(map.len(), 2);
        assert_eq!(map.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
