//! Finds the end of a head, strictly and without starting over.
//!
//! A head is lines that end with CRLF, then an empty line (RFC 9112 §2.1). A recipient *may* take a bare LF for a line
//! end and *may* unfold a line that begins with white space (§2.2, §5.2); neighbours that differ in such choices can be
//! played against each other, so here both are refused. One empty line before a request is tolerated (§2.2): old
//! clients send it after a body.
//!
//! The scan remembers where it stopped, so that a head that comes byte by byte costs no more than one that comes whole.
//! Its verdict depends on the bytes alone, never on how they were split.

use std::ops::Range;

use memchr::memchr;

use super::fault::{self, BadHead};
use super::method::is_token_byte;

/// More fields than this are refused. Apache and hyper draw the line at 100 too.
pub(super) const MAX_FIELDS: usize = 100;

/// How far the search for the end of one head has come. Use a new one, or one that has found its head, for each head;
/// between calls the buffer may only grow at its end.
#[derive(Clone, Debug)]
pub struct Scan {
    part: Part,
    /// Where the first line begins: 0, or 2 after an empty line.
    start: usize,
    /// Where the fields begin.
    fields: usize,
    /// Where the current line begins.
    line: usize,
    /// Everything before this offset has been searched.
    searched: usize,
    /// Fields found.
    count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Start,
    FirstLine,
    Fields,
}

/// Where the parts of a complete head are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first line without its CRLF.
    pub line: Range<usize>,
    /// The fields with the empty line that ends them.
    pub fields: Range<usize>,
    /// Number of fields.
    pub count: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self::new()
    }
}

impl Scan {
    /// The scan of a head: a first line, then fields.
    pub fn new() -> Self {
        Self { part: Part::Start, start: 0, fields: 0, line: 0, searched: 0, count: 0 }
    }

    /// The scan of fields alone, as in a trailer section.
    pub(super) fn of_fields() -> Self {
        Self { part: Part::Fields, ..Self::new() }
    }

    /// Looks at what is new in `buffer`. Returns the head's extent when it is complete and is then ready for the next.
    pub(super) fn advance(&mut self, buffer: &[u8], limit: usize) -> Result<Option<Extent>, BadHead> {
        // Bytes behind the limit are not looked at, or the verdict would depend on how many came at once.
        let within = &buffer[..buffer.len().min(limit)];
        loop {
            self.check_line_start(within)?;
            let Some(line_feed) = self.find_line_feed(buffer, limit)? else { return Ok(None) };
            if let Some(extent) = self.end_line(buffer, line_feed)? {
                *self = Self::new();
                return Ok(Some(extent));
            }
        }
    }

    /// A first line begins with a token; a field line does not begin with white space.
    fn check_line_start(&mut self, buffer: &[u8]) -> Result<(), BadHead> {
        match (self.part, buffer.get(self.line)) {
            (Part::Fields, Some(b' ' | b'\t')) => Err(fault::FOLDED_LINE),
            (Part::Start | Part::FirstLine, Some(b'\n')) => Err(fault::BARE_LINE_FEED),
            (Part::FirstLine, Some(b'\r')) => Err(fault::EMPTY_LINES),
            (Part::Start, Some(b'\r')) => Ok(()),
            (Part::Start | Part::FirstLine, Some(byte)) if !is_token_byte(*byte) => Err(fault::NOT_HTTP),
            _ => Ok(()),
        }
    }

    /// The next LF inside the limit. To have none and no room for one is an error.
    fn find_line_feed(&mut self, buffer: &[u8], limit: usize) -> Result<Option<usize>, BadHead> {
        let (limit, too_long) = self.bound(limit);
        let end = buffer.len().min(limit);
        let unsearched = buffer.get(self.searched..end).unwrap_or_default();
        if let Some(offset) = memchr(b'\n', unsearched) {
            return Ok(Some(self.searched + offset));
        }
        self.searched = self.searched.max(end);
        if buffer.len() >= limit { Err(too_long) } else { Ok(None) }
    }

    fn bound(&self, limit: usize) -> (usize, BadHead) {
        match self.part {
            Part::Fields => (limit, fault::HEAD_TOO_LARGE),
            Part::Start | Part::FirstLine => (self.start + limit / 2, fault::FIRST_LINE_TOO_LONG),
        }
    }

    /// Closes the line that ends at `line_feed`; an empty one ends the head.
    fn end_line(&mut self, buffer: &[u8], line_feed: usize) -> Result<Option<Extent>, BadHead> {
        let begin = self.line;
        if line_feed == begin || buffer[line_feed - 1] != b'\r' {
            return Err(fault::BARE_LINE_FEED);
        }
        let is_empty = line_feed == begin + 1;
        self.line = line_feed + 1;
        self.searched = self.line;
        match (self.part, is_empty) {
            (Part::Start, true) => self.skip_empty_line(),
            (Part::Start | Part::FirstLine, _) => self.begin_fields(),
            (Part::Fields, false) => self.count_field()?,
            (Part::Fields, true) => return Ok(Some(self.extent())),
        }
        Ok(None)
    }

    fn skip_empty_line(&mut self) {
        self.part = Part::FirstLine;
        self.start = self.line;
    }

    fn begin_fields(&mut self) {
        self.part = Part::Fields;
        self.fields = self.line;
    }

    fn count_field(&mut self) -> Result<(), BadHead> {
        self.count += 1;
        if self.count > MAX_FIELDS { Err(fault::TOO_MANY_FIELDS) } else { Ok(()) }
    }

    fn extent(&self) -> Extent {
        let line = self.start..self.fields.saturating_sub(2);
        Extent { line, fields: self.fields..self.line, count: self.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8]) -> Result<Option<Extent>, &'static str> {
        Scan::new().advance(bytes, 64).map_err(|fault| fault.reason)
    }

    #[test]
    fn finds_the_parts() {
        let extent = scan(b"\r\nGET / HTTP/1.1\r\nA: b\r\n\r\nrest").unwrap().unwrap();
        assert_eq!(extent, Extent { line: 2..16, fields: 18..26, count: 1 });
        let extent = scan(b"GET / HTTP/1.1\r\n\r\n").unwrap().unwrap();
        assert_eq!(extent, Extent { line: 0..14, fields: 16..18, count: 0 });
    }

    #[test]
    fn refuses_other_line_ends() {
        assert_eq!(scan(b"GET / HTTP/1.1\n"), Err("bare_line_feed"));
        assert_eq!(scan(b"GET / HTTP/1.1\r\n\n"), Err("bare_line_feed"));
        assert_eq!(scan(b"\nGET"), Err("bare_line_feed"));
        assert_eq!(scan(b"\r\n\r"), Err("empty_lines"));
        assert_eq!(scan(b"\rGET / HTTP/1.1\r\n"), Ok(None), "left to the reader of the first line");
        assert_eq!(scan(b"GET / HTTP/1.1\r\n A: b"), Err("obs_fold"));
        assert_eq!(scan(b"\x16\x03\x01"), Err("not_http"));
    }

    #[test]
    fn limits_hold_whether_or_not_the_line_ends() {
        let line = [b'a'; 33];
        assert_eq!(scan(&line[..31]), Ok(None));
        assert_eq!(scan(&line), Err("first_line_too_long"));
        let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
        head.resize(60, b'b');
        let fits = [&head[..], b"\r\n\r\n"].concat();
        let exceeds = [&head[..], b"b\r\n\r\n"].concat();
        assert_eq!(scan(&fits).unwrap().unwrap().fields.end, 64);
        assert_eq!(scan(&exceeds), Err("head_too_large"));
        assert_eq!(scan(&exceeds[..63]), Ok(None));
        let folds_behind_the_limit = [&head[..], b"bb\r\n folded"].concat();
        assert_eq!(scan(&folds_behind_the_limit), scan(&folds_behind_the_limit[..64]));
    }

    #[test]
    fn resumes_where_it_stopped() {
        let head = b"\r\nGET / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n";
        let mut scan = Scan::new();
        for end in 0..head.len() {
            assert_eq!(scan.advance(&head[..end], 64), Ok(None));
        }
        assert_eq!(scan.advance(head, 64).unwrap().unwrap().count, 2);
        assert_eq!(scan.advance(b"GET / HTTP/1.1\r\n\r\n", 64).unwrap().unwrap().count, 0, "ready for the next");
    }
}
