//! The tries of one exchange at an upstream: who is asked, in which order, and how often.
//!
//! A try is one endpoint that is dialled and, once there is a connection, asked. What may follow it:
//!
//! * Nothing was sent, as there was no connection: another try, if the rules say `connect`.
//! * The answer has a status that the rules name, and asking twice does no harm: another try.
//! * The connection was a kept one, which its peer had closed: the same try goes on over a new one.
//! * Anything else ends it: nobody knows what the endpoint has done.
//!
//! The next try goes to another endpoint, as long as there is one that was not tried. Each try also tells how the
//! endpoint does, for `eject`.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::connect::{Introduction, Seating, Trip};
use super::{Endpoint, Group, Link, Permit, Pools, Reached, Upstream, Wish};
use crate::error::{Refusal, refusal};
use crate::log::Events;
use crate::snapshot::{HttpVersion, Retry};

/// Why there was another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Connect,
    Status(u16),
    /// A kept connection had been closed.
    Kept,
}

/// What was tried, and what is left to try.
#[derive(Debug)]
pub struct Tries {
    upstream: Arc<Upstream>,
    group: Arc<Group>,
    rules: Retry,
    key: Option<u64>,
    /// What connections begin with.
    introduction: Option<Introduction>,
    seating: Seating,
    /// How long all of them together may wait for a seat.
    patience: Option<Duration>,
    tried: Vec<bool>,
    made: u32,
    /// Index of the endpoint of the last try.
    last: Option<usize>,
    /// Why the next try, if there is one, is made.
    why: Option<Again>,
    again: Vec<Again>,
}

impl Tries {
    /// No tries yet. `key` is what a hash goes by.
    pub fn new(upstream: &Arc<Upstream>, rules: &Retry, key: Option<u64>) -> Self {
        let group = upstream.endpoints.load_full();
        let tried = vec![false; group.endpoints.len()];
        let (upstream, rules) = (upstream.clone(), rules.clone());
        Self {
            upstream,
            group,
            rules,
            key,
            introduction: None,
            seating: Seating::default(),
            patience: None,
            tried,
            made: 0,
            last: None,
            why: None,
            again: Vec::new(),
        }
    }

    /// The same, over connections that name the client.
    pub fn introduced(self, introduction: Option<Introduction>) -> Self {
        Self { introduction, ..self }
    }

    /// The same, waiting for a connection so long at most; for as long as the caller likes where that is not said.
    pub fn patient(self, patience: Option<Duration>) -> Self {
        Self { patience, ..self }
    }

    /// How many were made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Why each one behind the first was made, and each kept connection replaced.
    pub fn again(&self) -> &[Again] {
        &self.again
    }

    /// A way to the endpoint of the next try: one that `pools` has, else a new one.
    ///
    /// # Errors
    /// The refusal for the client, when nothing is left to try.
    pub async fn reach(&mut self, pools: &Pools, wish: Wish, events: &Events) -> Result<Reached, Refusal> {
        let mut failure = self.nothing();
        while let Some(index) = self.next() {
            let wish = match wish {
                Wish::Request { .. } => Wish::Request { kept: self.again.last() != Some(&Again::Kept) },
                wish => wish,
            };
            match self.upstream.connect(&self.group.endpoints[index], wish, &self.trip(pools, events)).await {
                Ok(reached) => {
                    self.seating.spare.take();
                    return Ok(reached);
                }
                Err(refusal) if refusal == refusal::PENDING_FULL || refusal == refusal::PENDING_TIMEOUT => {
                    return Err(refusal);
                }
                Err(refusal) => failure = refusal,
            }
            if failure != refusal::OVERLOAD {
                self.failed(failure.reason, events);
            }
            if !self.rules.connect {
                break;
            }
            self.why = Some(Again::Connect);
        }
        self.seating.spare.take();
        Err(failure)
    }

    fn trip<'t>(&'t self, pools: &'t Pools, events: &'t Events) -> Trip<'t> {
        let (introduction, patience, seating) = (self.introduction.as_ref(), self.patience, &self.seating);
        Trip { pools, events, introduction, patience, seating }
    }

    /// All of them together have taken too long. Returns what to say of it: `refusal`, for which the endpoint of the
    /// last try is blamed, unless it was a connection that was waited for.
    pub fn late(&self, refusal: Refusal, events: &Events) -> Refusal {
        if self.seating.is_waiting.get() {
            return refusal::PENDING_TIMEOUT;
        }
        self.failed(refusal.reason, events);
        refusal
    }

    /// A new connection to the endpoint of the next try, for bytes that are not looked at.
    ///
    /// # Errors
    /// The refusal for the client, when nothing is left to try.
    pub async fn link(&mut self, pools: &Pools, events: &Events) -> Result<Link, Refusal> {
        match self.reach(pools, Wish::Bytes, events).await? {
            Reached::Link(link) => Ok(link),
            Reached::Crossing(_) => Err(refusal::UPSTREAM_PROTOCOL),
        }
    }

    /// The endpoint of the last try takes no WebSockets over this version: a connection of HTTP/1.1 to it, for the same
    /// try.
    ///
    /// # Errors
    /// The refusal for the client.
    pub async fn fall_back(
        &self,
        permit: Permit,
        version: HttpVersion,
        pools: &Pools,
        events: &Events,
    ) -> Result<Link, Refusal> {
        self.upstream.fall_back(permit, version, &self.trip(pools, events)).await
    }

    /// The endpoint of the last try has answered; statuses that say it cannot serve are failures.
    pub fn answered(&self, status: u16, events: &Events) {
        match (status, self.endpoint()) {
            (502..=504, _) => self.failed(format_args!("status {status}"), events),
            (_, Some(endpoint)) if self.upstream.eject.is_some() => endpoint.health.answered(),
            _ => {}
        }
    }

    /// The endpoint of the last try has taken a connection, and nothing is asked over it that would tell more.
    pub fn connected(&self) {
        if let Some(endpoint) = self.endpoint().filter(|_| self.upstream.eject.is_some()) {
            endpoint.health.answered();
        }
    }

    /// The endpoint of the last try has failed.
    pub fn failed(&self, why: impl Display, events: &Events) {
        if let Some(endpoint) = self.endpoint() {
            self.upstream.blame(endpoint, why, events);
        }
    }

    /// Whether this status is worth another try, and there is one. The next link is for it then.
    pub fn retries(&mut self, status: u16) -> bool {
        let retries = self.rules.statuses.contains(&status) && self.has_next();
        if retries {
            self.why = Some(Again::Status(status));
            self.seating.has_one.set(true);
        }
        retries
    }

    /// Whether the last try is already one over a connection that replaces another one.
    pub fn is_renewed(&self) -> bool {
        self.again.last() == Some(&Again::Kept)
    }

    /// The kept connection of the last try was closed; the next link is a new one to the same endpoint.
    pub fn renew(&mut self) {
        self.why = Some(Again::Kept);
    }

    fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.last.map(|last| &self.group.endpoints[last])
    }

    fn has_next(&self) -> bool {
        match self.rules.attempts {
            Some(attempts) => self.made < attempts && !self.tried.is_empty(),
            None => self.tried.contains(&false),
        }
    }

    fn next(&mut self) -> Option<usize> {
        let renewed = self.last.filter(|_| self.why == Some(Again::Kept));
        if renewed.is_none() {
            self.advance()?;
        }
        self.again.extend(self.why.take());
        self.last
    }

    fn advance(&mut self) -> Option<()> {
        if !self.has_next() {
            return None;
        }
        if !self.tried.contains(&false) {
            self.begin_again();
        }
        let index = self.pick().or_else(|| self.pick_again())?;
        self.tried[index] = true;
        self.last = Some(index);
        self.made += 1;
        Some(())
    }

    fn pick(&self) -> Option<usize> {
        self.upstream.pick(&self.group, self.key, &self.tried)
    }

    /// Those that are left are unhealthy: where each may be tried more than once, the others are.
    fn pick_again(&mut self) -> Option<usize> {
        self.rules.attempts?;
        self.begin_again();
        self.pick().or_else(|| {
            self.tried.fill(false);
            self.pick()
        })
    }

    /// What to say where there is nobody to ask.
    fn nothing(&self) -> Refusal {
        if self.group.endpoints.is_empty() { refusal::NO_ENDPOINT } else { refusal::NO_HEALTHY_ENDPOINT }
    }

    /// All were tried, and more tries are wanted: another one than the last, where there is another.
    fn begin_again(&mut self) {
        self.tried.fill(false);
        if let (Some(last), true) = (self.last, self.tried.len() > 1) {
            self.tried[last] = true;
        }
    }
}
