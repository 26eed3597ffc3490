//! Which route takes a request, and what that route does to its path and headers.
//!
//! Pure: a [`RouteTable`] is built once from a snapshot and never changes; [`RouteTable::find`] takes a request's host,
//! path, query, method and fields and answers at once, without allocation.
//!
//! # The order
//! The host decides first: exact, then the longest suffix wildcard (`*.example.com`), the longest prefix wildcard
//! (`www.*`), any. Once routes exist for the host that matched, wider hosts are out, unless one of those routes says
//! `fall_through`. Among the routes of one host the order is total: higher priority, then path (exact, longer prefix or
//! starts_with, regex, none), then a method, more headers, more query parameters, earlier in the file (`order`). The
//! first route in that order whose whole match holds takes the request.
//!
//! # Why it is fast
//! No step walks the routes. Hosts are found by hash (`host`). Under a host, each text that an exact, prefix or
//! starts_with path names is a key; a request's path is looked up as a whole, and then cut to each length that occurs
//! (`paths`). What is found is a few candidates with their place in the order, and the first that holds wins. Only
//! regexes and routes without a path are tried one by one.
//!
//! # Which bytes
//! Routing compares a path's normal form, upstream goes what was received (`path`).

mod compiled;
mod condition;
mod edits;
mod host;
mod index;
mod listing;
mod order;
mod path;
mod paths;
mod pattern;
mod query;
mod redirect;
mod regexes;
mod rewrite;
mod sequence;
mod table;
mod template;
mod value_check;
mod variable;

pub use self::compiled::{Compiled, HostRule};
pub use self::edits::{CompiledEdits, Rendered};
pub use self::host::bare_host;
pub use self::listing::Listed;
pub use self::path::{BadPath, CleanPath, clean};
pub use self::query::parameters;
pub use self::redirect::Location;
pub use self::regexes::fault as regex_fault;
pub use self::table::{Found, Request, RouteTable};
pub use self::template::Template;
pub use self::variable::Values;
