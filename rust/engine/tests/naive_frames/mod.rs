//! RFC 6455 §5 read the slow way: the whole stream at hand, one index, no state that outlives a call. The observer and
//! its fuzz target are compared with this; it shares no code with the observer's frame parser.

use tidegate_engine::ws::{Counts, From, Rules, Violation};

/// What a direction's whole stream amounts to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Bytes that may be forwarded, control frames included.
    pub forward: usize,
    pub violation: Option<Violation>,
    pub counts: Counts,
    /// Start, opcode bits, unmasked payload.
    pub controls: Vec<(usize, u8, Vec<u8>)>,
    /// Where data frames end.
    pub frame_ends: Vec<usize>,
    /// Where messages end.
    pub message_ends: Vec<usize>,
}

struct Frame {
    fin: bool,
    rsv: u8,
    opcode: u8,
    key: Option<[u8; 4]>,
    length: u128,
    start: usize,
    payload: usize,
}

/// Reads `stream` until it ends, breaks a rule, or a Close has come.
pub fn parse(stream: &[u8], rules: Rules) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut at, mut message): (usize, Option<(u8, u128)>) = (0, None);
    while let Some(frame) = read_frame(stream, at) {
        let length = judge(&frame, message, rules);
        let end = frame.payload as u128 + frame.length;
        let whole = end <= stream.len() as u128;
        if let Err(violation) = length {
            verdict.violation = Some(violation);
            return verdict;
        }
        if frame.opcode >= 8 {
            if !whole {
                return verdict;
            }
            at = end as usize;
            if let Some(violation) = control(&frame, stream, at, &mut verdict) {
                verdict.violation = Some(violation);
                return verdict;
            }
            verdict.forward = at;
            if frame.opcode == 8 {
                return verdict;
            }
            continue;
        }
        verdict.counts.frames += 1;
        at = if whole { end as usize } else { stream.len() };
        verdict.forward = at;
        verdict.counts.bytes += (at - frame.payload) as u64;
        if !whole {
            return verdict;
        }
        verdict.frame_ends.push(at);
        let (kind, sum) = message.unwrap_or((frame.opcode, 0));
        message = if frame.fin { None } else { Some((kind, sum + frame.length)) };
        if frame.fin {
            verdict.message_ends.push(at);
            verdict.counts.messages_text += u64::from(kind == 1);
            verdict.counts.messages_binary += u64::from(kind == 2);
        }
    }
    verdict
}

fn read_frame(stream: &[u8], start: usize) -> Option<Frame> {
    let bytes = |from: usize, count: usize| stream.get(start + from..start + from + count);
    let (first, second) = (bytes(0, 1)?[0], bytes(1, 1)?[0]);
    let extra = match second % 128 {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let length = match extra {
        0 => u128::from(second % 128),
        _ => bytes(2, extra)?.iter().fold(0, |sum, byte| sum * 256 + u128::from(*byte)),
    };
    let masked = second >= 128;
    let key = if masked { Some(bytes(2 + extra, 4)?.try_into().unwrap()) } else { None };
    let payload = start + 2 + extra + if masked { 4 } else { 0 };
    // A length in too long a form is marked by one that no frame can have.
    let shortest = [(126, 126..65536), (127, 65536..1 << 63)];
    let wrong = shortest.iter().any(|(code, range)| second % 128 == *code && !range.contains(&length));
    let length = if wrong { u128::MAX >> 1 } else { length };
    Some(Frame { fin: first >= 128, rsv: (first >> 4) % 8, opcode: first % 16, key, length, start, payload })
}

fn judge(frame: &Frame, message: Option<(u8, u128)>, rules: Rules) -> Result<(), Violation> {
    let is_client = rules.from == From::Client;
    let checks = [
        (frame.rsv & 3 != 0, Violation::ReservedBits),
        (![0, 1, 2, 8, 9, 10].contains(&frame.opcode), Violation::ReservedOpcode),
        (frame.length == u128::MAX >> 1, Violation::Length),
        (is_client && frame.key.is_none(), Violation::Unmasked),
        (!is_client && frame.key.is_some(), Violation::Masked),
        (frame.rsv & 4 != 0 && !(rules.deflate && [1, 2].contains(&frame.opcode)), Violation::ReservedBits),
        (frame.opcode >= 8 && !frame.fin, Violation::FragmentedControl),
        (frame.opcode >= 8 && frame.length > 125, Violation::LongControl),
        (frame.opcode == 0 && message.is_none(), Violation::Continuation),
        ([1, 2].contains(&frame.opcode) && message.is_some(), Violation::Interleaved),
        (frame.opcode < 8 && too_big(frame, message, rules.max_message), Violation::TooBig),
    ];
    checks.into_iter().find(|(broken, _)| *broken).map_or(Ok(()), |(_, violation)| Err(violation))
}

fn too_big(frame: &Frame, message: Option<(u8, u128)>, limit: Option<u64>) -> bool {
    limit.is_some_and(|limit| message.map_or(0, |(_, sum)| sum) + frame.length > u128::from(limit))
}

fn control(frame: &Frame, stream: &[u8], end: usize, verdict: &mut Verdict) -> Option<Violation> {
    let key = frame.key.unwrap_or([0; 4]);
    let payload: Vec<u8> = stream[frame.payload..end].iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
    if frame.opcode == 8 && bad_close(&payload) {
        return Some(Violation::BadClose);
    }
    verdict.counts.frames += 1;
    verdict.counts.closes += u64::from(frame.opcode == 8);
    verdict.counts.pings += u64::from(frame.opcode == 9);
    verdict.counts.pongs += u64::from(frame.opcode == 10);
    verdict.controls.push((frame.start, frame.opcode, payload));
    None
}

fn bad_close(payload: &[u8]) -> bool {
    match payload.len() {
        0 => false,
        1 => true,
        _ => {
            let code = u32::from(payload[0]) * 256 + u32::from(payload[1]);
            code < 1000 || code == 1004 || code == 1005 || code == 1006 || code == 1015 || code > 4999
        }
    }
}
