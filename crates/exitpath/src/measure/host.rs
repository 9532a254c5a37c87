//! Measuring on this machine's KVM.

use std::sync::atomic::{AtomicBool, Ordering};

use exitpath_analysis::table::host::GUESTS_RUN_ON_CPU;
use exitpath_exits::Row;
use exitpath_host::{Examination, GuestOutcome, Level, Root};
use exitpath_recording::{Environment, Machine, Manifest, Outcome, Plan, Recording};
use exitpath_runner::{Place, random_order, row_info, run_row};
use exitpath_vmm::{Kvm, kick};

use super::{BATCH_LENGTH, BATCHES};
use crate::cli::Sampling;
use crate::failure::Failure;
use crate::{doctor, output, provenance};

/// Bracketed samples in a run unless the user says otherwise: enough for a 99th percentile.
pub(super) const SAMPLES: u32 = 1000;

/// What is to be done on this machine's KVM.
pub(crate) struct HostMeasurement<'a> {
    /// The command that wants it.
    pub(crate) command: &'static str,
    /// The rows.
    pub(crate) rows: &'a [&'static Row],
    /// How much of each.
    pub(crate) sampling: &'a Sampling,
}

/// Runs each row in fresh VMs, in random order.
pub(crate) fn measure(
    plan: &HostMeasurement<'_>,
    guest: &GuestOutcome,
    interrupted: &AtomicBool,
) -> Result<Recording, Failure> {
    let HostMeasurement {
        command,
        rows,
        sampling,
    } = *plan;
    let kvm = Kvm::open()?;
    let examination = doctor::examine(guest.clone());
    let allowed = kick::allowed_cpus()?;
    let (cpus, shared_core) = exitpath_host::choose_cpus(&Root::default(), &allowed);
    let samples = sampling.samples.unwrap_or(SAMPLES);
    let settings = super::settings(sampling, samples, cpus.clone(), false);
    let order_seed = sampling.order_seed.unwrap_or_else(provenance::unix_seconds);
    let begun_unix_seconds = provenance::unix_seconds();

    let order = random_order(rows, sampling.runs, order_seed);
    let what = format!(
        "{}, {} of each",
        output::number(rows.len(), "row"),
        output::number(sampling.runs as usize, "fresh VM")
    );
    let bar = output::progress(order.len() as u64, &what);
    let mut runs = Vec::new();
    let mut given_up: Vec<&str> = Vec::new();
    for (id, (block, row)) in (0..).zip(order) {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        bar.set_message(row.name);
        // A row that hung or cannot be done would do so again, each time for a whole watchdog.
        if !given_up.contains(&row.name) {
            let place = Place {
                id,
                block,
                seed: None,
                cpus: cpus.len() as u32,
            };
            let run = run_row(&kvm, row, &settings, &place)?;
            if run.outcome != Outcome::Done {
                given_up.push(row.name);
            }
            runs.push(run);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    let plan = Plan {
        runs: sampling.runs,
        samples,
        batches: BATCHES,
        batch_length: BATCH_LENGTH,
        order_seed,
    };
    Ok(Recording {
        manifest: Manifest {
            command: command.to_owned(),
            begun_unix_seconds,
            machine: Machine::Host,
            environment: environment(&examination, guest, &allowed, &cpus),
            plan,
            conditions: vec![exitpath_recording::Condition::base()],
            rows: rows.iter().map(|row| row_info(row, kvm.is_amd())).collect(),
            warnings: warnings(
                &examination,
                shared_core && rows.iter().any(|row| row.vcpus > 1),
            ),
        },
        runs,
        trace: None,
    })
}

pub(super) fn environment(
    examination: &Examination,
    guest: &GuestOutcome,
    allowed: &[usize],
    bound_to: &[usize],
) -> Environment {
    let fact = |name: &str| {
        let value = examination.facts.get(name);
        value
            .and_then(|value| value.as_str())
            .unwrap_or("unknown")
            .to_owned()
    };
    let mut facts = examination.facts.clone();
    let (on_cpu, tsc_khz) = match guest {
        GuestOutcome::OnCpu { tsc_khz, .. } => (Some(true), Some(*tsc_khz)),
        GuestOutcome::Interpreted { tsc_khz, .. } => (Some(false), Some(*tsc_khz)),
        _ => (None, None),
    };
    facts.insert("vcpu.cpus".to_owned(), bound_to.into());
    if let Some(on_cpu) = on_cpu {
        facts.insert(GUESTS_RUN_ON_CPU.to_owned(), on_cpu.into());
    }
    Environment {
        arch: "x86_64".to_owned(),
        machine_kind: exitpath_recording::kind::HOST.to_owned(),
        kernel: fact("kernel.release"),
        cmdline: fact("kernel.cmdline"),
        cpu: fact("cpu.model_name"),
        cpus: allowed.len() as u32,
        qemu: None,
        seeds: Vec::new(),
        tsc_khz: tsc_khz.filter(|&khz| khz > 0),
        exitpath: provenance::version(),
        facts,
    }
}

/// Findings that weigh on times, with their advice.
pub(super) fn warnings(examination: &Examination, shared_core: bool) -> Vec<String> {
    let shared = shared_core.then(|| {
        "rows of two vCPUs: both run on threads of one core, as no second core is allowed → \
         allow CPUs of two cores (taskset)"
            .to_owned()
    });
    let found = examination
        .findings
        .iter()
        .filter(|finding| finding.level >= Level::Warning)
        .map(|finding| match &finding.advice {
            Some(advice) => format!("{}: {} → {advice}", finding.subject, finding.says),
            None => format!("{}: {}", finding.subject, finding.says),
        });
    shared.into_iter().chain(found).collect()
}
