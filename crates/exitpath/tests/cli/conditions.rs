//! What is asked for on a kernel's command line is done, or said not to have been.

use serde_json::Value;

use exitpath_testing::{Need, skipped};

use crate::common::{Said, exitpath, installed_qemu, row};

/// Measures an access to memory that user space answers with this command line, and reads the object.
fn measured(cmdline: &str, out: &std::path::Path) -> Value {
    let out = out.display().to_string();
    let mut args = vec![
        "measure",
        "mmio_user_read",
        "--on",
        "lab",
        "--seed",
        "1",
        "--samples",
        "20",
    ];
    args.extend(["--json", "--out", &out, "--cmdline", cmdline]);
    let said = Said::of(&mut exitpath(&args));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    said.json()
}

#[test]
fn parameters_that_no_module_has_are_refused_before_a_boot() {
    if installed_qemu().is_none() {
        return;
    }
    for (cmdline, pieces) in [
        (
            "kvm.enable_pmuu=1",
            ["kvm.enable_pmuu=1", "near it: enable_pmu"],
        ),
        ("kvm-amd.npd=0", ["module kvm_amd", "near it: npt"]),
        // The lab does not load it, but its file is there.
        ("kvm_intel.nestd=1", ["module kvm_intel", "nested"]),
        ("kmv.enable_pmu=1", ["no module 'kmv'", "near it: kvm"]),
        // Built into the kernel.
        ("printk.tyme=1", ["module printk", "near it: time"]),
    ] {
        for command in [
            &["measure", "cpuid", "--on", "lab"][..],
            &["trace", "cpuid"],
            &["userspace", "--on", "lab"],
            &["kick", "--on", "lab"],
            &["diff", "cpuid", "--cmdline", ""],
        ] {
            // No boot ends that soon, and one that is begun would end otherwise.
            let args = ["--seed", "1", "--timeout", "1", "--cmdline", cmdline];
            let said = Said::of(exitpath(command).args(args));
            said.fails(2, &pieces);
        }
        let said = Said::of(exitpath(&["lab", "run", "--cmdline", cmdline]).args(["--", "true"]));
        said.fails(2, &pieces);
    }
}

#[test]
fn parameters_reach_modules_and_what_had_no_effect_is_said() {
    if installed_qemu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let plain = measured("", &dir.path().join("plain"));
    assert_eq!(plain["warnings"], serde_json::json!([]));
    let asked = "kvm-amd.npt=0 kvm_amd.avic=1 kvm_intel.nested=1 mds=off \
                 mitigations=nonsense nosuchthing printk.time=1";
    let other = measured(asked, &dir.path().join("other"));
    // Without nested paging KVM finds an instruction's bytes in another way.
    let value = |table: &Value| {
        row(table, "mmio_user_read")["median"]
            .as_f64()
            .expect("a value")
    };
    assert!((value(&plain) - value(&other)).abs() > 10.0, "{other}");
    let facts = &other["environment"]["facts"];
    assert_eq!(facts["lab.modules"]["kvm_amd"]["npt"], "N");
    assert_eq!(
        plain["environment"]["facts"]["lab.modules"]["kvm_amd"]["npt"],
        "Y"
    );
    let warnings = other["warnings"].as_array().expect("warnings");
    for (word, why) in [
        ("kvm_amd.avic=1", "'N'"),
        ("kvm_intel.nested=1", "no module kvm_intel"),
        ("mds=off", "Not affected"),
        ("mitigations=nonsense", "Unsupported mitigations=nonsense"),
        ("nosuchthing", "does not know"),
    ] {
        let told = |warning: &&Value| {
            let text = warning.as_str().unwrap_or_default();
            text.starts_with(word) && text.contains(why)
        };
        assert_eq!(
            warnings.iter().filter(told).count(),
            1,
            "{word}: {warnings:?}"
        );
    }
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    assert_eq!(&facts["kernel.without_effect"], &other["warnings"]);
    let shown = Said::of(exitpath(&["show"]).arg(dir.path().join("other")));
    assert!(
        shown.stdout.contains("warning: nosuchthing"),
        "{}",
        shown.stdout
    );
}

#[test]
fn a_value_that_a_module_refuses_is_told_with_it() {
    if installed_qemu().is_none() {
        return;
    }
    let command = [
        "lab",
        "run",
        "--cmdline",
        "kvm.halt_poll_ns=many",
        "--",
        "true",
    ];
    Said::of(&mut exitpath(&command)).fails(2, &["refused to load kvm", "halt_poll_ns=many"]);
}

#[test]
fn a_command_in_the_lab_finds_its_parameters() {
    if installed_qemu().is_none() {
        return;
    }
    let file = "/sys/module/kvm/parameters/halt_poll_ns";
    let cmdline = "kvm.halt-poll-ns=0x3039 kvm_amd.avic";
    let command = ["lab", "run", "--cmdline", cmdline, "--", "cat", file];
    let said = Said::of(&mut exitpath(&command));
    assert_eq!(
        (said.status, said.stdout.trim()),
        (Some(0), "12345"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("warning: kvm_amd.avic "),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("halt"), "{}", said.stderr);
}

#[test]
fn two_command_lines_of_one_condition_are_said_to_be_one() {
    if installed_qemu().is_none() {
        return;
    }
    let mut diff = exitpath(&["diff", "cpuid", "--seed", "1", "--rounds", "5", "--json"]);
    diff.args(["--cmdline", "", "--cmdline", "mitigations=nonsense"]);
    let said = Said::of(&mut diff);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let diff = said.json();
    let warnings = diff["warnings"].as_array().expect("warnings");
    let has = |start: &str| {
        let starts = |warning: &Value| warning.as_str().is_some_and(|w| w.starts_with(start));
        warnings.iter().any(starts)
    };
    assert!(
        has("b: mitigations=nonsense: the kernel's log"),
        "{warnings:?}"
    );
    assert!(
        has("nothing that the kernel says of itself shows"),
        "{warnings:?}"
    );
}

#[test]
fn modules_of_another_kernel_are_refused_before_a_boot() {
    if installed_qemu().is_none() {
        return;
    }
    let kernel = Said::of(&mut exitpath(&["lab", "kernels"]));
    let cached = kernel
        .stdout
        .lines()
        .find(|line| line.ends_with("in the cache"));
    let Some(release) = cached.and_then(|line| line.split_whitespace().next()) else {
        let why = format!("no kernel is in the cache: {}", kernel.stderr);
        return skipped(Need::Lab, why);
    };
    let dir = tempfile::tempdir().expect("a folder");
    let other = dir.path().join("lib/modules/4.4.0-other/kernel");
    std::fs::create_dir_all(other).expect("a folder");
    let modules = dir.path().to_str().expect("a plain path");
    let given = ["--kernel", release, "--modules", modules, "--timeout", "1"];
    let pieces = ["4.4.0-other", release];
    for command in [
        &["measure", "cpuid", "--on", "lab"][..],
        &["trace", "cpuid"],
        &["userspace", "--on", "lab"],
        &["kick", "--on", "lab"],
        &["diff", "cpuid", "--cmdline", "", "--cmdline", "quiet"],
        &["diff", "cpuid", "--kernel", release],
    ] {
        Said::of(exitpath(command).args(given)).fails(2, &pieces);
    }
    let run = [&["lab", "run"][..], &given, &["--", "true"]].concat();
    Said::of(&mut exitpath(&run)).fails(2, &pieces);
    let gate = [&["gate", "--base", release][..], &given].concat();
    Said::of(&mut exitpath(&gate)).fails(125, &pieces);
}
