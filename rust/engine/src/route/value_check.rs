//! Tests of a header's or a query parameter's values.

use regex::bytes::Regex;

use super::regexes;
use crate::error::Fault;
use crate::snapshot::ValueTest;

/// Holds when some value is as `kind` says, or, if not `wanted`, when none is. `not` of a test swaps `wanted`, so that
/// whatever the nesting one look at the values is enough.
#[derive(Debug)]
pub(super) struct ValueCheck {
    wanted: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Present,
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Regex(Regex),
}

impl ValueCheck {
    /// # Errors
    /// A regex that is none; the pointer says where below `pointer`.
    pub(super) fn compile(test: &ValueTest, pointer: &str) -> Result<Self, Fault> {
        Ok(match test {
            ValueTest::Not(inner) => {
                let inner = Self::compile(inner, &format!("{pointer}/not"))?;
                Self { wanted: !inner.wanted, ..inner }
            }
            ValueTest::Present(wanted) => Self { wanted: *wanted, kind: Kind::Present },
            ValueTest::Exact(text) => Self { wanted: true, kind: Kind::Exact(text.clone().into()) },
            ValueTest::Prefix(text) => Self { wanted: true, kind: Kind::Prefix(text.clone().into()) },
            ValueTest::Regex(pattern) => {
                let fault = |message| Fault::new(format!("{pointer}/regex"), message);
                Self { wanted: true, kind: Kind::Regex(regexes::compile_whole(pattern).map_err(fault)?) }
            }
        })
    }

    pub(super) fn holds<V: AsRef<[u8]>>(&self, mut values: impl Iterator<Item = V>) -> bool {
        values.any(|value| self.kind.accepts(value.as_ref())) == self.wanted
    }

    /// Whether no single value, present or not, passes both. Not every such pair is seen; none is seen wrongly.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Exact(one), Kind::Exact(two)) if one != two => self.wanted && other.wanted,
            (Kind::Present, _) if !self.wanted => other.wanted,
            (_, Kind::Present) if !other.wanted => self.wanted,
            (one, two) => self.wanted != other.wanted && one.is_same(two),
        }
    }
}

impl Kind {
    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(text) => value == text,
            Self::Prefix(text) => value.starts_with(text),
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) => true,
            (Self::Exact(one), Self::Exact(two)) | (Self::Prefix(one), Self::Prefix(two)) => one == two,
            (Self::Regex(one), Self::Regex(two)) => one.as_str() == two.as_str(),
            _ => false,
        }
    }
}
