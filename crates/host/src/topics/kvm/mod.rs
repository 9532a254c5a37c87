//! KVM as this machine has it: the modules, `/dev/kvm`, the parameters that change what an exit
//! costs.
//!
//! Source: `/sys/module/kvm*`.
//!
//! None of this tells whether guests run on the CPU; the calibration guest does.

mod device;
mod permission;
pub(crate) mod rule;

pub use device::to_have_kvm;
pub use permission::to_open_kvm;

use serde_json::{Map, Value, json};

use crate::finding::{Examination, Finding, Level, unknown_value};
use crate::machine::Machine;
use crate::reading::parse::and_list;
use crate::reading::root::Unknown;
use crate::topic::Topic;
use crate::topics::arch::x86_64::kvm::{EXPECTED, RULES, own_backend, why_absent};
use rule::is_loadable;

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        ("kvm-device", "whether /dev/kvm is there and may be opened"),
        ("kvm-module", "which KVM backend is in use"),
        (
            "kvm-parameter",
            "a parameter of a KVM module that changes what exits cost",
        ),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    device::examine(machine, out);
    match machine.root.list("/sys/module") {
        Ok(names) => modules(machine, &names, out),
        Err(unknown) => {
            let _ = out.record::<()>("kvm.modules", Err(unknown.clone()));
            out.find_unknown("kvm-module", "kvm", &unknown);
        }
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
    let Some(own) = own_backend(machine) else {
        return backends.to_vec();
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
        let out = intel_laptop_on_battery().topic(&TOPIC);
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
        let out = amd_server().topic(&TOPIC);
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
        let out = vm_guest().topic(&TOPIC);
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
        let out = vm_guest().folder("/sys/module/ext4").topic(&TOPIC);
        assert_eq!(out.get("kvm-module", "kvm").level, Level::Bad);
    }

    /// One reason has one advice, whatever follows from it.
    #[test]
    fn no_advice_is_given_twice() {
        use crate::calibration::{GuestCheck, GuestOutcome};
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
            tree.topic(&TOPIC)
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
        let out = sandbox().topic(&TOPIC);
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
        let out = tree.topic(&TOPIC);
        assert_eq!(out.facts["kvm.backends"], json!(["kvm_amd"]));
        assert!(
            out.findings
                .iter()
                .all(|finding| finding.subject != "kvm_intel.ept")
        );
    }

    #[test]
    fn a_folder_named_dev_kvm_as_containers_make_it() {
        let out = Tree::new().folder("/dev/kvm").topic(&TOPIC);
        let finding = out.get("kvm-device", "/dev/kvm");
        assert_eq!(finding.level, Level::Bad);
        assert!(finding.advice.as_ref().unwrap().contains("--device"));
    }

    #[test]
    fn odd_values_are_written_down_and_trip_no_rule() {
        let out = amd_server()
            .file("/sys/module/kvm_amd/parameters/npt", "\u{0}\n?")
            .file("/sys/module/kvm/parameters/halt_poll_ns", "-7")
            .topic(&TOPIC);
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
}
