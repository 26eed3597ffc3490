//! Heads of HTTP/3 (RFC 9114 §4.2, §4.3): from fields and to fields.
//!
//! What is malformed here is what the `h2` crate refuses for HTTP/2. The rest is judged as HTTP/2 is ([`h2`]), so that
//! a request means the same however it came.
//!
//! [`h2`]: crate::http::h2

use ::h2::ext::Protocol;
use ::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, request};

use super::code::Code;
use super::qpack::{self, BadSection};
use crate::http::fields::Fields;
use crate::http::h2::{self, is_of_connection};
use crate::http::{BadHead, RequestHead};

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHead {
    /// The message is malformed: its stream ends with H3_MESSAGE_ERROR.
    Malformed,
    /// Answer this.
    Bad(BadHead),
}

/// Reads a request's head of at most `limit` bytes. `ended`: no body follows.
pub fn read_request(fields: &Fields, ended: bool, limit: usize) -> Result<RequestHead, NoHead> {
    let parts = parts(fields).ok_or(NoHead::Malformed)?;
    h2::read_request(&parts, ended, limit).map_err(NoHead::Bad)
}

/// The fields behind a colon.
#[derive(Default)]
struct Pseudo<'f> {
    method: Option<&'f [u8]>,
    scheme: Option<&'f [u8]>,
    authority: Option<&'f [u8]>,
    path: Option<&'f [u8]>,
    protocol: Option<&'f [u8]>,
}

fn parts(fields: &Fields) -> Option<request::Parts> {
    let (mut pseudo, mut map) = (Pseudo::default(), HeaderMap::with_capacity(fields.len()));
    for (name, value) in fields.iter() {
        if name.starts_with(b":") {
            // They stand in front of all others, each once (§4.3).
            let place = pseudo.place(name).filter(|place| place.is_none() && map.is_empty())?;
            *place = Some(value);
        } else {
            let (name, value) = regular(name, value)?;
            map.append(name, value);
        }
    }
    let mut parts = Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(pseudo.method?).ok()?;
    parts.uri = pseudo.uri(map.contains_key("host"))?;
    if let Some(protocol) = pseudo.protocol {
        parts.extensions.insert(Protocol::from(std::str::from_utf8(protocol).ok()?));
    }
    parts.headers = map;
    Some(parts)
}

impl<'f> Pseudo<'f> {
    fn place(&mut self, name: &[u8]) -> Option<&mut Option<&'f [u8]>> {
        match name {
            b":method" => Some(&mut self.method),
            b":scheme" => Some(&mut self.scheme),
            b":authority" => Some(&mut self.authority),
            b":path" => Some(&mut self.path),
            b":protocol" => Some(&mut self.protocol),
            _ => None,
        }
    }

    /// Which of them there are (§4.3.1, §4.4, RFC 8441 §4).
    fn uri(&self, has_host: bool) -> Option<Uri> {
        let mut parts = ::http::uri::Parts::default();
        parts.authority = self.authority.map(Authority::try_from).transpose().ok()?;
        if self.method == Some(b"CONNECT") && self.protocol.is_none() {
            let fits = self.scheme.is_none() && self.path.is_none() && parts.authority.is_some();
            return if fits { Uri::from_parts(parts).ok() } else { None };
        }
        let (scheme, path) = (self.scheme?, self.path.filter(|path| !path.is_empty())?);
        if (self.protocol.is_some() && self.method != Some(b"CONNECT")) || (parts.authority.is_none() && !has_host) {
            return None;
        }
        // A path alone is an address as well; with a scheme there must be an authority.
        parts.scheme = parts.authority.is_some().then(|| Scheme::try_from(scheme)).transpose().ok()?;
        parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
        Uri::from_parts(parts).ok()
    }
}

fn regular(name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let is_small = !name.iter().any(u8::is_ascii_uppercase);
    // RFC 9114 §4.2: of the fields of a connection there may be TE, and that only for trailers.
    let fits = is_small && !is_of_connection(name) && (name != b"te" || value.eq_ignore_ascii_case(b"trailers"));
    let pair = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    fits.then_some(pair)
}

/// An answer's head. None where it is malformed.
pub fn read_response(fields: &Fields) -> Option<Response<()>> {
    let (mut status, mut map) = (None, HeaderMap::with_capacity(fields.len()));
    for (name, value) in fields.iter() {
        if name.starts_with(b":") {
            let fits = name == b":status" && status.is_none() && map.is_empty();
            status = fits.then_some(value);
            status?;
        } else {
            let (name, value) = regular(name, value)?;
            map.append(name, value);
        }
    }
    let status = status.filter(|status| status.len() == 3)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_bytes(status).ok()?;
    *response.headers_mut() = map;
    // More than one would be read in two ways (§4.2, RFC 9110 §8.6).
    (response.headers().get_all("content-length").iter().count() < 2).then_some(response)
}

/// The field section of a request's head.
pub fn write_request(request: &Request<()>) -> Vec<u8> {
    let (uri, mut lines) = (request.uri(), Vec::with_capacity(request.headers().len() + 5));
    let mut push = |name: &'static [u8], value: &[u8]| lines.push((name, value.to_vec()));
    push(b":method", request.method().as_str().as_bytes());
    if let Some(protocol) = request.extensions().get::<Protocol>() {
        push(b":protocol", protocol.as_str().as_bytes());
    }
    push(b":authority", uri.authority().map_or("", Authority::as_str).as_bytes());
    // A CONNECT of old has neither (§4.4).
    if let (Some(scheme), Some(path)) = (uri.scheme_str(), uri.path_and_query()) {
        push(b":scheme", scheme.as_bytes());
        push(b":path", path.as_str().as_bytes());
    }
    let pseudo = lines.iter().map(|(name, value)| (*name, &**value));
    let fields = request.headers().iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    qpack::encode(pseudo.chain(fields))
}

/// Trailers, as a field section.
///
/// # Errors
/// What it ends for: the message, or the connection.
pub fn read_trailers(section: &[u8], limit: usize) -> Result<Fields, Code> {
    let fields = qpack::decode(section, limit).map_err(|bad| match bad {
        BadSection::TooLarge => Code::MESSAGE_ERROR,
        BadSection::Malformed => Code::DECOMPRESSION_FAILED,
    })?;
    let fits = fields.iter().all(|(name, value)| regular(name, value).is_some());
    if fits { Ok(fields) } else { Err(Code::MESSAGE_ERROR) }
}

/// The field section of an answer's head.
pub fn write_response(status: u16, fields: &Fields) -> Vec<u8> {
    let status = status.to_string();
    let names = small(fields);
    let rest = names.iter().map(|(name, value)| (&**name, *value));
    qpack::encode([(&b":status"[..], status.as_bytes())].into_iter().chain(rest))
}

/// The field section of an answer's trailers.
pub fn write_trailers(fields: &Fields) -> Vec<u8> {
    let names = small(fields);
    qpack::encode(names.iter().map(|(name, value)| (&**name, *value)))
}

/// With names in small letters, and without those of a connection of HTTP/1.1.
fn small(fields: &Fields) -> Vec<(Vec<u8>, &[u8])> {
    let kept = fields.iter().filter(|(name, _)| !is_of_connection(name));
    kept.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{BodyLength, Method};

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x")];

    fn read(fields: &[(&str, &str)]) -> Result<RequestHead, NoHead> {
        let mut made = Fields::new();
        fields.iter().for_each(|(name, value)| made.push(name.as_bytes(), value.as_bytes()));
        read_request(&made, true, 1024)
    }

    #[test]
    fn a_head_like_any_other() {
        let head = read(&[&GET[..], &[("accept", "*/*"), ("te", "trailers")]].concat()).unwrap();
        assert_eq!((head.method, head.body), (Method::Get, BodyLength::None));
        assert_eq!(head.target.path_and_query(), b"/x");
        assert_eq!(head.fields.first("Host"), Some(&b"a.test"[..]));
        let head = read(&[GET[0], GET[1], GET[3], ("host", "b.test")]).unwrap();
        assert_eq!(head.host.unwrap().as_bytes(), b"b.test");
    }

    #[test]
    fn an_extended_connect() {
        let connect = [(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3]];
        let head = read(&connect).unwrap();
        assert_eq!((head.method, head.protocol.as_deref()), (Method::Get, Some("websocket")));
        assert_eq!(read(&[connect[0], connect[1], GET[1], GET[2]]).unwrap_err(), NoHead::Malformed);
        assert_eq!(read(&[&GET[..], &connect[1..2]].concat()).unwrap_err(), NoHead::Malformed);
    }

    #[test]
    fn malformed() {
        let with = |field| read(&[&GET[..], &[field]].concat());
        for field in [
            ("Accept", "*/*"),
            ("connection", "close"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            (":path", "/y"),
            (":other", ""),
            ("a b", ""),
            ("a", "b\n"),
        ] {
            assert_eq!(with(field).unwrap_err(), NoHead::Malformed, "{field:?}");
        }
        for left_out in 0..4 {
            let mut fields = GET.to_vec();
            fields.remove(left_out);
            assert_eq!(read(&fields).unwrap_err(), NoHead::Malformed, "{left_out}");
        }
        assert_eq!(read(&[GET[0], GET[1], GET[2], ("a", "b"), GET[3]]).unwrap_err(), NoHead::Malformed);
        assert_eq!(read(&[GET[0], GET[1], GET[2], (":path", "")]).unwrap_err(), NoHead::Malformed);
    }

    #[test]
    fn a_connect_of_old() {
        let head = read(&[(":method", "CONNECT"), (":authority", "a.test:443")]).unwrap();
        assert_eq!((head.method, head.host.unwrap().as_bytes()), (Method::Connect, &b"a.test:443"[..]));
        let head = read(&[(":method", "CONNECT"), (":authority", "a.test")]);
        assert!(matches!(head.unwrap_err(), NoHead::Bad(bad) if bad.reason == "connect_target"));
    }

    #[test]
    fn a_request_of_ours_is_one_of_theirs() {
        let mut request = Request::builder().method("CONNECT").uri("https://a.test:8/x?y").body(()).unwrap();
        request.headers_mut().insert("origin", HeaderValue::from_static("null"));
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let head = read_request(&qpack::decode(&write_request(&request), 1000).unwrap(), false, 1024).unwrap();
        assert_eq!((head.target.path_and_query(), head.protocol.as_deref()), (&b"/x?y"[..], Some("websocket")));
        assert_eq!(head.fields.first("Host"), Some(&b"a.test:8"[..]));
        assert_eq!(head.fields.first("Origin"), Some(&b"null"[..]));
    }

    #[test]
    fn an_answer_of_theirs() {
        let read = |fields: &[(&str, &str)]| {
            let mut made = Fields::new();
            fields.iter().for_each(|(name, value)| made.push(name.as_bytes(), value.as_bytes()));
            read_response(&made).map(|response| response.status().as_u16())
        };
        assert_eq!(read(&[(":status", "204"), ("content-length", "0")]), Some(204));
        for bad in [
            &[("a", "b")][..],
            &[(":status", "99")],
            &[(":status", "+99")],
            &[(":status", "200"), (":status", "200")],
            &[("a", "b"), (":status", "200")],
            &[(":status", "200"), (":path", "/")],
            &[(":status", "200"), ("connection", "close")],
            &[(":status", "200"), ("A", "b")],
            &[(":status", "200"), ("content-length", "1"), ("content-length", "1")],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_answer() {
        let mut fields = Fields::new();
        [("Content-Type", "text/plain"), ("Connection", "close"), ("X-A", "b")]
            .iter()
            .for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        let back = qpack::decode(&write_response(200, &fields), 1000).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let back: Vec<_> = back.iter().map(|(name, value)| (text(name), text(value))).collect();
        assert_eq!(
            back,
            [(":status", "200"), ("content-type", "text/plain"), ("x-a", "b")].map(|(a, b)| (a.into(), b.into()))
        );
    }
}
