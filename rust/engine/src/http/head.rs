//! Request and response heads (RFC 9112 §3, §4): from bytes to a value that can be trusted.
//!
//! What comes out has one meaning: one host, one way to find the end of the body, fields that another parser splits in
//! the same places. Call again with more bytes after [`Parsed::Partial`]; use [`resume_request`] where a peer may send
//! its head in many small pieces.

use std::borrow::Cow;

use memchr::{memchr, memrchr};

use super::block::{has_bare_carriage_return, read_fields};
use super::fault::{self, BadHead};
use super::fields::Fields;
use super::framing::{BodyLength, Framing};
use super::method::Method;
use super::scan::{Extent, Scan};
use super::target::{Authority, Scheme, Target};
use super::write::reason_phrase;

/// The outcome of reading a head that may not be there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// More bytes are needed.
    Partial,
    /// The head, and how many bytes of the buffer it took.
    Complete {
        /// What was read.
        head: T,
        /// The body begins at this offset.
        consumed: usize,
    },
}

/// A request without its body.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// `CONNECT` has no path: its target is the host, and `/` stands for the path.
    pub method: Method,
    /// What is asked for.
    pub target: Target,
    /// 0 or 1, of HTTP/1.x.
    pub minor: u8,
    /// All fields as received, Host and framing fields included.
    pub fields: Fields,
    /// How the end of the body is found; never [`BodyLength::UntilClose`].
    pub body: BodyLength,
    /// Whether the client lets the connection stay open.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The host of the target or the Host field, which agree where there are both; absent only in HTTP/1.0.
    pub host: Option<Authority>,
    /// What an extended CONNECT of HTTP/2 asks for by its `:protocol` (RFC 8441 §4). Its method is GET here: that is
    /// what it means.
    pub protocol: Option<Box<str>>,
}

/// A response without its body.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase, perhaps empty.
    pub reason: Cow<'static, [u8]>,
    /// 0 or 1, of HTTP/1.x.
    pub minor: u8,
    /// The fields as received, without a Content-Length that the status does not allow; a 101 keeps one above 0.
    pub fields: Fields,
    /// How the end of the body is found.
    pub body: BodyLength,
    /// Whether the connection can carry another exchange.
    pub keep_alive: bool,
}

/// Reads a request head of at most `limit` bytes at the start of `buffer`; the request line may take half of them.
/// After an error the connection must close.
pub fn parse_request(buffer: &[u8], limit: usize) -> Result<Parsed<RequestHead>, BadHead> {
    resume_request(&mut Scan::new(), buffer, limit)
}

/// Like [`parse_request`], but looks only at bytes that `scan` has not seen.
pub fn resume_request(scan: &mut Scan, buffer: &[u8], limit: usize) -> Result<Parsed<RequestHead>, BadHead> {
    let Some(extent) = scan.advance(buffer, limit)? else { return Ok(Parsed::Partial) };
    let head = read_request(buffer, &extent)?;
    Ok(Parsed::Complete { head, consumed: extent.fields.end })
}

/// Reads a response head of at most `limit` bytes at the start of `buffer`. `request_was_head` says whether it answers
/// a HEAD request, so that no body follows. Faults have the status 502; the connection must close after one.
pub fn parse_response(buffer: &[u8], limit: usize, request_was_head: bool) -> Result<Parsed<ResponseHead>, BadHead> {
    resume_response(&mut Scan::new(), buffer, limit, request_was_head)
}

/// Like [`parse_response`], but looks only at bytes that `scan` has not seen.
pub fn resume_response(
    scan: &mut Scan,
    buffer: &[u8],
    limit: usize,
    request_was_head: bool,
) -> Result<Parsed<ResponseHead>, BadHead> {
    let Some(extent) = scan.advance(buffer, limit).map_err(BadHead::by_server)? else { return Ok(Parsed::Partial) };
    let head = read_response(buffer, &extent, request_was_head).map_err(BadHead::by_server)?;
    Ok(Parsed::Complete { head, consumed: extent.fields.end })
}

fn read_request(buffer: &[u8], extent: &Extent) -> Result<RequestHead, BadHead> {
    let (method, target, minor) = parse_request_line(&buffer[extent.line.clone()])?;
    let mut framing = Framing::default();
    let fields = read_fields(&buffer[extent.fields.clone()], extent.count, |line| framing.note(line))?;
    let host = decide_host(&target, &framing, minor)?;
    let body = framing.body(minor)?.unwrap_or(BodyLength::None);
    Ok(RequestHead {
        method,
        target,
        minor,
        fields,
        body,
        keep_alive: framing.keep_alive(minor),
        // HTTP/1.0 has no interim answers (RFC 9110 §10.1.1), and without a body there is nothing to wait for.
        expect_continue: framing.expects_continue && minor == 1 && !body.is_empty(),
        host,
        protocol: None,
    })
}

fn parse_request_line(line: &[u8]) -> Result<(Method, Target, u8), BadHead> {
    if has_bare_carriage_return(line) {
        return Err(fault::BARE_CARRIAGE_RETURN);
    }
    let first = memchr(b' ', line).ok_or(fault::REQUEST_LINE)?;
    let last = memrchr(b' ', line).filter(|last| *last > first).ok_or(fault::REQUEST_LINE)?;
    let target = &line[first + 1..last];
    if memchr(b' ', target).is_some() {
        return Err(fault::REQUEST_LINE);
    }
    let minor = parse_version(&line[last + 1..]).ok_or(fault::REQUEST_LINE)??;
    let method = Method::new(&line[..first]).ok_or(fault::METHOD)?;
    let target = Target::parse(&method, target)?;
    Ok((method, target, minor))
}

/// The minor version of HTTP/1.x: none for what is no version at all, a fault for one that is not spoken here.
fn parse_version(version: &[u8]) -> Option<Result<u8, BadHead>> {
    match version {
        b"HTTP/1.1" => Some(Ok(1)),
        b"HTTP/1.0" => Some(Ok(0)),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Some(Err(fault::VERSION)),
        _ => None,
    }
}

/// RFC 9112 §3.2: exactly one Host in HTTP/1.1, at most one in HTTP/1.0. An absolute target, and that of CONNECT, would
/// win over a Host that differs (§3.2.2), but whoever reads the other one sees another site: refused.
fn decide_host(target: &Target, framing: &Framing<'_>, minor: u8) -> Result<Option<Authority>, BadHead> {
    let named = match framing.hosts {
        0 if minor == 1 => return Err(fault::HOST_MISSING),
        0 => None,
        1 => Some(Authority::parse(framing.host).ok_or(fault::HOST_INVALID)?),
        _ => return Err(fault::HOST_REPEATED),
    };
    match (target.scheme(), target.authority()) {
        (Some(scheme), Some(authority)) => agree(authority, named, scheme).map(Some),
        (None, Some(authority)) => agree_on_tunnel(authority, named).map(Some),
        _ => Ok(named),
    }
}

fn agree(authority: &[u8], named: Option<Authority>, scheme: Scheme) -> Result<Authority, BadHead> {
    let authority = Authority::parse(authority).ok_or(fault::HOST_INVALID)?;
    match named {
        Some(named) if !named.is_same(&authority, scheme) => Err(fault::HOST_MISMATCH),
        _ => Ok(authority),
    }
}

/// A Host beside the target of CONNECT may leave out the port, as some clients do.
fn agree_on_tunnel(authority: &[u8], named: Option<Authority>) -> Result<Authority, BadHead> {
    let authority = Authority::parse(authority).ok_or(fault::HOST_INVALID)?;
    let differs = |named: &Authority| {
        let other_host = !named.host().eq_ignore_ascii_case(authority.host());
        other_host || named.port().is_some_and(|port| Some(port) != authority.port())
    };
    if named.as_ref().is_some_and(differs) { Err(fault::HOST_MISMATCH) } else { Ok(authority) }
}

fn read_response(buffer: &[u8], extent: &Extent, request_was_head: bool) -> Result<ResponseHead, BadHead> {
    if extent.line.start != 0 {
        // Behind a body that was one CRLF longer than announced, nothing the server says can be placed.
        return Err(fault::EMPTY_LINES);
    }
    let (minor, status, reason) = parse_status_line(&buffer[extent.line.clone()])?;
    let mut framing = Framing::default();
    let mut fields = read_fields(&buffer[extent.fields.clone()], extent.count, |line| framing.note(line))?;
    let declared = framing.body(minor)?;
    let body = body_after(status, declared, request_was_head);
    // A 101 that announces content is no end of a handshake: whoever checks that must see it.
    let is_fake = status == 101 && declared.is_some_and(|length| !length.is_empty());
    if is_always_bodiless(status) && declared.is_some() && !is_fake {
        // RFC 9110 §8.6: a length here is an error that a client may take at its word.
        fields.remove("content-length");
    }
    let keep_alive = framing.keep_alive(minor) && can_continue(status, declared, body);
    Ok(ResponseHead { status, reason, minor, fields, body, keep_alive })
}

/// RFC 9112 §6.3, for a request that was not CONNECT.
fn body_after(status: u16, declared: Option<BodyLength>, request_was_head: bool) -> BodyLength {
    if request_was_head || is_always_bodiless(status) || status == 304 {
        BodyLength::None
    } else {
        declared.unwrap_or(BodyLength::UntilClose)
    }
}

fn is_always_bodiless(status: u16) -> bool {
    status < 200 || status == 204
}

/// A server that announces a body where none can be may send one, which would be read as the next answer.
fn can_continue(status: u16, declared: Option<BodyLength>, body: BodyLength) -> bool {
    let announces_forbidden_body = is_always_bodiless(status) && declared.is_some_and(|length| !length.is_empty());
    body != BodyLength::UntilClose && !announces_forbidden_body
}

fn parse_status_line(line: &[u8]) -> Result<(u8, u16, Cow<'static, [u8]>), BadHead> {
    if has_bare_carriage_return(line) {
        return Err(fault::BARE_CARRIAGE_RETURN);
    }
    let (version, rest) = line.split_at_checked(8).ok_or(fault::STATUS_LINE)?;
    let minor = parse_version(version).ok_or(fault::STATUS_LINE)??;
    let (digits, phrase) = rest.split_at_checked(4).ok_or(fault::STATUS_LINE)?;
    let status = parse_status(digits).ok_or(fault::STATUS_LINE)?;
    let reason = parse_reason(status, phrase).ok_or(fault::STATUS_LINE)?;
    Ok((minor, status, reason))
}

fn parse_status(digits: &[u8]) -> Option<u16> {
    let [b' ', hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = digits else { return None };
    Some([hundreds, tens, ones].into_iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}

/// The phrase after the status. Servers that leave it out often leave out the space before it as well.
fn parse_reason(status: u16, phrase: &[u8]) -> Option<Cow<'static, [u8]>> {
    let reason = match phrase {
        [] => phrase,
        [b' ', reason @ ..] => reason,
        _ => return None,
    };
    if reason.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return None;
    }
    let standard = reason_phrase(status).as_bytes();
    Some(if reason == standard { Cow::Borrowed(standard) } else { Cow::Owned(reason.to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_request_lines() {
        let (method, target, minor) = parse_request_line(b"POST /a?b HTTP/1.0").unwrap();
        assert_eq!((method, target.path_and_query(), minor), (Method::Post, &b"/a?b"[..], 0));
        for (line, reason) in [
            ("GET / HTTP/2.0", "version_unsupported"),
            ("GET / http/1.1", "request_line"),
            ("GET /", "request_line"),
            ("GET  / HTTP/1.1", "request_line"),
            ("GET / HTTP/1.1 ", "request_line"),
            ("GE:T / HTTP/1.1", "method"),
            ("GET /\r HTTP/1.1", "bare_carriage_return"),
        ] {
            assert_eq!(parse_request_line(line.as_bytes()).unwrap_err().reason, reason, "{line}");
        }
    }

    #[test]
    fn the_host_of_connect_is_its_target() {
        let read = |head: &str| match parse_request(head.as_bytes(), 1024)? {
            Parsed::Complete { head, .. } => Ok(head.host.map(|host| host.as_bytes().to_vec())),
            Parsed::Partial => panic!("it is whole"),
        };
        for host in ["Host: db.test:5432\r\n", "Host: DB.test\r\n"] {
            let head = format!("CONNECT db.test:5432 HTTP/1.1\r\n{host}\r\n");
            assert_eq!(read(&head), Ok(Some(b"db.test:5432".to_vec())), "{host}");
        }
        assert_eq!(read("CONNECT db.test:1 HTTP/1.0\r\n\r\n"), Ok(Some(b"db.test:1".to_vec())));
        for host in ["Host: db.test:1\r\n", "Host: a.test:5432\r\n"] {
            let head = format!("CONNECT db.test:5432 HTTP/1.1\r\n{host}\r\n");
            assert_eq!(read(&head), Err(fault::HOST_MISMATCH), "{host}");
        }
    }

    #[test]
    fn reads_status_lines() {
        for (line, minor, status, reason) in [
            ("HTTP/1.1 200 OK", 1, 200, "OK"),
            ("HTTP/1.0 404 ", 0, 404, ""),
            ("HTTP/1.1 999", 1, 999, ""),
            ("HTTP/1.1 200 \tÜber  all", 1, 200, "\tÜber  all"),
        ] {
            assert_eq!(
                parse_status_line(line.as_bytes()).unwrap(),
                (minor, status, reason.as_bytes().into()),
                "{line}"
            );
        }
        for line in [
            "HTTP/1.1",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000",
            "HTTP/1.1 099 ",
            "HTTP/1.1  200",
            "ICY 200 OK",
            "HTTP/1.1 200 \x08",
        ] {
            assert_eq!(parse_status_line(line.as_bytes()).unwrap_err().reason, "status_line", "{line}");
        }
    }

    #[test]
    fn a_standard_phrase_is_not_copied() {
        assert!(matches!(parse_reason(200, b" OK"), Some(Cow::Borrowed(_))));
    }
}
