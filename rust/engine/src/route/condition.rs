//! What a route asks of a request beside its host, and how it ranks among others.

use std::borrow::Cow;

use super::pattern::PathPattern;
use super::query;
use super::table::Request;
use super::value_check::ValueCheck;
use crate::error::Fault;
use crate::http::method::is_token;
use crate::snapshot::{NamedTest, Route};

#[derive(Debug)]
pub(super) struct Condition {
    pub(super) path: PathPattern,
    pub(super) priority: i64,
    /// Any when empty.
    methods: Vec<Box<[u8]>>,
    headers: Vec<(String, ValueCheck)>,
    query: Vec<(String, ValueCheck)>,
}

impl Condition {
    /// Compiles the match of `route`, found at `pointer`. What is faulty is left out, so that the rest is checked too.
    pub(super) fn compile(route: &Route, pointer: &str, faults: &mut Vec<Fault>) -> Self {
        let matches = &route.matches;
        let path = PathPattern::compile(&matches.path, &format!("{pointer}/path"));
        for (at, method) in matches.methods.iter().enumerate() {
            check_token(method, "method", || format!("{pointer}/methods/{at}"), faults);
        }
        for (at, header) in matches.headers.iter().enumerate() {
            check_token(&header.name, "header's name", || format!("{pointer}/headers/{at}/name"), faults);
        }
        Self {
            path: path.unwrap_or_else(|fault| {
                faults.push(fault);
                PathPattern::Any
            }),
            priority: route.priority,
            methods: matches.methods.iter().map(|method| method.as_bytes().into()).collect(),
            headers: checks(&matches.headers, &format!("{pointer}/headers"), faults),
            query: checks(&matches.query, &format!("{pointer}/query"), faults),
        }
    }

    /// Whether the host and a path that is no regex are all it takes.
    pub(super) fn is_plain(&self) -> bool {
        self.is_everywhere() && !matches!(self.path, PathPattern::Regex(_))
    }

    fn is_everywhere(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty() && self.query.is_empty()
    }

    pub(super) fn names_method(&self) -> bool {
        !self.methods.is_empty()
    }

    pub(super) fn header_count(&self) -> usize {
        self.headers.len()
    }

    pub(super) fn query_count(&self) -> usize {
        self.query.len()
    }

    /// Whether all holds but the path; of that only a regex is looked at.
    pub(super) fn holds(&self, request: &Request<'_>) -> bool {
        self.takes_method(request.method)
            && self.headers.iter().all(|(name, check)| check.holds(request.fields.all(name)))
            && self.query.iter().all(|(name, check)| check.holds(values(request.query, name)))
            && self.takes_path(request)
    }

    fn takes_method(&self, method: &[u8]) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|taken| **taken == *method)
    }

    fn takes_path(&self, request: &Request<'_>) -> bool {
        match &self.path {
            PathPattern::Regex(regex) => regex.is_match(request.path.normal()),
            _ => true,
        }
    }

    /// Whether some request may satisfy both, as far as method, headers and query can tell.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let shares_method = self.methods.iter().any(|method| other.methods.contains(method));
        let excluded = |mine: &[(String, ValueCheck)],
                        theirs: &[(String, ValueCheck)],
                        same: fn(&str, &str) -> bool| {
            mine.iter()
                .any(|(name, check)| theirs.iter().any(|(other, against)| same(name, other) && check.excludes(against)))
        };
        (self.methods.is_empty() || other.methods.is_empty() || shares_method)
            && !excluded(&self.headers, &other.headers, str::eq_ignore_ascii_case)
            && !excluded(&self.query, &other.query, |one, two| one == two)
    }
}

fn check_token(name: &str, what: &str, pointer: impl Fn() -> String, faults: &mut Vec<Fault>) {
    if !is_token(name.as_bytes()) {
        faults.push(Fault::new(pointer(), format!("`{name}` is no {what}")));
    }
}

fn checks(tests: &[NamedTest], pointer: &str, faults: &mut Vec<Fault>) -> Vec<(String, ValueCheck)> {
    let mut compiled = Vec::with_capacity(tests.len());
    for (at, test) in tests.iter().enumerate() {
        match ValueCheck::compile(&test.test, &format!("{pointer}/{at}/test")) {
            Ok(check) => compiled.push((test.name.clone(), check)),
            Err(fault) => faults.push(fault),
        }
    }
    compiled
}

fn values<'q>(query: &'q [u8], name: &str) -> impl Iterator<Item = Cow<'q, [u8]>> {
    query::parameters(query).filter(move |(candidate, _)| **candidate == *name.as_bytes()).map(|(_, value)| value)
}
