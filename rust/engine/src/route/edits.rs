//! Changes to header fields: `remove`, then `set`, then `add`.

use super::template::Template;
use super::variable::Values;
use crate::error::Fault;
use crate::http::fields::Fields;
use crate::http::method::is_token;
use crate::snapshot::Edits;

/// Fields that say where messages end and what the connection is. They concern one hop, and we write them ourselves: a
/// wrong one is a smuggled request or a handshake that fails.
const OURS: [&str; 13] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Changes to header fields, their values parsed.
#[derive(Clone, Debug, Default)]
pub struct CompiledEdits {
    remove: Vec<String>,
    set: Vec<(String, Template)>,
    add: Vec<(String, Template)>,
}

/// Changes with their values: what is left to do needs nothing but the fields.
#[derive(Debug)]
pub struct Rendered<'e> {
    edits: &'e CompiledEdits,
    /// Of `set`, then of `add`.
    values: Vec<Vec<u8>>,
}

impl CompiledEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// The changes for one exchange. Done first and apart, so that `values` may borrow the fields to be changed.
    pub fn render(&self, values: &Values<'_>) -> Rendered<'_> {
        let render = |(_, template): &(String, Template)| {
            let mut value = Vec::new();
            template.render(&mut value, values);
            value
        };
        Rendered { edits: self, values: self.set.iter().chain(&self.add).map(render).collect() }
    }

    /// Changes `fields`, where `values` borrow others.
    pub fn apply(&self, fields: &mut Fields, values: &Values<'_>) {
        if !self.is_empty() {
            self.render(values).apply(fields);
        }
    }
}

impl Rendered<'_> {
    pub fn apply(&self, fields: &mut Fields) {
        let (set, add) = self.values.split_at(self.edits.set.len());
        self.edits.remove.iter().for_each(|name| fields.remove(name));
        for ((name, _), value) in self.edits.set.iter().zip(set) {
            fields.set(name, value);
        }
        for ((name, _), value) in self.edits.add.iter().zip(add) {
            fields.push(name.as_bytes(), value);
        }
    }
}

/// Which way the edited fields go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// Compiles the edits and templates of one route, collecting what is wrong.
pub(super) struct Compiler<'f> {
    /// Those of the match's regex, if it is one.
    pub(super) groups: Option<usize>,
    pub(super) faults: &'f mut Vec<Fault>,
}

impl Compiler<'_> {
    pub(super) fn template(&mut self, text: &str, pointer: String) -> Template {
        Template::parse(text, self.groups).unwrap_or_else(|message| {
            self.faults.push(Fault::new(pointer, message));
            Template::default()
        })
    }

    pub(super) fn compile(&mut self, edits: &Edits, pointer: &str, side: Side) -> CompiledEdits {
        for (at, name) in edits.remove.iter().enumerate() {
            self.check_name(name, format!("{pointer}/remove/{at}"), side);
        }
        CompiledEdits {
            remove: edits.remove.clone(),
            set: self.values(&edits.set, &format!("{pointer}/set"), side),
            add: self.values(&edits.add, &format!("{pointer}/add"), side),
        }
    }

    fn values(&mut self, edits: &[(String, String)], pointer: &str, side: Side) -> Vec<(String, Template)> {
        let mut compiled = Vec::with_capacity(edits.len());
        for (at, (name, text)) in edits.iter().enumerate() {
            self.check_name(name, format!("{pointer}/{at}/0"), side);
            compiled.push((name.clone(), self.template(text, format!("{pointer}/{at}/1"))));
        }
        compiled
    }

    fn check_name(&mut self, name: &str, pointer: String, side: Side) {
        let message = if !is_token(name.as_bytes()) {
            format!("`{name}` is no header's name")
        } else if OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            format!("`{name}` concerns one connection and is written by the gateway: it cannot be edited")
        } else if side == Side::Request && name.eq_ignore_ascii_case("host") {
            "the Host is no header to edit: set it by the route's `host`".to_owned()
        } else {
            return;
        };
        self.faults.push(Fault::new(pointer, message));
    }
}
