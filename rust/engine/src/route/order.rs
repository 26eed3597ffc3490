//! The order in which the routes of one host are tried, and which of them only their place in the file tells apart.

use std::cmp::Reverse;

use super::condition::Condition;
use super::pattern::PathPattern;

/// Where a route stands: the lesser is tried first; among equals, the earlier in the file. Fields are compared from
/// the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    priority: Reverse<i64>,
    path: PathStanding,
    names_method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathStanding {
    Exact,
    /// Prefix and starts_with, by the length of their text.
    Affix(Reverse<usize>),
    Regex,
    Any,
}

impl Standing {
    pub(super) fn of(condition: &Condition) -> Self {
        Self {
            priority: Reverse(condition.priority),
            path: PathStanding::new(&condition.path),
            names_method: Reverse(condition.names_method()),
            headers: Reverse(condition.header_count()),
            query: Reverse(condition.query_count()),
        }
    }
}

impl PathStanding {
    fn new(path: &PathPattern) -> Self {
        match path {
            PathPattern::Any => Self::Any,
            PathPattern::Exact(_) => Self::Exact,
            PathPattern::Prefix(text) | PathPattern::StartsWith(text) => Self::Affix(Reverse(text.len())),
            PathPattern::Regex(_) => Self::Regex,
        }
    }
}

/// Whether some request may satisfy both routes and nothing but their place in the file says which one takes it. Of two
/// regexes that can be said only when they are the same.
pub(super) fn tie(one: &Condition, two: &Condition) -> bool {
    Standing::of(one) == Standing::of(two) && same_path(&one.path, &two.path) && one.meets(two)
}

/// For paths of equal standing, whether one path can satisfy both.
fn same_path(one: &PathPattern, two: &PathPattern) -> bool {
    use PathPattern::{Any, Exact, Prefix, Regex, StartsWith};
    match (one, two) {
        (Any, Any) => true,
        (Regex(one), Regex(two)) => one.regex.as_str() == two.regex.as_str(),
        (Exact(one), Exact(two)) | (Prefix(one), Prefix(two)) | (StartsWith(one), StartsWith(two)) => one == two,
        (Prefix(one), StartsWith(two)) | (StartsWith(one), Prefix(two)) => one == two,
        _ => false,
    }
}
