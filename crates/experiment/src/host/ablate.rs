//! Rows in fresh VMs under conditions of this machine that are switched while it runs: all conditions in each block, in random order.

use std::path::PathBuf;

use exitpath_host::{GuestOutcome, Root};
use exitpath_recording::{Condition, Difference, Machine, Recording};
use exitpath_runner::{Machine as VmWithout, Place, random_order, run_row};
use exitpath_vmm::{Kvm, kick};

use super::environment::{environment, warnings};
use super::journal::{Journal, folder};
use crate::control::{Control, number};
use crate::error::Result;
use crate::guest;
use crate::plan::Plan;
use crate::record::{About, Batch, recording, unix_seconds};

/// A condition of this machine.
#[derive(Debug, Clone, Default)]
pub struct Switched {
    /// Its name.
    pub name: String,
    /// How that is told.
    pub differs: Vec<Difference>,
    /// Settings and their values.
    pub settings: Vec<(PathBuf, String)>,
    /// What VMs are made without.
    pub machine: VmWithout,
}

/// Measures the rows under all conditions, in so many blocks. Whatever ends it, settings are put back.
///
/// # Errors
/// Where a setting cannot be changed or put back, KVM refuses what every row needs, or the user interrupts.
pub fn record(
    plan: &Plan,
    guest: &GuestOutcome,
    blocks: u32,
    conditions: &[Switched],
    control: &Control,
) -> Result<Recording> {
    let kvm = Kvm::open()?;
    let examination = guest::examine(guest.clone());
    let allowed = kick::allowed_cpus()?;
    let (cpus, shared_core) = exitpath_host::choose_cpus(&Root::default(), &allowed);
    let begun_unix_seconds = unix_seconds();
    let pairs: Vec<(usize, usize)> = (0..conditions.len())
        .flat_map(|condition| (0..plan.rows.len()).map(move |row| (condition, row)))
        .collect();
    let order = random_order(&pairs, blocks, plan.order_seed);
    let what = format!(
        "{} under {}, {}",
        number(plan.rows.len(), "row"),
        number(conditions.len(), "condition"),
        number(blocks as usize, "block")
    );
    let mut journal = Journal::new(&folder()?)?;
    let runs = control.during(order.len() as u64, &what, || {
        let mut runs = Vec::new();
        for (block, (condition, row)) in order {
            control.check()?;
            let (condition, row) = (&conditions[condition], plan.rows[row]);
            control.progress.at(&condition.name);
            for (setting, value) in &condition.settings {
                journal.set(setting, value)?;
            }
            let mut settings = plan.sampling.settings(cpus.clone(), false);
            settings.machine = condition.machine;
            let place = Place {
                id: 0,
                block,
                seed: None,
                cpus: cpus.len() as u32,
            };
            let run = run_row(&kvm, row, &settings, &place);
            journal.restore()?;
            let mut run = run?;
            run.condition.clone_from(&condition.name);
            runs.push(run);
            control.progress.step();
        }
        Ok(runs)
    });
    drop(journal);
    let mut made = [Batch {
        runs: runs?,
        trace: None,
    }];
    crate::record::number(&mut made);
    let [made] = made;
    let of = |switched: &Switched| Condition {
        name: switched.name.clone(),
        differs: switched.differs.clone(),
        ..Condition::base()
    };
    let about = About {
        begun_unix_seconds,
        machine: Machine::Host,
        environment: environment(&examination, guest, &allowed, &cpus),
        conditions: conditions.iter().map(of).collect(),
        replication: blocks,
        amd: kvm.is_amd(),
        warnings: warnings(
            &examination,
            shared_core && plan.rows.iter().any(|row| row.vcpus > 1),
        ),
    };
    Ok(recording(plan, about, made.runs, None))
}
