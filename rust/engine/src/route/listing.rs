//! The table as people read it.

use super::condition::Condition;
use super::host::Hosts;
use super::order;
use super::paths::Paths;
use crate::snapshot::HostMatch;

/// A route under one of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub listener: usize,
    pub host: HostMatch,
    pub route: usize,
    /// The other routes here that may take the same request, where nothing but the order of the file tells which one
    /// does.
    pub ties: Vec<usize>,
}

/// The routes of a listener, in the order in which they are tried: exact hosts as they come in the file, suffix
/// wildcards, prefix wildcards, any.
pub(super) fn list(listener: usize, hosts: &Hosts<Paths>, conditions: &[Condition]) -> Vec<Listed> {
    let mut ranked: Vec<(HostMatch, Vec<usize>)> =
        hosts.iter().map(|(host, paths)| (host.clone(), paths.ranked())).collect();
    // Stable: what is no exact host keeps its place.
    ranked.sort_by_cached_key(|(host, members)| match host {
        HostMatch::Exact(name) => (members.iter().min().copied().unwrap_or(usize::MAX), name.clone()),
        _ => (usize::MAX, String::new()),
    });
    let rows = |(host, members): &(HostMatch, Vec<usize>)| {
        let row = |route: usize| Listed { listener, host: host.clone(), route, ties: ties(route, members, conditions) };
        members.iter().copied().map(row).collect::<Vec<_>>()
    };
    ranked.iter().flat_map(rows).collect()
}

fn ties(route: usize, members: &[usize], conditions: &[Condition]) -> Vec<usize> {
    let tied = |other: &usize| *other != route && order::tie(&conditions[route], &conditions[*other]);
    members.iter().copied().filter(tied).collect()
}
