//! `exitpath kick`: notifications, from the guest to a device and back.

use exitpath_exits::Row;
use exitpath_exits::kicks::Part;
use exitpath_experiment::rows;

use crate::failure::Failure;
use crate::measuring::{Wanted, record};
use crate::{command, output, show};
use exitpath_cli::{Kick, KickTable, Place};

/// Bracketed samples of each row in the lab, unless the user says otherwise.
const LAB_SAMPLES: u32 = 100;

pub(crate) fn run(args: &Kick, place: &Place) -> Result<(), Failure> {
    if args.list {
        return output::print(&exitpath_report::views::rows(rows::listed_kicks()).to_string());
    }
    let wanted = Wanted {
        command: command::KICK,
        rows: choose(args),
        sampling: &args.sampling,
        lab_samples: LAB_SAMPLES,
        lab: &args.lab,
        vmm: None,
        instructions: None,
        by_layers: false,
    };
    let (recording, dir) = record(wanted, &args.measuring, place)?;
    show::recording(&recording, &dir, args.measuring.json)
}

/// The rows of the tables asked for, all where none is named.
fn choose(args: &Kick) -> Vec<&'static Row> {
    rows::kicks(|_, kick| {
        let table = match kick.part {
            Part::Cost | Part::Waited | Part::Wakeup => KickTable::Kicks,
            Part::Scaling => KickTable::Scaling,
            Part::Disks => KickTable::Disks,
            Part::Completion => KickTable::Completions,
            Part::Check => return args.check.as_deref() == Some(kick.how),
        };
        let all = args.tables.is_empty() && args.check.is_none();
        (all || args.tables.contains(&table))
            && kick.many.is_none_or(|many| many.count <= args.eventfds)
            && kick.disks.is_none_or(|disks| disks.count <= args.disks)
    })
}
