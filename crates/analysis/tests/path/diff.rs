//! Two recordings' paths side by side.

use exitpath_analysis::path::diff::{Change, FunctionDiff, Verdict};
use exitpath_analysis::path::{Incomparable, PathDiff, PathError, PhaseTable, diff_paths};
use exitpath_recording::{Machine, Recording};

use crate::build::*;

/// A kernel whose handler has so many NOPs and calls functions of these names.
fn kernel(nop_count: u64, called: &[&str]) -> Recording {
    let mut made = Made::new();
    let handler = made.kernel("svm_handle_exit");
    let mut body = nops(handler, nop_count);
    let mut at = handler + nop_count;
    for name in called {
        let function = made.kernel(name);
        body.extend([call(at, function), nop(function), ret(function + 1)]);
        at += CALL;
    }
    body.push(ret(at));
    for _ in 0..3 {
        made.round(made.calling(handler, body.clone()), 1);
    }
    made.recording()
}

fn diff(a: &Recording, b: &Recording) -> PathDiff {
    diff_paths(a, b, &PhaseTable::default()).unwrap()
}

fn changed<'a>(diff: &'a PathDiff, name: &str) -> &'a FunctionDiff {
    let functions = &diff.rows[0].functions;
    let found = functions.iter().find(|function| function.name == name);
    found.unwrap_or_else(|| panic!("{name} is not among {functions:?}"))
}

#[test]
fn a_recording_is_the_same_as_itself() {
    let a = kernel(4, &["f"]);
    let diff = diff(&a, &a);
    assert_eq!(diff.verdict, Verdict::Same);
    assert_eq!((diff.rows[0].delta, diff.rows[0].seeds_agreeing), (0, 1));
    assert!(diff.rows[0].functions.is_empty() && diff.notes.is_empty());
}

#[test]
fn what_changed_is_told_by_phase_and_function() {
    let a = kernel(4, &["f", "gone"]);
    let mut b = kernel(9, &["f", "new", "newer"]);
    b.manifest.environment.kernel = "6.12.0".to_owned();
    b.manifest.environment.cmdline = "mitigations=off".to_owned();
    let diff = diff(&a, &b);
    assert_eq!(diff.verdict, Verdict::Different);
    assert_eq!(
        diff.notes,
        [
            "kernel: 6.1.0 in A, 6.12.0 in B",
            "command line: quiet in A, mitigations=off in B",
        ]
    );
    let row = &diff.rows[0];
    assert_eq!(row.delta, row.b as i64 - row.a as i64);
    // Five NOPs; a call and two instructions.
    assert_eq!((row.delta, row.unexplained), (8, 0));
    assert_eq!(row.functions[0].name, "svm_handle_exit");
    assert_eq!((row.functions[0].a, row.functions[0].delta), (7, 6));
    assert_eq!(row.functions[0].total, (11, 19));
    assert_eq!(changed(&diff, "gone").change, Change::Gone);
    assert_eq!(changed(&diff, "gone").delta, -2);
    assert_eq!(changed(&diff, "new").change, Change::New);
    assert!(row.functions.iter().all(|function| function.name != "f"));
    let phase = row.phases.iter().find(|phase| phase.name == "exit handler");
    assert_eq!(phase.map(|phase| phase.delta), Some(8));
    let sum: i64 = row.phases.iter().map(|phase| phase.delta).sum();
    assert_eq!(sum, 8);
}

#[test]
fn what_a_compiler_appends_does_not_matter() {
    let a = kernel(4, &["f.isra.0", "g", "h.constprop.0"]);
    let b = kernel(4, &["f", "g.part.0", "h.constprop.1"]);
    assert_eq!(diff(&a, &b).verdict, Verdict::Same);
    let b = kernel(4, &["f", "g.part.0", "h.constprop.1", "h.constprop.2"]);
    let told = diff(&a, &b);
    assert_eq!((changed(&told, "h").a, changed(&told, "h").b), (2, 4));
    assert_eq!(changed(&told, "h").change, Change::Changed);
}

#[test]
fn equal_totals_by_other_functions_are_different() {
    let (a, b) = (kernel(4, &["f"]), kernel(4, &["g"]));
    let diff = diff(&a, &b);
    assert_eq!((diff.rows[0].delta, diff.verdict), (0, Verdict::Different));
}

#[test]
fn seeds_are_compared_one_by_one() {
    let seeds = |nops: [u64; 3]| {
        let mut all: Option<Recording> = None;
        for (seed, nops) in (1..).zip(nops) {
            let mut one = kernel(nops, &[]);
            one.runs[0].id = seed as u32;
            one.runs[0].seed = Some(seed);
            match &mut all {
                None => all = Some(one),
                Some(all) => join(all, one, seed),
            }
        }
        let mut all = all.unwrap();
        all.trace.as_mut().unwrap().windows[0].run = 1;
        all.manifest.environment.seeds = vec![1, 2, 3];
        all
    };
    let diff = diff(&seeds([4, 4, 5]), &seeds([5, 6, 7]));
    let row = &diff.rows[0];
    let deltas: Vec<i64> = row.seeds.iter().map(|seed| seed.delta).collect();
    assert_eq!(deltas, [1, 2, 2]);
    assert_eq!((row.delta, row.seeds_agreeing), (2, 2));
}

/// Adds another recording's only run.
fn join(all: &mut Recording, one: Recording, run: u64) {
    let (trace, mut other) = (all.trace.as_mut().unwrap(), one.trace.unwrap());
    let (ids, paths) = (trace.instructions.len() as u32, trace.paths.len() as u32);
    trace.instructions.append(&mut other.instructions);
    for mut path in other.paths {
        path.blocks.iter_mut().for_each(|block| block.first += ids);
        trace.paths.push(path);
    }
    for mut window in other.windows {
        window.run = run as u32;
        window
            .segments
            .iter_mut()
            .for_each(|segment| segment.path += paths);
        trace.windows.push(window);
    }
    all.runs.extend(one.runs);
}

fn refused(change: impl Fn(&mut Recording)) -> String {
    let a = kernel(4, &[]);
    let mut b = a.clone();
    change(&mut b);
    let error = diff_paths(&a, &b, &PhaseTable::default()).unwrap_err();
    assert!(matches!(error, Incomparable::Differ(_)));
    error.to_string()
}

#[test]
fn what_must_not_differ_is_named() {
    let words = refused(|b| b.manifest.environment.cpu = "EPYC-Rome".to_owned());
    assert_eq!(
        words,
        "the two recordings cannot be compared: CPU model: EPYC-Milan in A, EPYC-Rome in B; record one of them again"
    );
    assert!(
        refused(|b| b.manifest.environment.qemu = Some("10.0.2".to_owned()))
            .contains("QEMU: 7.2.22 in A, 10.0.2 in B")
    );
    assert!(
        refused(|b| b.manifest.environment.seeds = vec![1, 2]).contains("seeds: 1 in A, 1, 2 in B")
    );
    assert!(refused(|b| b.manifest.environment.cpus = 2).contains("CPUs: 1 in A, 2 in B"));
    assert!(refused(|b| b.manifest.machine = Machine::Host).contains("B is not from the lab"));
    let words = refused(|b| b.runs[0].row = "other".to_owned());
    assert!(
        words.contains("only A has row (seed 1, CPUs 1); only B has other (seed 1, CPUs 1)"),
        "{words}"
    );
    assert!(refused(|b| b.runs[0].cpus = 2).contains("only B has row (seed 1, CPUs 2)"));
}

#[test]
fn a_recording_without_a_trace_is_named() {
    let a = kernel(4, &[]);
    let mut b = a.clone();
    b.trace = None;
    assert_eq!(
        diff_paths(&a, &b, &PhaseTable::default()),
        Err(Incomparable::Path {
            which: 'B',
            error: PathError::NoTrace
        })
    );
}
