//! What the engine writes down: the access log, and events for the control plane.
//!
//! Neither may hold up a worker. A worker formats its line ([`record`]) and offers it to a bounded queue, which a
//! thread of its own writes out (`writer`); what finds the queue full is dropped and counted. Events ([`events`]) are
//! few; they wait in a bounded ring until Python takes them, and the oldest make room.

pub mod events;
mod kind;
pub mod record;
mod text;
mod writer;

pub use self::events::{Event, Events, Level};
pub use self::kind::{Close, Kind, Open, PipeClose, Refusal, Request, TcpOpen, TcpRefusal, Traffic, TunnelOpen};
pub use self::record::{Exchange, Record, connection_name};
pub use self::writer::{Sink, open};
