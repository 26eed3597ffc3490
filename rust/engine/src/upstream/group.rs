//! The endpoints of an upstream, and how they stand: what each choice among them is made from.
//!
//! Two know something about an endpoint: the health checks ([`Found`], from the control plane), and its exchanges,
//! which eject it. Where so few are left by both that they would not bear the load, all are used again (*panic*). As
//! long as all is well a choice looks at nothing of this but three numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::{Endpoint, Upstream};
use crate::balance::{self, Candidates, Choice, Cursor, Levels, Serving, Standing, coin, is_held, panics};
use crate::io::clock::{self, Millis};
use crate::io::random;
use crate::log::{Event, Events, Level};
use crate::snapshot::{self, Found};

/// The endpoints of an upstream and where the balancer stands among them.
#[derive(Debug)]
pub struct Group {
    pub endpoints: Vec<Arc<Endpoint>>,
    candidates: Candidates,
    cursor: Cursor,
    /// None where all are wanted alike.
    levels: Option<Levels>,
    /// Those that left and still have exchanges: one that comes back must not look idle.
    departed: Vec<Weak<Endpoint>>,
    /// How they stand as far as time and chance are not asked.
    checked: ArcSwap<Checked>,
    /// Whether there is something in it.
    is_marked: AtomicBool,
    /// When the last slow start among them is over; 0 where there is none.
    warming_until: AtomicU64,
}

/// How endpoints stand by what the checks say; empty where they have nothing against any and all are wanted, or all are
/// used in spite of it.
#[derive(Debug, Default)]
struct Checked {
    home: Vec<Standing>,
    /// For the choices that other zones take, as `serving` says.
    away: Vec<Standing>,
    serving: Option<Serving>,
}

/// Whether the upstreams of one name use all endpoints because too few are usable, and how often they began to.
#[derive(Debug, Default)]
pub struct Panic {
    is_on: AtomicBool,
    count: AtomicU64,
}

/// Percent of a priority that must be usable where no checks say another share.
const ENOUGH: u8 = 50;

impl Group {
    /// The endpoints as they are written; those that are in `previous` are taken over. Names have no place in it.
    /// `zone` is our own.
    pub fn build(endpoints: &[snapshot::Endpoint], zone: Option<&str>, previous: Option<&Self>) -> Self {
        let old = previous.map(Self::known).unwrap_or_default();
        let keep = |wanted: &snapshot::Endpoint| old.iter().find(|endpoint| endpoint.is_same(wanted)).cloned();
        let has_address = |endpoint: &&snapshot::Endpoint| !matches!(endpoint.target, snapshot::Target::Name(..));
        let levels = endpoints.iter().filter(has_address).map(|endpoint| level(endpoint, zone)).collect();
        let (endpoints, weights): (Vec<Arc<Endpoint>>, Vec<u32>) = endpoints
            .iter()
            .filter(has_address)
            .map(|wanted| (keep(wanted).unwrap_or_else(|| Arc::new(Endpoint::new(wanted))), wanted.weight))
            .unzip();
        if let Some(previous) = previous {
            let is_new = |endpoint: &&Arc<Endpoint>| !contains(&previous.endpoints, endpoint);
            endpoints.iter().filter(is_new).for_each(|endpoint| endpoint.comes_in());
        }
        let places: Vec<_> =
            endpoints.iter().zip(weights).map(|(endpoint, weight)| (weight, endpoint.address())).collect();
        let has_left = |endpoint: &&Arc<Endpoint>| !contains(&endpoints, endpoint);
        let departed = old.iter().filter(has_left).map(Arc::downgrade).collect();
        Self {
            candidates: Candidates::new(&places),
            cursor: Cursor::default(),
            levels: Levels::new(levels),
            departed,
            checked: ArcSwap::default(),
            is_marked: AtomicBool::new(false),
            warming_until: AtomicU64::new(0),
            endpoints,
        }
    }

    /// Those that left and still have exchanges.
    pub fn departed(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        self.departed.iter().filter_map(Weak::upgrade)
    }

    /// The endpoints, and those that left but are not forgotten.
    fn known(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.iter().cloned().chain(self.departed()).collect()
    }
}

fn level(endpoint: &snapshot::Endpoint, zone: Option<&str>) -> balance::Level {
    let is_away = zone.is_some() && endpoint.zone.as_deref() != zone;
    balance::Level { priority: endpoint.priority, is_away }
}

fn contains(endpoints: &[Arc<Endpoint>], endpoint: &Arc<Endpoint>) -> bool {
    endpoints.iter().any(|one| Arc::ptr_eq(one, endpoint))
}

impl Upstream {
    /// The endpoint for an exchange; none where all that are left were tried or are unhealthy.
    pub(super) fn pick(&self, group: &Group, key: Option<u64>, tried: &[bool]) -> Option<usize> {
        let random = random::number();
        let choose = |standings: &[Standing]| {
            let (policy, cursor) = (&self.balance, &group.cursor);
            let choice = Choice { policy, cursor, random, key, tried, standings };
            group.candidates.pick(&choice, |index| group.endpoints[index].load())
        };
        match self.passing(group, key.unwrap_or(random)) {
            Some(standings) => choose(&standings),
            None if group.is_marked.load(Relaxed) => {
                let checked = group.checked.load();
                let is_home = |serving: Serving| serving.is_home(coin(key.unwrap_or(random)));
                choose(if checked.serving.is_none_or(is_home) { &checked.home } else { &checked.away })
            }
            None => choose(&[]),
        }
    }

    /// How each stands for the choice that goes by `number`, where that depends on the time: while one is ejected, or
    /// starts slowly.
    fn passing(&self, group: &Group, number: u64) -> Option<Vec<Standing>> {
        let (warming, ejecting) = (group.warming_until.load(Relaxed), self.ejections.until());
        if warming == 0 && ejecting == 0 {
            return None;
        }
        let now = clock::now();
        if warming <= now && ejecting <= now {
            return None;
        }
        let mut standings = self.standings(group, now);
        let serving = self.settle(group, &mut standings);
        if let (Some(levels), Some(serving)) = (&group.levels, serving) {
            levels.rank(serving, coin(number), &mut standings);
        }
        let Some(lasts) = self.slow_start.filter(|_| warming > now) else { return Some(standings) };
        for (index, (standing, endpoint)) in standings.iter_mut().zip(&group.endpoints).enumerate() {
            let is_warming = endpoint.came_in().is_some_and(|came_in| {
                is_held(group.candidates.coin(index, number), now.saturating_sub(came_in), lasts)
            });
            if is_warming {
                *standing = Standing::Held.max(*standing);
            }
        }
        Some(standings)
    }

    /// How each stands, apart from slow starts and panic.
    fn standings(&self, group: &Group, now: Millis) -> Vec<Standing> {
        let ejected = self.ejected(group, now);
        let standing = |(index, endpoint): (usize, &Arc<Endpoint>)| match () {
            () if self.is_unhealthy(endpoint) => Standing::Out,
            () if ejected.get(index) == Some(&true) => Standing::Ejected,
            () => Standing::Good,
        };
        group.endpoints.iter().enumerate().map(standing).collect()
    }

    /// Who is ejected; empty when nobody is. Where a change of the endpoints has left more of them ejected than may be,
    /// nobody is.
    fn ejected(&self, group: &Group, now: Millis) -> Vec<bool> {
        let Some(rules) = self.eject.as_ref().filter(|_| self.ejections.until() > now) else { return Vec::new() };
        let ejected: Vec<bool> = group.endpoints.iter().map(|endpoint| endpoint.health.is_ejected(now)).collect();
        let count = ejected.iter().filter(|is_ejected| **is_ejected).count();
        if count > balance::most(rules, ejected.len()) { Vec::new() } else { ejected }
    }

    /// Whether its endpoints are checked.
    pub fn has_checks(&self) -> bool {
        self.health.is_some()
    }

    fn is_unhealthy(&self, endpoint: &Endpoint) -> bool {
        self.health.is_some() && endpoint.is_unhealthy()
    }

    /// Whether `endpoint`, one of its own, is to get something new now, panic apart.
    pub fn is_usable(&self, endpoint: &Endpoint) -> bool {
        let is_ejected = self.eject.is_some() && endpoint.health.is_ejected(clock::now());
        !is_ejected && !self.is_unhealthy(endpoint)
    }

    /// Forgets what is known where too few stand well enough. Returns which level serves, where there are several.
    fn settle(&self, group: &Group, standings: &mut [Standing]) -> Option<Serving> {
        if self.panics(group, standings) {
            standings.fill(Standing::Good);
        }
        let levels = group.levels.as_ref()?;
        // Without checks there is no panic: then those that are ejected are asked last, and in their order.
        Some(levels.serving(standings, self.enough()).unwrap_or_else(|| Serving::first(levels)))
    }

    /// Whether too few stand well enough. Without checks `at_most` alone guards against that.
    fn panics(&self, group: &Group, standings: &[Standing]) -> bool {
        if self.health.as_ref().is_none_or(|health| health.panic == 0) {
            return false;
        }
        match &group.levels {
            Some(levels) => levels.serving(standings, self.enough()).is_none(),
            None => {
                let usable = standings.iter().filter(|standing| standing.is_usable()).count();
                panics(usable, standings.len(), self.enough())
            }
        }
    }

    /// Percent of the endpoints that must be usable.
    fn enough(&self) -> u8 {
        self.health.as_ref().map_or(ENOUGH, |health| health.panic)
    }

    /// Which level serves now; none where there is one alone.
    pub fn serving(&self) -> Option<Serving> {
        let group = self.endpoints.load();
        self.settle(&group, &mut self.standings(&group, clock::now()))
    }

    /// Whether all endpoints are used now because too few are usable; none where there are no checks.
    pub fn is_panicking(&self) -> Option<bool> {
        self.health.as_ref()?;
        let group = self.endpoints.load();
        Some(self.panics(&group, &self.standings(&group, clock::now())))
    }

    /// How often it came to that.
    pub fn panic_count(&self) -> u64 {
        self.panic.count.load(Relaxed)
    }

    /// Takes over what the checks have found out about some of the endpoints.
    pub fn set_health(&self, found: &[Found], events: &Events) {
        let group = self.endpoints.load();
        for found in found {
            let known = group.endpoints.iter().find(|endpoint| endpoint.is_same(&found.endpoint));
            known.into_iter().for_each(|endpoint| endpoint.found(found.healthy));
        }
        self.refresh(&group);
        self.review(events);
    }

    /// Makes ready what choices look at, after a change of what is known about endpoints.
    pub(super) fn refresh(&self, group: &Group) {
        // Without those who are ejected, as they change by themselves.
        let checked = self.checked(group);
        group.is_marked.store(!checked.home.is_empty(), Relaxed);
        group.checked.store(Arc::new(checked));
        let lasts = self.slow_start.unwrap_or(0);
        let ends = group.endpoints.iter().filter_map(|endpoint| Some(endpoint.came_in()? + lasts));
        group.warming_until.store(ends.max().filter(|until| *until > clock::now()).unwrap_or(0), Relaxed);
    }

    fn checked(&self, group: &Group) -> Checked {
        let mut home = self.standings(group, Millis::MAX);
        let serving = self.settle(group, &mut home);
        let (Some(levels), Some(serving)) = (&group.levels, serving) else {
            if home.iter().all(|standing| *standing == Standing::Good) {
                home.clear();
            }
            return Checked { home, ..Checked::default() };
        };
        let mut away = home.clone();
        levels.rank(serving, 0, &mut home);
        levels.rank(serving, u64::MAX, &mut away);
        Checked { home, away, serving: Some(serving) }
    }

    /// Tells when panic begins, and when it is over.
    pub fn review(&self, events: &Events) {
        let Some(is_on) = self.is_panicking() else { return };
        if self.panic.is_on.swap(is_on, Relaxed) == is_on {
            return;
        }
        let name = &*self.name;
        let event = if is_on {
            self.panic.count.fetch_add(1, Relaxed);
            let message = format!("too few endpoints of the upstream {name} are usable: all of them are used again");
            Event::new(Level::Error, "upstream_panic", message)
        } else {
            let message = format!("enough endpoints of the upstream {name} are usable: the others get nothing again");
            Event::new(Level::Info, "upstream_panic_over", message)
        };
        events.push(event.with("upstream", name));
    }
}
