//! The ladder, on a real kernel in the lab, and what is refused.

use exitpath_recording::Outcome;
use exitpath_testing::{Need, skipped};
use serde_json::Value;

use crate::common::{Said, exitpath, installed_qemu, linux_6_1};
use crate::host::kvm_opens;

#[track_caller]
fn rung<'a>(ladder: &'a Value, name: &str) -> &'a Value {
    let rungs = ladder["rungs"].as_array().expect("rungs");
    let found = rungs.iter().find(|rung| rung["name"] == name);
    found.unwrap_or_else(|| panic!("no rung {name} in {ladder}"))
}

#[track_caller]
fn number(object: &Value, field: &str) -> f64 {
    let number = object[field].as_f64();
    number.unwrap_or_else(|| panic!("no {field} in {object}"))
}

/// What functions changed, all together.
#[track_caller]
fn in_functions(functions: &Value) -> f64 {
    let functions = functions.as_array().expect("functions");
    functions.iter().map(|change| number(change, "delta")).sum()
}

/// The rungs that all_on is made of, each with the rung that has all of it but this layer.
const PARTS: [(&str, &str); 6] = [
    ("kvm_ioctls", "bare"),
    ("signal_mask", "bare"),
    ("regs_sregs_xsave", "bare"),
    ("mirror_fields", "sync_in"),
    ("tree_by_path", "bare"),
    ("lock_global", "bare"),
];

/// Each line of an annotated function that is an instruction: how often it ran.
fn times(text: &str) -> Vec<u64> {
    let lines = text.lines().filter(|line| line.contains("0x"));
    lines
        .filter_map(|line| {
            line.split_whitespace()
                .next()?
                .replace(',', "")
                .parse()
                .ok()
        })
        .collect()
}

/// Whether the program is the release build, of which alone it makes sense to say how lean it is.
fn is_optimised() -> bool {
    let named = std::env::var_os("EXITPATH_BIN").is_some();
    if !named {
        let why = "EXITPATH_BIN names no release build, and cargo's own is not lean";
        skipped(Need::Build, why);
    }
    named
}

#[test]
fn each_layer_is_explained_to_the_function_and_the_leanest_vmm_is_lean() {
    let Some(qemu) = installed_qemu() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("ladder");
    let mut command = exitpath(&["userspace", "all_on", "mirror_block", "preempted", "--json"]);
    command.args(["--on", "lab", "--seed", "1", "--samples", "30", "--qemu"]);
    let said = Said::of(command.arg(&qemu).arg("--out").arg(&out));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let ladder = said.json();
    assert_eq!(
        (&ladder["machine"], &ladder["unit"]),
        (&"lab".into(), &"instructions".into())
    );

    for rung in ladder["rungs"].as_array().expect("rungs") {
        let verdict = rung["verdict"].as_str().expect("a verdict");
        assert!(["clean", "usable"].contains(&verdict), "{rung}");
        // Where KVM's buffers for XSAVE lie, some exits take a few instructions more: the median sample
        // may not be the round that occurs most.
        let allowed = match rung["name"].as_str() {
            Some("regs_sregs_xsave" | "all_on") => 16.0,
            _ => 0.0,
        };
        let Some(reference) = rung["reference"].as_str() else {
            continue;
        };
        // The guest's clock says what the values are, the plugin what the functions ran.
        let by_clock = number(rung, "value") - number(self::rung(&ladder, reference), "value");
        let by_path = in_functions(&rung["functions"]);
        assert!((by_clock - by_path).abs() <= allowed, "{rung}");
    }

    // Light and heavy exits.
    let reloads = |name| number(&rung(&ladder, name)["witness"], "host_state_reload");
    assert_eq!((reloads("floor"), reloads("bare")), (0.0, 1.0));
    assert_eq!(
        reloads("regs_sregs_xsave"),
        7.0,
        "each ioctl on the vCPU does"
    );
    let bare = rung(&ladder, "bare");
    assert_eq!(bare["share"]["libc"], 0, "KVM_RUN in line: {bare}");
    if is_optimised() {
        assert!(number(&bare["share"], "vmm") <= 60.0, "{bare}");
    }
    assert!(number(bare, "value") > number(rung(&ladder, "floor"), "value"));
    // A reader of higher priority runs before the guest does.
    let preempted = rung(&ladder, "preempted");
    assert!(number(preempted, "delta") > 1000.0, "{preempted}");
    assert_eq!(preempted["witness"]["wakeups_per_kick"], 1.0, "{preempted}");

    // The layers add up: what the sum says of them is what their rows say, and what the interaction says
    // is in functions.
    let of = |name| number(rung(&ladder, name), "value");
    assert_eq!(number(&ladder, "bare"), of("bare"));
    assert_eq!(number(&ladder, "all_on"), of("all_on"));
    let deltas = PARTS.map(|(part, reference)| of(part) - of(reference));
    let sum: f64 = deltas.iter().sum();
    assert_eq!(number(&ladder, "sum_of_deltas"), sum);
    let interaction = of("all_on") - of("bare") - sum;
    assert!(interaction.abs() < 0.01 * of("all_on"), "{ladder}");
    let by_path = in_functions(&ladder["interaction_functions"]);
    assert!((interaction - by_path).abs() <= 16.0, "{ladder}");

    // The recording is enough to show it again, and has each rung's path: no copy is a loop.
    let shown = Said::of(exitpath(&["show", "--json"]).arg(&out));
    assert_eq!(shown.json(), ladder);
    if !is_optimised() {
        return;
    }
    for (rung, function) in [
        ("mirror_fields", "mirror_fields"),
        ("mirror_fields", "unmirror_fields"),
        ("mirror_block", "mirror_block"),
    ] {
        let function = format!("exitpath_vmm::arch::x86_64::registers::{function}");
        let mut show = exitpath(&["trace", rung, "--annotate", &function, "--recording"]);
        let said = Said::of(show.arg(&out));
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        let times = times(&said.stdout);
        let entered = times.first().copied().unwrap_or(0);
        assert!(entered > 0, "{}", said.stdout);
        assert!(times.iter().all(|&n| n <= entered), "{}", said.stdout);
    }
}

/// Counts and words only: what the figures and verdicts are depends on what else the machine does.
#[test]
fn another_thread_that_calls_kvm_run_makes_the_exit_wait_for_rcu() {
    let Some(qemu) = installed_qemu().filter(|_| linux_6_1()) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("ladder");
    let mut command = exitpath(&["userspace", "other_thread", "--json", "--kernel", "6.1"]);
    command.args(["--on", "lab", "--seed", "1", "--samples", "30", "--qemu"]);
    let said = Said::of(command.arg(&qemu).arg("--out").arg(&out));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let ladder = said.json();
    let (same, other) = (rung(&ladder, "handed_over"), rung(&ladder, "other_thread"));
    assert_eq!(
        (&same["reference"], &other["reference"]),
        (&"bare".into(), &"handed_over".into())
    );

    // Who called: always the same thread, or one and the other in turn.
    let witness = |rung: &Value, name: &str| number(&rung["witness"], name);
    assert_eq!(witness(same, "vmm.thread_changes"), 0.0, "{same}");
    assert_eq!(witness(other, "vmm.thread_changes"), 1.0, "{other}");
    assert!(same["witness"]["vmm.calls_by_thread_2"].is_null(), "{same}");
    for thread in ["vmm.calls_by_thread_1", "vmm.calls_by_thread_2"] {
        let calls = witness(other, thread);
        assert!((0.5..=0.55).contains(&calls), "{thread}: {other}");
    }

    // The wait is no work, and is not called any.
    let idle = number(other, "idle");
    assert!(idle > 1e6 && idle > 0.9 * number(other, "value"), "{other}");
    assert_eq!(number(same, "idle"), 0.0, "{same}");
    let notes = other["notes"].to_string();
    assert!(notes.contains("had nothing to run and halted"), "{notes}");

    let trace = |rung: &str, args: &[&str]| {
        let mut show = exitpath(&["trace", rung, "--recording"]);
        Said::of(show.arg(&out).args(args))
    };
    let said = trace("other_thread", &[]);
    assert!(
        said.stdout.contains("the residual is no work"),
        "{}",
        said.stdout
    );
    let functions = |rung: &str| {
        let path = trace(rung, &["--json"]).json();
        let functions = path["functions"].as_array().expect("functions");
        let names = functions.iter().map(|function| &function["name"]);
        names
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    for name in ["synchronize_rcu", "put_pid", "native_safe_halt"] {
        assert!(
            functions("other_thread").iter().any(|it| it == name),
            "{name}"
        );
        assert!(
            !functions("handed_over").iter().any(|it| it == name),
            "{name}"
        );
    }
}

#[test]
fn several_vcpus_are_measured_on_the_machines_own_kvm() {
    if !kvm_opens() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let rungs = [
        "bare",
        "lock_global",
        "locking_global_1",
        "locking_global_2",
    ];
    let mut command = exitpath(&["userspace", "--json", "--on", "host", "--watchdog", "60"]);
    command
        .args(rungs)
        .args(["--runs", "3", "--samples", "30", "--out"]);
    let out = dir.path().join("ladder");
    let said = Said::of(command.arg(&out));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let ladder = said.json();
    assert_eq!(
        (&ladder["machine"], &ladder["unit"]),
        (&"host".into(), &"ns".into())
    );
    // A void reference has no difference to it, and why it is void is said.
    let (bare, lock) = (rung(&ladder, "bare"), rung(&ladder, "lock_global"));
    let is_void = bare["verdict"] == "void";
    assert_eq!(lock["delta"].is_null(), is_void, "{bare} {lock}");
    assert_eq!(lock["ci95"].is_null(), is_void, "{bare} {lock}");
    for rung in [bare, lock] {
        assert!(rung["value"].is_f64(), "{rung}");
        assert_eq!(rung["witness"]["userspace_exits"], 1.0, "{rung}");
        let notes = rung["notes"].as_array().expect("notes");
        assert_eq!(notes.is_empty(), rung["verdict"] == "clean", "{rung}");
    }
    assert!(
        ladder["sum_of_deltas"].is_null(),
        "nothing to add up: {ladder}"
    );
    let locking = ladder["locking"].as_array().expect("locking");
    assert_eq!(locking.len(), 2);
    for (row, vcpus) in locking.iter().zip([1, 2]) {
        assert_eq!((&row["lock"], &row["n"]), (&"global".into(), &3.into()));
        assert_eq!(row["vcpus"], vcpus);
        // Net of the empty bracket it is less than nothing where that was disturbed.
        assert!(row["per_exit"].is_f64(), "{row}");
        assert!(number(row, "exits_per_unit") > 0.0, "{row}");
    }
    let runs = exitpath_store::read(&out).expect("a recording").runs;
    let locking = runs.iter().filter(|run| run.row.starts_with("locking"));
    for run in locking {
        assert_eq!(run.outcome, Outcome::Done, "{}", run.row);
        assert!(!run.samples.is_empty(), "{}", run.row);
        assert!(run.counters["phase.port_writes"] > 0, "{:?}", run.counters);
    }
}

#[test]
fn rungs_that_are_none_are_answered_with_near_ones() {
    let said = Said::of(&mut exitpath(&["userspace", "signal_mas", "--on", "lab"]));
    said.fails(2, &["no rung", "signal_mas", "signal_mask", "--list"]);
    // A row of the table of exits is no rung.
    let said = Said::of(&mut exitpath(&["userspace", "cpuid", "--on", "lab"]));
    said.fails(2, &["no rung", "cpuid"]);
    let listed = Said::of(&mut exitpath(&["userspace", "--list"]));
    assert_eq!(listed.status, Some(0));
    for name in ["floor", "bare", "all_on", "locking_global_8"] {
        assert!(listed.stdout.contains(name), "{}", listed.stdout);
    }
}
