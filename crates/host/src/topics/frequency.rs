//! Who sets the CPU's clock rate and by what policy: driver, governor, energy preference, turbo.
//!
//! Sources: `/sys/devices/system/cpu/cpufreq`, `intel_pstate`, `amd_pstate`
//! (`Documentation/admin-guide/pm/{cpufreq,intel_pstate,amd-pstate}.rst`). Rates are in kHz there.

use std::collections::BTreeSet;

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::parse::and_list;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

const CPU: &str = "/sys/devices/system/cpu";

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        ("frequency-governor", "by what policy the clock rate is set"),
        (
            "frequency-preference",
            "the CPU's energy-performance preference",
        ),
        (
            "frequency-limit",
            "a maximum clock rate below the hardware's",
        ),
        ("frequency-turbo", "turbo or boost"),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let policies = match machine.root.numbered(&format!("{CPU}/cpufreq"), "policy") {
        Ok(policies) if !policies.is_empty() => policies,
        Ok(_) => return absent(machine, out, &no_policy()),
        Err(unknown) => return absent(machine, out, &unknown),
    };
    let policies: Vec<String> = policies
        .into_iter()
        .map(|(_, name)| format!("{CPU}/cpufreq/{name}"))
        .collect();
    driver(machine.root, &policies, out);
    governor(machine.root, &policies, out);
    preference(machine.root, &policies, out);
    limits(machine.root, &policies, out);
    turbo(machine.root, &policies, out);
}

fn no_policy() -> Unknown {
    Unknown::NotHere(format!(
        "{CPU}/cpufreq has no policy: the kernel does not set the clock rate"
    ))
}

fn absent(machine: &Machine<'_>, out: &mut Examination, unknown: &Unknown) {
    for key in ["driver", "governor", "turbo"] {
        let _ = out.record::<()>(&format!("frequency.{key}"), Err(unknown.clone()));
    }
    let says = if machine.seems_virtual() {
        "unknown: a virtual machine without cpufreq; the machine below sets the clock rate, by a policy that cannot be seen from here".to_owned()
    } else {
        format!("unknown: {unknown}; the firmware or nobody sets the clock rate")
    };
    out.find(Finding::new(
        "frequency-governor",
        "cpufreq",
        Level::Note,
        says,
    ));
}

/// The distinct values of a file of all policies; an error if no policy has it.
fn distinct(root: &Root, policies: &[String], file: &str) -> Result<Vec<String>, Unknown> {
    let mut values = BTreeSet::new();
    let mut first_unknown = None;
    for policy in policies {
        match root.text(&format!("{policy}/{file}")) {
            Ok(value) => {
                values.insert(value);
            }
            Err(unknown) => {
                first_unknown.get_or_insert(unknown);
            }
        }
    }
    match first_unknown {
        Some(unknown) if values.is_empty() => Err(unknown),
        _ => Ok(values.into_iter().collect()),
    }
}

fn driver(root: &Root, policies: &[String], out: &mut Examination) {
    out.fact("frequency.policies", json!(policies.len()));
    let _ = out.record(
        "frequency.driver",
        distinct(root, policies, "scaling_driver"),
    );
    for name in ["intel_pstate", "amd_pstate"] {
        if root.has_folder(&format!("{CPU}/{name}")) {
            let status = root.text(&format!("{CPU}/{name}/status"));
            let _ = out.record(&format!("frequency.{name}"), status);
        }
    }
}

fn governor(root: &Root, policies: &[String], out: &mut Examination) {
    match out.record(
        "frequency.governor",
        distinct(root, policies, "scaling_governor"),
    ) {
        Err(unknown) => out.find_unknown("frequency-governor", "cpufreq", &unknown),
        Ok(governors) if governors == ["performance"] => out.find(Finding::new(
            "frequency-governor",
            "cpufreq",
            Level::Good,
            "the governor is performance on all CPUs",
        )),
        Ok(governors) => {
            let says = format!(
                "the governor is {}: the clock rate follows the load, and the first thousands of exits of a run are slower",
                and_list(&governors)
            );
            out.find(
                Finding::new("frequency-governor", "cpufreq", Level::Warning, says)
                    .advice("sudo cpupower frequency-set -g performance"),
            );
        }
    }
}

/// The energy-performance preference, with drivers that let the CPU choose its rate.
fn preference(root: &Root, policies: &[String], out: &mut Examination) {
    let file = "energy_performance_preference";
    let preferences = out.record(
        "frequency.energy_preference",
        distinct(root, policies, file),
    );
    let Ok(preferences) = preferences else { return };
    let finding =
        |level, says: String| Finding::new("frequency-preference", "cpufreq", level, says);
    // 0 is the raw value for performance.
    out.find(
        if preferences
            .iter()
            .all(|value| value == "performance" || value == "0")
        {
            finding(Level::Good, "the CPU is asked for performance".to_owned())
        } else {
            finding(
                Level::Warning,
                format!(
                    "the CPU's energy preference is {}: it takes its time to clock up",
                    and_list(&preferences)
                ),
            )
            .advice(format!(
                "echo performance | sudo tee {CPU}/cpufreq/policy*/{file}"
            ))
        },
    );
}

fn limits(root: &Root, policies: &[String], out: &mut Examination) {
    let khz = |file: &str| -> Result<Vec<u64>, Unknown> {
        policies
            .iter()
            .map(|policy| root.number(&format!("{policy}/{file}")))
            .collect()
    };
    let highest = |answer: Result<Vec<u64>, Unknown>| answer.map(|all| all.into_iter().max());
    let lowest = |answer: Result<Vec<u64>, Unknown>| answer.map(|all| all.into_iter().min());
    let _ = out.record("frequency.min_khz", lowest(khz("scaling_min_freq")));
    let _ = out.record("frequency.max_khz", highest(khz("scaling_max_freq")));
    let _ = out.record(
        "frequency.hardware_max_khz",
        highest(khz("cpuinfo_max_freq")),
    );
    let (Ok(limit), Ok(hardware)) = (khz("scaling_max_freq"), khz("cpuinfo_max_freq")) else {
        return;
    };
    let capped = limit
        .iter()
        .zip(&hardware)
        .find(|(limit, hardware)| limit < hardware);
    if let Some((limit, hardware)) = capped {
        let says = format!(
            "the clock rate is limited to {} MHz of {} MHz",
            limit / 1000,
            hardware / 1000
        );
        out.find(
            Finding::new("frequency-limit", "cpufreq", Level::Note, says).advice(format!(
                "fine if meant so; else: sudo cpupower frequency-set -u {hardware}"
            )),
        );
    }
}

/// Turbo: `intel_pstate/no_turbo`, `cpufreq/boost`, or one `boost` in each policy.
fn turbo(root: &Root, policies: &[String], out: &mut Examination) {
    let no_turbo = format!("{CPU}/intel_pstate/no_turbo");
    let boost = format!("{CPU}/cpufreq/boost");
    let (answer, switch_off) = if root.has_folder(&format!("{CPU}/intel_pstate")) {
        (
            root.switch(&no_turbo).map(|off| !off),
            format!("echo 1 | sudo tee {no_turbo}"),
        )
    } else {
        let answer = match root.switch(&boost) {
            Err(absent) if absent.is_absent() => distinct(root, policies, "boost")
                .map(|values| values.iter().any(|value| value != "0"))
                .map_err(|_| absent),
            answer => answer,
        };
        (answer, format!("echo 0 | sudo tee {boost}"))
    };
    match out.record("frequency.turbo", answer) {
        Ok(false) => {
            out.find(Finding::new("frequency-turbo", "cpufreq", Level::Good, "turbo is off"));
        }
        Ok(true) => out.find(
            Finding::new("frequency-turbo", "cpufreq", Level::Warning, "turbo is on: the clock rate depends on temperature, on power and on what the other cores do")
                .advice(switch_off),
        ),
        Err(unknown) => out.find_unknown("frequency-turbo", "cpufreq", &unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, vm_guest};

    #[test]
    fn a_laptop_as_delivered() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        for id in [
            "frequency-governor",
            "frequency-preference",
            "frequency-turbo",
        ] {
            let finding = out.get(id, "cpufreq");
            assert_eq!(finding.level, Level::Warning);
            assert!(
                finding.advice.as_ref().unwrap().contains("sudo "),
                "{finding:?}"
            );
        }
        assert!(!out.has("frequency-limit"));
        assert_eq!(out.facts["frequency.intel_pstate"], json!("active"));
        assert_eq!(out.facts["frequency.max_khz"], json!(4_200_000));
    }

    #[test]
    fn a_tuned_server() {
        let out = amd_server().topic(&TOPIC);
        assert_eq!(out.worst(), Level::Good, "{:#?}", out.findings);
        assert_eq!(out.facts["frequency.turbo"], json!(false));
        let policy = format!("{CPU}/cpufreq/policy0");
        let out = amd_server()
            .without(&format!("{CPU}/cpufreq/boost"))
            .file(&format!("{policy}/boost"), "1")
            .file(&format!("{policy}/scaling_max_freq"), "2000000")
            .topic(&TOPIC);
        assert_eq!(out.facts["frequency.turbo"], json!(true));
        assert!(
            out.get("frequency-limit", "cpufreq")
                .says
                .contains("2000 MHz of 2450 MHz")
        );
    }

    #[test]
    fn a_guest_says_who_decides() {
        let out = vm_guest().topic(&TOPIC);
        assert!(
            out.get("frequency-governor", "cpufreq")
                .says
                .contains("the machine below")
        );
        assert!(
            out.unknown_facts()
                .any(|(key, _)| key == "frequency.governor")
        );
    }

    #[test]
    fn mixed_governors_and_nonsense() {
        let tree = intel_laptop_on_battery()
            .file(
                &format!("{CPU}/cpufreq/policy2/scaling_governor"),
                "performance",
            )
            .file(&format!("{CPU}/cpufreq/policy2/scaling_max_freq"), "fast")
            .file(&format!("{CPU}/intel_pstate/no_turbo"), "?");
        let out = tree.topic(&TOPIC);
        assert!(
            out.get("frequency-governor", "cpufreq")
                .says
                .contains("performance and powersave")
        );
        assert_eq!(out.get("frequency-turbo", "cpufreq").level, Level::Note);
        assert!(
            out.unknown_facts()
                .any(|(key, _)| key == "frequency.max_khz")
        );
        let out = Tree::new().folder(&format!("{CPU}/cpufreq")).topic(&TOPIC);
        assert!(
            out.get("frequency-governor", "cpufreq")
                .says
                .contains("has no policy")
        );
    }
}
