//! Paths for the upstream that are not the client's.
//!
//! `prefix` replaces what the match took of the path and keeps the rest byte by byte. `regex` works on the normal form
//! and replaces every place that it finds; where it finds none, the path goes as received. Neither touches the query.
//! What comes out begins with exactly one slash, and is checked like what came in.

use std::borrow::Cow;

use regex::bytes::Regex;

use super::path::{self, BadPath, CleanPath};
use super::pattern::PathPattern;
use super::regexes;
use crate::error::Fault;
use crate::snapshot::Rewrite;

#[derive(Debug)]
pub(super) enum PathRewrite {
    Prefix { taken: Taken, to: Vec<u8> },
    Regex { pattern: Regex, to: Vec<u8> },
}

/// How much of a path the match took.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taken {
    All,
    First(usize),
}

impl PathRewrite {
    /// # Errors
    /// A rewrite that cannot work with this match, or at all.
    pub(super) fn compile(rewrite: &Rewrite, path: &PathPattern, pointer: &str) -> Result<Self, Fault> {
        match rewrite {
            Rewrite::Prefix(to) => prefix(to, path).map_err(|message| Fault::new(format!("{pointer}/prefix"), message)),
            Rewrite::Regex { pattern, to } => {
                let fault = |key: &'static str| move |message| Fault::new(format!("{pointer}/regex/{key}"), message);
                let pattern = regexes::compile(pattern).map_err(fault("pattern"))?;
                check_replacement(to, &pattern).map_err(fault("to"))?;
                Ok(Self::Regex { pattern, to: to.clone().into() })
            }
        }
    }

    pub(super) fn apply<'p>(&self, path: &CleanPath<'p>) -> Result<Cow<'p, [u8]>, BadPath> {
        if !path.raw().starts_with(b"/") {
            return Ok(Cow::Borrowed(path.raw())); // `OPTIONS *`
        }
        let mut rewritten = match self {
            Self::Prefix { taken, to } => join(to, taken.rest(path)),
            Self::Regex { pattern, to } => match pattern.replace_all(path.normal(), &to[..]) {
                Cow::Owned(replaced) => replaced,
                Cow::Borrowed(_) => return Ok(Cow::Borrowed(path.raw())),
            },
        };
        if !rewritten.starts_with(b"/") {
            rewritten.insert(0, b'/');
        }
        single_slash(&mut rewritten);
        path::clean(&rewritten)?;
        Ok(Cow::Owned(rewritten))
    }
}

impl Taken {
    fn rest<'p>(self, path: &CleanPath<'p>) -> &'p [u8] {
        match self {
            Self::All => &[],
            Self::First(taken) => path.raw_behind(taken),
        }
    }
}

/// Leaves one slash of several at the beginning.
pub(super) fn single_slash(path: &mut Vec<u8>) {
    let slashes = path.iter().take_while(|byte| **byte == b'/').count();
    path.drain(..slashes.saturating_sub(1));
}

/// One slash where both sides have one.
fn join(to: &[u8], rest: &[u8]) -> Vec<u8> {
    let to = if rest.starts_with(b"/") { to.strip_suffix(b"/").unwrap_or(to) } else { to };
    [to, rest].concat()
}

fn prefix(to: &str, path: &PathPattern) -> Result<PathRewrite, String> {
    let taken = match path {
        PathPattern::Any => Taken::First(0),
        PathPattern::Prefix(text) if **text == *b"/" => Taken::First(0),
        PathPattern::Exact(_) => Taken::All,
        PathPattern::Prefix(text) | PathPattern::StartsWith(text) => Taken::First(text.len()),
        PathPattern::Regex(_) => {
            return Err("the match is a regex, so there is no prefix to replace: rewrite by regex".to_owned());
        }
    };
    if !to.starts_with('/') {
        return Err(format!("the path `{to}` does not begin with `/`"));
    }
    check_text(to)?;
    path::clean(to.as_bytes()).map_err(|bad| format!("`{to}` cannot be sent: {}", bad.text()))?;
    Ok(PathRewrite::Prefix { taken, to: to.into() })
}

fn check_text(to: &str) -> Result<(), String> {
    if to.contains(['?', '#']) {
        return Err(format!("`{to}` has a `?` or `#`: a rewrite changes the path alone"));
    }
    match to.chars().find(|character| !character.is_ascii_graphic()) {
        Some(character) => Err(format!("`{to}` has {character:?}, which a path must have percent-encoded")),
        None => Ok(()),
    }
}

/// The library takes a group that does not exist for an empty one; here it is a fault.
fn check_replacement(to: &str, pattern: &Regex) -> Result<(), String> {
    check_text(to)?;
    let exists = |group: &str| match group.parse::<usize>() {
        Ok(number) => number < pattern.captures_len(),
        Err(_) => pattern.capture_names().flatten().any(|name| name == group),
    };
    match references(to).into_iter().find(|group| !exists(group)) {
        Some(group) => Err(missing_group(group, to, pattern)),
        None => Ok(()),
    }
}

fn missing_group(group: &str, to: &str, pattern: &Regex) -> String {
    let number: String = group.chars().take_while(char::is_ascii_digit).collect();
    if !number.is_empty() && number.len() < group.len() && to.contains(&format!("${group}")) {
        // `$1a` names the group `1a`.
        return format!("`{to}` names the group `{group}`: write `${{{number}}}{}`", &group[number.len()..]);
    }
    format!("`{to}` names the group `{group}`, and `{}` has no such group", pattern.as_str())
}

/// The groups that a replacement names, read as the library reads it.
fn references(to: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = to;
    while let Some((_, behind)) = rest.split_once('$') {
        let (name, after) = reference(behind);
        found.extend(name);
        rest = after;
    }
    found
}

/// The name at the beginning of what stands behind a `$`, and what follows.
fn reference(text: &str) -> (Option<&str>, &str) {
    if let Some(after) = text.strip_prefix('$') {
        return (None, after);
    }
    if let Some((name, after)) = text.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
        return (Some(name), after);
    }
    let end = text.find(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let (name, after) = text.split_at(end.unwrap_or(text.len()));
    ((!name.is_empty()).then_some(name), after)
}
