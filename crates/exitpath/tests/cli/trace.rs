//! Traced paths of exits, from a real kernel in the lab. Every assertion is on counts and words.
//!
//! Most tests look at one recording, which is made once.

mod compare;
mod reasons;
mod refusals;
mod two_cpus;
mod views;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::common::{Said, exitpath, installed_qemu, kernel, qemus, row};

/// An exit that the kernel handles, and one that user space does.
const ROWS: [&str; 2] = ["cpuid", "inl_from_qemu"];

/// What the tests trace on, and a recording made on it.
struct Lab {
    qemu: PathBuf,
    /// The kernel's release, which names it.
    release: &'static str,
    /// Its bzImage.
    image: &'static Path,
    /// The folder of its modules.
    modules: &'static Path,
    /// [`ROWS`], traced with seed 1.
    recording: PathBuf,
    /// What the tracing command printed: JSON.
    said: Said,
}

/// The lab with its recording, made by whoever asks first; says what is skipped where there is none.
fn lab() -> Option<&'static Lab> {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let (qemu, kernel) = (installed_qemu()?, kernel()?);
    let lab = LAB.get_or_init(|| {
        // Statics are not dropped, so no folder that removes itself.
        let recording = Path::new(env!("CARGO_TARGET_TMPDIR")).join("traced");
        let _ = std::fs::remove_dir_all(&recording);
        let said = Said::of(trace(&qemu, &ROWS, &recording).arg("--json"));
        let modules = kernel.modules.as_deref().and_then(Path::parent);
        Lab {
            qemu,
            release: kernel.release.as_deref().expect("a release"),
            image: &kernel.bzimage,
            modules: modules.expect("a folder of modules"),
            recording,
            said,
        }
    });
    assert_eq!(lab.said.status, Some(0), "{}", lab.said.stderr);
    Some(lab)
}

/// Traces with seed 1 on the lab's own kernel.
fn trace(qemu: &Path, args: &[&str], out: &Path) -> Command {
    let mut command = exitpath(&["trace", "--rounds", "100", "--seed", "1"]);
    command.args(args).arg("--qemu").arg(qemu);
    command.arg("--out").arg(out);
    command
}

impl Lab {
    /// The traced row, as the tracing command printed it.
    #[track_caller]
    fn row(&self, name: &str) -> Value {
        let rows = self.said.json();
        let rows = rows.as_array().expect("an array for two rows");
        let found = rows.iter().find(|row| row["row"] == name);
        found.unwrap_or_else(|| panic!("no {name}")).clone()
    }

    /// Views the recording, which has to work.
    #[track_caller]
    fn view(&self, args: &[&str]) -> String {
        let said = self.try_to_view(args);
        assert_eq!(said.status, Some(0), "{args:?}: {}", said.stderr);
        said.stdout
    }

    fn try_to_view(&self, args: &[&str]) -> Said {
        let mut command = exitpath(&["trace", "--recording"]);
        Said::of(command.arg(&self.recording).args(args))
    }
}

fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    let list = object[name].as_array();
    list.unwrap_or_else(|| panic!("no list {name} in {object}"))
}

fn number(object: &Value, name: &str) -> i64 {
    let number = object[name].as_i64();
    number.unwrap_or_else(|| panic!("no number {name} in {object}"))
}

fn sum(objects: &[Value], name: &str) -> i64 {
    objects.iter().map(|object| number(object, name)).sum()
}

/// The object whose field has this value.
#[track_caller]
fn the<'a>(objects: &'a [Value], field: &str, value: &str) -> &'a Value {
    let found = objects.iter().find(|object| object[field] == value);
    found.unwrap_or_else(|| panic!("no {field} {value}"))
}

#[test]
fn the_plugin_changes_nothing_that_is_measured() {
    let Some(lab) = lab() else { return };
    for (major, qemu) in qemus() {
        let dir = tempfile::tempdir().expect("a folder");
        let recorded = ["absent", "idles", "records"].map(|plugin| {
            if plugin == "records" && qemu == lab.qemu {
                return lab.recording.clone();
            }
            let out = dir.path().join(plugin);
            let args = [&ROWS[..], &["--plugin", plugin]].concat();
            let said = Said::of(&mut trace(&qemu, &args, &out));
            assert_eq!(said.status, Some(0), "{}", said.stderr);
            out
        });
        for table in ["samples.parquet", "counters.parquet"] {
            let [absent, idles, records] = recorded
                .each_ref()
                .map(|out| std::fs::read(out.join(table)).expect("a table"));
            assert!(absent == idles, "QEMU {major}: {table} with an idle plugin");
            assert!(absent == records, "QEMU {major}: {table} while it records");
        }
        // It did record, and only then; and there was something to measure.
        let has = recorded
            .each_ref()
            .map(|out| out.join("instructions.parquet").exists());
        assert_eq!(has, [false, false, true], "QEMU {major}");
        let shown = Said::of(exitpath(&["show", "--json"]).arg(&recorded[0])).json();
        for name in ROWS {
            let row = row(&shown, name);
            assert!(row["median"].as_f64() > Some(1000.0), "{row}");
        }
    }
}

#[test]
fn every_instruction_is_in_one_phase_and_in_one_function() {
    let Some(lab) = lab() else { return };
    let shown = Said::of(exitpath(&["show", "--json"]).arg(&lab.recording)).json();
    for name in ROWS {
        let path = lab.row(name);
        assert_eq!(path["unit"], "instructions");
        assert_eq!(path["rounds"], 100);
        assert_eq!(path["seed"], 1);
        assert_eq!(path["environment"]["seeds"], serde_json::json!([1]));
        assert_eq!(path["environment"]["cpu"], "EPYC-Milan");

        let total = number(&path, "total");
        let (phases, functions) = (list(&path, "phases"), list(&path, "functions"));
        assert_eq!(sum(phases, "instructions"), total, "{name}: phases");
        assert_eq!(sum(functions, "self"), total, "{name}: functions");
        let (timed, intercepted) = (number(&path, "guest_timed"), number(&path, "intercepted"));
        assert_eq!(number(&path, "residual"), 0, "{name}");
        assert_eq!(total - timed - intercepted, 0, "{name}");
        assert_eq!(intercepted, 1, "{name}: the operation itself");
        assert_eq!(number(&path, "rounds_with_residual"), 0, "{name}");
        // What the guest measured, without any instruction having been counted.
        let median = row(&shown, name)["median"].as_f64();
        assert_eq!(median, Some(timed as f64), "{name}");

        let lean = number(&path, "total_without_skip_emulation");
        let artefacts = list(&path, "emulated_cpu_artefacts");
        assert_eq!(sum(artefacts, "instructions"), total - lean, "{name}");
        assert!(
            artefacts
                .iter()
                .all(|artefact| artefact["what"].is_string())
        );

        let variants = list(&path, "variants");
        assert_eq!(sum(variants, "rounds"), 100, "{name}: {variants:?}");
        assert_eq!(number(&variants[0], "total"), total);
        assert_eq!(variants[0]["differs_by"], "");

        for function in functions {
            assert!(function["name"].is_string() && function["module"].is_string());
            assert!(
                number(function, "self") <= number(function, "total"),
                "{function}"
            );
            assert!(number(function, "total") <= total && number(function, "calls") >= 0);
        }
        for (function, module) in [
            ("svm_vcpu_run", "kvm_amd"),
            ("__svm_vcpu_run", "kvm_amd"),
            ("svm_handle_exit", "kvm_amd"),
            ("kvm_arch_vcpu_ioctl_run", "kvm"),
        ] {
            assert_eq!(the(functions, "name", function)["module"], module);
        }
        for class in list(&path, "classes") {
            assert!(class["class"].is_string(), "{class}");
            let shares = list(class, "functions");
            assert_eq!(sum(shares, "count"), number(class, "count"), "{class}");
        }
        let unknown = phases.iter().find(|phase| phase["name"] == "other");
        let unknown = unknown.map_or(0, |phase| number(phase, "instructions"));
        assert!(
            unknown * 50 <= total,
            "{name}: {unknown} of {total} are for nothing known"
        );
    }
}

#[test]
fn an_exit_to_user_space_is_traced_through_it() {
    let Some(lab) = lab() else { return };
    let (kernel, user) = (lab.row("cpuid"), lab.row("inl_from_qemu"));
    let of_user_space = [
        "VMM",
        "libc",
        "system call entry",
        "return to user space",
        "vcpu load/put",
    ];
    for phase in of_user_space {
        let phase = the(list(&user, "phases"), "name", phase);
        assert!(number(phase, "instructions") > 0, "{phase}");
        let without = list(&kernel, "phases");
        assert!(
            without.iter().all(|other| other["name"] != phase["name"]),
            "{phase}"
        );
    }
    let own = |path: &Value| -> i64 {
        let functions = list(path, "functions").iter();
        let of_program = functions.filter(|function| function["module"] == "exitpath");
        of_program.map(|function| number(function, "self")).sum()
    };
    assert!(own(&user) > 0);
    assert_eq!(own(&kernel), 0);
    let run = the(
        list(&user, "functions"),
        "name",
        "exitpath_vmm::vcpu::Vcpu::run",
    );
    assert_eq!(run["space"], "user");
    // KVM_RUN returns once and is called again.
    let ioctl = the(list(&user, "functions"), "name", "__x64_sys_ioctl");
    assert_eq!(number(ioctl, "calls"), 1);
}

/// Functions on the way that the guest can do without and whose callers do not care.
const SPARE: [&str; 6] = [
    "kvm_pmu_trigger_event",
    "kvm_wait_lapic_expire",
    "kvm_load_host_xsave_state",
    "kvm_load_guest_xsave_state",
    "x86_virt_spec_ctrl",
    "fpregs_assert_state_consistent",
];

#[test]
fn functions_patched_out_save_what_the_trace_says_they_take() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["cpuid", "--without", &SPARE.join(",")];
    let said = Said::of(&mut trace(&lab.qemu, &args, &dir.path().join("out")));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let mut lines = said.stdout.lines().rev();
    let with_them = lines
        .next()
        .and_then(|line| line.strip_prefix("recording: "));
    let with_them = with_them.unwrap_or_else(|| panic!("no recording: {}", said.stdout));
    let summary = lines.next().expect("a line");
    let view = |args: &[&str]| {
        let said = Said::of(exitpath(&["trace", "--recording", with_them, "cpuid"]).args(args));
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        said
    };
    // Worked out from the recording with them. What is left of a call: a return, and before ftrace's
    // NOP of five bytes what stands for ENDBR64, where the kernel has it.
    let path = view(&["--json"]).json();
    let mut expected = 0;
    for name in SPARE {
        let function = the(list(&path, "functions"), "name", name);
        let (calls, total) = (number(function, "calls"), number(function, "total"));
        let nop_is_second = view(&["--annotate", name]).stdout.contains(" +0x4 ");
        let left = if nop_is_second { 2 * calls } else { calls };
        assert!(calls > 0 && total > left, "{function}");
        expected += total - left;
        let line = format!("cpuid: {name} calls {calls} × (");
        assert!(
            said.stdout.contains(&line),
            "no '{line}' in {}",
            said.stdout
        );
    }
    let before = number(&path, "guest_timed");
    assert_eq!(
        summary,
        format!(
            "cpuid: {before} -> {}: saved {expected}, expected {expected}, \
             the rest of the path changed by 0 [seed 1]",
            before - expected
        ),
        "nothing but the place follows, so no other function changed"
    );
    // Either can be looked at by itself, and that there is another one is said.
    let without = format!("{with_them}@without {}", SPARE.join(", "));
    let said = Said::of(&mut exitpath(&["trace", "--json", "--recording", &without]));
    assert_eq!(number(&said.json(), "guest_timed"), before - expected);
    let said = Said::of(&mut exitpath(&["show", with_them]));
    assert!(
        said.stderr.contains("under the condition 'base'"),
        "{}",
        said.stderr
    );
    let none = Said::of(&mut exitpath(&["show", &format!("{with_them}@nosuch")]));
    none.fails(2, &["no condition 'nosuch'", &without]);
    // Both conditions are in the recording, for a program too.
    let again = Said::of(&mut exitpath(&[
        "trace",
        "--json",
        "--recording",
        with_them,
    ]))
    .json();
    let names: Vec<&str> = list(&again, "conditions")
        .iter()
        .filter_map(|condition| condition["name"].as_str())
        .collect();
    assert_eq!(names, ["base", &format!("without {}", SPARE.join(", "))]);
    let row = &list(&again, "rows")[0];
    let figures = ["before", "saved", "expected", "rest", "seeds_agreeing"];
    assert_eq!(
        figures.map(|figure| number(row, figure)),
        [before, expected, expected, 0, 1]
    );
}

/// What it returns is then whatever was in the register: there seems to be a timer pending.
#[test]
fn a_path_that_reacts_to_a_missing_function_shows_how() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["cpuid", "--without", "kvm_cpu_has_pending_timer"];
    let said = Said::of(&mut trace(&lab.qemu, &args, &dir.path().join("out")));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let (summary, reaction) = said
        .stdout
        .split_once("the rest of the path changed by ")
        .unwrap_or_else(|| panic!("no summary: {}", said.stdout));
    assert!(summary.contains("saved -"), "{}", said.stdout);
    let mut lines = reaction.lines();
    let changed = lines.next().and_then(|line| line.split(' ').next());
    let changed: i64 = changed.and_then(|n| n.parse().ok()).expect("a number");
    let others: Vec<(&str, i64)> = lines
        .take_while(|line| !line.starts_with("recording"))
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(name, change)| (name, change.parse().expect("a number")))
        .collect();
    assert!(changed > 0, "{}", said.stdout);
    let sum: i64 = others.iter().map(|(_, change)| change).sum();
    assert_eq!(sum, changed, "the functions explain all of it: {others:?}");
    let new = others
        .iter()
        .find(|(name, _)| *name == "kvm_inject_pending_timer_irqs");
    assert!(new.is_some_and(|(_, change)| *change > 0), "{others:?}");
}
