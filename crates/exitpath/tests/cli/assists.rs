//! What exitpath supplies to the lab's CPU is right: guests end in the same state with it as on the CPU as QEMU emulates it,
//! where KVM finds everything out by itself.
//!
//! The same test runs outside, where it boots labs and compares, and inside each of them, where it runs guests and prints
//! the states they end in.

mod cases;
mod guest;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use crate::common::{Said, exitpath, qemus, row};

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

/// Has the cases end alike on the CPU as this QEMU emulates it, and with what is supplied; the states. QEMUs differ among
/// themselves: 10 lets a guest read CR3 and CR4 without an exit.
fn alike(qemu: &Path, cases: &str, options: &[&str]) -> Vec<String> {
    let (bare, supplied) = std::thread::scope(|scope| {
        let bare = scope.spawn(|| states(qemu, cases, &[options, &["--bare-svm"]].concat()));
        let supplied = states(qemu, cases, options);
        (bare.join().expect("states"), supplied)
    });
    let mut differ = String::new();
    for (a, b) in std::iter::zip(&bare, &supplied).filter(|(a, b)| a != b) {
        let _ = writeln!(differ, "bare:     {a}\nsupplied: {b}");
    }
    assert!(differ.is_empty(), "{}:\n{differ}", qemu.display());
    assert_eq!(bare.len(), supplied.len());
    // What an interrupt that the guest makes itself returns to, and which address INVLPG has, is known beforehand.
    for line in bare.iter().filter(|line| line.contains("expected")) {
        assert!(line.contains("as expected"), "{line}");
    }
    bare
}

#[test]
fn guests_end_alike() {
    if let Ok(cases) = std::env::var(INSIDE) {
        return inside(&cases);
    }
    for (_, qemu) in qemus() {
        let states = alike(&qemu, "all", &[]);
        assert!(states.len() > 2_000, "{} states", states.len());
    }
}

#[test]
fn guests_end_alike_without_nested_paging() {
    let Some((_, qemu)) = qemus().pop() else {
        return;
    };
    let states = alike(&qemu, "shadow", &["--cmdline", "kvm_amd.npt=0"]);
    assert!(states.len() > 600, "{} states", states.len());
    let stale = states.iter().filter(|line| line.ends_with("stale")).count();
    assert!(stale > 10, "{stale} pages were not invalidated");
}

/// A QEMU that cannot load the plugin gives the CPU as it emulates it, the lab says so, and the figures are those of that CPU.
#[test]
fn without_the_plugin_the_cpu_is_as_emulated() {
    let Some((_, qemu)) = qemus().into_iter().next() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let refuses = dir.path().join("qemu-without-plugins");
    let script = format!(
        "#!/bin/sh\nfor argument; do\n  [ \"$argument\" != -plugin ] || {{ echo 'no plugins in this build' >&2; exit 1; }}\n\
         done\nexec '{}' \"$@\"\n",
        qemu.display()
    );
    std::fs::write(&refuses, script).expect("a script");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&refuses, executable).expect("a program");

    let measured = |qemu: &Path, options: &[&str]| {
        Said::of(
            exitpath(&[
                "measure", "cpuid", "--json", "--on", "lab", "--seed", "1", "--qemu",
            ])
            .arg(qemu)
            .args(options),
        )
    };
    let fallen_back = measured(&refuses, &[]);
    assert_eq!(fallen_back.status, Some(0), "{}", fallen_back.stderr);
    let said = &fallen_back.stderr;
    assert!(
        said.contains("as QEMU emulates it") && said.contains("no plugins in this build"),
        "{said}"
    );
    let (fallen_back, bare) = (fallen_back.json(), measured(&qemu, &["--bare-svm"]).json());
    let supplied = &fallen_back["environment"]["facts"]["lab.cpu_supplied"];
    assert_eq!(supplied.as_array().map(Vec::len), Some(0), "{supplied}");
    assert_eq!(row(&fallen_back, "cpuid"), row(&bare, "cpuid"));
    // What needs the plugin says that it is not to be had.
    let trace = Said::of(exitpath(&["trace", "cpuid", "--seed", "1", "--qemu"]).arg(&refuses));
    trace.fails(3, &["no plugins in this build"]);
}

/// Inside a lab: runs the cases and prints the states.
fn inside(which: &str) {
    let cases = match which {
        "shadow" => cases::shadow(),
        _ => cases::all(),
    };
    let mut out = std::io::stdout();
    let mut told = |state: &str| writeln!(out, "{MARK}{state}").expect("standard output");
    guest::run(&cases, &mut told);
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
            told(&format!("the kernel says: {line}"));
        }
    }
}
