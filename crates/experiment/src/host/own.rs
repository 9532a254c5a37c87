//! Rows in fresh VMs of exitpath's own on this machine, in random order.

use exitpath_host::{GuestOutcome, Root};
use exitpath_recording::{Condition, Machine, Outcome, Recording};
use exitpath_runner::{Place, random_order, run_row};
use exitpath_vmm::{Kvm, files, kick};

use super::environment::{environment, warnings};
use crate::control::{Control, number};
use crate::error::Result;
use crate::guest;
use crate::plan::Plan;
use crate::record::{About, Batch, recording, unix_seconds};

/// Runs the rows, so many times each.
pub(super) fn record(
    plan: &Plan,
    guest: &GuestOutcome,
    replication: u32,
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
    let settings = plan.sampling.settings(cpus.clone(), false);
    let begun_unix_seconds = unix_seconds();

    let order = random_order(rows, replication, plan.order_seed);
    let what = format!(
        "{}, {} of each",
        number(rows.len(), "row"),
        number(replication as usize, "fresh VM")
    );
    let runs = control.during(order.len() as u64, &what, || {
        let mut runs = Vec::new();
        let mut given_up: Vec<&str> = Vec::new();
        for (block, row) in order {
            control.check()?;
            control.progress.at(row.name);
            // A row that hung or cannot be done would do so again, each time for a whole watchdog.
            if !given_up.contains(&row.name) {
                let place = Place {
                    id: 0,
                    block,
                    seed: None,
                    cpus: cpus.len() as u32,
                };
                let run = run_row(&kvm, row, &settings, &place)?;
                if run.outcome != Outcome::Done {
                    given_up.push(row.name);
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
        conditions: vec![Condition::base()],
        replication,
        amd: kvm.is_amd(),
        warnings: warnings(
            &examination,
            shared_core && rows.iter().any(|row| row.vcpus > 1),
        ),
    };
    Ok(recording(plan, about, made.runs, None))
}
