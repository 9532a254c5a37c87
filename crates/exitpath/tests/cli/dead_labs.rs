//! Labs that will never say what they should: each is noticed, and named, before its time is up.
//!
//! None of these limits is what ends the lab: the words say what did.

use crate::common::{Said, exitpath, installed_qemu};

#[test]
fn a_panic_that_does_not_restart_ends_the_lab() {
    let args = ["measure", "cpuid", "--on", "lab", "--seed", "1"];
    let stays = ["--cmdline", "rdinit=/nonexistent panic=0"];
    if installed_qemu().is_none() {
        return;
    }
    Said::of(exitpath(&args).args(stays)).fails(
        3,
        &["panicked and does not restart", "Unable to mount root fs"],
    );
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
    if installed_qemu().is_none() {
        return;
    }
    let said = Said::of(&mut exitpath(&args));
    said.fails(3, &["the lab ended", "sysrq triggered crash"]);
    assert_eq!(said.stdout, "1\n-1\n");
}
