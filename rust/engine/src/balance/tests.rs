//! What each policy promises, with fixed numbers for loads and chance.

use super::*;

const CHANCES: u64 = 40_000;

/// Random numbers of a test: far apart, the same in every run.
fn random(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn idle(_: usize) -> u64 {
    0
}

fn counts(length: usize, picks: impl Iterator<Item = usize>) -> Vec<u64> {
    let mut counts = vec![0; length];
    picks.for_each(|index| counts[index] += 1);
    counts
}

/// How often each is picked, given these loads.
fn shares(policy: Balance, weights: &[u32], loads: &[u64], tried: &[bool]) -> Vec<u64> {
    let candidates = Candidates::new(weights);
    let cursor = Cursor::default();
    let pick = |number| candidates.pick(policy, &cursor, |index| loads[index], random(number), tried).unwrap();
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
        let candidates = Candidates::new(weights);
        let cursor = Cursor::default();
        let pick = |_| candidates.pick(Balance::RoundRobin, &cursor, idle, 0, &[]).unwrap().to_string();
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
        let candidates = Candidates::new(weights);
        candidates.pick(Balance::LeastConnections, &Cursor::default(), |index| loads[index], 0, tried)
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
        let candidates = Candidates::new(&weights);
        let cursor = Cursor::default();
        let mut loads = [0_u64; 3];
        for number in 0..8000 {
            let index = candidates.pick(policy, &cursor, |index| loads[index], random(number), &[]).unwrap();
            loads[index] += 1;
        }
        for (load, expected) in loads.iter().zip([1000_u64, 2000, 5000]) {
            assert!(load.abs_diff(expected) <= 5, "{policy:?}: {loads:?}");
        }
    }
}

#[test]
fn what_was_tried_is_passed_over() {
    for policy in [Balance::RoundRobin, Balance::Random, Balance::TwoChoices, Balance::LeastConnections] {
        let candidates = Candidates::new(&[3, 1, 0, 2]);
        let cursor = Cursor::default();
        let mut tried = [false; 4];
        for number in 0..3 {
            let index = candidates.pick(policy, &cursor, idle, random(number), &tried).unwrap();
            assert!(!tried[index] && index != 2, "{policy:?}");
            tried[index] = true;
        }
        assert_eq!(candidates.pick(policy, &cursor, idle, 7, &tried), None, "{policy:?}");
        assert_eq!(Candidates::new(&[]).pick(policy, &cursor, idle, 7, &[]), None);
        assert_eq!(Candidates::new(&[0, 0]).pick(policy, &cursor, idle, 7, &[]), None);
    }
}

/// With two of which one refuses, trying again must not put the cursor in step with the refusals.
#[test]
fn round_robin_keeps_its_rhythm_past_failures() {
    let candidates = Candidates::new(&[1, 1]);
    let cursor = Cursor::default();
    let mut refused = 0;
    for number in 0..100 {
        let first = candidates.pick(Balance::RoundRobin, &cursor, idle, random(number), &[false, false]);
        if first == Some(1) {
            refused += 1;
            let second = candidates.pick(Balance::RoundRobin, &cursor, idle, random(number), &[false, true]);
            assert_eq!(second, Some(0));
        }
    }
    assert_eq!(refused, 50);
}
