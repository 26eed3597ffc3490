//! Chunked framing, byte by byte (RFC 9112 §7.1), and the way back.
//!
//! The decoder takes one spelling: hexadecimal digits, perhaps extensions, CRLF; data, CRLF. Signs, `0x`, spaces behind
//! the size and lone CR or LF are refused, since decoders that put up with them do not agree on where the chunk ends.
//! Extensions are dropped, and may not cost more than they carry.
//!
//! ```text
//! Size ──';'──> Extension ──CR──> SizeLineFeed ──LF──> Data ──> DataReturn ──CR──> DataLineFeed ──LF──> Size
//!   └──────────────CR──────────────────^    └──LF, size 0──> trailers
//! ```

use super::body::BadBody;
use super::fields::Fields;
use super::write::write_fields;

/// The longest extension of one chunk, in bytes.
const EXTENSION_LIMIT: u32 = 256;
/// How many bytes of extensions a body may have beyond its bytes of data. Without this a peer could have us read 256
/// bytes for each byte of content (as in CVE-2023-39326).
const EXTENSION_DEBT_LIMIT: u64 = 16 * 1024;
/// As many digits as fill a `u64`.
const DIGIT_LIMIT: u32 = 16;

const SIZE: BadBody =
    BadBody { reason: "chunk_size", text: "A chunk size is not 1 to 16 hexadecimal digits before CRLF or ';'." };
const EXTENSION: BadBody =
    BadBody { reason: "chunk_extension", text: "A chunk extension is too long or has a control character." };
const END: BadBody = BadBody { reason: "chunk_end", text: "A chunk does not end with CRLF." };

/// Where in a chunked body the reader is.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    place: Place,
    /// The size of the chunk as far as it was read, then what is left of its data.
    left: u64,
    /// Digits of the size, then bytes of the extension.
    length: u32,
    /// Bytes of extensions that no byte of data has paid for.
    debt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
}

impl Chunks {
    pub fn new() -> Self {
        Self { place: Place::Size, left: 0, length: 0, debt: 0 }
    }

    /// How many of the next `available` bytes, of which there are some, are data; none while framing is due.
    pub fn take_data(&mut self, available: usize) -> Option<usize> {
        if self.place != Place::Data {
            return None;
        }
        let taken = take(&mut self.left, available);
        self.debt = self.debt.saturating_sub(taken as u64);
        if self.left == 0 {
            self.place = Place::DataReturn;
        }
        Some(taken)
    }

    /// Takes one byte of framing. True when only trailers are left.
    pub fn step(&mut self, byte: u8) -> Result<bool, BadBody> {
        self.place = match (self.place, byte) {
            (Place::Size, _) => self.step_size(byte)?,
            (Place::Extension, b'\r') => Place::SizeLineFeed,
            (Place::Extension, _) => self.step_extension(byte)?,
            (Place::SizeLineFeed, b'\n') if self.left == 0 => return Ok(true),
            (Place::SizeLineFeed, b'\n') => Place::Data,
            (Place::SizeLineFeed, _) => return Err(SIZE),
            (Place::DataReturn, b'\r') => Place::DataLineFeed,
            (Place::DataLineFeed, b'\n') => self.begin(Place::Size),
            _ => return Err(END),
        };
        Ok(false)
    }

    /// Enters a place that counts its bytes.
    fn begin(&mut self, place: Place) -> Place {
        self.length = 0;
        place
    }

    fn step_size(&mut self, byte: u8) -> Result<Place, BadBody> {
        match (byte, (byte as char).to_digit(16)) {
            (_, Some(digit)) if self.length < DIGIT_LIMIT => {
                self.length += 1;
                self.left = self.left << 4 | u64::from(digit);
                Ok(Place::Size)
            }
            (b';', _) if self.length > 0 => Ok(self.begin(Place::Extension)),
            (b'\r', _) if self.length > 0 => Ok(Place::SizeLineFeed),
            _ => Err(SIZE),
        }
    }

    fn step_extension(&mut self, byte: u8) -> Result<Place, BadBody> {
        let is_allowed = !byte.is_ascii_control() || byte == b'\t';
        if !is_allowed || self.length >= EXTENSION_LIMIT || self.debt >= EXTENSION_DEBT_LIMIT {
            return Err(EXTENSION);
        }
        self.length += 1;
        self.debt += 1;
        Ok(Place::Extension)
    }
}

/// Takes up to `available` off `left` and says how many that were.
pub(super) fn take(left: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*left).map_or(available, |left| left.min(available));
    *left -= taken as u64;
    taken
}

/// What follows the data of each chunk.
pub const CHUNK_TAIL: &[u8] = b"\r\n";

/// Writes what comes before `length` bytes of chunk data; after them comes [`CHUNK_TAIL`]. A chunk is never empty: zero
/// would end the body.
pub fn write_chunk_head(out: &mut Vec<u8>, length: usize) {
    debug_assert!(length > 0, "an empty chunk ends the body");
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[length >> (4 * place) & 15]);
    }
    out.extend_from_slice(CHUNK_TAIL);
}

/// Writes the end of a chunked body.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    match trailers {
        Some(trailers) => write_fields(out, trailers),
        None => out.extend_from_slice(b"\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of `input`, fed byte by byte, up to the end of the last chunk.
    fn read(input: &str) -> Result<String, &'static str> {
        let (mut chunks, mut data) = (Chunks::new(), String::new());
        for byte in input.bytes() {
            match chunks.take_data(1) {
                Some(_) => data.push(byte as char),
                None if chunks.step(byte).map_err(|fault| fault.reason)? => return Ok(data),
                None => {}
            }
        }
        Err("unfinished")
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(read("5\r\nhello\r\n00000000000000001\r\n").unwrap_err(), "chunk_size");
        assert_eq!(read("5\r\nhello\r\n0000000000000001\r\n!\r\n0\r\n").unwrap(), "hello!");
        assert_eq!(read("A;a=\"b;c\"\r\n0123456789\r\n0;last\r\n").unwrap(), "0123456789");
    }

    #[test]
    fn sizes_have_one_spelling() {
        for input in [
            "\r\n", ";a\r\n", "+5\r\n", "-5\r\n", "0x5\r\n", "5_0\r\n", " 5\r\n", "5 \r\n", "5\n", "5\rx", "5\r\r\n",
            "g\r\n",
        ] {
            assert_eq!(read(input), Err("chunk_size"), "{input:?}");
        }
        for input in ["5\r\nhello!", "5\r\nhello\n", "5\r\nhello\rx", "1\r\na0\r\n", "1\r\n\r\n0\r\n"] {
            assert_eq!(read(input), Err("chunk_end"), "{input:?}");
        }
    }

    #[test]
    fn the_largest_size_fits() {
        let mut chunks = Chunks::new();
        "ffffffffffffffff\r\n".bytes().for_each(|byte| assert_eq!(chunks.step(byte), Ok(false)));
        assert_eq!((chunks.take_data(7), chunks.left), (Some(7), u64::MAX - 7));
    }

    #[test]
    fn extensions_have_no_line_breaks_and_bounds() {
        assert_eq!(read("5;a\nhello"), Err("chunk_extension"));
        assert_eq!(read("5;\0\r\n"), Err("chunk_extension"));
        assert_eq!(read("5;a\rb\r\n"), Err("chunk_size"));
        let chunk = |length: usize, data: &str| format!("{:x};{}\r\n{data}\r\n", data.len(), "e".repeat(length));
        assert_eq!(read(&(chunk(256, "a") + "0\r\n")).unwrap(), "a");
        assert_eq!(read(&chunk(257, "a")), Err("chunk_extension"));
        assert_eq!(read(&chunk(255, "a").repeat(65)), Err("chunk_extension"));
        assert!(read(&(chunk(255, &"a".repeat(256)).repeat(65) + "0\r\n")).is_ok());
    }

    #[test]
    fn heads_are_hexadecimal() {
        for length in [1, 15, 16, 255, 256, 65536, usize::MAX] {
            let mut out = Vec::new();
            write_chunk_head(&mut out, length);
            assert_eq!(out, format!("{length:x}\r\n").into_bytes());
        }
    }
}
