//! `exitpath diff`: what two traces differ in.

use std::path::Path;

use exitpath_analysis::path::diff::{PathDiff, diff_paths};
use exitpath_exits::Row;
use exitpath_lab::plugin::Plugin;
use exitpath_recording::Recording;
use exitpath_report::{json, markdown, text};

use crate::cli::{Diff, LabOptions, TraceOptions};
use crate::failure::Failure;
use crate::lab::Prepared;
use crate::trace::{self, Job};
use crate::{interrupt, lab, output, rows};

/// Seconds a traced guest may go without progress.
const WATCHDOG: u64 = 20;

pub(crate) fn run(args: &Diff) -> Result<(), Failure> {
    let phases = trace::phases(args.phases.as_deref())?;
    let [a, b] = recordings(args)?;
    let (of_a, of_b) = (&a.manifest, &b.manifest);
    let diff = match diff_paths(&a, &b, &phases) {
        Ok(diff) => diff,
        Err(why) => {
            if args.json {
                output::print(&json::incomparable(of_a, of_b, &why).render())?;
            }
            return Err(Failure::Usage(why.to_string()));
        }
    };
    let shown = if args.all {
        text::Functions::All
    } else {
        text::Functions::default()
    };
    let rendered = if args.json {
        json::diff(of_a, of_b, &diff).render()
    } else if args.markdown {
        markdown::diff(of_a, of_b, &diff, shown)
    } else {
        text::diff(of_a, of_b, &diff, shown).laid_out(&output::style())
    };
    output::print(&rendered)?;
    match args.gate {
        Some(allowed) if grew(&diff, allowed) => Err(Failure::Check),
        _ => Ok(()),
    }
}

/// Whether a row takes more instructions than before by more than is allowed.
pub(crate) fn grew(diff: &PathDiff, allowed: u64) -> bool {
    diff.rows
        .iter()
        .any(|row| u64::try_from(row.delta).is_ok_and(|growth| growth > allowed))
}

/// The two sides: read, or traced now.
fn recordings(args: &Diff) -> Result<[Recording; 2], Failure> {
    let (kernels, cmdlines) = (args.kernel.len(), args.cmdline.len());
    if kernels == 0 && cmdlines == 0 {
        let [a, b] = args.names.as_slice() else {
            return Err(Failure::Usage(
                "name two recordings, or rows and two --kernel or two --cmdline".to_owned(),
            ));
        };
        return Ok([trace::open(Path::new(a))?, trace::open(Path::new(b))?]);
    }
    if kernels > 2 || cmdlines > 2 || kernels.max(cmdlines) < 2 || args.modules.len() > kernels {
        return Err(Failure::Usage(
            "give two --kernel or two --cmdline (and a --modules for each kernel that needs one)"
                .to_owned(),
        ));
    }
    let rows = rows::choose(&args.names)?;
    trace::traceable(&rows)?;
    let modules = lab::assign_modules(&args.kernel, &args.modules)?;
    let side = |at: usize| {
        let kernel = args.kernel.get(at).or(args.kernel.first()).cloned();
        let modules = modules.get(at).or(modules.first()).cloned().flatten();
        let cmdline = args.cmdline.get(at).or(args.cmdline.first());
        args.trace
            .lab(kernel, modules, cmdline.cloned().unwrap_or_default())
    };
    let (a, b) = (side(0), side(1));
    // What is wrong with the second is found out before the first is traced.
    Prepared::new(&b, &interrupt::flag())?;
    Ok([
        record("diff", &rows, &a, &args.trace)?,
        record("diff", &rows, &b, &args.trace)?,
    ])
}

/// Traces one side.
pub(crate) fn record(
    command: &'static str,
    rows: &[&'static Row],
    options: &LabOptions,
    trace: &TraceOptions,
) -> Result<Recording, Failure> {
    let interrupted = interrupt::flag();
    let prepared = Prepared::new(options, &interrupted)?;
    let job = Job {
        rows,
        rounds: trace.rounds,
        seeds: options.emulator.seeds(&[1, 2, 3]),
        watchdog: WATCHDOG,
        plugin: Some(Plugin::Records),
        patches: None,
        vmlinux: None,
    };
    job.record(command, options, &prepared, &interrupted)
}
