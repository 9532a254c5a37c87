//! Real kernels in the lab. Every assertion is on instruction counts, which are exact.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{Said, exitpath, installed_qemu, kernel, program, qemus, row};

/// Measures in the lab; the table without what names the recording's folder.
#[track_caller]
fn measure(qemu: &Path, args: &[&str]) -> Value {
    measure_samples("60", qemu, args)
}

/// The same with so many samples.
#[track_caller]
fn measure_samples(samples: &str, qemu: &Path, args: &[&str]) -> Value {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("recording");
    let said = Said::of(
        exitpath(&["measure", "--on", "lab", "--json", "--samples", samples])
            .args(args)
            .arg("--qemu")
            .arg(qemu)
            .arg("--out")
            .arg(&out),
    );
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let mut table = said.json();
    let shown = Said::of(exitpath(&["show", "--json"]).arg(&out)).json();
    assert_eq!(table, shown, "the recording gives the same table");
    table
        .as_object_mut()
        .expect("an object")
        .remove("recording");
    table
}

fn value(table: &Value, name: &str) -> f64 {
    let row = row(table, name);
    row["median"]
        .as_f64()
        .unwrap_or_else(|| panic!("no value in {row}"))
}

#[test]
fn reference_rows_read_as_what_they_are() {
    let Some(qemu) = installed_qemu() else { return };
    let rows = [
        "empty",
        "nop",
        "nop_10",
        "nop_100",
        "nop_1000",
        "cpuid",
        "cpuid_twice",
    ];
    let table = measure(&qemu, &[&rows[..], &["--seed", "1"]].concat());
    assert_eq!(table["machine"], "lab");
    assert_eq!(table["unit"], "instructions");
    for (name, instructions) in [
        ("empty", 0.0),
        ("nop", 1.0),
        ("nop_10", 10.0),
        ("nop_100", 100.0),
        ("nop_1000", 1000.0),
    ] {
        assert_eq!(value(&table, name), instructions, "{name}");
        assert_eq!(
            row(&table, name)["slope"].as_f64(),
            Some(instructions),
            "{name}"
        );
        assert_eq!(row(&table, name)["handled_by"], "none");
    }
    // Between the two there are two XORs, and the bracket's own two are subtracted.
    assert_eq!(value(&table, "cpuid_twice"), 2.0 * value(&table, "cpuid"));
    assert_eq!(row(&table, "cpuid")["handled_by"], "kernel");
    assert_eq!(row(&table, "cpuid")["exits_per_op"].as_f64(), Some(1.0));
    assert_eq!(
        row(&table, "cpuid_twice")["exits_per_op"].as_f64(),
        Some(2.0)
    );
    for row in table["rows"].as_array().expect("rows") {
        assert_eq!(row["verdict"], "clean", "{row}");
        assert_eq!(row["ci95"], Value::Null);
    }
}

/// KVM would switch a static key off in the lab's second second, and the second row take another path from then on.
#[test]
fn a_row_is_the_same_from_its_first_sample_to_its_last() {
    let Some(qemu) = installed_qemu() else { return };
    let rows = ["irqfd_loopback", "self_ipi_sti_nop"];
    let table = measure_samples("65536", &qemu, &[&rows[..], &["--seed", "1"]].concat());
    for name in rows {
        let variants = row(&table, name)["variants"].as_array().expect("variants");
        let samples = variants
            .iter()
            .filter_map(|variant| variant["samples"].as_u64());
        // The others are those that an interrupt came into.
        let frequent = samples.filter(|&samples| samples > 655).count();
        assert_eq!(frequent, 1, "{name}: {variants:?}");
    }
}

/// Every row that needs neither a second vCPU nor HLT is the same in two boots with one seed, on
/// every QEMU there is; seeds and order are recorded.
#[test]
fn one_seed_gives_one_table() {
    let listed = Said::of(&mut exitpath(&["measure", "--list"])).stdout;
    let names: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| {
            !name.contains("hlt") && !["ipi", "ipi_halt", "ple_round_robin"].contains(name)
        })
        .filter(|name| !["hang", "fault"].contains(name))
        .collect();
    for (major, qemu) in qemus() {
        let args = [&names[..], &["--seed", "7"]].concat();
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| measure(&qemu, &args));
            let second = measure(&qemu, &args);
            (first.join().expect("a table"), second)
        });
        assert_eq!(first, second, "QEMU {major}");
        assert_eq!(first["environment"]["seeds"], serde_json::json!([7]));
        // What a maintainer would expect of a few of them.
        for (name, by, exits) in [
            ("inl_from_qemu", "userspace", 1.0),
            ("inl_from_kernel", "kernel", 1.0),
            ("pci-mem-no-eventfd", "userspace", 1.0),
            ("pci-mem-datamatch-eventfd", "kernel", 1.0),
            ("nested_page_fault", "kernel", 1.0),
            ("dirty_log_write", "kernel", 1.0),
            ("mov_from_cr8", "hardware", 0.0),
        ] {
            let row = row(&first, name);
            assert_eq!(row["handled_by"], by, "{row}");
            assert_eq!(row["exits_per_op"].as_f64(), Some(exits), "{row}");
        }
        assert!(value(&first, "inl_from_kernel") < value(&first, "inl_from_qemu"));
        let skipped = row(&first, "wr_tsx_ctrl_msr");
        assert_eq!(skipped["verdict"], "skipped");
        assert_eq!(skipped["median"], Value::Null);
        assert!(
            skipped["notes"][0]
                .as_str()
                .is_some_and(|note| note.contains("TSX_CTRL"))
        );
    }
}

#[test]
fn two_vcpus_get_two_cpus_where_qemu_can() {
    for (major, qemu) in qemus() {
        let rows = ["cpuid", "ipi", "ipi_halt", "--seed", "1"];
        let table = measure(&qemu, &rows);
        assert_eq!(row(&table, "cpuid")["cpus"], 1);
        let ipi = row(&table, "ipi");
        if major >= 10 {
            assert_eq!(ipi["cpus"], 2, "{ipi}");
            assert!(value(&table, "ipi") < 100_000.0, "{ipi}");
        } else {
            assert_eq!(ipi["cpus"], 1, "{ipi}");
            assert_eq!(ipi["verdict"], "void", "{ipi}");
            let notes = ipi["notes"].to_string();
            assert!(
                notes.contains("2 vCPUs on 1 CPU: includes scheduling"),
                "{notes}"
            );
        }
    }
}

#[test]
fn the_kernel_can_be_an_image_with_a_folder_of_modules() {
    let (Some(qemu), Some(kernel)) = (installed_qemu(), kernel()) else {
        return;
    };
    let release = kernel.release.as_deref().expect("a release");
    let image = kernel.bzimage.to_str().expect("a plain path");
    let modules = kernel.modules.as_deref().and_then(Path::parent);
    let modules = modules.and_then(Path::to_str).expect("a plain path");
    let by_version = measure(&qemu, &["cpuid", "--seed", "1", "--kernel", release]);
    let by_path = measure(
        &qemu,
        &[
            "cpuid",
            "--seed",
            "1",
            "--kernel",
            image,
            "--modules",
            modules,
        ],
    );
    assert_eq!(by_version["rows"], by_path["rows"]);
    let off = measure(
        &qemu,
        &[
            "cpuid",
            "--seed",
            "1",
            "--kernel",
            release,
            "--cmdline",
            "mitigations=off",
        ],
    );
    assert!(value(&off, "cpuid") < value(&by_version, "cpuid"));
    let cmdline = off["environment"]["cmdline"]
        .as_str()
        .expect("a command line");
    assert!(cmdline.ends_with("mitigations=off"), "{cmdline}");
}

#[test]
fn a_guest_that_hangs_or_faults_is_named_with_its_place() {
    let Some(qemu) = installed_qemu() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let run = |row: &str, out: &str| {
        Said::of(
            exitpath(&[
                "measure",
                "--on",
                "lab",
                row,
                "--seed",
                "1",
                "--watchdog",
                "1",
            ])
            .arg("--qemu")
            .arg(&qemu)
            .arg("--out")
            .arg(dir.path().join(out)),
        )
    };
    let hang = run("hang", "a");
    hang.fails(
        3,
        &[
            "hang: no progress for 1s after 0 operations",
            "in the operation",
        ],
    );
    assert!(hang.stdout.contains("void"), "{}", hang.stdout);
    let fault = run("fault", "b");
    fault.fails(3, &["fault: #DE", "in the operation", "after 0 operations"]);
}

#[test]
fn any_command_runs_inside_and_its_status_comes_out() {
    if installed_qemu().is_none() {
        return;
    }
    let marker = format!("/var/tmp/exitpath-test-{}", std::process::id());
    let script = format!("echo out; echo err >&2; touch {marker} && ls {marker}; uname -r; exit 7");
    let said = Said::of(&mut exitpath(&["lab", "run", "--", "sh", "-c", &script]));
    assert_eq!(said.status, Some(7), "{}", said.stderr);
    assert!(
        said.stdout.starts_with(&format!("out\n{marker}\n")),
        "{}",
        said.stdout
    );
    assert!(said.stderr.ends_with("err\n"), "{}", said.stderr);
    assert!(
        !Path::new(&marker).exists(),
        "the overlay keeps changes in the lab"
    );
    let outside = Command::new("uname").arg("-r").output().expect("uname");
    let inside = said.stdout.lines().last().expect("a release");
    assert_ne!(inside.as_bytes(), outside.stdout.trim_ascii());
}

/// The host's path on a real SVM: the lab's own /dev/kvm.
#[test]
fn the_host_path_works_on_the_labs_kvm() {
    if installed_qemu().is_none() {
        return;
    }
    let program = program();
    let program = program.to_str().expect("a plain path");
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("recording");
    let said = Said::of(&mut exitpath(&[
        "lab",
        "run",
        "--",
        "exitpath",
        "measure",
        "--on",
        "host",
        "--json",
        "--runs",
        "4",
        "--samples",
        "40",
        "--order-seed",
        "1",
        "--out",
        out.to_str().expect("a plain path"),
        "empty",
        "nop_100",
        "cpuid",
        "cpuid_twice",
        "inl_from_qemu",
        "mov_from_cr8",
    ]));
    assert_eq!(said.status, Some(0), "{program}: {}", said.stderr);
    let table = said.json();
    assert_eq!(table["machine"], "host");
    assert_eq!(table["unit"], "ns");
    assert_eq!(table["environment"]["facts"]["guests_run_on_cpu"], true);
    for (name, by) in [
        ("cpuid", "kernel"),
        ("inl_from_qemu", "userspace"),
        ("mov_from_cr8", "hardware"),
    ] {
        let row = row(&table, name);
        assert_eq!(row["handled_by"], by, "{row}");
        assert_ne!(row["verdict"], "void", "{row}");
        assert_eq!(row["runs"], 4);
    }
    // What the statistics make of samples whose values are known: this KVM's clock counts instructions, a
    // thousand million of them in a second, and two cpuids are twice one.
    let tsc_khz = table["environment"]["tsc_khz"].as_f64().expect("a rate");
    let ns = |instructions: f64| instructions * 1e6 / tsc_khz;
    let is = |name: &str, expected: f64| {
        let row = row(&table, name);
        for figure in ["floor", "median"] {
            let value = row[figure].as_f64().expect("a figure");
            assert!(
                (value - expected).abs() < 1e-6,
                "{figure} is not {expected}: {row}"
            );
        }
        // Interrupts make some samples longer, none shorter.
        let high = |figure: &Value| figure.as_f64().expect("a figure") >= expected;
        assert!(high(&row["mean"]) && high(&row["ci95"][1]), "{row}");
    };
    is("empty", 0.0);
    is("nop_100", ns(100.0));
    is("cpuid_twice", 2.0 * value(&table, "cpuid"));
    is("mov_from_cr8", ns(1.0));
    let empty = row(&table, "empty");
    let (lo, hi) = (empty["ci95"][0].as_f64(), empty["ci95"][1].as_f64());
    assert!(lo <= Some(0.0) && hi >= Some(0.0), "{empty}");
}
