//! Whether B differs from A, from runs made in pairs: the one comparison of everything that compares two rows or
//! two conditions.
//!
//! [`paired`] joins A's and B's values by what they share: the block on a host, the seed in the lab. In the lab
//! nothing varies at one seed, and [`exact`] says what all seeds say. On a host [`compare`] answers as follows,
//! and [`of_means`] does of values that are printed as means.
//!
//! A session runs A and B once in each block, in random order, each in a fresh VM. What all runs of
//! a block share, such as temperature or load, cancels in the block's difference, so differences of
//! blocks are the values that everything here is made from:
//!
//! * **estimate**: the median of the differences, B − A. One odd VM does not move it.
//! * **interval**: a block bootstrap of that median ([`Bootstrap::interval`]).
//! * **p**: a sign-flip permutation test ([`sign_flip_p`]). It rests on the random order within a
//!   block only, on no distribution.
//!
//! # How the answer is found
//!
//! The reader states a margin, the largest difference that would not matter. Then, in this order:
//!
//! 1. the whole interval lies within ±margin: [`Answer::Same`];
//! 2. the interval excludes 0 and p is below α: [`Answer::Different`];
//! 3. otherwise [`Answer::Undecided`].
//!
//! **A real difference smaller than the margin is "same".** With enough blocks any two things
//! differ by something, and a check that fails for a difference its user declared unimportant gets
//! switched off. Nothing is hidden by it: "same" is always printed with margin and interval, and
//! [`Comparison::excludes_zero`] tells a report to add "a difference of … was found, below the
//! margin".
//!
//! "Different" says that there is a difference, not that it is larger than the margin: the interval
//! may reach into the margin, and then more blocks can turn the answer into "same".
//!
//! "Same" at 95 % asks that the 95 % interval lies inside. The usual test of equivalence
//! (Schuirmann, "A comparison of the two one-sided tests procedure…", J. Pharmacokinet. Biopharm.
//! 15, 1987) asks that only of the 90 % interval, so this one is stricter, and what is printed is
//! what was decided on.
//!
//! α is for one comparison. Of 40 rows that did not change, one excludes 0 by chance, and is
//! "different" unless it lies within the margin.

mod exact;
mod pairs;

pub use exact::{Exact, exact};
pub use pairs::{Pair, Paired, PairedBlock, paired};

use statrs::distribution::{ContinuousCDF, Normal};

use crate::stats::{
    self, Bootstrap, Confidence, Interval, MeanInterval, StatsError, check, median_in_place,
};

/// What an answer has to meet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Criteria {
    /// The largest difference that would not matter, above 0, in the values' unit. State it before
    /// looking.
    pub margin: f64,
    /// Of the interval; the permutation test's level α is one minus it.
    pub confidence: Confidence,
    /// How the interval is made.
    pub bootstrap: Bootstrap,
}

/// What can be said of A and B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// B differs from A: 0 is excluded by interval and permutation test, and the interval reaches
    /// beyond the margin.
    Different,
    /// Shown to be equal within the margin.
    Same,
    /// Neither could be shown.
    Undecided {
        /// How many blocks *more* should be measured before asking again. See [`compare`].
        needs_blocks: usize,
    },
}

/// An answer with all it rests on. Numbers are in the unit of the compared values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The answer.
    pub answer: Answer,
    /// Median over blocks of B − A.
    pub difference: f64,
    /// Interval of the difference; `None` where there are fewer than [`least_blocks`].
    pub interval: Option<Interval>,
    /// Confidence of the interval.
    pub confidence: Confidence,
    /// p of the sign-flip permutation test against "no difference", two-sided.
    pub p: f64,
    /// The margin "same" refers to.
    pub margin: f64,
    /// Blocks compared: the n to print with it.
    pub blocks: usize,
}

impl Comparison {
    /// Whether interval and permutation test both exclude a difference of 0. True of every
    /// "different", and of a "same" whose difference is real but below the margin.
    #[must_use]
    pub fn excludes_zero(&self) -> bool {
        self.interval
            .is_some_and(|interval| !interval.contains(0.0))
            && self.p < self.confidence.alpha()
    }
}

/// Compares A and B by their paired blocks; the module's text says how the answer is found.
///
/// `needs_blocks` is the number after which an answer is to be expected *whatever the difference
/// is*. An interval that reaches no further than margin/2 to each side of the estimate either lies
/// within the margin or excludes 0. Its reach h shrinks with the square root of the number of
/// blocks n, so n·(2h/m)² blocks are needed in total. A difference far from 0 and from the margin
/// shows itself earlier. Measure that many and ask once: asking after each block until the answer
/// is "different" finds differences where none are. With fewer than [`least_blocks`] there is no
/// interval yet, and the number is what is missing to them.
///
/// # Errors
/// [`StatsError::TooFew`] without blocks, [`StatsError::NotFinite`] with the block's position if a
/// difference is not finite, [`StatsError::Margin`] unless the margin is finite and above 0, and
/// those of [`Bootstrap::interval`].
pub fn compare<K>(blocks: &[Pair<K, f64>], criteria: &Criteria) -> Result<Comparison, StatsError> {
    let Criteria {
        margin,
        confidence,
        bootstrap,
    } = *criteria;
    if !(margin.is_finite() && margin > 0.0) {
        return Err(StatsError::Margin(margin));
    }
    let mut differences: Vec<f64> = blocks.iter().map(Pair::difference).collect();
    let p = sign_flip_p(&differences)?;
    let least = least_blocks(confidence);
    let interval = if blocks.len() < least {
        None
    } else {
        Some(bootstrap.interval(&differences, median_in_place, confidence)?)
    };
    let mut comparison = Comparison {
        answer: Answer::Undecided {
            needs_blocks: least.saturating_sub(blocks.len()),
        },
        difference: median_in_place(&mut differences),
        interval,
        confidence,
        p,
        margin,
        blocks: blocks.len(),
    };
    if let Some(interval) = interval {
        comparison.answer = if interval.is_within(margin) {
            Answer::Same
        } else if comparison.excludes_zero() {
            Answer::Different
        } else {
            Answer::Undecided {
                needs_blocks: needed(&comparison, interval),
            }
        };
    }
    Ok(comparison)
}

/// Blocks below which nothing can be decided, 6 at 95 %: with n blocks the median lies outside even
/// the whole range of the differences with probability 2^(1 − n), and the permutation test's p is
/// never smaller.
#[must_use]
pub fn least_blocks(confidence: Confidence) -> usize {
    let mut blocks = 1;
    let mut outside = 1.0;
    while outside >= confidence.alpha() {
        blocks += 1;
        outside /= 2.0;
    }
    blocks
}

/// Blocks missing until the interval reaches half a margin to each side.
fn needed(comparison: &Comparison, interval: Interval) -> usize {
    let difference = comparison.difference;
    let reach = (interval.hi - difference).max(difference - interval.lo);
    missing(comparison.blocks, reach, comparison.margin)
}

/// Blocks missing to those there are until an interval that reaches so far reaches half a margin.
fn missing(blocks: usize, reach: f64, margin: f64) -> usize {
    let total = blocks as f64 * (2.0 * reach / margin).powi(2);
    // The cast saturates; one more is the least that can change an answer.
    (total.ceil() as usize).saturating_sub(blocks).max(1)
}

/// What the mean over blocks says of a difference or a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Shown to be nothing, within the margin.
    Same,
    /// Shown to be more than nothing, and not shown to be within the margin.
    More,
    /// Shown to be less.
    Less,
    /// None of these could be shown.
    Undecided {
        /// Blocks to measure more before asking again; see [`compare`].
        needs_blocks: usize,
    },
}

impl Finding {
    /// What one exact value says, where nothing varies: the lab's. One that is no number says nothing.
    #[must_use]
    pub fn exact(value: f64, nothing: f64, margin: f64) -> Finding {
        let undecided = Finding::Undecided { needs_blocks: 1 };
        Finding::of(value, value, nothing, margin).unwrap_or(undecided)
    }

    /// What an interval says; `None` where it leaves the answer open.
    fn of(lo: f64, hi: f64, nothing: f64, margin: f64) -> Option<Finding> {
        if nothing - margin <= lo && hi <= nothing + margin {
            Some(Finding::Same)
        } else if lo > nothing {
            Some(Finding::More)
        } else if hi < nothing {
            Some(Finding::Less)
        } else {
            None
        }
    }
}

/// As [`compare`], of the mean over blocks and its t interval ([`stats::mean_interval`]) where [`compare`] takes
/// the median: for what is printed as a mean. `values` has one difference or ratio a block, `nothing` is 0 or 1,
/// and `margin` how far from that still does not matter. Without an interval nothing is decided, however near
/// to `nothing` the mean is.
#[must_use]
pub fn of_means(values: &[f64], nothing: f64, margin: f64) -> (Option<MeanInterval>, Finding) {
    let Ok(mean) = stats::mean_interval(values, Confidence::P95) else {
        let needs_blocks = 2usize.saturating_sub(values.len()).max(1);
        return (None, Finding::Undecided { needs_blocks });
    };
    let undecided = || Finding::Undecided {
        needs_blocks: missing(mean.runs, mean.hi - mean.mean, margin),
    };
    let finding = Finding::of(mean.lo, mean.hi, nothing, margin).unwrap_or_else(undecided);
    (Some(mean), finding)
}

/// Up to so many differences the permutation test counts every flip.
const EXACT_UP_TO: usize = 200;

/// Two-sided p of the sign-flip permutation test that A and B, paired, do not differ.
///
/// If they do not, each difference could as well have had the other sign, so all 2ⁿ ways to flip
/// signs are equally likely. The statistic is the sum of the ranks of |difference| over the
/// positive differences (Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin
/// 1, 1945): unlike a mean it does not drown in one odd VM, and unlike the median it can tell six
/// equal signs from chance. Equal sizes share their mean rank. Differences of 0 are left out, since
/// no flip changes them.
///
/// Up to 200 differences all flips are counted, by a recurrence over rank sums, so p is exact and
/// needs no seed; beyond, the normal approximation is used. If all are 0, p is 1.
///
/// # Errors
/// [`StatsError::TooFew`] without differences, [`StatsError::NotFinite`] if one is not finite.
pub fn sign_flip_p(differences: &[f64]) -> Result<f64, StatsError> {
    check(differences, 1)?;
    let ranks = doubled_signed_ranks(differences);
    let total: usize = ranks.iter().map(|rank| rank.doubled).sum();
    let positive: usize = ranks
        .iter()
        .filter(|rank| rank.positive)
        .map(|rank| rank.doubled)
        .sum();
    // Distance of a rank sum from the middle of its symmetric distribution, times two.
    let distance = |sum: usize| (2 * sum).abs_diff(total);
    if ranks.len() > EXACT_UP_TO {
        let variance: f64 = ranks.iter().map(|rank| (rank.doubled as f64).powi(2)).sum();
        let z = distance(positive) as f64 / variance.sqrt();
        return Ok((2.0 * Normal::standard().cdf(-z)).min(1.0));
    }
    let mut probability = vec![0.0; total + 1];
    probability[0] = 1.0;
    let mut reached = 0;
    for rank in &ranks {
        reached += rank.doubled;
        for sum in (0..=reached).rev() {
            let flipped = if sum < rank.doubled {
                0.0
            } else {
                probability[sum - rank.doubled]
            };
            probability[sum] = f64::midpoint(probability[sum], flipped);
        }
    }
    let as_far = (0..=total).filter(|&sum| distance(sum) >= distance(positive));
    Ok(as_far.map(|sum| probability[sum]).sum::<f64>().min(1.0))
}

struct SignedRank {
    /// Twice the rank of the difference's size, counted from 1: whole even where ranks are shared.
    doubled: usize,
    positive: bool,
}

/// The ranks of all differences that are not 0.
fn doubled_signed_ranks(differences: &[f64]) -> Vec<SignedRank> {
    let mut by_size = differences.to_vec();
    by_size.retain(|difference| *difference != 0.0);
    by_size.sort_unstable_by(|x, y| x.abs().total_cmp(&y.abs()));
    let mut ranks = Vec::with_capacity(by_size.len());
    for equal in by_size.chunk_by(|x, y| x.abs() == y.abs()) {
        let doubled = 2 * ranks.len() + 1 + equal.len();
        ranks.extend(equal.iter().map(|difference| SignedRank {
            doubled,
            positive: *difference > 0.0,
        }));
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(differences: &[f64], margin: f64) -> Comparison {
        let blocks: Vec<PairedBlock> = differences
            .iter()
            .map(|d| PairedBlock {
                key: 0,
                a: 1_000.0,
                b: 1_000.0 + d,
            })
            .collect();
        let criteria = Criteria {
            margin,
            confidence: Confidence::P95,
            bootstrap: Bootstrap::seeded(1),
        };
        compare(&blocks, &criteria).unwrap()
    }

    #[test]
    fn a_real_difference_below_the_margin_is_the_same() {
        let differences = [2.0, 3.0, 4.0, 3.0, 2.0, 3.0, 4.0, 3.0];
        let small = answer(&differences, 10.0);
        assert_eq!(small.answer, Answer::Same);
        assert!(small.excludes_zero());
        assert_eq!(small.difference, 3.0);
        assert_eq!(answer(&differences, 3.5).answer, Answer::Different);
    }

    #[test]
    fn no_difference_at_all_is_the_same_within_any_margin() {
        let equal = answer(&[0.0; 6], 1e-9);
        assert_eq!((equal.answer, equal.p), (Answer::Same, 1.0));
        assert!(!equal.excludes_zero());
    }

    #[test]
    fn too_few_blocks_decide_nothing() {
        assert_eq!(least_blocks(Confidence::P95), 6);
        let few = answer(&[0.0, 0.0], 100.0);
        assert_eq!(
            (few.answer, few.interval),
            (Answer::Undecided { needs_blocks: 4 }, None)
        );
        // Six blocks that agree are just enough.
        assert_eq!(
            answer(&[50.0, 51.0, 52.0, 53.0, 54.0, 55.0], 1.0).answer,
            Answer::Different
        );
        assert_eq!(answer(&[50.0, 51.0, 52.0, 53.0, 54.0], 1.0).answer, {
            Answer::Undecided { needs_blocks: 1 }
        });
    }

    #[test]
    fn four_times_the_blocks_halve_the_interval() {
        let undecided = answer(&[-9.0, -6.0, -3.0, 0.0, 0.0, 3.0, 6.0, 9.0], 5.0);
        let Answer::Undecided { needs_blocks } = undecided.answer else {
            panic!("{undecided:?}");
        };
        let interval = undecided.interval.unwrap();
        let reach = interval.hi.max(-interval.lo);
        assert_eq!(
            8 + needs_blocks,
            (8.0 * (reach / 2.5).powi(2)).ceil() as usize
        );
    }

    #[test]
    fn bad_criteria_and_blocks_are_errors() {
        let criteria = |margin| Criteria {
            margin,
            confidence: Confidence::P95,
            bootstrap: Bootstrap::seeded(1),
        };
        let block = PairedBlock {
            key: 0,
            a: 1.0,
            b: f64::NAN,
        };
        assert_eq!(
            compare(&[block], &criteria(0.0)),
            Err(StatsError::Margin(0.0))
        );
        assert!(compare(&[block], &criteria(f64::NAN)).is_err());
        assert!(matches!(
            compare(&[block], &criteria(1.0)),
            Err(StatsError::NotFinite { index: 0, .. })
        ));
        assert_eq!(
            compare::<u32>(&[], &criteria(1.0)),
            Err(StatsError::TooFew { have: 0, need: 1 })
        );
    }

    #[test]
    fn p_is_that_of_the_signed_rank_test() {
        // The negative ones have ranks 1 and 3. 7 of the 256 flips have a sum of at most 4: none,
        // 1, 2, 3, 4, 1 + 2, 1 + 3; and 7 mirror them.
        let p = sign_flip_p(&[1.1, -2.2, 3.3, 4.4, -0.5, 6.6, 7.7, 8.8]);
        assert_eq!(p, Ok(14.0 / 256.0));
        assert_eq!(sign_flip_p(&[3.0; 10]), Ok(2.0 / 1_024.0));
    }

    #[test]
    fn counting_and_approximation_meet() {
        // An alternating pattern with a shift, just below and just above the limit of counting.
        let pattern = |n: usize| -> Vec<f64> {
            (0..n)
                .map(|i| ((i * 37) % 101) as f64 - 42.5 + i as f64 * 1e-6)
                .collect()
        };
        let counted = sign_flip_p(&pattern(EXACT_UP_TO)).unwrap();
        let approximated = sign_flip_p(&pattern(EXACT_UP_TO + 2)).unwrap();
        assert!(
            (counted / approximated - 1.0).abs() < 0.1,
            "{counted} {approximated}"
        );
    }
}
