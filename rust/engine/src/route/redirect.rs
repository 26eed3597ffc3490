//! Where a redirect leads.

use super::rewrite::single_slash;
use super::template::Template;
use super::variable::Values;

/// The `Location` of a redirect.
#[derive(Debug)]
pub struct Location(Template);

impl Location {
    pub(super) fn new(template: Template) -> Self {
        Self(template)
    }

    /// The header's value.
    ///
    /// `//evil.example` is a path to us and another host to a browser. So a value begins with two slashes only where
    /// the template does: `{path}` cannot send people to hosts of a stranger's choice.
    pub fn render(&self, values: &Values<'_>) -> Vec<u8> {
        let mut location = Vec::new();
        self.0.render(&mut location, values);
        if !self.0.begins_with(b"//") {
            single_slash(&mut location);
        }
        location
    }
}
