//! Mitigations of CPU vulnerabilities: much of an exit, and different on every machine.
//!
//! Sources: `/sys/devices/system/cpu/vulnerabilities/*`
//! (`Documentation/ABI/testing/sysfs-devices-system-cpu`); `Documentation/admin-guide/hw-vuln/`;
//! `Documentation/admin-guide/kernel-parameters.txt`.

use std::collections::BTreeMap;

use exitpath_recording::fact;
use serde_json::{Map, Value, json};

use crate::finding::{Examination, Finding, Level, unknown_value};
use crate::machine::Machine;
use crate::reading::parse::{and_list, count};
use crate::topic::Topic;
use crate::topics::arch::x86_64::mitigations::{ON_THE_PATH, PARAMETERS, works};
use crate::topics::effects::mitigation::{VULNERABILITIES, of_mitigation};

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        ("mitigations", "how many CPU vulnerabilities are mitigated"),
        (
            "mitigation-on-path",
            "a mitigation that works on the way into or out of a guest",
        ),
        (
            "mitigations-changed",
            "boot parameters that change mitigations",
        ),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let parameters = machine.parameters(PARAMETERS);
    out.fact("mitigations.parameters", json!(parameters));
    let names = match machine.root.list(VULNERABILITIES) {
        Ok(names) => names,
        Err(unknown) => {
            let _ = out.record::<()>(fact::VULNERABILITIES, Err(unknown.clone()));
            return out.find_unknown("mitigations", "mitigations", &unknown);
        }
    };
    let mut all = Map::new();
    let mut counts = Counts::default();
    let mut states = Vec::new();
    for name in names {
        match machine.root.text(&format!("{VULNERABILITIES}/{name}")) {
            Ok(state) => {
                counts.add(&name, &state);
                all.insert(name.clone(), Value::String(state.clone()));
                states.push((name, state));
            }
            Err(unknown) => {
                counts.undecided.push(name.clone());
                all.insert(name, unknown_value(&unknown));
            }
        }
    }
    out.fact(fact::VULNERABILITIES, all);
    summary(machine, out, &counts);
    on_the_path(&states, out);
    // What did not come about is a finding of its own, and has changed nothing.
    let states: BTreeMap<String, String> = states.into_iter().collect();
    let done = |parameter: &String| of_mitigation(parameter, &states).is_none();
    let parameters: Vec<String> = parameters.into_iter().filter(done).collect();
    changed(&parameters, out);
}

/// How the kernel judges its vulnerabilities.
#[derive(Debug, Default)]
struct Counts {
    mitigated: u64,
    unaffected: u64,
    open: Vec<String>,
    /// `Unknown: Dependent on hypervisor status` and what could not be read.
    undecided: Vec<String>,
}

impl Counts {
    fn add(&mut self, name: &str, state: &str) {
        if state.contains("Mitigation:") {
            self.mitigated += 1;
        } else if state.starts_with("Not affected") {
            self.unaffected += 1;
        } else if state.to_ascii_lowercase().contains("vulnerable") {
            self.open.push(name.to_owned());
        } else {
            self.undecided.push(name.to_owned());
        }
    }

    fn says(&self) -> String {
        let mut says = format!(
            "{} mitigated, {} not affecting this CPU",
            self.mitigated, self.unaffected
        );
        for (names, what) in [(&self.open, "open"), (&self.undecided, "undecided")] {
            if !names.is_empty() {
                says.push_str(&format!(", {} {what} ({})", names.len(), and_list(names)));
            }
        }
        says
    }
}

fn summary(machine: &Machine<'_>, out: &mut Examination, counts: &Counts) {
    let finding = |level, says: String| Finding::new("mitigations", "mitigations", level, says);
    let says = counts.says();
    out.find(if machine.parameter("mitigations") == Some("off") {
        finding(Level::Warning, format!("mitigations=off, exits are cheaper than on machines that run other people's guests: {says}"))
            .advice("boot without mitigations=off for figures that hold for a fleet")
    } else if counts.open.is_empty() && counts.undecided.is_empty() {
        finding(Level::Good, says)
    } else {
        finding(Level::Note, says)
            .advice("a later microcode or kernel may close what is open, and change what an exit costs")
    });
}

fn on_the_path(states: &[(String, String)], out: &mut Examination) {
    let mut active = Vec::new();
    for (name, does, parameter) in ON_THE_PATH {
        let state = states
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, state)| state);
        let Some(state) = state.filter(|state| works(state)) else {
            continue;
        };
        active.push(*name);
        out.find(
            Finding::new(
                "mitigation-on-path",
                name,
                Level::Note,
                format!("{state}: {does}"),
            )
            .advice(format!(
                "to see its share, compare with a boot with {parameter}"
            )),
        );
    }
    out.fact("mitigations.on_path", json!(active));
}

/// Parameters other than `mitigations=off`, which the summary tells.
fn changed(parameters: &[String], out: &mut Examination) {
    let changed: Vec<&String> = parameters
        .iter()
        .filter(|parameter| !["mitigations=off", "mitigations=auto"].contains(&parameter.as_str()))
        .collect();
    if changed.is_empty() {
        return;
    }
    let says = format!(
        "{} on the kernel's command line {} mitigations from the defaults: {}",
        count(changed.len() as u64, "parameter"),
        if changed.len() == 1 {
            "changes"
        } else {
            "change"
        },
        and_list(&changed)
    );
    out.find(
        Finding::new("mitigations-changed", "mitigations", Level::Note, says)
            .advice("compare only with machines that have the same parameters"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, sandbox, vm_guest};

    #[test]
    fn an_intel_laptop_with_the_defaults() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        let finding = out.get("mitigations", "mitigations");
        assert_eq!(finding.level, Level::Good);
        assert_eq!(finding.says, "5 mitigated, 1 not affecting this CPU");
        assert_eq!(
            out.facts["mitigations.on_path"],
            json!(["l1tf", "mds", "meltdown", "retbleed", "spectre_v2"])
        );
        assert!(
            out.get("mitigation-on-path", "l1tf")
                .says
                .contains("conditional cache flushes")
        );
    }

    #[test]
    fn mitigations_off_is_a_warning() {
        let out = amd_server().topic(&TOPIC);
        assert_eq!(out.get("mitigations", "mitigations").level, Level::Warning);
        assert!(!out.has("mitigation-on-path") && !out.has("mitigations-changed"));
        assert!(
            out.get("mitigations", "mitigations")
                .says
                .contains("1 open (spectre_v2)")
        );
    }

    #[test]
    fn a_parameter_without_effect_changes_nothing() {
        let with = |state: &str| {
            sandbox()
                .file("/proc/cmdline", "vmscape=force quiet")
                .file(&format!("{VULNERABILITIES}/vmscape"), state)
                .topic(&TOPIC)
        };
        let mitigated = with("Mitigation: IBPB before exit to userspace\n");
        let finding = mitigated.get("mitigations-changed", "mitigations");
        assert!(finding.says.ends_with("vmscape=force"), "{}", finding.says);
        assert!(!with("Vulnerable\n").has("mitigations-changed"));
    }

    #[test]
    fn attack_vectors_switched_off() {
        let out = sandbox().topic(&TOPIC);
        let says = &out.get("mitigations-changed", "mitigations").says;
        assert!(
            says.ends_with("mitigations=auto,no_guest_host,no_guest_guest"),
            "{says}"
        );
        assert!(
            out.get("mitigations", "mitigations")
                .says
                .contains("spec_rstack_overflow")
        );
    }

    #[test]
    fn open_and_absent() {
        assert_eq!(
            vm_guest()
                .topic(&TOPIC)
                .get("mitigations", "mitigations")
                .level,
            Level::Note
        );
        let out = Tree::new().topic(&TOPIC);
        assert!(
            out.get("mitigations", "mitigations")
                .says
                .starts_with("unknown")
        );
        let out = Tree::new()
            .folder(&format!("{VULNERABILITIES}/odd"))
            .topic(&TOPIC);
        assert!(out.facts["mitigations.vulnerabilities"]["odd"]["unknown"].is_string());
    }

    #[test]
    fn an_unmitigated_part_beside_a_mitigation_counts_as_mitigated() {
        // itlb_multihit has its own form: "KVM: Mitigation: Split huge pages".
        let tree = Tree::new()
            .file(
                &format!("{VULNERABILITIES}/itlb_multihit"),
                "KVM: Mitigation: Split huge pages\n",
            )
            .file(&format!("{VULNERABILITIES}/a"), "KVM: Vulnerable\n")
            .file(
                &format!("{VULNERABILITIES}/b"),
                "Unknown: Dependent on hypervisor status\n",
            );
        let says = &tree
            .topic(&TOPIC)
            .get("mitigations", "mitigations")
            .says
            .clone();
        assert_eq!(
            says,
            "1 mitigated, 0 not affecting this CPU, 1 open (a), 1 undecided (b)"
        );
    }
}
