//! `exitpath diff`: what two traces differ in.

use std::path::Path;

use exitpath_analysis::path::diff::{PathDiff, diff_paths};
use exitpath_exits::Row;
use exitpath_lab::plugin::Plugin;
use exitpath_recording::Recording;
use exitpath_report::{json, markdown, text};

use crate::cli::{Diff, LabOptions};
use crate::failure::Failure;
use crate::lab::Prepared;
use crate::trace::{self, Job};
use crate::{interrupt, lab, output, rows};

/// Rounds of each row, unless the user or a base says otherwise.
pub(crate) const ROUNDS: u32 = 200;
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
        Some(allowed) if grew(&diff, &Limits::both(allowed)) => Err(Failure::Check),
        _ => Ok(()),
    }
}

/// By how much a row may grow.
pub(crate) struct Limits {
    /// Instructions, of whichever kind.
    pub(crate) instructions: u64,
    /// Instructions of any one class. Where instructions are added, a class cannot grow by more than
    /// all of them: so the same limit for both catches what an instruction was replaced by.
    pub(crate) of_a_class: u64,
}

impl Limits {
    fn both(allowed: u64) -> Limits {
        Limits {
            instructions: allowed,
            of_a_class: allowed,
        }
    }
}

/// Whether a row takes more instructions than before at any seed, or more of a class of costly ones, by
/// more than is allowed.
pub(crate) fn grew(diff: &PathDiff, limits: &Limits) -> bool {
    diff.rows
        .iter()
        .any(|row| row.grew(limits.instructions, limits.of_a_class))
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
    trace::comparable(&rows)?;
    let modules = lab::assign_modules(&args.kernel, &args.modules)?;
    let side = |at: usize| {
        let kernel = args.kernel.get(at).or(args.kernel.first()).cloned();
        let modules = modules.get(at).or(modules.first()).cloned().flatten();
        let cmdline = args.cmdline.get(at).or(args.cmdline.first());
        args.trace
            .lab(kernel, modules, cmdline.cloned().unwrap_or_default())
    };
    // Whether there is anything to trace is known of both before one is traced.
    let interrupted = interrupt::flag();
    let prepare = |options: LabOptions| {
        let prepared = Prepared::new(&options, &interrupted)?;
        prepared.check_modules()?;
        Ok::<_, Failure>((options, prepared))
    };
    let rounds = args.trace.rounds.unwrap_or(ROUNDS);
    let (of_a, prepared_a) = prepare(side(0))?;
    let (of_b, prepared_b) = prepare(side(1))?;
    Ok([
        record("diff", &rows, &of_a, &prepared_a, rounds)?,
        record("diff", &rows, &of_b, &prepared_b, rounds)?,
    ])
}

/// Traces one side.
pub(crate) fn record(
    command: &'static str,
    rows: &[&'static Row],
    options: &LabOptions,
    prepared: &Prepared,
    rounds: u32,
) -> Result<Recording, Failure> {
    let interrupted = interrupt::flag();
    let job = Job {
        rows,
        rounds,
        seeds: options.emulator.seeds(&[1, 2, 3]),
        watchdog: WATCHDOG,
        plugin: Some(Plugin::Records),
        patches: None,
        vmlinux: None,
    };
    job.record(command, options, prepared, &interrupted)
}
