//! The Huffman code of RFC 7541 §5.2 and appendix B, which QPACK has as well (RFC 9204 §4.1.2).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and shorter ones come
//! first. So the lengths are the whole code, and what is needed for reading is made of them when this is compiled.

/// What is not a text in this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How many bits each byte has, and the end mark behind them.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Row {
    /// The first code that is longer, with its highest bit at the top.
    end: u64,
    /// The first of this length.
    first: u64,
    /// Where its symbol stands in [`SYMBOLS`].
    place: usize,
}

const TABLE: ([Row; LONGEST + 1], [u16; 257]) = table();
static ROWS: [Row; LONGEST + 1] = TABLE.0;
static SYMBOLS: [u16; 257] = TABLE.1;

const fn table() -> ([Row; LONGEST + 1], [u16; 257]) {
    let mut rows = [Row { end: 0, first: 0, place: 0 }; LONGEST + 1];
    let mut symbols = [0; 257];
    let (mut place, mut code, mut length) = (0, 0, 1);
    while length <= LONGEST {
        rows[length].first = code;
        rows[length].place = place;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                symbols[place] = symbol as u16;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        rows[length].end = code << (32 - length);
        code <<= 1;
        length += 1;
    }
    (rows, symbols)
}

/// Appends the text of `bytes` to `out`.
pub fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut rest = bytes.iter();
    let (mut bits, mut count) = (0_u64, 0);
    loop {
        while count < 32 {
            let Some(byte) = rest.next() else { break };
            bits = bits << 8 | u64::from(*byte);
            count += 8;
        }
        // The next 32 bits, filled up with ones, as the padding is.
        let window =
            if count >= 32 { bits >> (count - 32) } else { (bits << (32 - count)) | (u32::MAX >> count) as u64 };
        let window = window & u64::from(u32::MAX);
        if count < 8 && window == u64::from(u32::MAX) {
            return Ok(());
        }
        let length = (SHORTEST..=LONGEST).find(|length| window < ROWS[*length].end).ok_or(Malformed)?;
        let row = ROWS[length];
        let symbol = SYMBOLS[row.place + ((window >> (32 - length)) - row.first) as usize];
        match u8::try_from(symbol) {
            Ok(byte) if length <= count => out.push(byte),
            // The end mark must not be in a text, and a text not end within a code.
            _ => return Err(Malformed),
        }
        count -= length;
        bits &= (1 << count) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(hex: &str) -> Result<Vec<u8>, Malformed> {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut out = Vec::new();
        decode(&bytes, &mut out).map(|()| out)
    }

    /// RFC 7541 §C.4 and §C.6.
    #[test]
    fn the_examples_of_the_rfc() {
        let examples = [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
            ("", ""),
        ];
        for (hex, text) in examples {
            assert_eq!(decoded(hex).as_deref(), Ok(text.as_bytes()));
        }
    }

    /// Each byte by the codes that the table says, with padding behind it.
    #[test]
    fn every_byte() {
        for (place, symbol) in SYMBOLS.iter().enumerate() {
            let length = LENGTHS[usize::from(*symbol)] as usize;
            let code = ROWS[length].first + (place - ROWS[length].place) as u64;
            let whole = length.div_ceil(8) * 8;
            let padded = code << (whole - length) | ((1 << (whole - length)) - 1);
            let mut out = Vec::new();
            let result = decode(&padded.to_be_bytes()[8 - whole / 8..], &mut out);
            match u8::try_from(*symbol) {
                Ok(byte) => assert_eq!((result, out), (Ok(()), vec![byte])),
                Err(_) => assert_eq!(result, Err(Malformed)),
            }
        }
    }

    #[test]
    fn padding_is_ones_and_less_than_a_byte() {
        assert_eq!(decoded("6402").as_deref(), Ok(&b"302"[..]));
        assert_eq!(decoded("6400"), Ok(b"300".to_vec()));
        for hex in ["6402ff", "ff", "00", "6403ff", "fffffffc", "ffffffff"] {
            assert_eq!(decoded(hex), Err(Malformed), "{hex}");
        }
    }
}
