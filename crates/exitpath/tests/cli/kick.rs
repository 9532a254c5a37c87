//! Notifications, on a real kernel in the lab, and those that go wrong.

use std::process::Command;

use serde_json::Value;

use crate::common::{Said, exitpath, installed_qemu, program};
use crate::host::kvm_opens;

#[track_caller]
fn list<'a>(kicks: &'a Value, table: &str) -> &'a [Value] {
    kicks[table]
        .as_array()
        .unwrap_or_else(|| panic!("no {table} in {kicks}"))
}

#[track_caller]
fn value(objects: &[Value], how: &str, field: &str) -> f64 {
    let found = objects.iter().find(|object| object["how"] == how);
    let found = found.unwrap_or_else(|| panic!("no {how} in {objects:?}"));
    found[field]
        .as_f64()
        .unwrap_or_else(|| panic!("no {field} in {found}"))
}

#[test]
fn kicks_are_exact_and_every_one_arrives() {
    let Some(qemu) = installed_qemu() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let kick = |out: &str| {
        let mut command = exitpath(&["kick", "--json", "--on", "lab", "--seed", "1"]);
        command.args(["--samples", "20", "--eventfds", "16"]);
        command.args(["--disks", "2", "--qemu"]).arg(&qemu);
        let said = Said::of(command.arg("--out").arg(dir.path().join(out)));
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        said.json()
    };
    let kicks = kick("all");

    let ways = list(&kicks, "kicks");
    assert_eq!(ways.len(), 7, "{ways:?}");
    for way in ways {
        assert_eq!(way["verdict"], "clean", "{way}");
        if let Some(waited) = way["value_waited"].as_f64() {
            assert!(waited > way["value"].as_f64().expect("a value"), "{way}");
            let witness = &way["waited"]["witness"];
            let count = |name: &str| witness[name].as_u64().unwrap_or(0);
            assert!(count("kick.taken") > 20, "{way}");
            assert_eq!(count("kick.taken"), count("kick.wakeups"), "{way}");
            assert!(count("kick.sleeps") >= count("kick.taken"), "{way}");
        }
        let wakeup = way["consumer_wakeup"]
            .as_f64()
            .expect("a clock shared with the host");
        assert!(wakeup > 0.0, "{way}");
    }
    let user = value(ways, "PIO, user exit", "value");
    assert!(value(ways, "PIO, ioeventfd wildcard", "value") < user);

    let scaling = list(&kicks, "scaling");
    let numbers: Vec<u64> = scaling
        .iter()
        .filter_map(|line| line["eventfds"].as_u64())
        .collect();
    for number in [1, 2, 4, 8, 16] {
        assert_eq!(
            numbers.iter().filter(|&&n| n == number).count(),
            3,
            "{numbers:?}"
        );
    }

    for disk in list(&kicks, "disks") {
        let witness = &disk["witness"];
        assert!(witness["disk.requested"].as_u64() > Some(0), "{disk}");
        assert_eq!(
            witness["disk.requested"], witness["disk.completed"],
            "{disk}"
        );
        assert!(disk["requests_per_second"].as_f64() > Some(0.0), "{disk}");
    }

    let completions = list(&kicks, "completions");
    let none = value(completions, "none", "value");
    for how in ["irqfd", "KVM_IRQ_LINE", "KVM_SIGNAL_MSI", "KVM_INTERRUPT"] {
        assert!(value(completions, how, "value") > none, "{how}");
    }

    // The recording shows it again, and another boot with the seed and the same rows says the same:
    // the rows before one decide where KVM's memory for it lies, which is worth an instruction at times.
    let shown = Said::of(exitpath(&["show", "--json"]).arg(dir.path().join("all")));
    assert_eq!(shown.json(), kicks);
    let again = kick("again");
    for table in ["kicks", "completions", "scaling"] {
        assert_eq!(again[table], kicks[table], "{table}");
    }
}

#[test]
fn kicks_that_go_wrong_end_in_words() {
    if !kvm_opens() {
        return;
    }
    for (check, pieces) in [
        ("lost", ["wake-up of kick 1 was lost", "no progress"]),
        ("behind", ["fell behind", "kicks"]),
        ("stalled", ["fell behind", "requests made"]),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let args = ["kick", "--check", check, "--on", "host", "--runs", "1"];
        let mut command = exitpath(&args);
        command.args(["--watchdog", "1", "--out"]);
        let said = Said::of(command.arg(dir.path().join("out")));
        assert_eq!(said.status, Some(3), "{check}: {}", said.stderr);
        for piece in pieces {
            assert!(
                said.stderr.contains(piece),
                "no '{piece}' in {}",
                said.stderr
            );
        }
    }
}

#[test]
fn more_ioeventfds_than_open_files_are_refused_before_anything_is_measured() {
    if !kvm_opens() {
        return;
    }
    let script = "ulimit -n 100; exec \"$0\" kick scaling --on host --runs 1 --out \"$1\"";
    let dir = tempfile::tempdir().expect("a folder");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .arg(program())
        .arg(dir.path().join("out"));
    Said::of(&mut shell).fails(3, &["4096 ioeventfds", "100", "ulimit", "--eventfds"]);
}

#[test]
fn tables_and_numbers_that_are_none_are_usage_errors() {
    for args in [
        ["kick", "doorbells"].as_slice(),
        &["kick", "--eventfds", "0"],
        &["kick", "--disks", "9"],
        &["kick", "--eventfds", "100000"],
    ] {
        assert_eq!(Said::of(&mut exitpath(args)).status, Some(2), "{args:?}");
    }
}
