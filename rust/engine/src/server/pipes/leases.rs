//! The live pipes of a worker, and what is kept of the decision that let each of them in.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::permit::Permit;
use super::super::table::Table;
use super::tally::{Counters, Tallies};
use crate::error::Cause;
use crate::io::clock::{self, Millis};
use crate::log::{self, connection_name};
use crate::metrics::Metrics;
use crate::relay::Pipe;
use crate::snapshot::HttpVersion;
use crate::upstream;

/// What a live pipe holds on to. The state that decided is released, so a reload changes nothing for it.
#[derive(Debug)]
pub struct Lease {
    /// The same in every log record of the connection.
    pub id: u64,
    pub listener: Arc<str>,
    /// Empty where the gateway itself is the server.
    pub upstream: Arc<str>,
    pub client: Option<IpAddr>,
    pub about: About,
    pub opened: Millis,
    pub counters: Rc<Counters>,
    /// None where the gateway itself is the server.
    pub endpoint: Option<upstream::Permit>,
    /// Spoken with the endpoint.
    pub upstream_protocol: &'static str,
    pub connection: Rc<Permit>,
}

/// How it came about.
#[derive(Debug)]
pub enum About {
    /// By a connection to a TCP listener.
    Tcp {
        /// What the client asked for, where we looked.
        server_name: Option<Box<str>>,
    },
    /// By a request.
    Tunnel(Box<Tunnel>),
}

/// What is kept of the request that opened a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    pub route: Arc<str>,
    /// Of the route, when it was taken.
    pub fingerprint: u64,
    /// Spoken with the client.
    pub protocol: HttpVersion,
    /// What it was opened by: `connect`, or the token of the upgrade.
    pub upgrade: Box<str>,
    pub method: Box<[u8]>,
    pub host: Box<[u8]>,
    pub path: Box<[u8]>,
    pub request_id: Box<[u8]>,
    pub user_agent: Option<Box<[u8]>>,
}

/// The live pipes of a worker.
#[derive(Debug)]
pub struct Pipes {
    pub live: Table<Pipe, Lease>,
    pub tallies: Tallies,
}

impl Lease {
    /// Who talks to whom, for the log.
    pub fn facts(&self) -> log::Exchange<'_> {
        let facts = log::Exchange {
            connection: self.id,
            listener: &self.listener,
            client: self.client,
            upstream: Some(&*self.upstream).filter(|name| !name.is_empty()),
            endpoint: self.endpoint.as_ref().map(|permit| &*permit.endpoint().name),
            upstream_protocol: self.endpoint.as_ref().map(|_| self.upstream_protocol),
            ..log::Exchange::default()
        };
        match &self.about {
            About::Tcp { server_name } => {
                log::Exchange { protocol: "tcp", host: server_name.as_deref().map(str::as_bytes), ..facts }
            }
            About::Tunnel(tunnel) => log::Exchange {
                route: Some(&tunnel.route),
                protocol: tunnel.protocol.label(),
                method: Some(&tunnel.method),
                host: Some(&tunnel.host),
                path: Some(&tunnel.path),
                user_agent: tunnel.user_agent.as_deref(),
                request_id: Some(&tunnel.request_id),
                ..facts
            },
        }
    }
}

impl Pipes {
    /// None yet; they are counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { live: Table::default(), tallies: Tallies::new(metrics) }
    }

    /// Ids of those for which `wanted` says yes; the one that has been silent for longest comes first.
    pub(super) fn select(&self, wanted: impl Fn(&Lease) -> bool) -> Vec<u64> {
        let mut found = self.live.collect(|pipe, lease| wanted(lease).then(|| (pipe.last_active(), lease.id)));
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Closes one; false when it is not here.
    pub fn close(&self, id: u64, cause: Cause) -> bool {
        self.live.with(id, |pipe| pipe.close(cause)).is_some()
    }

    /// Ends all of them now.
    pub fn cut(&self, cause: Cause) {
        self.live.each(|pipe| pipe.cut(cause));
    }

    /// Each one as JSON.
    pub fn describe(&self) -> Vec<Value> {
        self.live.collect(|pipe, lease| Some(describe(pipe, lease)))
    }
}

fn describe(pipe: &Pipe, lease: &Lease) -> Value {
    let [to_upstream, to_client] = pipe.received();
    let mut described = json!({
        "id": connection_name(lease.id),
        "protocol": "tcp",
        "listener": &*lease.listener,
        "upstream": &*lease.upstream,
        "endpoint": lease.endpoint.as_ref().map(|permit| permit.endpoint().name.to_string()),
        "client": lease.client,
        "seconds": (clock::now() - lease.opened) as f64 / 1000.0,
        "bytes": {"to_upstream": to_upstream, "to_client": to_client},
    });
    match &lease.about {
        About::Tcp { server_name } => described["host"] = json!(server_name),
        About::Tunnel(tunnel) => {
            described["protocol"] = json!(tunnel.protocol.label());
            described["upgrade"] = json!(tunnel.upgrade);
            described["route"] = json!(&*tunnel.route);
            described["host"] = json!(String::from_utf8_lossy(&tunnel.host));
            described["path"] = json!(String::from_utf8_lossy(&tunnel.path));
        }
    }
    described
}
