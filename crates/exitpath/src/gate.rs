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
use exitpath_analysis::path::{Incomparable, PhaseTable, trace_rows};
use exitpath_exits::Row;
use exitpath_lab::boot::added_to_cmdline;
use exitpath_lab::qemu::Qemu;
use exitpath_recording::{Machine, Recording};
use exitpath_report::text;

use crate::cli::{Gate, LabOptions};
use crate::diff::{Limits, ROUNDS, grew, record};
use crate::failure::Failure;
use crate::in_lab::vmm;
use crate::lab::{self, Prepared};
use crate::{interrupt, output, rows, trace};

/// Rows to judge by where neither the user nor the base names any: an exit that the kernel
/// handles, and one that the VMM does.
const ROWS: [&str; 2] = ["cpuid", "inl_from_qemu"];

pub(crate) fn run(args: &Gate) -> Result<(), Failure> {
    let qemu = lab::qemu(&args.trace.emulator)?;
    let recorded = recorded(args)?;
    let rows = match &recorded {
        Some(base) if args.rows.is_empty() => {
            let names = base.manifest.rows.iter().map(|row| row.name.clone());
            let names: Vec<String> = names.collect();
            let rows = rows::choose(&names).map_err(|failure| of_base(args, failure))?;
            comparable(rows)
        }
        None if args.rows.is_empty() => rows::choose(&ROWS.map(str::to_owned))?,
        _ => rows::choose(&args.rows)?,
    };
    trace::traceable(&rows)?;
    trace::comparable(&rows)?;
    let mut options = args.trace.lab(
        Some(args.kernel.clone()),
        args.modules.clone(),
        args.cmdline.clone().unwrap_or_default(),
    );
    let mut rounds = args.trace.rounds.unwrap_or(ROUNDS);
    let recorded = match recorded {
        Some(base) => Some(usable(args, base, &rows, &qemu, &mut options, &mut rounds)?),
        None => None,
    };
    if let Some(dir) = &args.out {
        output::folder(Some(dir), "gate")?;
    }
    let interrupted = interrupt::flag();
    let prepare = |options: &LabOptions| {
        let prepared = Prepared::new(options, &interrupted)?;
        prepared.check_modules()?;
        Ok(prepared)
    };
    let of_base_kernel = LabOptions {
        kernel: Some(args.base.clone()),
        modules: args.base_modules.clone(),
        ..args.trace.lab(None, None, options.cmdline.clone())
    };
    let base_prepared = match recorded {
        Some(_) => None,
        None => Some(prepare(&of_base_kernel).map_err(|failure| of_base(args, failure))?),
    };
    let prepared = prepare(&options).map_err(of_kernel)?;

    let base = match (recorded, base_prepared) {
        (Some(base), _) => base,
        (None, prepared) => {
            let prepared = prepared.expect("a base that is no recording is a kernel");
            record("gate", &rows, &of_base_kernel, &prepared, rounds)
                .map_err(|failure| of_base(args, failure))?
        }
    };
    let kernel = record("gate", &rows, &options, &prepared, rounds).map_err(of_kernel)?;
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
    output::print(&text::commit(&diff))?;
    let limits = Limits {
        instructions: args.max_growth,
        of_a_class: args.max_class_growth.unwrap_or(args.max_growth),
    };
    if grew(&diff, &limits) {
        return Err(Failure::Check);
    }
    Ok(())
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
fn of_kernel(failure: Failure) -> Failure {
    match failure {
        failure @ (Failure::Interrupted | Failure::Machine(_)) => failure,
        failure => Failure::Unjudged(failure.message()),
    }
}

/// What is wrong with the base.
fn of_base(args: &Gate, failure: Failure) -> Failure {
    match failure {
        failure @ (Failure::Interrupted | Failure::Machine(_)) => failure,
        failure => fault_of_base(args, &failure.message()),
    }
}

fn fault_of_base(args: &Gate, what: &str) -> Failure {
    Failure::Usage(format!("the base {} cannot be used: {what}", args.base))
}

/// The base, where it is a recording.
fn recorded(args: &Gate) -> Result<Option<Recording>, Failure> {
    let path = Path::new(&args.base);
    if !path.is_dir() {
        return Ok(None);
    }
    if args.base_modules.is_some() {
        return Err(Failure::Usage(format!(
            "--base-modules is for a base that is a kernel, and {} is a recording",
            args.base
        )));
    }
    let base = trace::open(path).map_err(|failure| of_base(args, failure))?;
    Ok(Some(base))
}

/// The base with these rows only, if the kernel's trace can be held against it: all that must be
/// the same, but for what booting will tell. What the command line leaves open is as in the base.
fn usable(
    args: &Gate,
    mut base: Recording,
    rows: &[&'static Row],
    qemu: &Qemu,
    options: &mut LabOptions,
    rounds: &mut u32,
) -> Result<Recording, Failure> {
    let fault = |what: String| fault_of_base(args, &what);
    if base.manifest.machine != Machine::Lab {
        return Err(fault("it is not from the lab".to_owned()));
    }
    keep(&mut base, rows).map_err(fault)?;
    let environment = &base.manifest.environment;
    if let Some(command) = environment.facts.get(vmm::COMMAND) {
        return Err(fault(format!(
            "it was recorded under another VMM ({command}), and a kernel is judged under exitpath's own"
        )));
    }
    // Where KVM's memory lies depends on how much is recorded, too.
    *rounds = args.trace.rounds.unwrap_or(base.manifest.plan.samples);
    if args.cmdline.is_none() {
        options.cmdline = added_to_cmdline(&environment.cmdline)
            .ok_or_else(|| {
                fault(format!(
                    "its command line is none of a lab: {}",
                    environment.cmdline
                ))
            })?
            .to_owned();
    }
    let emulator = &mut options.emulator;
    let cpu = emulator.cpu.get_or_insert_with(|| environment.cpu.clone());
    if *cpu != environment.cpu {
        return Err(fault(format!(
            "it was recorded with -cpu {}, not {cpu}",
            environment.cpu
        )));
    }
    if environment.qemu.as_ref() != Some(&qemu.version) {
        let version = environment.qemu.as_deref().unwrap_or("none");
        return Err(fault(format!(
            "it was recorded with QEMU {version}, and this is {}: name that one with --qemu PATH, \
             or record the base again",
            qemu.version
        )));
    }
    if environment.cpus != 1 {
        return Err(fault(format!(
            "it was recorded on {} CPUs, and a kernel is judged on one",
            environment.cpus
        )));
    }
    let mut seeds = emulator.seeds(&environment.seeds);
    let (mut given, mut of_base) = (seeds.clone(), environment.seeds.clone());
    for seeds in [&mut given, &mut of_base] {
        seeds.sort_unstable();
        seeds.dedup();
    }
    if given != of_base {
        let word = |seeds: &[u64]| {
            let words: Vec<String> = seeds.iter().map(u64::to_string).collect();
            words.join(",")
        };
        return Err(fault(format!(
            "it was recorded with --seed {}, not {}",
            word(&of_base),
            word(&given)
        )));
    }
    seeds.clone_from(&environment.seeds);
    emulator.seeds = seeds;
    let paths = trace_rows(&base, &PhaseTable::default());
    let paths = paths.map_err(|error| fault(error.to_string()))?;
    for row in rows {
        for seed in &of_base {
            let has = |path: &exitpath_analysis::path::RowPath| {
                (path.row.as_str(), path.seed, path.cpus) == (row.name, Some(*seed), 1)
            };
            if !paths.iter().any(has) {
                return Err(fault(format!(
                    "it has no trace of {} at seed {seed}",
                    row.name
                )));
            }
        }
    }
    Ok(base)
}

/// Leaves of a base only these rows, all of which it must have.
fn keep(base: &mut Recording, rows: &[&'static Row]) -> Result<(), String> {
    let wanted = |name: &str| rows.iter().any(|row| row.name == name);
    let missing = rows
        .iter()
        .find(|row| !base.manifest.rows.iter().any(|of| of.name == row.name));
    if let Some(row) = missing {
        return Err(format!(
            "it has no trace of {}: record it with `exitpath trace`",
            row.name
        ));
    }
    base.manifest.rows.retain(|row| wanted(&row.name));
    base.runs.retain(|run| wanted(&run.row));
    let runs: Vec<u32> = base.runs.iter().map(|run| run.id).collect();
    if let Some(trace) = &mut base.trace {
        trace.windows.retain(|window| runs.contains(&window.run));
    }
    Ok(())
}
