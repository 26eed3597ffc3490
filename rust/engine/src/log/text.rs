//! Two ways to write named values on one line: JSON (RFC 8259), and `name=value` for people.
//!
//! Both take any bytes a client may have sent. What is not UTF-8 becomes U+FFFD, and what a terminal or a line reader
//! would act on (controls of both sets, line and paragraph separators) is escaped, so that no client can write a line.

use std::io::Write as _;

/// Bytes of one value that are logged; the rest is cut, because a head may be large and the queue holds many lines.
pub(super) const VALUE_LIMIT: usize = 2048;

/// A line under way. Names are ours: plain ASCII.
pub(super) trait Line {
    /// The moment and the kind, which stand first.
    fn begin(out: &mut Vec<u8>, time: u64, kind: &str);
    fn text(out: &mut Vec<u8>, name: &str, value: &[u8]);
    fn number(out: &mut Vec<u8>, name: &str, value: u64);
    /// The end of the line, with its newline.
    fn end(out: &mut Vec<u8>);
}

/// `{"time":"2026-01-01T00:00:00.000Z","event":"open",…}`
pub(super) struct Json;

impl Line for Json {
    fn begin(out: &mut Vec<u8>, time: u64, kind: &str) {
        out.extend_from_slice(b"{\"time\":\"");
        timestamp(out, time);
        out.extend_from_slice(b"\",\"event\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
    }

    fn text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
        Self::name(out, name);
        quoted(out, value);
    }

    fn number(out: &mut Vec<u8>, name: &str, value: u64) {
        Self::name(out, name);
        decimal(out, value);
    }

    fn end(out: &mut Vec<u8>) {
        out.extend_from_slice(b"}\n");
    }
}

impl Json {
    fn name(out: &mut Vec<u8>, name: &str) {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    }
}

/// `2026-01-01T00:00:00.000Z open connection=…`; values with anything unusual in them are quoted as in JSON.
pub(super) struct Plain;

impl Line for Plain {
    fn begin(out: &mut Vec<u8>, time: u64, kind: &str) {
        timestamp(out, time);
        out.push(b' ');
        out.extend_from_slice(kind.as_bytes());
    }

    fn text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
        Self::name(out, name);
        let bare = !value.is_empty() && value.len() <= VALUE_LIMIT && value.iter().all(is_bare);
        if bare { out.extend_from_slice(value) } else { quoted(out, value) }
    }

    fn number(out: &mut Vec<u8>, name: &str, value: u64) {
        Self::name(out, name);
        decimal(out, value);
    }

    fn end(out: &mut Vec<u8>) {
        out.push(b'\n');
    }
}

impl Plain {
    fn name(out: &mut Vec<u8>, name: &str) {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
    }
}

/// A text, if there is one.
pub(super) fn text<L: Line>(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        L::text(out, name, value);
    }
}

/// A name of ours, if there is one.
pub(super) fn name<L: Line>(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    text::<L>(out, name, value.map(str::as_bytes));
}

/// A Close code, if there is one.
pub(super) fn code<L: Line>(out: &mut Vec<u8>, name: &str, value: Option<u16>) {
    if let Some(value) = value {
        L::number(out, name, value.into());
    }
}

fn is_bare(byte: &u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=')
}

fn decimal(out: &mut Vec<u8>, value: u64) {
    // Writing to memory does not fail.
    let _ = write!(out, "{value}");
}

fn quoted(out: &mut Vec<u8>, value: &[u8]) {
    let kept = cut(value);
    out.push(b'"');
    for chunk in kept.utf8_chunks() {
        escaped(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if kept.len() < value.len() {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

/// The beginning of a value, not cut within a character.
fn cut(value: &[u8]) -> &[u8] {
    let is_inside = |at: usize| value.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (VALUE_LIMIT - 3..=VALUE_LIMIT).rev().find(|at| !is_inside(*at));
    value.get(..end.unwrap_or(VALUE_LIMIT)).unwrap_or(value)
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    let mut plain = 0;
    for (at, character) in text.char_indices().filter(|(_, character)| needs_escape(*character)) {
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        escape(out, character);
        plain = at + character.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
}

fn needs_escape(character: char) -> bool {
    matches!(character, '"' | '\\' | '\u{2028}' | '\u{2029}') || character.is_control()
}

fn escape(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        // All that remain are in the basic plane.
        _ => drop(write!(out, "\\u{:04x}", u32::from(character))),
    }
}

/// RFC 3339 in UTC with milliseconds, from milliseconds since 1970.
fn timestamp(out: &mut Vec<u8>, time: u64) {
    let (days, clock) = (time / 86_400_000, time % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute) = (clock / 3_600_000, clock / 60_000 % 60);
    let (second, millisecond) = (clock / 1000 % 60, clock % 1000);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z");
}

/// The Gregorian date of a day since 1970. Years begin in March and come in eras of 400, all of them 146,097 days long.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn stamp(time: u64) -> String {
        written(|out| timestamp(out, time))
    }

    #[test]
    fn timestamps() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(stamp(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(stamp(1_709_251_199_001), "2024-02-29T23:59:59.001Z");
        assert_eq!(stamp(4_107_542_400_000), "2100-03-01T00:00:00.000Z", "2100 has no leap day");
        assert!(stamp(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn strings_are_escaped() {
        let json = |value: &[u8]| written(|out| quoted(out, value));
        assert_eq!(json(b"a\"b\\c\n\x00\x7f"), r#""a\"b\\c\u000a\u0000\u007f""#);
        assert_eq!(json("é€\u{9b}\u{2028}".as_bytes()), r#""é€\u009b\u2028""#);
        assert_eq!(json(b"\xff\xc3x"), "\"\u{fffd}\u{fffd}x\"");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let fits = "é".repeat(VALUE_LIMIT / 2);
        assert_eq!(written(|out| quoted(out, fits.as_bytes())), format!("\"{fits}\""));
        let long = format!("x{fits}");
        let expected = format!("\"{}…\"", &long[..VALUE_LIMIT - 1]);
        assert_eq!(written(|out| quoted(out, long.as_bytes())), expected);
    }

    #[test]
    fn plain_values_are_bare_where_that_is_clear() {
        let plain = |value: &[u8]| written(|out| Plain::text(out, "n", value));
        assert_eq!(plain(b"/a?b:c"), " n=/a?b:c");
        assert_eq!(plain(b""), " n=\"\"");
        assert_eq!(plain(b"a b"), " n=\"a b\"");
        assert_eq!(plain(b"a=b"), " n=\"a=b\"");
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_json_string(value: Vec<u8>) {
            let text = written(|out| quoted(out, &value));
            let parsed: String = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(parsed, String::from_utf8_lossy(&value));
            prop_assert!(!text.chars().any(char::is_control));
        }

        #[test]
        fn days_follow_each_other(day in 0..3_000_000u64) {
            let ((year, month, one), next) = (date(day), date(day + 1));
            let follows = [(year, month, one + 1), (year, month + 1, 1), (year + 1, 1, 1)];
            prop_assert!(follows.contains(&next) && (1..=12).contains(&month) && (1..=31).contains(&one));
        }
    }
}
