//! Upstreams: named groups of endpoints, how one is chosen, dialled, and asked.

mod dial;
mod endpoint;
mod pool;
mod read;

use std::sync::{Arc, Weak};
use std::time::Duration;

pub use self::endpoint::{Endpoint, Permit};
pub use self::pool::Pools;
pub use self::read::{HeadError, ResponseReader};
use crate::balance::{Candidates, Cursor};
use crate::error::{Refusal, refusal};
use crate::io::{Stream, random};
use crate::snapshot;
use crate::tls::ClientTls;
use arc_swap::ArcSwap;

/// One upstream of the running configuration.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    balance: snapshot::Balance,
    connect_timeout: Duration,
    pub pool: snapshot::Pool,
    tls: Option<Arc<ClientTls>>,
    /// Changes when discovery says so, without a reload.
    endpoints: ArcSwap<Group>,
}

/// The endpoints of an upstream and where the balancer stands among them.
#[derive(Debug)]
struct Group {
    endpoints: Vec<Arc<Endpoint>>,
    candidates: Candidates,
    cursor: Cursor,
    /// Those that left and still have exchanges: one that comes back must not look idle.
    departed: Vec<Weak<Endpoint>>,
}

/// A connection to an endpoint, and its place in the endpoint's load.
#[derive(Debug)]
pub struct Link {
    pub stream: Stream,
    pub permit: Permit,
    /// The TLS it was made with, if any.
    pub tls: Option<Arc<ClientTls>>,
    /// It has carried exchanges before: its peer may close it at any moment.
    pub reused: bool,
}

impl Upstream {
    /// Builds from what is written, and takes over the endpoints of `previous`, the upstream of the same name.
    pub fn build(upstream: &snapshot::Upstream, tls: Option<Arc<ClientTls>>, previous: Option<&Self>) -> Self {
        Self {
            name: upstream.name.as_str().into(),
            balance: upstream.balance,
            connect_timeout: Duration::from_millis(upstream.connect_timeout),
            pool: upstream.pool,
            tls,
            endpoints: ArcSwap::from_pointee(group(&upstream.endpoints, previous)),
        }
    }

    /// The TLS towards its endpoints, for the next configuration.
    pub fn tls(&self) -> Option<&Arc<ClientTls>> {
        self.tls.as_ref()
    }

    /// Replaces the endpoints; those that stay keep their load.
    pub fn set_endpoints(&self, endpoints: &[snapshot::Endpoint]) {
        self.endpoints.store(Arc::new(group(endpoints, Some(self))));
    }

    /// The endpoints now.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.load().endpoints.clone()
    }

    /// A connection to an endpoint for one exchange: an idle one where `pools` has it, else a new one; the next
    /// endpoint where one does not accept, as nothing has been sent.
    ///
    /// # Errors
    /// The refusal for the client, when no endpoint is left to try.
    pub async fn link(&self, pools: Option<&Pools>) -> Result<Link, Refusal> {
        let group = self.endpoints.load_full();
        let mut tried = vec![false; group.endpoints.len()];
        let mut failure = refusal::NO_ENDPOINT;
        while let Some(index) = self.pick(&group, &tried) {
            tried[index] = true;
            let endpoint = &group.endpoints[index];
            // The permit comes first, so that choices made while we dial see the load that is on its way.
            let permit = Permit::new(endpoint.clone());
            let tls = self.tls.as_ref().filter(|_| endpoint.tls.is_some());
            if let Some(stream) = pools.and_then(|pools| pools.take(endpoint, tls)) {
                return Ok(Link { stream, permit, tls: tls.cloned(), reused: true });
            }
            match dial::dial(endpoint, tls, self.connect_timeout).await {
                Ok(stream) => return Ok(Link { stream, permit, tls: tls.cloned(), reused: false }),
                Err(refusal) => failure = refusal,
            }
        }
        Err(failure)
    }

    fn pick(&self, group: &Group, tried: &[bool]) -> Option<usize> {
        let load = |index: usize| group.endpoints[index].load();
        group.candidates.pick(self.balance, &group.cursor, load, random::number(), tried)
    }
}

fn group(endpoints: &[snapshot::Endpoint], previous: Option<&Upstream>) -> Group {
    let old = previous.map(|previous| previous.endpoints.load().known()).unwrap_or_default();
    let keep = |wanted: &snapshot::Endpoint| old.iter().find(|endpoint| endpoint.is_same(wanted)).cloned();
    let (endpoints, weights): (Vec<Arc<Endpoint>>, Vec<u32>) = endpoints
        .iter()
        .filter(|endpoint| !matches!(endpoint.target, snapshot::Target::Name(..)))
        .map(|wanted| (keep(wanted).unwrap_or_else(|| Arc::new(Endpoint::new(wanted))), wanted.weight))
        .unzip();
    let has_left = |endpoint: &&Arc<Endpoint>| !endpoints.iter().any(|stays| Arc::ptr_eq(stays, endpoint));
    let departed = old.iter().filter(has_left).map(Arc::downgrade).collect();
    Group { candidates: Candidates::new(&weights), cursor: Cursor::default(), departed, endpoints }
}

impl Group {
    /// The endpoints, and those that left but are not forgotten.
    fn known(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.iter().cloned().chain(self.departed.iter().filter_map(Weak::upgrade)).collect()
    }
}
