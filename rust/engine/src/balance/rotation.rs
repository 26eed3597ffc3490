//! Weighted round robin without a lock: turn `n` is a function of `n`.
//!
//! A cycle has as many turns as the weights add up to, once divided by what they have in common, and gives each one its
//! weight exactly. Cycles up to [`LONGEST_SCHEDULE`] are written down in the order of smooth weighted round robin (as
//! nginx does it: each turn everyone gains its weight, the richest takes the turn and pays the total), which keeps the
//! turns of one far apart. Longer ones are walked in steps of about the golden section of the cycle: a step that shares
//! no factor with the length visits every point once, and such a walk never leaves a long gap.

/// Turns that are worth writing down.
const LONGEST_SCHEDULE: u64 = 1024;

#[derive(Debug)]
pub(super) enum Rotation {
    Schedule(Box<[u32]>),
    Walk {
        /// Where the part of each one ends on the line of all weights.
        ends: Box<[u64]>,
        step: u64,
    },
}

impl Rotation {
    /// `None` when all weights are 0.
    pub(super) fn new(weights: &[u32]) -> Option<Self> {
        let divisor = weights.iter().fold(0, |divisor, weight| common_divisor(divisor, u64::from(*weight)));
        if divisor == 0 {
            return None;
        }
        let weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) / divisor).collect();
        let total: u64 = weights.iter().sum();
        Some(if total <= LONGEST_SCHEDULE {
            Self::Schedule(schedule(&weights, total))
        } else {
            Self::Walk { ends: ends(&weights), step: golden_step(total) }
        })
    }

    pub(super) fn turn(&self, turn: u64) -> usize {
        match self {
            Self::Schedule(turns) => turns[(turn % turns.len() as u64) as usize] as usize,
            Self::Walk { ends, step } => {
                let total = u128::from(ends[ends.len() - 1]);
                let point = u128::from(turn) * u128::from(*step) % total;
                ends.partition_point(|end| u128::from(*end) <= point)
            }
        }
    }
}

fn schedule(weights: &[u64], total: u64) -> Box<[u32]> {
    let mut credit = vec![0_i64; weights.len()];
    let mut turn = || {
        credit.iter_mut().zip(weights).for_each(|(credit, weight)| *credit += *weight as i64);
        // The first of the richest; one without weight never gains a credit to be chosen for.
        let richest = (0..weights.len()).filter(|index| weights[*index] > 0).rev().max_by_key(|index| credit[*index]);
        let richest = richest.unwrap_or_default();
        credit[richest] -= total as i64;
        richest as u32
    };
    (0..total).map(|_| turn()).collect()
}

fn ends(weights: &[u64]) -> Box<[u64]> {
    let add = |end: &mut u64, weight: &u64| {
        *end += weight;
        Some(*end)
    };
    weights.iter().scan(0, add).collect()
}

fn golden_step(total: u64) -> u64 {
    let golden = (total as f64 * 0.618_033_988_749_895) as u64;
    (golden..total).find(|step| common_divisor(*step, total) == 1).unwrap_or(1)
}

fn common_divisor(one: u64, two: u64) -> u64 {
    if two == 0 { one } else { common_divisor(two, one % two) }
}
