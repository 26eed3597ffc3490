//! The relay: everything after the handshake.
//!
//! # Theory of operation
//! A relay has two sides, client and upstream, and each side an observer that checks what this side *sends* while the
//! bytes stream through. One task drives both directions. For each direction it does, in this order:
//!
//! 1. flush what the receiver has not taken yet, and stop here while it takes nothing (so we read from a side only
//!    while the other takes the bytes);
//! 2. put in a frame of our own (Ping, Close) if one is due and the direction is between frames;
//! 3. read once into the worker's scratch buffer, look at the frames in it, and write the same bytes on.
//!
//! Only what the socket refuses is copied. An incomplete frame header or control frame is held back until it is whole
//! (at most 139 bytes), so that a frame that breaks a rule is never passed on in part, and our own Pongs can be taken
//! out.
//!
//! How a relay ends is one table, in `ending.rs`. Time is the worker's business: it calls [`Relay::on_time`] when
//! [`Relay::next_deadline`] has come. The hot path only ever moves deadlines later, so nothing is re-armed there.

mod ending;
mod line;
mod metering;
mod metrics;
mod opaque;
mod outbox;
mod pinging;
mod pipe;
mod side;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub use self::ending::Order;
use self::metering::Metering;
pub use self::metrics::RelayMetrics;
pub use self::pipe::{Limits, Pipe, Piping};
pub use self::side::Role;
use self::side::{Heard, Ping, Side, Told};
use crate::error::Cause;
use crate::io::clock::{self, Millis};
use crate::io::turns::Turn;
use crate::io::{Stream, with_scratch};
use crate::snapshot::{Frames, IdleCounts, Liveness, WebSocket};
use crate::ws::{Control, ControlOpcode, Counts, Event, From, Observer, Rules, Stop};

/// How many times a direction is read before other connections have their turn: 256 KiB at most.
const READS_IN_A_ROW: usize = 4;

/// What a relay begins with.
#[derive(Debug)]
pub struct Start {
    pub client: Stream,
    pub upstream: Stream,
    pub settings: Arc<WebSocket>,
    /// Of the upstream's connection, where that is the WebSocket's own: it has not been told yet.
    pub liveness: Option<Liveness>,
    pub metrics: Arc<RelayMetrics>,
    /// Whether permessage-deflate was agreed on.
    pub deflate: bool,
    /// What each side sent behind its handshake.
    pub client_early: Vec<u8>,
    pub upstream_early: Vec<u8>,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub cause: Cause,
    /// The code of the Close each side sent: `Some(None)` is a Close without a code.
    pub client_close: Option<Option<u16>>,
    pub upstream_close: Option<Option<u16>>,
    /// The code of our own Close to the client.
    pub gateway_close: Option<Option<u16>>,
}

impl End {
    /// The code that ended it: the first side's that said one, else ours.
    pub fn code(&self) -> Option<u16> {
        let said = match self.cause {
            Cause::Client => self.client_close,
            Cause::Upstream => self.upstream_close,
            _ => self.gateway_close,
        };
        said.flatten()
    }
}

/// What has gone through so far.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    pub client: Counts,
    pub upstream: Counts,
    /// Bytes that came when nobody wanted them any more.
    pub discarded: u64,
    /// Messages of the client that were left out.
    pub dropped: u64,
}

/// Two connections and what passes between them.
#[derive(Debug)]
pub struct Relay {
    client: Side,
    upstream: Side,
    settings: Arc<WebSocket>,
    metrics: Arc<RelayMetrics>,
    cause: Option<Cause>,
    opened: Millis,
    /// When something that counts against idleness last passed.
    last_active: Millis,
    waker: Option<Waker>,
    early: Option<Box<(Vec<u8>, Vec<u8>)>>,
    /// Deadlines came nearer: the worker must look at [`Relay::next_deadline`] again.
    hurried: bool,
    turn: Turn,
    /// What the upstream's connection is still to be told.
    liveness: Option<Liveness>,
}

/// Drives a relay to its end. The worker keeps the other handle, for timers and commands.
#[derive(Debug)]
pub struct Running(pub Rc<RefCell<Relay>>);

impl Future for Running {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        with_scratch(|scratch| self.0.borrow_mut().poll(cx, scratch))
    }
}

impl Relay {
    pub fn new(start: Start) -> Self {
        let now = clock::now();
        let observer = |from, limit| Observer::new(Rules { from, deflate: start.deflate, max_message: limit });
        let limit = start.settings.max_message;
        let early = (!start.client_early.is_empty() || !start.upstream_early.is_empty())
            .then(|| Box::new((start.client_early, start.upstream_early)));
        let mut client = Side::new(start.client, observer(From::Client, limit), now);
        let mut upstream = Side::new(start.upstream, observer(From::Server, limit), now);
        client.metering = Metering::new(&start.settings, Role::Client, now);
        upstream.metering = Metering::new(&start.settings, Role::Upstream, now);
        Self {
            client,
            upstream,
            settings: start.settings,
            metrics: start.metrics,
            cause: None,
            opened: now,
            last_active: now,
            waker: None,
            early,
            hurried: false,
            turn: Turn::default(),
            liveness: start.liveness,
        }
    }

    /// Messages, frames and bytes so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            client: *self.client.observer.counts(),
            upstream: *self.upstream.observer.counts(),
            discarded: self.client.discarded + self.upstream.discarded,
            dropped: self.client.metering.as_ref().map_or(0, |metering| metering.dropped()),
        }
    }

    /// The Close code for a drain of this route.
    pub fn drain_code(&self) -> u16 {
        self.settings.close_codes.drain
    }

    /// Whether a deadline came nearer since the last call.
    pub fn take_hurried(&mut self) -> bool {
        std::mem::take(&mut self.hurried)
    }

    fn is_opaque(&self) -> bool {
        self.settings.frames == Frames::Opaque
    }

    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Upstream => &mut self.upstream,
        }
    }

    /// The sender and the receiver of a direction.
    fn direction(&mut self, from: Role) -> (&mut Side, &mut Side) {
        match from {
            Role::Client => (&mut self.client, &mut self.upstream),
            Role::Upstream => (&mut self.upstream, &mut self.client),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<End> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        if let Some(early) = self.early.take() {
            self.take(cx, Role::Client, &early.0);
            self.take(cx, Role::Upstream, &early.1);
        }
        loop {
            self.pump(cx, Role::Client, scratch);
            self.pump(cx, Role::Upstream, scratch);
            if self.cause.is_none() && !self.client.line.broken && !self.upstream.line.broken {
                return Poll::Pending;
            }
            if !self.settle(cx) {
                break;
            }
        }
        if self.client.is_finished() && self.upstream.is_finished() { Poll::Ready(self.end()) } else { Poll::Pending }
    }

    fn end(&self) -> End {
        End {
            cause: self.cause.unwrap_or(Cause::Internal),
            client_close: self.client.close_heard,
            upstream_close: self.upstream.close_heard,
            gateway_close: self.client.close_told,
        }
    }

    /// Moves one direction on until its sender has nothing, its receiver takes nothing, or it is the others' turn.
    fn pump(&mut self, cx: &mut Context<'_>, from: Role, scratch: &mut [u8]) {
        if self.turn.poll(cx).is_pending() {
            return;
        }
        for _ in 0..READS_IN_A_ROW {
            let (sender, receiver) = self.direction(from);
            if !receiver.line.flush(cx) {
                return sender.line.stream.take_in(cx);
            }
            if receiver.due.is_some() || receiver.ping == Ping::Due {
                self.speak(from.other());
                if !self.side(from.other()).line.flush(cx) {
                    return;
                }
            } else if sender.heard == Heard::Done {
                return;
            }
            if self.read(cx, from, scratch).is_pending() {
                return;
            }
        }
        self.turn.give_way(cx);
    }

    fn read(&mut self, cx: &mut Context<'_>, from: Role, scratch: &mut [u8]) -> Poll<()> {
        let sender = self.side(from);
        if sender.heard == Heard::Done {
            return Poll::Pending;
        }
        if std::task::ready!(self.poll_due(cx, from)) {
            return Poll::Ready(());
        }
        let sender = self.side(from);
        let held = sender.partial.len();
        if held > 0 {
            scratch[..held].copy_from_slice(&sender.partial);
        }
        match std::task::ready!(sender.line.stream.poll_read_watched(cx, &mut scratch[held..], &mut sender.line.watch))
        {
            Ok(0) | Err(_) => self.ended(from),
            Ok(read) => {
                sender.partial.clear();
                sender.last_heard = clock::now();
                self.take(cx, from, &scratch[..held + read]);
            }
        }
        Poll::Ready(())
    }

    /// Looks at what a side sent and passes it on.
    fn take(&mut self, cx: &mut Context<'_>, from: Role, bytes: &[u8]) {
        if self.is_opaque() {
            return self.take_opaque(cx, from, bytes);
        }
        if self.side(from).heard != Heard::Open {
            self.side(from).discarded += bytes.len() as u64;
            return;
        }
        self.refill(from);
        let before = *self.side(from).observer.counts();
        self.take_frames(cx, from, bytes);
        self.settle_debt(from);
        let sender = if from == Role::Client { &self.client } else { &self.upstream };
        let after = sender.observer.counts();
        self.metrics.count(from, &before, after);
        let has_data = after.bytes != before.bytes || after.messages() != before.messages();
        if has_data || (self.settings.idle_counts == IdleCounts::Any && after.frames != before.frames) {
            self.last_active = sender.last_heard;
        }
    }

    fn take_frames(&mut self, cx: &mut Context<'_>, from: Role, bytes: &[u8]) {
        let (mut start, mut at) = (0, 0);
        loop {
            let (sender, receiver) = self.direction(from);
            let (stop, skipped) = (receiver.wanted_stop(), sender.observer.is_skipping());
            let seen = sender.observe(&bytes[at..], stop);
            at += seen.forward;
            if skipped {
                start = at;
            }
            match seen.event {
                Event::More => {
                    self.pass(cx, from, &bytes[start..at]);
                    if at < bytes.len() {
                        self.side(from).partial.extend_from_slice(&bytes[at..]);
                    }
                    return;
                }
                Event::Control(control) => {
                    let whole = at + control.size;
                    match self.control(from, &control) {
                        Verdict::Pass if skipped => {
                            self.pass(cx, from, &bytes[at..whole]);
                            (start, at) = (whole, whole);
                        }
                        Verdict::Pass => at = whole,
                        Verdict::Swallow => {
                            // Or our own Pings would keep every connection from being idle.
                            self.side(from).observer.uncount_pong();
                            self.pass(cx, from, &bytes[start..at]);
                            (start, at) = (whole, whole);
                        }
                        Verdict::Last { pass } => {
                            self.pass(cx, from, &bytes[start..if pass { whole } else { at }]);
                            return self.closed(from, &control, pass);
                        }
                    }
                }
                Event::Boundary => {
                    self.pass(cx, from, &bytes[start..at]);
                    start = at;
                    self.speak(from.other());
                }
                Event::Violation(violation) => {
                    self.pass(cx, from, &bytes[start..at]);
                    return self.violated(from, &violation);
                }
                Event::Later => {
                    self.pass(cx, from, &bytes[start..at]);
                    return self.limited(from, &seen.event, &bytes[at..]);
                }
                Event::Skip => {
                    self.pass(cx, from, &bytes[start..at]);
                    start = at;
                    self.limited(from, &seen.event, &[]);
                }
                Event::Skipped => {}
                Event::SkipControl { size } => {
                    self.pass(cx, from, &bytes[start..at]);
                    (start, at) = (at + size, at + size);
                    self.limited(from, &seen.event, &[]);
                }
            }
        }
    }

    #[inline]
    fn pass(&mut self, cx: &mut Context<'_>, from: Role, bytes: &[u8]) {
        let (sender, receiver) = self.direction(from);
        if receiver.told == Told::Open {
            receiver.line.send(cx, bytes);
        } else {
            sender.discarded += bytes.len() as u64;
        }
    }

    fn control(&mut self, from: Role, control: &Control) -> Verdict {
        match control.opcode {
            ControlOpcode::Ping => {
                self.side(from.other()).foreign_ping = true;
                Verdict::Pass
            }
            ControlOpcode::Pong if self.is_our_pong(from, control.payload()) => Verdict::Swallow,
            ControlOpcode::Pong => {
                self.side(from).foreign_ping = false;
                Verdict::Pass
            }
            ControlOpcode::Close => Verdict::Last { pass: self.passes_close(from, control) },
        }
    }
}

/// What becomes of a control frame.
enum Verdict {
    Pass,
    Swallow,
    /// A Close: nothing after it counts.
    Last {
        pass: bool,
    },
}

impl Side {
    /// Where the observer of the other side should stop, so that we can put in what is due.
    fn wanted_stop(&self) -> Stop {
        match (&self.due, self.ping) {
            (Some(due), _) => due.place,
            (None, Ping::Due) => Stop::AtFrame,
            _ => Stop::Never,
        }
    }
}
