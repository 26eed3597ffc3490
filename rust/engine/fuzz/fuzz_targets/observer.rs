//! Any bytes, under any rules, cut anywhere, with stops that come and go: the observer agrees with the naive parser.
//!
//! The input's first 8 bytes choose: rules, the size of pieces, when to stop, and `max_message`. The rest is the
//! stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_engine::ws::{From, Rules, Stop};

#[path = "../../tests/naive_frames/drive.rs"]
mod drive;
#[path = "../../tests/naive_frames/mod.rs"]
mod naive;

const STOPS: [Stop; 3] = [Stop::Never, Stop::AtFrame, Stop::AtMessage];

fuzz_target!(|input: &[u8]| {
    let Some(([flags, first, second, stops, limit @ ..], stream)) = input.split_first_chunk::<8>() else { return };
    let rules = Rules {
        from: if flags & 1 == 0 { From::Client } else { From::Server },
        deflate: flags & 2 != 0,
        max_message: (flags & 4 != 0).then(|| u64::from(u32::from_be_bytes(*limit))),
    };
    let pieces = [usize::from(*first), usize::from(*second)];
    let mut calls = 0;
    let stop = || {
        calls += 1;
        STOPS[(usize::from(*stops) >> (calls % 4 * 2)) % STOPS.len()]
    };
    let seen = drive::drive(stream, rules, &pieces, stop);
    let expected = naive::parse(stream, rules);
    assert!(seen.frame_ends.iter().all(|end| expected.frame_ends.contains(end)));
    assert!(seen.message_ends.iter().all(|end| expected.message_ends.contains(end)));
    assert_eq!((seen.forward, seen.violation), (expected.forward, expected.violation));
    assert_eq!((seen.counts, seen.controls), (expected.counts, expected.controls));
});
