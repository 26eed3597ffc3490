//! Paths of requests: which are refused, and in which form the rest are compared.
//!
//! RFC 3986 §6.2.2 lets two spellings of one path differ in the case of their escapes and in escapes of unreserved
//! characters. Routing compares the *normal form*, in which those are decoded and the other escapes are upper case; the
//! raw bytes go upstream. An encoded slash is no separator: `%2F` stays `%2F`.
//!
//! Gateway and upstream must not read one path in two ways, or a route that guards `/admin` guards nothing. So what
//! some servers resolve and others do not is refused: dot segments, also spelt with escapes, behind an encoded slash
//! or with parameters (`/..;/` means `/../` to several Java servers), NUL, and backslashes.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2};

use crate::error::Refusal;

/// A path that may be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanPath<'p> {
    raw: &'p [u8],
    normal: Cow<'p, [u8]>,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// A `%` without two hexadecimal digits.
    Escape,
    DotSegment,
    Nul,
    Backslash,
}

impl BadPath {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Escape => "a '%' in the path is not followed by two hexadecimal digits",
            Self::DotSegment => "the path has a '.' or '..' segment",
            Self::Nul => "the path has a NUL",
            Self::Backslash => "the path has a backslash",
        }
    }

    /// The answer to a request with such a path.
    pub const fn refusal(self) -> Refusal {
        Refusal::new(400, "bad_path", self.text())
    }
}

/// Checks the path of a request; the usual path costs no allocation.
///
/// # Errors
/// [`BadPath`], to be answered with its refusal.
pub fn clean(path: &[u8]) -> Result<CleanPath<'_>, BadPath> {
    let normal = normalise(path)?;
    if has_dot_segment(&normal) {
        return Err(BadPath::DotSegment);
    }
    Ok(CleanPath { raw: path, normal })
}

impl<'p> CleanPath<'p> {
    /// As received.
    pub fn raw(&self) -> &'p [u8] {
        self.raw
    }

    /// As compared.
    pub fn normal(&self) -> &[u8] {
        &self.normal
    }

    /// The `number`-th segment of the normal form, counted from 1.
    pub fn segment(&self, number: usize) -> Option<&[u8]> {
        self.normal.split(|byte| *byte == b'/').nth(number)
    }

    /// The raw bytes behind the first `taken` bytes of the normal form, which must not end inside an escape.
    pub(super) fn raw_behind(&self, taken: usize) -> &'p [u8] {
        if let Cow::Borrowed(normal) = self.normal {
            return normal.get(taken..).unwrap_or_default();
        }
        let mut raw = self.raw;
        let mut seen = 0;
        while let ([first, rest @ ..], true) = (raw, seen < taken) {
            let escape = if *first == b'%' { escaped(rest) } else { None };
            (seen, raw) = match escape {
                Some(byte) => (seen + normal_length(byte), &raw[3..]),
                None => (seen + 1, rest),
            };
        }
        raw
    }
}

/// The normal form of `path`, whose dot segments are not looked at.
pub(super) fn normalise(path: &[u8]) -> Result<Cow<'_, [u8]>, BadPath> {
    match memchr2(0, b'\\', path).map(|at| path[at]) {
        Some(0) => return Err(BadPath::Nul),
        Some(_) => return Err(BadPath::Backslash),
        None => {}
    }
    Ok(if examine_escapes(path)? { Cow::Owned(decode_unreserved(path)) } else { Cow::Borrowed(path) })
}

/// Whether a segment is `.` or `..`; `normal` is in normal form.
pub(super) fn has_dot_segment(normal: &[u8]) -> bool {
    memchr_iter(b'.', normal).any(|dot| {
        let rest = &normal[dot + 1..];
        begins_segment(&normal[..dot]) && (ends_segment(rest) || rest.strip_prefix(b".").is_some_and(ends_segment))
    })
}

fn begins_segment(before: &[u8]) -> bool {
    before.is_empty() || before.ends_with(b"/") || before.ends_with(b"%2F")
}

fn ends_segment(rest: &[u8]) -> bool {
    const ENDS: [&[u8]; 4] = [b"/", b"%2F", b";", b"%3B"];
    rest.is_empty() || ENDS.iter().any(|end| rest.starts_with(end))
}

/// Whether an escape is not in normal form.
fn examine_escapes(path: &[u8]) -> Result<bool, BadPath> {
    let mut is_changed = false;
    let mut rest = path;
    while let Some(at) = memchr(b'%', rest) {
        let digits = &rest[at + 1..];
        match escaped(digits).ok_or(BadPath::Escape)? {
            0 => return Err(BadPath::Nul),
            b'\\' => return Err(BadPath::Backslash),
            byte => is_changed |= is_unreserved(byte) || digits[..2].iter().any(u8::is_ascii_lowercase),
        }
        rest = &digits[2..];
    }
    Ok(is_changed)
}

fn decode_unreserved(path: &[u8]) -> Vec<u8> {
    let mut normal = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = memchr(b'%', rest) {
        normal.extend_from_slice(&rest[..at]);
        let digits = &rest[at + 1..];
        match escaped(digits) {
            Some(byte) if is_unreserved(byte) => normal.push(byte),
            _ => normal.extend(rest[at..at + 3].iter().map(u8::to_ascii_uppercase)),
        }
        rest = &digits[2..];
    }
    normal.extend_from_slice(rest);
    normal
}

fn normal_length(byte: u8) -> usize {
    if is_unreserved(byte) { 1 } else { 3 }
}

/// The byte that the two digits at the beginning of `digits` stand for.
pub(super) fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    Some((digit(0)? * 16 + digit(1)?) as u8)
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
