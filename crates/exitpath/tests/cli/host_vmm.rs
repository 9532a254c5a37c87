//! Real VMMs on this machine: a QEMU that counts time, so that figures are exact; commands that are
//! no VMM.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Said, descendants, exitpath, qemu_in_path, row};
use crate::host::kvm_opens;

const COUNTED: &str = "-accel tcg -icount shift=0 -nodefaults -display none -serial stdio";

#[test]
fn a_vmm_of_the_users_command_is_measured_in_its_own_ticks() {
    let Some(qemu) = qemu_in_path().filter(|_| kvm_opens()) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    // Without isa-debug-exit its last word is a reset, on which this one boots again and again.
    let vmm = format!("'{}' {COUNTED} -kernel {{image}}", qemu.display());
    let args = [
        "measure",
        "--on",
        "host",
        "--json",
        "--runs",
        "2",
        "--samples",
        "50",
        "--watchdog",
        "60",
    ];
    let said = Said::of(
        exitpath(&args)
            .args(["empty", "nop", "--vmm", &vmm, "--out"])
            .arg(dir.path().join("out")),
    );
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let table = said.json();
    // Each instruction is a tick there.
    for (name, ticks) in [("empty", 0.0), ("nop", 1.0)] {
        let row = row(&table, name);
        assert_eq!(row["cycles"]["median"].as_f64(), Some(ticks), "{row}");
        assert_eq!(row["cycles"]["p99"].as_f64(), Some(ticks), "{row}");
        assert_eq!(row["runs"], 2, "{row}");
        assert!(row["handled_by"].is_null(), "{row}");
        assert!(row["verdict"] != "clean", "nobody counted exits: {row}");
    }
    let command = table["environment"]["facts"]["vmm.command"].as_str();
    assert!(
        command.is_some_and(|command| command.contains("-icount")),
        "{table}"
    );
}

#[test]
fn commands_that_are_no_vmm_end_in_words() {
    if !kvm_opens() {
        return;
    }
    let fails = |vmm: &str, status: i32, pieces: &[&str]| {
        let dir = tempfile::tempdir().expect("a folder");
        let out = dir.path().join("out");
        let args = [
            "measure",
            "nop",
            "--on",
            "host",
            "--watchdog",
            "1",
            "--vmm",
            vmm,
            "--out",
        ];
        Said::of(exitpath(&args).arg(&out)).fails(status, pieces);
        assert!(!out.exists());
    };
    fails("nosuchvmm {image}", 2, &["cannot start nosuchvmm"]);
    fails("sh -c 'true {image}", 2, &["quote"]);
    fails("nosuchvmm", 2, &["{image}"]);
    fails("true {image}", 3, &["printed nothing"]);
    fails(
        "echo 'a b' {image}",
        3,
        &["nothing it printed is the image's", "a b /"],
    );
    // It prints the image's end and no more; the other one nothing, which takes firmware longer.
    fails("tail -f /dev/null {image}", 3, &["printed nothing for 1 s"]);
    fails(
        "sh -c 'sleep 1000' {image}",
        3,
        &["printed nothing for 10 s"],
    );
    fails("yes {image}", 3, &["it printed more than"]);
    fails("sh -c 'kill -9 $$' {image}", 3, &["signal 9"]);
    fails("echo 'xp1 0 boot' {image}", 3, &["garbled"]);
}

/// Starts to measure under a VMM, kills exitpath once this program runs, and waits for that one's end.
fn kill_in_the_midst(command: &mut Command, program: &str) {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = quiet.spawn().expect("exitpath can be started");
    let began = Instant::now();
    let mut running = Vec::new();
    while running.is_empty() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
        running = descendants(child.id(), program);
    }
    child.kill().expect("it is running");
    child.wait().expect("its status");
    assert!(!running.is_empty(), "no {program} was started");
    for process in running {
        while Path::new(&format!("/proc/{process}/exe")).exists() {
            assert!(began.elapsed() < Duration::from_secs(120), "{program} runs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_killed_exitpath_leaves_no_image_behind() {
    if !kvm_opens() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let temporary = dir.path().join("tmp");
    std::fs::create_dir(&temporary).expect("a folder");
    let left = || std::fs::read_dir(&temporary).expect("a folder").count();
    let measure = |vmm: &str| {
        let args = [
            "measure", "nop", "--on", "host", "--runs", "1", "--vmm", vmm,
        ];
        let mut command = exitpath(&args);
        command.env("TMPDIR", &temporary);
        command.arg("--out").arg(dir.path().join("out"));
        command
    };
    if let Some(qemu) = qemu_in_path() {
        kill_in_the_midst(&mut measure("qemu"), "qemu-system-x86_64");
        assert_eq!(left(), 0, "{}", qemu.display());
    }
    // Any other VMM gets a real file, which the next one removes.
    kill_in_the_midst(&mut measure("tail -f /dev/null {image}"), "tail");
    assert_eq!(left(), 1);
    let said = Said::of(&mut measure("true {image}"));
    said.fails(3, &["printed nothing"]);
    assert_eq!(left(), 0);
}
