//! Regular expressions of the configuration: bounded in size, linear in time, with an error on one line.

use regex::bytes::{Regex, RegexBuilder};

use super::sequence::Sequence;

/// What one compiled expression may take.
const SIZE_LIMIT: usize = 1 << 20;

/// `pattern`, to be found anywhere.
///
/// # Errors
/// What is wrong with it, for the person who wrote it.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    build(pattern, true).map_err(|error| format!("`{pattern}` is no regular expression: {}", explain(&error)))
}

/// `pattern`, for a whole value.
///
/// # Errors
/// What is wrong with it, for the person who wrote it.
pub(super) fn compile_whole(pattern: &str) -> Result<Regex, String> {
    check(pattern)?;
    compile(&whole(pattern))
}

/// What is wrong with `pattern`, wherever it stands; none for a good one.
pub fn fault(pattern: &str) -> Option<String> {
    compile_whole(pattern).err()
}

/// A regex for a whole path.
#[derive(Debug)]
pub(super) struct PathRegex {
    /// The quick way to say whether it matches, if there is one.
    sequence: Option<Sequence>,
    pub(super) regex: Regex,
}

impl PathRegex {
    /// `pattern`, for a whole path in normal form, which is ASCII: there an expression that knows no other letters
    /// takes the same and is several times smaller, to build and to run.
    ///
    /// # Errors
    /// What is wrong with it, for the person who wrote it.
    pub(super) fn compile(pattern: &str) -> Result<Self, String> {
        check(pattern)?;
        match build(&whole(pattern), false) {
            Ok(regex) => Ok(Self { sequence: Sequence::parse(pattern), regex }),
            // Some patterns (`\p{Greek}`, `[^é]`) cannot be had without Unicode.
            Err(_) => Ok(Self { sequence: None, regex: compile(&whole(pattern))? }),
        }
    }

    pub(super) fn is_match(&self, path: &[u8]) -> bool {
        self.sequence.as_ref().map_or_else(|| self.regex.is_match(path), |sequence| sequence.is_match(path))
    }
}

/// `a)|(b` is an error that the group around it would hide.
fn check(pattern: &str) -> Result<(), String> {
    // Without Unicode first, as that is quick to build.
    if build(pattern, false).is_err() { compile(pattern).map(|_| ()) } else { Ok(()) }
}

fn whole(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

fn build(pattern: &str, unicode: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(unicode).size_limit(SIZE_LIMIT).build()
}

fn explain(error: &regex::Error) -> String {
    let text = match error {
        regex::Error::CompiledTooBig(limit) => return format!("compiled it takes more than {limit} bytes"),
        other => other.to_string(),
    };
    // The library draws the place over several lines and says what it is in the last one.
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
