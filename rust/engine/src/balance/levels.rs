//! Which endpoints are wanted first: those of the first priority, and of them those of our own zone.
//!
//! * A *priority* serves alone, the lowest number first, as long as enough of it is usable: not less than the share below
//!   which an upstream panics. Otherwise the next one serves. Where none has enough, the upstream panics: everything is
//!   used as if nothing was known, so the first one serves.
//! * Of a priority those of our own *zone* serve alone as long as [`ENOUGH`] of them are usable. Below that they keep the
//!   part of the choices that they can bear (half of it when half of `ENOUGH` is usable) and the rest spills over to the
//!   other zones. Chance decides for each exchange; for a hash the key does, so that a key keeps its endpoint.
//!
//! The others are not out: where all that are wanted were tried, the next best get their turn
//! ([`Standing::Elsewhere`]).

use super::draw::mix;
use super::{Standing, panics};

/// Percent of the endpoints in our own zone that must be usable for all that comes.
const ENOUGH: u64 = 70;

/// Where an endpoint is. Ordered: who is wanted first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level {
    /// 0 is the first.
    pub priority: u32,
    /// In another zone than we are.
    pub is_away: bool,
}

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    priority: u32,
    /// Of so many choices one: the part that our own zone bears, of `u64::MAX`. All where zones make no difference.
    home: u64,
}

/// The levels of an upstream's endpoints.
#[derive(Debug)]
pub struct Levels(Box<[Level]>);

impl Levels {
    /// The level of each endpoint; none where they are all on one.
    pub fn new(levels: Vec<Level>) -> Option<Self> {
        let differ = levels.windows(2).any(|pair| pair[0] != pair[1]);
        differ.then(|| Self(levels.into()))
    }

    /// What serves when the endpoints stand like this; none where no priority has `percent` usable.
    pub fn serving(&self, standings: &[Standing], percent: u8) -> Option<Serving> {
        let mut priorities: Vec<u32> = self.0.iter().map(|level| level.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let has_enough = |priority: &u32| {
            let (usable, all) = self.count(standings, |level| level.priority == *priority);
            usable > 0 && !panics(usable, all, percent)
        };
        let priority = priorities.into_iter().find(has_enough)?;
        Some(Serving { priority, home: self.home(standings, priority) })
    }

    /// The part of the choices that our own zone bears.
    fn home(&self, standings: &[Standing], priority: u32) -> u64 {
        let [home, away] =
            [false, true].map(|is_away| self.count(standings, |level| *level == Level { priority, is_away }));
        if (home.1 > 0 && home.0 as u64 * 100 >= home.1 as u64 * ENOUGH) || away.0 == 0 {
            return u64::MAX;
        }
        let part = u128::from(u64::MAX) * home.0 as u128 * 100 / (home.1.max(1) as u128 * u128::from(ENOUGH));
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// How many of those that are `wanted` are usable, and how many there are.
    fn count(&self, standings: &[Standing], wanted: impl Fn(&Level) -> bool) -> (usize, usize) {
        let wanted = self.0.iter().zip(standings).filter(|(level, _)| wanted(level));
        wanted.fold((0, 0), |(usable, all), (_, standing)| (usable + usize::from(standing.is_usable()), all + 1))
    }

    /// Puts those that are not wanted behind those that are. `coin` is even.
    pub fn rank(&self, serving: Serving, coin: u64, standings: &mut [Standing]) {
        let first = Level { priority: serving.priority, is_away: !serving.is_home(coin) };
        let mut rest: Vec<Level> = self.0.iter().copied().filter(|level| *level != first).collect();
        // The other zones of the priority that serves go before all other priorities.
        rest.sort_unstable_by_key(|level| (level.priority != serving.priority, *level));
        rest.dedup();
        for (level, standing) in self.0.iter().zip(standings).filter(|(level, _)| **level != first) {
            let rank = rest.iter().position(|one| one == level).unwrap_or(0);
            *standing = Standing::Elsewhere(u16::try_from(rank).unwrap_or(u16::MAX)).max(*standing);
        }
    }
}

/// An even number for a choice that goes by `number`; other than what chooses among endpoints.
pub fn coin(number: u64) -> u64 {
    mix(mix(number))
}

impl Serving {
    /// Where nothing is known: the first of `levels`.
    pub fn first(levels: &Levels) -> Self {
        let all = vec![Standing::Good; levels.0.len()];
        levels.serving(&all, 0).unwrap_or(Self { priority: 0, home: u64::MAX })
    }

    /// Whether a choice stays in our own zone.
    pub fn is_home(self, coin: u64) -> bool {
        self.home == u64::MAX || coin < self.home
    }

    /// The priority that serves.
    pub fn priority(self) -> u32 {
        self.priority
    }

    /// Percent of the choices that other zones take because too few are usable in our own.
    pub fn spilled(self) -> u64 {
        100 - (u128::from(self.home) * 100 / u128::from(u64::MAX)) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn levels(of: &[(u32, bool)]) -> Levels {
        Levels::new(of.iter().map(|(priority, is_away)| Level { priority: *priority, is_away: *is_away }).collect())
            .expect("they differ")
    }

    /// `+` is usable, `-` is not.
    fn standings(text: &str) -> Vec<Standing> {
        text.chars().map(|sign| if sign == '+' { Standing::Good } else { Standing::Out }).collect()
    }

    #[test]
    fn a_single_level_is_none() {
        let level = Level { priority: 3, is_away: true };
        assert!(Levels::new(vec![level, level]).is_none() && Levels::new(Vec::new()).is_none());
    }

    #[test]
    fn the_next_priority_serves_below_the_share() {
        let levels = levels(&[(0, false), (0, false), (1, false), (1, false), (7, false)]);
        let priority = |text, percent| levels.serving(&standings(text), percent).map(Serving::priority);
        assert_eq!(priority("+++++", 50), Some(0));
        assert_eq!(priority("+-+++", 50), Some(0));
        assert_eq!(priority("--+++", 50), Some(1));
        assert_eq!(priority("----+", 50), Some(7));
        assert_eq!(priority("-----", 50), None);
        assert_eq!(priority("+-+++", 60), Some(1));
        assert_eq!(priority("+-+--", 60), None);
        assert_eq!(priority("+----", 0), Some(0));
        assert_eq!(priority("----+", 0), Some(7));
    }

    #[test]
    fn our_own_zone_spills_below_its_share() {
        let zones: Vec<(u32, bool)> = (0..20).map(|index| (0, index >= 10)).collect();
        let levels = levels(&zones);
        let spilled = |usable: usize| {
            let text = format!("{}{}{}", "+".repeat(usable), "-".repeat(10 - usable), "+".repeat(10));
            levels.serving(&standings(&text), 0).map(Serving::spilled)
        };
        assert_eq!([10, 8, 7, 6, 4, 0].map(spilled), [0, 0, 0, 15, 43, 100].map(Some));
    }

    #[test]
    fn there_is_nowhere_to_spill_to() {
        let levels = levels(&[(0, false), (0, false), (0, true)]);
        assert_eq!(levels.serving(&standings("+--"), 0).map(Serving::spilled), Some(0));
        assert_eq!(levels.serving(&standings("+-+"), 0).map(Serving::spilled), Some(29));
    }

    #[test]
    fn the_rest_is_ranked() {
        let levels = levels(&[(0, false), (0, true), (1, true), (1, false), (2, false)]);
        let ranked = |text, coin| {
            let mut standings = standings(text);
            let serving = levels.serving(&standings, 50).expect("some are usable");
            levels.rank(serving, coin, &mut standings);
            standings
        };
        use Standing::{Elsewhere, Good, Out};
        assert_eq!(ranked("+++++", 0), [Good, Elsewhere(0), Elsewhere(2), Elsewhere(1), Elsewhere(3)]);
        assert_eq!(ranked("--+++", 0), [Out, Out, Elsewhere(0), Good, Elsewhere(3)]);
        assert_eq!(ranked("-++++", u64::MAX), [Out, Good, Elsewhere(2), Elsewhere(1), Elsewhere(3)]);
    }

    proptest! {
        #[test]
        fn whoever_is_usable_can_be_reached(
            all in prop::collection::vec((0..4_u32, any::<bool>(), any::<bool>()), 1..12),
            percent in 0..=100_u8,
            coin in any::<u64>(),
        ) {
            let of: Vec<Level> = all.iter().map(|&(priority, is_away, _)| Level { priority, is_away }).collect();
            let Some(levels) = Levels::new(of.clone()) else { return Ok(()) };
            let before: Vec<Standing> =
                all.iter().map(|each| if each.2 { Standing::Good } else { Standing::Out }).collect();
            let Some(serving) = levels.serving(&before, percent) else { return Ok(()) };
            let mut after = before.clone();
            levels.rank(serving, coin, &mut after);
            for index in 0..all.len() {
                prop_assert_eq!(before[index].is_usable(), after[index] < Standing::Ejected);
                // Whoever is wanted is on one level, of the priority that serves.
                if after[index] == Standing::Good {
                    prop_assert_eq!(of[index].priority, serving.priority());
                }
            }
            let wanted: Vec<Level> = (0..all.len()).filter(|&one| after[one] == Standing::Good).map(|one| of[one]).collect();
            prop_assert!(!wanted.is_empty(), "somebody serves");
            prop_assert!(wanted.windows(2).all(|pair| pair[0] == pair[1]));
        }

        #[test]
        fn fewer_usable_ones_at_home_never_bear_more(usable in 0..50_usize, all in 1..50_usize) {
            let zones: Vec<(u32, bool)> = (0..=all).map(|index| (0, index == all)).collect();
            let levels = levels(&zones);
            let spilled = |usable: usize| {
                let usable = usable.min(all);
                let text = format!("{}{}+", "+".repeat(usable), "-".repeat(all - usable));
                levels.serving(&standings(&text), 0).map(Serving::spilled)
            };
            prop_assert!(spilled(usable) >= spilled(usable + 1));
        }
    }
}
