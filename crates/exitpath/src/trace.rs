//! `exitpath trace`: the exact path of one exit.

mod view;

use std::time::Duration;

use exitpath_analysis::path::without::{Stub, stub};
use exitpath_analysis::path::{Incomparable, PhaseTable};
use exitpath_exits::Row;
use exitpath_experiment::lab::{Instructions, Prepared, Session, Setup};
use exitpath_experiment::{Control, Error, Kind, Plan, Sampling, Vmm, rows};
use exitpath_lab::gdb::Patch;
use exitpath_lab::plugin::Plugin;
use exitpath_recording::Recording;

use crate::control::control;
use crate::failure::Failure;
use crate::measuring::choice;
use crate::{command, output, recorded};
use exitpath_cli::{PluginUse, Trace};

pub(crate) use view::{functions, phases};

pub(crate) fn run(args: &Trace) -> Result<(), Failure> {
    if args.view.list_phases {
        return output::print(PhaseTable::built_in());
    }
    let phases = phases(args.view.phases.as_deref())?;
    view::check_files(&args.view)?;
    if let Some(name) = &args.recording {
        let recording = recorded::traced(name)?;
        return view::show(&recording, &args.rows, name, &phases, &args.view);
    }
    let dir = output::folder(args.out.as_deref(), command::TRACE)?;
    let vmm = args.vmm.as_deref().map(Vmm::find).transpose()?;
    let rows = match &args.vmm {
        Some(_) => rows::choose_for_image(&args.rows)?,
        None => rows::choose(&args.rows)?,
    };
    rows::traceable(&rows)?;
    view::check_one_row(&args.view, rows.len())?;
    if !args.without.is_empty() {
        comparable(&rows)?;
    }
    let recording = record(args, rows, vmm.as_ref())?;
    output::keep(&dir, &recording)?;
    if recording.trace.is_none() {
        return output::print(&format!("recording: {}", dir.display()));
    }
    view::show(&recording, &[], &dir, &phases, &args.view)
}

/// Records the rows, and with them whatever they are to be held against.
fn record(args: &Trace, rows: Vec<&'static Row>, vmm: Option<&Vmm>) -> Result<Recording, Failure> {
    let control = control();
    let prepared = Prepared::new(&choice(&args.lab), &control)?;
    let plan = plan(command::TRACE, rows, args.rounds, args.watchdog);
    let instructions = Instructions {
        plugin: match args.plugin {
            PluginUse::Absent => None,
            PluginUse::Idles => Some(Plugin::Idles),
            PluginUse::Records => Some(Plugin::Records),
        },
        vmlinux: args.view.vmlinux.clone(),
    };
    let seeds = args.lab.emulator.seeds(&[1]);
    let mut session = Session::new(&plan, &seeds, Some(instructions), &control);
    session.run(match vmm {
        Some(vmm) => vec![Setup::own(&prepared), Setup::under(&prepared, vmm)],
        None => vec![Setup::base(&prepared)],
    })?;
    let recording = session.recording()?;
    let Some(trace) = recording
        .trace
        .as_ref()
        .filter(|_| !args.without.is_empty())
    else {
        return Ok(recording);
    };
    let stubs: Vec<Stub> = args
        .without
        .iter()
        .map(|name| stub(trace, name))
        .collect::<Result<_, _>>()
        .map_err(Failure::usage)?;
    let patched = session.run(vec![without(&stubs, &prepared)]);
    patched.map_err(|error| required(&stubs, error))?;
    Ok(session.recording()?)
}

/// What is traced, for so many rounds, by whichever command.
pub(crate) fn plan(
    command: &'static str,
    rows: Vec<&'static Row>,
    rounds: u32,
    watchdog: u64,
) -> Plan {
    Plan {
        command,
        rows,
        sampling: Sampling::traced(rounds, Duration::from_secs(watchdog)),
        order_seed: 1,
        by_layers: false,
    }
}

/// The condition in which these functions return at once.
fn without<'a>(stubs: &[Stub], prepared: &'a Prepared) -> Setup<'a> {
    let patch = |stub: &Stub| Patch {
        name: stub.name.clone(),
        address: stub.address,
        old: stub.old.clone(),
        new: stub.new.clone(),
    };
    let names: Vec<&str> = stubs.iter().map(|stub| stub.name.as_str()).collect();
    Setup {
        name: format!("without {}", names.join(", ")),
        patches: stubs.iter().map(patch).collect(),
        differs: stubs.iter().map(Stub::difference).collect(),
        ..Setup::base(prepared)
    }
}

/// Why there is no trace without the functions. The one with them was just made, in the same lab.
fn required(stubs: &[Stub], error: Error) -> Error {
    if !matches!(error.kind(), Kind::Usage | Kind::Cannot) {
        return error;
    }
    let names: Vec<&str> = stubs.iter().map(|stub| stub.name.as_str()).collect();
    let says = match names.as_slice() {
        [name] => format!("{name} is required: with it the same was traced"),
        _ => "one of them is required: try each alone".to_owned(),
    };
    let what = error.to_string();
    Error::Said {
        kind: Kind::Cannot,
        says: format!("without {}: {what}: {says}", names.join(", ")),
    }
}

/// Refuses rows whose paths cannot be held against each other.
pub(crate) fn comparable(rows: &[&'static Row]) -> Result<(), Failure> {
    match rows.iter().find(|row| row.surrounded) {
        Some(row) => Err(Failure::usage(Incomparable::Surrounded(
            row.name.to_owned(),
        ))),
        None => Ok(()),
    }
}

/// Traces the rows under these conditions, for a comparison.
pub(crate) fn record_all(
    plan: &Plan,
    seeds: &[u64],
    setups: Vec<Setup<'_>>,
    control: &Control,
) -> Result<Recording, Error> {
    let instructions = Instructions {
        plugin: Some(Plugin::Records),
        vmlinux: None,
    };
    let mut session = Session::new(plan, seeds, Some(instructions), control);
    session.run(setups)?;
    session.recording()
}
