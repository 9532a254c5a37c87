//! `exitpath gate`: holds a kernel to a base.
//!
//! Made for `git bisect run` and CI: what is wrong with the kernel that is judged is status 125, so
//! that a bisection skips the commit instead of calling it bad. What is wrong with anything else
//! (the base, the command line: status 2; this machine: 3) is wrong at each commit, and must not
//! make a bisection skip all of them. So all that can be known without booting is found out
//! before anything boots, and a base that is a kernel boots first.

use std::path::Path;

use exitpath_analysis::path::conditions::warnings;
use exitpath_analysis::path::diff::diff_paths;
use exitpath_analysis::path::gate::{Limits, Wanted, base, grew};
use exitpath_analysis::path::{Incomparable, PhaseTable};
use exitpath_exits::Row;
use exitpath_experiment::lab::{Choice, Prepared, Setup, find_qemu};
use exitpath_experiment::{Error, Kind, rows};
use exitpath_lab::boot::added_to_cmdline;
use exitpath_recording::Recording;
use exitpath_report::views;

use crate::control::control;
use crate::failure::Failure;
use crate::measuring::{ROUNDS, SEEDS, WATCHDOG, choice_on};
use crate::{command, output, recorded, trace};
use exitpath_cli::Gate;

/// Rows to judge by where neither the user nor the base names any: an exit that the kernel
/// handles, and one that the VMM does.
const ROWS: [&str; 2] = ["cpuid", "inl_from_qemu"];

/// What the kernel is traced with, as far as a recorded base leaves it open.
struct Judged {
    choice: Choice,
    seeds: Vec<u64>,
    rounds: u32,
}

pub(crate) fn run(args: &Gate) -> Result<(), Failure> {
    let control = control();
    let qemu = find_qemu(args.trace.emulator.qemu.as_deref(), &control)?;
    let recorded = recorded_base(args)?;
    let rows = choose(args, recorded.as_ref())?;
    let mut judged = Judged {
        choice: choice_on(
            &args.trace.emulator,
            Some(args.kernel.clone()),
            args.modules.clone(),
            args.cmdline.clone().unwrap_or_default(),
        ),
        seeds: args.trace.emulator.seeds(&SEEDS),
        rounds: args.trace.rounds.unwrap_or(ROUNDS),
    };
    let recorded = match recorded {
        Some(base) => Some(usable(args, base, &rows, &qemu.version, &mut judged)?),
        None => None,
    };
    if let Some(dir) = &args.out {
        output::folder(Some(dir), command::GATE)?;
    }
    let of_base_kernel = Choice {
        kernel: Some(args.base.clone()),
        modules: args.base_modules.clone(),
        ..judged.choice.clone()
    };
    let prepare = |choice| Prepared::with_modules(choice, &control);
    let base_kernel = match recorded {
        Some(_) => None,
        None => Some(prepare(&of_base_kernel).map_err(|error| of_base(args, error))?),
    };
    let prepared = prepare(&judged.choice).map_err(of_kernel)?;

    let plan = trace::plan(command::GATE, rows, judged.rounds, WATCHDOG);
    let record =
        |prepared| trace::record_all(&plan, &judged.seeds, vec![Setup::base(prepared)], &control);
    let base = match (recorded, &base_kernel) {
        (None, Some(prepared)) => record(prepared).map_err(|error| of_base(args, error))?,
        (recorded, _) => recorded.expect("a base that is no kernel is a recording"),
    };
    let kernel = record(&prepared).map_err(of_kernel)?;
    let diff = diff_paths(&base, &kernel, &PhaseTable::default())
        .map_err(|error| Failure::Unjudged(error.to_string()))?;
    if let Some(dir) = &args.out {
        output::keep(dir, &kernel)?;
    }
    // Kernels are what is compared.
    for note in diff
        .notes
        .iter()
        .filter(|note| !note.starts_with("kernel: "))
    {
        output::remark(note);
    }
    for warning in warnings(&base.manifest, &kernel.manifest) {
        output::remark(&format!("warning: {warning}"));
    }
    output::print(&views::commit(&diff))?;
    let limits = Limits {
        instructions: args.max_growth,
        of_a_class: args.max_class_growth.unwrap_or(args.max_growth),
    };
    match grew(&diff, &limits) {
        true => Err(Failure::Check),
        false => Ok(()),
    }
}

/// The rows to judge by.
fn choose(args: &Gate, base: Option<&Recording>) -> Result<Vec<&'static Row>, Failure> {
    let rows = match base {
        Some(base) if args.rows.is_empty() => {
            let names = base.manifest.rows.iter().map(|row| row.name.clone());
            let names: Vec<String> = names.collect();
            comparable(rows::choose(&names).map_err(|error| of_base(args, error))?)
        }
        None if args.rows.is_empty() => rows::choose(&ROWS.map(str::to_owned))?,
        _ => rows::choose(&args.rows)?,
    };
    rows::traceable(&rows)?;
    trace::comparable(&rows)?;
    Ok(rows)
}

/// The rows of a base without those that cannot be compared, which is said; all of them where nothing
/// would be left.
fn comparable(rows: Vec<&'static Row>) -> Vec<&'static Row> {
    let (left_out, kept): (Vec<&Row>, Vec<&Row>) =
        rows.iter().copied().partition(|row| row.surrounded);
    if kept.is_empty() {
        return rows;
    }
    for row in left_out {
        let why = Incomparable::Surrounded(row.name.to_owned());
        output::remark(&format!("left out: {why}"));
    }
    kept
}

/// What is wrong with the kernel that is judged.
fn of_kernel(error: Error) -> Failure {
    match error.kind() {
        Kind::Interrupted | Kind::Machine => error.into(),
        _ => Failure::Unjudged(error.to_string()),
    }
}

/// What is wrong with the base.
fn of_base(args: &Gate, error: Error) -> Failure {
    match error.kind() {
        Kind::Interrupted | Kind::Machine => error.into(),
        _ => fault_of_base(args, error),
    }
}

fn fault_of_base(args: &Gate, what: impl ToString) -> Failure {
    let what = what.to_string();
    Failure::usage(format!("the base {} cannot be used: {what}", args.base))
}

/// The base, where it is a recording.
fn recorded_base(args: &Gate) -> Result<Option<Recording>, Failure> {
    let name = Path::new(&args.base);
    if !exitpath_cli::recording::is_one(name) {
        return Ok(None);
    }
    match recorded::traced_under_one(name) {
        Ok(base) => Ok(Some(base)),
        Err(Failure::Failed(_, what)) => Err(fault_of_base(args, what)),
        Err(failure) => Err(failure),
    }
}

/// The base with these rows only, if the kernel's trace can be held against it. What the command line leaves
/// open is as in the base.
fn usable(
    args: &Gate,
    recorded: Recording,
    rows: &[&'static Row],
    qemu: &str,
    judged: &mut Judged,
) -> Result<Recording, Failure> {
    let wanted = Wanted {
        cpu: args.trace.emulator.cpu.clone(),
        bare_svm: args.trace.emulator.bare_svm,
        qemu: qemu.to_owned(),
        seeds: args.trace.emulator.seeds.clone(),
    };
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    let base = base(recorded, &names, &wanted).map_err(|why| fault_of_base(args, why))?;
    let environment = &base.manifest.environment;
    // Where KVM's memory lies depends on how much is recorded, too.
    judged.rounds = args.trace.rounds.unwrap_or(base.manifest.plan.samples);
    if args.cmdline.is_none() {
        let added = added_to_cmdline(&environment.cmdline).ok_or_else(|| {
            let cmdline = &environment.cmdline;
            fault_of_base(
                args,
                format!("its command line is none of a lab: {cmdline}"),
            )
        })?;
        judged.choice.cmdline = added.to_owned();
    }
    judged.choice.cpu = Some(environment.cpu.clone());
    judged.choice.bare_svm = !environment.has_cpu_supplied();
    judged.seeds.clone_from(&environment.seeds);
    Ok(base)
}
