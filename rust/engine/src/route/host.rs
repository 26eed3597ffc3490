//! Hosts: exact names and wildcards of one map each, compared without case, port and trailing dot.
//!
//! A wildcard is looked up by cutting the request's host to each length that occurs among the wildcards, longest first:
//! as many lookups as there are lengths in the configuration, however many dots a client sends.

use std::cmp::Reverse;

use super::index::ByteIndex;
use crate::snapshot::HostMatch;

/// The longest host that is compared with names; DNS allows 253 characters. A longer one is under no name.
const LONGEST: usize = 255;

/// `host` without port and trailing dot.
pub fn bare_host(host: &[u8]) -> &[u8] {
    let name = without_port(host);
    name.strip_suffix(b".").unwrap_or(name)
}

fn without_port(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|byte| !byte.is_ascii_digit()) {
        // `[::1]:80` ends at the bracket, and the digits of `[::1]` are behind none of its colons.
        Some(colon) if host[colon] == b':' => &host[..colon],
        _ => host,
    }
}

/// A request's host, ready to be compared. It lives on the stack: lookups allocate nothing.
pub(super) struct HostName {
    text: [u8; LONGEST],
    length: usize,
}

impl HostName {
    pub(super) fn new(host: &[u8]) -> Self {
        let bare = bare_host(host);
        let mut name = Self { text: [0; LONGEST], length: 0 };
        if let Some(text) = name.text.get_mut(..bare.len()) {
            text.copy_from_slice(bare);
            text.make_ascii_lowercase();
            name.length = bare.len();
        }
        name
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

/// A `T` for each host that the configuration names.
#[derive(Debug)]
pub(super) struct Hosts<T> {
    values: Box<[T]>,
    /// Beside `values`; exact ones in no order, then suffixes and prefixes by length, then any.
    names: Box<[HostMatch]>,
    exact: ByteIndex,
    suffixes: Wildcards,
    prefixes: Wildcards,
    any: Option<u32>,
}

#[derive(Debug)]
struct Wildcards {
    /// Of the fixed parts, longest first.
    lengths: Box<[usize]>,
    by_text: ByteIndex,
}

impl<T> Hosts<T> {
    /// `hosts` are different.
    pub(super) fn new(mut hosts: Vec<(HostMatch, T)>) -> Self {
        hosts.sort_by_cached_key(|(host, _)| sorting(host));
        let (names, values): (Vec<_>, Vec<_>) = hosts.into_iter().unzip();
        Self {
            exact: ByteIndex::new(&numbered(&names, 0)),
            suffixes: Wildcards::new(&numbered(&names, 1)),
            prefixes: Wildcards::new(&numbered(&names, 2)),
            any: numbered(&names, 3).first().map(|(_, number)| *number),
            names: names.into(),
            values: values.into(),
        }
    }

    /// Everything that stands under `host`, the most specific first.
    pub(super) fn matching<'a>(&'a self, host: &'a [u8]) -> impl Iterator<Item = &'a T> {
        let suffixes = self.suffixes.find(host, |length| &host[host.len() - length..]);
        let prefixes = self.prefixes.find(host, |length| &host[..length]);
        let found = self.exact.get(host).into_iter().chain(suffixes).chain(prefixes).chain(self.any);
        found.map(|number| &self.values[number as usize])
    }

    /// All hosts: exact ones in no order, then suffixes and prefixes by length, then any.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&HostMatch, &T)> {
        self.names.iter().zip(&self.values)
    }
}

impl Wildcards {
    fn new(texts: &[(String, u32)]) -> Self {
        let mut lengths: Vec<usize> = texts.iter().map(|(text, _)| text.len()).collect();
        lengths.sort_by_key(|length| Reverse(*length));
        lengths.dedup();
        Self { lengths: lengths.into(), by_text: ByteIndex::new(texts) }
    }

    /// What stands under the parts that `cut` makes of `host`; the `*` stands for one character at least.
    fn find<'a>(&'a self, host: &[u8], cut: impl Fn(usize) -> &'a [u8]) -> impl Iterator<Item = u32> {
        let shorter = self.lengths.iter().filter(move |length| **length < host.len());
        shorter.filter_map(move |length| self.by_text.get(cut(*length)))
    }
}

/// The texts of one kind of hosts, with their place.
fn numbered(names: &[HostMatch], kind: u8) -> Vec<(String, u32)> {
    let numbered = names.iter().enumerate().map(|(number, name)| (sorting(name), number as u32));
    numbered.filter(|((of, ..), _)| *of == kind).map(|((_, _, text), number)| (text, number)).collect()
}

/// Kind, length and text, for the order of a listing.
fn sorting(host: &HostMatch) -> (u8, Reverse<usize>, String) {
    match host {
        HostMatch::Exact(name) => (0, Reverse(name.len()), name.clone()),
        HostMatch::Suffix(text) => (1, Reverse(text.len()), text.clone()),
        HostMatch::Prefix(text) => (2, Reverse(text.len()), text.clone()),
        HostMatch::Any => (3, Reverse(0), String::new()),
    }
}

/// `host` as it is compared.
pub(super) fn lower_case(host: &HostMatch) -> HostMatch {
    match host {
        HostMatch::Exact(name) => HostMatch::Exact(name.to_ascii_lowercase()),
        HostMatch::Suffix(text) => HostMatch::Suffix(text.to_ascii_lowercase()),
        HostMatch::Prefix(text) => HostMatch::Prefix(text.to_ascii_lowercase()),
        HostMatch::Any => HostMatch::Any,
    }
}

/// What is wrong with a host of the snapshot, if anything.
pub(super) fn fault(host: &HostMatch) -> Option<String> {
    let (name, is_whole) = match host {
        HostMatch::Any => return None,
        HostMatch::Exact(name) => (name, !name.is_empty()),
        HostMatch::Suffix(fixed) => (fixed, fixed.len() > 1 && fixed.starts_with('.')),
        HostMatch::Prefix(fixed) => (fixed, fixed.len() > 1 && fixed.ends_with('.')),
    };
    let fits = is_whole && name.len() <= LONGEST && name.is_ascii();
    (!fits).then(|| format!("`{name}` is no host name: labels with dots between them, at most {LONGEST} characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_port_and_dot() {
        for (host, bare) in [
            ("a", "a"),
            ("a:80", "a"),
            ("a:", "a"),
            ("a.", "a"),
            ("a.:80", "a"),
            ("a..", "a."),
            ("127.0.0.1:1", "127.0.0.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:8443", "[::1]"),
            ("80", "80"),
            ("", ""),
        ] {
            assert_eq!(bare_host(host.as_bytes()), bare.as_bytes(), "{host}");
        }
    }

    #[test]
    fn lower_cases_and_gives_up_on_what_is_too_long() {
        assert_eq!(HostName::new(b"A.Example.COM.:80").as_bytes(), b"a.example.com");
        assert_eq!(HostName::new(&[b'a'; LONGEST]).as_bytes(), [b'a'; LONGEST]);
        assert_eq!(HostName::new(&[b'a'; LONGEST + 1]).as_bytes(), b"");
    }

    #[test]
    fn goes_from_the_most_specific_to_any() {
        let names = [
            (HostMatch::Any, "any"),
            (HostMatch::Prefix("www.".into()), "www.*"),
            (HostMatch::Suffix(".b.c".into()), "*.b.c"),
            (HostMatch::Suffix(".c".into()), "*.c"),
            (HostMatch::Exact("www.b.c".into()), "www.b.c"),
            (HostMatch::Prefix("www.b.".into()), "www.b.*"),
        ];
        let hosts = Hosts::new(names.into());
        let found = |host: &str| hosts.matching(host.as_bytes()).copied().collect::<Vec<_>>().join(" ");
        assert_eq!(found("www.b.c"), "www.b.c *.b.c *.c www.b.* www.* any");
        assert_eq!(found("b.c"), "*.c any");
        assert_eq!(found("a.b.c"), "*.b.c *.c any");
        assert_eq!(found("www."), "any");
        assert_eq!(found(""), "any");
    }
}
