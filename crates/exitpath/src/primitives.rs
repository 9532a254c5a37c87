//! `exitpath primitives`: the unit costs of what an exit's way is made of, and how often it is used.

use std::collections::BTreeMap;
use std::time::Duration;

use exitpath_analysis::path::{PhaseTable, RowPath, trace_rows};
use exitpath_analysis::primitives::{self, calls, direct_calls_but};
use exitpath_cli::{Place, Primitives};
use exitpath_exits::find;
use exitpath_exits::primitives::{Counted, PRIMITIVES, USES};
use exitpath_experiment::lab::{Instructions, Prepared, Session, Setup};
use exitpath_experiment::{Plan, Sampling, rows};
use exitpath_lab::plugin::Plugin;
use exitpath_recording::{Machine, fact};
use exitpath_report::json::{Used, used_as_fact};

use crate::control::control;
use crate::failure::Failure;
use crate::measuring::{WATCHDOG, Wanted, choice, measured};
use crate::{command, output, show};

/// Bracketed samples in the lab unless the user says otherwise: each takes the same.
const LAB_SAMPLES: u32 = 50;
/// Rows whose ways are looked through: an exit that the kernel handles, and one that user space does.
const WAYS: [&str; 2] = ["cpuid", "pio_user_write"];
/// Rounds recorded of them.
const ROUNDS: u32 = 50;

pub(crate) fn run(args: &Primitives, place: &Place) -> Result<(), Failure> {
    if args.list {
        return output::print(&exitpath_report::views::rows(PRIMITIVES).to_string());
    }
    let wanted = Wanted {
        command: command::PRIMITIVES,
        rows: rows::choose_primitives(&args.primitives)?,
        sampling: &args.sampling,
        lab_samples: LAB_SAMPLES,
        lab: &args.lab,
        vmm: None,
        instructions: None,
        by_layers: false,
    };
    let (mut recording, dir) = measured(wanted, &args.measuring, place)?;
    if recording.manifest.machine == Machine::Lab {
        let used = used_as_fact(&used(args)?);
        let facts = &mut recording.manifest.environment.facts;
        facts.insert(fact::PRIMITIVES_USED.to_owned(), used);
    }
    output::keep(&dir, &recording)?;
    show::recording(&recording, &dir, args.measuring.json)
}

/// How often the ways of two exits execute each primitive, in the same lab.
fn used(args: &Primitives) -> Result<Used, Failure> {
    let control = control();
    let prepared = Prepared::new(&choice(&args.lab), &control)?;
    let plan = Plan {
        command: command::TRACE,
        rows: WAYS.iter().filter_map(|name| find(name)).collect(),
        sampling: Sampling::traced(ROUNDS, Duration::from_secs(WATCHDOG)),
        order_seed: 1,
        by_layers: false,
    };
    let instructions = Instructions {
        plugin: Some(Plugin::Records),
        vmlinux: None,
    };
    let seed = args.lab.emulator.seeds(&[1])[0];
    let mut session = Session::new(&plan, &[seed], Some(instructions), &control);
    session.run(vec![Setup::base(&prepared)])?;
    let paths =
        trace_rows(&session.recording()?, &PhaseTable::default()).map_err(Failure::cannot)?;
    let mut used = Used::new();
    for of in USES {
        let count = |path: &RowPath| match of.counted {
            Counted::Nothing => None,
            Counted::Texts(texts, but) => Some(primitives::instructions(path, texts, but)),
            Counted::Calls(begins) => Some(calls(path, begins)),
            Counted::CallsBut(begins) => Some(direct_calls_but(path, begins)),
        };
        let ways = paths.iter();
        let counts: BTreeMap<String, u64> = ways
            .filter_map(|path| Some((path.row.clone(), count(path)?)))
            .collect();
        if !counts.is_empty() {
            used.insert(of.row.to_owned(), counts);
        }
    }
    Ok(used)
}
