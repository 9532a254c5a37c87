//! `exitpath measure`: the table of exits.

use std::path::Path;
use std::time::Duration;

use exitpath_analysis::vmexit;
use exitpath_experiment::lab::{Prepared, kvm_unit_tests};
use exitpath_experiment::{Plan, Sampling, rows};

use crate::control::control;
use crate::failure::Failure;
use crate::measuring::{Wanted, choice, record};
use crate::{command, output, show};
use exitpath_cli::{Measure, Place};

/// Bracketed samples in the lab unless the user says otherwise. The same path takes the same number
/// of instructions every time; this many show which other paths there are.
const LAB_SAMPLES: u32 = 250;
/// Those of a row beside kvm-unit-tests': enough for the lab's timer to interrupt a hundred of them, as it
/// interrupts theirs.
const BESIDE_SAMPLES: u32 = 65_536;

pub(crate) fn run(args: &Measure, place: &Place) -> Result<(), Failure> {
    if args.list {
        return output::print(&exitpath_report::views::rows(exitpath_exits::ROWS).to_string());
    }
    if let Some(dir) = &args.kvm_unit_tests {
        return beside(args, dir);
    }
    let rows = match &args.vmm {
        Some(_) => rows::choose_for_image(&args.rows)?,
        None => rows::choose(&args.rows)?,
    };
    let wanted = Wanted {
        command: command::MEASURE,
        rows,
        sampling: &args.sampling,
        lab_samples: LAB_SAMPLES,
        lab: &args.lab,
        vmm: args.vmm.as_deref(),
        instructions: None,
        by_layers: false,
    };
    let (recording, dir) = record(wanted, &args.measuring, place)?;
    show::recording(&recording, &dir, args.measuring.json)
}

/// `--kvm-unit-tests DIR`: vmexit and exitpath's image under the same QEMU in the same lab, side by side.
fn beside(args: &Measure, dir: &Path) -> Result<(), Failure> {
    let test = kvm_unit_tests::find(dir)?;
    let rows = choose_beside(&args.rows)?;
    let vmm = kvm_unit_tests::find_qemu(args.vmm.as_deref().unwrap_or("qemu"))?;
    let out = output::folder(args.measuring.out.as_deref(), command::MEASURE)?;
    let control = control();
    let prepared = Prepared::new(&choice(&args.lab), &control)?;
    let seed = args.lab.emulator.seeds(&[1])[0];
    let plan = Plan {
        command: command::MEASURE,
        rows,
        sampling: Sampling::measured(
            args.sampling.samples.unwrap_or(BESIDE_SAMPLES),
            Duration::from_secs(args.sampling.watchdog),
        ),
        order_seed: 0,
        by_layers: false,
    };
    let lab = (&prepared, seed);
    let recording = kvm_unit_tests::record(&plan, &test, &vmm, lab, vmexit::figure, &control)?;
    output::keep(&out, &recording)?;
    show::recording(&recording, &out, args.measuring.json)
}

/// The rows of these names, which both programs must have; the usual ones where there are none.
fn choose_beside(names: &[String]) -> Result<Vec<&'static exitpath_exits::Row>, Failure> {
    let usual: Vec<String> = vmexit::ROWS.iter().map(|row| row.name.to_owned()).collect();
    let rows = rows::choose_for_image(if names.is_empty() { &usual } else { names })?;
    let known = |name: &str| vmexit::ROWS.iter().any(|known| known.name == name);
    match rows.iter().find(|row| !known(row.name)) {
        Some(row) => Err(Failure::usage(format!(
            "{} is not compared: vmexit has no such row, or does something else in it; there are {}",
            row.name,
            usual.join(", ")
        ))),
        None => Ok(rows),
    }
}
