//! KVM's modules for x86 and those of their parameters that change what an exit costs.
//!
//! Sources: `Documentation/admin-guide/kernel-parameters.txt` (kvm.*, kvm-intel.*, kvm-amd.*);
//! `Documentation/virt/kvm/halt-polling.rst`; `Documentation/admin-guide/hw-vuln/{l1tf,multihit}.rst`.

use crate::finding::Level;
use crate::machine::Machine;
use crate::reading::cpuinfo::Vendor;
use crate::reading::parse::switch;
use crate::topics::kvm::rule::{Rule, To};

/// The backends that run guests on the CPU.
pub(crate) const HARDWARE: &[&str] = &["kvm_intel", "kvm_amd"];

/// The backend for this machine's CPU.
pub(crate) fn own_backend(machine: &Machine<'_>) -> Option<&'static str> {
    match machine.cpu.as_ref().map(|cpu| cpu.vendor) {
        Ok(Vendor::Intel) => Some("kvm_intel"),
        Ok(Vendor::Amd) => Some("kvm_amd"),
        _ => None,
    }
}

/// What to do when there is no `/dev/kvm`.
pub(crate) fn why_absent(machine: &Machine<'_>) -> &'static str {
    let Ok(cpu) = &machine.cpu else {
        return "sudo modprobe kvm_intel or kvm_amd";
    };
    match (cpu.has("vmx"), cpu.has("svm"), machine.seems_virtual()) {
        (true, _, _) => {
            "sudo modprobe kvm_intel; in a container: give it the device (--device /dev/kvm)"
        }
        (_, true, _) => {
            "sudo modprobe kvm_amd; in a container: give it the device (--device /dev/kvm)"
        }
        (_, _, true) => {
            "the hypervisor below offers neither VMX nor SVM; ask it for nested virtualization"
        }
        _ => "the CPU shows neither VMX nor SVM; switch virtualization on in the firmware's setup",
    }
}

/// Parameters that are written down as unknown if a module that should have them has them not.
pub(crate) const EXPECTED: &[(&str, &[&str])] = &[
    (
        "kvm",
        &[
            "halt_poll_ns",
            "halt_poll_ns_grow",
            "halt_poll_ns_shrink",
            "nx_huge_pages",
            "enable_pmu",
            "tdp_mmu",
            "mmio_caching",
            "eager_page_split",
            "pi_inject_timer",
        ],
    ),
    (
        "kvm_intel",
        &[
            "ept",
            "vpid",
            "unrestricted_guest",
            "enable_apicv",
            "nested",
            "preemption_timer",
            "pml",
            "vmentry_l1d_flush",
        ],
    ),
    (
        "kvm_amd",
        &["npt", "nrips", "avic", "vls", "vgif", "vnmi", "nested"],
    ),
];

fn on(value: &str) -> bool {
    switch(value) == Some(true)
}

fn off(value: &str) -> bool {
    switch(value) == Some(false)
}

fn not_zero(value: &str) -> bool {
    value.parse::<u64>().is_ok_and(|number| number != 0)
}

/// Values of parameters that have to be told of.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        module: "kvm",
        parameter: "halt_poll_ns",
        applies: not_zero,
        backends: &[],
        level: Level::Note,
        says: "after a HLT the host may poll this many ns before it lets the CPU sleep: wake-ups are quicker and the CPU is busier than without",
        when: "to measure without polling",
        to: To::Now("0"),
    },
    Rule {
        module: "kvm",
        parameter: "nx_huge_pages",
        applies: on,
        backends: HARDWARE,
        level: Level::Note,
        says: "huge pages that a guest executes are split (iTLB multihit): more page faults in the first seconds of a guest",
        when: "let guests touch their code before measuring; for a comparison",
        to: To::Now("off"),
    },
    Rule {
        module: "kvm",
        parameter: "enable_pmu",
        applies: on,
        backends: &[],
        level: Level::Note,
        says: "guests may have a virtual PMU, and KVM then looks after it on entries, exits and emulated instructions",
        when: "to see what it costs compare with",
        to: To::Load("0"),
    },
    Rule {
        module: "kvm",
        parameter: "tdp_mmu",
        applies: off,
        backends: HARDWARE,
        level: Level::Note,
        says: "page faults of guests take the older MMU path with its one lock",
        when: "if guests have EPT or NPT",
        to: To::Load("1"),
    },
    Rule {
        module: "kvm",
        parameter: "enable_vmware_backdoor",
        applies: on,
        backends: HARDWARE,
        level: Level::Warning,
        says: "the VMware backdoor makes KVM intercept #GP: more exits than elsewhere",
        when: "unless it is needed",
        to: To::Load("0"),
    },
    Rule {
        module: "kvm_intel",
        parameter: "vmentry_l1d_flush",
        applies: |value| value == "always",
        backends: &[],
        level: Level::Warning,
        says: "the L1 data cache is flushed on every entry (L1TF)",
        when: "for a comparison",
        to: To::Now("cond"),
    },
    Rule {
        module: "kvm_intel",
        parameter: "vmentry_l1d_flush",
        applies: |value| value == "cond",
        backends: &[],
        level: Level::Note,
        says: "the L1 data cache is flushed on entries after risky exits, user exits among them (L1TF)",
        when: "for a comparison",
        to: To::Now("never"),
    },
    Rule {
        module: "kvm_intel",
        parameter: "ept",
        applies: off,
        backends: &[],
        level: Level::Warning,
        says: "no EPT, guests run on shadow page tables: their page-table writes and CR3 loads exit",
        when: "if the CPU, or the hypervisor below, offers EPT",
        to: To::Load("1"),
    },
    Rule {
        module: "kvm_amd",
        parameter: "npt",
        applies: off,
        backends: &[],
        level: Level::Warning,
        says: "no nested paging, guests run on shadow page tables: their page-table writes and CR3 loads exit",
        when: "if the CPU, or the hypervisor below, offers NPT",
        to: To::Load("1"),
    },
    Rule {
        module: "kvm_amd",
        parameter: "nrips",
        applies: off,
        backends: &[],
        level: Level::Warning,
        says: "no next-RIP saving: KVM decodes each exiting instruction in software to step over it",
        when: "the CPU, or the hypervisor below, has to offer NRIPS; until then these figures are not those of other AMD machines",
        to: To::Nothing,
    },
    Rule {
        module: "kvm_intel",
        parameter: "enable_apicv",
        applies: off,
        backends: &[],
        level: Level::Note,
        says: "no APICv: accesses to the local APIC and interrupts exit that elsewhere do not",
        when: "if the CPU has it",
        to: To::Load("1"),
    },
    Rule {
        module: "kvm_amd",
        parameter: "avic",
        applies: off,
        backends: &[],
        level: Level::Note,
        says: "no AVIC: accesses to the local APIC and interrupts exit that elsewhere do not",
        when: "if the CPU has it",
        to: To::Load("1"),
    },
    Rule {
        module: "kvm_intel",
        parameter: "preemption_timer",
        applies: off,
        backends: &[],
        level: Level::Note,
        says: "no VMX preemption timer: a guest's timers are timers of the host",
        when: "if the CPU has it",
        to: To::Load("1"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_about_one_module_s_parameter_and_gives_advice() {
        for rule in RULES {
            assert!(rule.module == "kvm" || rule.module.starts_with("kvm_"));
            assert!(!rule.when.is_empty() && !rule.says.ends_with('.'));
        }
    }
}
