//! `exitpath userspace`: the VMM's half of an exit, layer by layer.

use exitpath_exits::ladder::RUNGS;
use exitpath_experiment::lab::Instructions;
use exitpath_experiment::rows;
use exitpath_lab::plugin::Plugin;

use crate::failure::Failure;
use crate::measuring::{Wanted, record};
use crate::{command, output, show};
use exitpath_cli::{Place, Userspace};

/// Bracketed samples of each rung in the lab, unless the user says otherwise. Each is recorded to the
/// instruction, and nearly all are the same.
const LAB_SAMPLES: u32 = 100;

pub(crate) fn run(args: &Userspace, place: &Place) -> Result<(), Failure> {
    if args.list {
        return output::print(&exitpath_report::views::rows(RUNGS).to_string());
    }
    let wanted = Wanted {
        command: command::USERSPACE,
        rows: rows::choose_rungs(&args.rungs)?,
        sampling: &args.sampling,
        lab_samples: LAB_SAMPLES,
        lab: &args.lab,
        vmm: None,
        // So that each difference can be explained.
        instructions: Some(Instructions {
            plugin: Some(Plugin::Records),
            vmlinux: None,
        }),
        by_layers: true,
    };
    let (recording, dir) = record(wanted, &args.measuring, place)?;
    show::recording(&recording, &dir, args.measuring.json)
}
