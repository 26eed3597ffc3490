//! What one route does to what passes. Apart from its condition, which every lookup may look at, and this none.

use std::borrow::Cow;

use regex::bytes::Regex;

use super::edits::{self, CompiledEdits};
use super::path::{BadPath, CleanPath};
use super::pattern::PathPattern;
use super::redirect::Location;
use super::rewrite::PathRewrite;
use super::template::Template;
use crate::error::Fault;
use crate::snapshot::{Action, Forward, HostHeader, Redirect, Respond, Route};

/// A route of the snapshot, compiled.
#[derive(Debug)]
pub struct Compiled {
    /// Towards the upstream; empty on routes that answer themselves.
    pub request_edits: CompiledEdits,
    /// Towards the client, whoever answers.
    pub response_edits: CompiledEdits,
    /// The Host for the upstream.
    pub host: HostRule,
    /// On redirect routes.
    pub redirect_to: Option<Location>,
    rewrite: Option<PathRewrite>,
    /// Of the match.
    path_regex: Option<Regex>,
}

/// The Host that the upstream sees.
#[derive(Debug)]
pub enum HostRule {
    /// The client's.
    Preserve,
    /// The endpoint's.
    Upstream,
    Set(Template),
}

impl Compiled {
    /// Compiles `route`, found at `pointer`, whose match has this path. What is faulty is left out, so that the rest is
    /// checked too.
    pub(super) fn new(route: &Route, path: &PathPattern, pointer: &str, faults: &mut Vec<Fault>) -> Self {
        let mut compiled = Self {
            request_edits: CompiledEdits::default(),
            response_edits: CompiledEdits::default(),
            host: HostRule::Preserve,
            redirect_to: None,
            rewrite: None,
            path_regex: path.regex().cloned(),
        };
        match &route.action {
            Action::Forward(forward) => compiled.forward(forward, path, &format!("{pointer}/action/forward"), faults),
            Action::Redirect(redirect) => compiled.redirect(redirect, &format!("{pointer}/action/redirect"), faults),
            Action::Respond(respond) => compiled.respond(respond, &format!("{pointer}/action/respond"), faults),
        }
        compiled
    }

    fn forward(&mut self, forward: &Forward, path: &PathPattern, pointer: &str, faults: &mut Vec<Fault>) {
        let mut compiler = edits::Compiler { groups: self.groups(), faults };
        let place = format!("{pointer}/request_headers");
        self.request_edits = compiler.compile(&forward.request_headers, &place, edits::Side::Request);
        let place = format!("{pointer}/response_headers");
        self.response_edits = compiler.compile(&forward.response_headers, &place, edits::Side::Response);
        self.host = match &forward.host {
            HostHeader::Preserve => HostRule::Preserve,
            HostHeader::Upstream => HostRule::Upstream,
            HostHeader::Set(text) => HostRule::Set(compiler.template(text, format!("{pointer}/host/set"))),
        };
        let rewrite = |rewrite| PathRewrite::compile(rewrite, path, &format!("{pointer}/rewrite"));
        self.rewrite = forward.rewrite.as_ref().map(rewrite).transpose().unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
    }

    fn redirect(&mut self, redirect: &Redirect, pointer: &str, faults: &mut Vec<Fault>) {
        let mut compiler = edits::Compiler { groups: self.groups(), faults };
        self.redirect_to = Some(Location::new(compiler.template(&redirect.to, format!("{pointer}/to"))));
        let place = format!("{pointer}/headers");
        self.response_edits = compiler.compile(&redirect.headers, &place, edits::Side::Response);
    }

    fn respond(&mut self, respond: &Respond, pointer: &str, faults: &mut Vec<Fault>) {
        if let Respond::Fixed { headers, .. } = respond {
            let mut compiler = edits::Compiler { groups: self.groups(), faults };
            let place = format!("{pointer}/fixed/headers");
            self.response_edits = compiler.compile(headers, &place, edits::Side::Response);
        }
    }

    /// The path for the upstream: as received, or rewritten. The query is no part of it.
    ///
    /// # Errors
    /// A rewrite that would make a path that [`super::clean`] refuses: `/img` for `/` turns `/img../x` into `/../x`.
    pub fn upstream_path<'p>(&self, path: &CleanPath<'p>) -> Result<Cow<'p, [u8]>, BadPath> {
        self.rewrite.as_ref().map_or(Ok(Cow::Borrowed(path.raw())), |rewrite| rewrite.apply(path))
    }

    /// What `{path.n}` stands for: group `number` of the match's regex, or that segment; empty when there is none.
    pub(super) fn path_part<'p>(&self, path: &'p CleanPath<'_>, number: usize) -> &'p [u8] {
        let part = match &self.path_regex {
            Some(regex) => regex
                .captures(path.normal())
                .and_then(|groups| groups.get(number).map(|group| &path.normal()[group.range()])),
            None => path.segment(number),
        };
        part.unwrap_or_default()
    }

    /// The groups of the match's regex, the whole left out.
    fn groups(&self) -> Option<usize> {
        self.path_regex.as_ref().map(|regex| regex.captures_len() - 1)
    }
}
