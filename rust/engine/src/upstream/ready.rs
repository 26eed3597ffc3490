//! Dialling ahead: `pool.ready` connections stand ready for each endpoint and worker, so that who comes need not wait
//! for the network, nor for TLS.
//!
//! For bytes they are whole, TLS included; where each must begin with a PROXY header, which names who comes, it is the
//! TCP connection alone. For HTTP/1.1 they are idle connections like those that have carried a request, and count with
//! them. There are none to an endpoint that is ejected or unhealthy, or that has chosen HTTP/2, and none that somebody
//! waits for a seat for.
//!
//! What comes to nothing, or is closed as soon as it is there, is tried again after a second, then after twice as long
//! each time, up to half a minute.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use tokio::sync::Notify;

use super::dial::{connect_only, dial, has_agreed_on_h2};
use super::pool::{self, BYTES, Key, Ready};
use super::{Endpoint, Pools, Speaks, Upstream};
use crate::error::{Refusal, refusal};
use crate::io::Stream;
use crate::io::clock::{self, Millis};
use crate::snapshot::Protocol;
use crate::tls::Alpn;

/// The first pause behind a failure, and the longest.
const PAUSE: Millis = 1_000;
const LONGEST_PAUSE: Millis = 30_000;
/// A connection that was closed sooner than this has come to nothing.
const SOON: Millis = 2_000;

/// What connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Http,
    Bytes,
}

/// What a worker dials ahead.
#[derive(Debug, Default)]
pub struct Ahead {
    under_way: RefCell<HashMap<Key, Course>>,
    /// One was taken: there may be too few.
    pub spent: Notify,
}

#[derive(Debug, Default)]
struct Course {
    dialling: usize,
    failures: u32,
    /// When there may be another try.
    again: Millis,
}

impl Ahead {
    /// How many may be dialled, where so many are missing.
    fn may_dial(&self, key: &Key, missing: usize) -> usize {
        let under_way = self.under_way.borrow();
        match under_way.get(key) {
            Some(course) if course.again > clock::now() => 0,
            // After a failure one must succeed before there are more.
            Some(course) if course.failures > 0 => missing.min(1).saturating_sub(course.dialling),
            Some(course) => missing.saturating_sub(course.dialling),
            None => missing,
        }
    }

    /// One that nobody had used yet was looked at when it was this old.
    pub fn observed(&self, key: Key, age: Millis, is_good: bool) {
        match (is_good, age < SOON) {
            (true, false) => self.change(key, |course| course.failures = 0),
            (false, true) => self.change(key, Course::failed),
            _ => {}
        }
    }

    fn change(&self, key: Key, change: impl FnOnce(&mut Course)) {
        change(self.under_way.borrow_mut().entry(key).or_default());
    }

    /// Forgets what is wanted no more.
    pub fn retain(&self, wanted: impl Fn(&Key) -> bool) {
        self.under_way.borrow_mut().retain(|key, course| course.dialling > 0 || wanted(key));
    }
}

impl Course {
    fn failed(&mut self) {
        self.failures += 1;
        self.again = clock::now() + (PAUSE << (self.failures - 1).min(8)).min(LONGEST_PAUSE);
    }
}

impl Upstream {
    /// The endpoints to which connections should stand ready, and the keys that those have in a pool.
    pub fn readied(&self, kind: Kind) -> impl Iterator<Item = (Arc<Endpoint>, Key)> {
        let endpoints = if self.pool.ready > 0 { self.endpoints() } else { Vec::new() };
        let wanted = move |endpoint: &Arc<Endpoint>| self.is_usable(endpoint) && self.has_use_for(kind, endpoint);
        let key = move |endpoint: Arc<Endpoint>| {
            let (ours, tls, _) = pool::key(&endpoint, self.tls_to(&endpoint), None);
            (endpoint, (ours, tls, if kind == Kind::Bytes { BYTES } else { 0 }))
        };
        endpoints.into_iter().filter(wanted).map(key)
    }

    fn has_use_for(&self, kind: Kind, endpoint: &Endpoint) -> bool {
        match (kind, self.protocol) {
            (Kind::Bytes, _) | (_, Protocol::H1) => true,
            (Kind::Http, Protocol::Auto) => endpoint.tls.is_none() || endpoint.speaks() == Speaks::H1,
            _ => false,
        }
    }

    /// How many connections are to be dialled now, for there to be enough.
    pub fn lacks(&self, key: &Key, pools: &Pools) -> usize {
        pools.ahead.may_dial(key, (self.pool.ready as usize).saturating_sub(pools.count(key)))
    }

    /// Dials one, and keeps it.
    pub async fn dial_ahead(&self, endpoint: &Arc<Endpoint>, key: Key, pools: &Pools) {
        let Some(seat) = self.seats.take() else { return };
        let dialling = Dialling::new(&pools.ahead, key);
        let dialled = self.stream_ahead(endpoint, key).await;
        drop(dialling);
        match dialled {
            Ok(stream) => {
                let lasts = if key.2 == BYTES { Millis::MAX } else { self.pool.idle_timeout };
                let given = Ready { key, seat, seats: &self.seats, lasts };
                pools.put_ahead(endpoint, self.tls_to(endpoint), stream, given);
            }
            Err(_) => pools.ahead.change(key, Course::failed),
        }
    }

    async fn stream_ahead(&self, endpoint: &Arc<Endpoint>, key: Key) -> Result<Stream, Refusal> {
        if self.proxy_protocol.is_some() {
            return connect_only(endpoint, &self.terms).await;
        }
        let alpn = if key.2 == BYTES { Alpn::Nothing } else { Alpn::H1 };
        let stream = dial(endpoint, self.tls_to(endpoint), alpn, &[], &self.terms).await?;
        if has_agreed_on_h2(&stream) { Err(refusal::UPSTREAM_PROTOCOL) } else { Ok(stream) }
    }
}

/// One that is being dialled; dropped, it is not.
struct Dialling<'d> {
    ahead: &'d Ahead,
    key: Key,
}

impl<'d> Dialling<'d> {
    fn new(ahead: &'d Ahead, key: Key) -> Self {
        ahead.change(key, |course| course.dialling += 1);
        Self { ahead, key }
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.ahead.change(self.key, |course| course.dialling -= 1);
    }
}
