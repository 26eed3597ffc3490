//! HTTP/3 without IO (RFC 9114): what the streams of a QUIC connection say, and how to say it.
//!
//! QUIC gives streams that end or are reset, and their flow control. On top of it each request has a stream of frames
//! ([`message`], [`frame`]), each side has a stream of its own for what concerns the connection ([`control`]), and
//! heads are compressed by [`qpack`] (RFC 9204) with the static table alone: a dynamic table of capacity 0 takes the
//! hard half of it away, and with it what a client could make us hold.
//!
//! Readers say how many bytes they want next and are given no more. So nothing is read ahead of what can be passed on,
//! and the flow control of QUIC is the only backpressure that is needed.

pub mod code;
pub mod control;
pub mod frame;
pub mod head;
pub mod message;
pub mod qpack;
pub mod varint;
