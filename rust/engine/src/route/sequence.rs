//! Regexes that need no automaton.
//!
//! Most regexes in routes are texts with runs between them: `/v[0-9]+/items/(.*)`. Where no character of a run can also
//! be the one behind it, the longest run is the only one that can match, and a walk from left to right decides without
//! going back. That is several times quicker than the general engine, above all when there are many regexes and none of
//! them is in a near cache. Whatever is not surely such a sequence is left to the engine.

/// Such a regex, for a whole value.
#[derive(Debug)]
pub(super) struct Sequence(Box<[Piece]>);

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    Run { of: Class, may_be_empty: bool },
}

/// A set of bytes, one bit each.
#[derive(Clone, Copy, Debug)]
struct Class([u64; 4]);

impl Sequence {
    /// `pattern`, if it is a sequence. It must be a regex that compiles without Unicode.
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        let pattern = pattern.strip_prefix('^').unwrap_or(pattern).as_bytes();
        let mut pieces = Vec::new();
        let mut depth = 0_u32;
        let mut rest = pattern;
        while let [first, behind @ ..] = rest {
            rest = match first {
                b'$' if behind.is_empty() => behind,
                b'(' if behind.first() != Some(&b'?') => {
                    depth += 1;
                    behind
                }
                b')' if !matches!(behind.first(), Some(b'*' | b'+' | b'?' | b'{')) => {
                    depth = depth.checked_sub(1)?;
                    behind
                }
                _ => parse_atom(rest, &mut pieces)?,
            };
        }
        let is_sequence = depth == 0 && pieces.windows(2).all(|pair| can_follow(&pair[0], &pair[1]));
        is_sequence.then(|| Self(pieces.into()))
    }

    pub(super) fn is_match(&self, value: &[u8]) -> bool {
        let step = |rest: &[u8], piece: &Piece| match piece {
            Piece::Text(text) => rest.starts_with(text).then_some(text.len()),
            Piece::Run { of, may_be_empty } => {
                let length = rest.iter().take_while(|byte| of.has(**byte)).count();
                (length > 0 || *may_be_empty).then_some(length)
            }
        };
        let walk = self.0.iter().try_fold(value, |rest, piece| step(rest, piece).map(|taken| &rest[taken..]));
        walk.is_some_and(<[u8]>::is_empty)
    }
}

impl Class {
    const NONE: Self = Self([0; 4]);

    fn of(has: impl Fn(u8) -> bool) -> Self {
        (0..=u8::MAX).filter(|byte| has(*byte)).fold(Self::NONE, Self::with)
    }

    fn with(mut self, byte: u8) -> Self {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
        self
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & 1 << (byte & 63) != 0
    }
}

/// Reads one character or class with its repetition; returns what follows.
fn parse_atom<'p>(pattern: &'p [u8], pieces: &mut Vec<Piece>) -> Option<&'p [u8]> {
    let (atom, behind) = atom(pattern)?;
    match (behind, atom) {
        ([b'*' | b'+', b'?' | b'+' | b'*' | b'{', ..] | [b'?' | b'{', ..], _) => None,
        ([repeat @ (b'*' | b'+'), behind @ ..], atom) => {
            let of = match atom {
                Atom::Byte(byte) => Class::NONE.with(byte),
                Atom::Class(class) => class,
            };
            pieces.push(Piece::Run { of, may_be_empty: *repeat == b'*' });
            Some(behind)
        }
        (_, Atom::Byte(byte)) => {
            match pieces.last_mut() {
                Some(Piece::Text(text)) => text.push(byte),
                _ => pieces.push(Piece::Text(vec![byte])),
            }
            Some(behind)
        }
        (_, Atom::Class(_)) => None,
    }
}

enum Atom {
    Byte(u8),
    Class(Class),
}

fn atom(pattern: &[u8]) -> Option<(Atom, &[u8])> {
    match pattern {
        [b'.', behind @ ..] => Some((Atom::Class(Class::of(|byte| byte != b'\n')), behind)),
        [b'\\', b'd', behind @ ..] => Some((Atom::Class(Class::of(|byte| byte.is_ascii_digit())), behind)),
        [b'\\', b'w', behind @ ..] => Some((Atom::Class(Class::of(is_word)), behind)),
        [b'\\', byte @ (b'.' | b'-' | b'/' | b'+' | b'$' | b'*' | b'(' | b')'), behind @ ..] => {
            Some((Atom::Byte(*byte), behind))
        }
        [b'[', b'^', behind @ ..] => {
            let (class, behind) = class(behind)?;
            Some((Atom::Class(Class::of(|byte| !class.has(byte))), behind))
        }
        [b'[', behind @ ..] => class(behind).map(|(class, behind)| (Atom::Class(class), behind)),
        [byte, behind @ ..] if is_word(*byte) || b"/-~%,;:=@&!".contains(byte) => Some((Atom::Byte(*byte), behind)),
        _ => None,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Reads a class behind its `[` or `[^`: characters and ranges of letters and digits, nothing that needs an escape.
fn class(pattern: &[u8]) -> Option<(Class, &[u8])> {
    let mut class = Class::NONE;
    let mut rest = pattern;
    loop {
        rest = match rest {
            [b']', behind @ ..] if rest.len() < pattern.len() => return Some((class, behind)),
            [from, b'-', to, behind @ ..] if is_word(*from) && is_word(*to) && from <= to => {
                class = (*from..=*to).fold(class, Class::with);
                behind
            }
            [byte, behind @ ..] if is_word(*byte) || b"/.%".contains(byte) => {
                class = class.with(*byte);
                behind
            }
            _ => return None,
        };
    }
}

/// Whether the longest run is the only one that `next` can follow. Texts never stand beside each other.
fn can_follow(piece: &Piece, next: &Piece) -> bool {
    match (piece, next) {
        (Piece::Run { of, .. }, Piece::Text(text)) => text.first().is_some_and(|byte| !of.has(*byte)),
        (Piece::Run { .. }, Piece::Run { .. }) => false,
        (Piece::Text(_), _) => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_what_it_can_do() {
        for pattern in [
            "/a",
            "^/a$",
            "/a/.*",
            "/a/(.*)",
            "/v[0-9]+/x\\d*",
            "(/([^/]+)/b)",
            "/[a-z_0-9]+\\.js",
            "/a*b",
            "",
            "/a-[^/.]*",
        ] {
            assert!(Sequence::parse(pattern).is_some(), "{pattern}");
        }
        for pattern in [
            "/a|b",
            "/.*b",
            "/[0-9]+1",
            "/a?",
            "/a{2}",
            "/a+?",
            "/(a)+",
            "/(?i)a",
            "/[[:alpha:]]+",
            "/[a\\]]+",
            "/a[0-9]",
            "/\\d+\\w+",
            "/\\s+",
            "/é",
            "/a$b",
            "/a^",
            "/[^]]+",
            "/\\bx",
            "/[a&&b]+",
            "/(?P<n>a)",
            "/a**",
        ] {
            assert!(Sequence::parse(pattern).is_none(), "{pattern}");
        }
    }

    fn fragment() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "a", "b", "/", "1", ".", "*", "+", "?", "(", ")", "|", "$", "^", "\\.", "\\d+", "\\w*", ".*", "[ab]+",
            "[^/]*", "[a-b1]+", "[^a-]+", "(.*)", "([^/]+)", "{2}", "-", "[", "]", "\\", "[]a]*",
        ])
    }

    proptest! {
        #[test]
        fn agrees_with_the_engine(
            fragments in prop::collection::vec(fragment(), 0..7),
            values in prop::collection::vec("[ab1/.\\-\n\\]]{0,6}", 24)
        ) {
            let pattern = fragments.concat();
            let built = regex::bytes::RegexBuilder::new(&pattern).unicode(false).build();
            if let (Ok(_), Some(sequence)) = (built, Sequence::parse(&pattern)) {
                let whole = regex::bytes::RegexBuilder::new(&format!("^(?:{pattern})$")).unicode(false).build().unwrap();
                for value in values {
                    prop_assert_eq!(sequence.is_match(value.as_bytes()), whole.is_match(value.as_bytes()), "{}", pattern);
                }
            }
        }
    }
}
