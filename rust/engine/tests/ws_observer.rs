//! The frame observer against a naive parser of the whole stream: valid streams, broken ones, and noise, cut anywhere.

#[path = "naive_frames/drive.rs"]
mod drive;
#[path = "naive_frames/mod.rs"]
mod naive;

use drive::drive;
use naive::{Verdict, parse};
use proptest::prelude::*;
use tidegate_engine::ws::frame::{Header, Opcode, mask_in_place, write_header};
use tidegate_engine::ws::{From, Rules, Stop, Violation};

/// A frame to be written: small numbers that [`write`] makes a valid stream of.
#[derive(Clone, Debug)]
struct Part {
    control: Option<Opcode>,
    binary: bool,
    fin: bool,
    rsv1: bool,
    payload: Vec<u8>,
    key: [u8; 4],
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![8 => 0..20usize, 4 => 120..131usize, 1 => 65_530..65_542usize];
    (length, any::<u8>()).prop_map(|(length, seed)| (0..length).map(|i| seed.wrapping_add(i as u8)).collect())
}

fn part() -> impl Strategy<Value = Part> {
    let control = prop_oneof![3 => Just(None), 1 => Just(Some(Opcode::Ping)), 1 => Just(Some(Opcode::Pong))];
    (control, any::<bool>(), any::<bool>(), any::<bool>(), payload(), any::<[u8; 4]>())
        .prop_map(|(control, binary, fin, rsv1, payload, key)| Part { control, binary, fin, rsv1, payload, key })
}

fn rules() -> impl Strategy<Value = Rules> {
    let from = prop_oneof![Just(From::Client), Just(From::Server)];
    let limit = prop_oneof![3 => Just(None), 1 => (0..400u64).prop_map(Some)];
    (from, any::<bool>(), limit).prop_map(|(from, deflate, max_message)| Rules { from, deflate, max_message })
}

/// A valid stream (but for `max_message`): `parts` in order, and a Close at the end when `close` has one.
fn write(parts: &[Part], close: Option<(u16, [u8; 4])>, rules: Rules) -> Vec<u8> {
    let (mut out, mut fragmented) = (Vec::new(), false);
    for part in parts {
        let (fin, opcode) = match part.control {
            Some(opcode) => (true, opcode),
            None if fragmented => (part.fin, Opcode::Continuation),
            None => (part.fin, if part.binary { Opcode::Binary } else { Opcode::Text }),
        };
        let first = matches!(opcode, Opcode::Text | Opcode::Binary);
        let room = if opcode.is_control() { 125 } else { usize::MAX };
        let payload = &part.payload[..part.payload.len().min(room)];
        frame(&mut out, fin, part.rsv1 && first && rules.deflate, opcode, part.key, payload, rules.from);
        fragmented = if opcode.is_control() { fragmented } else { !fin };
    }
    if let Some((code, key)) = close {
        frame(&mut out, true, false, Opcode::Close, key, &code.to_be_bytes(), rules.from);
    }
    out
}

fn frame(out: &mut Vec<u8>, fin: bool, rsv1: bool, opcode: Opcode, key: [u8; 4], payload: &[u8], from: From) {
    let mask = (from == From::Client).then_some(key);
    write_header(out, &Header { fin, rsv1, opcode, mask, length: payload.len() as u64 });
    let start = out.len();
    out.extend_from_slice(payload);
    mask_in_place(&mut out[start..], mask.unwrap_or_default(), 0);
}

fn stream() -> impl Strategy<Value = (Rules, Vec<u8>)> {
    let close = proptest::option::of((prop_oneof![3 => 1000..1016u16, 1 => any::<u16>()], any::<[u8; 4]>()));
    (rules(), proptest::collection::vec(part(), 0..8), close)
        .prop_map(|(rules, parts, close)| (rules, write(&parts, close, rules)))
}

/// A stream with a few bytes changed, near the start more often than not: headers are small beside payloads.
fn broken_stream() -> impl Strategy<Value = (Rules, Vec<u8>)> {
    let change = (prop_oneof![3 => 0..40usize, 1 => any::<usize>()], any::<u8>());
    (stream(), proptest::collection::vec(change, 1..4)).prop_map(|((rules, mut bytes), changes)| {
        for (at, value) in changes {
            let length = bytes.len().max(1);
            bytes.get_mut(at % length).into_iter().for_each(|byte| *byte = value);
        }
        (rules, bytes)
    })
}

fn noise() -> impl Strategy<Value = (Rules, Vec<u8>)> {
    (rules(), proptest::collection::vec(any::<u8>(), 0..64))
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![4 => 1..9usize, 1 => 100..70_000usize], 0..12)
}

fn stops() -> impl Strategy<Value = Vec<Stop>> {
    proptest::collection::vec(prop_oneof![Just(Stop::Never), Just(Stop::AtFrame), Just(Stop::AtMessage)], 1..9)
}

/// What the observer is compared in when it is never asked to stop.
fn without_ends(verdict: Verdict) -> Verdict {
    Verdict { frame_ends: Vec::new(), message_ends: Vec::new(), ..verdict }
}

fn same_however_cut(rules: Rules, bytes: &[u8], pieces: &[usize]) -> Result<(), TestCaseError> {
    let expected = without_ends(parse(bytes, rules));
    prop_assert_eq!(&drive(bytes, rules, &[], || Stop::Never), &expected, "at once");
    prop_assert_eq!(&drive(bytes, rules, pieces, || Stop::Never), &expected, "in pieces");
    if bytes.len() < 2000 {
        prop_assert_eq!(&drive(bytes, rules, &[1], || Stop::Never), &expected, "byte by byte");
        for cut in 1..bytes.len().min(300) {
            prop_assert_eq!(&drive(bytes, rules, &[cut, usize::MAX], || Stop::Never), &expected, "cut at {}", cut);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_streams_pass_whole((rules, bytes) in stream(), pieces in pieces()) {
        let rules = Rules { max_message: None, ..rules };
        let verdict = parse(&bytes, rules);
        prop_assert!(matches!(verdict.violation, None | Some(Violation::BadClose)));
        prop_assert!(verdict.violation.is_some() || verdict.forward == bytes.len());
        same_however_cut(rules, &bytes, &pieces)?;
    }

    #[test]
    fn limited_streams((rules, bytes) in stream(), pieces in pieces()) {
        same_however_cut(rules, &bytes, &pieces)?;
    }

    #[test]
    fn broken_streams((rules, bytes) in broken_stream(), pieces in pieces()) {
        same_however_cut(rules, &bytes, &pieces)?;
    }

    #[test]
    fn noise_is_judged_alike((rules, bytes) in noise(), pieces in pieces()) {
        same_however_cut(rules, &bytes, &pieces)?;
    }

    #[test]
    fn stops_are_the_real_boundaries((rules, bytes) in stream(), pieces in pieces()) {
        let expected = parse(&bytes, rules);
        let frames = drive(&bytes, rules, &pieces, || Stop::AtFrame);
        prop_assert_eq!(frames, Verdict { message_ends: Vec::new(), ..parse(&bytes, rules) });
        let messages = drive(&bytes, rules, &pieces, || Stop::AtMessage);
        prop_assert_eq!(messages, Verdict { frame_ends: Vec::new(), ..expected });
    }

    #[test]
    fn stops_that_come_and_go((rules, bytes) in stream(), pieces in pieces(), stops in stops()) {
        let expected = parse(&bytes, rules);
        let mut stops = stops.into_iter().cycle();
        let seen = drive(&bytes, rules, &pieces, || stops.next().unwrap());
        prop_assert!(seen.frame_ends.iter().all(|end| expected.frame_ends.contains(end)));
        prop_assert!(seen.message_ends.iter().all(|end| expected.message_ends.contains(end)));
        prop_assert_eq!(without_ends(seen), without_ends(expected));
    }
}

/// Every first byte with every second byte, in each state: the whole of what two bytes can say.
#[test]
fn every_pair_of_first_bytes() {
    let tail = [0; 140];
    for from in [From::Client, From::Server] {
        for deflate in [false, true] {
            for prefix in [None, Some(Opcode::Text)] {
                let rules = Rules { from, deflate, max_message: Some(70) };
                let mut start = Vec::new();
                prefix.into_iter().for_each(|opcode| frame(&mut start, false, false, opcode, [7; 4], b"abc", from));
                for pair in 0..=u16::MAX {
                    let bytes = [&start[..], &pair.to_be_bytes(), &tail].concat();
                    let verdict = drive(&bytes, rules, &[], || Stop::Never);
                    assert_eq!(verdict, without_ends(parse(&bytes, rules)), "{from:?} {deflate} {prefix:?} {pair:04x}");
                }
            }
        }
    }
}

/// Lengths around every limit, in every form that can say them, for every opcode.
#[test]
fn lengths_around_the_limits() {
    let rules = Rules { from: From::Server, deflate: false, max_message: Some(65_536) };
    for length in (0..4u64).chain(123..130).chain(65_533..65_540).chain([1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX]) {
        for first in 0x80..=0x8f {
            let short = (length <= 127).then(|| vec![first, length as u8]);
            let medium = u16::try_from(length).ok().map(|length| [&[first, 126], &length.to_be_bytes()[..]].concat());
            let long = Some([&[first, 127], &length.to_be_bytes()[..]].concat());
            for header in [short, medium, long].into_iter().flatten() {
                let bytes = [header, vec![b'x'; 70_000]].concat();
                let verdict = drive(&bytes, rules, &[1, 1, 1, 60_000], || Stop::Never);
                assert_eq!(verdict, without_ends(parse(&bytes, rules)), "{length} {:02x?}", &bytes[..12]);
            }
        }
    }
}

/// A fragment is judged together with those before it, before a byte of it goes.
#[test]
fn a_fragment_too_many() {
    let rules = Rules { from: From::Server, deflate: false, max_message: Some(1 << 62) };
    let bytes = b"\x01\x01x\x00\x7f\x3f\xff\xff\xff\xff\xff\xff\xff";
    let verdict = drive(bytes, rules, &[1], || Stop::Never);
    assert_eq!((verdict.forward, verdict.violation), (13, None));
    let bytes = b"\x01\x02xy\x00\x7f\x3f\xff\xff\xff\xff\xff\xff\xff";
    let verdict = drive(bytes, rules, &[1], || Stop::Never);
    assert_eq!((verdict.forward, verdict.violation), (4, Some(Violation::TooBig)));
}
