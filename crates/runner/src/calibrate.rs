//! The calibration guest: do guests run on this CPU, or does something interpret them?

use std::time::Duration;

use exitpath_exits::find;
use exitpath_recording::{Sample, counter};
use exitpath_vmm::{Error, Kvm};

use crate::arch::{NOPS, native_ticks_per_nop};
use crate::error::Result;
use crate::run::run_row;
use crate::session::TSC_KHZ;
use crate::settings::{Place, Settings};

/// What the calibration guest said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// TSC ticks for one NOP, from a thousand of them.
    pub ticks_per_nop: f64,
    /// The same in this process, on the bare CPU.
    pub native_ticks_per_nop: f64,
    /// Exits one RDTSC in the guest makes, where KVM counts them.
    pub exits_per_rdtsc: Option<f64>,
    /// TSC frequency in kHz as KVM reports it, where it does.
    pub tsc_khz: Option<u64>,
}

impl Calibration {
    /// Guests that need this many times as long as this process for the same instructions do not
    /// run on the CPU. Interpreters need a factor of twenty and more.
    pub const INTERPRETED_FACTOR: f64 = 8.0;

    /// Whether something interprets or translates guest code.
    pub fn interpreted(&self) -> bool {
        self.ticks_per_nop > Self::INTERPRETED_FACTOR * self.native_ticks_per_nop
    }
}

/// Runs a thousand NOPs as a guest and natively and compares.
///
/// # Errors
/// Where KVM refuses, or the guest does not come back.
pub fn calibrate(kvm: &Kvm) -> Result<Calibration> {
    let settings = Settings {
        samples: 200,
        warm_up: 20,
        batches: 0,
        batch_length: 0,
        watchdog: Duration::from_secs(2),
        cpus: Vec::new(),
        machine: Default::default(),
        yielding: false,
    };
    let place = Place {
        id: 0,
        block: 0,
        seed: None,
        cpus: 0,
    };
    let measure = |name: &str| {
        let row = find(name).expect("the catalogue has the rows calibration needs");
        let run = run_row(kvm, row, &settings, &place)?;
        match run.outcome.reason() {
            None => Ok(run),
            Some(reason) => {
                let reason = format!("calibration guest: {reason}");
                Err(crate::error::Error::from(Error::Unexpected { reason }))
            }
        }
    };
    let nops = measure("nop_1000")?;
    let net = undisturbed(&nops.samples).ok_or_else(|| Error::Unexpected {
        reason: "calibration guest: a thousand NOPs took no time by its own clock".to_owned(),
    })?;
    let rdtsc = measure("rdtsc")?;
    let exits = rdtsc.counters.get(counter::EXITS).copied();
    let external = rdtsc.counters.get(counter::IRQ_EXITS).copied().unwrap_or(0);
    Ok(Calibration {
        ticks_per_nop: net as f64 / NOPS,
        native_ticks_per_nop: native_ticks_per_nop(),
        tsc_khz: nops
            .counters
            .get(TSC_KHZ)
            .and_then(|&khz| u64::try_from(khz).ok()),
        exits_per_rdtsc: exits.map(|exits| (exits - external) as f64 / rdtsc.ops.max(1) as f64),
    })
}

/// Ticks of the operation where nothing disturbed it: the shortest bracket with it less the shortest
/// one without it. A disturbance makes a bracket longer, never shorter, so that the shortest of each kind
/// are the undisturbed ones. The smallest of the samples' own differences is not: a disturbed empty
/// bracket makes its sample's difference smaller than the operation. `None` without samples, or where
/// the operation took no time at all.
fn undisturbed(samples: &[Sample]) -> Option<u64> {
    let op = samples.iter().map(|sample| sample.op).min()?;
    let empty = samples.iter().map(|sample| sample.empty).min()?;
    op.checked_sub(empty).filter(|&net| net > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(pairs: &[(u64, u64)]) -> Vec<Sample> {
        let sample = |&(empty, op)| Sample { empty, op };
        pairs.iter().map(sample).collect()
    }

    /// What is decided of a guest whose thousand NOPs were timed so, on a CPU that needs a quarter of
    /// a tick for one.
    fn is_interpreted(pairs: &[(u64, u64)]) -> bool {
        let net = undisturbed(&samples(pairs)).expect("it took some time");
        let calibration = Calibration {
            ticks_per_nop: net as f64 / NOPS,
            native_ticks_per_nop: 0.25,
            exits_per_rdtsc: None,
            tsc_khz: None,
        };
        calibration.interpreted()
    }

    #[test]
    fn one_disturbed_empty_bracket_does_not_put_guests_on_the_cpu() {
        assert!(is_interpreted(&[(30, 20_030); 200]));
        // Interrupted in the empty bracket, for about as long as the NOPs take.
        for disturbed in [19_900, 20_029, 20_030, 5_000_000] {
            let mut pairs = [(30, 20_030); 200];
            pairs[77].0 = disturbed;
            assert!(is_interpreted(&pairs), "{disturbed}");
        }
    }

    #[test]
    fn disturbed_operations_do_not_take_guests_off_the_cpu() {
        let mut pairs = [(30, 280); 200];
        assert!(!is_interpreted(&pairs));
        for pair in &mut pairs[1..] {
            pair.1 = 90_000;
        }
        assert!(!is_interpreted(&pairs));
    }

    #[test]
    fn the_limit_is_a_factor_to_this_very_cpu() {
        let at = |ticks: u64| is_interpreted(&[(30, 30 + ticks)]);
        // Eight times a quarter, a thousand times.
        assert!(!at(2_000));
        assert!(at(2_001));
    }

    #[test]
    fn a_clock_that_stands_still_says_nothing() {
        for pairs in [&[][..], &[(30, 30)], &[(30, 20)]] {
            assert_eq!(undisturbed(&samples(pairs)), None, "{pairs:?}");
        }
    }
}
