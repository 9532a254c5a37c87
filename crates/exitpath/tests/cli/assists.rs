//! What exitpath supplies to the lab's CPU is right: guests end in the same state with it as on the CPU as QEMU emulates it,
//! where KVM finds everything out by itself.
//!
//! The same test runs outside, where it boots labs and compares, and inside each of them, where it runs guests and prints
//! the states they end in.

mod cases;
mod guest;

use std::fmt::Write;
use std::path::Path;

use crate::common::{Said, exitpath, installed_qemu, qemus};

/// Says to the test that it runs inside a lab, and which cases.
const INSIDE: &str = "EXITPATH_GUEST_STATES";
/// What a line with a state begins with.
const MARK: &str = "state: ";

/// Runs the cases in a lab with these options, and gives a line for each.
fn states(qemu: &Path, cases: &str, options: &[&str]) -> Vec<String> {
    let this = std::env::current_exe().expect("this program");
    let said = Said::of(
        exitpath(&["lab", "run", "--seed", "1", "--qemu"])
            .arg(qemu)
            .args(options)
            .args(["--", "env", &format!("{INSIDE}={cases}")])
            .arg(this)
            .args(["assists::guests_end_alike", "--exact", "--nocapture"]),
    );
    assert_eq!(said.status, Some(0), "{}{}", said.stdout, said.stderr);
    let lines = said.stdout.lines();
    lines
        .filter_map(|line| line.split_once(MARK))
        .map(|(_, state)| state.to_owned())
        .collect()
}

/// What is in both, and differs.
fn differences(a: &[String], b: &[String]) -> String {
    let mut text = String::new();
    for (a, b) in std::iter::zip(a, b).filter(|(a, b)| a != b) {
        let _ = writeln!(text, "bare:     {a}\nsupplied: {b}");
    }
    text
}

#[test]
fn guests_end_alike() {
    if let Ok(cases) = std::env::var(INSIDE) {
        return inside(&cases);
    }
    let Some(installed) = installed_qemu() else {
        return;
    };
    let bare = states(&installed, "all", &["--bare-svm"]);
    assert!(bare.len() > 1_000, "{} states", bare.len());
    // What an interrupt that the guest makes itself returns to, and which address INVLPG has, is known beforehand.
    for line in bare.iter().filter(|line| line.contains("expected")) {
        assert!(line.contains("as expected"), "{line}");
    }
    for (_, qemu) in qemus() {
        let supplied = states(&qemu, "all", &[]);
        assert_eq!(bare.len(), supplied.len());
        let differ = differences(&bare, &supplied);
        assert!(differ.is_empty(), "{}:\n{differ}", qemu.display());
    }
}

#[test]
fn guests_end_alike_without_nested_paging() {
    let Some(qemu) = qemus().pop().map(|(_, qemu)| qemu) else {
        return;
    };
    let shadow = ["--cmdline", "kvm_amd.npt=0"];
    let bare = states(&qemu, "shadow", &[&shadow[..], &["--bare-svm"]].concat());
    let supplied = states(&qemu, "shadow", &shadow);
    assert!(bare.len() > 300, "{} states", bare.len());
    assert!(
        bare.iter().any(|line| line.contains("stale")),
        "a page that was not invalidated"
    );
    let differ = differences(&bare, &supplied);
    assert!(
        bare.len() == supplied.len() && differ.is_empty(),
        "{differ}"
    );
    for line in bare.iter().filter(|line| line.contains("expected")) {
        assert!(line.contains("as expected"), "{line}");
    }
}

/// Inside a lab: runs the cases and prints the states.
fn inside(which: &str) {
    let cases = match which {
        "shadow" => cases::shadow(),
        _ => cases::all(),
    };
    guest::run(&cases, |state| println!("{MARK}{state}"));
    // What KVM complains of, it says once.
    let log = std::process::Command::new("dmesg").output();
    let log = log
        .map(|log| String::from_utf8_lossy(&log.stdout).into_owned())
        .unwrap_or_default();
    assert!(
        log.contains("Linux version"),
        "the kernel's log cannot be read: {log}"
    );
    for line in log.lines() {
        let line = line.split_once("] ").map_or(line, |(_, line)| line);
        if line.contains("WARNING") || line.contains("Call Trace") || line.contains("unhandled") {
            println!("{MARK}the kernel says: {line}");
        }
    }
}
