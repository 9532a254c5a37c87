//! Rows in fresh VMs of exitpath's own on this machine, in random order: under one condition, or under several that are switched while it
//! runs, all of them in each block.

use exitpath_host::{GuestOutcome, Root};
use exitpath_recording::{Condition, Difference, Machine, Outcome, Recording};
use exitpath_runner::{Place, random_order, run_row};
use exitpath_vmm::{Kvm, files, kick};

use super::environment::{environment, warnings};
use super::journal::{Journal, folder};
use crate::control::{Control, number};
use crate::error::Result;
use crate::guest;
use crate::knobs::Switches;
use crate::plan::Plan;
use crate::record::{About, Batch, recording, unix_seconds};

/// A condition of this machine.
#[derive(Debug, Clone)]
pub struct Switched {
    /// Its name.
    pub name: String,
    /// How that is told.
    pub differs: Vec<Difference>,
    /// What is switched for it.
    pub switches: Switches,
}

impl Switched {
    /// The machine as it is.
    pub fn base() -> Switched {
        Switched {
            name: Condition::BASE.to_owned(),
            differs: Vec::new(),
            switches: Switches::default(),
        }
    }

    /// As a recording has it.
    fn condition(&self) -> Condition {
        Condition {
            name: self.name.clone(),
            differs: self.differs.clone(),
            ..Condition::base()
        }
    }
}

/// Runs the rows under each condition, so many times each. Whatever ends it, settings are put back.
///
/// # Errors
/// Where a setting cannot be changed or put back, KVM refuses what every row needs, or the user interrupts.
pub fn record(
    plan: &Plan,
    guest: &GuestOutcome,
    replication: u32,
    conditions: &[Switched],
    control: &Control,
) -> Result<Recording> {
    let rows = &plan.rows;
    // Before anything is measured, not after.
    let most = rows.iter().filter_map(|row| row.kick?.many);
    if let Some(most) = most.map(|many| many.count).max() {
        files::allow(u64::from(most))?;
    }
    let kvm = Kvm::open()?;
    let examination = guest::examine(guest.clone());
    let allowed = kick::allowed_cpus()?;
    let (cpus, shared_core) = exitpath_host::choose_cpus(&Root::default(), &allowed);
    let begun_unix_seconds = unix_seconds();

    let of_condition = |condition| rows.iter().map(move |&row| (condition, row));
    let all: Vec<(usize, _)> = (0..conditions.len()).flat_map(of_condition).collect();
    let order = random_order(&all, replication, plan.order_seed);
    let under = match conditions {
        [_] => String::new(),
        several => format!(" under {}", number(several.len(), "condition")),
    };
    let what = format!(
        "{}{under}, {} of each",
        number(rows.len(), "row"),
        number(replication as usize, "fresh VM")
    );
    let changes_settings = |condition: &Switched| !condition.switches.settings.is_empty();
    let journal = conditions.iter().any(changes_settings);
    let mut journal = journal.then(|| Journal::new(&folder()?)).transpose()?;
    let runs = control.during(order.len() as u64, &what, || {
        let mut runs = Vec::new();
        let mut given_up: Vec<(usize, &str)> = Vec::new();
        for (block, (at, row)) in order {
            control.check()?;
            control.progress.at(row.name);
            // A row that hung or cannot be done would do so again, each time for a whole watchdog.
            if !given_up.contains(&(at, row.name)) {
                let condition = &conditions[at];
                let mut settings = plan.sampling.settings(cpus.clone(), false);
                settings.machine = condition.switches.machine;
                let place = Place {
                    id: 0,
                    block,
                    seed: None,
                    cpus: cpus.len() as u32,
                };
                if let Some(journal) = &mut journal {
                    for (setting, value) in &condition.switches.settings {
                        journal.set(setting, value)?;
                    }
                }
                let run = run_row(&kvm, row, &settings, &place);
                journal.as_mut().map_or(Ok(()), Journal::restore)?;
                let mut run = run?;
                run.condition.clone_from(&condition.name);
                if run.outcome != Outcome::Done {
                    given_up.push((at, row.name));
                }
                runs.push(run);
            }
            control.progress.step();
        }
        Ok(runs)
    })?;
    let mut made = [Batch { runs, trace: None }];
    crate::record::number(&mut made);
    let [made] = made;

    let about = About {
        begun_unix_seconds,
        machine: Machine::Host,
        environment: environment(&examination, guest, &allowed, &cpus),
        conditions: conditions.iter().map(Switched::condition).collect(),
        replication,
        amd: kvm.is_amd(),
        warnings: warnings(
            &examination,
            shared_core && rows.iter().any(|row| row.vcpus > 1),
        ),
    };
    Ok(recording(plan, about, made.runs, None))
}
