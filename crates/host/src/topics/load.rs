//! What else wants to run.
//!
//! Sources: `/proc/loadavg` (proc(5)); `/proc/pressure/cpu` (`Documentation/accounting/psi.rst`).

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::parse::count;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

/// Runnable tasks per CPU, over the last minute, from which on a machine counts as not idle.
const BUSY: f64 = 0.1;

/// … and from which on it counts as busy: every second CPU has something to do.
const VERY_BUSY: f64 = 0.5;

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[("load", "what else wants to run")],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let _ = out.record("load.cpu_pressure_us", cpu_pressure_us(machine.root));
    let load = match out.record("load.average_1min", load(machine.root)) {
        Ok(load) => load,
        Err(unknown) => return out.find_unknown("load", "load", &unknown),
    };
    let cpus = match machine.cpu_count() {
        Ok(cpus) => cpus,
        Err(unknown) => return out.find_unknown("load", "load", &unknown),
    };
    let per_cpu = load / cpus as f64;
    let level = match per_cpu {
        busy if busy >= VERY_BUSY => Level::Warning,
        busy if busy >= BUSY => Level::Note,
        _ => Level::Good,
    };
    let says = format!(
        "load {load:.2} over the last minute, for {}",
        count(cpus, "CPU")
    );
    let finding = Finding::new("load", "load", level, says);
    out.find(if level == Level::Warning {
        finding.advice("see what runs (top), and wait for it or stop it")
    } else {
        finding
    });
}

/// The load average of the last minute: tasks that run, want to run or wait for a disk.
fn load(root: &Root) -> Result<f64, Unknown> {
    let path = "/proc/loadavg";
    let text = root.text(path)?;
    text.split_whitespace()
        .next()
        .and_then(|first| first.parse().ok())
        .filter(|load: &f64| load.is_finite() && *load >= 0.0)
        .ok_or_else(|| Unknown::malformed(path, &text))
}

/// Microseconds since boot in which some task waited for a CPU.
pub(crate) fn cpu_pressure_us(root: &Root) -> Result<u64, Unknown> {
    let path = "/proc/pressure/cpu";
    let text = root.text(path)?;
    text.lines()
        .find(|line| line.starts_with("some "))
        .and_then(|line| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix("total="))
        })
        .and_then(|total| total.parse().ok())
        .ok_or_else(|| Unknown::malformed(path, &text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, vm_guest};

    #[test]
    fn idle_and_busy() {
        assert_eq!(
            amd_server().topic(&TOPIC).get("load", "load").level,
            Level::Good
        );
        assert_eq!(
            vm_guest().topic(&TOPIC).get("load", "load").level,
            Level::Warning
        );
        let out = amd_server()
            .file("/proc/loadavg", "0.50 0 0 1/1 1")
            .topic(&TOPIC);
        assert_eq!(out.get("load", "load").level, Level::Note);
    }

    #[test]
    fn pressure() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        assert_eq!(out.facts["load.cpu_pressure_us"], json!(1000));
    }

    #[test]
    fn nonsense() {
        for text in ["", "NaN 1 1", "-1", "inf", "x"] {
            let out = Tree::new().file("/proc/loadavg", text).topic(&TOPIC);
            assert!(
                out.get("load", "load").says.starts_with("unknown"),
                "{text}"
            );
        }
        for text in ["", "some", "some total=x", "full total=1"] {
            assert!(cpu_pressure_us(&Tree::new().file("/proc/pressure/cpu", text).root()).is_err());
        }
    }
}
