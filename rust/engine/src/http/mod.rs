//! HTTP without IO: heads and bodies of HTTP/1.1 from bytes, and bytes from heads and bodies.
//!
//! An intermediary is attacked where it and its neighbour read the same bytes differently, so this codec accepts one
//! spelling of a message and refuses the rest. A head passes four gates, in the order of its bytes:
//!
//! 1. [`scan`] finds where it ends, line by line: CRLF only, no folded line, within the limits (RFC 9112 §2.2, §5.2).
//! 2. [`head`] reads the first line: method, [`target`], version or status (RFC 9112 §3, §4).
//! 3. `block` has `httparse` read the fields and copies them into one [`Fields`] (RFC 9110 §5).
//! 4. `framing` decides where the body ends, or that nobody can tell (RFC 9112 §6).
//!
//! [`body`] then walks over the body without copying it ([`chunked`], `trailers`), and [`write`] is the way back.
//!
//! Frames of HTTP/2 are for the `h2` crate; [`h2`] makes the same heads of what it has read.

mod block;
pub mod body;
pub mod chunked;
mod cookie;
pub mod fault;
pub mod fields;
pub mod forwarded;
mod framing;
pub mod grpc_web;
pub mod h2;
pub mod h3;
pub mod head;
pub mod method;
pub mod scan;
pub mod target;
mod trailers;
pub mod tunnel;
pub mod write;

pub use body::{BadBody, BodyReader, BodyStep};
pub use cookie::cookie;
pub use fault::BadHead;
pub use fields::{Fields, Span};
pub use framing::BodyLength;
pub use h2::{from_map, to_map};
pub use head::{Parsed, RequestHead, ResponseHead, parse_request, parse_response, resume_request, resume_response};
pub use method::Method;
pub use scan::Scan;
pub use target::{Authority, Scheme, Target};
pub use trailers::passable_trailers;
