//! The trunks of one worker, by endpoint. Who comes while the first one is being made waits for it: else a hundred
//! requests that come at once would make a hundred connections.
//!
//! WebSockets have trunks of their own, and are spread over several of them: they stay for days, each loss of a packet
//! holds up all that share a connection, and what ends one connection ends them all.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use tokio::sync::watch;

use super::Endpoint;
use super::pool::{self, Owner};
use super::seats::{Caller, Seat, Seats};
use super::trunk::{Place, Trunk};
use crate::error::{Refusal, refusal};
use crate::io::Stream;
use crate::io::clock::{self, Millis};
use crate::snapshot::HttpVersion;
use crate::tls::ClientTls;

/// WebSockets use another trunk before one is filled by more than this part, while there are fewer than so many.
const SPREAD: usize = 4;

/// As in [`super::Pools`]; what is spoken; and whether WebSockets use it.
type Key = (pool::Key, HttpVersion, bool);

/// Connections of HTTP/2 and HTTP/3 of a worker.
#[derive(Debug, Default)]
pub struct Trunks {
    groups: RefCell<HashMap<Key, Group>>,
}

#[derive(Debug)]
struct Group {
    endpoint: Weak<Endpoint>,
    _tls: Option<Arc<ClientTls>>,
    owner: Option<Owner>,
    seats: Arc<Seats>,
    trunks: Vec<Rc<Trunk>>,
    idle_timeout: Millis,
    /// Tells what became of the one that is being made.
    making: Option<watch::Receiver<Option<Made>>>,
}

/// What became of a new connection.
#[derive(Clone, Copy, Debug)]
enum Made {
    Trunk,
    /// It speaks HTTP/1.1.
    Stream,
    Failed(Refusal),
}

/// A new connection.
#[derive(Debug)]
pub enum Dialled {
    Trunk(Rc<Trunk>),
    /// The endpoint has chosen HTTP/1.1.
    Stream(Stream, Seat),
}

/// A way to an endpoint.
#[derive(Debug)]
pub enum Found {
    Place(Place),
    /// A new connection that speaks HTTP/1.1.
    Stream(Stream, Seat),
    /// Somebody else has found that the endpoint speaks HTTP/1.1.
    OnlyH1,
}

/// For whom a trunk is.
#[derive(Clone, Copy, Debug)]
pub struct Whom<'w> {
    pub endpoint: &'w Arc<Endpoint>,
    pub tls: Option<&'w Arc<ClientTls>>,
    pub version: HttpVersion,
    pub owner: Option<&'w Owner>,
    pub seats: &'w Arc<Seats>,
    pub caller: &'w Arc<Caller>,
    pub websockets: bool,
    pub idle_timeout: Millis,
}

impl Whom<'_> {
    fn key(&self) -> Key {
        (pool::key(self.endpoint, self.tls, self.owner), self.version, self.websockets)
    }

    fn group(&self) -> Group {
        self.seats.enlist(self.caller);
        Group {
            endpoint: Arc::downgrade(self.endpoint),
            _tls: self.tls.cloned(),
            owner: self.owner.cloned(),
            seats: self.seats.clone(),
            trunks: Vec::new(),
            idle_timeout: self.idle_timeout,
            making: None,
        }
    }
}

impl Trunks {
    /// A place on a trunk that is there, or else on a new one, which `dial` makes.
    pub async fn place(
        &self,
        whom: Whom<'_>,
        dial: impl Future<Output = Result<Dialled, Refusal>>,
    ) -> Result<Found, Refusal> {
        let key = whom.key();
        loop {
            let making = {
                let mut groups = self.groups.borrow_mut();
                let group = groups.entry(key).or_insert_with(|| whom.group());
                if let Some(place) = group.take(whom.websockets) {
                    return Ok(Found::Place(place));
                }
                group.making.clone()
            };
            let Some(mut making) = making else { break };
            match making.wait_for(Option::is_some).await.map(|made| *made) {
                Ok(Some(Made::Stream)) => return Ok(Found::OnlyH1),
                Ok(Some(Made::Failed(refusal))) => return Err(refusal),
                // Or who was about to make it has gone: now it is up to us.
                Ok(Some(Made::Trunk) | None) | Err(_) => {}
            }
        }
        self.make(whom, dial).await
    }

    async fn make(
        &self,
        whom: Whom<'_>,
        dial: impl Future<Output = Result<Dialled, Refusal>>,
    ) -> Result<Found, Refusal> {
        let (tell, told) = watch::channel(None);
        let making = Making { trunks: self, key: whom.key() };
        self.with(whom, |group| group.making = Some(told));
        let dialled = dial.await;
        drop(making);
        let made = match &dialled {
            Ok(Dialled::Trunk(_)) => Made::Trunk,
            Ok(Dialled::Stream(..)) => Made::Stream,
            Err(refusal) => Made::Failed(*refusal),
        };
        tell.send_replace(Some(made));
        match dialled? {
            Dialled::Stream(stream, seat) => Ok(Found::Stream(stream, seat)),
            Dialled::Trunk(trunk) => self.add(whom, trunk).map(Found::Place),
        }
    }

    /// Keeps a new trunk; returns the first place on it.
    ///
    /// # Errors
    /// The refusal for the client, where its peer lets there be no stream.
    pub fn add(&self, whom: Whom<'_>, trunk: Rc<Trunk>) -> Result<Place, Refusal> {
        let place = trunk.take().ok_or(refusal::UPSTREAM_LOST)?;
        self.with(whom, |group| group.trunks.push(trunk));
        Ok(place)
    }

    fn with<T>(&self, whom: Whom<'_>, work: impl FnOnce(&mut Group) -> T) -> T {
        work(self.groups.borrow_mut().entry(whom.key()).or_insert_with(|| whom.group()))
    }

    /// Lets go of what has been idle for too long, of what cannot be used any more, and of what leads to endpoints that
    /// are gone. What still has streams ends with them.
    pub fn sweep(&self) {
        let now = clock::now();
        self.groups.borrow_mut().retain(|_, group| {
            let is_wanted = group.endpoint.strong_count() > 0 && pool::is_there(group.owner.as_ref());
            let since = now.saturating_sub(group.idle_timeout);
            group.trunks.retain(|trunk| is_wanted && trunk.is_usable() && !trunk.is_idle(since));
            !group.trunks.is_empty() || group.making.is_some()
        });
    }

    /// Lets go of as many without streams as are waited for. They give their seats back when they have ended.
    pub fn give_up(&self) {
        for group in self.groups.borrow_mut().values_mut() {
            let mut wanted = group.seats.waiting();
            group.trunks.retain(|trunk| {
                let goes = wanted > 0 && trunk.streams() == 0;
                wanted -= u64::from(goes);
                !goes
            });
        }
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        self.groups.borrow_mut().clear();
    }
}

impl Group {
    /// A place on the trunk that has the fewest streams, where it has one.
    fn take(&mut self, websockets: bool) -> Option<Place> {
        self.trunks.retain(|trunk| trunk.is_usable());
        let trunk = self.trunks.iter().min_by_key(|trunk| trunk.streams())?;
        let spread = websockets && self.trunks.len() < SPREAD;
        let limit = if spread { trunk.limit().div_ceil(SPREAD) } else { trunk.limit() };
        if trunk.streams() < limit { trunk.take() } else { None }
    }
}

/// Somebody makes a trunk; dropped, nobody does.
struct Making<'t> {
    trunks: &'t Trunks,
    key: Key,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.trunks.groups.borrow_mut().get_mut(&self.key) {
            group.making = None;
        }
    }
}
