//! Whether what was asked for on a kernel's command line came about.
//!
//! The kernel is held to its own words, and what is said here quotes them: the state of a
//! vulnerability against the option that should have set it, a module's parameter against the value
//! it was to get, parameters that the kernel did not know, complaints in its log. Of a parameter about
//! which the kernel says nothing, nothing is said here either.
//!
//! Sources: `Documentation/admin-guide/kernel-parameters.txt` and `Documentation/admin-guide/hw-vuln/`
//! (the options, their values, and what the files then say); `arch/x86/kernel/cpu/bugs.c` (the words of
//! the files); `kernel/params.c` and `lib/kstrtox.c` (how values are read).

pub(crate) mod mitigation;
mod says;
mod values;

pub use says::KernelSays;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::cmdline::Word;
use crate::topic::Topic;
use exitpath_recording::fact;
use says::is_kvm;

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[(
        "parameter-without-effect",
        "a kernel parameter that did not come about",
    )],
};

/// What is on this machine's command line and did not come about. Its log may not be read by everybody,
/// and is left out.
fn examine(machine: &Machine<'_>, out: &mut Examination) {
    // Which other modules there could be is not known here.
    let are_known = machine.root.list("/sys/module").is_ok();
    let other = |word: &Word| {
        let named = word.of_module();
        !are_known || !named.is_some_and(|(module, _)| is_kvm(&module))
    };
    let found = machine
        .cmdline
        .as_ref()
        .map(|cmdline| KernelSays::read(machine.root, cmdline, &[]).judged(cmdline, other));
    let lines = found.clone().map(|found| {
        let lines = found.into_iter().map(|(_, line)| line);
        lines.collect::<Vec<_>>()
    });
    let _ = out.record(fact::WITHOUT_EFFECT, lines.map_err(Clone::clone));
    for (word, line) in found.unwrap_or_default() {
        out.find(
            Finding::new("parameter-without-effect", word, Level::Warning, line)
                .advice("leave it off the kernel's command line, or find out why the kernel did not follow it, or what has \
                     changed it since"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_s_own_command_line_is_examined() {
        let tree = crate::testing::amd_server()
            .file(
                "/proc/cmdline",
                "root=/dev/sda1 vmscape=force kvm_amd.avic=1 foo.bar=1 kvm_intel.nested=1 quiet\n",
            )
            .file(
                "/sys/devices/system/cpu/vulnerabilities/vmscape",
                "Vulnerable\n",
            )
            .file("/sys/module/kvm_amd/parameters/avic", "N\n");
        let out = tree.topic(&TOPIC);
        let finding = out.get("parameter-without-effect", "vmscape=force");
        assert_eq!(finding.level, Level::Warning);
        let finding = out.get("parameter-without-effect", "kvm_amd.avic=1");
        assert!(
            finding.says.contains("kvm_amd says 'N'"),
            "{}",
            finding.says
        );
        assert_eq!(out.findings.len(), 3);
        let lines = out.facts["kernel.without_effect"].as_array();
        assert_eq!(lines.map(Vec::len), Some(3));
    }
}
