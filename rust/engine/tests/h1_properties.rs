//! Properties of the HTTP/1.1 codec: round trips, splits that do not matter, a naive decoder that agrees, no panics.

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_engine::http::chunked::{CHUNK_TAIL, write_chunk_head, write_last_chunk};
use tidegate_engine::http::write::{clean_value, strip_connection_fields, write_request, write_response};
use tidegate_engine::http::{
    BadHead, BodyLength, BodyReader, BodyStep, Fields, Parsed, RequestHead, Scan, parse_request, parse_response,
    resume_request, resume_response,
};

const LIMIT: usize = 1024;

fn pairs(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn fields_of(pairs: &[(String, Vec<u8>)]) -> Fields {
    let mut fields = Fields::new();
    pairs.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value));
    fields
}

/// Names that mean nothing to framing, and values as a cleaned template leaves them.
fn any_fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let value = vec(any::<u8>(), 0..24).prop_map(|mut value| {
        clean_value(&mut value);
        value
    });
    vec(("X-[!#$%&'*+.^_`|~0-9A-Za-z-]{0,12}", value), 0..12)
}

/// Pieces of heads that are nearly right, so that random input gets past the first byte.
fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "GET / HTTP/1.1\r\n",
        "POST /a?b HTTP/1.0\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 204 ",
        "Host: a\r\n",
        "Host:",
        "a",
        " ",
        "\t",
        "\r",
        "\n",
        "\r\n",
        "\r\n\r\n",
        ":",
        "Content-Length: 5\r\n",
        "Content-Length:",
        "5",
        "Transfer-Encoding: ",
        "chunked\r\n",
        "gzip, ",
        "\0",
        "\u{e9}",
        "http://a",
        "/",
        "?",
        "Connection: close\r\n",
        "X: y\r\n",
        "0",
        ";",
    ];
    let piece = prop_oneof![9 => prop::sample::select(pieces.map(|piece| piece.as_bytes().to_vec()).to_vec()), 1 => vec(any::<u8>(), 0..4)];
    vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// The verdict in a form that can be compared.
fn verdict<T: std::fmt::Debug>(parsed: &Result<Parsed<T>, BadHead>) -> String {
    format!("{parsed:?}")
}

/// The first verdict but "more", when the bytes come one by one.
fn slowly<T>(bytes: &[u8], mut parse: impl FnMut(&[u8]) -> Result<Parsed<T>, BadHead>) -> Result<Parsed<T>, BadHead> {
    for end in 0..bytes.len() {
        match parse(&bytes[..end]) {
            Ok(Parsed::Partial) => {}
            verdict => return verdict,
        }
    }
    parse(bytes)
}

/// A decoder that has the whole body at hand and splits it as the grammar is written.
fn decode_naively(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let line = at + input[at..].windows(2).position(|pair| pair == b"\r\n")?;
        let size = input[at..line].split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        at = line + 2;
        if size == 0 {
            let end = input[at - 2..].windows(4).position(|four| four == b"\r\n\r\n")?;
            return Some((content, at - 2 + end + 4));
        }
        content.extend_from_slice(input.get(at..at + size)?);
        at += size + 2;
    }
}

/// Feeds `input` cut at `cuts`, and gives the content and how much of the input the body took.
fn decode(length: BodyLength, input: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize), &'static str> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).chain([0, input.len()]).collect();
    cuts.sort_unstable();
    let mut reader = BodyReader::new(length);
    let mut content = Vec::new();
    for piece in cuts.windows(2) {
        let mut at = piece[0];
        loop {
            let rest = &input[at..piece[1]];
            match reader.next(rest).map_err(|fault| fault.reason)? {
                BodyStep::Data(range) => {
                    assert!(!range.is_empty());
                    content.extend_from_slice(&rest[range.clone()]);
                    at += range.end;
                }
                BodyStep::Done { consumed } => return Ok((content, at + consumed)),
                BodyStep::More => break,
            }
        }
    }
    reader.end().map(|()| (content, input.len())).map_err(|fault| fault.reason)
}

fn complete(parsed: Result<Parsed<RequestHead>, BadHead>) -> (RequestHead, usize) {
    match parsed {
        Ok(Parsed::Complete { head, consumed }) => (head, consumed),
        other => panic!("not complete: {other:?}"),
    }
}

/// A chunked body with extensions and trailers; the second is its content.
fn any_chunked() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunk = (vec(any::<u8>(), 1..40), prop::option::of("[ -~]{0,20}"));
    (vec(chunk, 0..6), prop::option::of(any_fields())).prop_map(|(chunks, trailers)| {
        let (mut body, mut content) = (Vec::new(), Vec::new());
        for (data, extension) in chunks {
            write_chunk_head(&mut body, data.len());
            if let Some(extension) = extension {
                body.truncate(body.len() - 2);
                body.extend_from_slice(format!(";{extension}\r\n").as_bytes());
            }
            body.extend_from_slice(&data);
            body.extend_from_slice(CHUNK_TAIL);
            content.extend(data);
        }
        write_last_chunk(&mut body, trailers.as_deref().map(fields_of).as_ref());
        (body, content)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_written_request_reads_the_same(fields in any_fields(), path in "/[!-\"$-~]{0,30}", next in vec(any::<u8>(), 0..8)) {
        let mut fields = fields_of(&fields);
        fields.push(b"Host", b"a:1");
        let mut bytes = Vec::new();
        write_request(&mut bytes, b"PATCH", path.as_bytes(), &fields);
        let length = bytes.len();
        bytes.extend(next);
        let (head, consumed) = complete(parse_request(&bytes, LIMIT));
        prop_assert_eq!(consumed, length);
        prop_assert_eq!(head.method.as_str(), "PATCH");
        prop_assert_eq!(head.target.path_and_query(), path.as_bytes());
        prop_assert_eq!(pairs(&head.fields), pairs(&fields));
    }

    #[test]
    fn a_written_response_reads_the_same(fields in any_fields(), status in 100u16..1000) {
        let fields = fields_of(&fields);
        let mut bytes = Vec::new();
        write_response(&mut bytes, status, None, &fields);
        let Ok(Parsed::Complete { head, consumed }) = parse_response(&bytes, LIMIT, false) else { panic!("refused") };
        prop_assert_eq!((head.status, consumed), (status, bytes.len()));
        prop_assert_eq!(pairs(&head.fields), pairs(&fields));
    }

    #[test]
    fn splits_do_not_matter_to_requests(bytes in nearly_a_head()) {
        let whole = parse_request(&bytes, LIMIT);
        let again = slowly(&bytes, |bytes| parse_request(bytes, LIMIT));
        let mut scan = Scan::new();
        let resumed = slowly(&bytes, |bytes| resume_request(&mut scan, bytes, LIMIT));
        prop_assert_eq!(verdict(&whole), verdict(&again));
        prop_assert_eq!(verdict(&whole), verdict(&resumed));
    }

    #[test]
    fn splits_do_not_matter_at_the_limit(bytes in nearly_a_head(), limit in 4usize..96) {
        let whole = parse_request(&bytes, limit);
        let mut scan = Scan::new();
        let resumed = slowly(&bytes, |bytes| resume_request(&mut scan, bytes, limit));
        prop_assert_eq!(verdict(&whole), verdict(&resumed));
        if let Ok(Parsed::Complete { consumed, .. }) = whole {
            prop_assert!(consumed <= limit);
        }
    }

    #[test]
    fn splits_do_not_matter_to_responses(bytes in nearly_a_head(), to_head: bool) {
        let whole = parse_response(&bytes, LIMIT, to_head);
        let mut scan = Scan::new();
        let resumed = slowly(&bytes, |bytes| resume_response(&mut scan, bytes, LIMIT, to_head));
        prop_assert_eq!(verdict(&whole), verdict(&resumed));
    }

    #[test]
    fn what_was_accepted_is_written_and_accepted_again(bytes in nearly_a_head()) {
        let Ok(Parsed::Complete { head, .. }) = parse_request(&bytes, LIMIT) else { return Ok(()) };
        let mut written = Vec::new();
        write_request(&mut written, head.method.as_bytes(), head.target.path_and_query(), &head.fields);
        if head.minor == 1 {
            let (again, consumed) = complete(parse_request(&written, LIMIT));
            prop_assert_eq!(consumed, written.len());
            prop_assert_eq!(again.body, head.body);
            prop_assert_eq!(pairs(&again.fields), pairs(&head.fields));
        }
    }

    #[test]
    fn stripped_fields_are_stripped(fields in any_fields(), named in 0usize..12) {
        let name = fields.get(named).map_or("X-None", |(name, _)| name).to_owned();
        let mut stripped = fields_of(&fields);
        stripped.push(b"Connection", format!("close, {name}").as_bytes());
        strip_connection_fields(&mut stripped);
        let is_named = |other: &str| other.eq_ignore_ascii_case(&name);
        let kept = fields.iter().filter(|(name, _)| !is_named(name)).map(|(name, value)| (name.clone().into_bytes(), value.clone()));
        prop_assert_eq!(pairs(&stripped), kept.collect::<Vec<_>>());
    }

    #[test]
    fn chunks_decode_as_naively(
        (body, content) in any_chunked(),
        next in vec(any::<u8>(), 0..8),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let length = body.len();
        let input = [body, next].concat();
        let decoded = decode(BodyLength::Chunked, &input, &cuts);
        prop_assert_eq!(decoded.as_ref(), Ok(&(content, length)));
        prop_assert_eq!(decoded.ok(), decode_naively(&input));
    }

    #[test]
    fn what_decodes_decodes_naively_too(
        (mut body, _) in any_chunked(),
        at in any::<prop::sample::Index>(),
        byte in prop::sample::select(b"\r\n;0aF \t\0+x:".to_vec()),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let at = at.index(body.len());
        body[at] = byte;
        let whole = decode(BodyLength::Chunked, &body, &[]);
        prop_assert_eq!(&whole, &decode(BodyLength::Chunked, &body, &cuts));
        if whole.is_ok() {
            prop_assert_eq!(whole.ok(), decode_naively(&body));
        }
    }

    #[test]
    fn a_cut_body_is_never_complete((body, _) in any_chunked(), end in any::<prop::sample::Index>()) {
        let end = end.index(body.len());
        prop_assert_eq!(decode(BodyLength::Chunked, &body[..end], &[]), Err("body_truncated"));
    }

    #[test]
    fn lengths_count(body in vec(any::<u8>(), 0..64), length in 0u64..64, cuts in vec(any::<usize>(), 0..8)) {
        let expected = match body.get(..length as usize) {
            Some(content) => Ok((content.to_vec(), content.len())),
            None => Err("body_truncated"),
        };
        prop_assert_eq!(decode(BodyLength::Length(length), &body, &cuts), expected);
    }

    #[test]
    fn junk_never_panics(bytes in vec(any::<u8>(), 0..256), cuts in vec(any::<usize>(), 0..4)) {
        let _ = parse_request(&bytes, LIMIT);
        let _ = parse_response(&bytes, LIMIT, false);
        let _ = decode(BodyLength::Chunked, &bytes, &cuts);
    }
}
