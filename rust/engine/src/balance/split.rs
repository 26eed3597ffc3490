//! A share of the traffic for each of several upstreams.

use super::Cursor;
use super::rotation::Rotation;

/// Chooses by weight, exactly over a cycle and evenly within it, not by chance: 1 % of a hundred requests is one.
#[derive(Debug)]
pub struct Split {
    rotation: Option<Rotation>,
    cursor: Cursor,
}

impl Split {
    /// A split by these weights; one of weight 0 gets nothing.
    pub fn new(weights: &[u32]) -> Self {
        Self { rotation: Rotation::new(weights), cursor: Cursor::default() }
    }

    /// The index of the next choice; 0 where no weight is more than 0, which no snapshot has.
    pub fn choose(&self) -> usize {
        self.rotation.as_ref().map_or(0, |rotation| rotation.turn(self.cursor.next()))
    }
}
