//! The calibration guest: do guests run on this CPU, or does something interpret them?

use std::time::Duration;

use exitpath_exits::find;
use exitpath_recording::Outcome;
use exitpath_vmm::{Error, Kvm};

use crate::session::TSC_KHZ;
use crate::{Place, Settings, run_row};

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
pub fn calibrate(kvm: &Kvm) -> Result<Calibration, Error> {
    let settings = Settings {
        samples: 200,
        warm_up: 20,
        batches: 0,
        batch_length: 0,
        watchdog: Duration::from_secs(2),
        cpus: Vec::new(),
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
        match run.outcome {
            Outcome::Done => Ok(run),
            Outcome::Skipped { reason } | Outcome::Fault { reason } | Outcome::Hung { reason } => {
                Err(Error::Unexpected {
                    reason: format!("calibration guest: {reason}"),
                })
            }
        }
    };
    let nops = measure("nop_1000")?;
    let net = nops
        .samples
        .iter()
        .map(|s| s.op.saturating_sub(s.empty))
        .min()
        .unwrap_or(0);
    let rdtsc = measure("rdtsc")?;
    let exits = rdtsc.counters.get("exits").copied();
    let external = rdtsc.counters.get("irq_exits").copied().unwrap_or(0);
    Ok(Calibration {
        ticks_per_nop: net as f64 / 1000.0,
        native_ticks_per_nop: native_ticks_per_nop(),
        tsc_khz: nops
            .counters
            .get(TSC_KHZ)
            .and_then(|&khz| u64::try_from(khz).ok()),
        exits_per_rdtsc: exits.map(|exits| (exits - external) as f64 / rdtsc.ops.max(1) as f64),
    })
}

/// A thousand NOPs between two clock reads in this process, the shortest of 200.
fn native_ticks_per_nop() -> f64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    let mut shortest = u64::MAX;
    for _ in 0..200 {
        // SAFETY: lfence, rdtsc and NOP are available on every x86-64 CPU and touch no memory.
        let ticks = unsafe {
            _mm_lfence();
            let start = _rdtsc();
            _mm_lfence();
            std::arch::asm!(".rept 1000", "nop", ".endr", options(nomem, nostack));
            _mm_lfence();
            _rdtsc().wrapping_sub(start)
        };
        shortest = shortest.min(ticks);
    }
    shortest as f64 / 1000.0
}
