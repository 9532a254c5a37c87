//! Real VMMs in the lab: the path through Debian's QEMU, and VMMs that never say what they should.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Said, exitpath, installed_qemu, qemus, row};

/// The sum of a figure over the objects of a list.
#[track_caller]
fn sum(list: &Value, figure: &str) -> u64 {
    let list = list.as_array().expect("a list").iter();
    list.map(|item| item[figure].as_u64().expect("a count"))
        .sum()
}

/// A part's instructions, 0 where there is none.
fn part(path: &Value, name: &str) -> u64 {
    let parts = path["parts"].as_array().expect("parts");
    let part = parts.iter().find(|part| part["name"] == name);
    part.map_or(0, |part| part["instructions"].as_u64().expect("a count"))
}

#[test]
fn the_path_through_qemu_is_whole_and_named() {
    let Some(qemu) = installed_qemu() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("traced");
    let mut command = exitpath(&["trace", "inl_from_qemu", "--vmm", "qemu", "--json"]);
    command.args(["--rounds", "100", "--seed", "1", "--qemu"]);
    let said = Said::of(command.arg(&qemu).arg("--out").arg(&out));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let path = said.json();

    let total = path["total"].as_u64().expect("a count");
    assert_eq!(path["residual"], 0);
    assert_eq!(path["rounds_with_residual"], 0);
    assert_eq!(path["rounds_with_empty_residual"], 0);
    assert_eq!(path["exits"], 1);
    assert_eq!(sum(&path["phases"], "instructions"), total);
    assert_eq!(sum(&path["functions"], "self"), total);
    assert_eq!(sum(&path["parts"], "instructions"), total);
    for name in [
        "guest",
        "kernel, before user space",
        "libc",
        "VMM",
        "kernel, after user space",
    ] {
        assert!(part(&path, name) > 0, "no {name}: {}", path["parts"]);
    }

    // Beside it ours, which does less.
    let own = &path["own_vmm"];
    assert_eq!(own["residual"], 0);
    assert_eq!(
        sum(&own["parts"], "instructions"),
        own["total"].as_u64().expect("a count")
    );
    assert_eq!(part(own, "guest"), part(&path, "guest"));
    let user = |path: &Value| part(path, "VMM") + part(path, "libc") + part(path, "GLib");
    assert!(user(own) > 0 && user(own) * 2 < user(&path), "{own}");

    // QEMU exports most functions of its exits; the others have a place in the file.
    let functions = path["functions"].as_array().expect("functions");
    let names: Vec<&str> = functions
        .iter()
        .filter(|function| function["space"] == "user")
        .map(|function| function["name"].as_str().expect("a name"))
        .collect();
    assert!(names.contains(&"kvm_cpu_exec"), "{names:?}");
    assert!(names.contains(&"ioctl"), "{names:?}");
    let unnamed: Vec<_> = names.iter().filter(|name| name.starts_with("0x")).collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");

    // The recording is enough to show it again, and each function can be looked at.
    let show = |args: &[&str]| {
        let said = Said::of(exitpath(&["trace", "--recording"]).arg(&out).args(args));
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        said.stdout
    };
    let text = show(&[]);
    for piece in ["from guest to guest", "qemu-system-x86_64", "under: /"] {
        assert!(text.contains(piece), "no '{piece}' in {text}");
    }
    assert!(show(&["--annotate", "kvm_cpu_exec"]).contains("kvm_cpu_exec"));
    // Both VMMs are in it, each a condition.
    let again: Value = serde_json::from_str(&show(&["--json"])).expect("JSON");
    assert_eq!(again, path);
    let manifest = std::fs::read(out.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let conditions = manifest["manifest"]["conditions"]
        .as_array()
        .expect("conditions");
    let names: Vec<&str> = conditions
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(names, ["own", "qemu-system-x86_64"]);
    let under = |name: &str| format!("{}@{name}", out.display());
    let own = ["trace", "--json", "--recording", &under("own")];
    let alone = Said::of(&mut exitpath(&own)).json();
    assert_eq!(alone["total"], path["own_vmm"]["total"]);
    let args = ["diff", &under("own"), &under("qemu-system-x86_64")];
    let said = Said::of(&mut exitpath(&args));
    said.fails(2, &["VMM: exitpath's own in A", "in B"]);
}

#[test]
fn an_image_runs_under_qemu_whatever_emulates_the_lab() {
    let Some(vmm) = installed_qemu() else { return };
    for (major, qemu) in qemus() {
        let dir = tempfile::tempdir().expect("a folder");
        let args = ["measure", "empty", "nop", "inl_from_qemu", "--json"];
        let mut command = exitpath(&args);
        command.args(["--on", "lab", "--seed", "1", "--samples", "30", "--vmm"]);
        command.arg(&vmm).arg("--qemu").arg(&qemu);
        let said = Said::of(command.arg("--out").arg(dir.path().join("out")));
        assert_eq!(said.status, Some(0), "QEMU {major}: {}", said.stderr);
        let table = said.json();
        let value = |name| row(&table, name)["median"].as_f64();
        assert_eq!((value("empty"), value("nop")), (Some(0.0), Some(1.0)));
        assert!(value("inl_from_qemu") > Some(1000.0), "QEMU {major}");
    }
}

#[test]
fn what_no_vmm_can_run_is_refused_before_anything_boots() {
    let fails = |args: &[&str], pieces: &[&str]| Said::of(&mut exitpath(args)).fails(2, pieces);
    fails(&["trace", "ipi", "--vmm", "qemu"], &["ipi", "two vCPUs"]);
    fails(
        &["trace", "irqfd_loopback", "--vmm", "qemu"],
        &["irqfd_loopback", "irqfd"],
    );
    fails(&["trace", "nop", "--vmm", "qemu"], &["nop makes no exit"]);
    fails(&["trace", "cpuid", "--vmm", "qemuu"], &["qemuu", "{image}"]);
    fails(
        &[
            "measure",
            "cpuid",
            "--on",
            "lab",
            "--vmm",
            "nosuchvmm {image}",
        ],
        &["nosuchvmm", "PATH"],
    );
    let both = ["trace", "cpuid", "--vmm", "qemu", "--without", "f"];
    let said = Said::of(&mut exitpath(&both));
    assert_eq!(said.status, Some(2), "{}", said.stdout);
    assert!(said.stderr.contains("--without"), "{}", said.stderr);
}

#[test]
fn a_checkout_that_cannot_be_compared_with_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let compare = |dir: &Path, rows: &[&str]| {
        Said::of(
            exitpath(&["measure", "--kvm-unit-tests"])
                .arg(dir)
                .args(rows),
        )
    };
    compare(dir.path(), &[]).fails(2, &["no checkout of kvm-unit-tests", "x86/vmexit.c"]);
    fs::create_dir(dir.path().join("x86")).expect("a folder");
    fs::write(dir.path().join("x86/vmexit.c"), "").expect("a file");
    compare(dir.path(), &[]).fails(2, &["is not built", "make x86/vmexit.flat"]);
    fs::write(dir.path().join("x86/vmexit.flat"), "text").expect("a file");
    compare(dir.path(), &[]).fails(2, &["is no ELF file"]);
    fs::write(dir.path().join("x86/vmexit.flat"), b"\x7fELF").expect("a file");
    compare(dir.path(), &["--on", "host"]).fails(2, &["in the lab", "--on host"]);
    compare(dir.path(), &["vmcall"]).fails(2, &["vmcall is not compared", "inl_from_qemu"]);
}

#[test]
fn vmms_that_never_tell_a_result_end_in_words() {
    let Some(qemu) = installed_qemu() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let lab = |command: &mut std::process::Command| {
        Said::of(command.args(["--seed", "1", "--qemu"]).arg(&qemu))
    };
    // It prints what is no result, and does not end by itself.
    let out = dir.path().join("out");
    let hangs = [
        "measure",
        "cpuid",
        "--on",
        "lab",
        "--vmm",
        "tail -f {image}",
    ];
    let said = lab(exitpath(&hangs).arg("--out").arg(&out));
    said.fails(
        3,
        &["nothing it printed is the image's", "it ran for more than"],
    );
    assert!(!out.exists());

    // It is in /tmp, as is what it reads; the lab has them there too.
    let place = tempfile::tempdir_in("/tmp").expect("a folder");
    let config = place.path().join("config");
    fs::write(&config, "\nconfigured in the lab\n").expect("a file");
    let program = place.path().join("prints");
    fs::copy("/bin/cat", &program).expect("a program");
    let vmm = format!("{} {{image}} {}", program.display(), config.display());
    let reads = ["measure", "cpuid", "--on", "lab", "--vmm", &vmm];
    let said = lab(exitpath(&reads).arg("--out").arg(&out));
    said.fails(
        3,
        &["nothing it printed is the image's", "configured in the lab"],
    );
    assert!(!out.exists());

    // An image of ours is no vmexit.
    fs::create_dir(dir.path().join("x86")).expect("a folder");
    let flat = dir.path().join("x86/vmexit.flat");
    let image = Said::of(exitpath(&["image", "cpuid", "--samples", "10", "-o"]).arg(&flat));
    assert_eq!(image.status, Some(0), "{}", image.stderr);
    let compare = ["measure", "cpuid", "--samples", "10", "--kvm-unit-tests"];
    let said = lab(exitpath(&compare).arg(dir.path()).arg("--out").arg(&out));
    said.fails(3, &["vmexit, cpuid", "printed no figure", "bye"]);
    assert!(!out.exists());
}
