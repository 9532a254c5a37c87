//! Quantiles, means, modes and intervals.
//!
//! Nothing here knows what was measured: every `f64` is in the unit of the values passed in, and
//! every result is in the same unit. What the functions do know is *what a value is*. Two kinds are
//! kept apart:
//!
//! * **samples**, the timings inside one run. [`Sorted`], [`mean`] and [`mode`] describe them.
//! * **run-level values**, one number per run (a fresh VM), for instance each run's mean. Only
//!   these get an interval. A run shares one memory layout, one set of CPUs and one stretch of time
//!   between all its samples, so its samples are not independent and an interval made from them is
//!   far too narrow (`tests/coverage.rs` shows by how much).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use thiserror::Error;

/// Why a statistic could not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum StatsError {
    /// Fewer values than the statistic is defined for.
    #[error("{have} values are too few, {need} are needed: measure more runs")]
    TooFew {
        /// Values given.
        have: usize,
        /// Values needed at least.
        need: usize,
    },
    /// A value is infinite or not a number.
    #[error("value {index} (counted from 0) is {value}: leave runs without a finite value out")]
    NotFinite {
        /// Position of the first such value.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A probability outside its range.
    #[error("{0} is not a probability that can be used here: pass one between 0 and 1")]
    Probability(f64),
    /// A bootstrap with too few resamples for the confidence asked of it.
    #[error("{have} resamples are too few for this confidence: take at least {need}")]
    Resamples {
        /// Resamples asked for.
        have: usize,
        /// Resamples needed at least.
        need: usize,
    },
    /// An equivalence margin that nothing can lie within.
    #[error("a margin of {0} can never be shown: pass a finite one above 0, in the values' unit")]
    Margin(f64),
}

/// How often an interval made this way contains the truth, strictly between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Confidence(f64);

impl Confidence {
    /// 95 %, what exitpath prints unless asked otherwise.
    pub const P95: Self = Self(0.95);

    /// A confidence given as a fraction, `0.95` for 95 %.
    ///
    /// # Errors
    /// [`StatsError::Probability`] unless it lies strictly between 0 and 1.
    pub fn new(fraction: f64) -> Result<Self, StatsError> {
        if fraction > 0.0 && fraction < 1.0 {
            Ok(Self(fraction))
        } else {
            Err(StatsError::Probability(fraction))
        }
    }

    /// The confidence as a fraction.
    #[must_use]
    pub fn fraction(self) -> f64 {
        self.0
    }

    /// The error probability, one minus the confidence: the level of the test that belongs to the
    /// interval.
    #[must_use]
    pub fn alpha(self) -> f64 {
        1.0 - self.0
    }
}

/// Samples in ascending order, at least one, all finite. Sorted once, asked often.
#[derive(Debug, Clone, PartialEq)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts the samples.
    ///
    /// # Errors
    /// [`StatsError::TooFew`] if there are none, [`StatsError::NotFinite`] if one is not finite.
    pub fn new(mut samples: Vec<f64>) -> Result<Self, StatsError> {
        check(&samples, 1)?;
        samples.sort_unstable_by(f64::total_cmp);
        Ok(Self(samples))
    }

    /// Sorts integer samples (ticks, instructions). Above 2⁵³ they are rounded to the nearest
    /// `f64`.
    ///
    /// # Errors
    /// [`StatsError::TooFew`] if there are none.
    pub fn from_integers(samples: &[u64]) -> Result<Self, StatsError> {
        Self::new(samples.iter().map(|&sample| sample as f64).collect())
    }

    /// The quantile of probability `p`: linear interpolation at position `p·(n − 1)` of the sorted
    /// samples, counted from 0. Definition 7 of Hyndman & Fan, "Sample quantiles in statistical
    /// packages", The American Statistician 50 (1996), and the default of R and NumPy. Its median
    /// is the usual one.
    ///
    /// # Errors
    /// [`StatsError::Probability`] unless `p` lies between 0 and 1, both included.
    pub fn quantile(&self, p: f64) -> Result<f64, StatsError> {
        if (0.0..=1.0).contains(&p) {
            Ok(quantile_of_sorted(&self.0, p))
        } else {
            Err(StatsError::Probability(p))
        }
    }

    /// The floor that reports print: the quantile of probability 0.01.
    #[must_use]
    pub fn p1(&self) -> f64 {
        quantile_of_sorted(&self.0, 0.01)
    }

    /// The quantile of probability 0.5.
    #[must_use]
    pub fn median(&self) -> f64 {
        quantile_of_sorted(&self.0, 0.5)
    }

    /// The quantile of probability 0.99.
    #[must_use]
    pub fn p99(&self) -> f64 {
        quantile_of_sorted(&self.0, 0.99)
    }

    /// The samples in ascending order, never empty.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }
}

/// The most frequent of integer samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// The most frequent value; of several equally frequent ones the smallest.
    pub value: u64,
    /// How many samples have it.
    pub count: usize,
}

/// The most frequent value, the smallest of several equally frequent ones; `None` without samples.
#[must_use]
pub fn mode(samples: &[u64]) -> Option<Mode> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let mut best: Option<Mode> = None;
    for equal in sorted.chunk_by(|a, b| a == b) {
        if best.is_none_or(|best| equal.len() > best.count) {
            best = Some(Mode {
                value: equal[0],
                count: equal.len(),
            });
        }
    }
    best
}

/// The arithmetic mean.
///
/// # Errors
/// [`StatsError::TooFew`] without values, [`StatsError::NotFinite`] if one is not finite.
pub fn mean(values: &[f64]) -> Result<f64, StatsError> {
    check(values, 1)?;
    Ok(mean_of(values))
}

/// The sample variance, with divisor n − 1, in the square of the values' unit.
///
/// # Errors
/// [`StatsError::TooFew`] below two values, [`StatsError::NotFinite`] if one is not finite.
pub fn sample_variance(values: &[f64]) -> Result<f64, StatsError> {
    check(values, 2)?;
    Ok(variance_of(values))
}

/// Two ends of an interval, both included, in the unit of the values it was made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub lo: f64,
    /// The upper end, never below `lo`.
    pub hi: f64,
}

impl Interval {
    /// Whether `value` lies in it, ends included.
    #[must_use]
    pub fn contains(self, value: f64) -> bool {
        self.lo <= value && value <= self.hi
    }

    /// Whether all of it lies in ±`margin`, ends included.
    #[must_use]
    pub fn is_within(self, margin: f64) -> bool {
        -margin <= self.lo && self.hi <= margin
    }
}

/// A mean over runs and its interval, in the unit of the run-level values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanInterval {
    /// Mean of the run-level values.
    pub mean: f64,
    /// Lower end of the interval.
    pub lo: f64,
    /// Upper end of the interval.
    pub hi: f64,
    /// Runs it was made from: the n to print with it.
    pub runs: usize,
}

impl MeanInterval {
    /// The interval without its mean.
    #[must_use]
    pub fn interval(self) -> Interval {
        Interval {
            lo: self.lo,
            hi: self.hi,
        }
    }
}

/// The mean of run-level values with its Student-t interval, `mean ± t·√(s²/n)` with n − 1 degrees
/// of freedom (Student, "The probable error of a mean", Biometrika 6, 1908).
///
/// `run_values` holds one number per run, be it the run's mean, median or p99; never samples. What
/// is estimated is the mean of that number over runs *as they were in this session*: a drift that
/// all runs share is part of it.
///
/// Chosen because it covers what it says. On the simulated host of `tests/coverage.rs` (20 runs of
/// 256 right-skewed samples, outliers in 1 of 200) the truth lay in 95.0 % of 4,000 such intervals,
/// against 92.8 % of the plain percentile bootstrap's, 93.9 % of BCa's and 94.3 % of bootstrap-t's.
///
/// No interval helps where most of the run-to-run variance comes from a few huge outliers that most
/// runs do not have: 20 runs then often contain none, and do not show what is missing. In such a
/// session compare medians, or make runs longer.
///
/// # Errors
/// [`StatsError::TooFew`] below two runs, [`StatsError::NotFinite`] if a value is not finite.
pub fn mean_interval(
    run_values: &[f64],
    confidence: Confidence,
) -> Result<MeanInterval, StatsError> {
    check(run_values, 2)?;
    let runs = run_values.len();
    let mean = mean_of(run_values);
    let t = student_t_quantile(1.0 - confidence.alpha() / 2.0, runs - 1)?;
    let half_width = t * (variance_of(run_values) / runs as f64).sqrt();
    Ok(MeanInterval {
        mean,
        lo: mean - half_width,
        hi: mean + half_width,
        runs,
    })
}

/// The p-quantile of Student's t distribution, dimensionless. Computed by [`statrs`] from the
/// inverse of the regularised incomplete beta function.
///
/// # Errors
/// [`StatsError::Probability`] unless `p` lies strictly between 0 and 1, [`StatsError::TooFew`]
/// without degrees of freedom.
pub fn student_t_quantile(p: f64, degrees_of_freedom: usize) -> Result<f64, StatsError> {
    if !(p > 0.0 && p < 1.0) {
        return Err(StatsError::Probability(p));
    }
    StudentsT::new(0.0, 1.0, degrees_of_freedom as f64)
        .map(|distribution| distribution.inverse_cdf(p))
        .map_err(|_| StatsError::TooFew {
            have: degrees_of_freedom,
            need: 1,
        })
}

/// A seeded bootstrap. The same seed draws the same resamples on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// How many times the units are drawn anew.
    pub resamples: usize,
    /// Seed of the generator that draws them (ChaCha with 8 rounds).
    pub seed: u64,
}

impl Bootstrap {
    /// 2,000 resamples: at 95 % and 20 units some 30 lie beyond each end.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            resamples: 2_000,
            seed,
        }
    }

    /// The expanded percentile interval of a statistic: all n units are drawn n times with
    /// replacement, the statistic is taken of each such resample, and the interval's ends are two
    /// quantiles of the results. The plain percentile interval is too narrow for few units, as a
    /// normal interval would be with divisor n and no t quantile; so its probabilities α/2 and
    /// 1 − α/2 are replaced by Φ(∓t·√(n/(n − 1))). Hesterberg, "What teachers should know about the
    /// bootstrap", The American Statistician 69 (2015).
    ///
    /// A unit is what was replicated independently: a run, or a block with all its runs.
    /// `statistic` may reorder the resample it is given.
    ///
    /// # Errors
    /// [`StatsError::TooFew`] below two units, [`StatsError::Resamples`] if there are fewer than
    /// 2/α resamples, [`StatsError::NotFinite`] with the resample's position if the statistic is
    /// not finite.
    pub fn interval<T: Clone>(
        self,
        units: &[T],
        mut statistic: impl FnMut(&mut [T]) -> f64,
        confidence: Confidence,
    ) -> Result<Interval, StatsError> {
        let n = units.len();
        if n < 2 {
            return Err(StatsError::TooFew { have: n, need: 2 });
        }
        let need = (2.0 / confidence.alpha()).ceil() as usize;
        if self.resamples < need {
            return Err(StatsError::Resamples {
                have: self.resamples,
                need,
            });
        }
        let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
        let mut resample = units.to_vec();
        let statistics = (0..self.resamples)
            .map(|_| {
                for unit in &mut resample {
                    *unit = units[generator.random_range(0..n)].clone();
                }
                statistic(&mut resample)
            })
            .collect();
        let statistics = Sorted::new(statistics)?;
        let tail = expanded_tail(n, confidence)?;
        Ok(Interval {
            lo: statistics.quantile(tail)?,
            hi: statistics.quantile(1.0 - tail)?,
        })
    }
}

/// The probability left out on each side of the expanded percentile interval.
fn expanded_tail(n: usize, confidence: Confidence) -> Result<f64, StatsError> {
    let t = student_t_quantile(1.0 - confidence.alpha() / 2.0, n - 1)?;
    let expansion = (n as f64 / (n - 1) as f64).sqrt();
    Ok(Normal::standard().cdf(-t * expansion))
}

/// The usual median of values in any order, which it reorders; there must be at least one.
pub(crate) fn median_in_place(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(lower) if even => f64::midpoint(lower, upper),
        _ => upper,
    }
}

/// That there are enough values and all are finite.
pub(crate) fn check(values: &[f64], need: usize) -> Result<(), StatsError> {
    if values.len() < need {
        return Err(StatsError::TooFew {
            have: values.len(),
            need,
        });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(StatsError::NotFinite {
            index,
            value: values[index],
        }),
        None => Ok(()),
    }
}

fn quantile_of_sorted(sorted: &[f64], p: f64) -> f64 {
    let position = p * (sorted.len() - 1) as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    let fraction = position.fract();
    // Clamped because rounding can put the sum just outside its two neighbours.
    (below * (1.0 - fraction) + above * fraction).clamp(below, above)
}

fn mean_of(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance_of(values: &[f64]) -> f64 {
    let mean = mean_of(values);
    values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / (values.len() - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_definition_7() {
        // R: quantile(c(1, 2, 4, 8), c(0, 0.01, 0.25, 0.5, 0.99, 1), type = 7)
        let sorted = Sorted::from_integers(&[8, 1, 4, 2]).unwrap();
        for (p, expected) in [
            (0.0, 1.0),
            (0.01, 1.03),
            (0.25, 1.75),
            (0.5, 3.0),
            (0.99, 7.88),
            (1.0, 8.0),
        ] {
            assert!(
                (sorted.quantile(p).unwrap() - expected).abs() < 1e-12,
                "p = {p}"
            );
        }
        assert_eq!(sorted.p1(), sorted.quantile(0.01).unwrap());
        assert_eq!(sorted.median(), 3.0);
        assert_eq!(sorted.p99(), sorted.quantile(0.99).unwrap());
    }

    #[test]
    fn bad_input_is_an_error_with_its_place() {
        assert_eq!(
            Sorted::new(vec![]),
            Err(StatsError::TooFew { have: 0, need: 1 })
        );
        assert_eq!(
            mean(&[1.0, f64::INFINITY]),
            Err(StatsError::NotFinite {
                index: 1,
                value: f64::INFINITY
            })
        );
        assert_eq!(
            sample_variance(&[1.0]),
            Err(StatsError::TooFew { have: 1, need: 2 })
        );
        let sorted = Sorted::from_integers(&[1]).unwrap();
        assert_eq!(sorted.quantile(1.5), Err(StatsError::Probability(1.5)));
        assert!(sorted.quantile(f64::NAN).is_err());
        assert!(Confidence::new(1.0).is_err());
        assert!(Confidence::new(f64::NAN).is_err());
        assert!(student_t_quantile(0.0, 3).is_err());
        assert!(student_t_quantile(0.5, 0).is_err());
        assert!(mean_interval(&[1.0], Confidence::P95).is_err());
        let bootstrap = Bootstrap {
            resamples: 39,
            seed: 0,
        };
        assert_eq!(
            bootstrap.interval(&[1.0, 2.0], |x| x[0], Confidence::P95),
            Err(StatsError::Resamples { have: 39, need: 40 })
        );
    }

    #[test]
    fn mean_and_variance() {
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!(mean(&values), Ok(5.0));
        assert_eq!(sample_variance(&values), Ok(32.0 / 7.0));
    }

    #[test]
    fn of_equally_frequent_values_the_smallest_is_the_mode() {
        assert_eq!(mode(&[]), None);
        assert_eq!(mode(&[7, 3, 7, 3, 9]), Some(Mode { value: 3, count: 2 }));
        assert_eq!(
            mode(&[2_814, 2_813, 2_814]),
            Some(Mode {
                value: 2_814,
                count: 2
            })
        );
    }

    /// NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, "Critical values of the
    /// Student's t distribution".
    #[test]
    fn t_quantiles_agree_with_the_table() {
        for (p, degrees_of_freedom, expected) in [
            (0.90, 1, 3.078),
            (0.975, 1, 12.706),
            (0.975, 2, 4.303),
            (0.95, 4, 2.132),
            (0.975, 5, 2.571),
            (0.975, 19, 2.093),
            (0.995, 19, 2.861),
            (0.999, 19, 3.579),
            (0.975, 100, 1.984),
        ] {
            let t = student_t_quantile(p, degrees_of_freedom).unwrap();
            assert!(
                (t - expected).abs() < 6e-4,
                "t({p}, {degrees_of_freedom}) = {t}"
            );
            let mirrored = student_t_quantile(1.0 - p, degrees_of_freedom).unwrap();
            assert!((t + mirrored).abs() < 1e-6 * t, "not symmetric at {p}");
        }
    }

    /// With one and two degrees of freedom the quantile has a closed form.
    #[test]
    fn t_quantiles_agree_with_the_closed_forms() {
        for p in [0.6, 0.9, 0.975, 0.999] {
            let cauchy = (std::f64::consts::PI * (p - 0.5)).tan();
            assert!((student_t_quantile(p, 1).unwrap() / cauchy - 1.0).abs() < 1e-9);
            let of_two = (2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt();
            assert!((student_t_quantile(p, 2).unwrap() / of_two - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn mean_interval_is_students() {
        // s = √2.5, t(0.975, 4) = 2.776445
        let interval = mean_interval(&[1.0, 2.0, 3.0, 4.0, 5.0], Confidence::P95).unwrap();
        assert_eq!((interval.mean, interval.runs), (3.0, 5));
        assert!((interval.hi - 4.963_243).abs() < 1e-6);
        assert!((interval.lo - 1.036_757).abs() < 1e-6);
    }

    #[test]
    fn a_bootstrap_depends_on_its_seed_alone() {
        let units: Vec<f64> = (0..20).map(|i| f64::from(i * i)).collect();
        let interval = |seed| {
            let mean = |resample: &mut [f64]| mean_of(resample);
            Bootstrap::seeded(seed)
                .interval(&units, mean, Confidence::P95)
                .unwrap()
        };
        assert_eq!(interval(1), interval(1));
        assert_ne!(interval(1), interval(2));
        assert!(interval(1).contains(mean_of(&units)));
    }

    #[test]
    fn interval_ends_are_included() {
        let interval = Interval { lo: -1.0, hi: 2.0 };
        assert!(interval.contains(-1.0) && interval.contains(2.0) && !interval.contains(2.1));
        assert!(interval.is_within(2.0) && !interval.is_within(1.9));
    }
}
