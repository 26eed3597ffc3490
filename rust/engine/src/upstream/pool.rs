//! The connections of one worker that are kept, by endpoint: idle ones of HTTP/1.1, and trunks. The last idle one put
//! in is the first one out, so that the rest can grow old and go. Those made with one TLS configuration are nothing for
//! another, which may trust others; and those that have named one client are nothing for another client.
//!
//! Beside them are connections that were dialled ahead (see `ready`): those of HTTP/1.1 among the idle ones, those for
//! bytes by a key of their own.
//!
//! Idle connections have seats. Where somebody waits for one, they are closed, the oldest first.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Weak as LocalWeak;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use hashbrown::HashMap;

use super::ready::Ahead;
use super::seats::{Caller, Handed, Place, Seat, Seats};
use super::trunks::Trunks;
use super::{Endpoint, Link, Upstream};
use crate::io::clock::{self, Millis};
use crate::io::{Stream, with_scratch};
use crate::tls::ClientTls;

/// The pools of a worker.
#[derive(Debug, Default)]
pub struct Pools {
    /// By the addresses in memory of the endpoint and of its TLS; the entry refers to both, so that no other can come
    /// to stand there.
    idle: RefCell<HashMap<Key, Idle>>,
    pub trunks: Trunks,
    /// Told when somebody waits for a seat.
    caller: Arc<Caller>,
    pub handed: Handed,
    pub ahead: Ahead,
}

/// Which connections are the same: by endpoint, TLS, and the client that they have named, or 0; [`BYTES`] are those for
/// bytes that are not looked at.
pub type Key = (usize, usize, u64);

pub const BYTES: u64 = u64::MAX;

/// The client whose connections are nobody else's.
#[derive(Clone, Debug)]
pub struct Owner {
    pub id: u64,
    /// Gone when the client's connection is.
    pub connection: LocalWeak<dyn Any>,
}

#[derive(Debug)]
struct Idle {
    /// Weak, because an endpoint that no configuration and no connection has any more is not worth a connection.
    endpoint: Weak<Endpoint>,
    _tls: Option<Arc<ClientTls>>,
    owner: Option<Owner>,
    seats: Arc<Seats>,
    kept: Vec<Kept>,
}

/// A connection without an exchange.
#[derive(Debug)]
pub struct Kept {
    pub stream: Stream,
    pub seat: Seat,
    until: Millis,
    /// Since when it has been dialled ahead, where it was, and has not carried anything.
    unused: Option<Millis>,
}

impl Kept {
    /// Whether it was dialled ahead, and has carried nothing.
    pub fn is_unused(&self) -> bool {
        self.unused.is_some()
    }
}

impl Pools {
    /// An idle connection that its peer has not closed.
    pub fn take(&self, key: &Key) -> Option<Kept> {
        let mut idle = self.idle.borrow_mut();
        let all = &mut idle.get_mut(key)?.kept;
        while let Some(mut kept) = all.pop() {
            if kept.until > clock::now() && is_good(key, &mut kept.stream) {
                return Some(kept);
            }
        }
        None
    }

    /// Keeps a connection to `upstream` whose last exchange is complete, unless somebody waits for its seat.
    pub fn put(&self, link: Link, upstream: &Upstream) {
        let Link { stream, permit, tls, owner, .. } = link;
        let (endpoint, Some(seat)) = (permit.endpoint().clone(), permit.seat) else { return };
        let (key, seats) = (key(&endpoint, tls.as_ref(), owner.as_ref()), upstream.seats());
        let mut kept = Kept { stream, seat, until: clock::now() + upstream.pool.idle_timeout, unused: None };
        if seats.is_wanted() {
            match seats.hand_over(self.place(key), kept, &self.handed) {
                // By now perhaps nobody waits any more.
                Some(rest) if !seats.is_wanted() => kept = rest,
                _ => return,
            }
        }
        self.entry(key, &endpoint, tls, owner, seats, |idle| {
            if idle.len() < upstream.pool.idle as usize {
                idle.push(kept);
            }
        });
    }

    fn entry(
        &self,
        key: Key,
        endpoint: &Arc<Endpoint>,
        tls: Option<Arc<ClientTls>>,
        owner: Option<Owner>,
        seats: &Arc<Seats>,
        change: impl FnOnce(&mut Vec<Kept>),
    ) {
        let mut idle = self.idle.borrow_mut();
        let entry = idle.entry(key).or_insert_with(|| {
            seats.enlist(&self.caller);
            let (endpoint, seats) = (Arc::downgrade(endpoint), seats.clone());
            Idle { endpoint, _tls: tls, owner, seats, kept: Vec::new() }
        });
        change(&mut entry.kept);
    }

    /// Keeps a connection that was dialled ahead; in front of those that are used, which were not closed so far.
    pub fn put_ahead(&self, endpoint: &Arc<Endpoint>, tls: Option<&Arc<ClientTls>>, stream: Stream, given: Ready<'_>) {
        let Ready { key, seat, seats, lasts } = given;
        if seats.is_wanted() {
            return;
        }
        let now = clock::now();
        let kept = Kept { stream, seat, until: now.saturating_add(lasts), unused: Some(now) };
        self.entry(key, endpoint, tls.cloned(), None, seats, |idle| idle.insert(0, kept));
    }

    /// How many there are.
    pub fn count(&self, key: &Key) -> usize {
        self.idle.borrow().get(key).map_or(0, |idle| idle.kept.len())
    }

    /// Closes those for bytes that nobody wants any more.
    pub fn retain_ahead(&self, wanted: impl Fn(&Key) -> bool) {
        self.idle.borrow_mut().retain(|key, _| key.2 != BYTES || wanted(key));
    }

    /// Where an idle connection of this key would be.
    pub fn place(&self, key: Key) -> Place {
        (Arc::as_ptr(&self.caller) as usize, key)
    }

    /// Closes what is too old or was closed by its peer, so that nothing stays half-closed for long, and what leads to
    /// endpoints that are gone or names a client that is.
    pub fn sweep(&self) {
        let now = clock::now();
        self.idle.borrow_mut().retain(|key, idle| {
            let is_wanted = idle.endpoint.strong_count() > 0 && is_there(idle.owner.as_ref());
            idle.kept.retain_mut(|kept| {
                let is_good = is_good(key, &mut kept.stream);
                if let Some(since) = kept.unused {
                    self.ahead.observed(*key, now.saturating_sub(since), is_good);
                }
                is_wanted && kept.until > now && is_good
            });
            !idle.kept.is_empty()
        });
        self.trunks.sweep();
    }

    /// Closes idle connections whenever somebody waits for a seat, on whatever worker.
    pub async fn answer_calls(&self) {
        loop {
            self.caller.0.notified().await;
            self.give_up();
        }
    }

    /// Closes as many idle connections as are waited for.
    pub fn give_up(&self) {
        for idle in self.idle.borrow_mut().values_mut() {
            while idle.seats.is_wanted() && !idle.kept.is_empty() {
                drop(idle.kept.remove(0));
            }
        }
        self.trunks.give_up();
    }

    /// Closes one idle connection of an upstream, for another one of the same.
    pub fn give_up_one(&self, seats: &Arc<Seats>) {
        let mut idle = self.idle.borrow_mut();
        let mut others = idle.values_mut().filter(|idle| Arc::ptr_eq(&idle.seats, seats) && !idle.kept.is_empty());
        if let Some(oldest) = others.by_ref().min_by_key(|idle| idle.kept[0].until) {
            drop(oldest.kept.remove(0));
        }
    }

    /// Told when somebody waits for a seat.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Closes everything.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.trunks.clear();
    }
}

/// A connection that was dialled ahead is to be kept by this.
pub struct Ready<'r> {
    pub key: Key,
    pub seat: Seat,
    pub seats: &'r Arc<Seats>,
    /// How long.
    pub lasts: Millis,
}

/// Whether a connection can be used: for bytes a server may have spoken first.
fn is_good(key: &Key, stream: &mut Stream) -> bool {
    if key.2 == BYTES { stream.is_open() } else { is_quiet(stream) }
}

/// Which connections are the same.
pub fn key(endpoint: &Arc<Endpoint>, tls: Option<&Arc<ClientTls>>, owner: Option<&Owner>) -> Key {
    let tls = tls.map_or(0, |tls| Arc::as_ptr(tls) as usize);
    (Arc::as_ptr(endpoint) as usize, tls, owner.map_or(0, |owner| owner.id))
}

/// Whether the client is there that connections belong to; where they belong to nobody, they may stay.
pub fn is_there(owner: Option<&Owner>) -> bool {
    owner.is_none_or(|owner| owner.connection.strong_count() > 0)
}

/// Whether nothing has come: neither the end of the stream nor a byte that nobody asked for.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    with_scratch(|scratch| matches!(stream.poll_read(&mut cx, &mut scratch[..1]), Poll::Pending))
}
