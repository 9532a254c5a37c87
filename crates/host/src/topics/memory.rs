//! Memory: how much, on how many nodes, in which pages, and who moves or merges them.
//!
//! Sources: `/proc/meminfo` (`Documentation/filesystems/proc.rst`, in kB);
//! `/sys/kernel/mm/transparent_hugepage` (`Documentation/admin-guide/mm/transhuge.rst`);
//! `/sys/kernel/mm/ksm` (`…/mm/ksm.rst`); `/proc/sys/kernel/numa_balancing`
//! (`Documentation/admin-guide/sysctl/kernel.rst`).

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::parse::chosen;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

/// A guest of exitpath and what is around it fit into this with room to spare, in KiB.
const ENOUGH_KIB: u64 = 512 << 10;

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        ("memory", "too little memory"),
        ("transparent-hugepages", "transparent huge pages"),
        ("ksm", "merging of equal pages"),
        ("numa", "several NUMA nodes, pages moved between them"),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    amounts(machine.root, out);
    huge_pages(machine.root, out);
    merging(machine.root, out);
    nodes(machine.root, out);
}

fn amounts(root: &Root, out: &mut Examination) {
    let _ = out.record("memory.total_kib", meminfo(root, "MemTotal"));
    let _ = out.record("memory.hugetlb_pages", meminfo(root, "HugePages_Total"));
    let _ = out.record("memory.swap_total_kib", meminfo(root, "SwapTotal"));
    if let Ok(available) = out.record("memory.available_kib", meminfo(root, "MemAvailable"))
        && available < ENOUGH_KIB
    {
        let says = format!(
            "{} MiB of memory available: the kernel may swap while measuring",
            available >> 10
        );
        out.find(
            Finding::new("memory", "memory", Level::Warning, says).advice("free some memory first"),
        );
    }
}

/// A figure of `/proc/meminfo`, whatever its unit.
fn meminfo(root: &Root, name: &str) -> Result<u64, Unknown> {
    let path = "/proc/meminfo";
    let text = root.text(path)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .ok_or_else(|| Unknown::NotHere(format!("{path} has no {name}")))?;
    line.split_whitespace()
        .next()
        .and_then(|figure| figure.parse().ok())
        .ok_or_else(|| Unknown::malformed(path, line))
}

fn huge_pages(root: &Root, out: &mut Examination) {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let mode = root.text(path).and_then(|text| match chosen(&text) {
        Some(mode) => Ok(mode.to_owned()),
        None => Err(Unknown::malformed(path, &text)),
    });
    let finding = |level, says: &str| Finding::new("transparent-hugepages", "memory", level, says);
    match out.record("memory.transparent_hugepages", mode).as_deref() {
        Ok("always") => out.find(finding(Level::Good, "guest memory gets huge pages")),
        Ok("madvise") => out.find(finding(
            Level::Good,
            "guest memory gets huge pages where the VMM asks for them (madvise)",
        )),
        Ok(mode) => out.find(
            finding(Level::Note, &format!("transparent huge pages are set to {mode}: guests fault in 4 KiB pages, and miss the TLB more often"))
                .advice(format!("echo madvise | sudo tee {path}")),
        ),
        Err(unknown) => out.find_unknown("transparent-hugepages", "memory", unknown),
    }
}

fn merging(root: &Root, out: &mut Examination) {
    let _ = out.record(
        "memory.ksm_pages_sharing",
        root.number::<u64>("/sys/kernel/mm/ksm/pages_sharing"),
    );
    let finding = |level, says: &str| Finding::new("ksm", "memory", level, says);
    // 0 stopped, 1 running, 2 stopped and undone.
    match out.record(
        "memory.ksm_run",
        root.number::<u8>("/sys/kernel/mm/ksm/run"),
    ) {
        Ok(1) => out.find(
            finding(
                Level::Warning,
                "KSM merges equal pages of guests: writes to them fault and exit",
            )
            .advice("echo 2 | sudo tee /sys/kernel/mm/ksm/run"),
        ),
        Ok(_) => out.find(finding(Level::Good, "KSM is off")),
        Err(unknown) if unknown.is_absent() => {
            out.find(finding(Level::Good, "this kernel has no KSM"));
        }
        Err(unknown) => out.find_unknown("ksm", "memory", &unknown),
    }
}

fn nodes(root: &Root, out: &mut Examination) {
    let nodes = root
        .numbered("/sys/devices/system/node", "node")
        .map(|nodes| nodes.len());
    let nodes = out.record("memory.numa_nodes", nodes);
    let balancing = out.record(
        "memory.numa_balancing",
        root.number::<u32>("/proc/sys/kernel/numa_balancing"),
    );
    let Ok(nodes @ 2..) = nodes else { return };
    let (level, says, advice) = match balancing {
        Ok(1..) => (
            Level::Warning,
            format!(
                "{nodes} NUMA nodes, and the kernel moves pages between them (numa_balancing): guests fault on memory they had"
            ),
            "sudo sysctl kernel.numa_balancing=0, and keep to one node: numactl -N 0 -m 0 exitpath measure",
        ),
        _ => (
            Level::Note,
            format!("{nodes} NUMA nodes: an exit that touches another node's memory takes longer"),
            "keep to one node: numactl -N 0 -m 0 exitpath measure",
        ),
    };
    out.find(Finding::new("numa", "memory", level, says).advice(advice));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery};

    #[test]
    fn a_laptop() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        assert_eq!(out.facts["memory.total_kib"], json!(16_000_000));
        assert_eq!(out.facts["memory.transparent_hugepages"], json!("madvise"));
        assert_eq!(out.worst(), Level::Good);
        assert!(!out.has("numa"));
    }

    #[test]
    fn a_server_with_ksm_and_two_nodes() {
        let out = amd_server().topic(&TOPIC);
        assert_eq!(out.get("ksm", "memory").level, Level::Warning);
        assert_eq!(out.get("numa", "memory").level, Level::Warning);
        assert_eq!(out.facts["memory.ksm_pages_sharing"], json!(1234));
        let out = amd_server()
            .file("/proc/sys/kernel/numa_balancing", "0")
            .topic(&TOPIC);
        assert_eq!(out.get("numa", "memory").level, Level::Note);
    }

    #[test]
    fn short_of_memory_never_huge_and_nonsense() {
        let out = Tree::new()
            .file(
                "/proc/meminfo",
                "MemTotal: lots\nMemAvailable:    1024 kB\n",
            )
            .file(
                "/sys/kernel/mm/transparent_hugepage/enabled",
                "always madvise [never]\n",
            )
            .file("/sys/kernel/mm/ksm/run", "eleven")
            .topic(&TOPIC);
        assert!(out.get("memory", "memory").says.starts_with("1 MiB"));
        assert_eq!(
            out.get("transparent-hugepages", "memory").level,
            Level::Note
        );
        assert!(out.get("ksm", "memory").says.starts_with("unknown"));
        assert!(
            out.unknown_facts()
                .any(|(key, _)| key == "memory.total_kib")
        );
    }
}
