//! What happened: the events of the access log, and what each has to say.

use super::text::{Line, code, name, text};

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'r> {
    Request(Request),
    Open(Open<'r>),
    Close(Close<'r>),
    Refusal(Refusal<'r>),
    TunnelOpen(TunnelOpen<'r>),
    TcpOpen(TcpOpen),
    PipeClose(PipeClose<'r>),
    TcpRefusal(TcpRefusal<'r>),
}

/// A plain request was answered.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub status: u16,
    /// Why the answer is ours, or ended early.
    pub reason: Option<&'static str>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Milliseconds from the first byte of the request.
    pub duration: u64,
}

/// A WebSocket was opened.
#[derive(Clone, Copy, Debug)]
pub struct Open<'r> {
    pub status: u16,
    pub subprotocol: Option<&'r [u8]>,
    /// As agreed on: the value of `Sec-WebSocket-Extensions`.
    pub extensions: Option<&'r [u8]>,
    /// Milliseconds from the first byte of the request.
    pub duration: u64,
}

/// A WebSocket ended.
#[derive(Clone, Copy, Debug)]
pub struct Close<'r> {
    /// The label of [`crate::error::Cause`].
    pub cause: &'r str,
    /// The code that the end is counted under; none where no Close was seen or sent.
    pub code: Option<u16>,
    /// The code in the client's Close, and in the upstream's.
    pub client_code: Option<u16>,
    pub upstream_code: Option<u16>,
    /// From the client, and to it.
    pub received: Traffic,
    pub sent: Traffic,
    /// Messages that the client's limits left out.
    pub dropped: u64,
    /// Bytes, frame headers included, that came from either side when it was too late to pass them on.
    pub discarded: u64,
    /// Milliseconds from the 101.
    pub duration: u64,
}

/// What went one way through a WebSocket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
    pub pings: u64,
}

/// A request was answered by us because nobody else may or can.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'r> {
    pub status: u16,
    /// The stable id of [`crate::error::Refusal`] and of the parsers' errors.
    pub reason: &'r str,
    /// Milliseconds from the first byte of the request.
    pub duration: u64,
}

/// A tunnel was opened.
#[derive(Clone, Copy, Debug)]
pub struct TunnelOpen<'r> {
    pub status: u16,
    /// `connect`, or the protocol that it is for.
    pub upgrade: &'r str,
    /// Milliseconds from the first byte of the request.
    pub duration: u64,
}

/// A TCP connection has an upstream.
#[derive(Clone, Copy, Debug)]
pub struct TcpOpen {
    /// Milliseconds from the client's connection.
    pub duration: u64,
}

/// A TCP connection, or a tunnel, ended.
#[derive(Clone, Copy, Debug)]
pub struct PipeClose<'r> {
    /// The label of [`crate::error::Cause`].
    pub cause: &'r str,
    /// From the client, and from the upstream.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes of these that could not be delivered.
    pub discarded: u64,
    /// Milliseconds from the opening.
    pub duration: u64,
}

/// A connection was ended without a word, because nobody else may or can take it.
#[derive(Clone, Copy, Debug)]
pub struct TcpRefusal<'r> {
    /// The stable id of [`crate::error::Refusal`].
    pub reason: &'r str,
    /// Milliseconds from the client's connection.
    pub duration: u64,
}

impl Kind<'_> {
    /// The name of the event.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
            Self::Open(_) | Self::TunnelOpen(_) | Self::TcpOpen(_) => "open",
            Self::Close(_) | Self::PipeClose(_) => "close",
            Self::Refusal(_) | Self::TcpRefusal(_) => "refusal",
        }
    }

    /// Writes what there is to say of it.
    pub(super) fn fields<L: Line>(&self, out: &mut Vec<u8>) {
        match self {
            Self::Request(request) => request.fields::<L>(out),
            Self::Open(open) => open.fields::<L>(out),
            Self::Close(close) => close.fields::<L>(out),
            Self::Refusal(refusal) => refusal.fields::<L>(out),
            Self::TunnelOpen(open) => open.fields::<L>(out),
            Self::TcpOpen(open) => L::number(out, "duration_ms", open.duration),
            Self::PipeClose(close) => close.fields::<L>(out),
            Self::TcpRefusal(refusal) => refusal.fields::<L>(out),
        }
    }
}

impl Request {
    fn fields<L: Line>(&self, out: &mut Vec<u8>) {
        L::number(out, "status", self.status.into());
        name::<L>(out, "reason", self.reason);
        L::number(out, "bytes_in", self.bytes_in);
        L::number(out, "bytes_out", self.bytes_out);
        L::number(out, "duration_ms", self.duration);
    }
}

impl Open<'_> {
    fn fields<L: Line>(&self, out: &mut Vec<u8>) {
        L::number(out, "status", self.status.into());
        text::<L>(out, "subprotocol", self.subprotocol);
        text::<L>(out, "extensions", self.extensions);
        L::number(out, "duration_ms", self.duration);
    }
}

impl TunnelOpen<'_> {
    fn fields<L: Line>(&self, out: &mut Vec<u8>) {
        L::number(out, "status", self.status.into());
        L::text(out, "upgrade", self.upgrade.as_bytes());
        L::number(out, "duration_ms", self.duration);
    }
}

impl Close<'_> {
    fn fields<L: Line>(&self, out: &mut Vec<u8>) {
        L::text(out, "cause", self.cause.as_bytes());
        code::<L>(out, "code", self.code);
        code::<L>(out, "client_code", self.client_code);
        code::<L>(out, "upstream_code", self.upstream_code);
        self.received.fields::<L>(out, ["messages_in", "bytes_in", "pings_in"]);
        self.sent.fields::<L>(out, ["messages_out", "bytes_out", "pings_out"]);
        if self.dropped > 0 {
            L::number(out, "messages_dropped", self.dropped);
        }
        if self.discarded > 0 {
            L::number(out, "bytes_discarded", self.discarded);
        }
        L::number(out, "duration_ms", self.duration);
    }
}

impl Traffic {
    fn fields<L: Line>(&self, out: &mut Vec<u8>, names: [&str; 3]) {
        let values = [self.messages, self.bytes, self.pings];
        names.into_iter().zip(values).for_each(|(name, value)| L::number(out, name, value));
    }
}

impl Refusal<'_> {
    fn fields<L: Line>(&self, out: &mut Vec<u8>) {
        L::number(out, "status", self.status.into());
        L::text(out, "reason", self.reason.as_bytes());
        L::number(out, "duration_ms", self.duration);
    }
}

impl PipeClose<'_> {
    fn fields<L: Line>(&self, out: &mut Vec<u8>) {
        L::text(out, "cause", self.cause.as_bytes());
        L::number(out, "bytes_in", self.bytes_in);
        L::number(out, "bytes_out", self.bytes_out);
        if self.discarded > 0 {
            L::number(out, "bytes_discarded", self.discarded);
        }
        L::number(out, "duration_ms", self.duration);
    }
}

impl TcpRefusal<'_> {
    fn fields<L: Line>(&self, out: &mut Vec<u8>) {
        L::text(out, "reason", self.reason.as_bytes());
        L::number(out, "duration_ms", self.duration);
    }
}
