//! One side of a relay: its stream, what it has said, and what it has been told.

use std::borrow::Cow;

use super::line::Line;
use super::metering::Metering;
use crate::io::Stream;
use crate::io::clock::Millis;
use crate::ws::{Observer, Stop};

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Upstream,
}

impl Role {
    pub const BOTH: [Self; 2] = [Self::Client, Self::Upstream];

    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// What we have heard from a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Frames; more may come.
    Open,
    /// Its Close; whatever follows is discarded.
    Close,
    /// It broke the rules or our patience; whatever follows is discarded.
    Ignored,
    /// The end of its stream, or we stopped waiting for it.
    Done,
}

/// What we have told a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Frames; more may follow.
    Open,
    /// A Close, the other side's or ours.
    Close,
    /// The end of the stream.
    Fin,
}

/// A Close of our own that waits for its place between frames.
#[derive(Clone, Debug)]
pub struct Due {
    /// `None` is a Close without a code.
    pub code: Option<u16>,
    pub reason: Cow<'static, str>,
    /// Seconds to say in the reason as `retry=`.
    pub retry: Option<u8>,
    /// `Never` is no place between frames: it waits until the other side has said its last word.
    pub place: Stop,
    /// When the nearest frame boundary must do, or the cut.
    pub patience: Millis,
}

/// A Ping of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    None,
    /// To be sent at the next frame boundary.
    Due,
    /// Sent and not answered; `token` is its payload, 0 where a foreign Ping stands in for ours.
    Sent {
        token: u64,
        at: Millis,
    },
    /// Sent, and the peer has shown life by other bytes; its Pong may still come, and is still ours.
    Late {
        token: u64,
        at: Millis,
    },
}

#[derive(Debug)]
pub struct Side {
    pub line: Line,
    /// Checks what this side sends.
    pub observer: Observer,
    /// The head of a frame, or a control frame, of which this side has sent a part only.
    pub partial: Vec<u8>,
    /// Keeps what this side sends to its limits; none where there are none.
    pub metering: Option<Box<Metering>>,
    pub heard: Heard,
    pub told: Told,
    /// The Close it sent: `Some(None)` is one without a code.
    pub close_heard: Option<Option<u16>>,
    /// Whether that Close was one that may be answered for a side that is gone.
    pub is_answerable: bool,
    /// The Close of ours that it was told.
    pub close_told: Option<Option<u16>>,
    pub due: Option<Due>,
    pub ping: Ping,
    /// A Ping of the other side's was passed to this one and has not been answered.
    pub foreign_ping: bool,
    /// Its stream ended without a Close, or failed.
    pub lost: bool,
    /// FIN has gone out.
    pub shut: bool,
    pub last_heard: Millis,
    /// Once it is being closed: when we stop waiting for its next step.
    pub deadline: Option<Millis>,
    /// Whether the Close has left the outbox.
    pub close_gone: bool,
    /// Bytes that came after we had told the other side a Close.
    pub discarded: u64,
}

impl Side {
    pub fn new(stream: Stream, observer: Observer, now: Millis) -> Self {
        Self {
            line: Line::new(stream),
            observer,
            partial: Vec::new(),
            metering: None,
            heard: Heard::Open,
            told: Told::Open,
            close_heard: None,
            is_answerable: false,
            close_told: None,
            due: None,
            ping: Ping::None,
            foreign_ping: false,
            lost: false,
            shut: false,
            last_heard: now,
            deadline: None,
            close_gone: false,
            discarded: 0,
        }
    }

    /// Its stream ended.
    pub fn end_of_stream(&mut self) {
        self.lost |= self.heard == Heard::Open;
        self.heard = Heard::Done;
    }

    /// Whether this side needs nothing more from us.
    pub fn is_finished(&self) -> bool {
        self.heard == Heard::Done && (self.shut || self.line.broken)
    }
}
