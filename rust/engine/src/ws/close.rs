//! Close codes (RFC 6455 §7.4 and the IANA registry) and the payload of a Close frame.

/// The purpose of the connection is fulfilled.
pub const NORMAL: u16 = 1000;
/// The sender goes away: a page is left, a server shuts down.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// The peer broke a rule of ours that has no code of its own.
pub const POLICY: u16 = 1008;
/// A message is larger than allowed.
pub const TOO_BIG: u16 = 1009;
/// A peer sends faster than it may.
pub const TOO_FAST: u16 = 4429;
/// We failed, or lost the other side.
pub const INTERNAL: u16 = 1011;
/// The server restarts: come back, perhaps elsewhere.
pub const RESTART: u16 = 1012;
/// The server is overloaded: come back later.
pub const TRY_LATER: u16 = 1013;

/// Bytes of a Close frame's reason: a control payload without the code.
pub const LONGEST_REASON: usize = 123;

/// Whether a Close frame may carry `code`. 1004 to 1006 and 1015 are names for what an endpoint saw, never for what it
/// says; unassigned codes up to 2999 pass, since assignments to come must not need a new gateway.
pub fn is_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 1016..=4999)
}

/// Whether an endpoint takes a Close with this payload for what it says. Ours pass on more than that: unassigned codes,
/// and reasons that some server cut in the middle of a character; but nobody is to be answered with such a Close.
pub fn is_sound(payload: &[u8]) -> bool {
    let is_assigned = |code| is_valid(code) && !(1016..3000).contains(&code);
    code(payload).is_ok_and(|code| code.is_none_or(is_assigned))
        && std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_ok()
}

/// A Close payload that no endpoint may send: one byte long, or with a code that [`is_valid`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadClose;

/// The code in the payload of a Close frame; `None` when it is empty.
pub fn code(payload: &[u8]) -> Result<Option<u16>, BadClose> {
    match payload {
        [] => Ok(None),
        [high, low, ..] => {
            Some(u16::from_be_bytes([*high, *low])).filter(|code| is_valid(*code)).map(Some).ok_or(BadClose)
        }
        [_] => Err(BadClose),
    }
}

/// `reason`, cut on a character's boundary to what a Close frame holds.
pub fn cut(reason: &str) -> &str {
    let end = (0..=reason.len().min(LONGEST_REASON)).rev().find(|end| reason.is_char_boundary(*end));
    &reason[..end.unwrap_or(0)]
}

/// How metrics call a code: few enough values for a label, whatever peers send.
pub fn label(code: Option<u16>) -> &'static str {
    const ASSIGNED: [&str; 15] = [
        "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012", "1013",
        "1014",
    ];
    match code {
        None => "none",
        Some(code @ 1000..=1014) => ASSIGNED[usize::from(code - 1000)],
        Some(3000..=3999) => "3xxx",
        Some(4000..=4999) => "4xxx",
        Some(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_judged() {
        let refused: Vec<u16> = (0..=u16::MAX).filter(|code| !is_valid(*code)).collect();
        let expected: Vec<u16> = (0..1000).chain([1004, 1005, 1006, 1015]).chain(5000..=u16::MAX).collect();
        assert_eq!(refused, expected);
    }

    #[test]
    fn payloads() {
        assert_eq!(code(b""), Ok(None));
        assert_eq!(code(b"\x03"), Err(BadClose));
        assert_eq!(code(b"\x03\xe8"), Ok(Some(1000)));
        assert_eq!(code(b"\x0f\xa1bye"), Ok(Some(4001)));
        assert_eq!(code(b"\x03\xed"), Err(BadClose));
    }

    #[test]
    fn sound_ones_have_assigned_codes_and_whole_characters() {
        let sound: [&[u8]; 4] = [b"", b"\x03\xe8", b"\x03\xe8\xc3\xa9", b"\x0f\xa1bye"];
        assert!(sound.iter().all(|payload| is_sound(payload)));
        let unsound: [&[u8]; 5] = [b"\x03", b"\x03\xed", b"\x03\xf8", b"\x0b\xb7", b"\x03\xe8\xc3"];
        assert!(unsound.iter().all(|payload| !is_sound(payload)));
    }

    #[test]
    fn labels_are_few() {
        assert_eq!(label(None), "none");
        assert_eq!(label(Some(1000)), "1000");
        assert_eq!(label(Some(1014)), "1014");
        assert_eq!(label(Some(1015)), "other");
        assert_eq!(label(Some(2999)), "other");
        assert_eq!(label(Some(3000)), "3xxx");
        assert_eq!(label(Some(4999)), "4xxx");
        let mut all: Vec<_> = (0..=u16::MAX).map(|code| label(Some(code))).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 18);
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(200)).len(), 123);
        let cut = cut(&"é".repeat(100)).to_owned();
        assert_eq!((cut.len(), cut.chars().all(|c| c == 'é')), (122, true));
    }
}
