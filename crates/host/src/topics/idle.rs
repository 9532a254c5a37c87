//! C-states: how deep an idle CPU sleeps and how long it takes to wake up.
//!
//! Sources: `/sys/devices/system/cpu/cpuidle` and `cpu*/cpuidle/state*`, latencies in µs, the
//! driver's figures, not measured ones (`Documentation/admin-guide/pm/cpuidle.rst`);
//! `/dev/cpu_dma_latency` (`Documentation/power/pm_qos_interface.rst`).

use serde_json::{Value, json};

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

/// A state that takes longer than this to leave weighs more than a user exit, a microsecond or two.
const SHALLOW_US: u64 = 2;

/// States that are looked at; the kernel has at most ten (`CPUIDLE_STATE_MAX`).
const STATE_LIMIT: usize = 16;

struct State {
    name: String,
    latency_us: u64,
    disabled: bool,
}

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[(
        "idle-states",
        "how long the deepest enabled C-state takes to leave",
    )],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    let folder = "/sys/devices/system/cpu/cpuidle";
    let driver = out.record(
        "idle.driver",
        root.text(&format!("{folder}/current_driver")),
    );
    let _ = out.record(
        "idle.governor",
        root.text(&format!("{folder}/current_governor")),
    );
    out.fact(
        "idle.parameters",
        json!(machine.parameters(&[
            "idle",
            "intel_idle.max_cstate",
            "processor.max_cstate",
            "cpuidle.off",
            "cpuidle_haltpoll.force",
        ])),
    );
    let held = out.record("idle.dma_latency_us", dma_latency(root));
    let states = states(root);
    let _ = out.record(
        "idle.states",
        states.as_deref().map(states_value).map_err(Clone::clone),
    );
    let deepest = match states {
        Ok(states) => states
            .into_iter()
            .filter(|state| !state.disabled)
            .max_by_key(|state| state.latency_us),
        Err(unknown) => return without_states(machine, out, &unknown),
    };
    let driver = driver.unwrap_or_else(|_| "an unknown driver".to_owned());
    judge(deepest, &driver, held.ok(), machine.seems_virtual(), out);
}

/// Without cpuidle the CPU halts as the architecture does it.
fn without_states(machine: &Machine<'_>, out: &mut Examination, unknown: &Unknown) {
    if machine.parameter("idle") == Some("poll") {
        let says = "idle=poll: idle CPUs do not sleep";
        return out.find(Finding::new("idle-states", "cpuidle", Level::Good, says));
    }
    let says = if machine.seems_virtual() {
        "unknown: this virtual machine has no cpuidle states, an idle CPU exits to the hypervisor below and wakes when that schedules it".to_owned()
    } else {
        format!("unknown: {unknown}")
    };
    out.find(
        Finding::new("idle-states", "cpuidle", Level::Note, says)
            .advice("boot with idle=poll if rows that halt scatter"),
    );
}

fn judge(
    deepest: Option<State>,
    driver: &str,
    held_us: Option<i32>,
    seems_virtual: bool,
    out: &mut Examination,
) {
    let finding = |level, says: String| Finding::new("idle-states", "cpuidle", level, says);
    let Some(state) = deepest else {
        return out.find(finding(Level::Good, "every C-state is disabled".to_owned()));
    };
    out.fact("idle.deepest_state", state.name.as_str());
    out.fact("idle.deepest_latency_us", state.latency_us);
    let described = format!(
        "{driver}'s deepest enabled C-state is {}, {} µs to leave",
        state.name, state.latency_us
    );
    let held_us = held_us.and_then(|held_us| u64::try_from(held_us).ok());
    out.find(if state.latency_us <= SHALLOW_US && seems_virtual && state.latency_us > 0 {
        finding(Level::Note, format!("{described}, but a halted virtual CPU wakes only when the hypervisor below schedules it"))
    } else if state.latency_us <= SHALLOW_US {
        finding(Level::Good, described)
    } else if let Some(held_us) = held_us.filter(|held_us| *held_us <= SHALLOW_US) {
        finding(Level::Good, format!("{described}, but somebody holds /dev/cpu_dma_latency at {held_us} µs"))
    } else {
        finding(Level::Warning, format!("{described}: a wake-up can cost many times an exit"))
            .advice(format!("sudo cpupower idle-set -D {} (undo with -E), or hold /dev/cpu_dma_latency open with a 0 in it", SHALLOW_US + 1))
    });
}

/// What `/dev/cpu_dma_latency` holds the machine to, in µs; 2,000,000,000 if nobody asks.
fn dma_latency(root: &Root) -> Result<i32, Unknown> {
    root.bytes_at::<4>("/dev/cpu_dma_latency", 0)
        .map(i32::from_le_bytes)
}

/// The states of CPU 0.
fn states(root: &Root) -> Result<Vec<State>, Unknown> {
    let folder = "/sys/devices/system/cpu/cpu0/cpuidle";
    let names = root.numbered(folder, "state")?;
    if names.is_empty() {
        return Err(Unknown::NotHere(format!("{folder} has no states")));
    }
    names
        .into_iter()
        .take(STATE_LIMIT)
        .map(|(_, state)| {
            let path = format!("{folder}/{state}");
            Ok(State {
                name: root.text(&format!("{path}/name"))?,
                latency_us: root.number(&format!("{path}/latency"))?,
                disabled: root.text(&format!("{path}/disable"))? != "0",
            })
        })
        .collect()
}

fn states_value(states: &[State]) -> Value {
    states
        .iter()
        .map(|state| {
            json!({"name": state.name, "latency_us": state.latency_us, "disabled": state.disabled})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, sandbox, vm_guest};

    #[test]
    fn a_laptop_sleeps_deeply() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        let finding = out.get("idle-states", "cpuidle");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.says.contains("C10, 890 µs"), "{}", finding.says);
        assert!(
            finding
                .advice
                .as_ref()
                .unwrap()
                .starts_with("sudo cpupower idle-set -D 3")
        );
        assert_eq!(out.facts["idle.dma_latency_us"], json!(2_000_000_000));
    }

    #[test]
    fn holding_the_latency_down_is_as_good_as_disabling() {
        let out = intel_laptop_on_battery()
            .bytes("/dev/cpu_dma_latency", 0, &0i32.to_le_bytes())
            .topic(&TOPIC);
        assert_eq!(out.get("idle-states", "cpuidle").level, Level::Good);
    }

    #[test]
    fn disabled_states_do_not_count() {
        let out = amd_server().topic(&TOPIC);
        assert_eq!(out.facts["idle.deepest_state"], json!("C1"));
        assert_eq!(out.get("idle-states", "cpuidle").level, Level::Good);
    }

    #[test]
    fn virtual_machines() {
        let out = sandbox().topic(&TOPIC);
        assert_eq!(out.facts["idle.driver"], json!("haltpoll"));
        assert_eq!(out.get("idle-states", "cpuidle").level, Level::Note);
        assert!(
            vm_guest()
                .topic(&TOPIC)
                .get("idle-states", "cpuidle")
                .says
                .contains("unknown")
        );
        let tree = vm_guest().file("/proc/cmdline", "idle=poll");
        assert_eq!(
            tree.topic(&TOPIC).get("idle-states", "cpuidle").level,
            Level::Good
        );
    }

    #[test]
    fn nonsense() {
        let out = amd_server()
            .file(
                "/sys/devices/system/cpu/cpu0/cpuidle/state1/latency",
                "soon",
            )
            .topic(&TOPIC);
        assert!(out.get("idle-states", "cpuidle").says.contains("soon"));
        assert!(Tree::new().topic(&TOPIC).unknown_facts().count() >= 4);
    }
}
