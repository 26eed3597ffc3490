//! The opaque relay: bytes as they are, any draft, any private dialect.
//!
//! It promises no pings, no message limits and no Close of ours. An end of one stream goes on to the other as FIN; the
//! remaining direction lives as long as bytes come through it.

use std::task::Context;

use super::Relay;
use super::side::{Heard, Role, Told};
use crate::error::Cause;
use crate::io::clock::{self, Millis};

/// How long the open half of a half-closed pipe may be silent.
const HALF_OPEN: Millis = 30_000;

impl Relay {
    pub(super) fn take_opaque(&mut self, cx: &mut Context<'_>, from: Role, bytes: &[u8]) {
        self.metrics.count_bytes(from, bytes.len() as u64);
        self.last_active = clock::now();
        let sender = self.side(from);
        sender.observer.count_unchecked(bytes.len() as u64);
        if sender.heard != Heard::Open {
            sender.discarded += bytes.len() as u64;
            return;
        }
        if sender.deadline.is_some() {
            sender.deadline = Some(clock::now() + HALF_OPEN);
        }
        self.pass(cx, from, bytes);
    }

    pub(super) fn ended_opaque(&mut self, from: Role) {
        self.cause.get_or_insert(if from == Role::Client { Cause::Client } else { Cause::Upstream });
        // Its sending is over, and nothing else: it hears the other side to the end.
        self.side(from).lost = false;
        let other = self.side(from.other());
        other.told = Told::Fin;
        if other.heard != Heard::Done {
            other.deadline = Some(clock::now() + HALF_OPEN);
        }
        self.hurry();
    }

    /// An end of ours: both streams end once what was read is delivered.
    pub(super) fn cut_opaque(&mut self) {
        let deadline = clock::now() + self.settings.close_timeout;
        for role in Role::BOTH {
            let side = self.side(role);
            side.due = None;
            side.told = Told::Fin;
            if side.heard == Heard::Open {
                side.heard = Heard::Ignored;
            }
            side.deadline = Some(deadline);
        }
    }
}
