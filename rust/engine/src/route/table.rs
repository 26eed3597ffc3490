//! The table: every route compiled, and for each listener the hosts under which they stand.

use std::collections::HashMap;

use super::compiled::Compiled;
use super::condition::Condition;
use super::host::{self, HostName, Hosts};
use super::listing::{self, Listed};
use super::path::CleanPath;
use super::paths::Paths;
use crate::error::Fault;
use crate::http::fields::Fields;
use crate::snapshot::{HostMatch, Route, Snapshot};

/// The routes of a snapshot, ready to be asked.
#[derive(Debug)]
pub struct RouteTable {
    /// In the order of the snapshot, as are `routes`.
    conditions: Vec<Condition>,
    routes: Vec<Compiled>,
    /// By listener.
    listeners: Vec<Hosts<Paths>>,
}

/// What a route is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As received: compared without case, port and trailing dot.
    pub host: &'a [u8],
    pub path: &'a CleanPath<'a>,
    /// Raw, without the `?`.
    pub query: &'a [u8],
    pub method: &'a [u8],
    pub fields: &'a Fields,
}

/// The route that takes a request.
#[derive(Clone, Copy, Debug)]
pub struct Found<'t> {
    /// Index into the snapshot's routes.
    pub route: usize,
    /// Index into the snapshot's WebSocket settings.
    pub websocket: usize,
    pub compiled: &'t Compiled,
}

/// The routes of one host while the table is built.
#[derive(Clone, Default)]
struct Members {
    routes: Vec<(usize, usize)>,
    fall_through: bool,
}

impl RouteTable {
    /// Compiles the routes of `snapshot`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn build(snapshot: &Snapshot) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let numbered = || snapshot.routes.iter().enumerate();
        let compiled = numbered().map(|(index, route)| compile(index, route, &mut faults));
        let (conditions, routes): (Vec<_>, Vec<_>) = compiled.unzip();
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut listeners: Vec<HashMap<HostMatch, Members>> = vec![HashMap::new(); snapshot.listeners.len()];
        numbered().for_each(|(index, route)| enlist(index, route, &mut listeners));
        let sort = |(host, members): (HostMatch, Members)| {
            (host, Paths::build(members.routes, &conditions, members.fall_through))
        };
        let listeners = listeners.into_iter().map(|hosts| Hosts::new(hosts.into_iter().map(sort).collect())).collect();
        Ok(Self { conditions, routes, listeners })
    }

    /// The route that takes `request` on the listener of this index.
    pub fn find<'t>(&'t self, listener: usize, request: &Request<'_>) -> Option<Found<'t>> {
        let host = HostName::new(request.host);
        for paths in self.listeners.get(listener)?.matching(host.as_bytes()) {
            if let Some(candidate) = paths.find(request, &self.conditions) {
                return Some(Found {
                    route: candidate.route as usize,
                    websocket: candidate.websocket as usize,
                    compiled: &self.routes[candidate.route as usize],
                });
            }
            if !paths.fall_through {
                return None;
            }
        }
        None
    }

    /// What the route of this index, one of the snapshot's, does to requests and answers.
    pub fn compiled(&self, route: usize) -> &Compiled {
        &self.routes[route]
    }

    /// Every route under each of its hosts, by listener, in the order in which they are tried.
    pub fn listing(&self) -> Vec<Listed> {
        let numbered = self.listeners.iter().enumerate();
        numbered.flat_map(|(listener, hosts)| listing::list(listener, hosts, &self.conditions)).collect()
    }
}

fn compile(index: usize, route: &Route, faults: &mut Vec<Fault>) -> (Condition, Compiled) {
    let pointer = format!("/routes/{index}");
    for (at, host) in route.matches.hosts.iter().enumerate() {
        let fault = |message| Fault::new(format!("{pointer}/match/hosts/{at}"), message);
        faults.extend(host::fault(host).map(fault));
    }
    let condition = Condition::compile(route, &format!("{pointer}/match"), faults);
    let compiled = Compiled::new(route, &condition.path, &pointer, faults);
    (condition, compiled)
}

/// Puts a route under its hosts. Listeners that do not exist are a fault of the snapshot that others report.
fn enlist(index: usize, route: &Route, listeners: &mut [HashMap<HostMatch, Members>]) {
    for at in &route.listeners {
        let Some(hosts) = listeners.get_mut(at.listener) else { continue };
        for host in &route.matches.hosts {
            let members = hosts.entry(host::lower_case(host)).or_default();
            members.routes.push((index, at.websocket));
            members.fall_through |= route.fall_through;
        }
    }
}
