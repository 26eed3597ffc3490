//! Answers of our own: refusals, redirects, direct responses.

use std::borrow::Cow;

use crate::error::Refusal;
use crate::http::Fields;
use crate::http::write::write_response;

/// Where a reason is explained: in the documentation that comes with the gateway.
const DOCS: &str = "docs/reasons.md#";

/// An answer of ours, before it is known how it goes out.
#[derive(Debug)]
pub struct Reply<'b> {
    pub status: u16,
    /// Type and length included.
    pub fields: Fields,
    pub body: Cow<'b, [u8]>,
}

impl<'b> Reply<'b> {
    /// An answer with these fields, to which type and length are added.
    pub fn new(status: u16, mut fields: Fields, content_type: &str, body: Cow<'b, [u8]>) -> Self {
        if status < 200 || status == 204 || status == 304 {
            return Self { status, fields, body: Cow::Borrowed(&[]) };
        }
        if !body.is_empty() {
            fields.push(b"Content-Type", content_type.as_bytes());
        }
        fields.push(b"Content-Length", body.len().to_string().as_bytes());
        Self { status, fields, body }
    }

    /// As HTTP/1.1 has it. `close` says that the connection ends behind it, `bodiless` that it answers a HEAD.
    pub fn write(&self, close: bool, bodiless: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.body.len());
        if close && !self.fields.has("Connection") {
            let mut fields = self.fields.clone();
            fields.push(b"Connection", b"close");
            write_response(&mut out, self.status, None, &fields);
        } else {
            write_response(&mut out, self.status, None, &self.fields);
        }
        if !bodiless {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

/// The answer to a request that is refused: JSON for those who ask for it, text for the others.
pub fn refusal(refusal: &Refusal, request: Option<&Fields>, mut fields: Fields) -> Reply<'static> {
    if refusal.status == 426 {
        fields.push(b"Upgrade", b"websocket");
        fields.push(b"Connection", b"Upgrade, close");
        fields.push(b"Sec-WebSocket-Version", b"13");
    }
    if refusal.retry_after > 0 {
        fields.push(b"Retry-After", refusal.retry_after.to_string().as_bytes());
    }
    if request.is_some_and(wants_json) {
        let doc = format!("{DOCS}{}", refusal.reason);
        let body = serde_json::json!({"error": refusal.reason, "reason": refusal.text, "doc": doc}).to_string();
        return Reply::new(refusal.status, fields, "application/json", body.into_bytes().into());
    }
    let body = format!("{}: {}\n", refusal.reason, refusal.text);
    Reply::new(refusal.status, fields, "text/plain; charset=utf-8", body.into_bytes().into())
}

/// Whether JSON is among the types that the client names.
fn wants_json(request: &Fields) -> bool {
    request.elements("accept").any(|element| {
        let media = element.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        media.eq_ignore_ascii_case(b"application/json") || media.to_ascii_lowercase().ends_with(b"+json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::refusal as table;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_for_those_who_ask() {
        let mut request = Fields::new();
        request.push(b"Accept", b"text/html, application/JSON;q=0.9");
        let answer = text(refusal(&table::NO_ROUTE, Some(&request), Fields::new()).write(false, false));
        let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["error"], "no_route");
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    }

    #[test]
    fn a_426_says_what_to_upgrade_to() {
        let wrong = Refusal::new(426, "websocket_version", "only 13");
        let answer = text(refusal(&wrong, None, Fields::new()).write(true, false));
        assert_eq!(answer.matches("Connection:").count(), 1);
        assert!(answer.contains("Connection: Upgrade, close\r\n") && answer.contains("Sec-WebSocket-Version: 13\r\n"));
    }

    #[test]
    fn an_answer_to_head_has_the_length_and_no_body() {
        let answer = text(Reply::new(200, Fields::new(), "text/plain", b"abc"[..].into()).write(false, true));
        assert!(answer.contains("Content-Length: 3\r\n") && answer.ends_with("\r\n\r\n"));
    }
}
