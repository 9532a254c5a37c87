//! What holds for any samples, not only for plausible ones.

use exitpath_analysis::compare::{Criteria, PairedBlock, compare, sign_flip_p};
use exitpath_analysis::stats::{Bootstrap, Confidence, Sorted, mean, mean_interval, mode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn samples() -> impl Strategy<Value = Vec<f64>> {
    vec(-1e12..1e12, 1..60)
}

/// All flips, one by one: slow, and obviously what is meant.
fn p_by_enumeration(differences: &[f64]) -> f64 {
    let differences: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let rank = |value: &f64| {
        let smaller = differences
            .iter()
            .filter(|other| other.abs() < value.abs())
            .count();
        let equal = differences
            .iter()
            .filter(|other| other.abs() == value.abs())
            .count();
        smaller as f64 + (equal as f64 + 1.0) / 2.0
    };
    let ranks: Vec<f64> = differences.iter().map(rank).collect();
    let middle = ranks.iter().sum::<f64>() / 2.0;
    let observed: f64 = differences.iter().filter(|d| **d > 0.0).map(rank).sum();
    let flips = 1_u32 << ranks.len();
    let as_far = (0..flips)
        .filter(|flip| {
            let chosen = ranks
                .iter()
                .enumerate()
                .filter(|(bit, _)| flip >> bit & 1 == 1);
            let sum: f64 = chosen.map(|(_, rank)| rank).sum();
            (sum - middle).abs() >= (observed - middle).abs()
        })
        .count();
    as_far as f64 / f64::from(flips)
}

/// The same cases every time.
fn fixed_cases() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(fixed_cases())]

    #[test]
    fn quantiles_ascend_from_least_to_greatest(
        samples in samples(),
        p in 0.0..=1.0,
        q in 0.0..=1.0,
    ) {
        let sorted = Sorted::new(samples).unwrap();
        let (least, greatest) = (sorted.quantile(0.0).unwrap(), sorted.quantile(1.0).unwrap());
        prop_assert_eq!(least, sorted.as_slice()[0]);
        prop_assert_eq!(greatest, sorted.as_slice()[sorted.as_slice().len() - 1]);
        let low = sorted.quantile(f64::min(p, q)).unwrap();
        let high = sorted.quantile(f64::max(p, q)).unwrap();
        prop_assert!(least <= low && low <= high && high <= greatest);
    }

    #[test]
    fn order_does_not_matter(samples in vec(any::<u64>(), 1..60)) {
        let mut reversed = samples.clone();
        reversed.reverse();
        prop_assert_eq!(Sorted::from_integers(&samples), Sorted::from_integers(&reversed));
        prop_assert_eq!(mode(&samples), mode(&reversed));
    }

    #[test]
    fn as_many_samples_lie_below_the_median_as_above(samples in samples()) {
        let sorted = Sorted::new(samples).unwrap();
        let median = sorted.median();
        let below = sorted.as_slice().iter().filter(|sample| **sample < median).count();
        let above = sorted.as_slice().iter().filter(|sample| **sample > median).count();
        prop_assert!(2 * below <= sorted.as_slice().len() && 2 * above <= sorted.as_slice().len());
    }

    #[test]
    fn quantiles_of_anything_finite_are_finite(
        samples in vec(prop::num::f64::NORMAL, 1..20),
        p in 0.0..=1.0,
    ) {
        prop_assert!(Sorted::new(samples).unwrap().quantile(p).unwrap().is_finite());
    }

    #[test]
    fn the_mode_is_the_smallest_of_the_most_frequent(samples in vec(0_u64..8, 1..40)) {
        let mode = mode(&samples).unwrap();
        for value in 0..8 {
            let count = samples.iter().filter(|sample| **sample == value).count();
            prop_assert!(count < mode.count || (count == mode.count && value >= mode.value));
        }
        prop_assert_eq!(mode.count, samples.iter().filter(|sample| **sample == mode.value).count());
    }

    #[test]
    fn a_mean_lies_in_the_middle_of_its_interval(samples in vec(-1e6..1e6, 2..40)) {
        let interval = mean_interval(&samples, Confidence::P95).unwrap();
        prop_assert_eq!(interval.mean, mean(&samples).unwrap());
        prop_assert!(interval.lo <= interval.mean && interval.mean <= interval.hi);
        let wider = mean_interval(&samples, Confidence::new(0.99).unwrap()).unwrap();
        prop_assert!(wider.lo <= interval.lo && interval.hi <= wider.hi);
    }

    #[test]
    fn p_counts_every_flip(differences in vec(-5_i32..=5, 1..10)) {
        let differences: Vec<f64> = differences.into_iter().map(f64::from).collect();
        let p = sign_flip_p(&differences).unwrap();
        prop_assert!((p - p_by_enumeration(&differences)).abs() < 1e-12);
    }

    #[test]
    fn swapping_a_and_b_mirrors_the_comparison(
        blocks in vec((0.0..1e3, 0.0..1e3), 6..20),
        margin in 1.0..500.0,
    ) {
        let criteria = Criteria {
            margin,
            confidence: Confidence::P95,
            bootstrap: Bootstrap { resamples: 50, seed: 7 },
        };
        let forth: Vec<PairedBlock> = blocks.iter().map(|&(a, b)| PairedBlock { key: 0, a, b }).collect();
        let back: Vec<PairedBlock> = blocks.iter().map(|&(b, a)| PairedBlock { key: 0, a, b }).collect();
        let forth = compare(&forth, &criteria).unwrap();
        let back = compare(&back, &criteria).unwrap();
        let (one, other) = (forth.interval.unwrap(), back.interval.unwrap());
        prop_assert_eq!(forth.answer, back.answer);
        prop_assert_eq!((forth.p, forth.difference), (back.p, -back.difference));
        prop_assert!((one.lo + other.hi).abs() < 1e-9 && (one.hi + other.lo).abs() < 1e-9);
    }
}
