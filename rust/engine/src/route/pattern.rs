//! The paths of the configuration, in the form that requests are compared in.

use std::borrow::Cow;

use regex::bytes::Regex;

use super::path::{self, BadPath};
use super::regexes::PathRegex;
use crate::error::Fault;
use crate::snapshot::PathMatch;

#[derive(Debug)]
pub(super) enum PathPattern {
    Any,
    Exact(Box<[u8]>),
    /// Without slashes at its end, unless it is `/`.
    Prefix(Box<[u8]>),
    StartsWith(Box<[u8]>),
    Regex(PathRegex),
}

impl PathPattern {
    /// # Errors
    /// A regex that is none, or a path that no request can have.
    pub(super) fn compile(path: &PathMatch, pointer: &str) -> Result<Self, Fault> {
        let compiled = match path {
            PathMatch::Any => Ok(Self::Any),
            PathMatch::Exact(text) => literal(text, "").map(Self::Exact),
            PathMatch::Prefix(text) => literal(text, "").map(|text| Self::Prefix(whole_segments(&text).into())),
            // Where it ends a segment may go on: `/.` takes `/.well-known`.
            PathMatch::StartsWith(text) => literal(text, "x").map(Self::StartsWith),
            PathMatch::Regex(pattern) => PathRegex::compile(pattern).map(Self::Regex),
        };
        compiled.map_err(|message| Fault::new(pointer, message))
    }

    pub(super) fn regex(&self) -> Option<&Regex> {
        match self {
            Self::Regex(path) => Some(&path.regex),
            _ => None,
        }
    }
}

fn whole_segments(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = text
        && !rest.is_empty()
    {
        text = rest;
    }
    text
}

fn literal(text: &str, behind: &str) -> Result<Box<[u8]>, String> {
    if !text.starts_with('/') {
        return Err(format!("the path `{text}` does not begin with `/`"));
    }
    if text.contains(['?', '#']) {
        return Err(format!("the path `{text}` has a `?` or `#`: a query is matched by its parameters"));
    }
    let encoded = encode(text);
    let refuse = |bad: BadPath| format!("no request can have the path `{text}`: {}", bad.text());
    let normal = path::normalise(&encoded).map_err(refuse)?;
    if path::has_dot_segment(&[&normal, behind.as_bytes()].concat()) {
        return Err(refuse(BadPath::DotSegment));
    }
    Ok(normal.into())
}

/// People write `/café`; it comes as `/caf%C3%A9`.
fn encode(text: &str) -> Cow<'_, [u8]> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Cow::Borrowed(text.as_bytes());
    }
    let encode = |byte: u8| if byte.is_ascii_graphic() { vec![byte] } else { format!("%{byte:02X}").into_bytes() };
    Cow::Owned(text.bytes().flat_map(encode).collect())
}
