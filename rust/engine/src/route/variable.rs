//! What templates can name.

use std::net::IpAddr;

use super::compiled::Compiled;
use super::path::CleanPath;
use crate::http::fields::Fields;
use crate::http::method::is_token;

/// What the variables of a template stand for in one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// `{client.ip}`; empty over unix sockets.
    pub client_ip: Option<IpAddr>,
    /// `{tls.server_name}`; empty without TLS or SNI.
    pub server_name: Option<&'a str>,
    /// `{route}`
    pub route: &'a str,
    /// `{request.id}`
    pub request_id: &'a str,
    /// `{host}`: the client's, which is written without its port.
    pub host: &'a [u8],
    /// `{method}`
    pub method: &'a [u8],
    /// `{path}`, as received, and `{path.1}`.
    pub path: &'a CleanPath<'a>,
    /// `{query}`, without the `?`.
    pub query: &'a [u8],
    /// `{header.x-name}`: the request's fields as they came; several of one name are joined by commas.
    pub fields: &'a Fields,
    /// The route whose regex `{path.1}` counts the groups of.
    pub compiled: &'a Compiled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    ClientIp,
    ServerName,
    Route,
    RequestId,
    Host,
    Method,
    Path,
    Query,
    Header(String),
    PathPart(usize),
}

const PLAIN: [(&str, Variable); 8] = [
    ("client.ip", Variable::ClientIp),
    ("tls.server_name", Variable::ServerName),
    ("route", Variable::Route),
    ("request.id", Variable::RequestId),
    ("host", Variable::Host),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("query", Variable::Query),
];

impl Variable {
    /// The variable called `name`; `groups` are those of the match's regex, if it is one.
    ///
    /// # Errors
    /// Why there is none, for the person who wrote it.
    pub(super) fn parse(name: &str, groups: Option<usize>) -> Result<Self, String> {
        if let Some((_, variable)) = PLAIN.iter().find(|(known, _)| *known == name) {
            return Ok(variable.clone());
        }
        match name.split_once('.') {
            Some(("header", field)) if is_token(field.as_bytes()) => Ok(Self::Header(field.to_owned())),
            Some(("header", field)) => Err(format!("`{field}` is no header's name")),
            Some(("path", number)) => path_part(number, groups),
            _ => Err(unknown(name)),
        }
    }

    /// Calls `take` with the pieces of what this stands for.
    pub(super) fn render(&self, values: &Values<'_>, mut take: impl FnMut(&[u8])) {
        match self {
            Self::ClientIp => values.client_ip.iter().for_each(|ip| take(ip.to_string().as_bytes())),
            Self::ServerName => take(values.server_name.unwrap_or_default().as_bytes()),
            Self::Route => take(values.route.as_bytes()),
            Self::RequestId => take(values.request_id.as_bytes()),
            Self::Host => take(super::bare_host(values.host)),
            Self::Method => take(values.method),
            Self::Path => take(values.path.raw()),
            Self::Query => take(values.query),
            Self::PathPart(number) => take(values.compiled.path_part(values.path, *number)),
            Self::Header(name) => {
                for (at, value) in values.fields.all(name).enumerate() {
                    take(if at == 0 { b"" } else { b", " });
                    take(value);
                }
            }
        }
    }
}

fn path_part(number: &str, groups: Option<usize>) -> Result<Variable, String> {
    let is_plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|number| is_plain && (1..=1000).contains(number));
    match (number, groups) {
        (None, _) => Err("`path.` is followed by the number of a segment or group, from 1".to_owned()),
        (Some(number), Some(groups)) if number > groups => {
            Err(format!("the match's regex has no group {number}: it has {groups}"))
        }
        (Some(number), _) => Ok(Variable::PathPart(number)),
    }
}

fn unknown(name: &str) -> String {
    let (family, rest) = name.split_once('.').unwrap_or((name, ""));
    let families = [("header", rest), ("path", rest)].map(|(known, rest)| (known, format!("{known}.{rest}")));
    let near_family = families.iter().filter(|_| !rest.is_empty()).map(|(known, whole)| (*known, family, &**whole));
    let near_plain = PLAIN.iter().map(|(known, _)| (*known, name, *known));
    let nearest = near_plain
        .chain(near_family)
        .map(|(known, written, hint)| (distance(known, written), hint))
        .filter(|(distance, _)| *distance <= 2)
        .min();
    match nearest {
        Some((_, hint)) => format!("there is no `{{{name}}}`: did you mean `{{{hint}}}`?"),
        None => {
            let known: Vec<String> = PLAIN.iter().map(|(known, _)| format!("{{{known}}}")).collect();
            format!("there is no `{{{name}}}`: there are {}, {{header.NAME}} and {{path.NUMBER}}", known.join(", "))
        }
    }
}

/// How many insertions, deletions and replacements lie between two words.
fn distance(one: &str, two: &str) -> usize {
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (at, byte) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in two.bytes().enumerate() {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[two.len()]
}
