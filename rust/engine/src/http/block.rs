//! Reads a block of field lines that [`super::scan`] has delimited.
//!
//! `httparse` checks names and values many bytes at a time; what it accepts becomes one copy of the block with spans
//! into it. It would take a bare LF for a line end, which is why the scan comes first.

use httparse::{Header, Status};

use super::fault::{self, BadHead};
use super::fields::{Fields, SPARE_FIELDS, Span};
use super::scan::MAX_FIELDS;

/// Room for what an answer gets: the request's id, and what becomes of the connection.
const SPARE_TEXT: usize = 80;

/// A typical head has fewer fields; setting up room for [`MAX_FIELDS`] would take longer than reading it.
const FEW: usize = 24;

/// One field line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// Whether white space stands behind the value.
    pub is_padded: bool,
}

/// Reads `block`, which holds `count` fields and ends with an empty line, and shows each line to `note`, which returns
/// the part of the value to keep.
pub(super) fn read_fields<'a>(
    block: &'a [u8],
    count: usize,
    note: impl FnMut(Line<'a>) -> Result<&'a [u8], BadHead>,
) -> Result<Fields, BadHead> {
    if count <= FEW { read::<FEW>(block, note) } else { read::<MAX_FIELDS>(block, note) }
}

fn read<'a, const ROOM: usize>(
    block: &'a [u8],
    mut note: impl FnMut(Line<'a>) -> Result<&'a [u8], BadHead>,
) -> Result<Fields, BadHead> {
    let mut room = [httparse::EMPTY_HEADER; ROOM];
    let headers = parse(block, &mut room)?;
    let mut entries = Vec::with_capacity(headers.len() + SPARE_FIELDS);
    for header in headers {
        let name = header.name.as_bytes();
        let (_, end) = place(block, header.value);
        let value = note(Line { name, value: header.value, is_padded: block.get(end) != Some(&b'\r') })?;
        let (name_start, name_end) = place(block, name);
        let (start, end) = place(block, value);
        entries.push((Span::new(name_start, name_end), Span::new(start, end)));
    }
    let mut text = Vec::with_capacity(block.len() + SPARE_TEXT);
    text.extend_from_slice(block);
    Ok(Fields::from_parts(text, entries))
}

fn parse<'a, 'room>(block: &'a [u8], room: &'room mut [Header<'a>]) -> Result<&'room [Header<'a>], BadHead> {
    match httparse::parse_headers(block, room) {
        Ok(Status::Complete((end, headers))) if end == block.len() => Ok(headers),
        // Scan and httparse disagree about the end: nobody knows what this is.
        Ok(_) => Err(fault::FIELD_BLOCK),
        Err(httparse::Error::HeaderName) => Err(fault::FIELD_NAME),
        Err(httparse::Error::TooManyHeaders) => Err(fault::TOO_MANY_FIELDS),
        Err(_) if has_bare_carriage_return(block) => Err(fault::BARE_CARRIAGE_RETURN),
        Err(_) => Err(fault::FIELD_VALUE),
    }
}

/// Where `part`, a slice of `block`, lies in it.
fn place(block: &[u8], part: &[u8]) -> (usize, usize) {
    let start = (part.as_ptr() as usize).saturating_sub(block.as_ptr() as usize).min(block.len());
    (start, (start + part.len()).min(block.len()))
}

pub(super) fn has_bare_carriage_return(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\r', bytes).any(|at| bytes.get(at + 1) != Some(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(block: &[u8]) -> Result<Vec<(String, String, bool)>, &'static str> {
        let mut padded = Vec::new();
        let fields = read_fields(block, memchr::memchr_iter(b'\n', block).count() - 1, |line| {
            padded.push(line.is_padded);
            Ok(line.value)
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = fields.map_err(|fault| fault.reason)?;
        Ok(fields.iter().zip(padded).map(|((name, value), padded)| (text(name), text(value), padded)).collect())
    }

    #[test]
    fn trims_values_and_says_so() {
        let block = b"A: b\r\nC:d e \t\r\nEmpty:\r\nBlank: \r\nHigh: \xff\r\n\r\n";
        let expected = [
            ("A", "b", false),
            ("C", "d e", true),
            ("Empty", "", false),
            ("Blank", "", false),
            ("High", "\u{fffd}", false),
        ];
        let expected: Vec<_> = expected.map(|(name, value, padded)| (name.into(), value.into(), padded)).into();
        assert_eq!(read_all(block), Ok(expected));
    }

    #[test]
    fn has_room_for_a_hundred() {
        for count in [0, 1, FEW, FEW + 1, MAX_FIELDS] {
            let block = "A: b\r\n".repeat(count) + "\r\n";
            assert_eq!(read_all(block.as_bytes()).unwrap().len(), count);
        }
    }

    #[test]
    fn names_the_fault() {
        for (block, reason) in [
            (&b"A : b\r\n\r\n"[..], "field_name"),
            (b": b\r\n\r\n", "field_name"),
            (b"A\r\n\r\n", "field_name"),
            (b"A: \x01\r\n\r\n", "field_value"),
            (b"A: b\rc\r\n\r\n", "bare_carriage_return"),
            (b"A: b\r\n\r\nC: d\r\n", "field_block"),
        ] {
            assert_eq!(read_all(block), Err(reason), "{:?}", String::from_utf8_lossy(block));
        }
    }
}
