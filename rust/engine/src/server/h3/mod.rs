//! HTTP/3 from clients (RFC 9114): a QUIC endpoint beside a listener's TCP socket, on the same port.
//!
//! ```text
//! endpoint ─ access ─ room ─ TLS ─▶ connection ─┬─ stream ─▶ head ─▶ route ─▶ plan ─▶ as over HTTP/1.1 ─▶ end, or a
//! reset
//!                                               ├─ stream ─▶ … ─▶ WebSocket: 200 ─▶ relay
//!                                               └─ streams of one direction: settings, GOAWAY
//! ```
//!
//! One worker owns an endpoint ([`endpoint`]) and all of its connections ([`connection`]): a client that changes its
//! address stays the same connection, which no split of packets by address would survive. Each stream is a task of its
//! own, and its exchange ([`request`]) goes the way that all exchanges go.

mod connection;
mod endpoint;
mod request;
mod socket;
mod terms;

pub use self::endpoint::listen;
pub use self::request::Request;
pub use self::socket::{QuicSocket, is_free, speaks_h3};
pub use self::terms::quic_config;
