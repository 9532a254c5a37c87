//! KVM as this machine has it: the modules, `/dev/kvm`, the parameters that change what an exit
//! costs.
//!
//! Sources: `/sys/module/kvm*`; `Documentation/admin-guide/kernel-parameters.txt` (kvm.*,
//! kvm-intel.*, kvm-amd.*); `Documentation/virt/kvm/halt-polling.rst`;
//! `Documentation/admin-guide/hw-vuln/{l1tf,multihit}.rst`.
//!
//! None of this tells whether guests run on the CPU; the calibration guest does.

use serde_json::{Map, Value, json};

use crate::cpu::Vendor;
use crate::finding::{Examination, Finding, Level, unknown_value};
use crate::machine::Machine;
use crate::parse::and_list;
use crate::permission::to_open_kvm;
use crate::root::{Root, Unknown};

/// Parameters that are written down as unknown if a module that should have them has them not.
const EXPECTED: &[(&str, &[&str])] = &[
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

/// A parameter value that a person who measures exits has to know of.
struct Rule {
    module: &'static str,
    parameter: &'static str,
    applies: fn(&str) -> bool,
    /// Only where one of these backends is in use; empty: with all of them.
    backends: &'static [&'static str],
    level: Level,
    says: &'static str,
    /// In which case to follow the command in `to`.
    when: &'static str,
    to: To,
}

/// How a parameter is changed.
enum To {
    /// While the module is loaded, by writing this.
    Now(&'static str),
    /// By loading the module with this.
    Load(&'static str),
    /// Not by this machine's user.
    Nothing,
}

const HARDWARE: &[&str] = &["kvm_intel", "kvm_amd"];

fn on(value: &str) -> bool {
    crate::parse::switch(value) == Some(true)
}

fn off(value: &str) -> bool {
    crate::parse::switch(value) == Some(false)
}

fn not_zero(value: &str) -> bool {
    value.parse::<u64>().is_ok_and(|number| number != 0)
}

const RULES: &[Rule] = &[
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

impl Rule {
    /// Whether `value` of a parameter of `module` has to be told of, with `backends` in use. An
    /// unused backend that is built in has parameters too; they mean nothing.
    fn matches(&self, module: &str, value: &str, backends: &[&str]) -> bool {
        (module == "kvm" || backends.contains(&module))
            && (self.backends.is_empty()
                || self
                    .backends
                    .iter()
                    .any(|backend| backends.contains(backend)))
            && (self.applies)(value)
    }

    fn advice(&self, machine: &Machine<'_>, backends: &[&str]) -> String {
        let Rule {
            module,
            parameter,
            when,
            ..
        } = self;
        match self.to {
            To::Nothing => (*when).to_owned(),
            To::Now(value) => {
                format!(
                    "{when}: echo {value} | sudo tee /sys/module/{module}/parameters/{parameter}"
                )
            }
            To::Load(value) if !is_loadable(machine, module) => {
                format!("{when}: boot with {module}.{parameter}={value}")
            }
            To::Load(value) => match backends {
                [backend] if *module == "kvm" => format!(
                    "{when}: sudo modprobe -r {backend} kvm && sudo modprobe kvm {parameter}={value} && sudo modprobe {backend}"
                ),
                _ => format!(
                    "{when}: sudo modprobe -r {module} && sudo modprobe {module} {parameter}={value}"
                ),
            },
        }
    }
}

/// Modules that were loaded have an `initstate`, those built into the kernel none.
fn is_loadable(machine: &Machine<'_>, module: &str) -> bool {
    machine
        .root
        .text(&format!("/sys/module/{module}/initstate"))
        .is_ok()
}

pub(crate) fn examine(machine: &Machine<'_>, out: &mut Examination) {
    device(machine, out);
    match machine.root.list("/sys/module") {
        Ok(names) => modules(machine, &names, out),
        Err(unknown) => {
            let _ = out.record::<()>("kvm.modules", Err(unknown.clone()));
            out.find_unknown("kvm-module", "kvm", &unknown);
        }
    }
}

fn device(machine: &Machine<'_>, out: &mut Examination) {
    let finding = |level, says: &str| Finding::new("kvm-device", "/dev/kvm", level, says);
    match machine.root.openable("/dev/kvm") {
        Ok(()) => {
            out.fact("kvm.device", "usable");
            out.find(finding(Level::Good, "can be opened"));
        }
        Err(Unknown::Absent { .. }) => {
            out.fact("kvm.device", "absent");
            out.find(finding(Level::Bad, "is absent").advice(why_absent(machine)));
        }
        Err(Unknown::NoPermission { .. }) => {
            out.fact("kvm.device", "no-permission");
            out.find(
                finding(Level::Bad, "is there, but this user may not open it")
                    .advice(to_open_kvm(machine.root)),
            );
        }
        Err(unknown) => {
            out.fact("kvm.device", unknown_value(&unknown));
            out.find(
                finding(Level::Bad, &format!("cannot be opened: {unknown}")).advice(
                    "see that it is a character device with a module behind it (ls -l /dev/kvm; lsmod | grep kvm); containers are given it with --device /dev/kvm",
                ),
            );
        }
    }
}

/// One line on what to do where there is no `/dev/kvm`: by what this machine's CPU has.
pub fn to_have_kvm(root: &Root) -> String {
    why_absent(&Machine::read(root, None)).to_owned()
}

/// What to do when there is no `/dev/kvm`.
fn why_absent(machine: &Machine<'_>) -> &'static str {
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

fn modules(machine: &Machine<'_>, names: &[String], out: &mut Examination) {
    let present: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| *name == "kvm" || name.starts_with("kvm_"))
        .collect();
    out.fact("kvm.modules", json!(present));
    let backends: Vec<&str> = present
        .iter()
        .copied()
        .filter(|name| *name != "kvm")
        .collect();
    let in_use = backends_in_use(machine, &backends);
    out.fact("kvm.backends", json!(in_use));

    let finding = |level, says: &str| Finding::new("kvm-module", "kvm", level, says);
    out.find(match in_use.as_slice() {
        // Where the device is absent, too, that finding says what to do.
        [] if present.is_empty() => match out.facts.get("kvm.device") {
            Some(device) if device == "absent" => finding(Level::Bad, "no KVM module is loaded"),
            _ => finding(Level::Bad, "no KVM module is loaded").advice(why_absent(machine)),
        },
        [] => finding(Level::Warning, "kvm is loaded, but no module for this CPU (kvm_intel, kvm_amd)")
            .advice(why_absent(machine)),
        [one @ ("kvm_intel" | "kvm_amd")] => finding(Level::Good, &format!("{one} is in use")),
        [other] => finding(
            Level::Note,
            &format!("KVM's backend is {other}, neither kvm_intel nor kvm_amd: its exits are not VMX or SVM ones"),
        )
        .advice("call what is measured here by the backend's name, and compare it with no other"),
        several => finding(
            Level::Note,
            &format!("{} are all there; which one is in use is not known", and_list(several)),
        ),
    });

    let mut parameters = Map::new();
    for module in &present {
        let values = parameters_of(machine, module);
        for rule in RULES.iter().filter(|rule| rule.module == *module) {
            let Some(value) = values.get(rule.parameter).and_then(Value::as_str) else {
                continue;
            };
            let subject = format!("{module}.{}", rule.parameter);
            if rule.matches(module, value, &in_use) {
                let says = format!("{subject}={value}: {}", rule.says);
                out.find(
                    Finding::new("kvm-parameter", subject, rule.level, says)
                        .advice(rule.advice(machine, &in_use)),
                );
            }
        }
        parameters.insert((*module).to_owned(), Value::Object(values));
    }
    out.fact("kvm.parameters", parameters);
}

/// Of several backends (distributions build in more than one, and the folder of a built-in module
/// is there whether the module found its CPU or not) those that can be in use.
fn backends_in_use<'n>(machine: &Machine<'_>, backends: &[&'n str]) -> Vec<&'n str> {
    if backends.len() < 2 {
        return backends.to_vec();
    }
    let own = match machine.cpu.as_ref().map(|cpu| cpu.vendor) {
        Ok(Vendor::Intel) => "kvm_intel",
        Ok(Vendor::Amd) => "kvm_amd",
        _ => return backends.to_vec(),
    };
    // A module with an initstate was loaded by somebody, and refuses to load on the wrong CPU.
    backends
        .iter()
        .copied()
        .filter(|name| *name == own || is_loadable(machine, name))
        .collect()
}

fn parameters_of(machine: &Machine<'_>, module: &str) -> Map<String, Value> {
    let folder = format!("/sys/module/{module}/parameters");
    let mut values = Map::new();
    for name in machine.root.list(&folder).unwrap_or_default() {
        let value = match machine.root.text(&format!("{folder}/{name}")) {
            Ok(text) => Value::String(text),
            Err(unknown) => unknown_value(&unknown),
        };
        values.insert(name, value);
    }
    let expected = EXPECTED.iter().find(|(name, _)| *name == module);
    for name in expected.map_or(&[][..], |(_, names)| names) {
        if !values.contains_key(*name) {
            let absent = Unknown::Absent {
                path: format!("{folder}/{name}"),
            };
            values.insert((*name).to_owned(), unknown_value(&absent));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::unknown_reason;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, sandbox, vm_guest};

    #[test]
    fn an_intel_laptop() {
        let out = intel_laptop_on_battery().topic(examine);
        assert_eq!(out.get("kvm-device", "/dev/kvm").level, Level::Good);
        assert_eq!(out.get("kvm-module", "kvm").level, Level::Good);
        assert_eq!(out.facts["kvm.parameters"]["kvm_intel"]["ept"], json!("Y"));
        for subject in [
            "kvm.halt_poll_ns",
            "kvm.enable_pmu",
            "kvm_intel.vmentry_l1d_flush",
        ] {
            assert_eq!(out.get("kvm-parameter", subject).level, Level::Note);
        }
        assert!(
            out.findings
                .iter()
                .all(|finding| finding.subject != "kvm.tdp_mmu")
        );
        let unknown = unknown_reason(&out.facts["kvm.parameters"]["kvm_intel"]["pml"]);
        assert_eq!(
            unknown,
            Some("/sys/module/kvm_intel/parameters/pml is absent")
        );
    }

    #[test]
    fn an_amd_server_without_avic() {
        let out = amd_server().topic(examine);
        assert_eq!(out.facts["kvm.backends"], json!(["kvm_amd"]));
        assert_eq!(out.get("kvm-parameter", "kvm_amd.avic").level, Level::Note);
        assert!(
            out.findings
                .iter()
                .all(|finding| finding.subject != "kvm.halt_poll_ns")
        );
    }

    #[test]
    fn a_virtual_machine_without_nesting() {
        let out = vm_guest().topic(examine);
        assert_eq!(out.facts["kvm.device"], json!("absent"));
        let finding = out.get("kvm-device", "/dev/kvm");
        assert_eq!(finding.level, Level::Bad);
        assert!(
            finding
                .advice
                .as_ref()
                .unwrap()
                .contains("nested virtualization")
        );
        let out = vm_guest().folder("/sys/module/ext4").topic(examine);
        assert_eq!(out.get("kvm-module", "kvm").level, Level::Bad);
    }

    /// One reason has one advice, whatever follows from it.
    #[test]
    fn no_advice_is_given_twice() {
        use crate::guest::{GuestCheck, GuestOutcome};
        let machines = [
            vm_guest(),
            vm_guest().folder("/sys/module/ext4"),
            sandbox(),
            amd_server(),
            intel_laptop_on_battery(),
        ];
        for machine in machines {
            for outcome in [GuestOutcome::NoDevice, GuestOutcome::NoPermission] {
                let check = GuestCheck { outcome };
                let examination = crate::examine(&machine.root(), Some(&check));
                let mut given: Vec<&str> = Vec::new();
                for finding in &examination.findings {
                    if let Some(advice) = finding.advice.as_deref().filter(|_| {
                        finding.id.starts_with("kvm-d")
                            || finding.id == "kvm-module"
                            || finding.id == "guest-execution"
                    }) {
                        assert!(!given.contains(&advice), "{advice}");
                        given.push(advice);
                    }
                }
            }
        }
    }

    #[test]
    fn advice_is_a_command_for_this_kernel() {
        let tree = intel_laptop_on_battery().file("/sys/module/kvm/initstate", "live\n");
        let advice = |tree: &Tree| {
            tree.topic(examine)
                .get("kvm-parameter", "kvm.enable_pmu")
                .advice
                .clone()
                .unwrap()
        };
        assert!(
            advice(&tree).ends_with(
                "sudo modprobe -r kvm_intel kvm && sudo modprobe kvm enable_pmu=0 && sudo modprobe kvm_intel"
            ),
            "{}",
            advice(&tree)
        );
        let built_in = tree.without("/sys/module/kvm/initstate");
        assert!(advice(&built_in).ends_with("boot with kvm.enable_pmu=0"));
    }

    #[test]
    fn another_backend_is_named_and_not_judged() {
        let out = sandbox().topic(examine);
        let finding = out.get("kvm-module", "kvm");
        assert_eq!(finding.level, Level::Note);
        assert!(finding.says.contains("kvm_pvm"));
        assert!(
            out.findings
                .iter()
                .all(|finding| finding.subject != "kvm.tdp_mmu")
        );
        assert_eq!(
            out.facts["kvm.parameters"]["kvm_pvm"]["pvm_native"],
            json!("Y")
        );
    }

    #[test]
    fn a_built_in_module_for_another_cpu_is_not_in_use() {
        let tree = amd_server()
            .file("/sys/module/kvm_intel/parameters/ept", "N")
            .without("/sys/module/kvm_amd/initstate");
        let out = tree.topic(examine);
        assert_eq!(out.facts["kvm.backends"], json!(["kvm_amd"]));
        assert!(
            out.findings
                .iter()
                .all(|finding| finding.subject != "kvm_intel.ept")
        );
    }

    #[test]
    fn a_folder_named_dev_kvm_as_containers_make_it() {
        let out = Tree::new().folder("/dev/kvm").topic(examine);
        let finding = out.get("kvm-device", "/dev/kvm");
        assert_eq!(finding.level, Level::Bad);
        assert!(finding.advice.as_ref().unwrap().contains("--device"));
    }

    #[test]
    fn odd_values_are_written_down_and_trip_no_rule() {
        let out = amd_server()
            .file("/sys/module/kvm_amd/parameters/npt", "\u{0}\n?")
            .file("/sys/module/kvm/parameters/halt_poll_ns", "-7")
            .topic(examine);
        assert!(
            out.findings
                .iter()
                .all(|finding| finding.subject != "kvm_amd.npt")
        );
        assert_eq!(
            out.facts["kvm.parameters"]["kvm"]["halt_poll_ns"],
            json!("-7")
        );
    }

    #[test]
    fn every_rule_is_about_one_module_s_parameter_and_gives_advice() {
        for rule in RULES {
            assert!(rule.module == "kvm" || rule.module.starts_with("kvm_"));
            assert!(!rule.when.is_empty() && !rule.says.ends_with('.'));
        }
    }
}
