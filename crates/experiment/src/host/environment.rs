//! What a recording says of this machine: its environment, and warnings of what weighs on times.

use exitpath_host::{Examination, GuestOutcome, Level};
use exitpath_recording::{Environment, fact, kind};

use crate::record::version;

/// What figures of this machine hold for.
pub(super) fn environment(
    examination: &Examination,
    guest: &GuestOutcome,
    allowed: &[usize],
    bound_to: &[usize],
) -> Environment {
    let text = |name: &str| {
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
    facts.insert(fact::VCPU_CPUS.to_owned(), bound_to.into());
    if let Some(on_cpu) = on_cpu {
        facts.insert(fact::GUESTS_ON_CPU.to_owned(), on_cpu.into());
    }
    Environment {
        arch: std::env::consts::ARCH.to_owned(),
        machine_kind: kind::HOST.to_owned(),
        kernel: text(fact::KERNEL_RELEASE),
        cmdline: text(fact::KERNEL_CMDLINE),
        cpu: text(fact::CPU_MODEL_NAME),
        cpus: allowed.len() as u32,
        qemu: None,
        seeds: Vec::new(),
        tsc_khz: tsc_khz.filter(|&khz| khz > 0),
        exitpath: version(exitpath_recording::Machine::Host),
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
