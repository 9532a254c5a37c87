//! Labs that will never say what they should: each is noticed, and named, before its time is up.
//!
//! None of these limits is what ends the lab: the words say what did.

use std::path::Path;
use std::process::Command;

use crate::common::{Said, exitpath, installed_qemu};

/// A command that needs no kernel but Debian's; `None` where none is to be had.
fn run(command: &mut Command) -> Option<Said> {
    installed_qemu()?;
    let said = Said::of(command);
    if said.stderr.contains("no kernel") {
        eprintln!("skipped: {}", said.stderr);
        return None;
    }
    Some(said)
}

#[test]
fn a_kernel_that_waits_for_ever_before_init_cannot_be_judged() {
    let waits = "rdinit=/nonexistent root=/dev/nonexistent rootwait";
    let base =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/trace-6.1-qemu7.2");
    let mut gate = exitpath(&["gate", "cpuid", "--kernel", "6.1", "--seed", "1", "--base"]);
    if let Some(said) = run(gate.arg(base).args(["--cmdline", waits])) {
        said.fails(
            125,
            &[
                "does nothing any more",
                "passed by its own clock without a word before its kernel reached init",
            ],
        );
    }
}

#[test]
fn a_panic_that_does_not_restart_ends_the_lab() {
    let args = ["measure", "cpuid", "--on", "lab", "--seed", "1"];
    let stays = ["--cmdline", "rdinit=/nonexistent panic=0"];
    if let Some(said) = run(exitpath(&args).args(stays)) {
        said.fails(
            3,
            &["panicked and does not restart", "Unable to mount root fs"],
        );
    }
}

/// Whatever the command line says of oopses and panics.
#[test]
fn a_command_that_crashes_its_kernel_ends_the_lab() {
    let crash = "cat /proc/sys/kernel/panic_on_oops /proc/sys/kernel/panic; \
                 echo c > /proc/sysrq-trigger; sleep 1000000";
    let stays = "panic=0 sysctl.kernel.panic_on_oops=0";
    let args = [
        "lab",
        "run",
        "--seed",
        "1",
        "--cmdline",
        stays,
        "--",
        "sh",
        "-c",
        crash,
    ];
    if let Some(said) = run(&mut exitpath(&args)) {
        said.fails(3, &["the lab ended", "sysrq triggered crash"]);
        assert_eq!(said.stdout, "1\n-1\n");
    }
}
