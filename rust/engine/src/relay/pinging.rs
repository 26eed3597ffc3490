//! Timers of an open relay: idleness, lifetime, and Pings that find out whether a silent side still lives.

use super::Relay;
use super::ending::Order;
use super::side::{Heard, Ping, Role, Side, Told};
use crate::error::Cause;
use crate::io::clock::{self, Millis};
use crate::io::random;
use crate::snapshot;
use crate::ws;

/// How long an end by idleness or age waits for the end of a message.
const PATIENCE: Millis = 5_000;
/// When the kernel is told how to find out that the upstream has gone. Four system calls are a part of what opening a
/// WebSocket costs, and one that is over by then has not needed them.
const SETTLED: Millis = 1_000;

impl Relay {
    /// When [`Relay::on_time`] wants to be called next.
    pub fn next_deadline(&self, now: Millis) -> Option<Millis> {
        let sides = [self.client.deadline, self.upstream.deadline];
        let dues = [&self.client.due, &self.upstream.due].map(|due| due.as_ref().map(|due| due.deadline(now)));
        let own = sides.into_iter().chain(dues).chain([self.next_due(now)]);
        if self.cause.is_some() {
            return own.flatten().min();
        }
        let idle = self.idle_deadline();
        let lifetime = self.settings.max_lifetime.map(|most| self.opened + most);
        let pings = Role::BOTH.map(|role| self.next_ping(role));
        let settled = self.liveness.map(|_| self.opened + SETTLED);
        own.chain([idle, lifetime, settled]).chain(pings).flatten().min()
    }

    /// Does what has become due.
    pub fn on_time(&mut self, now: Millis) {
        self.expire(now);
        if [&self.client, &self.upstream].iter().any(|side| side.due.as_ref().is_some_and(|due| now >= due.patience)) {
            self.wake();
        }
        if self.has_due(now) {
            self.wake();
        }
        if now >= self.opened + SETTLED
            && let Some(liveness) = self.liveness.take()
        {
            self.upstream.line.stream.set_liveness(&liveness);
        }
        if self.cause.is_none() {
            self.on_age(now);
        }
        if self.cause.is_none() {
            Role::BOTH.into_iter().for_each(|role| self.on_ping_time(role, now));
        }
    }

    /// When it will have been idle for too long. A side that must not be read is not.
    fn idle_deadline(&self) -> Option<Millis> {
        let waits = [&self.client, &self.upstream].map(Side::waits_until).into_iter().flatten().max();
        self.settings.idle_after.map(|after| self.last_active.max(waits.unwrap_or(0)) + after)
    }

    fn on_age(&mut self, now: Millis) {
        let codes = self.settings.close_codes;
        let order = |cause, code, reason: &'static str| Order {
            cause,
            code,
            reason: reason.into(),
            retry: None,
            patience: PATIENCE,
        };
        if self.settings.max_lifetime.is_some_and(|most| now >= self.opened + most) {
            self.close(&order(Cause::Lifetime, codes.lifetime, "gw: lifetime"));
        } else if self.idle_deadline().is_some_and(|deadline| now >= deadline) {
            self.close(&order(Cause::Idle, codes.idle, "gw: idle"));
        }
    }

    fn pings(&self, role: Role) -> Option<&snapshot::Ping> {
        let wanted = |ping: &&snapshot::Ping| if role == Role::Client { ping.downstream } else { ping.upstream };
        self.settings.ping.as_ref().filter(wanted).filter(|_| !self.is_opaque())
    }

    fn seen(&self, role: Role) -> &Side {
        match role {
            Role::Client => &self.client,
            Role::Upstream => &self.upstream,
        }
    }

    fn next_ping(&self, role: Role) -> Option<Millis> {
        let rule = self.pings(role)?;
        let side = self.seen(role);
        match side.ping {
            Ping::Sent { at, .. } => Some(at.max(side.last_heard) + rule.timeout),
            Ping::None | Ping::Late { .. } => Some(side.last_heard + rule.every),
            // Waits for the end of a frame, not for a time.
            Ping::Due => None,
        }
    }

    /// Asks a silent side for a sign of life, and gives it up when none came.
    fn on_ping_time(&mut self, role: Role, now: Millis) {
        let Some(&rule) = self.pings(role) else { return };
        // While the other side takes nothing we do not read this one, so its silence proves nothing.
        let reading = !self.seen(role.other()).line.has_unsent() && self.seen(role).waits_until().is_none();
        let side = self.side(role);
        match side.ping {
            // Not only later: the clock is coarse, and a near peer answers within the same millisecond.
            Ping::Sent { token, at } if side.last_heard >= at => side.ping = Ping::Late { token, at },
            Ping::Sent { token, .. } if !reading => side.ping = Ping::Sent { token, at: now },
            Ping::Sent { at, .. } if now >= at + rule.timeout => self.ping_lost(role),
            Ping::Sent { .. } | Ping::Due => {}
            Ping::None | Ping::Late { .. } if now < side.last_heard + rule.every => {}
            // A foreign Ping is unanswered: it asks the same question, and a second one might hide its Pong.
            Ping::None | Ping::Late { .. } if side.foreign_ping => side.ping = Ping::Sent { token: 0, at: now },
            Ping::None | Ping::Late { .. } => {
                side.ping = Ping::Due;
                self.wake();
            }
        }
    }

    /// Puts in the Ping that is due.
    pub(super) fn speak_ping(&mut self, to: Role) {
        let (receiver, sender) = self.direction(to);
        if receiver.ping != Ping::Due || !sender.observer.at_frame_boundary() {
            return;
        }
        if receiver.told != Told::Open || receiver.heard != Heard::Open {
            receiver.ping = Ping::None;
            return;
        }
        // Never 0, which stands for a foreign Ping; and not to be guessed, or a Pong could come before its Ping.
        let token = u64::from_ne_bytes(random::bytes()) | 1;
        let mask = (to == Role::Upstream).then(random::bytes);
        ws::frame::write_ping(receiver.line.outbox.tail(), mask, &token.to_be_bytes());
        receiver.ping = Ping::Sent { token, at: clock::now() };
        self.hurried = true;
    }

    /// Whether a Pong answers our Ping; then it is ours to swallow.
    pub(super) fn is_our_pong(&mut self, from: Role, payload: &[u8]) -> bool {
        let side = self.side(from);
        let (Ping::Sent { token, at } | Ping::Late { token, at }) = side.ping else { return false };
        if token == 0 || payload != token.to_be_bytes() {
            return false;
        }
        side.ping = Ping::None;
        self.metrics.pong(from, clock::now().saturating_sub(at));
        // The next Ping may be due before this one's deadline would have been.
        self.hurried = true;
        true
    }
}
