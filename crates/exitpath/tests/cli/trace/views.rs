//! What is shown of a recording, without any lab.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{lab, list, number, the};
use crate::common::{Said, exitpath};

#[test]
fn a_recording_shows_what_the_tracing_command_showed() {
    let Some(lab) = lab() else { return };
    assert_eq!(lab.view(&["--json"]), lab.said.stdout);
    // An object for one row.
    let one: Value = serde_json::from_str(&lab.view(&["cpuid", "--json"])).expect("JSON");
    assert_eq!(one, lab.row("cpuid"));
    let text = lab.view(&[]);
    for words in ["cpuid: ", "inl_from_qemu: ", "= residual", "svm_vcpu_run"] {
        assert!(text.contains(words), "no '{words}' in {text}");
    }
    // Functions that are left out of the table are in it with --all.
    assert!(text.contains("… and"), "{text}");
    let all = lab.view(&["cpuid", "--all"]);
    let functions = list(&one, "functions").iter();
    for function in functions.filter(|function| function["space"] == "kernel") {
        let name = function["name"].as_str().expect("a name");
        assert!(all.contains(&format!(" {name} ")), "no {name} in {all}");
    }
    assert!(!all.contains("… and"), "{all}");
    lab.try_to_view(&["inl_from_kernel"])
        .fails(2, &["has no trace of inl_from_kernel"]);
}

/// Of a recording in which functions were patched out the saving is shown, unless something is asked for
/// that it has not.
#[test]
fn what_is_asked_for_of_two_conditions_is_shown() {
    let recorded =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/without-6.1-qemu7.2");
    let recorded = recorded.to_str().expect("a path");
    let shown = |options: &[&str]| {
        let arguments = [&["trace", "--recording", recorded], options].concat();
        Said::of(&mut exitpath(&arguments))
    };
    let saved = shown(&[]);
    assert!(saved.stdout.contains("expected") && !saved.stdout.contains("module"));
    let all = shown(&["--all"]);
    assert!(all.stdout.contains("kvm_pmu_trigger_event") && all.stdout.contains("module"));
    assert!(
        all.stderr.contains("under the condition 'base'"),
        "{}",
        all.stderr
    );
}

#[test]
fn a_tree_has_every_instruction_once() {
    let Some(lab) = lab() else { return };
    let own = |tree: &str| -> i64 {
        let nodes = tree.lines().filter(|line| line.contains("── "));
        nodes
            .map(|line| {
                let first = line.split_whitespace().next().expect("a number");
                first.replace(',', "").parse::<i64>().expect("a number")
            })
            .sum()
    };
    let total = number(&lab.row("cpuid"), "total");
    let tree = lab.view(&["cpuid", "--tree"]);
    assert_eq!(own(&tree), total);
    let short = lab.view(&["cpuid", "--tree", "--min", "200"]);
    assert!(
        short.contains("svm_vcpu_run") && tree.contains("kvm_get_cr8"),
        "{short}"
    );
    assert!(!short.contains("kvm_get_cr8"), "{short}");
}

#[test]
fn an_annotated_function_has_its_own_instructions() {
    let Some(lab) = lab() else { return };
    let path = lab.row("cpuid");
    for name in ["kvm_cpuid", "svm_vcpu_run"] {
        let function = the(list(&path, "functions"), "name", name);
        let text = lab.view(&["cpuid", "--annotate", name]);
        assert!(text.contains(&format!("{name} [")), "{text}");
        let times: i64 = text
            .lines()
            .filter(|line| line.contains(" +0x"))
            .map(|line| {
                let first = line.split_whitespace().next().expect("a number");
                first.replace(',', "").parse::<i64>().unwrap_or(0)
            })
            .sum();
        assert_eq!(times, number(function, "self"), "{text}");
    }
}

#[test]
fn folded_stacks_add_up_to_the_total() {
    let Some(lab) = lab() else { return };
    for row in super::ROWS {
        let folded = lab.view(&[row, "--folded"]);
        let sum: i64 = folded
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(_, count)| count.parse::<i64>().expect("a count"))
            .sum();
        assert_eq!(sum, number(&lab.row(row), "total"), "{row}: {folded}");
    }
}

#[test]
fn pictures_are_files_that_can_be_read() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let [svg, timeline] = ["path.svg", "path.json"].map(|name| dir.path().join(name));
    lab.view(&[
        "inl_from_qemu",
        "--flamegraph",
        svg.to_str().expect("a plain path"),
        "--perfetto",
        timeline.to_str().expect("a plain path"),
    ]);
    let drawn = fs::read_to_string(svg).expect("a picture");
    assert!(drawn.contains("<svg") && drawn.trim_end().ends_with("</svg>"));
    assert!(drawn.contains("svm_vcpu_run"));
    let timeline = fs::read_to_string(timeline).expect("a timeline");
    let timeline: Value = serde_json::from_str(&timeline).expect("JSON");
    let total = number(&lab.row("inl_from_qemu"), "total");
    assert_eq!(number(&timeline["otherData"], "total"), total);
    let events = list(&timeline, "traceEvents");
    the(events, "name", "svm_vcpu_run");
    let ends = events
        .iter()
        .filter(|event| event["ph"] == "X")
        .map(|event| number(event, "ts") + number(event, "dur"));
    assert_eq!(ends.max(), Some(total), "an instruction to the microsecond");
}

#[test]
fn the_table_of_phases_is_listed_and_can_be_overruled() {
    let listed = Said::of(&mut exitpath(&["trace", "--list-phases"]));
    assert_eq!(listed.status, Some(0), "{}", listed.stderr);
    for line in ["guest: ", "exit handler: ", "entry/exit assembly: "] {
        assert!(listed.stdout.lines().any(|l| l.starts_with(line)), "{line}");
    }
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("phases");
    // What is listed is what is built in: saying it again changes nothing.
    let show = |text: &str| -> Value {
        fs::write(&file, text).expect("a file");
        let file = file.to_str().expect("a plain path");
        let view = lab.view(&["cpuid", "--json", "--phases", file]);
        serde_json::from_str(&view).expect("JSON")
    };
    let before = lab.row("cpuid");
    assert_eq!(show(&listed.stdout), before);

    let after = show("# one function\nleaf table: kvm:kvm_cpuid # and what it calls\n");
    let of = |path: &Value, phase| number(the(list(path, "phases"), "name", phase), "instructions");
    let moved = of(&after, "leaf table");
    let function = the(list(&before, "functions"), "name", "kvm_cpuid");
    assert_eq!(moved, number(function, "total"));
    assert_eq!(
        of(&before, "exit handler") - of(&after, "exit handler"),
        moved
    );
    let function = the(list(&after, "functions"), "name", "kvm_cpuid");
    assert_eq!(function["phase"], "leaf table");
}
