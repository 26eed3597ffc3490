//! One line of the access log: what happened to one request or WebSocket.
//!
//! A plain request has one line when it is done; a WebSocket, or a tunnel, has `open` when its opening answer is sent
//! and `close` at its end, with the same connection id; what we refuse ourselves is a `refusal`. Fields that are
//! unknown are left out. Query strings are never logged, because tokens travel in them.

use std::io::Write as _;
use std::net::IpAddr;

use super::kind::Kind;
use super::text::{Json, Line, Plain, name, text};
use crate::snapshot::LogFormat;

/// One line, borrowed from whoever knows it.
#[derive(Clone, Debug)]
pub struct Record<'r> {
    /// Milliseconds since 1970.
    pub time: u64,
    pub exchange: Exchange<'r>,
    pub kind: Kind<'r>,
}

/// Who talks to whom about what. Texts from the network may be any bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exchange<'r> {
    /// The same in all lines of one connection.
    pub connection: u64,
    pub listener: &'r str,
    pub route: Option<&'r str>,
    /// The client, as its connection, the PROXY protocol or a trusted header says; none over a unix socket.
    pub client: Option<IpAddr>,
    /// Spoken with the client: `h1`.
    pub protocol: &'r str,
    pub upstream: Option<&'r str>,
    pub endpoint: Option<&'r str>,
    pub upstream_protocol: Option<&'r str>,
    /// Tries at the upstream; 0 where it was not asked, or long ago.
    pub attempts: u32,
    pub method: Option<&'r [u8]>,
    pub host: Option<&'r [u8]>,
    /// With or without its query, which is cut off.
    pub path: Option<&'r [u8]>,
    pub user_agent: Option<&'r [u8]>,
    pub request_id: Option<&'r [u8]>,
}

impl Record<'_> {
    /// Appends the line, with its newline.
    pub fn write(&self, format: LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Json => self.write_json(out),
            LogFormat::Text => self.write_text(out),
        }
    }

    /// Appends a JSON object and a newline.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.line::<Json>(out);
    }

    /// Appends a line for people: the time, what happened, then `name=value`.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        self.line::<Plain>(out);
    }

    fn line<L: Line>(&self, out: &mut Vec<u8>) {
        L::begin(out, self.time, self.kind.label());
        self.exchange.fields::<L>(out);
        self.kind.fields::<L>(out);
        L::end(out);
    }
}

/// The id of a connection as logs and the admin show it.
pub fn connection_name(id: u64) -> String {
    format!("{id:012x}")
}

impl Exchange<'_> {
    fn fields<L: Line>(&self, out: &mut Vec<u8>) {
        L::text(out, "connection", connection_name(self.connection).as_bytes());
        L::text(out, "listener", self.listener.as_bytes());
        name::<L>(out, "route", self.route);
        address::<L>(out, self.client);
        L::text(out, "protocol", self.protocol.as_bytes());
        name::<L>(out, "upstream", self.upstream);
        name::<L>(out, "endpoint", self.endpoint);
        name::<L>(out, "upstream_protocol", self.upstream_protocol);
        if self.attempts > 0 {
            L::number(out, "attempts", self.attempts.into());
        }
        text::<L>(out, "method", self.method);
        text::<L>(out, "host", self.host);
        text::<L>(out, "path", self.path.map(without_query));
        text::<L>(out, "user_agent", self.user_agent);
        text::<L>(out, "request_id", self.request_id);
    }
}

fn address<L: Line>(out: &mut Vec<u8>, client: Option<IpAddr>) {
    // The longest is an IPv4-mapped IPv6 address of 45 characters.
    let mut written = [0; 48];
    let mut rest = &mut written[..];
    if client.is_some_and(|client| write!(rest, "{client}").is_ok()) {
        let unused = rest.len();
        L::text(out, "client", &written[..written.len() - unused]);
    }
}

fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::kind::{Close, Open, PipeClose, Refusal, Request, TcpOpen, TcpRefusal, Traffic, TunnelOpen};
    use super::*;

    fn exchange() -> Exchange<'static> {
        Exchange {
            connection: 0x12a,
            listener: "edge",
            route: Some("chat"),
            client: Some(IpAddr::from([192, 0, 2, 1])),
            protocol: "h1",
            upstream: Some("backend"),
            endpoint: Some("10.0.0.5:9000"),
            upstream_protocol: Some("h1"),
            attempts: 2,
            method: Some(b"GET"),
            host: Some(b"chat.example.com"),
            path: Some(b"/ws?token=secret"),
            user_agent: Some(b"curl/8 \"x\""),
            request_id: Some(b"r1"),
        }
    }

    fn line(exchange: Exchange<'_>, kind: Kind<'_>) -> Value {
        let mut out = Vec::new();
        Record { time: 1_709_251_199_001, exchange, kind }.write(LogFormat::Json, &mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(out.last(), Some(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    /// The fields of the line that are not the exchange's.
    fn own(kind: Kind<'_>) -> Value {
        let mut line = line(Exchange::default(), kind);
        let fields = line.as_object_mut().unwrap();
        for name in ["time", "connection", "listener", "protocol"] {
            fields.remove(name).unwrap();
        }
        line
    }

    #[test]
    fn a_request() {
        let request = Request { status: 200, reason: None, bytes_in: 1, bytes_out: 2, duration: 3 };
        let expected = json!({
            "time": "2024-02-29T23:59:59.001Z", "event": "request", "connection": "00000000012a", "listener": "edge",
            "route": "chat", "client": "192.0.2.1", "protocol": "h1", "upstream": "backend",
            "endpoint": "10.0.0.5:9000", "upstream_protocol": "h1", "attempts": 2, "method": "GET", "host": "chat.example.com",
            "path": "/ws", "user_agent": "curl/8 \"x\"", "request_id": "r1",
            "status": 200, "bytes_in": 1, "bytes_out": 2, "duration_ms": 3,
        });
        assert_eq!(line(exchange(), Kind::Request(request)), expected);
    }

    #[test]
    fn an_open() {
        let open = Open { status: 101, subprotocol: Some(b"chat.v2"), extensions: None, duration: 4 };
        let expected = json!({"event": "open", "status": 101, "subprotocol": "chat.v2", "duration_ms": 4});
        assert_eq!(own(Kind::Open(open)), expected);
    }

    #[test]
    fn a_close() {
        let close = Close {
            cause: "client",
            code: Some(1000),
            client_code: Some(1000),
            upstream_code: None,
            received: Traffic { messages: 1, bytes: 2, pings: 3 },
            sent: Traffic { messages: 4, bytes: 5, pings: 6 },
            dropped: 9,
            discarded: 8,
            duration: 7,
        };
        let expected = json!({
            "event": "close", "cause": "client", "code": 1000, "client_code": 1000, "messages_in": 1, "bytes_in": 2,
            "pings_in": 3, "messages_out": 4, "bytes_out": 5, "pings_out": 6, "messages_dropped": 9,
            "bytes_discarded": 8, "duration_ms": 7,
        });
        assert_eq!(own(Kind::Close(close)), expected);
    }

    #[test]
    fn a_refusal() {
        let refusal = Refusal { status: 403, reason: "websocket_disabled", duration: 0 };
        let expected = json!({"event": "refusal", "status": 403, "reason": "websocket_disabled", "duration_ms": 0});
        assert_eq!(own(Kind::Refusal(refusal)), expected);
    }

    #[test]
    fn a_tunnel() {
        let open = TunnelOpen { status: 200, upgrade: "connect", duration: 4 };
        let expected = json!({"event": "open", "status": 200, "upgrade": "connect", "duration_ms": 4});
        assert_eq!(own(Kind::TunnelOpen(open)), expected);
    }

    #[test]
    fn a_tcp_connection() {
        assert_eq!(own(Kind::TcpOpen(TcpOpen { duration: 4 })), json!({"event": "open", "duration_ms": 4}));
        let close = PipeClose { cause: "idle", bytes_in: 1, bytes_out: 2, discarded: 0, duration: 3 };
        let expected = json!({"event": "close", "cause": "idle", "bytes_in": 1, "bytes_out": 2, "duration_ms": 3});
        assert_eq!(own(Kind::PipeClose(close)), expected);
        let refusal = Kind::TcpRefusal(TcpRefusal { reason: "connect_failed", duration: 5 });
        assert_eq!(own(refusal), json!({"event": "refusal", "reason": "connect_failed", "duration_ms": 5}));
    }

    #[test]
    fn text_is_one_readable_line() {
        let refusal = Refusal { status: 404, reason: "no_route", duration: 5 };
        let exchange = Exchange {
            route: None,
            upstream: None,
            endpoint: None,
            upstream_protocol: None,
            attempts: 0,
            ..exchange()
        };
        let mut out = Vec::new();
        Record { time: 0, exchange, kind: Kind::Refusal(refusal) }.write(LogFormat::Text, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.000Z refusal connection=00000000012a listener=edge client=192.0.2.1 protocol=h1 method=GET \
             host=chat.example.com path=/ws user_agent=\"curl/8 \\\"x\\\"\" request_id=r1 status=404 \
             reason=no_route duration_ms=5\n"
        );
    }

    #[test]
    fn the_longest_address_fits() {
        let client = Some("1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap());
        let refusal = Kind::Refusal(Refusal { status: 400, reason: "r", duration: 0 });
        let written = line(Exchange { client, ..Exchange::default() }, refusal);
        assert_eq!(written["client"], "1111:2222:3333:4444:5555:6666:7777:8888");
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_line(path: Vec<u8>, host: Vec<u8>, agent: Vec<u8>, protocol: Vec<u8>) {
            let (path, host, agent) = (Some(&path[..]), Some(&host[..]), Some(&agent[..]));
            let exchange = Exchange { path, host, user_agent: agent, ..exchange() };
            let open = Open { status: 101, subprotocol: Some(&protocol), extensions: Some(&protocol), duration: 1 };
            let written = line(exchange, Kind::Open(open));
            prop_assert_eq!(written["host"].as_str(), Some(&*String::from_utf8_lossy(host.unwrap_or_default())));
            prop_assert_eq!(written["subprotocol"].as_str(), Some(&*String::from_utf8_lossy(&protocol)));
            prop_assert!(!written["path"].as_str().unwrap_or_default().contains('?'));
            let mut text = Vec::new();
            Record { time: 0, exchange, kind: Kind::Open(open) }.write_text(&mut text);
            let text = String::from_utf8(text).unwrap();
            prop_assert!(text.ends_with('\n') && !text.trim_end_matches('\n').chars().any(char::is_control));
        }
    }
}
