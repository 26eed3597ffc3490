//! How a relay ends: the one place that changes what a side has heard and been told.
//!
//! | what happens | the side it came from | the other side |
//! |---|---|---|
//! | a valid Close | answers are awaited | gets it untouched |
//! | the client is lost | FIN | FIN, or a Close where `on_client_lost` says one |
//! | the upstream is lost | FIN | `close_codes.upstream_lost`; the client's own code if it had said a sound one |
//! | a broken rule | 1002 or 1009, after what the other side still had to say | 1001 (upstream) or 1011 (client) |
//! | an end of ours | – | the client gets our code first; the upstream 1001 after the client's Close, end or 2 s |
//!
//! The first cause stays. A Close of ours goes only between frames of its direction; where the sender is gone in the
//! middle of a frame there is no such place, and the stream is cut. Once a side has been told a Close, each next step
//! has a deadline: the Close leaves the queue, the peer answers, the peer ends. After the last one the socket closes,
//! with a reset only if bytes are still unsent.

use std::borrow::Cow;
use std::task::Context;

use super::side::{Due, Heard, Role, Side, Told};
use super::{Control, Relay};
use crate::error::Cause;
use crate::io::clock::{self, Millis};
use crate::io::random;
use crate::snapshot::WebSocket;
use crate::ws::{self, Stop, Violation};

/// How long the answer to a peer's own Close may take: its application may still have much to say, but a peer that
/// has vanished must not hold the connection.
const FOREIGN_CLOSE: Millis = 30_000;
/// How long valid bytes before an end may take to be delivered, and a Close of ours may wait for its place.
const DELIVERY: Millis = 2_000;

const GOING_AWAY: u16 = 1001;
const INTERNAL: u16 = 1011;

/// An end that the gateway decided on.
#[derive(Clone, Debug)]
pub struct Order {
    pub cause: Cause,
    pub code: u16,
    pub reason: Cow<'static, str>,
    /// Seconds after which the client should come back.
    pub retry: Option<u8>,
    /// How long it may wait for the end of a message.
    pub patience: Millis,
}

impl Relay {
    /// Ends the relay as `order` says; nothing happens if it is ending already.
    pub fn close(&mut self, order: &Order) {
        if self.cause.is_some() {
            return;
        }
        self.cause = Some(order.cause);
        let patience = clock::now() + order.patience;
        self.client.due = Some(Due {
            code: Some(order.code),
            reason: order.reason.clone(),
            retry: order.retry,
            place: Stop::AtMessage,
            patience,
        });
        if self.is_opaque() {
            self.cut_opaque();
        }
        self.hurry();
    }

    /// Ends it now, whatever is under way.
    pub fn cut(&mut self, cause: Cause) {
        self.cause.get_or_insert(cause);
        for role in Role::BOTH {
            let side = self.side(role);
            side.due = None;
            side.line.fail();
            side.heard = Heard::Done;
        }
        self.wake();
    }

    pub(super) fn hurry(&mut self) {
        self.hurried = true;
        self.wake();
    }

    /// Whether a Close of this side goes on to the other: not when it answers ours, or the other has been told one.
    pub(super) fn passes_close(&mut self, from: Role, control: &Control) -> bool {
        let (sender, receiver) = self.direction(from);
        let answers_ours = sender.close_told.is_some_and(|told| told == control.code);
        let is_condemned = receiver.due.as_ref().is_some_and(|due| due.place == Stop::Never);
        receiver.told == Told::Open && !answers_ours && !is_condemned
    }

    /// A side's Close was seen, and passed on or not.
    pub(super) fn closed(&mut self, from: Role, control: &Control, passed: bool) {
        let now = clock::now();
        self.cause.get_or_insert(if from == Role::Client { Cause::Client } else { Cause::Upstream });
        let (sender, receiver) = self.direction(from);
        sender.heard = Heard::Close;
        sender.close_heard = Some(control.code);
        sender.is_answerable = ws::close::is_sound(control.payload());
        if passed {
            receiver.due = None;
            receiver.tell_close(now + FOREIGN_CLOSE);
        }
        self.hurry();
    }

    /// A side's stream ended or failed.
    pub(super) fn ended(&mut self, from: Role) {
        self.side(from).end_of_stream();
        if self.is_opaque() {
            return self.ended_opaque(from);
        }
        let lost = if from == Role::Client { Cause::ClientLost } else { Cause::UpstreamLost };
        self.cause.get_or_insert(lost);
        let limit = clock::now() + self.settings.close_timeout;
        let other = self.side(from.other());
        if other.told != Told::Open {
            other.hasten(limit);
        }
        self.hurry();
    }

    /// A side broke a rule of the protocol. The other one is told at once. What it still says, in answer to all that
    /// was valid, goes to the offender before the offender's own Close.
    pub(super) fn violated(&mut self, from: Role, violation: &Violation) {
        let mut code = violation.close_code();
        let cause = match *violation {
            Violation::TooFast => Cause::Rate,
            _ if code == ws::close::TOO_BIG => Cause::MessageTooBig,
            _ => Cause::ProtocolError,
        };
        match cause {
            Cause::Rate => {
                code = self.settings.close_codes.rate;
                self.metrics.outpaced();
            }
            _ if self.cause.is_none() => self.metrics.violation(from),
            _ => {}
        }
        self.cause.get_or_insert(cause);
        let patience = clock::now() + DELIVERY;
        let innocent = if from == Role::Client { GOING_AWAY } else { INTERNAL };
        let told = match cause {
            Cause::Rate => "gw: the other side was too fast",
            _ => "gw: the other side broke the protocol",
        };
        let (offender, other) = self.direction(from);
        offender.heard = Heard::Ignored;
        offender.partial = Vec::new();
        offender.expect_last(code, format!("gw: {}", violation.text()), patience);
        other.expect(innocent, told, patience);
        self.hurry();
    }

    /// A side did not answer our Ping in time.
    pub(super) fn ping_lost(&mut self, role: Role) {
        if self.cause.is_some() {
            return;
        }
        self.cause = Some(Cause::PingTimeout);
        let upstream_lost = self.settings.close_codes.upstream_lost;
        let patience = clock::now() + DELIVERY;
        let (dead, other) = self.direction(role);
        dead.heard = Heard::Ignored;
        dead.expect(GOING_AWAY, "gw: ping timeout", patience);
        match role {
            Role::Client => other.expect(GOING_AWAY, "gw: client ping timeout", patience),
            Role::Upstream => other.expect(upstream_lost, "gw: upstream ping timeout", patience),
        }
        self.hurry();
    }

    /// Puts in what is due for a side, if its direction is at a place for it.
    pub(super) fn speak(&mut self, to: Role) {
        self.speak_ping(to);
        let Some(due) = self.side(to).due.take() else { return };
        let (receiver, sender) = self.direction(to);
        if receiver.told != Told::Open {
            return;
        }
        let boundary = sender.observer.at_frame_boundary();
        let now = clock::now();
        let no_more = sender.heard != Heard::Open || now >= due.patience;
        let place = match due.place {
            Stop::AtMessage => sender.observer.at_message_boundary(),
            Stop::AtFrame => boundary,
            Stop::Never => false,
        };
        if place || (no_more && boundary) {
            receiver.say_close(to, &due);
            receiver.tell_close(now + DELIVERY);
            self.hurry();
        } else if no_more {
            receiver.told = Told::Fin;
            receiver.deadline = Some(now + DELIVERY);
            self.hurry();
        } else {
            receiver.due = Some(due);
        }
    }

    /// Takes every step that has become possible. True when there may be more to pump.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) -> bool {
        let now = clock::now();
        let mut moved = false;
        for role in Role::BOTH {
            moved |= self.farewell(role, now);
        }
        let timeout = self.settings.close_timeout;
        for role in Role::BOTH {
            moved |= self.side(role).note_close_gone(now, timeout);
            moved |= self.finish_sending(cx, role, now);
        }
        moved
    }

    /// What a side is told because nothing more comes from the other.
    fn farewell(&mut self, from: Role, now: Millis) -> bool {
        let cause = self.cause.unwrap_or(Cause::Internal);
        let settings = self.settings.clone();
        let opaque = self.is_opaque();
        let (sender, receiver) = self.direction(from);
        let gone = match sender.heard {
            Heard::Done => true,
            // The client answered our Close: now the upstream may hear of the end.
            Heard::Close => sender.close_told.is_some(),
            Heard::Ignored => sender.line.broken,
            // Even one that cannot be written to may have left its last words to be read.
            Heard::Open => false,
        };
        if opaque || !gone || receiver.told != Told::Open || receiver.due.is_some() || receiver.line.broken {
            return false;
        }
        match last_words(cause, from, receiver, &settings) {
            Some((code, reason)) => {
                let patience = now + DELIVERY;
                receiver.due = Some(Due { code, reason: reason.into(), retry: None, place: Stop::AtFrame, patience });
            }
            None => {
                receiver.told = Told::Fin;
                receiver.hasten(now + settings.close_timeout);
            }
        }
        self.hurried = true;
        true
    }

    /// FIN, where nothing more is to be said to a side.
    fn finish_sending(&mut self, cx: &mut Context<'_>, role: Role, now: Millis) -> bool {
        let timeout = self.settings.close_timeout;
        let other_done = self.side(role.other()).heard == Heard::Done;
        let side = self.side(role);
        if side.shut || side.line.broken || side.line.has_unsent() || side.due.is_some() {
            return side.line.broken && side.give_up_reading(now);
        }
        let ready = match side.told {
            Told::Fin => true,
            // RFC 6455 §7.1.1: the server closes the TCP connection first, so the upstream is left to do it.
            Told::Close => match side.heard {
                Heard::Close if role == Role::Upstream => {
                    side.hasten(now + timeout);
                    false
                }
                Heard::Close | Heard::Ignored | Heard::Done => true,
                Heard::Open => false,
            },
            Told::Open => side.heard == Heard::Done && (side.lost || other_done),
        };
        let has_ended = side.heard == Heard::Done || side.has_parted(role);
        if !ready
            || (if has_ended { side.line.stream.poll_close(cx) } else { side.line.stream.poll_shutdown(cx) })
                .is_pending()
        {
            return false;
        }
        if has_ended {
            side.heard = Heard::Done;
        }
        side.told = Told::Fin;
        side.shut = true;
        side.hasten(now + timeout);
        self.hurried = true;
        true
    }

    /// Deals with sides whose deadline has passed.
    pub(super) fn expire(&mut self, now: Millis) {
        for role in Role::BOTH {
            let side = self.side(role);
            let stuck = side.due.as_ref().is_some_and(|due| now >= due.patience + DELIVERY);
            if !stuck && side.deadline.is_none_or(|deadline| now < deadline) {
                continue;
            }
            if stuck {
                side.line.fail();
            }
            (side.deadline, side.due) = (None, None);
            if side.line.has_unsent() || (side.told == Told::Fin && !side.shut) {
                side.line.fail();
            }
            if side.told != Told::Open || side.line.broken {
                side.heard = Heard::Done;
            }
            self.cause.get_or_insert(if role == Role::Client { Cause::ClientLost } else { Cause::UpstreamLost });
            self.hurry();
        }
    }
}

/// The Close for a receiver after the sender is gone; `None` is FIN alone.
fn last_words(cause: Cause, gone: Role, receiver: &Side, settings: &WebSocket) -> Option<(Option<u16>, &'static str)> {
    if let Some(code) = receiver.close_heard {
        // It had said goodbye; the one who should have answered is gone, perhaps for what the goodbye was.
        return receiver.is_answerable.then_some((code, ""));
    }
    match (gone, cause) {
        (Role::Client, Cause::ClientLost | Cause::Client) => {
            settings.on_client_lost.map(|code| (Some(code), "gw: client lost"))
        }
        (Role::Client, _) => Some((Some(GOING_AWAY), "gw: the gateway closed the connection")),
        (Role::Upstream, _) => Some((Some(settings.close_codes.upstream_lost), "gw: upstream lost")),
    }
}

impl Due {
    /// When it has to be looked at: at the end of its patience for a good place, and then of ours for any.
    pub(super) fn deadline(&self, now: Millis) -> Millis {
        if now < self.patience { self.patience } else { self.patience + DELIVERY }
    }
}

impl Side {
    /// Puts a Close of ours in the outbox.
    fn say_close(&mut self, role: Role, due: &Due) {
        let mask = (role == Role::Upstream).then(random::bytes);
        match (due.code, due.retry) {
            (None, _) => ws::frame::write_empty_close(self.line.outbox.tail(), mask),
            (Some(code), None) => ws::frame::write_close(self.line.outbox.tail(), mask, code, &due.reason),
            (Some(code), Some(seconds)) => {
                let reason = format!("{}; retry={seconds}s", due.reason);
                ws::frame::write_close(self.line.outbox.tail(), mask, code, &reason);
            }
        }
        self.close_told = Some(due.code);
    }

    /// Whether both have said Close and the next step is ours alone: a client says nothing more behind its own, and so
    /// there is nothing to wait for (RFC 6455 §5.5.1, §7.1.1). One that did say more might lose our Close to the reset
    /// that a closed socket answers with.
    fn has_parted(&self, role: Role) -> bool {
        role == Role::Client && self.heard == Heard::Close && self.discarded == 0 && self.line.stream.is_socket()
    }

    /// A Close is the last frame in the outbox; it has until `deadline` to go and be answered.
    fn tell_close(&mut self, deadline: Millis) {
        self.told = Told::Close;
        self.deadline = Some(deadline);
    }

    /// The close handshake's time starts when the Close has left the queue.
    fn note_close_gone(&mut self, now: Millis, timeout: Millis) -> bool {
        if self.told != Told::Close || self.close_gone || self.line.has_unsent() {
            return false;
        }
        self.close_gone = true;
        if self.close_told.is_some() {
            self.deadline = Some(now + timeout);
        }
        true
    }

    /// Makes a Close due, unless one is on its way.
    fn expect(&mut self, code: u16, reason: impl Into<Cow<'static, str>>, patience: Millis) {
        self.expect_at(Stop::AtFrame, code, reason.into(), patience);
    }

    /// Makes a Close due for when the other side has said its last word.
    fn expect_last(&mut self, code: u16, reason: impl Into<Cow<'static, str>>, patience: Millis) {
        self.expect_at(Stop::Never, code, reason.into(), patience);
    }

    fn expect_at(&mut self, place: Stop, code: u16, reason: Cow<'static, str>, patience: Millis) {
        if self.told == Told::Open {
            self.due = Some(Due { code: Some(code), reason, retry: None, place, patience });
        }
    }

    pub(super) fn hasten(&mut self, deadline: Millis) {
        self.deadline = Some(self.deadline.map_or(deadline, |old| old.min(deadline)));
    }

    /// A side that cannot be written to will end by itself; this bounds the wait for it.
    fn give_up_reading(&mut self, now: Millis) -> bool {
        let first = self.heard != Heard::Done && self.deadline.is_none();
        if first {
            self.deadline = Some(now + FOREIGN_CLOSE);
        }
        first
    }
}
