//! Heads as bytes, and what an intermediary takes out of them before it passes them on (RFC 9110 §7.6.1).
//!
//! Writers add to a buffer and never fail. They do not look for line breaks: fields that were read have none, and
//! values of our own making pass [`clean_value`] where they are made. Debug builds check.

use super::fields::Fields;
use super::method::is_token;

/// Writes a request head. `target` goes into the request line as it is.
pub fn write_request(out: &mut Vec<u8>, method: &[u8], target: &[u8], fields: &Fields) {
    debug_assert!(is_token(method) && target.iter().all(u8::is_ascii_graphic), "an unclean request line");
    for part in [method, b" ", target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    write_fields(out, fields);
}

/// Writes a response head, with the usual reason phrase when `reason` is none.
pub fn write_response(out: &mut Vec<u8>, status: u16, reason: Option<&[u8]>, fields: &Fields) {
    let reason = reason.unwrap_or_else(|| reason_phrase(status).as_bytes());
    debug_assert!(is_clean(reason), "an unclean reason");
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&status_digits(status));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
    write_fields(out, fields);
}

/// Writes fields in their order and spelling, and the empty line after them.
pub fn write_fields(out: &mut Vec<u8>, fields: &Fields) {
    for (name, value) in fields.iter() {
        debug_assert!(is_token(name) && is_clean(value), "an unclean field");
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn status_digits(status: u16) -> [u8; 3] {
    let digit = |weight: u16| b'0' + (status / weight % 10) as u8;
    [digit(100), digit(10), digit(1)]
}

/// Makes any bytes a field value: control characters become spaces, white space at the ends goes (RFC 9110 §5.5).
pub fn clean_value(value: &mut Vec<u8>) {
    value.iter_mut().filter(|byte| is_forbidden(**byte)).for_each(|byte| *byte = b' ');
    value.truncate(value.trim_ascii_end().len());
    let leading = value.len() - value.trim_ascii_start().len();
    value.drain(..leading);
}

fn is_clean(value: &[u8]) -> bool {
    !value.iter().any(|byte| is_forbidden(*byte))
}

fn is_forbidden(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Removes what concerns one connection only: Connection and the fields it names, Keep-Alive, Proxy-Connection, TE,
/// Transfer-Encoding, Upgrade and HTTP2-Settings. Read Upgrade, and set the framing of the next hop, around this call.
///
/// A client must not make us drop what it did not add for this hop: naming Cookie or X-Forwarded-For in Connection
/// would hide them from the upstream, so such fields stay.
pub fn strip_connection_fields(fields: &mut Fields) {
    let named = named_by_connection(fields);
    fields.retain(|name, _| !is_hop_by_hop(name) && (!is_named(&named, name) || is_end_to_end(name)));
}

/// The options of all Connection fields but the usual ones, each followed by a comma.
fn named_by_connection(fields: &Fields) -> Vec<u8> {
    let mut named = Vec::new();
    for option in fields.elements("connection").filter(|option| !is_usual_option(option)) {
        named.extend_from_slice(option);
        named.push(b',');
    }
    named
}

fn is_named(named: &[u8], name: &[u8]) -> bool {
    !named.is_empty() && named.split(|byte| *byte == b',').any(|option| option.eq_ignore_ascii_case(name))
}

fn is_usual_option(option: &[u8]) -> bool {
    is_one_of(option, &["close", "keep-alive", "upgrade"])
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    // The length alone rules nearly every field out.
    match name.len() {
        2 => is_one_of(name, &["te"]),
        7 => is_one_of(name, &["upgrade"]),
        10 => is_one_of(name, &["connection", "keep-alive"]),
        14 => is_one_of(name, &["http2-settings"]),
        16 => is_one_of(name, &["proxy-connection"]),
        17 => is_one_of(name, &["transfer-encoding"]),
        _ => false,
    }
}

/// Fields that no Connection field may take away.
fn is_end_to_end(name: &[u8]) -> bool {
    const WHOLE: [&str; 12] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "forwarded",
        "host",
        "origin",
        "set-cookie",
        "via",
        "x-real-ip",
    ];
    is_one_of(name, &WHOLE) || has_prefix(name, "x-forwarded-") || has_prefix(name, "sec-")
}

pub(super) fn is_one_of(name: &[u8], candidates: &[&str]) -> bool {
    candidates.iter().any(|candidate| name.eq_ignore_ascii_case(candidate.as_bytes()))
}

pub(super) fn has_prefix(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// The usual reason phrase of a status (RFC 9110 §15 and the registry), empty for an unknown one.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400..=499 => client_error_phrase(status),
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

fn client_error_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        lines.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn writes_heads_as_spelled() {
        let mut out = Vec::new();
        write_request(&mut out, b"GET", b"/a?b", &fields(&[("hOST", "a"), ("X", "")]));
        assert_eq!(out, b"GET /a?b HTTP/1.1\r\nhOST: a\r\nX: \r\n\r\n");
        out.clear();
        write_response(&mut out, 404, None, &fields(&[("A", "b")]));
        assert_eq!(out, b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n");
        out.clear();
        write_response(&mut out, 799, None, &Fields::new());
        write_response(&mut out, 200, Some(b"Fine"), &Fields::new());
        assert_eq!(out, b"HTTP/1.1 799 \r\n\r\nHTTP/1.1 200 Fine\r\n\r\n");
    }

    #[test]
    fn strips_what_belongs_to_the_connection() {
        let mut stripped = fields(&[
            ("Host", "a"),
            ("Connection", "close, X-Private"),
            ("x-private", "1"),
            ("Keep-Alive", "timeout=5"),
            ("connection", "Other"),
            ("OTHER", "2"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABk"),
            ("Proxy-Authorization", "Basic x"),
            ("X-Private-Not", "3"),
        ]);
        strip_connection_fields(&mut stripped);
        assert_eq!(names(&stripped), ["Host", "Proxy-Authorization", "X-Private-Not"]);
    }

    #[test]
    fn connection_cannot_hide_end_to_end_fields() {
        let kept = ["Host", "Cookie", "X-Forwarded-For", "Content-Length", "Sec-WebSocket-Key", "Authorization"];
        for name in kept {
            let mut stripped = fields(&[("Connection", name), (name, "1")]);
            strip_connection_fields(&mut stripped);
            assert_eq!(names(&stripped), [name]);
        }
    }

    #[test]
    fn cleans_values() {
        for (value, expected) in
            [("a\r\nb: c", "a  b: c"), ("\0 a\tb \x7f", "a\tb"), ("", ""), ("\r\n", ""), ("é", "é"), (" a", "a")]
        {
            let mut cleaned = value.as_bytes().to_vec();
            clean_value(&mut cleaned);
            assert_eq!(cleaned, expected.as_bytes());
        }
    }
}
