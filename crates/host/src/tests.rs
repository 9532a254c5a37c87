//! Whole machines.

use std::collections::BTreeSet;
use std::io::Write;

use crate::testing::{Tree, amd_server, intel_laptop_on_battery, sandbox, vm_guest};
use crate::*;

fn all_machines() -> [Tree; 5] {
    [
        intel_laptop_on_battery(),
        amd_server(),
        vm_guest(),
        sandbox(),
        Tree::new(),
    ]
}

fn check(out: &Examination) {
    let mut seen = BTreeSet::new();
    for finding in &out.findings {
        assert!(
            findings().any(|(id, _)| id == finding.id),
            "{} is in no list",
            finding.id
        );
        assert!(
            seen.insert((finding.id, &finding.subject)),
            "{finding:?} is there twice"
        );
        assert!(!finding.says.is_empty());
        for line in [Some(&finding.says), finding.advice.as_ref()]
            .into_iter()
            .flatten()
        {
            assert!(
                !line.contains(char::is_control) && !line.ends_with('.'),
                "{line}"
            );
        }
        if finding.level >= Level::Warning {
            assert!(finding.advice.is_some(), "{finding:?} gives no advice");
        }
    }
    serde_json::to_string(out).expect("an examination is JSON");
}

#[test]
fn every_finding_has_one_topic_and_is_kebab_case() {
    let mut seen = BTreeSet::new();
    for (id, looks_at) in findings() {
        assert!(seen.insert(id), "{id} is listed twice");
        assert!(
            id.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
            "{id}"
        );
        assert!(!looks_at.is_empty());
    }
}

#[test]
fn every_machine_is_examined_whole() {
    for tree in all_machines() {
        let out = examine(&tree.root(), None);
        check(&out);
        let facts = [
            "clock.clocksource",
            "power.source",
            "idle.states",
            "smi.count",
            "steal.ticks",
        ];
        for fact in facts {
            assert!(out.facts.contains_key(fact), "{fact}");
        }
        let findings = [
            "guest-execution",
            "kvm-device",
            "kvm-module",
            "nested",
            "clocksource",
            "tsc-flags",
            "cpu-model",
            "cpu-count",
            "smt",
            "kernel-release",
            "kernel-config",
            "kernel-preemption",
            "mitigations",
            "power-supply",
            "frequency-governor",
            "idle-states",
            "thermal-throttle",
            "steal",
            "cpu-quota",
            "load",
            "isolated-cpus",
            "nmi-watchdog",
            "smi",
            "transparent-hugepages",
            "ksm",
            "observe-bpf",
            "observe-ftrace",
            "observe-perf",
            "hardware-pmu",
            "kernel-symbols",
        ];
        for id in findings {
            assert!(out.has(id), "{id} is skipped");
        }
    }
}

#[test]
fn an_empty_machine_is_unknown_not_good() {
    let out = examine(&Tree::new().root(), None);
    let good: Vec<&str> = out
        .findings
        .iter()
        .filter(|f| f.level == Level::Good)
        .map(|f| f.id)
        .collect();
    // A kernel without KSM has no /sys/kernel/mm/ksm.
    assert_eq!(good, ["ksm"]);
}

/// Every file of every machine replaced by nonsense, one kind after the other.
#[test]
fn nonsense_in_every_file_does_no_harm() {
    let kinds: [&[u8]; 6] = [
        b"",
        b"\n\n\n",
        b"\xff\xfe\x00\x1b[31m: = , - ( ) [ ] ",
        b"-99999999999999999999999 18446744073709551616",
        b"cpu\nintr\nsome total=\nCPU0\n:\n0:\n::\n(\n)[\n][",
        &[b'9'; 5000],
    ];
    for tree in all_machines() {
        for kind in kinds {
            let folder = tree.root();
            overwrite(&folder.path_for_tests("/"), kind);
            check(&examine(&folder, None));
            noise_snapshot_on(&folder, 0);
        }
    }
}

fn overwrite(folder: &std::path::Path, content: &[u8]) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            overwrite(&path, content);
        } else {
            let mut file = std::fs::File::create(path).expect("a file");
            file.write_all(content).expect("writing");
        }
    }
}

#[test]
fn this_machine() {
    let root = Root::default();
    let out = examine(&root, None);
    check(&out);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    assert_eq!(out.facts["kernel.release"].as_str(), Some(release.trim()));
    let before = noise_snapshot_on(&root, 0);
    // This thread gives its CPU away, which is a switch to another one.
    std::thread::sleep(std::time::Duration::from_millis(5));
    let difference = noise_difference(&before, &noise_snapshot_on(&root, 0));
    assert!(difference["host.context_switches"] > 0, "{difference:?}");
}
