//! This machine's KVM, whatever it is. Nothing here depends on how long anything takes.

use exitpath_testing::{Need, skipped};

use crate::common::{Said, exitpath, row};

pub(crate) fn kvm_opens() -> bool {
    let opens = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if !opens {
        skipped(Need::Kvm, "/dev/kvm cannot be opened here");
    }
    opens
}

#[test]
fn doctor_says_whether_guests_run_on_the_cpu() {
    let said = Said::of(&mut exitpath(&["doctor", "--json"]));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let report = said.json();
    let findings = report["findings"].as_array().expect("findings");
    let guest = findings
        .iter()
        .find(|finding| finding["id"] == "guest-execution")
        .expect("a finding about guests");
    // The finding, its level and the fact are one answer, and not one that this machine contradicts.
    let execution = report["facts"]["guest.execution"].as_str();
    let (level, words) = match execution.expect("a fact") {
        "on-cpu" => ("good", "run on the CPU"),
        "interpreted" => ("bad", "emulated one by one"),
        "failed" => ("bad", "the calibration guest failed"),
        "no-device" | "no-permission" => ("bad", "no guest can run"),
        other => panic!("{other}"),
    };
    assert_eq!(guest["level"], level, "{guest}");
    let says = guest["says"].as_str().expect("a sentence");
    assert!(says.contains(words), "{guest}");
    let cannot_open = ["no-device", "no-permission"].contains(&execution.unwrap_or_default());
    assert_eq!(kvm_opens(), !cannot_open, "{guest}");
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_virtualisation = cpu
        .split_whitespace()
        .any(|flag| ["vmx", "svm"].contains(&flag));
    if !has_virtualisation {
        assert_ne!(execution, Some("on-cpu"), "without VMX or SVM: {guest}");
    }
    let text = Said::of(&mut exitpath(&["doctor"]));
    assert_eq!(text.status, Some(0));
    assert!(text.stdout.lines().count() > 3, "{}", text.stdout);
}

/// Rows that an interpreting KVM cannot do must end too: vmcall hangs in one.
#[test]
fn measuring_on_the_host_always_ends() {
    if !kvm_opens() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("recording");
    let said = Said::of(
        exitpath(&[
            "measure",
            "--on",
            "host",
            "--json",
            "--runs",
            "2",
            "--samples",
            "20",
        ])
        .args([
            "--watchdog",
            "1",
            "--order-seed",
            "5",
            "inl_from_qemu",
            "vmcall",
        ])
        .arg("--out")
        .arg(&out),
    );
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    // In a pipe one line says what was begun.
    let begun = said
        .stderr
        .lines()
        .filter(|line| line.contains("2 rows, 2 fresh VMs"));
    assert_eq!(begun.count(), 1, "{}", said.stderr);
    let table = said.json();
    let user = row(&table, "inl_from_qemu");
    assert_eq!(user["handled_by"], "userspace");
    assert_eq!(user["userspace_exits_per_op"].as_f64(), Some(1.0));
    let vmcall = row(&table, "vmcall");
    let on_cpu = table["environment"]["facts"]["guests_run_on_cpu"].as_bool();
    if on_cpu == Some(false) {
        assert_ne!(user["verdict"], "clean", "{user}");
        assert!(user["notes"].to_string().contains("interpreted"), "{user}");
        assert_eq!(vmcall["verdict"], "void", "{vmcall}");
        let warned = table["warnings"].as_array().expect("warnings");
        assert!(
            warned
                .iter()
                .any(|w| w.as_str().is_some_and(|w| w.contains("interprets")))
        );
    } else if on_cpu == Some(true) {
        assert_eq!(vmcall["handled_by"], "kernel", "{vmcall}");
    } else {
        // On a machine that is busy with other tests the calibration guest may run out of time.
        for row in [user, vmcall] {
            assert_ne!(row["verdict"], "clean", "{row}");
        }
        assert!(user["notes"].to_string().contains("not known"), "{user}");
    }
}
