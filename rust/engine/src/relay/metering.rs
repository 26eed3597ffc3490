//! Limits on what a side sends: how they slow it down, and what they leave out.
//!
//! What has to wait is backpressure and not a queue: nothing is read from that side until then. Only what the read that
//! went too far has brought along is kept, 64 KiB at most, and goes on before anything else is read.

use std::task::{Context, Poll};

use super::Relay;
use super::side::{Role, Side};
use crate::io::clock::{self, Millis};
use crate::policy::Allowance;
use crate::snapshot::WebSocket;
use crate::ws::{Event, Seen, Stop};

/// The allowance of a side, and what waits there.
#[derive(Debug)]
pub struct Metering {
    allowance: Allowance,
    /// Bytes that were read and wait.
    held: Vec<u8>,
    /// Until when nothing is read.
    until: Option<Millis>,
}

impl Metering {
    pub fn new(settings: &WebSocket, role: Role, now: Millis) -> Option<Box<Self>> {
        let allowance = Allowance::new(settings, role == Role::Client, now)?;
        Some(Box::new(Self { allowance, held: Vec::new(), until: None }))
    }

    /// Messages that were left out.
    pub fn dropped(&self) -> u64 {
        self.allowance.dropped()
    }
}

impl Side {
    /// Looks at what it sends, with its allowance where it has one.
    #[inline]
    pub(super) fn observe(&mut self, input: &[u8], stop: Stop) -> Seen {
        match &mut self.metering {
            None => self.observer.observe(input, stop),
            Some(metering) => self.observer.observe_at(&mut metering.allowance, input, stop),
        }
    }

    /// Until when nothing is read from it, where its limits say so.
    pub(super) fn waits_until(&self) -> Option<Millis> {
        self.metering.as_ref()?.until
    }
}

impl Relay {
    /// Goes on where a side had to wait; `Ready(false)` where nothing waits and it may be read.
    #[inline]
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>, from: Role) -> Poll<bool> {
        match &self.side(from).metering {
            None => Poll::Ready(false),
            Some(_) => self.poll_metered(cx, from),
        }
    }

    fn poll_metered(&mut self, cx: &mut Context<'_>, from: Role) -> Poll<bool> {
        let side = self.side(from);
        let Some(metering) = &mut side.metering else { return Poll::Ready(false) };
        let Some(until) = metering.until else { return Poll::Ready(false) };
        let now = clock::now();
        if now < until {
            side.line.stream.take_in(cx);
            return Poll::Pending;
        }
        metering.until = None;
        let held = std::mem::take(&mut metering.held);
        side.last_heard = now;
        if held.is_empty() {
            return Poll::Ready(false);
        }
        self.take(cx, from, &held);
        Poll::Ready(true)
    }

    /// Brings a side's buckets up to date, before what it has sent is looked at.
    #[inline]
    pub(super) fn refill(&mut self, from: Role) {
        let side = self.side(from);
        if let Some(metering) = &mut side.metering {
            metering.allowance.refill(side.last_heard);
        }
    }

    /// Reads on only when what has passed is paid for.
    #[inline]
    pub(super) fn settle_debt(&mut self, from: Role) {
        let Some(metering) = &self.side(from).metering else { return };
        if metering.until.is_none()
            && let Some(debt) = metering.allowance.debt()
        {
            self.pause(from, debt, &[]);
        }
    }

    /// What a side's allowance has to say about what comes next; the rest of `bytes` waits where that has to.
    pub(super) fn limited(&mut self, from: Role, event: &Event, rest: &[u8]) {
        match event {
            Event::Later => {
                let wait = self.side(from).metering.as_ref().map_or(0, |metering| metering.allowance.wait());
                self.pause(from, wait, rest);
            }
            _ => self.metrics.dropped(),
        }
    }

    fn pause(&mut self, from: Role, wait: Millis, rest: &[u8]) {
        self.metrics.delayed();
        if let Some(metering) = &mut self.side(from).metering {
            metering.held.extend_from_slice(rest);
            // The clock is coarse: one tick more, or it would still be too early then.
            metering.until = Some(clock::now() + wait + 1);
        }
        self.hurried = true;
    }

    /// When a side may be read again, while that is yet to come.
    pub(super) fn next_due(&self, now: Millis) -> Option<Millis> {
        let waits = [&self.client, &self.upstream].map(Side::waits_until);
        waits.into_iter().flatten().filter(|until| *until > now).min()
    }

    /// Whether a side had to wait, and has to no longer.
    pub(super) fn has_due(&self, now: Millis) -> bool {
        [&self.client, &self.upstream].into_iter().filter_map(Side::waits_until).any(|until| until <= now)
    }
}
