//! The pipe: two connections and the bytes between them, for TCP and tunnels.
//!
//! # Theory of operation
//! It moves bytes as the relay does (see its theory): one task, one scratch buffer of the worker, a direction is read
//! only while its receiver has taken everything, and only what a socket refuses is copied and kept. Nothing else is
//! done for a message: it costs a read, a write, two additions and a look at the coarse clock.
//!
//! | what happens to a side | the other side |
//! |---|---|
//! | it ends its sending (FIN) | gets all of it, then FIN; its own bytes go on coming (RFC 9293 §3.6) |
//! | it is lost (reset; over TLS an end without `close_notify`) | gets what was read, then a reset, because a FIN would make a part look like the whole |
//! | it takes nothing any more | is not read any more; what the side still says comes through |
//! | an end of ours | both get what was read, then FIN; after two seconds a reset |
//!
//! An end of ours may come at any time, a half-closed pipe included. The cause is the first end of a side, unless a
//! loss or an end of ours cuts short what went on behind it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::line::Line;
use super::side::Role;
use crate::error::Cause;
use crate::io::clock::{self, Millis};
use crate::io::turns::Turn;
use crate::io::{Stream, with_scratch};
use crate::metrics::Cell;

/// How long bytes before an end of ours, or a loss, may take to be delivered.
const DELIVERY: Millis = 2_000;

/// How long a pipe may live.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a byte either way; `None` is for ever.
    pub idle: Option<Millis>,
    pub lifetime: Option<Millis>,
}

/// One side.
#[derive(Debug)]
struct Half {
    line: Line,
    /// Bytes that came from it.
    said: u64,
    /// Counts what comes from it.
    counter: Arc<Cell>,
    /// Nothing more is read from it.
    ended: bool,
    /// Nothing more goes to it: FIN is out, or it takes nothing.
    shut: bool,
    /// Its stream failed before its end: the other side must not take a part for the whole.
    lost: bool,
}

impl Half {
    fn new(stream: Stream, counter: Arc<Cell>) -> Self {
        Self { line: Line::new(stream), said: 0, counter, ended: false, shut: false, lost: false }
    }

    fn count(&mut self, bytes: u64) {
        self.said += bytes;
        self.counter.add(bytes);
    }
}

/// Two connections and what passes between them.
#[derive(Debug)]
pub struct Pipe {
    client: Half,
    upstream: Half,
    limits: Limits,
    /// The first reason to end; the pipe may still be delivering.
    cause: Option<Cause>,
    /// The end cannot be put off any more.
    closing: bool,
    /// When what is being delivered at the end is given up.
    deadline: Option<Millis>,
    opened: Millis,
    last_active: Millis,
    discarded: u64,
    waker: Option<Waker>,
    /// The deadline came nearer: the worker must look at [`Pipe::next_deadline`] again.
    hurried: bool,
    turn: Turn,
}

/// Drives a pipe to its end. The worker keeps the other handle, for timers and commands.
#[derive(Debug)]
pub struct Piping(pub Rc<RefCell<Pipe>>);

impl Future for Piping {
    type Output = Cause;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Cause> {
        with_scratch(|scratch| self.0.borrow_mut().poll(cx, scratch))
    }
}

impl Pipe {
    /// A pipe between the streams of the client and the upstream. `early` is what they have said already; `counters`
    /// count what comes from them.
    pub fn new(streams: [Stream; 2], early: [&[u8]; 2], limits: Limits, counters: [Arc<Cell>; 2]) -> Self {
        let now = clock::now();
        let [client, upstream] = streams;
        let [from_client, from_upstream] = counters;
        let mut pipe = Self {
            client: Half::new(client, from_client),
            upstream: Half::new(upstream, from_upstream),
            limits,
            cause: None,
            closing: false,
            deadline: None,
            opened: now,
            last_active: now,
            discarded: 0,
            waker: None,
            hurried: false,
            turn: Turn::default(),
        };
        for (role, early) in Role::BOTH.into_iter().zip(early).filter(|(_, early)| !early.is_empty()) {
            let (sender, receiver) = pipe.direction(role);
            sender.count(early.len() as u64);
            receiver.line.outbox.push(early);
        }
        pipe
    }

    /// Bytes that came from the client and from the upstream so far.
    pub fn received(&self) -> [u64; 2] {
        [self.client.said, self.upstream.said]
    }

    /// Bytes that came and could not be delivered.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    /// When bytes last came.
    pub fn last_active(&self) -> Millis {
        self.last_active
    }

    /// When [`Pipe::on_time`] wants to be called next.
    pub fn next_deadline(&self) -> Option<Millis> {
        let idle = self.limits.idle.map(|after| self.last_active + after);
        let lifetime = self.limits.lifetime.map(|most| self.opened + most);
        let limits = [idle, lifetime].into_iter().filter(|_| !self.closing);
        limits.chain([self.deadline]).flatten().min()
    }

    /// Does what has become due.
    pub fn on_time(&mut self, now: Millis) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.cut(Cause::Internal);
        } else if self.limits.lifetime.is_some_and(|most| now >= self.opened + most) {
            self.close(Cause::Lifetime);
        } else if self.limits.idle.is_some_and(|after| now >= self.last_active + after) {
            self.close(Cause::Idle);
        }
    }

    /// Ends it: nothing more is read, and what was read is delivered. Nothing happens if it is ending already.
    pub fn close(&mut self, cause: Cause) {
        if self.closing {
            return;
        }
        self.end(cause);
        self.client.ended = true;
        self.upstream.ended = true;
        self.wake();
    }

    /// Ends it now, whatever is under way: with a reset, where FIN is not out yet.
    pub fn cut(&mut self, cause: Cause) {
        if !self.closing {
            self.end(cause);
        }
        for role in Role::BOTH {
            let half = self.half(role);
            if !half.shut {
                half.line.stream.reset_when_dropped();
            }
            (half.ended, half.shut) = (true, true);
            self.fail(role);
        }
        self.wake();
    }

    /// Whether the deadline came nearer since the last call.
    pub fn take_hurried(&mut self) -> bool {
        std::mem::take(&mut self.hurried)
    }

    fn end(&mut self, cause: Cause) {
        self.cause = Some(cause);
        self.closing = true;
        self.deadline = Some(clock::now() + DELIVERY);
        self.hurried = true;
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn half(&mut self, role: Role) -> &mut Half {
        match role {
            Role::Client => &mut self.client,
            Role::Upstream => &mut self.upstream,
        }
    }

    /// The sender and the receiver of a direction.
    fn direction(&mut self, from: Role) -> (&mut Half, &mut Half) {
        match from {
            Role::Client => (&mut self.client, &mut self.upstream),
            Role::Upstream => (&mut self.upstream, &mut self.client),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Cause> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        self.pump(cx, Role::Client, scratch);
        self.pump(cx, Role::Upstream, scratch);
        match self.cause {
            None => Poll::Pending,
            Some(cause) => self.settle(cx).map(|()| self.cause.unwrap_or(cause)),
        }
    }

    /// Moves one direction on until its sender has nothing, its receiver takes nothing, or it is the others' turn.
    fn pump(&mut self, cx: &mut Context<'_>, from: Role, scratch: &mut [u8]) {
        if self.turn.poll(cx).is_pending() {
            return;
        }
        for _ in 0..super::READS_IN_A_ROW {
            let (sender, receiver) = self.direction(from);
            let flushed = receiver.line.flush(cx);
            if receiver.line.broken && !receiver.shut {
                return self.refused(from.other());
            }
            if !flushed {
                return sender.line.stream.take_in(cx);
            }
            if sender.ended {
                return;
            }
            match sender.line.stream.poll_read_watched(cx, scratch, &mut sender.line.watch) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => return self.ended(from),
                Poll::Ready(Err(_)) => return self.lost(from),
                Poll::Ready(Ok(read)) => {
                    sender.count(read as u64);
                    receiver.line.send(cx, &scratch[..read]);
                    self.last_active = clock::now();
                }
            }
        }
        self.turn.give_way(cx);
    }

    /// A side has ended its sending.
    fn ended(&mut self, role: Role) {
        self.half(role).ended = true;
        self.cause.get_or_insert(if role == Role::Client { Cause::Client } else { Cause::Upstream });
    }

    /// A side's stream failed before its end.
    fn lost(&mut self, role: Role) {
        self.end(if role == Role::Client { Cause::ClientLost } else { Cause::UpstreamLost });
        let (half, other) = self.direction(role);
        (half.ended, half.shut, half.lost) = (true, true, true);
        other.ended = true;
        self.fail(role);
    }

    /// A side takes nothing any more. If it had not ended its sending, it is on its way out: reading tells.
    fn refused(&mut self, role: Role) {
        let (half, other) = self.direction(role);
        half.shut = true;
        other.ended = true;
        self.cause.get_or_insert(if role == Role::Client { Cause::ClientLost } else { Cause::UpstreamLost });
        self.fail(role);
    }

    fn fail(&mut self, role: Role) {
        self.discarded += self.half(role).line.fail() as u64;
    }

    /// Takes every step towards the end that has become possible. Ready at the end.
    fn settle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for from in Role::BOTH {
            self.finish_sending(cx, from);
        }
        let is_over = Role::BOTH.into_iter().all(|role| self.half(role).ended && self.half(role).shut);
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// What a side is told when nothing more comes from the other.
    fn finish_sending(&mut self, cx: &mut Context<'_>, from: Role) {
        let (sender, receiver) = self.direction(from);
        if !sender.ended || receiver.shut || receiver.line.has_unsent() {
            return;
        }
        let stream = &mut receiver.line.stream;
        if sender.lost {
            stream.abort();
            receiver.shut = true;
        } else {
            let done = if receiver.ended { stream.poll_close(cx) } else { stream.poll_shutdown(cx) };
            receiver.shut = done.is_ready();
        }
    }
}
