//! Properties of the codec of HTTP/3: round trips, splits that do not matter, no panics.

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_engine::http::Fields;
use tidegate_engine::http::h3::code::Code;
use tidegate_engine::http::h3::control::{Speaker, StreamKind, StreamReader};
use tidegate_engine::http::h3::frame::{write_data_head, write_goaway, write_headers, write_settings};
use tidegate_engine::http::h3::head::{read_request, read_trailers};
use tidegate_engine::http::h3::message::{Event, MessageReader};
use tidegate_engine::http::h3::{qpack, varint};

const LIMIT: usize = 1024;

/// What a message says: events without their data, and the data.
type Said = (Vec<Event>, Vec<u8>);

/// Reads `bytes` in pieces of at most `step`.
fn read(speaker: Speaker, bytes: &[u8], step: usize) -> Result<Said, (Said, Code)> {
    let mut reader = MessageReader::new(speaker, LIMIT);
    let (mut said, mut rest) = (Said::default(), bytes);
    while !rest.is_empty() {
        assert!(reader.wanted() > 0);
        let (some, others) = rest.split_at(reader.wanted().min(step).min(rest.len()));
        rest = others;
        match reader.take(some) {
            Ok(Some(Event::Data)) => said.1.extend_from_slice(some),
            Ok(Some(event)) => said.0.push(event),
            Ok(None) => {}
            Err(code) => return Err((said, code)),
        }
    }
    match reader.end() {
        Ok(()) => Ok(said),
        Err(code) => Err((said, code)),
    }
}

#[derive(Clone, Debug)]
enum Piece {
    Unknown(Vec<u8>),
    Data(Vec<u8>),
}

fn message() -> impl Strategy<Value = (Vec<u8>, Vec<Piece>, Option<Vec<u8>>)> {
    let piece =
        prop_oneof![vec(any::<u8>(), 0..80).prop_map(Piece::Unknown), vec(any::<u8>(), 0..200).prop_map(Piece::Data)];
    (vec(any::<u8>(), 0..100), vec(piece, 0..8), proptest::option::of(vec(any::<u8>(), 0..100)))
}

/// Frames that are nearly right, so that random input gets past the first byte.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0_u8..16, vec(any::<u8>(), 0..20), 0_u8..3).prop_map(|(kind, payload, wrong)| {
        let mut bytes = vec![kind, payload.len() as u8 + u8::from(wrong == 0)];
        bytes.extend_from_slice(&payload);
        bytes
    });
    vec(frame, 0..8).prop_map(|frames| frames.concat())
}

fn fields() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let known =
        prop::sample::select(vec![(":method", "GET"), (":path", "/"), ("accept", "*/*"), ("vary", "x"), ("a", "b")]);
    let known = known.prop_map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    vec(prop_oneof![known, (vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..300))], 0..10)
}

fn speaker(is_client: bool) -> Speaker {
    if is_client { Speaker::Client } else { Speaker::Server }
}

fn pairs(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

proptest! {
    #[test]
    fn integers_come_back(value in 0..=varint::MAX, rest in vec(any::<u8>(), 0..4)) {
        let mut bytes = Vec::new();
        varint::write(&mut bytes, value);
        bytes.extend_from_slice(&rest);
        prop_assert_eq!(varint::read(&bytes), Some((value, &rest[..])));
    }

    #[test]
    fn a_message_comes_back_however_it_is_split(
        (head, pieces, trailers) in message(),
        from_client: bool,
        step in 1_usize..64,
    ) {
        let (mut bytes, mut content) = (Vec::new(), Vec::new());
        write_headers(&mut bytes, &head);
        for piece in &pieces {
            match piece {
                Piece::Unknown(payload) => {
                    bytes.push(0x21);
                    varint::write(&mut bytes, payload.len() as u64);
                    bytes.extend_from_slice(payload);
                }
                Piece::Data(payload) => {
                    write_data_head(&mut bytes, payload.len());
                    bytes.extend_from_slice(payload);
                    content.extend_from_slice(payload);
                }
            }
        }
        let mut events = vec![Event::Head(head)];
        if let Some(trailers) = trailers {
            write_headers(&mut bytes, &trailers);
            events.push(Event::Trailers(trailers));
        }
        prop_assert_eq!(read(speaker(from_client), &bytes, step), Ok((events, content)));
    }

    #[test]
    fn hostile_messages_mean_the_same_in_pieces(
        bytes in prop_oneof![nearly_frames(), vec(any::<u8>(), 0..60)],
        from_client: bool,
        step in 1_usize..9,
    ) {
        let speaker = speaker(from_client);
        prop_assert_eq!(read(speaker, &bytes, usize::MAX), read(speaker, &bytes, step));
    }

    #[test]
    fn hostile_streams_mean_the_same_in_pieces(
        kind in 0_u64..4,
        from_client: bool,
        bytes in nearly_frames(),
        with_settings: bool,
        step in 1_usize..9,
    ) {
        let speaker = speaker(from_client);
        let Ok(kind) = StreamKind::new(kind, speaker) else { return Ok(()) };
        let mut whole = Vec::new();
        if with_settings {
            write_settings(&mut whole, 1000, true);
            write_goaway(&mut whole, 0);
        }
        whole.extend_from_slice(&bytes);
        let new = || StreamReader::new(kind, speaker);
        let (Some(mut first), Some(mut second)) = (new(), new()) else { return Ok(()) };
        prop_assert_eq!(first.take(&whole), whole.chunks(step).try_for_each(|piece| second.take(piece)));
    }

    #[test]
    fn fields_come_back(fields in fields()) {
        let section = qpack::encode(fields.iter().map(|(name, value)| (&name[..], &value[..])));
        prop_assert_eq!(pairs(&qpack::decode(&section, 10_000).unwrap()), fields);
    }

    #[test]
    fn hostile_sections_stay_within_the_limit(section in vec(any::<u8>(), 0..200), valid: bool) {
        let section = if valid { [&[0, 0], &section[..]].concat() } else { section };
        if let Ok(fields) = qpack::decode(&section, LIMIT) {
            let size: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
            prop_assert!(size <= LIMIT);
            let _ = read_request(&fields, true, LIMIT);
        }
        let _ = read_trailers(&section, LIMIT);
    }
}
