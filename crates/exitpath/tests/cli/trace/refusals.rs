//! What is asked of a trace and cannot be had: one line that says why.

use std::fs;
use std::path::Path;

use super::{lab, trace};
use crate::common::{Said, exitpath, row};

#[test]
fn rows_without_a_path_to_trace_are_refused() {
    let trace = |row: &str| Said::of(&mut exitpath(&["trace", row]));
    trace("nop").fails(2, &["nop makes no exit", "no path to trace"]);
    trace("cpiud").fails(2, &["no row is called 'cpiud'", "near it: cpuid", "--list"]);
    let said = Said::of(&mut exitpath(&[
        "diff", "nop", "--kernel", "6.1", "--kernel", "6.12",
    ]));
    said.fails(2, &["nop makes no exit"]);
}

#[test]
fn a_row_whose_value_is_the_difference_of_two_paths_is_not_compared() {
    let why = [
        "hlt_pending is measured less what surrounds its operation",
        "`exitpath measure hlt_pending`",
    ];
    for args in [
        &["diff", "hlt_pending", "--kernel", "6.1", "--kernel", "6.12"][..],
        &["gate", "--kernel", "6.1", "--base", "6.12", "hlt_pending"],
        &["trace", "hlt_pending", "--without", "kvm_cpuid"],
    ] {
        Said::of(&mut exitpath(args)).fails(2, &why);
    }
    // In recordings it is left out, by name.
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings");
    let [a, b] = ["6.1", "6.12"].map(|kernel| recordings.join(format!("trace-{kernel}-qemu7.2")));
    let diff = Said::of(exitpath(&["diff", "--json"]).args([&a, &b])).json();
    let names: Vec<&str> = diff["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["name"].as_str())
        .collect();
    assert_eq!(names, ["cpuid", "inl_from_qemu"]);
    assert!(
        diff["notes"].to_string().contains(why[0]),
        "{}",
        diff["notes"]
    );
}

#[test]
fn a_rows_total_is_what_is_measured() {
    let recording =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/trace-6.1-qemu7.2");
    let measured = Said::of(exitpath(&["show", "--json"]).arg(&recording)).json();
    let traced = Said::of(exitpath(&["trace", "--json", "--recording"]).arg(&recording)).json();
    for path in traced.as_array().expect("several rows") {
        let name = path["row"].as_str().expect("a name");
        let number = |field: &str| path[field].as_u64().expect("a number");
        assert_eq!(
            number("total"),
            number("guest_timed") + number("intercepted"),
            "{name}"
        );
        let variants = &row(&measured, name)["variants"];
        let values = variants.as_array().expect("its values").iter();
        let mut values = values.filter_map(|variant| variant["value"].as_f64());
        assert!(
            values.any(|value| value == number("guest_timed") as f64),
            "{name}: {} is not among {variants}",
            number("guest_timed")
        );
        let sum: u64 = path["phases"]
            .as_array()
            .expect("phases")
            .iter()
            .filter_map(|phase| phase["instructions"].as_u64())
            .sum();
        assert_eq!(
            sum,
            number("total") + number("baseline") + number("delay"),
            "{name}"
        );
        assert_eq!(number("baseline") > 0, name == "hlt_pending", "{name}");
    }
}

#[test]
fn comparisons_of_nothing_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let nothing = dir.path().join("nothing");
    let nothing = nothing.to_str().expect("a plain path");
    Said::of(&mut exitpath(&["diff", nothing, nothing])).fails(2, &["no such folder"]);
    Said::of(&mut exitpath(&["diff", nothing])).fails(2, &["two recordings"]);
    Said::of(&mut exitpath(&["diff", "cpuid", "--kernel", "6.1"]))
        .fails(2, &["two --kernel or two --cmdline"]);
}

#[test]
fn a_recording_of_a_measurement_has_no_path() {
    let measured =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/lab-6.1-qemu7.2");
    Said::of(exitpath(&["trace", "--recording"]).arg(measured)).fails(
        2,
        &[
            "has no instructions",
            "`exitpath measure`",
            "`exitpath trace`",
        ],
    );
}

#[test]
fn files_that_cannot_be_written_or_read_are_named_before_anything_boots() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("precious"), "data").expect("a file");
    let place = dir.path().to_str().expect("a plain path");
    let trace = |args: &[&str]| Said::of(exitpath(&["trace", "cpuid"]).args(args));
    trace(&["--out", place]).fails(2, &[place, "not an empty folder", "--out"]);
    for flag in ["--flamegraph", "--perfetto"] {
        trace(&[flag, "/nonexistent/x.svg"]).fails(
            2,
            &["cannot write /nonexistent/x.svg", "a folder that exists"],
        );
    }
    let phases = dir.path().join("phases");
    let phases = phases.to_str().expect("a plain path");
    trace(&["--phases", phases]).fails(2, &["cannot read", phases]);
    fs::write(phases, "some: function\n\nno colon here\n").expect("a file");
    trace(&["--phases", phases]).fails(2, &[phases, "line 3 ", "a phase, a colon, and patterns"]);
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 2);
}

#[test]
fn a_function_that_is_not_on_the_path_is_answered_with_near_names() {
    let Some(lab) = lab() else { return };
    lab.try_to_view(&["cpuid", "--annotate", "kvm_cpiud"])
        .fails(
            2,
            &[
                "cpuid executed no function kvm_cpiud",
                "try one of kvm_cpuid",
            ],
        );
    lab.try_to_view(&["cpuid", "--annotate", "nosuch"])
        .fails(2, &["no function nosuch", "try one of"]);
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["cpuid", "--without", "nosuch"];
    let said = Said::of(&mut trace(&lab.qemu, &args, &dir.path().join("out")));
    said.fails(2, &["no kernel function nosuch is on the path"]);
    assert_eq!(said.stdout, "");
}

#[test]
fn a_kernel_that_hides_its_symbols_is_said_to() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out");
    let args = ["cpuid", "--cmdline", "sysctl.kernel.kptr_restrict=2"];
    Said::of(&mut trace(&lab.qemu, &args, &out)).fails(
        3,
        &["hides the addresses of its symbols", "kernel.kptr_restrict"],
    );
    assert!(!out.exists(), "nothing half-made is left");
}

#[test]
fn a_trace_that_was_cut_short_is_refused() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(&lab.recording).expect("its files").flatten() {
        fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a copy");
    }
    let view = || Said::of(exitpath(&["trace", "--json", "--recording"]).arg(dir.path()));
    assert_eq!(view().status, Some(0));
    for table in ["instructions", "paths", "windows", "symbols", "locations"] {
        let table = dir.path().join(format!("{table}.parquet"));
        let bytes = fs::read(&table).expect("the table");
        fs::write(&table, &bytes[..bytes.len() / 2]).expect("a shorter table");
        let name = table
            .file_name()
            .and_then(|name| name.to_str())
            .expect("its name");
        view().fails(2, &[name, "truncated or altered"]);
        fs::write(&table, &bytes).expect("the table");
    }
    assert_eq!(view().status, Some(0));
}

/// What a kernel does without them: it oopses, waits for what never comes, or its guest does not do
/// as it is told.
#[test]
fn functions_that_the_kernel_needs_are_named() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let without = |function: &str, pieces: &[&str]| {
        let out = dir.path().join(function);
        let args = ["cpuid", "--timeout", "500", "--without", function];
        Said::of(&mut trace(&lab.qemu, &args, &out)).fails(3, pieces);
    };
    let required = "__srcu_read_lock is required";
    without(
        "__srcu_read_lock",
        &["its kernel oopsed", "in __srcu_read_unlock", required],
    );
    without(
        "__srcu_read_lock=0",
        &["does nothing any more", "blocked for more than", required],
    );
    without(
        "kvm_emulate_cpuid",
        &[
            "without kvm_emulate_cpuid: ",
            "kvm_emulate_cpuid is required",
        ],
    );
}
