//! A host that is as noisy as a real one, and whose truth is known.
//!
//! A session runs every row once per block, each time in a fresh VM. What one sample reads, in ns:
//!
//! ```text
//! cost of the row
//!   + drift of the block      shared by all rows of a block: temperature, frequency, other load
//!   + offset of the run       normal: memory layout of this VM, its placement
//!   + jitter of the sample    log-normal, right-skewed: caches, predictors
//!   + an outlier, seldom      Pareto: a timer tick, a migration, an SMI
//! ```

use std::f64::consts::TAU;

/// Samples in a run. Few, to be fast: real runs have more, and their means are less skewed.
pub(crate) const SAMPLES: usize = 256;

const OFFSET_SD_NS: f64 = 12.0;
const JITTER_MEDIAN_NS: f64 = 15.0;
const JITTER_LOG_SD: f64 = 0.9;
/// Shape of the Pareto tail: its variance is finite, its skewness is not.
const OUTLIER_SHAPE: f64 = 2.5;

/// What differs between the hosts simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    /// Trend over a session: up to this much up or down.
    pub(crate) trend_ns: f64,
    /// Amplitude of a slow wave, one period per session.
    pub(crate) wave_ns: f64,
    /// Probability that a sample has an outlier.
    pub(crate) outlier_probability: f64,
    /// The smallest outlier.
    pub(crate) outlier_least_ns: f64,
}

impl Host {
    /// Drifting, and in every run an outlier or two.
    pub(crate) const DRIFTING: Self = Self {
        trend_ns: 10.0,
        wave_ns: 4.0,
        outlier_probability: 0.005,
        outlier_least_ns: 1_500.0,
    };

    /// The same without drift, so that nothing widens the intervals.
    pub(crate) const STEADY: Self = Self {
        trend_ns: 0.0,
        wave_ns: 0.0,
        ..Self::DRIFTING
    };

    /// Stalls of 20 µs and more in one run of twenty: what no interval of the mean copes with.
    pub(crate) const STALLING: Self = Self {
        outlier_probability: 0.000_2,
        outlier_least_ns: 20_000.0,
        ..Self::DRIFTING
    };

    /// Measures rows of these costs in ns, in so many blocks. The same seed gives the same session.
    pub(crate) fn session(self, seed: u64, blocks: usize, costs_ns: &[f64]) -> Vec<Row> {
        let mut noise = Noise {
            host: self,
            state: seed,
        };
        let trend = self.trend_ns * (2.0 * noise.uniform() - 1.0);
        let phase = noise.uniform();
        let drift: Vec<f64> = (0..blocks)
            .map(|block| {
                let time = (block as f64 + 0.5) / blocks as f64;
                trend * time + self.wave_ns * (TAU * (time + phase)).sin()
            })
            .collect();
        let mean_drift = drift.iter().sum::<f64>() / blocks as f64;
        let row = |cost| Row {
            level_ns: cost + mean_drift,
            host: self,
            runs: Vec::new(),
        };
        let mut rows: Vec<Row> = costs_ns.iter().copied().map(row).collect();
        for drift in drift {
            for (row, cost) in rows.iter_mut().zip(costs_ns) {
                row.runs.push(noise.run(cost + drift));
            }
        }
        rows
    }
}

/// One row's part of a session: in each block one run.
#[derive(Debug)]
pub(crate) struct Row {
    host: Host,
    level_ns: f64,
    /// The samples of each run, in the order of the blocks.
    pub(crate) runs: Vec<Vec<f64>>,
}

impl Row {
    /// What a run's mean is on average in this session: its drift is part of it.
    pub(crate) fn true_mean_ns(&self) -> f64 {
        let jitter = JITTER_MEDIAN_NS * (JITTER_LOG_SD.powi(2) / 2.0).exp();
        let outlier = self.host.outlier_least_ns * OUTLIER_SHAPE / (OUTLIER_SHAPE - 1.0);
        self.level_ns + jitter + self.host.outlier_probability * outlier
    }

    /// What a run's median is on average in this session, but for 0.1 ns: outliers move it by 0.1
    /// ns.
    pub(crate) fn true_median_ns(&self) -> f64 {
        self.level_ns + JITTER_MEDIAN_NS
    }
}

struct Noise {
    host: Host,
    state: u64,
}

impl Noise {
    fn run(&mut self, level: f64) -> Vec<f64> {
        let level = level + OFFSET_SD_NS * self.normals().0;
        let mut run = Vec::with_capacity(SAMPLES);
        while run.len() < SAMPLES {
            let (one, other) = self.normals();
            for normal in [one, other] {
                let jitter = JITTER_MEDIAN_NS * (JITTER_LOG_SD * normal).exp();
                run.push(level + jitter + self.outlier());
            }
        }
        run
    }

    fn outlier(&mut self) -> f64 {
        let chance = self.uniform() / self.host.outlier_probability;
        if chance >= 1.0 {
            return 0.0;
        }
        // Given that it is below 1, the chance is uniform again.
        self.host.outlier_least_ns * (1.0 - chance).powf(-1.0 / OUTLIER_SHAPE)
    }

    /// Two independent standard normals, by the method of Box and Muller (1958).
    fn normals(&mut self) -> (f64, f64) {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (TAU * self.uniform()).sin_cos();
        (radius * cos, radius * sin)
    }

    /// From 0 up to, not including, 1. The generator is SplitMix64 (Steele, Lea & Flood, "Fast
    /// splittable pseudorandom number generators", OOPSLA 2014): fast without optimisation, and not
    /// the one that the code under test uses.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}
