//! Field sections (RFC 9204 §4.5), without a dynamic table: each line is a reference to the static table, or a literal.

mod huffman;
mod table;

use self::table::STATIC;
use super::super::fields::Fields;

/// What a field costs beside its bytes (RFC 9114 §4.2.2).
const FIELD: usize = 32;

/// Why a field section cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSection {
    /// It is none: an error of the connection, QPACK_DECOMPRESSION_FAILED.
    Malformed,
    /// It is larger than the limit when it is unpacked.
    TooLarge,
}

use BadSection::Malformed;

/// Unpacks a field section of at most `limit` bytes, counted with 32 for each field. Fields are in their order, those
/// with a colon too.
pub fn decode(section: &[u8], limit: usize) -> Result<Fields, BadSection> {
    let mut rest = section;
    // Entries of a dynamic table are needed by nobody, so the base counts from nothing (§4.5.1).
    if integer(&mut rest, 8)? != 0 {
        return Err(Malformed);
    }
    integer(&mut rest, 7)?;
    let (mut fields, mut size) = (Fields::new(), 0);
    let (mut name, mut value) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        name.clear();
        value.clear();
        line(&mut rest, &mut name, &mut value)?;
        size += name.len() + value.len() + FIELD;
        if size > limit {
            return Err(BadSection::TooLarge);
        }
        fields.push(&name, &value);
    }
    Ok(fields)
}

fn line(rest: &mut &[u8], name: &mut Vec<u8>, value: &mut Vec<u8>) -> Result<(), BadSection> {
    match rest.first().ok_or(Malformed)? {
        // An indexed field; 0x80 points into the dynamic table.
        0xc0..=0xff => {
            let entry = entry(integer(rest, 6)?)?;
            name.extend_from_slice(entry.0);
            value.extend_from_slice(entry.1);
            Ok(())
        }
        // A literal whose name is indexed; the bit for "never indexed" says nothing to us.
        0x50..=0x5f | 0x70..=0x7f => {
            name.extend_from_slice(entry(integer(rest, 4)?)?.0);
            string(rest, 7, value)
        }
        0x20..=0x3f => {
            string(rest, 3, name)?;
            string(rest, 7, value)
        }
        _ => Err(Malformed),
    }
}

fn entry(index: u64) -> Result<(&'static [u8], &'static [u8]), BadSection> {
    usize::try_from(index).ok().and_then(|index| STATIC.get(index)).copied().ok_or(Malformed)
}

/// An integer whose first byte has `bits` of it (RFC 7541 §5.1).
fn integer(rest: &mut &[u8], bits: u32) -> Result<u64, BadSection> {
    let (first, mut others) = rest.split_first().ok_or(Malformed)?;
    let most = (1 << bits) - 1;
    let mut value = u64::from(*first) & most;
    if value == most {
        for shift in (0..).step_by(7) {
            let (byte, behind) = others.split_first().ok_or(Malformed)?;
            others = behind;
            // As large as an integer of QUIC is more than enough (RFC 9204 §4.1.1).
            if shift > 56 {
                return Err(Malformed);
            }
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = others;
    Ok(value)
}

/// A text whose length has `bits` in the first byte, with the mark of the Huffman code above them.
fn string(rest: &mut &[u8], bits: u32, out: &mut Vec<u8>) -> Result<(), BadSection> {
    let is_packed = rest.first().ok_or(Malformed)? & (1 << bits) != 0;
    let length = usize::try_from(integer(rest, bits)?).map_err(|_| Malformed)?;
    let (text, behind) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = behind;
    if is_packed {
        return huffman::decode(text, out).map_err(|_| Malformed);
    }
    out.extend_from_slice(text);
    Ok(())
}

/// Packs a field section. What may not be kept by others is not told from the rest: nobody can index it.
pub fn encode<'f>(fields: impl IntoIterator<Item = (&'f [u8], &'f [u8])>) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        match table::find(name, value) {
            Some((index, true)) => write_integer(&mut out, 0xc0, 6, index as u64),
            Some((index, false)) => {
                write_integer(&mut out, 0x50, 4, index as u64);
                write_string(&mut out, 0, 7, value);
            }
            None => {
                write_string(&mut out, 0x20, 3, name);
                write_string(&mut out, 0, 7, value);
            }
        }
    }
    out
}

fn write_integer(out: &mut Vec<u8>, mark: u8, bits: u32, value: u64) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(mark | value as u8);
    }
    out.push(mark | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_string(out: &mut Vec<u8>, mark: u8, bits: u32, text: &[u8]) {
    write_integer(out, mark, bits, text.len() as u64);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(section: &[u8]) -> Result<Vec<(String, String)>, BadSection> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ok(decode(section, 10_000)?.iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    /// RFC 9204 §B.1, and what the same would be with the Huffman code, by index, and as a literal.
    #[test]
    fn the_example_of_the_rfc() {
        let path = Ok(vec![(":path".to_owned(), "/index.html".to_owned())]);
        assert_eq!(decoded(b"\x00\x00\x51\x0b/index.html"), path);
        assert_eq!(decoded(b"\x00\x00\x71\x88\x60\xd5\x48\x5f\x2b\xce\x9a\x68"), path);
        assert_eq!(decoded(b"\x00\x00\x25:path\x0b/index.html"), path);
        assert_eq!(decoded(b"\x00\x00\xd1"), Ok(vec![(":method".to_owned(), "GET".to_owned())]));
        assert_eq!(encode([(&b":path"[..], &b"/index.html"[..])]), b"\x00\x00\x51\x0b/index.html");
    }

    /// RFC 7541 §C.1.
    #[test]
    fn integers() {
        for (bytes, bits, value) in [(&[0x0a][..], 5, 10), (&[0x1f, 0x9a, 0x0a], 5, 1337), (&[0x2a], 8, 42)] {
            assert_eq!(integer(&mut &*bytes, bits), Ok(value));
            let mut out = Vec::new();
            write_integer(&mut out, 0, bits, value);
            assert_eq!(out, bytes);
        }
        assert_eq!(integer(&mut &[0xff; 12][..], 8), Err(Malformed));
        assert_eq!(integer(&mut &[0xff, 0x80][..], 8), Err(Malformed));
    }

    #[test]
    fn every_entry_there_and_back() {
        for (name, value) in STATIC {
            for value in [value, b"something else"] {
                let section = encode([(name, value)]);
                let fields = decode(&section, 1000).unwrap();
                assert_eq!(fields.iter().collect::<Vec<_>>(), [(name, value)]);
            }
        }
        assert_eq!(encode([(&b":status"[..], &b"200"[..])]), [0, 0, 0xd9]);
    }

    #[test]
    fn nothing_of_a_dynamic_table() {
        for section in [&[1, 0][..], &[0, 0, 0x80], &[0, 0, 0x10], &[0, 0, 0x40, 1, b'a'], &[0, 0, 0x00, 1, b'a']] {
            assert_eq!(decoded(section), Err(Malformed), "{section:?}");
        }
        assert_eq!(decoded(&[0, 0, 0xff, 36]), Err(Malformed), "there are 99");
    }

    /// A byte becomes a hundred: what counts is what it becomes.
    #[test]
    fn a_section_that_grows() {
        let mut section = vec![0, 0];
        (0..100).for_each(|_| section.extend_from_slice(&[0xff, 22]));
        assert_eq!(decode(&section, 10_000).unwrap_err(), BadSection::TooLarge);
        assert_eq!(decode(&section, 20_000).unwrap().len(), 100);
    }
}
