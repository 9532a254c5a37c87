//! What disturbed a run: counters taken before and after it.

use std::collections::BTreeMap;

use exitpath_recording::counter;
use serde::Serialize;

use crate::reading::root::{Root, Unknown};
use crate::reading::stat::{Stat, missing};
use crate::topics::arch::x86_64::smi;
use crate::topics::{load, thermal};

/// The machine's disturbance counters at one moment.
///
/// | key | counts | from |
/// |---|---|---|
/// | `host.steal_ticks` | time stolen from all CPUs, 1/100 s | `/proc/stat` |
/// | `host.interrupts` | interrupts of all CPUs | `/proc/stat`, `intr` |
/// | `host.context_switches` | context switches of all CPUs | `/proc/stat`, `ctxt` |
/// | `host.forks` | processes and threads made | `/proc/stat`, `processes` |
/// | `host.cpu_pressure_us` | time in which some task waited for a CPU, µs | `/proc/pressure/cpu` |
/// | `host.smi` | system-management interrupts of one CPU (Intel) | MSR 0x34 |
/// | `host.thermal_throttle` | throttle events, added up over CPUs and packages (Intel) | `thermal_throttle` |
/// | `host.cpu_steal_ticks` | time stolen from the CPU asked for, 1/100 s | `/proc/stat` |
/// | `host.cpu_interrupts` | interrupts of the CPU asked for, its timer included | `/proc/interrupts` |
/// | `host.cpu_nmis` | of these, non-maskable ones | `/proc/interrupts`, `NMI` |
///
/// The last three are there if a CPU was asked for, with [`noise_snapshot_on`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NoiseSnapshot {
    /// The counters that could be read.
    pub counters: BTreeMap<String, u64>,
    /// Those that could not, and why.
    pub unknown: BTreeMap<String, String>,
}

impl NoiseSnapshot {
    fn add(&mut self, key: &str, answer: Result<u64, Unknown>) {
        match answer {
            Ok(count) => drop(self.counters.insert(key.to_owned(), count)),
            Err(unknown) => drop(self.unknown.insert(key.to_owned(), unknown.to_string())),
        }
    }
}

/// Takes the machine-wide counters. It reads a few small files, a fraction of a millisecond on a
/// small machine, and interrupts no other CPU but CPU 0 (to read its SMI count).
pub fn noise_snapshot(root: &Root) -> NoiseSnapshot {
    snapshot(root, None)
}

/// As [`noise_snapshot`], and the counters of one CPU. Reading `/proc/interrupts` takes some
/// milliseconds on a machine with hundreds of CPUs. SMIs are counted on that CPU.
pub fn noise_snapshot_on(root: &Root, cpu: u32) -> NoiseSnapshot {
    snapshot(root, Some(cpu))
}

fn snapshot(root: &Root, cpu: Option<u32>) -> NoiseSnapshot {
    let mut snapshot = NoiseSnapshot::default();
    let stat = Stat::read(root);
    let stat = stat.as_ref().map_err(Clone::clone);
    let of_stat = |get: fn(&Stat) -> Option<u64>, line: &str| {
        stat.clone()
            .and_then(|stat| get(stat).ok_or_else(|| missing(line)))
    };
    snapshot.add(counter::STEAL_TICKS, stat.clone().and_then(Stat::steal));
    snapshot.add(counter::INTERRUPTS, of_stat(|stat| stat.interrupts, "intr"));
    snapshot.add(
        counter::CONTEXT_SWITCHES,
        of_stat(|stat| stat.context_switches, "ctxt"),
    );
    snapshot.add(counter::FORKS, of_stat(|stat| stat.forks, "processes"));
    snapshot.add(counter::CPU_PRESSURE_US, load::cpu_pressure_us(root));
    snapshot.add(counter::SMI, smi::smi_count(root, cpu.unwrap_or(0)));
    snapshot.add(counter::THERMAL_THROTTLE, thermal::throttle_count(root));
    if let Some(cpu) = cpu {
        snapshot.add(
            counter::CPU_STEAL_TICKS,
            stat.and_then(|stat| stat.steal_of_cpu(cpu)),
        );
        let interrupts = Interrupts::read(root, cpu);
        let interrupts = interrupts.as_ref().map_err(Clone::clone);
        snapshot.add(
            counter::CPU_INTERRUPTS,
            interrupts.clone().map(|of_cpu| of_cpu.all),
        );
        snapshot.add(counter::CPU_NMIS, interrupts.and_then(Interrupts::nmis));
    }
    snapshot
}

/// What happened between two snapshots: `after` minus `before`, for the counters that both have.
///
/// A counter that runs backwards (steal can) gives a negative difference.
pub fn noise_difference(before: &NoiseSnapshot, after: &NoiseSnapshot) -> BTreeMap<String, i64> {
    after
        .counters
        .iter()
        .filter_map(|(key, after)| {
            let before = before.counters.get(key)?;
            let difference = i128::from(*after) - i128::from(*before);
            let clamped = difference.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
            Some((key.clone(), clamped as i64))
        })
        .collect()
}

/// One CPU's column of `/proc/interrupts` (proc(5)).
struct Interrupts {
    all: u64,
    nmis: Option<u64>,
}

impl Interrupts {
    fn read(root: &Root, cpu: u32) -> Result<Self, Unknown> {
        let path = "/proc/interrupts";
        let text = root.text(path)?;
        let mut lines = text.lines();
        // CPUs that are switched off have no column.
        let name = format!("CPU{cpu}");
        let column = lines
            .next()
            .and_then(|header| header.split_whitespace().position(|column| column == name))
            .ok_or_else(|| Unknown::NotHere(format!("{path} has no column {name}")))?;
        let mut interrupts = Interrupts { all: 0, nmis: None };
        for line in lines {
            let Some((label, counts)) = line.split_once(':') else {
                continue;
            };
            // Lines like ERR and MIS have one figure for the whole machine; it is no interrupt of
            // this CPU.
            if matches!(label.trim(), "ERR" | "MIS") {
                continue;
            }
            let count = counts
                .split_whitespace()
                .nth(column)
                .and_then(|count| count.parse().ok());
            let Some(count) = count else { continue };
            interrupts.all = interrupts.all.saturating_add(count);
            if label.trim() == "NMI" {
                interrupts.nmis = Some(count);
            }
        }
        Ok(interrupts)
    }

    fn nmis(&self) -> Result<u64, Unknown> {
        self.nmis
            .ok_or_else(|| Unknown::NotHere("/proc/interrupts has no line NMI".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, intel_laptop_on_battery, sandbox};

    #[test]
    fn everything_on_a_laptop() {
        let snapshot = noise_snapshot_on(&intel_laptop_on_battery().root(), 1);
        let expected = [
            ("host.context_switches", 654_321),
            ("host.cpu_interrupts", 1 + 4 + 2000),
            ("host.cpu_nmis", 4),
            ("host.cpu_pressure_us", 1000),
            ("host.cpu_steal_ticks", 0),
            ("host.forks", 4242),
            ("host.interrupts", 123_456),
            ("host.steal_ticks", 0),
            ("host.thermal_throttle", 168),
        ];
        let counters: Vec<(&str, u64)> = snapshot
            .counters
            .iter()
            .map(|(key, count)| (key.as_str(), *count))
            .collect();
        assert_eq!(counters, expected);
        assert_eq!(snapshot.unknown["host.smi"], "/dev/cpu/1/msr is absent");
        let snapshot = noise_snapshot(&intel_laptop_on_battery().root());
        assert_eq!(snapshot.counters["host.smi"], 77);
        assert!(!snapshot.counters.contains_key("host.cpu_interrupts"));
        assert!(!snapshot.unknown.contains_key("host.cpu_interrupts"));
    }

    #[test]
    fn what_is_missing_is_said() {
        let snapshot = noise_snapshot_on(&sandbox().root(), 9);
        assert_eq!(snapshot.counters["host.steal_ticks"], 521);
        for key in [
            "host.forks",
            "host.smi",
            "host.thermal_throttle",
            "host.cpu_interrupts",
        ] {
            assert!(snapshot.unknown.contains_key(key), "{key}");
        }
        let nothing = noise_snapshot_on(&Tree::new().root(), 0);
        assert_eq!((nothing.counters.len(), nothing.unknown.len()), (0, 10));
    }

    #[test]
    fn differences() {
        let with = |pairs: &[(&str, u64)]| NoiseSnapshot {
            counters: pairs
                .iter()
                .map(|(key, count)| ((*key).to_owned(), *count))
                .collect(),
            unknown: BTreeMap::new(),
        };
        let before = with(&[("a", 5), ("b", 7), ("gone", 1), ("huge", 0)]);
        let after = with(&[("a", 9), ("b", 6), ("new", 1), ("huge", u64::MAX)]);
        let difference = noise_difference(&before, &after);
        let expected = [("a", 4), ("b", -1), ("huge", i64::MAX)];
        let expected: BTreeMap<String, i64> = expected
            .into_iter()
            .map(|(key, count)| (key.to_owned(), count))
            .collect();
        assert_eq!(difference, expected);
    }

    #[test]
    fn broken_interrupts() {
        for text in [
            "",
            "CPU0",
            "CPU0\n: 1\nx\nNMI:\nLOC: -1\n\u{0}",
            "CPU0\nERR: 5\nMIS: 5",
        ] {
            let tree = Tree::new().file("/proc/interrupts", text);
            if let Ok(interrupts) = Interrupts::read(&tree.root(), 0) {
                assert!(interrupts.all <= 1, "{text}");
            }
        }
    }
}
