//! Trailer sections (RFC 9110 §6.5, RFC 9112 §7.1.2): fields after the last chunk.

use super::block::read_fields;
use super::body::BadBody;
use super::fields::Fields;
use super::scan::Scan;
use super::write::{has_prefix, is_one_of};

/// The longest trailer section, in bytes.
const LIMIT: usize = 8 * 1024;

/// A trailer section as far as it has come.
#[derive(Clone, Debug)]
pub(super) struct Trailers {
    scan: Scan,
    text: Vec<u8>,
}

impl Trailers {
    pub fn new() -> Self {
        Self { scan: Scan::of_fields(), text: Vec::new() }
    }

    /// Collects fields up to the empty line. Returns those that may be passed on, and how much of `input` the section
    /// took.
    pub fn read(&mut self, input: &[u8]) -> Result<Option<(Fields, usize)>, BadBody> {
        if self.text.is_empty() && input.starts_with(b"\r\n") {
            return Ok(Some((Fields::new(), 2)));
        }
        let before = self.text.len();
        // The scan refuses a section that fills the limit, so there is always room left here.
        let room = LIMIT.saturating_sub(before);
        self.text.extend_from_slice(&input[..input.len().min(room)]);
        let Some(extent) = self.scan.advance(&self.text, LIMIT)? else { return Ok(None) };
        let end = extent.fields.end;
        let fields = read_fields(&self.text[..end], extent.count, |line| Ok(line.value))?;
        Ok(Some((passable_trailers(fields), end - before)))
    }
}

/// Those of the trailer fields that may be passed on.
pub fn passable_trailers(mut fields: Fields) -> Fields {
    fields.retain(|name, _| !is_forbidden(name));
    fields
}

/// RFC 9110 §6.5.1: nothing that frames, routes, authenticates, controls or describes the message may come so late,
/// where no rule that looked at the head has seen it.
fn is_forbidden(name: &[u8]) -> bool {
    const WHOLE: [&str; 27] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "keep-alive",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-real-ip",
    ];
    const PREFIXES: [&str; 6] = ["content-", "if-", "proxy-", "sec-", "x-forwarded-", "access-control-"];
    is_one_of(name, &WHOLE) || PREFIXES.iter().any(|prefix| has_prefix(name, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Option<(Fields, usize)>, &'static str> {
        Trailers::new().read(input).map_err(|fault| fault.reason)
    }

    #[test]
    fn what_belongs_in_a_head_is_dropped() {
        let input =
            b"Grpc-Status: 0\r\nContent-Length: 5\r\nhost: x\r\nX-Forwarded-For: y\r\nAuthorization: z\r\n\r\nNEXT";
        let (fields, consumed) = read(input).unwrap().unwrap();
        assert_eq!(consumed, input.len() - 4);
        assert_eq!(fields.iter().collect::<Vec<_>>(), [(&b"Grpc-Status"[..], &b"0"[..])]);
    }

    #[test]
    fn sections_may_be_empty_or_in_pieces() {
        assert_eq!(read(b"\r\nNEXT").unwrap().unwrap().1, 2);
        let mut trailers = Trailers::new();
        for piece in [&b"\r"[..], b""] {
            assert!(trailers.read(piece).unwrap().is_none());
        }
        assert_eq!(trailers.read(b"\nNEXT").unwrap().unwrap().1, 1);
    }

    #[test]
    fn sections_are_bounded_and_strict() {
        assert_eq!(read(format!("A: {}\r\n\r\n", "b".repeat(LIMIT)).as_bytes()).unwrap_err(), "head_too_large");
        assert_eq!(read("A: b\r\n".repeat(101).as_bytes()).unwrap_err(), "too_many_fields");
        for (input, reason) in [("A: b\n", "bare_line_feed"), (" A: b", "obs_fold"), ("A : b\r\n\r\n", "field_name")] {
            assert_eq!(read(input.as_bytes()).unwrap_err(), reason);
        }
    }
}
