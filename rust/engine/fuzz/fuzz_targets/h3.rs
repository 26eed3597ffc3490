//! Hostile streams of HTTP/3: no panic, the same verdict whole and byte by byte, and sections within their limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_engine::http::h3::code::Code;
use tidegate_engine::http::h3::control::{Speaker, StreamKind, StreamReader};
use tidegate_engine::http::h3::head::{read_request, read_trailers};
use tidegate_engine::http::h3::message::{Event, MessageReader};
use tidegate_engine::http::h3::qpack;

const LIMIT: usize = 2048;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let speaker = if which & 1 == 0 { Speaker::Client } else { Speaker::Server };
    if let Ok(kind) = StreamKind::new(u64::from(which / 2 % 5), speaker) {
        let new = || StreamReader::new(kind, speaker);
        if let (Some(mut whole), Some(mut split)) = (new(), new()) {
            assert_eq!(whole.take(bytes), bytes.chunks(1).try_for_each(|byte| split.take(byte)));
        }
    }
    assert_eq!(read(speaker, bytes, usize::MAX), read(speaker, bytes, 1));
    check_section(bytes);
});

fn read(speaker: Speaker, bytes: &[u8], step: usize) -> (Vec<Event>, usize, Option<Code>) {
    let mut reader = MessageReader::new(speaker, LIMIT);
    let (mut events, mut content, mut rest) = (Vec::new(), 0, bytes);
    while !rest.is_empty() {
        let (some, others) = rest.split_at(reader.wanted().min(step).min(rest.len()));
        rest = others;
        match reader.take(some) {
            Ok(Some(Event::Data)) => content += some.len(),
            Ok(Some(event)) => events.push(event),
            Ok(None) => {}
            Err(code) => return (events, content, Some(code)),
        }
    }
    (events, content, reader.end().err())
}

fn check_section(section: &[u8]) {
    let _ = read_trailers(section, LIMIT);
    let Ok(fields) = qpack::decode(section, LIMIT) else { return };
    assert!(fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() <= LIMIT);
    let again = qpack::encode(fields.iter());
    let again = qpack::decode(&again, LIMIT).expect("what was decoded can be encoded");
    assert!(again.iter().eq(fields.iter()));
    let _ = read_request(&fields, true, LIMIT);
}
