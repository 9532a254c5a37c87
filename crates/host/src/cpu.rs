//! Which CPUs these are: brand, family, model, stepping, microcode, number.
//!
//! Sources: `/proc/cpuinfo`; `Documentation/ABI/testing/sysfs-devices-system-cpu`.

use std::collections::BTreeSet;

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::parse::{and_list, count, cpu_list_len};
use crate::root::{Root, Unknown};

const CPUINFO: &str = "/proc/cpuinfo";

/// Who made the CPU, as far as it decides which counters and modules there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vendor {
    Intel,
    /// AMD, and Hygon, whose CPUs use the same module.
    Amd,
    Other,
}

/// What `/proc/cpuinfo` says. Fields that differ between CPUs are sets.
#[derive(Debug, Clone)]
pub(crate) struct CpuInfo {
    pub(crate) vendor: Vendor,
    pub(crate) vendor_id: Option<String>,
    pub(crate) model_names: BTreeSet<String>,
    family: Option<u32>,
    model: Option<u32>,
    stepping: Option<u32>,
    pub(crate) microcodes: BTreeSet<String>,
    /// The flags of the first CPU; empty where the architecture has none.
    pub(crate) flags: BTreeSet<String>,
    /// The `vmx flags` of the first CPU, Intel only.
    vmx_flags: Vec<String>,
    bugs: Vec<String>,
    number: u64,
}

impl CpuInfo {
    pub(crate) fn read(root: &Root) -> Result<Self, Unknown> {
        Self::parse(&root.text(CPUINFO)?)
    }

    fn parse(text: &str) -> Result<Self, Unknown> {
        let fields = || {
            text.lines().filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.trim(), value.trim()))
            })
        };
        let first = |wanted: &str| fields().find(|(name, _)| *name == wanted).map(|(_, v)| v);
        let all = |wanted: &str| -> BTreeSet<String> {
            fields()
                .filter(|(name, _)| *name == wanted)
                .map(|(_, v)| v.to_owned())
                .collect()
        };
        let words = |wanted: &str| -> Vec<String> {
            first(wanted)
                .unwrap_or("")
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let number = fields().filter(|(name, _)| *name == "processor").count() as u64;
        if number == 0 {
            return Err(Unknown::malformed(CPUINFO, text));
        }
        let vendor_id = first("vendor_id").map(str::to_owned);
        let vendor = match vendor_id.as_deref() {
            Some("GenuineIntel") => Vendor::Intel,
            Some("AuthenticAMD" | "HygonGenuine") => Vendor::Amd,
            _ => Vendor::Other,
        };
        Ok(CpuInfo {
            vendor,
            vendor_id,
            model_names: all("model name"),
            family: first("cpu family").and_then(|n| n.parse().ok()),
            model: first("model").and_then(|n| n.parse().ok()),
            stepping: first("stepping").and_then(|n| n.parse().ok()),
            microcodes: all("microcode"),
            flags: words("flags").into_iter().collect(),
            vmx_flags: words("vmx flags"),
            bugs: words("bugs"),
            number,
        })
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }
}

/// A field that cpuinfo should have.
fn field<T>(value: Option<T>, name: &str) -> Result<T, Unknown> {
    value.ok_or_else(|| Unknown::NotHere(format!("{CPUINFO} has no readable \"{name}\"")))
}

pub(crate) fn examine(machine: &Machine<'_>, out: &mut Examination) {
    identity(machine, out);
    number(machine, out);
    hybrid(machine, out);
}

fn identity(machine: &Machine<'_>, out: &mut Examination) {
    let cpu = match &machine.cpu {
        Ok(cpu) => cpu,
        Err(unknown) => {
            let _ = out.record::<()>("cpu.model_name", Err(unknown.clone()));
            out.find_unknown("cpu-model", "cpu", unknown);
            return;
        }
    };
    let name = cpu.model_names.iter().next().cloned();
    let _ = out.record("cpu.model_name", field(name.clone(), "model name"));
    let _ = out.record("cpu.vendor", field(cpu.vendor_id.clone(), "vendor_id"));
    let family = out.record("cpu.family", field(cpu.family, "cpu family"));
    let model = out.record("cpu.model", field(cpu.model, "model"));
    let stepping = out.record("cpu.stepping", field(cpu.stepping, "stepping"));
    let microcode = cpu.microcodes.iter().next().cloned();
    let _ = out.record("cpu.microcode", field(microcode.clone(), "microcode"));
    out.fact("cpu.bugs", json!(cpu.bugs));
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
    const KNOWN: &[&str] = &[
        "vmx",
        "svm",
        "npt",
        "nrip_save",
        "avic",
        "x2avic",
        "vgif",
        "vnmi",
        "v_vmsave_vmload",
        "v_spec_ctrl",
        "tsc_scale",
        "v_tsc_aux",
        "decodeassists",
        "flushbyasid",
        "pausefilter",
        "pfthreshold",
        "vmcb_clean",
        "ibrs",
        "ibpb",
        "ibrs_enhanced",
        "md_clear",
        "flush_l1d",
    ];
    let known = KNOWN.iter().copied().filter(|flag| cpu.has(flag));
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
    match out.record("cpu.count", online_count(machine)) {
        Ok(1) => out.find(
            Finding::new("cpu-count", "cpu", Level::Warning, "one CPU: whatever else runs, runs on the CPU that is measured")
                .advice("give the machine a second CPU, so that measuring and everything else can be kept apart"),
        ),
        Ok(number) => out.find(Finding::new("cpu-count", "cpu", Level::Good, count(number, "CPU"))),
        Err(unknown) => out.find_unknown("cpu-count", "cpu", &unknown),
    }
}

/// How many CPUs are in use.
pub(crate) fn online_count(machine: &Machine<'_>) -> Result<u64, Unknown> {
    let path = "/sys/devices/system/cpu/online";
    match machine.root.text(path) {
        Ok(list) => match cpu_list_len(&list) {
            Some(0) | None => Err(Unknown::malformed(path, &list)),
            Some(number) => Ok(number),
        },
        Err(unknown) => machine
            .cpu
            .as_ref()
            .map(|cpu| cpu.number)
            .map_err(|_| unknown),
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
        let out = intel_laptop_on_battery().topic(examine);
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
        let out = vm_guest().topic(examine);
        assert_eq!(out.get("cpu-count", "cpu").level, Level::Warning);
    }

    #[test]
    fn mixed_microcode() {
        let text = "processor : 0\nmicrocode : 0x1\n\nprocessor : 1\nmicrocode : 0x2\n";
        let out = Tree::new().file(CPUINFO, text).topic(examine);
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
            .topic(examine);
        let advice = out.get("cpu-hybrid", "cpu").advice.clone().unwrap();
        assert!(advice.contains("taskset -c 0-1"), "{advice}");
    }

    #[test]
    fn nothing_and_nonsense() {
        let out = Tree::new().topic(examine);
        assert_eq!(out.get("cpu-model", "cpu").level, Level::Note);
        let tree = Tree::new()
            .file(CPUINFO, ":::\n: processor\n")
            .file("/sys/devices/system/cpu/online", "9-1");
        assert!(tree.topic(examine).unknown_facts().count() >= 2);
    }
}
