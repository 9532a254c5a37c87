//! What figures hold for, and how far they can be trusted at a glance.

use exitpath_analysis::table::{Verdict, qemu_version};
use exitpath_recording::{Machine, Manifest, fact};

use crate::document::{Document, Tone};
use crate::format::{machine, plain, subject};

/// What QEMU 10 or a later one would change, and how to get it.
pub const NEWER_QEMU: &str = "with QEMU 10 or later, rows of two vCPUs run on two CPUs (with this QEMU their \
                              threads share one, and they measure its scheduling), xsetbv exits, and many \
                              rows take 1 or 2 % fewer instructions: `exitpath lab qemu --fetch` (or `make \
                              qemu10`) gets QEMU 10, without root";

/// Appends what the figures hold for, and what another emulator would change.
pub(super) fn environment(text: &mut Document, manifest: &Manifest) {
    measured_on(text, manifest);
    let is_old = qemu_version(&manifest.environment).is_some_and(|(major, _)| major < 10);
    if manifest.machine == Machine::Lab && is_old {
        text.note(format!("QEMU: {NEWER_QEMU}"));
    }
}

/// What the figures hold for: a line on the machine and one on its kernel, and one on the VMM where
/// that is not exitpath's own.
pub(super) fn measured_on(text: &mut Document, manifest: &Manifest) {
    let environment = &manifest.environment;
    text.fact(machine(manifest, environment.cpus, &environment.seeds));
    text.fact(subject(manifest));
    let text_of = |name| environment.facts.get(name).and_then(|fact| fact.as_str());
    if let Some(command) = text_of(fact::VMM_COMMAND) {
        let version = text_of(fact::VMM_VERSION).map_or_else(String::new, |version| {
            format!(" (version {})", plain(version))
        });
        text.fact(format!("under: {}{version}", plain(command)));
    }
}

/// What is not clean stands out.
pub(super) fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Clean => Tone::Plain,
        Verdict::Usable => Tone::Warning,
        Verdict::Void => Tone::Bad,
        Verdict::Skipped => Tone::Faint,
    }
}
