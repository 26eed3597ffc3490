//! The routes of one host, found by path.
//!
//! Exact, prefix and starts_with routes are kept by their text. A path is looked up whole and then cut to each length
//! that prefixes and starts_withs have, longest first: as many lookups as there are lengths in the configuration,
//! however long a path a client sends. Priorities may turn the order round, so among all that is found the lowest rank
//! wins; without them, what is found first is what ranks first, and the search ends there.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::condition::Condition;
use super::index::ByteIndex;
use super::order::Standing;
use super::pattern::PathPattern;
use super::table::Request;

/// A route under a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Its place in the order of the host's routes.
    rank: u32,
    pub(super) route: u32,
    pub(super) websocket: u32,
    kind: Kind,
    /// Where host and path match, so does all the rest.
    is_plain: bool,
    /// Ends the list of its text.
    is_last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    StartsWith,
    /// A regex, or no path at all.
    Loose,
}

/// The routes of one host.
#[derive(Debug)]
pub(super) struct Paths {
    /// Exact, prefix and starts_with, by their text: where their list begins in `candidates`.
    by_text: ByteIndex,
    /// Each list is in the order of ranks. The last one is of those without a text.
    candidates: Box<[Candidate]>,
    reaches: Reaches,
    /// The length of the longest text.
    longest: u32,
    loose: u32,
    has_starts_with: bool,
    /// All have one priority.
    is_flat: bool,
    pub(super) fall_through: bool,
}

/// The lengths of prefixes and starts_withs.
#[derive(Debug, Default)]
struct Reaches {
    /// Those under 64, a bit for each: most are, and this costs no look elsewhere.
    near: u64,
    /// The others, longest first.
    far: Box<[usize]>,
}

/// The best so far.
struct Search<'s> {
    request: &'s Request<'s>,
    conditions: &'s [Condition],
    best: Option<&'s Candidate>,
}

impl Paths {
    /// Sorts `members`, pairs of a route's index and its WebSocket settings' index.
    pub(super) fn build(mut members: Vec<(usize, usize)>, conditions: &[Condition], fall_through: bool) -> Self {
        members.sort_by_key(|(route, _)| (Standing::of(&conditions[*route]), *route));
        members.dedup_by_key(|(route, _)| *route);
        let mut lists: HashMap<&[u8], Vec<Candidate>> = HashMap::new();
        let mut loose = Vec::new();
        for (rank, (route, websocket)) in members.iter().enumerate() {
            let condition = &conditions[*route];
            let (kind, text) = keyed(&condition.path);
            let (rank, route, websocket) = (rank as u32, *route as u32, *websocket as u32);
            let candidate = Candidate { rank, route, websocket, kind, is_plain: condition.is_plain(), is_last: false };
            text.map_or(&mut loose, |text| lists.entry(text).or_default()).push(candidate);
        }
        let priority = |member: Option<&(usize, usize)>| member.map(|(route, _)| conditions[*route].priority);
        let is_flat = priority(members.first()) == priority(members.last());
        Self { is_flat, fall_through, ..Self::index(lists, loose) }
    }

    fn index(lists: HashMap<&[u8], Vec<Candidate>>, loose: Vec<Candidate>) -> Self {
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut places = Vec::with_capacity(lists.len());
        for (text, list) in &lists {
            places.push((*text, candidates.len() as u32));
            candidates.extend_from_slice(list);
            candidates.last_mut().into_iter().for_each(|last| last.is_last = true);
        }
        let has = |kind: Kind| move |list: &Vec<Candidate>| list.iter().any(|candidate| candidate.kind == kind);
        let reaching = lists.iter().filter(|(_, list)| has(Kind::Prefix)(list) || has(Kind::StartsWith)(list));
        Self {
            by_text: ByteIndex::new(&places),
            reaches: Reaches::new(reaching.map(|(text, _)| text.len()).collect()),
            longest: lists.keys().map(|text| text.len() as u32).max().unwrap_or(0),
            loose: candidates.len() as u32,
            candidates: [candidates, loose].concat().into(),
            has_starts_with: lists.values().any(has(Kind::StartsWith)),
            is_flat: false,
            fall_through: false,
        }
    }

    /// The first route, in the order of ranks, that takes `request`.
    pub(super) fn find<'s>(&'s self, request: &'s Request<'s>, conditions: &'s [Condition]) -> Option<&'s Candidate> {
        let path = request.path.normal();
        let mut search = Search { request, conditions, best: None };
        if path.len() <= self.longest as usize {
            search.look(self.list(path), |_| true);
        }
        for length in self.reaches.below(path.len()) {
            if self.is_flat && search.best.is_some() {
                break;
            }
            // The one text of length 1 is `/`, behind which every segment begins.
            let is_boundary = length == 1 || path[length] == b'/';
            if is_boundary || self.has_starts_with {
                search.look(self.list(&path[..length]), |kind| match kind {
                    Kind::Prefix => is_boundary,
                    kind => kind == Kind::StartsWith,
                });
            }
        }
        search.look(&self.candidates[self.loose as usize..], |_| true);
        search.best
    }

    /// The routes' indices in order.
    pub(super) fn ranked(&self) -> Vec<usize> {
        let mut all: Vec<&Candidate> = self.candidates.iter().collect();
        all.sort_by_key(|candidate| candidate.rank);
        all.into_iter().map(|candidate| candidate.route as usize).collect()
    }

    fn list(&self, text: &[u8]) -> &[Candidate] {
        let Some(start) = self.by_text.get(text) else { return &[] };
        let list = &self.candidates[start as usize..];
        let last = list.iter().position(|candidate| candidate.is_last);
        last.map_or(&[], |last| &list[..=last])
    }
}

impl Reaches {
    fn new(mut lengths: Vec<usize>) -> Self {
        lengths.sort_by_key(|length| Reverse(*length));
        lengths.dedup();
        let near = lengths.iter().filter(|length| **length < 64).fold(0, |near, length| near | 1 << length);
        lengths.retain(|length| *length >= 64);
        Self { near, far: lengths.into() }
    }

    /// The lengths under `limit`, longest first.
    fn below(&self, limit: usize) -> impl Iterator<Item = usize> {
        let mut near = if limit < 64 { self.near & ((1 << limit) - 1) } else { self.near };
        let next = move || {
            let length = near.checked_ilog2()?;
            near &= !(1 << length);
            Some(length as usize)
        };
        self.far.iter().copied().filter(move |length| *length < limit).chain(std::iter::from_fn(next))
    }
}

impl<'s> Search<'s> {
    /// Takes the first of `list` that holds, if it is better than what was found.
    fn look(&mut self, list: &'s [Candidate], fits: impl Fn(Kind) -> bool) {
        let is_better = |candidate: &&Candidate| self.best.is_none_or(|best| candidate.rank < best.rank);
        let found = list.iter().take_while(is_better).find(|candidate| {
            let holds = || self.conditions[candidate.route as usize].holds(self.request);
            fits(candidate.kind) && (candidate.is_plain || holds())
        });
        self.best = found.or(self.best);
    }
}

fn keyed(path: &PathPattern) -> (Kind, Option<&[u8]>) {
    match path {
        PathPattern::Exact(text) => (Kind::Exact, Some(text)),
        PathPattern::Prefix(text) => (Kind::Prefix, Some(text)),
        PathPattern::StartsWith(text) => (Kind::StartsWith, Some(text)),
        PathPattern::Any | PathPattern::Regex(_) => (Kind::Loose, None),
    }
}
