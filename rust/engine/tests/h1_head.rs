//! Which heads are accepted and which are refused, as tables: each smuggling form of RFC 9112 §11.2 and its relatives.

use tidegate_engine::http::{
    BadHead, BodyLength, Method, Parsed, RequestHead, ResponseHead, Scan, parse_request, parse_response, resume_request,
};

const LIMIT: usize = 4096;

fn request(bytes: impl AsRef<[u8]>) -> Result<RequestHead, BadHead> {
    let bytes = bytes.as_ref();
    match parse_request(bytes, LIMIT)? {
        Parsed::Complete { head, consumed } => {
            assert_eq!(consumed, bytes.len());
            Ok(head)
        }
        Parsed::Partial => panic!("not complete: {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn response(bytes: impl AsRef<[u8]>, request_was_head: bool) -> Result<ResponseHead, BadHead> {
    let bytes = bytes.as_ref();
    match parse_response(bytes, LIMIT, request_was_head)? {
        Parsed::Complete { head, consumed } => {
            assert_eq!(consumed, bytes.len());
            Ok(head)
        }
        Parsed::Partial => panic!("not complete: {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// A POST with these field lines besides Host.
fn post(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, status: u16, reason: &str) {
    let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    match parse_request(bytes.as_ref(), LIMIT) {
        Err(fault) => assert_eq!((fault.status, fault.reason), (status, reason), "{text:?}"),
        Ok(parsed) => panic!("accepted {text:?}: {parsed:?}"),
    }
}

#[track_caller]
fn response_refused(bytes: impl AsRef<[u8]>, reason: &str) {
    let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    match parse_response(bytes.as_ref(), LIMIT, false) {
        Err(fault) => assert_eq!((fault.status, fault.reason), (502, reason), "{text:?}"),
        Ok(parsed) => panic!("accepted {text:?}: {parsed:?}"),
    }
}

#[test]
fn a_browser_request_is_read_whole() {
    let bytes = b"GET /chat?room=1 HTTP/1.1\r\nHost: Example.com:8080\r\nconnection: keep-alive, Upgrade\r\n\
        Cookie: a=b; c=d\r\nX-Empty:\r\nX-Space: \t two  words \r\nX-High: caf\xe9\r\n\r\n";
    let head = request(bytes).unwrap();
    assert_eq!((&head.method, head.minor, head.body), (&Method::Get, 1, BodyLength::None));
    assert_eq!((head.target.path(), head.target.query()), (&b"/chat"[..], Some(&b"room=1"[..])));
    let host = head.host.as_ref().unwrap();
    assert_eq!((host.host(), host.port()), (&b"Example.com"[..], Some(8080)));
    assert!(head.keep_alive && !head.expect_continue);
    let fields: Vec<_> = head.fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    let expected = [
        (&b"Host"[..], &b"Example.com:8080"[..]),
        (b"connection", b"keep-alive, Upgrade"),
        (b"Cookie", b"a=b; c=d"),
        (b"X-Empty", b""),
        (b"X-Space", b"two  words"),
        (b"X-High", b"caf\xe9"),
    ];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
}

#[test]
fn what_follows_the_head_is_not_touched() {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\0\rGET";
    let Ok(Parsed::Complete { head, consumed }) = parse_request(bytes, LIMIT) else { panic!("refused") };
    assert_eq!((head.body, &bytes[consumed..]), (BodyLength::Length(3), &b"\n\0\rGET"[..]));
}

#[test]
fn lengths() {
    for (value, length) in [("0", 0), ("5", 5), ("0005", 5), ("18446744073709551615", u64::MAX)] {
        let head = request(post(&format!("Content-Length: {value}\r\n"))).unwrap();
        assert_eq!(head.body, BodyLength::Length(length));
    }
    for value in ["", "+5", "-1", "0x5", "5 5", "5 ", "5\t", "5.0", "1e3", "5_0", "18446744073709551616", "five", "'5'"]
    {
        refused(post(&format!("Content-Length: {value}\r\n")), 400, "length_invalid");
    }
    refused(post("Content-Length: \u{665}\r\n"), 400, "length_invalid");
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5,5\r\n",
        "Content-Length: ,5\r\n",
        "Content-Length: 0\r\nX: y\r\nContent-Length: 0\r\n",
    ] {
        refused(post(lines), 400, "length_repeated");
    }
}

#[test]
fn transfer_codings() {
    for value in ["chunked", "Chunked", "\tchunked"] {
        assert_eq!(request(post(&format!("Transfer-Encoding: {value}\r\n"))).unwrap().body, BodyLength::Chunked);
    }
    for value in [
        "",
        "xchunked",
        "chunkedx",
        "chunked;x",
        "chunked; q=1",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "chunked, identity",
        "chunked ",
        "identity",
        "identity, chunked",
        "gzip;q=1, chunked",
        "chunked, gzip",
        "\"chunked\"",
        "chun ked",
        "cow",
    ] {
        refused(post(&format!("Transfer-Encoding: {value}\r\n")), 400, "encoding_invalid");
    }
    for value in ["gzip", "x-gzip", "deflate", "compress", "gzip, chunked", "gzip,deflate,chunked"] {
        refused(post(&format!("Transfer-Encoding: {value}\r\n")), 501, "encoding_unsupported");
    }
    refused(post("Transfer-Encoding: \x0bchunked\r\n"), 400, "field_value");
    refused(post("Transfer-Encoding: chunked\x0c\r\n"), 400, "field_value");
    refused(post("Transfer-Encoding: chunked\0\r\n"), 400, "field_value");
    refused(post("Transfer-Encoding : chunked\r\n"), 400, "field_name");
    refused(post("Transfer-Encoding\x0b: chunked\r\n"), 400, "field_name");
    refused(post("Transfer_Encoding\r\n: chunked\r\n"), 400, "field_name");
    refused(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400, "encoding_invalid");
    refused(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n"), 400, "encoding_invalid");
    refused(post("Transfer-Encoding:\r\n chunked\r\n"), 400, "obs_fold");
}

#[test]
fn a_length_beside_chunked() {
    refused(post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400, "length_and_encoding");
    refused(post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), 400, "length_and_encoding");
    refused(post("Transfer-Encoding: gzip, chunked\r\nContent-Length: 0\r\n"), 400, "length_and_encoding");
    refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "encoding_in_http_1_0");
    refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400, "length_and_encoding");
}

#[test]
fn line_ends() {
    for text in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        refused(text, 400, "bare_line_feed");
    }
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX:\r y\r\n\r\n",
        "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET /\rHTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        refused(text, 400, "bare_carriage_return");
    }
    for text in [
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
    ] {
        refused(text, 400, "obs_fold");
    }
}

#[test]
fn one_empty_line_before_a_request() {
    assert!(request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    refused("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "empty_lines");
}

#[test]
fn field_names_and_values() {
    for line in [
        ": x",
        " : x",
        "A : x",
        "A\t: x",
        "A",
        "A B: x",
        "A\0: x",
        "A\x7f: x",
        "(A): x",
        "A@: x",
        "A[]: x",
        "\"A\": x",
        "É: x",
        "=: x\u{1}: y",
        "{}: y",
    ] {
        let reason = if line.starts_with(' ') { "obs_fold" } else { "field_name" };
        refused(post(&format!("{line}\r\n")), 400, reason);
    }
    for value in ["\0", "a\0b", "\x01", "a\x08", "\x1b[0m", "\x7f", "a\x0b"] {
        refused(post(&format!("X: {value}\r\n")), 400, "field_value");
    }
    assert!(request(post("!#$%&'*+-.^_`|~09AZaz: \t\u{e9} \r\n")).is_ok());
}

#[test]
fn hosts() {
    refused("GET / HTTP/1.1\r\n\r\n", 400, "host_missing");
    refused("GET http://a/ HTTP/1.1\r\n\r\n", 400, "host_missing");
    assert_eq!(request("GET / HTTP/1.0\r\n\r\n").unwrap().host, None);
    for minor in [0, 1] {
        refused(format!("GET / HTTP/1.{minor}\r\nHost: a\r\nhost: a\r\n\r\n"), 400, "host_repeated");
        refused(format!("GET / HTTP/1.{minor}\r\nHost: a\r\nhost: b\r\n\r\n"), 400, "host_repeated");
        for host in [
            "", "u@a", "u:p@a", "a b", "a, b", "a,b", "a:b", "a:99999", "a:-1", "a:1:1", "a/b", "a?", "[::1", "::1",
            "http://a", "a%00",
        ] {
            refused(format!("GET / HTTP/1.{minor}\r\nHost: {host}\r\n\r\n"), 400, "host_invalid");
        }
    }
}

#[test]
fn absolute_targets_agree_with_the_host() {
    let get = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (target, host, path) in [
        ("http://a/b?c", "a", "/b"),
        ("HTTP://A", "a:80", "/"),
        ("http://a:80/", "a", "/"),
        ("https://a/", "a:443", "/"),
        ("http://[::1]:8080/", "[::1]:8080", "/"),
    ] {
        let head = request(get(target, host)).unwrap();
        assert_eq!(head.target.path(), path.as_bytes(), "{target}");
        assert!(head.host.is_some());
    }
    for (target, host) in [
        ("http://a/", "b"),
        ("http://a/", "a:8080"),
        ("https://a/", "a:80"),
        ("http://a:1/", "a:2"),
        ("http://a./", "a"),
    ] {
        refused(get(target, host), 400, "host_mismatch");
    }
    for target in ["http://", "http:///path", "http://u@a/", "http://a:x/", "http://a\\b/"] {
        refused(get(target, "a"), 400, "host_invalid");
    }
    let head = request("GET http://a:1/ HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(head.host.unwrap().as_bytes(), b"a:1");
}

#[test]
fn request_lines() {
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    for (text, status, reason) in [
        ("GET / HTTP/1.2", 505, "version_unsupported"),
        ("GET / HTTP/2.0", 505, "version_unsupported"),
        ("PRI * HTTP/2.0", 505, "version_unsupported"),
        ("GET / HTTP/0.9", 505, "version_unsupported"),
        ("GET / HTTP/1", 400, "request_line"),
        ("GET / HTTP/1.10", 400, "request_line"),
        ("GET / HTTP/1.1x", 400, "request_line"),
        ("GET / http/1.1", 400, "request_line"),
        ("GET / HTTPS/1.1", 400, "request_line"),
        ("GET /", 400, "request_line"),
        ("GET", 400, "request_line"),
        ("GET  / HTTP/1.1", 400, "request_line"),
        ("GET /  HTTP/1.1", 400, "request_line"),
        ("GET / x HTTP/1.1", 400, "request_line"),
        ("GET HTTP/1.1", 400, "request_line"),
        ("GET / HTTP/1.1 ", 400, "request_line"),
        ("GET\t/ HTTP/1.1", 400, "request_line"),
        ("GET(x) / HTTP/1.1", 400, "method"),
        ("G\0T / HTTP/1.1", 400, "method"),
        (" GET / HTTP/1.1", 400, "not_http"),
        ("\x16\x03\x01\x02", 400, "not_http"),
        ("CONNECT a HTTP/1.1", 400, "connect_target"),
        ("CONNECT / HTTP/1.1", 400, "connect_target"),
        ("GET a:443 HTTP/1.1", 400, "target_form"),
        ("GET a/b HTTP/1.1", 400, "target_form"),
        ("GET * HTTP/1.1", 400, "target_form"),
        ("OPTIONS ** HTTP/1.1", 400, "target_form"),
        ("GET ftp://a/ HTTP/1.1", 400, "target_form"),
        ("GET ws://a/ HTTP/1.1", 400, "target_form"),
        ("GET ?a HTTP/1.1", 400, "target_form"),
        ("GET /#a HTTP/1.1", 400, "target_character"),
        ("GET /a\tb HTTP/1.1", 400, "target_character"),
        ("GET /a\x7f HTTP/1.1", 400, "target_character"),
        ("GET /a\0 HTTP/1.1", 400, "target_character"),
        ("GET /é HTTP/1.1", 400, "target_character"),
    ] {
        refused(line(text), status, reason);
    }
    for (text, path) in
        [("OPTIONS * HTTP/1.1", "*"), ("get //a HTTP/1.1", "//a"), ("M-SEARCH /a|\"{}<>\\^` HTTP/1.1", "/a|\"{}<>\\^`")]
    {
        assert_eq!(request(line(text)).unwrap().target.path(), path.as_bytes());
    }
}

#[test]
fn limits() {
    let field = "X-Filler: y\r\n";
    assert_eq!(request(post(&field.repeat(99))).unwrap().fields.len(), 100);
    refused(post(&field.repeat(100)), 431, "too_many_fields");
    refused(post(&format!("X: {}\r\n", "y".repeat(LIMIT))), 431, "head_too_large");
    refused(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(LIMIT / 2)), 414, "first_line_too_long");
    refused("G".repeat(LIMIT / 2), 414, "first_line_too_long");
    let padding = LIMIT - post("X: \r\n").len();
    assert!(request(post(&format!("X: {}\r\n", "y".repeat(padding)))).is_ok(), "exactly the limit");
    refused(post(&format!("X: {}\r\n", "y".repeat(padding + 1))), 431, "head_too_large");
}

#[test]
fn connections_that_stay_open() {
    for (minor, line, keep_alive) in [
        (1, "", true),
        (1, "Connection: close\r\n", false),
        (1, "Connection: keep-alive\r\nConnection: x, CLOSE\r\n", false),
        (1, "Connection: closed\r\n", true),
        (0, "", false),
        (0, "Connection: Keep-Alive\r\n", true),
        (0, "Connection: Keep-Alive, close\r\n", false),
    ] {
        let head = request(format!("GET / HTTP/1.{minor}\r\nHost: a\r\n{line}\r\n")).unwrap();
        assert_eq!(head.keep_alive, keep_alive, "{minor} {line:?}");
    }
}

#[test]
fn expectations() {
    let lines = "Expect: 100-Continue\r\n";
    assert!(request(post(&format!("{lines}Content-Length: 1\r\n"))).unwrap().expect_continue);
    assert!(request(post(&format!("{lines}Transfer-Encoding: chunked\r\n"))).unwrap().expect_continue);
    assert!(!request(post(lines)).unwrap().expect_continue);
    assert!(!request(post("Expect: 200-ok\r\nContent-Length: 1\r\n")).unwrap().expect_continue);
    assert!(!request(format!("POST / HTTP/1.0\r\n{lines}Content-Length: 1\r\n\r\n")).unwrap().expect_continue);
}

#[test]
fn a_scan_goes_on_where_it_stopped() {
    let bytes = post("X: y\r\nContent-Length: 2\r\n");
    let mut scan = Scan::new();
    for end in 0..bytes.len() {
        assert!(matches!(resume_request(&mut scan, &bytes[..end], LIMIT), Ok(Parsed::Partial)), "{end}");
    }
    let Ok(Parsed::Complete { head, .. }) = resume_request(&mut scan, &bytes, LIMIT) else { panic!("not complete") };
    assert_eq!(head.body, BodyLength::Length(2));
}

#[test]
fn response_bodies() {
    use BodyLength::{Chunked, Length, None, UntilClose};
    for (status, line, to_head, body, keep_alive) in [
        (200, "Content-Length: 5\r\n", false, Length(5), true),
        (200, "Content-Length: 5\r\n", true, None, true),
        (200, "Transfer-Encoding: chunked\r\n", false, Chunked, true),
        (200, "Transfer-Encoding: chunked\r\n", true, None, true),
        (200, "", false, UntilClose, false),
        (200, "", true, None, true),
        (304, "Content-Length: 5\r\n", false, None, true),
        (204, "", false, None, true),
        (204, "Content-Length: 0\r\n", false, None, true),
        (204, "Content-Length: 5\r\n", false, None, false),
        (204, "Transfer-Encoding: chunked\r\n", false, None, false),
        (101, "Connection: upgrade\r\n", false, None, true),
        (100, "", false, None, true),
        (200, "Content-Length: 5\r\nConnection: close\r\n", false, Length(5), false),
    ] {
        let head = response(format!("HTTP/1.1 {status} X\r\n{line}\r\n"), to_head).unwrap();
        assert_eq!(
            (head.status, head.body, head.keep_alive),
            (status, body, keep_alive),
            "{status} {line:?} {to_head}"
        );
    }
    let head = response("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false).unwrap();
    assert_eq!((head.minor, head.keep_alive, &head.reason[..]), (0, false, &b"OK"[..]));
    let head = response("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", false).unwrap();
    assert!(head.keep_alive);
}

#[test]
fn a_length_where_none_may_be_is_dropped() {
    let has_length = |head: &str| response(head, false).unwrap().fields.has("Content-Length");
    assert!(!has_length("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"));
    assert!(!has_length("HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n"));
    // The handshake's check refuses this one, so it must see it.
    assert!(has_length("HTTP/1.1 101 Switching Protocols\r\nContent-Length: 5\r\n\r\n"));
    assert!(has_length("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"));
}

#[test]
fn responses_cannot_smuggle() {
    for (head, reason) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "length_and_encoding"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "length_repeated"),
        ("HTTP/1.1 204 No\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "length_repeated"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", "length_invalid"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "encoding_unsupported"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", "encoding_invalid"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", "encoding_invalid"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "encoding_in_http_1_0"),
        ("HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", "obs_fold"),
        ("HTTP/1.1 200 OK\nX: y\r\n\r\n", "bare_line_feed"),
        ("HTTP/1.1 200 OK\r\nX: y\n\r\n", "bare_line_feed"),
        ("HTTP/1.1 200 OK\r\nX: y\rZ: a\r\n\r\n", "bare_carriage_return"),
        ("HTTP/1.1 200 O\rK\r\n\r\n", "bare_carriage_return"),
        ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "field_name"),
        ("HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", "field_value"),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "empty_lines"),
        ("HTTP/2.0 200 OK\r\n\r\n", "version_unsupported"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "status_line"),
        ("HTTP/1.1 020 OK\r\n\r\n", "status_line"),
        ("HTTP/1.1 +20 OK\r\n\r\n", "status_line"),
        ("HTTP/1.1\r\n\r\n", "status_line"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "status_line"),
        ("\0\0\x06\x04\0", "not_http"),
    ] {
        response_refused(head, reason);
    }
    response_refused(format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(LIMIT)), "head_too_large");
}
