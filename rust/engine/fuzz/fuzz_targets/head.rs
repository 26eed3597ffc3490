//! Hostile heads and bodies: no panic, no verdict that depends on how the bytes were split, and what is accepted means
//! the same to us when we write it and read it again.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use tidegate_engine::http::write::{strip_connection_fields, write_request};
use tidegate_engine::http::{
    BadHead, BodyLength, BodyReader, BodyStep, Fields, Parsed, RequestHead, Scan, parse_request, parse_response,
    resume_request, resume_response,
};

const LIMIT: usize = 2048;

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let cut = usize::from(cut).min(bytes.len());
    let request = parse_request(bytes, LIMIT);
    let mut scan = Scan::new();
    agree(&request, cut_in_two(bytes, cut, |bytes| resume_request(&mut scan, bytes, LIMIT)));
    let response = parse_response(bytes, LIMIT, false);
    let mut scan = Scan::new();
    agree(&response, cut_in_two(bytes, cut, |bytes| resume_response(&mut scan, bytes, LIMIT, false)));
    if let Ok(Parsed::Complete { head, consumed }) = request {
        check_request(&head);
        check_body(head.body, &bytes[consumed..], cut);
    }
    if let Ok(Parsed::Complete { head, consumed }) = response {
        check_fields(&head.fields);
        check_body(head.body, &bytes[consumed..], cut);
    }
});

fn cut_in_two<T>(
    bytes: &[u8],
    cut: usize,
    mut parse: impl FnMut(&[u8]) -> Result<Parsed<T>, BadHead>,
) -> Result<Parsed<T>, BadHead> {
    match parse(&bytes[..cut]) {
        Ok(Parsed::Partial) => parse(bytes),
        verdict => verdict,
    }
}

fn agree<T: Debug>(whole: &Result<Parsed<T>, BadHead>, cut: Result<Parsed<T>, BadHead>) {
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
}

fn check_request(head: &RequestHead) {
    check_fields(&head.fields);
    assert_ne!(head.body, BodyLength::UntilClose);
    assert!(head.host.is_some() || head.minor == 0);
    if head.minor == 1 {
        let mut written = Vec::new();
        write_request(&mut written, head.method.as_bytes(), head.target.path_and_query(), &head.fields);
        let Ok(Parsed::Complete { head: again, consumed }) = parse_request(&written, 2 * LIMIT) else {
            panic!("not read again: {:?}", String::from_utf8_lossy(&written));
        };
        assert_eq!((consumed, again.body), (written.len(), head.body));
        assert!(again.fields.iter().eq(head.fields.iter()));
    }
    let mut stripped = head.fields.clone();
    strip_connection_fields(&mut stripped);
    assert!(!stripped.has("Connection") && !stripped.has("Transfer-Encoding"));
}

fn check_fields(fields: &Fields) {
    for (name, value) in fields.iter() {
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0')));
    }
}

fn check_body(length: BodyLength, bytes: &[u8], cut: usize) {
    let cut = cut.min(bytes.len());
    assert_eq!(read_body(length, &[bytes]), read_body(length, &[&bytes[..cut], &bytes[cut..]]));
}

/// The content, how many bytes the body took, and whether it is complete.
fn read_body(length: BodyLength, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), &'static str> {
    let mut reader = BodyReader::new(length);
    let (mut content, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        loop {
            match reader.next(&piece[at..]).map_err(|fault| fault.reason)? {
                BodyStep::Data(range) => {
                    assert!(!range.is_empty());
                    content.extend_from_slice(&piece[at..][range.clone()]);
                    at += range.end;
                }
                BodyStep::Done { consumed } => return Ok((content, before + at + consumed, true)),
                BodyStep::More => break,
            }
        }
        before += piece.len();
    }
    Ok((content, before, false))
}
