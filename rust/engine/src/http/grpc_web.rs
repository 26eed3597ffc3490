//! gRPC-Web: gRPC for clients that cannot read trailers, over any version of HTTP (the protocol: gRPC over HTTP,
//! PROTOCOL-WEB.md), and how it becomes gRPC and back.
//!
//! Messages are framed as in gRPC. Two things differ. The trailers of the answer come as one more frame of its body,
//! with the highest bit of the flags set. And where the media type ends in `-text`, the body is base64: pieces of it,
//! each of which may end with padding, wherever its writer has flushed. So pieces end and begin anywhere in a message,
//! and a reader may find the halves of a group of four digits in two of its reads.

use super::fields::Fields;

const GRPC: &[u8] = b"application/grpc";
const WEB: &[u8] = b"application/grpc-web";
const TEXT: &[u8] = b"application/grpc-web-text";
/// Of the frame that has the trailers.
const TRAILERS: u8 = 0x80;

/// A call of gRPC-Web, and what its client reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebCall {
    /// Whether the request's body is base64.
    asks_in_text: bool,
    /// And the answer's.
    answers_in_text: bool,
    /// What messages are, with its `+`; empty where nothing is said.
    format: Vec<u8>,
}

impl WebCall {
    /// The call that a request is; none where it is none.
    pub fn of(request: &Fields) -> Option<Self> {
        let (asks_in_text, format) = media(request.first("content-type")?)?;
        let accepted = request.elements("accept").find_map(media);
        let answers_in_text = accepted.map_or(asks_in_text, |(is_text, _)| is_text);
        Some(Self { asks_in_text, answers_in_text, format: format.to_vec() })
    }

    /// Makes the fields of a request those of a call of gRPC.
    pub fn ask(&self, fields: &mut Fields) {
        fields.set("Content-Type", &[GRPC, &self.format].concat());
        fields.set("TE", b"trailers");
        fields.remove("x-grpc-web");
        if self.asks_in_text {
            fields.remove("content-length");
        }
    }

    /// Makes the fields of an answer of gRPC those of one of gRPC-Web. False where it is no answer of gRPC: then it
    /// goes on as it is.
    pub fn answer(&self, fields: &mut Fields) -> bool {
        let is_grpc = fields.first("content-type").is_some_and(|media| media.to_ascii_lowercase().starts_with(GRPC));
        if is_grpc {
            fields.set("Content-Type", &self.media());
            fields.remove("content-length");
        }
        is_grpc
    }

    /// The media type of the answer.
    pub fn media(&self) -> Vec<u8> {
        let format = if self.format.is_empty() { b"+proto" } else { &*self.format };
        [if self.answers_in_text { TEXT } else { WEB }, format].concat()
    }

    /// What the body of the request goes through; none where it goes on as it is.
    pub fn upload(&self) -> Option<Translation> {
        self.asks_in_text.then(|| Translation::Decode(Decoder::default()))
    }

    /// What the body of the answer goes through.
    pub fn download(&self) -> Translation {
        Translation::Frame { in_text: self.answers_in_text }
    }
}

/// Whether a media type is text, and what messages are; none for other types.
fn media(value: &[u8]) -> Option<(bool, &[u8])> {
    let value = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let behind = |prefix: &[u8]| {
        let (start, rest) = value.split_at_checked(prefix.len())?;
        (start.eq_ignore_ascii_case(prefix) && matches!(rest.first(), None | Some(b'+'))).then_some(rest)
    };
    behind(TEXT).map(|format| (true, format)).or_else(|| behind(WEB).map(|format| (false, format)))
}

/// What is no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadText;

/// What a body goes through on its way.
#[derive(Debug)]
pub enum Translation {
    Decode(Decoder),
    /// Trailers become a frame at the end; all of it is base64 where `in_text`.
    Frame {
        in_text: bool,
    },
}

impl Translation {
    /// A piece of the body, translated; perhaps there is nothing to send yet.
    pub fn piece(&mut self, content: &[u8]) -> Result<Vec<u8>, BadText> {
        match self {
            Self::Decode(decoder) => decoder.decode(content),
            Self::Frame { in_text } => Ok(written(content, *in_text)),
        }
    }

    /// What is still to be sent at the end of a body that ends with `trailers`, which it takes where it tells them.
    pub fn end(&mut self, trailers: &mut Fields) -> Result<Vec<u8>, BadText> {
        match self {
            Self::Decode(decoder) => decoder.end().map(|()| Vec::new()),
            Self::Frame { in_text } if !trailers.is_empty() => {
                let frame = trailer_frame(trailers);
                *trailers = Fields::new();
                Ok(written(&frame, *in_text))
            }
            Self::Frame { .. } => Ok(Vec::new()),
        }
    }
}

fn written(bytes: &[u8], in_text: bool) -> Vec<u8> {
    if in_text { encode(bytes) } else { bytes.to_vec() }
}

/// The trailers as a frame: one line each, with names in small letters.
fn trailer_frame(trailers: &Fields) -> Vec<u8> {
    let mut frame = vec![TRAILERS, 0, 0, 0, 0];
    for (name, value) in trailers.iter() {
        for part in [&*name.to_ascii_lowercase(), b":", value, b"\r\n"] {
            frame.extend_from_slice(part);
        }
    }
    // Trailers are read within a limit far below.
    let length = u32::try_from(frame.len() - 5).unwrap_or(u32::MAX);
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    frame
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A piece of base64 (RFC 4648 §4), padded.
fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(value >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { digit } else { b'=' });
        }
    }
    text
}

/// Reads base64 that comes in any pieces, each group of which may be padded.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The digits of a group that is not whole yet, and how many they are.
    value: u32,
    digits: u8,
    padding: u8,
}

impl Decoder {
    /// The bytes of the groups that are whole now.
    pub fn decode(&mut self, text: &[u8]) -> Result<Vec<u8>, BadText> {
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
        for character in text {
            self.take(*character, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Nothing more comes.
    pub fn end(&self) -> Result<(), BadText> {
        if self.digits == 0 { Ok(()) } else { Err(BadText) }
    }

    fn take(&mut self, character: u8, bytes: &mut Vec<u8>) -> Result<(), BadText> {
        let digit = match character {
            // At least two digits make a byte.
            b'=' if self.digits >= 2 => {
                self.padding += 1;
                0
            }
            _ if self.padding > 0 => return Err(BadText),
            character => digit(character).ok_or(BadText)?,
        };
        self.value = self.value << 6 | u32::from(digit);
        self.digits += 1;
        if self.digits == 4 {
            let [_, group @ ..] = self.value.to_be_bytes();
            bytes.extend_from_slice(&group[..3 - usize::from(self.padding)]);
            *self = Self::default();
        }
        Ok(())
    }
}

fn digit(character: u8) -> Option<u8> {
    Some(match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn call(list: &[(&str, &str)]) -> Option<(bool, String)> {
        let call = WebCall::of(&fields(list))?;
        Some((call.asks_in_text, String::from_utf8(call.media()).unwrap()))
    }

    #[test]
    fn calls() {
        let call = |list: &[(&str, &str)]| call(list).map(|(is_text, media)| format!("{is_text} {media}"));
        let says = |text: &str| Some(text.to_owned());
        let kind = "content-type";
        assert_eq!(call(&[(kind, "application/grpc-web")]), says("false application/grpc-web+proto"));
        assert_eq!(call(&[(kind, "Application/gRPC-Web+json; x=y")]), says("false application/grpc-web+json"));
        assert_eq!(call(&[(kind, "application/grpc-web-text")]), says("true application/grpc-web-text+proto"));
        let binary = [(kind, "application/grpc-web-text+proto"), ("accept", "*/*, application/grpc-web+proto")];
        assert_eq!(call(&binary), says("true application/grpc-web+proto"));
        let text = [(kind, "application/grpc-web"), ("accept", "application/grpc-web-text")];
        assert_eq!(call(&text), says("false application/grpc-web-text+proto"));
        for other in
            ["application/grpc", "application/grpc-webtext", "application/json", "application/grpc-web-textual"]
        {
            assert_eq!(call(&[(kind, other)]), None, "{other}");
        }
        assert_eq!(call(&[]), None);
    }

    #[test]
    fn heads() {
        let call = WebCall::of(&fields(&[("content-type", "application/grpc-web-text+proto")])).unwrap();
        let mut request = fields(&[("Content-Type", "application/grpc-web-text+proto"), ("Content-Length", "8")]);
        request.push(b"X-Grpc-Web", b"1");
        call.ask(&mut request);
        let expected = fields(&[("Content-Type", "application/grpc+proto"), ("TE", "trailers")]);
        assert!(request.iter().eq(expected.iter()), "{request:?}");
        let mut answer = fields(&[("content-type", "application/grpc")]);
        assert!(call.answer(&mut answer));
        assert_eq!(answer.first("content-type"), Some(&b"application/grpc-web-text+proto"[..]));
        assert!(!call.answer(&mut fields(&[("content-type", "text/html")])));
    }

    #[test]
    fn trailers_are_a_frame() {
        let mut trailers = fields(&[("Grpc-Status", "0"), ("x-a", "b")]);
        let frame = Translation::Frame { in_text: false }.end(&mut trailers).unwrap();
        assert_eq!(frame, b"\x80\0\0\0\x16grpc-status:0\r\nx-a:b\r\n");
        assert!(trailers.is_empty());
        let mut trailers = fields(&[("a", "b")]);
        assert_eq!(Translation::Frame { in_text: true }.end(&mut trailers).unwrap(), b"gAAAAAVhOmINCg==");
    }

    #[test]
    fn what_is_no_base64() {
        for text in ["=", "A=", "AA=A", "A A=", "AAA", "A", "-_AA", "AAAA=", "AA", "AA="] {
            let mut decoder = Decoder::default();
            let decoded = decoder.decode(text.as_bytes()).and_then(|_| decoder.end());
            assert_eq!(decoded, Err(BadText), "{text}");
        }
    }

    proptest! {
        /// However it was cut when it was written, and when it is read.
        #[test]
        fn text_and_back(pieces: Vec<Vec<u8>>, cuts: Vec<prop::sample::Index>) {
            let text: Vec<u8> = pieces.iter().flat_map(|piece| encode(piece)).collect();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let (mut decoder, mut bytes) = (Decoder::default(), Vec::new());
            for pair in places.windows(2) {
                bytes.extend(decoder.decode(&text[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(decoder.end(), Ok(()));
            prop_assert_eq!(bytes, pieces.concat());
        }

        #[test]
        fn anything_ends_without_a_panic(text: Vec<u8>) {
            let mut decoder = Decoder::default();
            if let Ok(bytes) = decoder.decode(&text) {
                prop_assert!(bytes.len() <= text.len() / 4 * 3);
            }
        }
    }
}
