//! WebSocket without sockets: frames (RFC 6455), the handshake, and what permessage-deflate negotiates (RFC 7692).
//!
//! Everything here takes bytes or header fields and returns values. Reading, writing, clocks and random numbers are the
//! caller's.

pub mod close;
pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod observer;
pub mod violation;

pub use observer::{Control, ControlOpcode, Counts, Event, From, Gate, Observer, Pass, Rules, Seen, Stop};
pub use violation::Violation;
