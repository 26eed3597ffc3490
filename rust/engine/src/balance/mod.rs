//! Which endpoint takes the next exchange, and which upstream the next share of a split.
//!
//! Pure but for a counter: [`Candidates`] are weights made ready, and each choice is a function of them, a [`Cursor`],
//! the loads, and a random number. No choice takes a lock.
//!
//! * `round_robin` gives each its weight exactly over a cycle and spreads the turns of one evenly over it
//!   (`rotation`).
//! * `random` draws by weight.
//! * `two_choices` draws two by weight and takes the one with less load for its weight.
//! * `least_connections` takes the least load for its weight; among equals, round robin.
//! * `hash` gives each key an order of all endpoints and takes the first (`rendezvous`); an exchange without a key goes
//!   by `least_connections`.
//!
//! Some are passed over: those *tried*, which already refused this very exchange, and those that do not stand well
//! ([`Standing`]). Those *out* are never chosen. Those *ejected* failed too often ([`Health`]), and get their turn only
//! when all others were tried: when all are ejected, it is as if none was; and so it is with those *held* back, and
//! with those that are *elsewhere* ([`Levels`]). The turns of all these go to the rest at random by weight, whatever
//! the policy's order: handing a turn to the next in line would double the work of one neighbour, and moving the cursor
//! for it can fall into step with the failures. Only `hash` goes on in the key's own order.

mod draw;
mod ejection;
mod levels;
mod rendezvous;
mod rotation;
mod split;
mod standing;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::draw::{Draw, mix};
pub use self::ejection::{Health, most};
pub use self::levels::{Level, Levels, Serving, coin};
pub use self::rendezvous::hash;
use self::rotation::Rotation;
pub use self::split::Split;
pub use self::standing::{Standing, is_held, panics};
use crate::snapshot::Balance;

/// How far a rotation has come. Shared by all workers.
#[derive(Debug, Default)]
pub struct Cursor(AtomicU64);

impl Cursor {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
}

/// Endpoints to choose from, by index.
#[derive(Debug)]
pub struct Candidates {
    weights: Box<[u32]>,
    seeds: Box<[u64]>,
    rotation: Option<Rotation>,
}

/// What a choice depends on beside the endpoints. Those beyond the end of `tried` are not, and those beyond the end of
/// `standings` are good.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'c> {
    pub policy: &'c Balance,
    pub cursor: &'c Cursor,
    pub random: u64,
    /// What `hash` goes by.
    pub key: Option<u64>,
    pub tried: &'c [bool],
    pub standings: &'c [Standing],
}

impl Candidates {
    /// Endpoints of these weights and addresses; those of weight 0 are never chosen.
    pub fn new<A: AsRef<[u8]>>(endpoints: &[(u32, A)]) -> Self {
        let weights: Box<[u32]> = endpoints.iter().map(|(weight, _)| *weight).collect();
        let seeds = endpoints.iter().map(|(_, address)| hash(address.as_ref())).collect();
        Self { rotation: Rotation::new(&weights), seeds, weights }
    }

    /// The endpoint for the next exchange, `None` when none is left that was not tried. `load` tells the exchanges
    /// under way at an endpoint.
    pub fn pick(&self, choice: &Choice<'_>, load: impl Fn(usize) -> u64) -> Option<usize> {
        let is_untried = |index: usize| !choice.tried.get(index).copied().unwrap_or(false);
        let standing = |index: usize| choice.standings.get(index).copied().unwrap_or(Standing::Good);
        if choice.standings.is_empty() {
            return self.pick_open(choice, &load, is_untried);
        }
        // Asked first, so that a rotation never turns twice for one choice.
        let candidates = (0..self.weights.len()).filter(|index| self.weights[*index] > 0 && is_untried(*index));
        let best = candidates.map(standing).min().filter(|best| *best < Standing::Out)?;
        self.pick_open(choice, &load, |index| is_untried(index) && standing(index) <= best)
    }

    /// An even number for an endpoint, which depends on it and on `number` alone.
    pub fn coin(&self, index: usize, number: u64) -> u64 {
        // Twice: once is what a hash goes by.
        mix(mix(number ^ self.seeds[index]))
    }

    fn pick_open(
        &self,
        choice: &Choice<'_>,
        load: &impl Fn(usize) -> u64,
        is_open: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let draw = Draw::new(&self.weights, choice.random);
        match (choice.policy, choice.key) {
            (Balance::RoundRobin, _) if choice.tried.contains(&true) => draw.one(is_open),
            (Balance::RoundRobin, _) => {
                let turn = self.rotation.as_ref()?.turn(choice.cursor.next());
                if is_open(turn) { Some(turn) } else { draw.one(is_open) }
            }
            (Balance::Random, _) => draw.one(is_open),
            (Balance::TwoChoices, _) => {
                let first = draw.one(&is_open)?;
                let second = draw.another(|index| index != first && is_open(index));
                Some(second.filter(|second| self.is_lighter(*second, first, load)).unwrap_or(first))
            }
            (Balance::Hash(_), Some(key)) => rendezvous::first(&self.weights, &self.seeds, key, is_open),
            (Balance::LeastConnections | Balance::Hash(_), _) => self.least(choice.cursor, load, is_open),
        }
    }

    /// Whether `one` has less load for its weight than `two`.
    fn is_lighter(&self, one: usize, two: usize, load: &impl Fn(usize) -> u64) -> bool {
        let crossed = |one: usize, two: usize| u128::from(load(one)) * u128::from(self.weights[two]);
        crossed(one, two) < crossed(two, one)
    }

    fn least(&self, cursor: &Cursor, load: impl Fn(usize) -> u64, is_open: impl Fn(usize) -> bool) -> Option<usize> {
        // Read once: the workers change the loads while we compare.
        let loads: Vec<u64> = (0..self.weights.len()).map(load).collect();
        let load = |index: usize| loads[index];
        let is_candidate = |index: &usize| self.weights[*index] > 0 && is_open(*index);
        let lighter = |best: usize, index: usize| if self.is_lighter(index, best, &load) { index } else { best };
        let least = (0..loads.len()).filter(is_candidate).reduce(lighter)?;
        let ties = |index: usize| is_open(index) && !self.is_lighter(least, index, &load);
        Some(draw::at(&self.weights, ties, cursor.next()).unwrap_or(least))
    }
}

#[cfg(test)]
mod tests;
