//! Answers of our own: refusals, redirects, direct responses.

use crate::error::Refusal;
use crate::http::Fields;
use crate::http::write::write_response;

/// Where a reason is explained: in the documentation that comes with the gateway.
const DOCS: &str = "docs/reasons.md#";

/// A complete answer as bytes.
///
/// `fields` come first; length and type are added here. `close` says that the connection ends behind it, `bodiless`
/// that it answers a HEAD.
pub fn write(status: u16, fields: &Fields, content_type: &str, body: &[u8], close: bool, bodiless: bool) -> Vec<u8> {
    let mut head = fields.clone();
    let has_content = status >= 200 && status != 204 && status != 304;
    if has_content {
        if !body.is_empty() {
            head.push(b"Content-Type", content_type.as_bytes());
        }
        head.push(b"Content-Length", body.len().to_string().as_bytes());
    }
    if close && !head.has("Connection") {
        head.push(b"Connection", b"close");
    }
    let mut out = Vec::with_capacity(256 + body.len());
    write_response(&mut out, status, None, &head);
    if has_content && !bodiless {
        out.extend_from_slice(body);
    }
    out
}

/// The answer to a request that is refused: JSON for those who ask for it, text for the others.
pub fn write_refusal(
    refusal: &Refusal,
    request: Option<&Fields>,
    extra: &Fields,
    close: bool,
    bodiless: bool,
) -> Vec<u8> {
    let mut fields = extra.clone();
    if refusal.status == 426 {
        fields.push(b"Upgrade", b"websocket");
        fields.push(b"Connection", b"Upgrade, close");
        fields.push(b"Sec-WebSocket-Version", b"13");
    }
    if refusal.status == 503 {
        fields.push(b"Retry-After", b"1");
    }
    if request.is_some_and(wants_json) {
        let doc = format!("{DOCS}{}", refusal.reason);
        let body = serde_json::json!({"error": refusal.reason, "reason": refusal.text, "doc": doc}).to_string();
        return write(refusal.status, &fields, "application/json", body.as_bytes(), close, bodiless);
    }
    let body = format!("{}: {}\n", refusal.reason, refusal.text);
    write(refusal.status, &fields, "text/plain; charset=utf-8", body.as_bytes(), close, bodiless)
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
    use crate::error::refusal;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_for_those_who_ask() {
        let mut request = Fields::new();
        request.push(b"Accept", b"text/html, application/JSON;q=0.9");
        let answer = text(write_refusal(&refusal::NO_ROUTE, Some(&request), &Fields::new(), false, false));
        let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["error"], "no_route");
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    }

    #[test]
    fn a_426_says_what_to_upgrade_to() {
        let refusal = Refusal::new(426, "websocket_version", "only 13");
        let answer = text(write_refusal(&refusal, None, &Fields::new(), true, false));
        assert_eq!(answer.matches("Connection:").count(), 1);
        assert!(answer.contains("Connection: Upgrade, close\r\n") && answer.contains("Sec-WebSocket-Version: 13\r\n"));
    }

    #[test]
    fn an_answer_to_head_has_the_length_and_no_body() {
        let answer = text(write(200, &Fields::new(), "text/plain", b"abc", false, true));
        assert!(answer.contains("Content-Length: 3\r\n") && answer.ends_with("\r\n\r\n"));
    }
}
