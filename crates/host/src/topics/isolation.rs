//! Whether there are CPUs on which nothing else runs.
//!
//! Sources: `/sys/devices/system/cpu/{isolated,nohz_full}`; `isolcpus=`, `nohz_full=`, `rcu_nocbs=`,
//! `irqaffinity=` (`Documentation/admin-guide/kernel-parameters.txt`, `timers/no_hz.rst`);
//! `cpuset.cpus.isolated` (`Documentation/admin-guide/cgroup-v2.rst`); `/proc/irq`
//! (`Documentation/core-api/irq/irq-affinity.rst`).

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::parse::cpu_list_len;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        (
            "isolated-cpus",
            "CPUs on which the scheduler puts nothing else",
        ),
        (
            "nohz-full",
            "CPUs without a tick, and with context tracking",
        ),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    out.fact(
        "isolation.parameters",
        json!(machine.parameters(&[
            "isolcpus",
            "nohz_full",
            "rcu_nocbs",
            "irqaffinity",
            "threadirqs"
        ])),
    );
    let _ = out.record(
        "isolation.irq_affinity",
        root.text("/proc/irq/default_smp_affinity"),
    );
    let _ = out.record("isolation.allowed_cpus", allowed(root));
    isolated(root, out);
    tickless(root, out);
}

/// The CPUs this process may run on.
fn allowed(root: &Root) -> Result<String, Unknown> {
    let path = "/proc/self/status";
    let status = root.text(path)?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .map(|list| list.trim().to_owned())
        .ok_or_else(|| Unknown::NotHere(format!("{path} has no Cpus_allowed_list")))
}

fn isolated(root: &Root, out: &mut Examination) {
    let by_boot = out.record(
        "isolation.isolated",
        root.text("/sys/devices/system/cpu/isolated"),
    );
    let by_cpuset = out.record(
        "isolation.cpuset_isolated",
        root.text("/sys/fs/cgroup/cpuset.cpus.isolated"),
    );
    let some = |answer: &Result<String, Unknown>| {
        answer
            .as_ref()
            .ok()
            .filter(|list| cpu_list_len(list).is_some_and(|len| len > 0))
            .cloned()
    };
    let finding = |level, says: String| Finding::new("isolated-cpus", "isolation", level, says);
    match (some(&by_boot).or_else(|| some(&by_cpuset)), by_boot) {
        (Some(list), _) => out.find(
            finding(Level::Good, format!("the scheduler keeps off CPUs {list}"))
                .advice(format!("measure on them: taskset -c {list} exitpath measure")),
        ),
        (None, Ok(_)) => out.find(
            finding(Level::Note, "no CPU is kept free of other tasks".to_owned())
                .advice("for quieter runs boot with isolcpus=managed_irq,domain,N irqaffinity=0 for a CPU N other than 0, then taskset -c N"),
        ),
        (None, Err(unknown)) => out.find_unknown("isolated-cpus", "isolation", &unknown),
    }
}

/// With `nohz_full` there is no tick while one task runs, but every entry and exit keeps account of
/// where time goes.
fn tickless(root: &Root, out: &mut Examination) {
    let list = root.text("/sys/devices/system/cpu/nohz_full");
    match out.record("isolation.nohz_full", list) {
        // The kernel prints "(null)" if it could do it and was not asked to.
        Ok(list) if cpu_list_len(&list).is_some_and(|len| len > 0) => out.find(
            Finding::new(
                "nohz-full",
                "isolation",
                Level::Note,
                format!("CPUs {list} have no tick while one task runs, and pay for it with context tracking on each exit"),
            )
            .advice("compare only with machines that have nohz_full too"),
        ),
        // Absent or null: the usual kernel with its tick.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery};

    #[test]
    fn a_server_with_an_isolated_cpu() {
        let out = amd_server().topic(&TOPIC);
        assert!(
            out.get("isolated-cpus", "isolation")
                .advice
                .as_ref()
                .unwrap()
                .contains("taskset -c 1")
        );
        assert_eq!(out.get("nohz-full", "isolation").level, Level::Note);
        assert_eq!(
            out.facts["isolation.parameters"][0],
            json!("isolcpus=managed_irq,domain,1")
        );
    }

    #[test]
    fn a_laptop_without() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        assert_eq!(out.get("isolated-cpus", "isolation").level, Level::Note);
        assert!(!out.has("nohz-full"));
        let out = intel_laptop_on_battery()
            .file("/sys/fs/cgroup/cpuset.cpus.isolated", "3\n")
            .topic(&TOPIC);
        assert_eq!(out.get("isolated-cpus", "isolation").level, Level::Good);
    }

    #[test]
    fn absent() {
        let out = Tree::new().topic(&TOPIC);
        assert!(
            out.get("isolated-cpus", "isolation")
                .says
                .starts_with("unknown")
        );
        assert!(out.unknown_facts().count() >= 4);
    }
}
