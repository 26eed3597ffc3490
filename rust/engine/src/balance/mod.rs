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
//!
//! Those tried already, because they refused the connection, are passed over. Their turns go to the rest at random by
//! weight, whatever the policy's order: handing a turn to the next in line would double the work of one neighbour, and
//! moving the cursor for it can fall into step with the failures.

mod draw;
mod rotation;
mod split;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::draw::Draw;
use self::rotation::Rotation;
pub use self::split::Split;
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
    rotation: Option<Rotation>,
}

impl Candidates {
    /// Endpoints of these weights; those of weight 0 are never chosen.
    pub fn new(weights: &[u32]) -> Self {
        Self { weights: weights.into(), rotation: Rotation::new(weights) }
    }

    /// The endpoint for the next exchange, `None` when none is left that was not tried. `load` tells the exchanges under
    /// way at an endpoint; endpoints beyond the end of `tried` were not tried.
    pub fn pick(
        &self,
        policy: Balance,
        cursor: &Cursor,
        load: impl Fn(usize) -> u64,
        random: u64,
        tried: &[bool],
    ) -> Option<usize> {
        let rotation = self.rotation.as_ref()?;
        let is_open = |index: usize| !tried.get(index).copied().unwrap_or(false);
        let draw = Draw::new(&self.weights, random);
        match policy {
            Balance::RoundRobin if tried.contains(&true) => draw.one(is_open),
            Balance::RoundRobin => Some(rotation.turn(cursor.next())),
            Balance::Random => draw.one(is_open),
            Balance::TwoChoices => {
                let first = draw.one(is_open)?;
                let second = draw.another(|index| index != first && is_open(index));
                Some(second.filter(|second| self.is_lighter(*second, first, &load)).unwrap_or(first))
            }
            Balance::LeastConnections => self.least(cursor, load, is_open),
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
