//! Two conditions in one recording: what is said of each is what its own recording says.

use exitpath_analysis::path::{PathError, PhaseTable, RowPath, diff_paths, trace_rows};
use exitpath_recording::{Condition, Difference, Recording, Symbol};

use crate::build::*;

/// A kernel whose handler calls functions of these names; an empty one has no name in it.
fn kernel(called: &[&str]) -> Recording {
    let mut made = Made::new();
    let handler = made.kernel("svm_handle_exit");
    let mut body = Vec::new();
    let mut at = handler;
    for name in called {
        let function = match *name {
            "" => made.unnamed(),
            name => made.kernel(name),
        };
        body.extend([call(at, function), nop(function), ret(function + 1)]);
        at += CALL;
    }
    body.push(ret(at));
    for _ in 0..3 {
        made.round(made.calling(handler, body.clone()), 1);
    }
    made.recording()
}

/// Both in one recording, the second as condition B of the first's row.
fn side_by_side(a: &Recording, b: &Recording) -> Recording {
    let mut both = a.clone();
    let condition = |name: &str, kernel: &str| Condition {
        name: name.to_owned(),
        differs: vec![Difference::Kernel(kernel.to_owned())],
        ..Condition::base()
    };
    both.manifest.conditions = vec![condition("A", "6.1.0"), condition("B", "6.12.0")];
    both.runs[0].condition = "A".to_owned();
    let mut run = b.runs[0].clone();
    run.id = 8;
    run.condition = "B".to_owned();
    both.runs.push(run);
    let of = |name: &str, symbols: Vec<Symbol>| -> Vec<Symbol> {
        let symbols = symbols.into_iter().map(|symbol| Symbol {
            condition: Some(name.to_owned()),
            ..symbol
        });
        symbols.collect()
    };
    let (trace, mut other) = (both.trace.as_mut().unwrap(), b.trace.clone().unwrap());
    let (instructions, paths) = (trace.instructions.len() as u32, trace.paths.len() as u32);
    trace.instructions.append(&mut other.instructions);
    for path in &mut other.paths {
        path.blocks
            .iter_mut()
            .for_each(|block| block.first += instructions);
    }
    trace.paths.append(&mut other.paths);
    for window in &mut other.windows {
        window.run = 8;
        window
            .segments
            .iter_mut()
            .for_each(|segment| segment.path += paths);
    }
    trace.windows.append(&mut other.windows);
    trace.symbols = of("A", std::mem::take(&mut trace.symbols));
    trace.symbols.extend(of("B", other.symbols));
    both
}

fn paths(recording: &Recording) -> Vec<RowPath> {
    trace_rows(recording, &PhaseTable::default()).unwrap()
}

/// What is told of a row's functions.
fn told(row: &RowPath) -> Vec<(String, u64, u64)> {
    let functions = row.functions.iter();
    let told = functions.map(|f| (f.name.clone(), f.own.all, f.calls.all));
    told.collect()
}

#[test]
fn an_address_has_the_name_that_its_condition_gives_it() {
    // At one address: another function, code without a name, and what the other one calls.
    let (a, b) = (kernel(&["f", "", "g"]), kernel(&["", "other", ""]));
    let both = side_by_side(&a, &b);
    let under = |name: &str| both.under(name).expect("it is there");
    assert_eq!(told(&paths(&under("A"))[0]), told(&paths(&a)[0]));
    assert_eq!(told(&paths(&under("B"))[0]), told(&paths(&b)[0]));
    assert_ne!(told(&paths(&a)[0]), told(&paths(&b)[0]));
    // Of all of it a row is its first condition's.
    let first = paths(&both);
    assert_eq!((first.len(), told(&first[0])), (1, told(&paths(&a)[0])));
}

#[test]
fn two_conditions_differ_as_their_own_recordings_do() {
    let (a, b) = (kernel(&["f", "", "g"]), kernel(&["", "other", ""]));
    let both = side_by_side(&a, &b);
    let diff = |a: &Recording, b: &Recording| diff_paths(a, b, &PhaseTable::default()).unwrap();
    let apart = diff(&a, &b);
    let together = diff(&both.under("A").unwrap(), &both.under("B").unwrap());
    assert_eq!(together.rows, apart.rows);
    assert!(!apart.rows[0].functions.is_empty());
}

#[test]
fn a_window_of_no_run_is_an_error_under_conditions_too() {
    let mut both = side_by_side(&kernel(&["f"]), &kernel(&["g"]));
    both.runs.retain(|run| run.id == 7);
    let error = trace_rows(&both, &PhaseTable::default());
    assert_eq!(error, Err(PathError::Run { run: 8 }));
}
