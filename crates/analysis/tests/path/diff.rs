//! Two recordings' paths side by side.

use exitpath_analysis::path::diff::{Change, FunctionDiff, Side, Verdict};
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

/// Bytes of instructions, one behind the other in a handler.
fn executing(instructions: &[&[u8]]) -> Recording {
    running(0, &[instructions.to_vec()])
}

/// The same in a kernel in which something lies before the handler, and of which the handler has
/// several parts.
fn running(before: usize, parts: &[Vec<&[u8]>]) -> Recording {
    let mut made = Made::new();
    for _ in 0..before {
        made.unnamed();
    }
    let handler = made.kernel("svm_handle_exit");
    let mut body = Vec::new();
    let mut at = handler;
    for part in parts {
        let callee = made.kernel(&format!("part_{}", part.len()));
        body.push(call(at, callee));
        at += CALL;
        let mut inside = callee;
        for &bytes in part {
            body.push(op(inside, bytes));
            inside += bytes.len() as u64;
        }
        body.push(ret(inside));
    }
    body.push(ret(at));
    made.round(made.calling(handler, body), 1);
    made.recording()
}

/// What is told of the only row's instructions: where, A's, B's.
fn instructions(diff: &PathDiff) -> Vec<(u64, String, String)> {
    let told = diff.rows[0].instructions.iter();
    let side = |side: &Option<Side>| {
        side.as_ref()
            .map_or_else(String::new, |side| match side.times {
                1 => side.text.clone(),
                times => format!("{times} × {}", side.text),
            })
    };
    told.map(|diff| {
        let at = diff.a.as_ref().or(diff.b.as_ref()).map(|side| side.offset);
        (at.unwrap(), side(&diff.a), side(&diff.b))
    })
    .collect()
}

const NOPL: &[u8] = &[0x0f, 0x1f, 0x80, 0, 0, 0, 0];
const VERW: &[u8] = &[0x0f, 0x00, 0x2d, 1, 2, 3, 4];

#[test]
fn a_nop_that_became_something_dear_is_told() {
    let (a, b) = (executing(&[&[0x90], NOPL]), executing(&[&[0x90], VERW]));
    let diff = diff(&a, &b);
    let row = &diff.rows[0];
    assert_eq!((diff.verdict, row.delta), (Verdict::Different, 0));
    assert!(row.functions.is_empty() && row.paths_differ() && row.seeds[0].paths_differ);
    let told = instructions(&diff);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, 1);
    assert!(told[0].1.starts_with("nopl "), "{told:?}");
    assert!(told[0].2.starts_with("verw "), "{told:?}");
    assert_eq!(row.instructions[0].function, "part_2");
    assert_eq!(row.instructions[0].module, "vmlinux");
    let classes: Vec<_> = row
        .classes
        .iter()
        .map(|c| (c.class, c.a, c.b, c.delta))
        .collect();
    assert_eq!(classes, [("buffer-clear", 0, 1, 1)]);
}

#[test]
fn what_linking_and_loading_change_is_the_same_path() {
    let here: &[&[u8]] = &[
        &[0x48, 0x8b, 0x05, 1, 0, 0, 0],
        &[0x48, 0x8b, 0x47, 0x10],
        &[0x48, 0xc7, 0xc0, 0, 0, 0, 0x81],
        &[0x66, 0x90],
    ];
    let there: &[&[u8]] = &[
        &[0x48, 0x8b, 0x0d, 2, 0, 0, 0],
        &[0x48, 0x8b, 0x46, 0x18],
        &[0x48, 0xc7, 0xc1, 0, 0, 0, 0x82],
        &[0x66, 0x90],
    ];
    let diff = diff(
        &running(0, &[here.to_vec()]),
        &running(3, &[there.to_vec()]),
    );
    assert_eq!(diff.verdict, Verdict::Same);
    assert!(!diff.rows[0].paths_differ() && diff.rows[0].classes.is_empty());
}

#[test]
fn the_same_instructions_in_another_order_are_another_path() {
    let (one, two): (Vec<&[u8]>, Vec<&[u8]>) = (vec![&[0x90]], vec![&[0x90], &[0x90]]);
    let a = running(0, &[one.clone(), two.clone()]);
    let diff = diff(&a, &running(0, &[two, one]));
    let row = &diff.rows[0];
    assert_eq!((diff.verdict, row.delta), (Verdict::Different, 0));
    assert!(row.reordered && row.instructions.is_empty() && row.functions.is_empty());
}

#[test]
fn what_runs_more_often_while_something_else_runs_less_often_is_told() {
    let repeated = |first: usize, second: usize| {
        let mut made = Made::new();
        let handler = made.kernel("svm_handle_exit");
        let mut body = vec![op(handler, REP_MOVSB); first];
        body.extend(vec![op(handler + 2, REP_MOVSB); second]);
        body.push(ret(handler + 4));
        made.round(made.calling(handler, body), 1);
        made.recording()
    };
    let diff = diff(&repeated(3, 1), &repeated(1, 3));
    assert_eq!((diff.verdict, diff.rows[0].delta), (Verdict::Different, 0));
    let told = instructions(&diff);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].1.starts_with("3 × ") && told[1].2.starts_with("3 × "),
        "{told:?}"
    );
}

#[test]
fn one_instruction_more_is_told_and_a_rewritten_function_is_not() {
    let few: Vec<&[u8]> = vec![&[0x90]; 4];
    let more = [few.clone(), vec![WRMSR]].concat();
    let diff_of = |a: &[&[u8]], b: &[&[u8]]| {
        let of = |instructions: &[&[u8]]| {
            let mut made = Made::new();
            let handler = made.kernel("svm_handle_exit");
            let (mut body, mut at) = (Vec::new(), handler);
            for &bytes in instructions {
                body.push(op(at, bytes));
                at += bytes.len() as u64;
            }
            body.push(ret(at));
            made.round(made.calling(handler, body), 1);
            made.recording()
        };
        diff(&of(a), &of(b))
    };
    let told = diff_of(&few, &more);
    assert_eq!(told.rows[0].delta, 1);
    assert_eq!(
        instructions(&told),
        [(4, String::new(), "wrmsr".to_owned())]
    );
    let many = vec![WRMSR; 40];
    let told = diff_of(&few, &many);
    assert!(told.rows[0].instructions.is_empty());
    assert_eq!(told.rows[0].instructions_left_out, 40);
}

#[test]
fn a_path_that_differs_at_one_seed_only_is_shown() {
    let mut seeds = [executing(&[NOPL]), executing(&[NOPL])];
    let both = |recordings: &mut [Recording; 2]| {
        let mut all = recordings[0].clone();
        all.runs[0].id = 1;
        all.trace.as_mut().unwrap().windows[0].run = 1;
        let mut other = recordings[1].clone();
        (other.runs[0].id, other.runs[0].seed) = (2, Some(2));
        join(&mut all, other, 2);
        all.manifest.environment.seeds = vec![1, 2];
        all
    };
    let a = both(&mut seeds);
    seeds[1] = executing(&[VERW]);
    let diff = diff(&a, &both(&mut seeds));
    let row = &diff.rows[0];
    assert_eq!(
        (diff.verdict, row.delta, row.seeds_agreeing),
        (Verdict::Different, 0, 2)
    );
    let differ: Vec<bool> = row.seeds.iter().map(|seed| seed.paths_differ).collect();
    assert_eq!(differ, [false, true]);
    assert_eq!(row.instructions.len(), 1);
}
