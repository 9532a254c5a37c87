//! `exitpath diff`: what two traces differ in.

use std::path::Path;

use exitpath_analysis::path::diff::diff_paths;
use exitpath_analysis::path::gate::{Limits, grew};
use exitpath_experiment::lab::{Prepared, Setup, assign_modules};
use exitpath_experiment::rows;
use exitpath_recording::Recording;
use exitpath_report::{json, views};

use crate::control::control;
use crate::failure::Failure;
use crate::measuring::{ROUNDS, SEEDS, WATCHDOG, choice_on};
use crate::{output, recorded, trace};
use exitpath_cli::Diff;

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
            return Err(Failure::usage(why));
        }
    };
    let shown = trace::functions(args.all);
    output::print(&if args.json {
        json::diff(of_a, of_b, &diff).render()
    } else if args.markdown {
        views::pull_request(of_a, of_b, &diff, shown).markdown()
    } else {
        views::diff(of_a, of_b, &diff, shown).laid_out(&output::style())
    })?;
    match args.gate {
        Some(allowed) if grew(&diff, &Limits::both(allowed)) => Err(Failure::Check),
        _ => Ok(()),
    }
}

/// The two sides: read, or traced now.
fn recordings(args: &Diff) -> Result<[Recording; 2], Failure> {
    let (kernels, cmdlines) = (args.kernel.len(), args.cmdline.len());
    if kernels == 0 && cmdlines == 0 {
        let [a, b] = args.names.as_slice() else {
            return Err(Failure::usage(
                "name two recordings, or rows and two --kernel or two --cmdline",
            ));
        };
        let read = |name: &String| recorded::traced_under_one(Path::new(name));
        return Ok([read(a)?, read(b)?]);
    }
    if kernels > 2 || cmdlines > 2 || kernels.max(cmdlines) < 2 || args.modules.len() > kernels {
        return Err(Failure::usage(
            "give two --kernel or two --cmdline (and a --modules for each kernel that needs one)",
        ));
    }
    let rows = rows::choose(&args.names)?;
    rows::traceable(&rows)?;
    trace::comparable(&rows)?;
    let control = control();
    let modules = assign_modules(&args.kernel, &args.modules, &control)?;
    let side = |at: usize| {
        let kernel = args.kernel.get(at).or(args.kernel.first()).cloned();
        let modules = modules.get(at).or(modules.first()).cloned().flatten();
        let cmdline = args.cmdline.get(at).or(args.cmdline.first());
        choice_on(
            &args.trace.emulator,
            kernel,
            modules,
            cmdline.cloned().unwrap_or_default(),
        )
    };
    // Whether there is anything to trace is known of both before one is traced.
    let prepared = [
        Prepared::with_modules(&side(0), &control)?,
        Prepared::with_modules(&side(1), &control)?,
    ];
    let names = ["A", "B"];
    let setups = std::iter::zip(names, &prepared).map(|(name, prepared)| Setup {
        name: name.to_owned(),
        ..Setup::base(prepared)
    });
    let plan = trace::plan("diff", rows, args.trace.rounds.unwrap_or(ROUNDS), WATCHDOG);
    let seeds = args.trace.emulator.seeds(&SEEDS);
    let both = trace::record_all(&plan, &seeds, setups.collect(), &control)?;
    let under = |name| {
        both.under(name)
            .ok_or_else(|| Failure::cannot("a side was not recorded"))
    };
    Ok([under(names[0])?, under(names[1])?])
}
