//! HTTP/2 from clients (RFC 9113): one connection, many exchanges at once.
//!
//! ```text
//! session ─ preface ─▶ connection ─┬─ stream ─▶ head ─▶ route ─▶ plan ─▶ as over HTTP/1.1 ─▶ END_STREAM, or a reset
//!                                  ├─ stream ─▶ …
//!                                  └─ stream ─▶ … ─▶ WebSocket: 200 ─▶ relay
//! ```
//!
//! One task drives the connection ([`connection`]): frames, settings, flow control, the end. Each stream is a task of
//! its own, and its exchange ([`request`]) goes the way that all exchanges go.

mod connection;
mod request;

pub use self::connection::begin;
pub use self::request::Request;
