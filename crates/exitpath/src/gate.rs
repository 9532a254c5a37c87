//! `exitpath gate`: holds a kernel to a base.
//!
//! Made for `git bisect run` and CI: whatever is no verdict on this kernel is status 125, so that
//! a bisection skips the commit instead of calling it bad.

use std::path::Path;

use exitpath_analysis::path::PhaseTable;
use exitpath_analysis::path::conditions::warnings;
use exitpath_analysis::path::diff::diff_paths;
use exitpath_recording::Recording;
use exitpath_report::text;

use crate::cli::Gate;
use crate::diff::{grew, record};
use crate::failure::Failure;
use crate::lab::Prepared;
use crate::{interrupt, output, rows, trace};

/// Rows to judge by where neither the user nor the base names any: an exit that the kernel
/// handles, and one that the VMM does.
const ROWS: [&str; 2] = ["cpuid", "inl_from_qemu"];

pub(crate) fn run(args: &Gate) -> Result<(), Failure> {
    let judged = judge(args).map_err(|failure| match failure {
        Failure::Interrupted => Failure::Interrupted,
        failure => Failure::Unjudged(failure.message()),
    })?;
    if judged { Ok(()) } else { Err(Failure::Check) }
}

/// Whether the kernel is within what is allowed.
fn judge(args: &Gate) -> Result<bool, Failure> {
    let path = Path::new(&args.base);
    let mut base = if path.is_dir() {
        Some(trace::open(path)?)
    } else {
        None
    };
    let names = match (&base, args.rows.as_slice()) {
        (Some(base), []) => base
            .manifest
            .rows
            .iter()
            .map(|row| row.name.clone())
            .collect(),
        (None, []) => ROWS.map(str::to_owned).to_vec(),
        (_, named) => named.to_vec(),
    };
    let rows = rows::choose(&names)?;
    trace::traceable(&rows)?;
    let mut options = args.trace.lab(
        Some(args.kernel.clone()),
        args.modules.clone(),
        args.cmdline.clone(),
    );
    // What can be known to be in vain is found out before anything boots.
    if let Some(base) = &mut base {
        keep(base, &names)?;
        let environment = &base.manifest.environment;
        let emulator = &mut options.emulator;
        let cpu = emulator.cpu.get_or_insert_with(|| environment.cpu.clone());
        if *cpu != environment.cpu {
            return Err(Failure::Cannot(format!(
                "not comparable: the base was recorded with -cpu {}, not {cpu}",
                environment.cpu
            )));
        }
        emulator.seeds = emulator.seeds(&environment.seeds);
    } else {
        let given = Some(args.base.clone());
        let of_base = args
            .trace
            .lab(given, args.base_modules.clone(), args.cmdline.clone());
        Prepared::new(&of_base, &interrupt::flag())?;
    }
    if let Some(dir) = &args.out {
        exitpath_recording::check_writable(dir)
            .map_err(|error| Failure::Cannot(error.to_string()))?;
    }
    let kernel = record("gate", &rows, &options, &args.trace)?;
    let base = match base {
        Some(base) => base,
        None => {
            options.kernel = Some(args.base.clone());
            options.modules.clone_from(&args.base_modules);
            record("gate", &rows, &options, &args.trace)?
        }
    };
    let diff = diff_paths(&base, &kernel, &PhaseTable::default())
        .map_err(|error| Failure::Cannot(error.to_string()))?;
    if let Some(dir) = &args.out {
        output::keep(dir, &kernel)?;
    }
    for warning in warnings(&base.manifest, &kernel.manifest) {
        output::remark(&format!("warning: {warning}"));
    }
    output::print(&text::commit(&diff))?;
    Ok(!grew(&diff, args.max_growth))
}

/// Leaves of a base only these rows, all of which it must have.
fn keep(base: &mut Recording, names: &[String]) -> Result<(), Failure> {
    let has = |name: &String| base.manifest.rows.iter().any(|row| row.name == *name);
    if let Some(name) = names.iter().find(|name| !has(name)) {
        return Err(Failure::Cannot(format!(
            "the base has no trace of {name}: record it with `exitpath trace`"
        )));
    }
    base.manifest.rows.retain(|row| names.contains(&row.name));
    base.runs.retain(|run| names.contains(&run.row));
    let runs: Vec<u32> = base.runs.iter().map(|run| run.id).collect();
    if let Some(trace) = &mut base.trace {
        trace.windows.retain(|window| runs.contains(&window.run));
    }
    Ok(())
}
