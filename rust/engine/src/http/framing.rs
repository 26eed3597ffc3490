//! Where a body ends (RFC 9112 §6) and whether the connection stays open (§9.3).
//!
//! The RFC lets a recipient repair some ambiguous messages: two equal lengths, a length beside chunked. Every repair is
//! a chance for two recipients to disagree, so none is made here; a message whose end is not written down exactly once,
//! in its plainest form, is refused. An intermediary's own peers have no reason to send one.

use super::block::Line;
use super::fault::{self, BadHead};

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// As many bytes as Content-Length says, perhaps none.
    Length(u64),
    /// Chunks, then perhaps trailers.
    Chunked,
    /// All bytes until the connection closes; only in responses.
    UntilClose,
}

impl BodyLength {
    /// Whether it is known beforehand that no byte follows.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// What the fields of one head say about framing, connection and host, gathered line by line.
#[derive(Debug, Default)]
pub(super) struct Framing<'a> {
    pub hosts: usize,
    pub host: &'a [u8],
    pub expects_continue: bool,
    length: Option<u64>,
    encoding: Encoding,
    says_close: bool,
    says_keep_alive: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Encoding {
    #[default]
    None,
    Chunked,
    /// Codings that exist, but are not served; whether the message is ambiguous as well is judged first.
    Unsupported,
}

impl<'a> Framing<'a> {
    /// Takes note of one field, and returns its value as the next hop gets it. A fault inside a framing field shows at
    /// once, one between fields in [`Self::body`].
    pub fn note(&mut self, line: Line<'a>) -> Result<&'a [u8], BadHead> {
        // The length alone rules nearly every field out.
        let is = |name: &str| line.name.eq_ignore_ascii_case(name.as_bytes());
        match line.name.len() {
            4 if is("host") => self.note_host(line.value),
            6 if is("expect") => self.expects_continue |= line.value.eq_ignore_ascii_case(b"100-continue"),
            10 if is("connection") => self.note_connection(line.value),
            14 if is("content-length") => return self.note_length(line),
            17 if is("transfer-encoding") => self.note_encoding(line)?,
            14 if is("content_length") => return Err(fault::FRAMING_NAME),
            17 if is("transfer_encoding") => return Err(fault::FRAMING_NAME),
            _ => {}
        }
        Ok(line.value)
    }

    fn note_host(&mut self, value: &'a [u8]) {
        self.hosts += 1;
        self.host = value;
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.says_close |= option.eq_ignore_ascii_case(b"close");
            self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Leading zeros end here: there are readers that take such a number for octal, or count its digits.
    fn note_length(&mut self, line: Line<'a>) -> Result<&'a [u8], BadHead> {
        if self.length.is_some() || line.value.contains(&b',') {
            return Err(fault::LENGTH_REPEATED);
        }
        self.length = Some(parse_length(line).ok_or(fault::LENGTH_INVALID)?);
        let zeros = line.value.iter().take_while(|digit| **digit == b'0').count();
        Ok(&line.value[zeros.min(line.value.len() - 1)..])
    }

    fn note_encoding(&mut self, line: Line<'_>) -> Result<(), BadHead> {
        if self.encoding != Encoding::None || line.is_padded {
            return Err(fault::ENCODING_INVALID);
        }
        self.encoding = parse_encoding(line.value).ok_or(fault::ENCODING_INVALID)?;
        Ok(())
    }

    /// How the body is delimited in the header, if it is.
    pub fn body(&self, minor: u8) -> Result<Option<BodyLength>, BadHead> {
        match (self.encoding, self.length) {
            (Encoding::None, length) => Ok(length.map(BodyLength::Length)),
            (_, Some(_)) => Err(fault::LENGTH_AND_ENCODING),
            (_, None) if minor == 0 => Err(fault::ENCODING_TOO_NEW),
            (Encoding::Unsupported, None) => Err(fault::ENCODING_UNSUPPORTED),
            (Encoding::Chunked, None) => Ok(Some(BodyLength::Chunked)),
        }
    }

    /// Whether the connection stays open after this message, going by its version and Connection field.
    pub fn keep_alive(&self, minor: u8) -> bool {
        !self.says_close && (minor == 1 || self.says_keep_alive)
    }
}

/// `1*DIGIT` up to the largest `u64`, and nothing around it: what a lenient parser trims or signs is refused.
fn parse_length(line: Line<'_>) -> Option<u64> {
    if line.is_padded || line.value.is_empty() || !line.value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(line.value).ok()?.parse().ok()
}

/// Exactly `chunked`, or known codings that are not served; nothing else.
fn parse_encoding(value: &[u8]) -> Option<Encoding> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Some(Encoding::Chunked);
    }
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).peekable();
    while let Some(coding) = codings.next() {
        let is_last_chunked = codings.peek().is_none() && coding.eq_ignore_ascii_case(b"chunked");
        if !is_last_chunked && !is_known_coding(coding) {
            return None;
        }
    }
    Some(Encoding::Unsupported)
}

fn is_known_coding(coding: &[u8]) -> bool {
    ["gzip", "x-gzip", "deflate", "compress", "x-compress"].iter().any(|k| coding.eq_ignore_ascii_case(k.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(name: &'a str, value: &'a str) -> Line<'a> {
        Line { name: name.as_bytes(), value: value.as_bytes(), is_padded: false }
    }

    fn body(minor: u8, lines: &[(&str, &str)]) -> Result<Option<BodyLength>, &'static str> {
        let mut framing = Framing::default();
        let noted = lines.iter().try_for_each(|(name, value)| framing.note(line(name, value)).map(drop));
        noted.and_then(|()| framing.body(minor)).map_err(|fault| fault.reason)
    }

    #[test]
    fn one_plain_length_or_chunked() {
        assert_eq!(body(1, &[]), Ok(None));
        assert_eq!(body(0, &[("content-LENGTH", "007")]), Ok(Some(BodyLength::Length(7))));
        assert_eq!(body(1, &[("Content-Length", "18446744073709551615")]), Ok(Some(BodyLength::Length(u64::MAX))));
        assert_eq!(body(1, &[("Transfer-Encoding", "Chunked")]), Ok(Some(BodyLength::Chunked)));
    }

    #[test]
    fn everything_else_is_a_fault() {
        for value in ["", "+5", "-1", "0x5", "5_0", "5 5", "18446744073709551616", "٣"] {
            assert_eq!(body(1, &[("Content-Length", value)]), Err("length_invalid"), "{value}");
        }
        for value in
            ["", "xchunked", "chunked;x", "chunked, chunked", "chunked,", ",chunked", "chunked, gzip", "identity"]
        {
            assert_eq!(body(1, &[("Transfer-Encoding", value)]), Err("encoding_invalid"), "{value}");
        }
        for value in ["gzip", "gzip, chunked", "deflate,x-gzip ,chunked"] {
            assert_eq!(body(1, &[("Transfer-Encoding", value)]), Err("encoding_unsupported"), "{value}");
        }
        let (length, encoding) = (("Content-Length", "5"), ("Transfer-Encoding", "chunked"));
        assert_eq!(body(1, &[length, length]), Err("length_repeated"));
        assert_eq!(body(1, &[("Content-Length", "5, 5")]), Err("length_repeated"));
        assert_eq!(body(1, &[length, encoding]), Err("length_and_encoding"));
        assert_eq!(body(1, &[encoding, length]), Err("length_and_encoding"));
        assert_eq!(body(1, &[encoding, encoding]), Err("encoding_invalid"));
        assert_eq!(body(0, &[encoding]), Err("encoding_in_http_1_0"));
        assert_eq!(body(1, &[("Content_Length", "5")]), Err("framing_name"));
        assert_eq!(body(1, &[length, ("TRANSFER_encoding", "chunked")]), Err("framing_name"));
    }

    #[test]
    fn lengths_go_on_without_leading_zeros() {
        for (value, kept) in [("0", "0"), ("000", "0"), ("010", "10"), ("00000000000000000000005", "5"), ("50", "50")] {
            assert_eq!(Framing::default().note(line("Content-Length", value)), Ok(kept.as_bytes()));
        }
    }

    #[test]
    fn close_wins_over_keep_alive() {
        let keep_alive = |minor, value| {
            let mut framing = Framing::default();
            framing.note(line("Connection", value)).unwrap();
            framing.keep_alive(minor)
        };
        assert!(keep_alive(1, "Upgrade") && keep_alive(0, "x, Keep-Alive") && keep_alive(1, "closed"));
        assert!(!keep_alive(1, "keep-alive,CLOSE") && !keep_alive(0, "Upgrade") && !keep_alive(0, "keep-alive, close"));
    }
}
