//! What bad input gets: one line that says what to do, the documented status, nothing left over.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use exitpath_testing::{Need, skipped};

use crate::common::{Said, descendants, exitpath, installed_qemu, kernel, program};

#[test]
fn an_unknown_row_is_answered_with_the_nearest_names() {
    let said = Said::of(&mut exitpath(&["measure", "cpiud"]));
    said.fails(2, &["no row is called 'cpiud'", "cpuid", "--list"]);
    let said = Said::of(&mut exitpath(&["measure", "cpuid", "inl_from_kernl"]));
    said.fails(2, &["'inl_from_kernl'", "inl_from_kernel"]);
}

#[test]
fn an_exit_reason_is_answered_with_the_rows_that_make_it() {
    let image = tempfile::tempdir().expect("a folder");
    let image = image.path().join("image.elf");
    let image = image.to_str().expect("a path");
    for command in [
        &["measure"][..],
        &["trace"],
        &["diff", "--kernel", "6.1", "--kernel", "6.2"],
        &["gate", "--kernel", "6.1", "--base", "6.1"],
        &["image", "-o", image],
    ] {
        for (word, rows) in [
            (
                "APIC_WRITE",
                &["EXIT_REASON_APIC_WRITE", "xapic_self_ipi_sti_nop"][..],
            ),
            (
                "EPT_VIOLATION",
                &["nested_page_fault", "mmio_user_read", "pci-mem-no-eventfd"],
            ),
            (
                "npf",
                &["SVM_EXIT_NPF", "nested_page_fault", "mmio_user_read"],
            ),
            (
                "MSR_WRITE",
                &["wr_tsc_adjust_msr", "x2apic_self_ipi_sti_nop"],
            ),
            ("EXIT_REASON_HLT", &["hlt_pending"]),
            (
                "hlt",
                &[
                    "SVM_EXIT_HLT on SVM and EXIT_REASON_HLT on VMX",
                    "hlt_pending",
                ],
            ),
            ("IO_INSTRUCTION", &["inl_from_qemu", "pci-io-no-eventfd"]),
            ("io", &["SVM_EXIT_IOIO", "inl_from_qemu"]),
        ] {
            let said = Said::of(&mut exitpath(&[command, &[word]].concat()));
            assert!(matches!(said.status, Some(2 | 125)), "{command:?} {word}");
            let what = format!("'{word}'; it is an exit reason");
            for part in [&[what.as_str()], rows].concat() {
                assert!(said.stderr.contains(part), "{command:?}: {}", said.stderr);
            }
        }
    }
    // A reason that nothing here makes, and one that no rung makes.
    let said = Said::of(&mut exitpath(&["measure", "TASK_SWITCH"]));
    said.fails(2, &["it is an exit reason", "that no row makes", "--list"]);
    let said = Said::of(&mut exitpath(&["userspace", "MSR_WRITE"]));
    said.fails(2, &["that no rung makes", "measure", "wr_tsc_adjust_msr"]);
    let said = Said::of(&mut exitpath(&["userspace", "io"]));
    said.fails(2, &["of: floor, bare"]);
    // The list says what each row makes.
    let list = Said::of(&mut exitpath(&["measure", "--list"])).stdout;
    let line = list
        .lines()
        .find(|line| line.starts_with("toggle_cr4_pge "));
    assert!(
        line.is_some_and(|line| line.ends_with("[SVM: write_cr4; VMX: CR_ACCESS]")),
        "{list}"
    );
}

#[test]
fn flags_that_make_no_sense_are_usage_errors() {
    for args in [
        &["measure", "--runs", "0"][..],
        &["measure", "--on", "moon"],
        &["measure", "--seed", "x"],
        &["measure", "--modules", "/tmp"],
        &["lab", "run"],
        &["nonsense"],
        &[],
    ] {
        let said = Said::of(&mut exitpath(args));
        assert_eq!(said.status, Some(2), "{args:?}: {}", said.stderr);
    }
}

/// Runs a command in a mount namespace prepared by a script; `None` where that is not allowed.
pub(crate) fn in_namespace(prepare: &str, args: &[&str]) -> Option<Said> {
    let works = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        let why = "this machine allows no mount namespaces (unshare --user --mount)";
        skipped(Need::Namespaces, why);
        return None;
    }
    let script = format!("{prepare} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(program())
        .args(args);
    Some(Said::of(&mut command))
}

#[test]
fn without_dev_kvm_the_host_cannot_measure() {
    let hide = "mount -t tmpfs none /dev && : > /dev/null && : > /dev/urandom";
    let args = [
        "measure",
        "--on",
        "host",
        "cpuid",
        "--out",
        "/tmp/exitpath-test-never",
    ];
    if let Some(said) = in_namespace(hide, &args) {
        said.fails(3, &["no /dev/kvm", "--on lab"]);
    }
    if let Some(said) = in_namespace(hide, &["doctor"]) {
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        assert!(said.stdout.contains("/dev/kvm"), "{}", said.stdout);
    }
}

#[test]
fn without_permission_the_host_cannot_measure() {
    let args = [
        "measure",
        "--on",
        "host",
        "cpuid",
        "--out",
        "/tmp/exitpath-test-never",
    ];
    let said = if fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        if !Path::new("/dev/kvm").exists() {
            skipped(Need::Kvm, "no /dev/kvm whose permission could be lacking");
            return;
        }
        Said::of(&mut exitpath(&args))
    } else {
        // As somebody else, from a copy that anybody may run.
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let copy = dir.path().join("exitpath");
        fs::copy(program(), &copy).expect("a copy");
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .args(args)
            .output();
        match output {
            Ok(output) if !output.stderr.starts_with(b"setpriv") => Said::from(output),
            _ => {
                skipped(Need::Root, "cannot become another user (setpriv as root)");
                return;
            }
        }
    };
    said.fails(3, &["no permission to open /dev/kvm", "--on lab"]);
    // A group is to be joined only where it owns the device and may open it.
    let about = fs::metadata("/dev/kvm").expect("it is there");
    let by_group = about.mode() & 0o060 == 0o060 && about.gid() != 0;
    assert_eq!(said.stderr.contains("-aG"), by_group, "{}", said.stderr);
}

#[test]
fn without_qemu_there_is_no_lab() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("recording");
    let said = Said::of(
        exitpath(&["measure", "--on", "lab", "cpuid"])
            .env("PATH", dir.path())
            .env("EXITPATH_CACHE", dir.path().join("cache"))
            .arg("--out")
            .arg(&out),
    );
    said.fails(3, &["no qemu-system-x86_64 found", "--qemu"]);
    let said = Said::of(
        exitpath(&[
            "measure",
            "--on",
            "lab",
            "cpuid",
            "--qemu",
            "/bin/true",
            "--out",
        ])
        .arg(&out),
    );
    said.fails(3, &["/bin/true cannot be used as QEMU"]);
    assert!(!out.exists());
}

#[test]
fn kernels_that_are_none_are_refused() {
    let (Some(_), Some(kernel)) = (installed_qemu(), kernel()) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("recording");
    let measure = |args: &[&str]| {
        Said::of(
            exitpath(&["measure", "--on", "lab", "cpuid", "--seed", "1"])
                .args(args)
                .arg("--out")
                .arg(&out),
        )
    };
    measure(&["--kernel", "/bin/ls"]).fails(2, &["/bin/ls is not a kernel"]);
    measure(&["--kernel", "/nonexistent/bzImage"]).fails(2, &["/nonexistent/bzImage"]);
    measure(&["--kernel", "99.99"]).fails(2, &["no kernel matches '99.99'"]);
    // A CPU without SVM: the kernel boots, its KVM refuses.
    measure(&["--cpu", "Skylake-Client"]).fails(3, &["has no KVM for the lab's CPU", "svm"]);
    measure(&["--cpu", "NoSuchCPU"]).fails(2, &["QEMU has no CPU 'NoSuchCPU'", "-cpu help"]);
    measure(&["--cpu", "EPYC,+nosuchfeature"]).fails(2, &["QEMU has no CPU", "nosuchfeature"]);
    // Without modules.
    let alone = dir.path().join("bzImage");
    fs::copy(&kernel.bzimage, &alone).expect("a copy");
    let alone = alone.to_str().expect("a plain path");
    measure(&["--kernel", alone]).fails(3, &["has no KVM for the lab's CPU"]);
    let empty = dir.path().join("modules");
    fs::create_dir(&empty).expect("a folder");
    let empty = empty.to_str().expect("a plain path");
    measure(&["--kernel", alone, "--modules", empty]).fails(3, &["no module 'kvm_amd'"]);
    // One that panics before init: no init to be found under this name.
    measure(&["--cmdline", "rdinit=/nonexistent init=/nonexistent"])
        .fails(3, &["ended before its kernel reached init", "Kernel panic"]);
    // One that takes too long, however fast the machine.
    measure(&["--timeout", "1"]).fails(3, &["has not finished within 1 s"]);
    assert!(!out.exists(), "nothing half-made is left");
}

#[test]
fn a_qemu_that_is_killed_leaves_no_result() {
    let Some(qemu) = installed_qemu() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("recording");
    let wrapper = dir.path().join("qemu");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {q} --version\n\
         {q} \"$@\" & pid=$!\nsleep 1\nkill -KILL $pid\nwait\n",
        q = qemu.display()
    );
    fs::write(&wrapper, script).expect("a script");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("a mode");
    let said = Said::of(
        exitpath(&["measure", "--on", "lab", "cpuid", "--seed", "1", "--qemu"])
            .arg(&wrapper)
            .env("EXITPATH_TEST_MARK", dir.path())
            .arg("--out")
            .arg(&out),
    );
    said.fails(3, &["the lab ended"]);
    assert!(!out.exists());
    // The script is all that exitpath could end; each QEMU behind it was told to.
    let mark = format!("EXITPATH_TEST_MARK={}", dir.path().display());
    let began = Instant::now();
    while of_environment(&mark) {
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(60), "a QEMU is left behind");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a process has this in its environment.
fn of_environment(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut environments =
        processes.filter_map(|process| fs::read(process.path().join("environ")).ok());
    environments.any(|environment| {
        let mut entries = environment.split(|byte| *byte == 0);
        entries.any(|entry| entry == mark.as_bytes())
    })
}

/// Begins to measure in the lab and waits until a QEMU runs; the process and its labs.
fn begin_in_lab(out: &Path) -> (Child, Vec<u32>) {
    let child = exitpath(&["measure", "--on", "lab", "cpuid", "--out"])
        .arg(out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("exitpath can be started");
    let began = Instant::now();
    let mut labs = Vec::new();
    while labs.is_empty() && began.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(100));
        labs = descendants(child.id(), "qemu-system-x86_64");
    }
    assert!(!labs.is_empty(), "no lab was started");
    (child, labs)
}

/// Asserts that no lab runs any more; it may take a moment until the kernel has ended it.
fn all_gone(labs: &[u32]) {
    let began = Instant::now();
    for lab in labs {
        while Path::new(&format!("/proc/{lab}/exe")).exists() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "lab {lab} is still running"
            );
            sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn an_interrupt_ends_everything_in_order() {
    if installed_qemu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("recording");
    let (child, labs) = begin_in_lab(&out);
    // SAFETY: signals a process this test started and has not waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let said = Said::from(child.wait_with_output().expect("its output"));
    said.fails(130, &["interrupted"]);
    assert!(!out.exists());
    all_gone(&labs);
}

#[test]
fn a_killed_exitpath_leaves_no_lab_behind() {
    if installed_qemu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("recording");
    let (mut child, labs) = begin_in_lab(&out);
    child.kill().expect("it is running");
    child.wait().expect("its status");
    assert!(!out.exists());
    all_gone(&labs);
}

#[test]
fn recordings_that_are_none_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let show = |path: &Path| Said::of(exitpath(&["show"]).arg(path));
    show(&dir.path().join("nothing")).fails(2, &["no such folder"]);
    show(dir.path()).fails(2, &["is not an exitpath recording"]);
    let manifest = dir.path().join("manifest.json");
    fs::write(&manifest, "{\"format\": \"something else\"}").expect("a file");
    show(dir.path()).fails(2, &["is not an exitpath recording"]);
    fs::write(
        &manifest,
        "{\"format\": \"exitpath-recording\", \"version\": 99}",
    )
    .expect("a file");
    show(dir.path()).fails(2, &["version 99", "newer exitpath"]);
}

#[test]
fn a_recording_that_was_cut_short_is_refused() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings");
    let recording = fs::read_dir(&source)
        .expect("recordings")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_dir())
        .expect("at least one recording");
    let dir = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(&recording).expect("its files").flatten() {
        fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a copy");
    }
    assert_eq!(
        Said::of(exitpath(&["show"]).arg(dir.path())).status,
        Some(0)
    );
    let samples = dir.path().join("samples.parquet");
    let bytes = fs::read(&samples).expect("the table");
    fs::write(&samples, &bytes[..bytes.len() / 2]).expect("a shorter table");
    Said::of(exitpath(&["show"]).arg(dir.path()))
        .fails(2, &["samples.parquet", "truncated or altered"]);
}

#[test]
fn a_folder_that_is_taken_or_full_is_said_to_be() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("precious"), "data").expect("a file");
    let said = Said::of(exitpath(&["measure", "--on", "lab", "cpuid", "--out"]).arg(dir.path()));
    said.fails(2, &["not an empty folder", "--out"]);
    assert!(dir.path().join("precious").exists());

    if installed_qemu().is_none() {
        return;
    }
    let full = dir.path().join("full");
    fs::create_dir(&full).expect("a folder");
    let place = full.display();
    let prepare = format!("mount -t tmpfs -o size=16k none {place}");
    let out = format!("{place}/recording");
    let args = [
        "measure", "--on", "lab", "cpuid", "--seed", "1", "--out", &out,
    ];
    if let Some(said) = in_namespace(&prepare, &args) {
        said.fails(3, &["recording", "No space left on device"]);
    }
}
