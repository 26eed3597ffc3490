//! Values by server name: exact, then under one leading wildcard label (RFC 9525 §6.3).

use std::borrow::Cow;
use std::collections::HashMap;

use rustls::pki_types::DnsName;

/// A table from `a.example.com` and `*.example.com` to values.
#[derive(Debug)]
pub struct Names<T> {
    exact: HashMap<String, T>,
    /// By what follows the wildcard label.
    wildcard: HashMap<String, T>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

impl<T> Names<T> {
    /// The value under `pattern` itself, for which no wildcard stands in.
    pub fn entry(&mut self, pattern: &str) -> std::collections::hash_map::Entry<'_, String, T> {
        let pattern = normal(pattern);
        match pattern.strip_prefix("*.") {
            Some(parent) => self.wildcard.entry(parent.to_owned()),
            None => self.exact.entry(pattern.into_owned()),
        }
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.wildcard.values())
    }

    /// The value for a name that a client asks for.
    pub fn find(&self, name: &str) -> Option<&T> {
        let name = normal(name);
        self.exact.get(&*name).or_else(|| self.under_wildcard(&name))
    }

    fn under_wildcard(&self, name: &str) -> Option<&T> {
        let (label, parent) = name.split_once('.')?;
        if label.is_empty() { None } else { self.wildcard.get(parent) }
    }
}

/// Whether a name can stand in a rule: a DNS name, or one after `*.`. SNI carries nothing else (RFC 6066 §3).
pub(super) fn is_pattern(name: &str) -> bool {
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_ok()
}

/// Without upper case and without the dot of the root, neither of which makes another name.
fn normal(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(patterns: &[&'static str]) -> Names<&'static str> {
        let mut names = Names::default();
        for pattern in patterns {
            names.entry(pattern).or_insert(*pattern);
        }
        names
    }

    #[test]
    fn exact_goes_before_wildcard() {
        let names = table(&["*.example.com", "a.example.com"]);
        assert_eq!(names.find("a.example.com"), Some(&"a.example.com"));
        assert_eq!(names.find("b.example.com"), Some(&"*.example.com"));
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let names = table(&["*.example.com"]);
        for name in ["example.com", ".example.com", "a.b.example.com", "", "com"] {
            assert_eq!(names.find(name), None, "{name}");
        }
    }

    #[test]
    fn case_and_root_dot_do_not_matter() {
        let names = table(&["A.example.com"]);
        assert_eq!(names.find("a.EXAMPLE.com."), Some(&"A.example.com"));
    }

    #[test]
    fn patterns() {
        assert!(["example.com", "*.example.com", "localhost", "a_b.example"].into_iter().all(is_pattern));
        assert!(!["", "*", "*.*.example.com", "10.0.0.1", "a..b", "[::1]"].into_iter().any(is_pattern));
    }
}
