//! What each policy promises, with fixed numbers for loads and chance.

use super::*;
use crate::snapshot::HashKey;

const CHANCES: u64 = 40_000;

/// Random numbers of a test: far apart, the same in every run.
fn random(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn idle(_: usize) -> u64 {
    0
}

fn candidates(weights: &[u32]) -> Candidates {
    Candidates::new(&weights.iter().enumerate().map(|(index, weight)| (*weight, index.to_string())).collect::<Vec<_>>())
}

fn choice<'c>(policy: &'c Balance, cursor: &'c Cursor, random: u64, tried: &'c [bool]) -> Choice<'c> {
    Choice { policy, cursor, random, key: Some(random), tried, standings: &[] }
}

fn pick(policy: &Balance, candidates: &Candidates, cursor: &Cursor, number: u64, tried: &[bool]) -> Option<usize> {
    candidates.pick(&choice(policy, cursor, random(number), tried), idle)
}

fn counts(length: usize, picks: impl Iterator<Item = usize>) -> Vec<u64> {
    let mut counts = vec![0; length];
    picks.for_each(|index| counts[index] += 1);
    counts
}

/// How often each is picked, given these loads.
fn shares(policy: Balance, weights: &[u32], loads: &[u64], tried: &[bool]) -> Vec<u64> {
    let candidates = candidates(weights);
    let cursor = Cursor::default();
    let pick =
        |number| candidates.pick(&choice(&policy, &cursor, random(number), tried), |index| loads[index]).unwrap();
    counts(weights.len(), (0..CHANCES).map(pick))
}

fn assert_near(found: &[u64], parts: &[f64]) {
    for (found, part) in found.iter().zip(parts) {
        let expected = CHANCES as f64 * part;
        assert!((*found as f64 - expected).abs() < CHANCES as f64 * 0.01, "{found} is not about {expected}");
    }
}

#[test]
fn round_robin_is_smooth() {
    let turns = |weights: &[u32], count: u64| {
        let candidates = candidates(weights);
        let cursor = Cursor::default();
        let pick = |_| pick(&Balance::RoundRobin, &candidates, &cursor, 0, &[]).unwrap().to_string();
        (0..count).map(pick).collect::<String>()
    };
    assert_eq!(turns(&[5, 1, 1], 14), "00102000010200");
    assert_eq!(turns(&[7, 7, 7], 7), "0120120");
    assert_eq!(turns(&[0, 3, 0, 3], 4), "1313");
    assert_eq!(turns(&[9], 3), "000");
}

#[test]
fn a_split_is_exact_over_a_cycle() {
    for weights in [&[90, 10][..], &[1, 99], &[1, 2, 3, 4], &[0, 5, 0, 7], &[4000, 97, 13], &[999_983, 17, 0, 500_000]]
    {
        let split = Split::new(weights);
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let expected: Vec<u64> = weights.iter().map(|weight| u64::from(*weight)).collect();
        for _ in 0..2 {
            assert_eq!(counts(weights.len(), (0..total).map(|_| split.choose())), expected, "{weights:?}");
        }
    }
}

#[test]
fn a_split_is_even_within_a_cycle() {
    // In no part of a cycle is a share further from what is due than a handful of turns.
    for weights in [&[90, 10][..], &[3, 5, 7], &[70_001, 30_011, 1_009], &[u32::MAX, u32::MAX / 3, 12_345]] {
        let split = Split::new(weights);
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let mut counts = vec![0.0; weights.len()];
        for turn in 1..=5000 {
            counts[split.choose()] += 1.0;
            for (count, weight) in counts.iter().zip(weights) {
                let due = f64::from(turn) * f64::from(*weight) / total;
                assert!((count - due).abs() < 5.0, "{weights:?}: {count} of {turn} turns, {due} due");
            }
        }
    }
}

#[test]
fn a_split_shares_its_cursor_between_threads() {
    let split = Split::new(&[3, 1]);
    let picks = std::thread::scope(|scope| {
        let worker = || counts(2, (0..1000).map(|_| split.choose()));
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(picks.iter().map(|counts| counts[0]).sum::<u64>(), 3000);
}

#[test]
fn random_draws_by_weight() {
    assert_near(&shares(Balance::Random, &[1, 2, 0, 5], &[0; 4], &[]), &[0.125, 0.25, 0.0, 0.625]);
    assert_near(&shares(Balance::Random, &[1, 2, 1], &[0; 3], &[false, true]), &[0.5, 0.0, 0.5]);
}

#[test]
fn two_choices_avoid_the_busiest() {
    assert_near(&shares(Balance::TwoChoices, &[1, 1], &[0, 0], &[]), &[0.5, 0.5]);
    assert_near(&shares(Balance::TwoChoices, &[1, 1], &[1, 2], &[]), &[1.0, 0.0]);
    // 3 of 10 for a weight of 6 is lighter than 1 of a weight of 1.
    assert_near(&shares(Balance::TwoChoices, &[6, 1], &[3, 1], &[]), &[1.0, 0.0]);
    // The busiest of three is never the lighter of two; the lightest wins both of its pairs.
    assert_near(&shares(Balance::TwoChoices, &[1, 1, 1], &[9, 5, 1], &[]), &[0.0, 1.0 / 3.0, 2.0 / 3.0]);
    assert_near(&shares(Balance::TwoChoices, &[1, 1, 1], &[9, 5, 1], &[false, true, true]), &[1.0, 0.0, 0.0]);
}

#[test]
fn least_connections_takes_the_least_for_its_weight() {
    let first = |weights: &[u32], loads: &[u64], tried: &[bool]| {
        let cursor = Cursor::default();
        candidates(weights).pick(&choice(&Balance::LeastConnections, &cursor, 0, tried), |index| loads[index])
    };
    assert_eq!(first(&[1, 1, 1], &[3, 1, 2], &[]), Some(1));
    assert_eq!(first(&[1, 4, 1], &[1, 3, 1], &[]), Some(1));
    assert_eq!(first(&[1, 4, 1], &[1, 5, 2], &[]), Some(0));
    assert_eq!(first(&[1, 0, 1], &[1, 0, 2], &[]), Some(0));
    assert_eq!(first(&[1, 1, 1], &[3, 1, 2], &[false, true]), Some(2));
    assert_eq!(first(&[1, 1, 1], &[u64::MAX, u64::MAX, u64::MAX], &[true, true, false]), Some(2));
    // Among equals by turns and by weight.
    assert_eq!(shares(Balance::LeastConnections, &[1, 1, 2, 1], &[0, 0, 0, 7], &[]), [10_000, 10_000, 20_000, 0]);
}

#[test]
fn connections_that_stay_end_up_in_proportion_to_weights() {
    for policy in [Balance::LeastConnections, Balance::TwoChoices] {
        let weights = [1, 2, 5];
        let candidates = candidates(&weights);
        let cursor = Cursor::default();
        let mut loads = [0_u64; 3];
        for number in 0..8000 {
            let choice = choice(&policy, &cursor, random(number), &[]);
            let index = candidates.pick(&choice, |index| loads[index]).unwrap();
            loads[index] += 1;
        }
        for (load, expected) in loads.iter().zip([1000_u64, 2000, 5000]) {
            assert!(load.abs_diff(expected) <= 5, "{policy:?}: {loads:?}");
        }
    }
}

fn policies() -> [Balance; 5] {
    let hash = Balance::Hash(HashKey::ClientIp);
    [Balance::RoundRobin, Balance::Random, Balance::TwoChoices, Balance::LeastConnections, hash]
}

#[test]
fn what_was_tried_is_passed_over() {
    for policy in policies() {
        let four = candidates(&[3, 1, 0, 2]);
        let cursor = Cursor::default();
        let mut tried = [false; 4];
        for number in 0..3 {
            let index = pick(&policy, &four, &cursor, number, &tried).unwrap();
            assert!(!tried[index] && index != 2, "{policy:?}");
            tried[index] = true;
        }
        assert_eq!(pick(&policy, &four, &cursor, 7, &tried), None, "{policy:?}");
        assert_eq!(pick(&policy, &candidates(&[]), &cursor, 7, &[]), None);
        assert_eq!(pick(&policy, &candidates(&[0, 0]), &cursor, 7, &[]), None);
    }
}

#[test]
fn the_ejected_come_last() {
    for policy in policies() {
        let four = candidates(&[3, 1, 0, 2]);
        let cursor = Cursor::default();
        let pick = |tried: &[bool], ejected: &[bool], number| {
            let standings =
                &ejected.iter().map(|is| if *is { Standing::Ejected } else { Standing::Good }).collect::<Vec<_>>();
            four.pick(&Choice { standings, ..choice(&policy, &cursor, random(number), tried) }, idle)
        };
        for number in 0..100 {
            let open = pick(&[], &[true, false, false, false], number);
            assert!(matches!(open, Some(1 | 3)), "{policy:?}: {open:?}");
            assert!(pick(&[false, true], &[true, false, false, true], number).is_some(), "{policy:?}");
            assert_eq!(pick(&[true, true], &[true, false, false, true], number), Some(3), "{policy:?}");
        }
        // When all are ejected it is as if none was.
        let counts = counts(4, (0..CHANCES).map(|number| pick(&[], &[true; 4], number).unwrap()));
        assert_eq!(counts[2], 0);
        assert!(counts[0] > counts[3] && counts[3] > counts[1] && counts[1] > 0, "{policy:?}: {counts:?}");
    }
}

/// The turns of one that is ejected go to the others by weight, and the others keep their rhythm.
#[test]
fn round_robin_shares_the_turns_of_the_ejected() {
    let three = candidates(&[2, 1, 1]);
    let cursor = Cursor::default();
    let pick = |number| {
        let choice = choice(&Balance::RoundRobin, &cursor, random(number), &[]);
        three.pick(&Choice { standings: &[Standing::Good, Standing::Good, Standing::Ejected], ..choice }, idle).unwrap()
    };
    assert_near(&counts(3, (0..CHANCES).map(pick)), &[2.0 / 3.0, 1.0 / 3.0, 0.0]);
}

#[test]
fn the_best_standing_is_chosen_and_those_that_are_out_never() {
    use Standing::{Ejected, Good, Held, Out};
    for policy in policies() {
        let four = candidates(&[3, 1, 0, 2]);
        let cursor = Cursor::default();
        let among = |tried: &[bool], standings: &[Standing]| {
            let pick =
                |number| four.pick(&Choice { standings, ..choice(&policy, &cursor, random(number), tried) }, idle);
            let mut found: Vec<Option<usize>> = (0..200).map(pick).collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        assert_eq!(among(&[], &[Out, Good, Good, Held]), [Some(1)], "{policy:?}");
        assert_eq!(among(&[], &[Out, Held, Good, Held]), [Some(1), Some(3)], "{policy:?}");
        assert_eq!(among(&[], &[Ejected, Out, Good, Held]), [Some(3)], "{policy:?}");
        assert_eq!(among(&[false, false, false, true], &[Ejected, Out, Good, Held]), [Some(0)], "{policy:?}");
        assert_eq!(among(&[true], &[Good, Out, Good, Out]), [None], "{policy:?}");
        assert_eq!(among(&[], &[Out; 4]), [None], "{policy:?}");
    }
}

#[test]
fn coins_are_even_and_tell_nothing_of_the_choice() {
    let two = candidates(&[1, 1]);
    let (policy, cursor) = (Balance::Hash(HashKey::ClientIp), Cursor::default());
    let at = |number: u64| two.pick(&choice(&policy, &cursor, random(number), &[]), idle).unwrap();
    let low = |number: u64| two.coin(1, random(number)) < u64::MAX / 4;
    let count = |place: usize| (0..CHANCES).filter(|number| at(*number) == place && low(*number)).count() as u64;
    assert_near(&[count(0), count(1)], &[0.125, 0.125]);
}

#[test]
fn a_key_goes_to_one_place_and_keys_go_by_weight() {
    let policy = Balance::Hash(HashKey::ClientIp);
    assert_near(&shares(policy.clone(), &[1, 2, 0, 5], &[0; 4], &[]), &[0.125, 0.25, 0.0, 0.625]);
    assert_near(&shares(policy.clone(), &[1; 20], &[0; 20], &[]), &[0.05; 20]);
    assert_near(&shares(policy.clone(), &[1_000_000, 1_000_000, 1], &[9, 0, 0], &[]), &[0.5, 0.5, 0.0]);
    // Those of one that is gone go to the others by weight, not to one neighbour.
    assert_near(&shares(policy.clone(), &[1, 2, 1, 4], &[0; 4], &[false, false, false, true]), &[0.25, 0.5, 0.25, 0.0]);
    let two = candidates(&[1, 1]);
    let cursor = Cursor::default();
    let choice = Choice { key: None, ..choice(&policy, &cursor, 7, &[]) };
    let loads = [3, 2];
    assert_eq!(two.pick(&choice, |index| loads[index]), Some(1), "without a key the least loaded");
}

#[test]
fn keys_that_are_alike_spread_too() {
    let candidates = candidates(&[1, 1, 3]);
    let policy = Balance::Hash(HashKey::ClientIp);
    let cursor = Cursor::default();
    let at = |text: String| {
        let choice = Choice { key: Some(hash(text.as_bytes())), ..choice(&policy, &cursor, 0, &[]) };
        candidates.pick(&choice, idle).unwrap()
    };
    assert_near(&counts(3, (0..CHANCES).map(|number| at(format!("user-{number}")))), &[0.2, 0.2, 0.6]);
    assert_near(&counts(3, (0..CHANCES).map(|number| at(format!("{:040}", number)))), &[0.2, 0.2, 0.6]);
}

/// With two of which one refuses, trying again must not put the cursor in step with the refusals.
#[test]
fn round_robin_keeps_its_rhythm_past_failures() {
    let candidates = candidates(&[1, 1]);
    let cursor = Cursor::default();
    let mut refused = 0;
    for number in 0..100 {
        let first = pick(&Balance::RoundRobin, &candidates, &cursor, number, &[false, false]);
        if first == Some(1) {
            refused += 1;
            let second = pick(&Balance::RoundRobin, &candidates, &cursor, number, &[false, true]);
            assert_eq!(second, Some(0));
        }
    }
    assert_eq!(refused, 50);
}
