//! An ordered list of header fields that keeps the peer's spelling.
//!
//! All text lives in one buffer and entries are spans into it, so that a head costs two allocations however many
//! fields it has. Removing a field forgets its span; the text stays until the head is dropped.

/// A piece of a buffer, by offsets. Heads are bounded far below 4 GiB (see `limits.headers`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The span `start..end`. Offsets are truncated to 32 bits: heads never come near that size.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes of `text` that this span covers.
    pub fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }
}

/// Room for what a gateway adds to a request (forwarded headers, an id), so that adding does not reallocate.
const SPARE_TEXT: usize = 384;
pub(super) const SPARE_FIELDS: usize = 8;

/// Header fields in the order and the spelling they came in.
#[derive(Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    entries: Vec<(Span, Span)>,
}

impl Clone for Fields {
    /// With room: a copy is made to be changed.
    fn clone(&self) -> Self {
        let mut text = Vec::with_capacity(self.text.len() + SPARE_TEXT);
        text.extend_from_slice(&self.text);
        let mut entries = Vec::with_capacity(self.entries.len() + SPARE_FIELDS);
        entries.extend_from_slice(&self.entries);
        Self { text, entries }
    }
}

impl Fields {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// A list over `text`, with a (name, value) pair of spans into it for each field.
    pub fn from_parts(text: Vec<u8>, entries: Vec<(Span, Span)>) -> Self {
        Self { text, entries }
    }

    /// The buffer that spans made for [`Fields::from_parts`] point into.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(name, value)| (name.of(&self.text), value.of(&self.text)))
    }

    /// The values of every field called `name`, compared without case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(|(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The value of the first field called `name`.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Whether a field called `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// The comma-separated elements of every field called `name`, trimmed, empty ones left out (RFC 9110 §5.6.1).
    pub fn elements<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|e| !e.is_empty())
    }

    /// Whether a field called `name` lists `token`, compared without case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.elements(name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let name = self.keep(name);
        let value = self.keep(value);
        self.entries.push((name, value));
    }

    /// Adds a field at the end, whose value `write` appends to what it is given.
    pub fn push_with(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let name = self.keep(name.as_bytes());
        let start = self.text.len();
        write(&mut self.text);
        self.entries.push((name, Span::new(start, self.text.len())));
    }

    /// Removes every field called `name`.
    pub fn remove(&mut self, name: &str) {
        let text = &self.text;
        self.entries.retain(|(candidate, _)| !candidate.of(text).eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Removes the fields for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let text = &self.text;
        self.entries.retain(|(name, value)| keep(name.of(text), value.of(text)));
    }

    /// Replaces every field called `name` by one, at the end.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.push(name.as_bytes(), value);
    }

    fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        Span::new(start, self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_keep_order_and_spelling() {
        let mut fields = Fields::new();
        fields.push(b"X-One", b"1");
        fields.push(b"connection", b"keep-alive, , Upgrade");
        fields.push(b"x-one", b"2");
        assert!(fields.lists("Connection", "upgrade"));
        assert!(!fields.lists("Connection", "upgrad"));
        assert_eq!(fields.all("X-ONE").collect::<Vec<_>>(), [b"1", b"2"]);
        fields.set("X-One", b"3");
        assert_eq!(fields.iter().last(), Some((&b"X-One"[..], &b"3"[..])));
        assert_eq!(fields.len(), 2);
    }
}
