//! Which CPUs these are: brand, family, model, stepping, microcode, number.
//!
//! Sources: `/proc/cpuinfo`; `Documentation/ABI/testing/sysfs-devices-system-cpu`.

use exitpath_recording::fact;
use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::cpuinfo::{CPUINFO, CpuInfo};
use crate::reading::parse::{and_list, count};
use crate::reading::root::Unknown;
use crate::topic::Topic;
use crate::topics::arch::x86_64;

/// A field that cpuinfo should have.
fn field<T>(value: Option<T>, name: &str) -> Result<T, Unknown> {
    value.ok_or_else(|| Unknown::NotHere(format!("{CPUINFO} has no readable \"{name}\"")))
}

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        ("cpu-model", "which CPU it is"),
        ("microcode-mixed", "CPUs with different microcode"),
        ("cpu-count", "how many CPUs are in use"),
        ("cpu-hybrid", "cores of two kinds in one machine"),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    identity(machine, out);
    number(machine, out);
    hybrid(machine, out);
}

fn identity(machine: &Machine<'_>, out: &mut Examination) {
    let cpu = match &machine.cpu {
        Ok(cpu) => cpu,
        Err(unknown) => {
            let _ = out.record::<()>(fact::CPU_MODEL_NAME, Err(unknown.clone()));
            out.find_unknown("cpu-model", "cpu", unknown);
            return;
        }
    };
    let name = cpu.model_names.iter().next().cloned();
    let _ = out.record(fact::CPU_MODEL_NAME, field(name.clone(), "model name"));
    let _ = out.record("cpu.vendor", field(cpu.vendor_id.clone(), "vendor_id"));
    let family = out.record("cpu.family", field(cpu.family, "cpu family"));
    let model = out.record("cpu.model", field(cpu.model, "model"));
    let stepping = out.record("cpu.stepping", field(cpu.stepping, "stepping"));
    let microcode = cpu.microcodes.iter().next().cloned();
    let _ = out.record("cpu.microcode", field(microcode.clone(), "microcode"));
    out.fact(fact::CPU_BUGS, json!(cpu.bugs));
    out.fact("cpu.virtualization_flags", json!(virtualization_flags(cpu)));

    let mut says = name.unwrap_or_else(|| "a CPU without a name".to_owned());
    if let (Ok(family), Ok(model), Ok(stepping)) = (family, model, stepping) {
        says.push_str(&format!(
            ", family {family} model {model} stepping {stepping}"
        ));
    }
    if let Some(microcode) = microcode {
        says.push_str(&format!(", microcode {microcode}"));
    }
    out.find(Finding::new("cpu-model", "cpu", Level::Good, says));

    if cpu.microcodes.len() > 1 {
        let versions: Vec<&String> = cpu.microcodes.iter().collect();
        let says = format!("the CPUs run different microcode: {}", and_list(&versions));
        out.find(
            Finding::new("microcode-mixed", "cpu", Level::Warning, says)
                .advice("load one version on all CPUs at boot (package intel-microcode or amd64-microcode), or compare only runs of one CPU"),
        );
    }
}

/// The flags that say what a hypervisor can use, from `flags` and `vmx flags`.
fn virtualization_flags(cpu: &CpuInfo) -> Vec<&str> {
    let known = x86_64::VIRTUALIZATION
        .iter()
        .copied()
        .filter(|flag| cpu.has(flag));
    known
        .chain(cpu.vmx_flags.iter().map(String::as_str))
        .collect()
}

fn number(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    for list in ["online", "possible"] {
        let _ = out.record(
            &format!("cpu.{list}"),
            root.text(&format!("/sys/devices/system/cpu/{list}")),
        );
    }
    match out.record("cpu.count", machine.cpu_count()) {
        Ok(1) => out.find(
            Finding::new("cpu-count", "cpu", Level::Warning, "one CPU: whatever else runs, runs on the CPU that is measured")
                .advice("give the machine a second CPU, so that measuring and everything else can be kept apart"),
        ),
        Ok(number) => out.find(Finding::new("cpu-count", "cpu", Level::Good, count(number, "CPU"))),
        Err(unknown) => out.find_unknown("cpu-count", "cpu", &unknown),
    }
}

/// Intel's hybrid CPUs register one PMU for each kind of core, `cpu_core` and `cpu_atom`, and list
/// its CPUs (`Documentation/admin-guide/perf` calls them by these names).
fn hybrid(machine: &Machine<'_>, out: &mut Examination) {
    let core = machine.root.text("/sys/devices/cpu_core/cpus");
    let atom = machine.root.text("/sys/devices/cpu_atom/cpus");
    let (Ok(core), Ok(atom)) = (core, atom) else {
        return;
    };
    let says = format!(
        "two kinds of cores: CPUs {core} are performance cores, {atom} efficiency ones; an exit takes another time on each"
    );
    out.fact("cpu.performance_cores", core.as_str());
    out.fact("cpu.efficiency_cores", atom);
    out.find(
        Finding::new("cpu-hybrid", "cpu", Level::Warning, says).advice(format!(
            "keep to one kind: taskset -c {core} exitpath measure"
        )),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, intel_laptop_on_battery, vm_guest};

    #[test]
    fn an_intel_laptop() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        assert_eq!(out.facts["cpu.family"], json!(6));
        assert_eq!(out.facts["cpu.model"], json!(142));
        assert_eq!(out.facts["cpu.stepping"], json!(10));
        assert_eq!(out.facts["cpu.count"], json!(4));
        let flags = out.facts["cpu.virtualization_flags"].to_string();
        assert!(flags.contains("vmx") && flags.contains("apicv"), "{flags}");
        let says = &out.get("cpu-model", "cpu").says;
        assert!(
            says.contains("i7-8650U") && says.contains("microcode 0xf0"),
            "{says}"
        );
        assert!(!out.has("microcode-mixed"));
    }

    #[test]
    fn one_cpu_is_too_few() {
        let out = vm_guest().topic(&TOPIC);
        assert_eq!(out.get("cpu-count", "cpu").level, Level::Warning);
    }

    #[test]
    fn mixed_microcode() {
        let text = "processor : 0\nmicrocode : 0x1\n\nprocessor : 1\nmicrocode : 0x2\n";
        let out = Tree::new().file(CPUINFO, text).topic(&TOPIC);
        assert!(
            out.get("microcode-mixed", "cpu")
                .says
                .ends_with("0x1 and 0x2")
        );
        assert_eq!(out.facts["cpu.count"], json!(2));
        assert!(out.unknown_facts().any(|(key, _)| key == "cpu.family"));
    }

    #[test]
    fn hybrid_cpus() {
        let out = intel_laptop_on_battery()
            .file("/sys/devices/cpu_core/cpus", "0-1\n")
            .file("/sys/devices/cpu_atom/cpus", "2-3\n")
            .topic(&TOPIC);
        let advice = out.get("cpu-hybrid", "cpu").advice.clone().unwrap();
        assert!(advice.contains("taskset -c 0-1"), "{advice}");
    }

    #[test]
    fn nothing_and_nonsense() {
        let out = Tree::new().topic(&TOPIC);
        assert_eq!(out.get("cpu-model", "cpu").level, Level::Note);
        let tree = Tree::new()
            .file(CPUINFO, ":::\n: processor\n")
            .file("/sys/devices/system/cpu/online", "9-1");
        assert!(tree.topic(&TOPIC).unknown_facts().count() >= 2);
    }
}
