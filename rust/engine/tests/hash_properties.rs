//! What consistent hashing promises, for any endpoints, weights and keys.

use proptest::prelude::*;
use tidegate_engine::balance::{Candidates, Choice, Cursor, Standing, hash, is_held};
use tidegate_engine::snapshot::{Balance, HashKey};

type Endpoints = Vec<(u32, String)>;

/// Different addresses, in an order that is not that of their names.
fn endpoints() -> impl Strategy<Value = Endpoints> {
    prop::collection::hash_map("10\\.0\\.[0-9]{1,2}\\.[0-9]{1,2}:9000", 1..9_u32, 2..12)
        .prop_map(|found| found.into_iter().map(|(address, weight)| (weight, address)).collect())
}

/// The address that each of so many keys goes to.
fn places(endpoints: &Endpoints, keys: u32, tried: &[bool], out: &[bool]) -> Vec<String> {
    let standings: Vec<Standing> = out.iter().map(|is| if *is { Standing::Out } else { Standing::Good }).collect();
    let candidates = Candidates::new(endpoints);
    let (policy, cursor) = (Balance::Hash(HashKey::ClientIp), Cursor::default());
    let at = |key: u32| {
        let key = Some(hash(&key.to_be_bytes()));
        let choice = Choice { policy: &policy, cursor: &cursor, random: 0, key, tried, standings: &standings };
        endpoints[candidates.pick(&choice, |_| 0).unwrap()].1.clone()
    };
    (0..keys).map(at).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn only_the_keys_of_one_that_goes_move(all in endpoints(), gone: prop::sample::Index) {
        let before = places(&all, 2000, &[], &[]);
        let gone = gone.index(all.len());
        let (weight, address) = all[gone].clone();
        let mut rest = all.clone();
        rest.remove(gone);
        let after = places(&rest, 2000, &[], &[]);
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(before == after || *before == address, "{} moved to {}", before, after);
        }
        // As many as are its part, 1/n with equal weights; six standard deviations of so many draws.
        let moved = before.iter().filter(|place| **place == address).count() as f64;
        let part = f64::from(weight) / all.iter().map(|(weight, _)| f64::from(*weight)).sum::<f64>();
        let slack = 6.0 * (2000.0 * part * (1.0 - part)).sqrt();
        prop_assert!((moved - 2000.0 * part).abs() <= slack, "{} of 2000 moved, its part is {}", moved, part);
    }

    #[test]
    fn one_that_cannot_be_used_is_like_one_that_is_gone(all in endpoints(), gone: prop::sample::Index) {
        let gone = gone.index(all.len());
        let marks: Vec<bool> = (0..all.len()).map(|index| index == gone).collect();
        let mut rest = all.clone();
        rest.remove(gone);
        let without = places(&rest, 300, &[], &[]);
        prop_assert_eq!(&places(&all, 300, &marks, &[]), &without);
        prop_assert_eq!(&places(&all, 300, &[], &marks), &without);
    }

    /// While one starts slowly, keys only ever come over to it, and those that have come stay.
    #[test]
    fn keys_come_over_to_one_that_starts_slowly(all in endpoints(), new: prop::sample::Index) {
        let new = new.index(all.len());
        let candidates = Candidates::new(&all);
        let (policy, cursor) = (Balance::Hash(HashKey::ClientIp), Cursor::default());
        let at = |key: u64, since: u64| {
            let mut standings = vec![Standing::Good; all.len()];
            if is_held(candidates.coin(new, key), since, 100) {
                standings[new] = Standing::Held;
            }
            let (key, standings) = (Some(key), &standings[..]);
            let choice = Choice { policy: &policy, cursor: &cursor, random: 0, key, tried: &[], standings };
            candidates.pick(&choice, |_| 0).unwrap()
        };
        for key in (0..200_u32).map(|key| hash(&key.to_be_bytes())) {
            let places: Vec<usize> = (0..=100).step_by(10).map(|since| at(key, since)).collect();
            let moves = places.windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert!(moves == 0 || (moves == 1 && places[10] == new), "{:?}", places);
        }
    }

    #[test]
    fn the_order_of_the_endpoints_is_nothing(all in endpoints(), seed: u64) {
        let mut shuffled = all.clone();
        shuffled.sort_by_key(|(_, address)| hash(format!("{seed}{address}").as_bytes()));
        prop_assert_eq!(places(&all, 300, &[], &[]), places(&shuffled, 300, &[], &[]));
    }

    #[test]
    fn more_weight_only_draws_keys_near(all in endpoints(), which: prop::sample::Index) {
        let mut heavier = all.clone();
        let which = which.index(all.len());
        heavier[which].0 += 5;
        for (before, after) in places(&all, 300, &[], &[]).iter().zip(&places(&heavier, 300, &[], &[])) {
            prop_assert!(before == after || *after == all[which].1);
        }
    }
}
