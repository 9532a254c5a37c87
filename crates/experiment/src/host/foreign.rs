//! Rows under another VMM on this machine: a fresh process of it for each run.

use std::sync::atomic::Ordering;
use std::time::Duration;

use exitpath_exits::{Row, bare};
use exitpath_host::GuestOutcome;
use exitpath_recording::{Condition, Difference, Machine, Recording, Run, fact};
use exitpath_runner::foreign::{self, Limits, Termination, how_it_ended};
use exitpath_runner::{image_output, random_order};
use exitpath_vmm::kick;

use super::environment::{environment, warnings};
use super::place::{Folder, ImagePlace};
use crate::control::{Control, number};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::record::{About, Batch, recording, unix_seconds};
use crate::vmm::{NOT_COUNTED, Ready, Vmm};
use crate::{guest, image_contents};

/// Silences that a VMM may take to the guest's first word, and as many beside one for each row.
const SILENCES: u32 = 10;
/// Samples of a row that fit into one silence: the image says nothing while it takes them.
const SAMPLES_IN_SILENCE: u32 = 1000;

/// Runs the rows in a fresh VMM for each run, in random order within it.
pub(super) fn record(
    plan: &Plan,
    guest: &GuestOutcome,
    replication: u32,
    vmm: &Vmm,
    control: &Control,
) -> Result<Recording> {
    let rows = &plan.rows;
    let ready = vmm.on_host(matches!(guest, GuestOutcome::Interpreted { .. }));
    let condition = Condition {
        name: vmm.name(),
        differs: ready.differs(),
        ..Condition::base()
    };
    let examination = guest::examine(guest.clone());
    let allowed = kick::allowed_cpus()?;
    let begun_unix_seconds = unix_seconds();
    // QEMU opens what its user can. Of another command nobody knows: it may begin in another container,
    // or as another user.
    let place = match vmm {
        Vmm::Qemu(_) => ImagePlace::Memory,
        Vmm::Command(_) => ImagePlace::Folder(Folder::new(&std::env::temp_dir())?),
    };
    let mut started = Started {
        ready: &ready,
        image: image_contents(&plan.sampling, true),
        silence: plan.sampling.watchdog,
        place: &place,
        control,
        given_up: Vec::new(),
    };

    let order = random_order(rows, replication, plan.order_seed);
    let what = format!(
        "{}, {} of the VMM",
        number(rows.len(), "row"),
        number(replication as usize, "start")
    );
    let mut made = control.during(u64::from(replication), &what, || {
        let mut made = Vec::new();
        for (block, of_block) in (0..).zip(order.chunks(rows.len().max(1))) {
            let of_block: Vec<_> = of_block.iter().map(|&(_, row)| row).collect();
            let runs = started.block(&of_block)?.into_iter().map(|run| Run {
                block,
                cpus: allowed.len() as u32,
                condition: condition.name.clone(),
                ..run
            });
            let runs = runs.collect();
            made.push(Batch { runs, trace: None });
            control.progress.step();
        }
        Ok(made)
    })?;
    crate::record::number(&mut made);

    let mut warnings = warnings(&examination, false);
    if let Vmm::Command(_) = vmm {
        warnings.push(
            "vmm: nanoseconds suppose that its guest runs on this machine's KVM and has this \
             machine's TSC; ticks are the guest's own → go by ticks where the command does not \
             use KVM"
                .to_owned(),
        );
    }
    let mut environment = environment(&examination, guest, &allowed, &[]);
    add_vmm(&mut environment.facts, &condition.differs);
    let about = About {
        begun_unix_seconds,
        machine: Machine::Host,
        environment,
        conditions: vec![condition],
        replication,
        // Nobody counts exits here.
        amd: false,
        warnings,
    };
    let runs = made.into_iter().flat_map(|batch| batch.runs).collect();
    Ok(recording(plan, about, runs, None))
}

/// Adds to the facts which VMM a condition has.
pub(crate) fn add_vmm(facts: &mut crate::record::Facts, differs: &[Difference]) {
    for difference in differs {
        if let Difference::Vmm { command, version } = difference {
            facts.insert(fact::VMM_COMMAND.to_owned(), command.as_str().into());
            if let Some(version) = version {
                facts.insert(fact::VMM_VERSION.to_owned(), version.as_str().into());
            }
        }
    }
}

/// What all starts have in common.
struct Started<'a> {
    ready: &'a Ready,
    image: bare::ImageContents,
    silence: Duration,
    place: &'a ImagePlace,
    control: &'a Control,
    /// Rows that hung, each time for a whole silence.
    given_up: Vec<&'static str>,
}

impl Started<'_> {
    /// One run of each row, in this order. Where a row does not end, the others get a VMM of their
    /// own.
    fn block(&mut self, rows: &[&'static Row]) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        let mut rest = rows.to_vec();
        loop {
            rest.retain(|row| !self.given_up.contains(&row.name));
            if rest.is_empty() {
                return Ok(runs);
            }
            let (of_start, hung) = self.start(&rest)?;
            rest.drain(..of_start.len());
            runs.extend(of_start);
            self.given_up.extend(hung);
        }
    }

    /// Starts the VMM once. What it told, and the row in which it told no more.
    fn start(&self, rows: &[&'static Row]) -> Result<(Vec<Run>, Option<&'static str>)> {
        let image = self.place.put(&bare::elf(rows, &self.image))?;
        let start = self.ready.start(
            "the VMM",
            &image.path.display().to_string(),
            &[],
            0,
            self.image.most_text(rows),
        );
        let silence = self.silence * self.image.samples.div_ceil(SAMPLES_IN_SILENCE).max(1);
        let limits = Limits {
            total: silence * (2 * SILENCES + rows.len() as u32),
            first: silence * SILENCES,
            silence,
            text: start.text,
            is_whole: image_output::is_whole,
        };
        let interrupted = &self.control.interrupted;
        let said =
            foreign::run(&start.argv, &limits, interrupted).map_err(|error| Error::VmmStart {
                why: error.to_string(),
            })?;
        if interrupted.load(Ordering::Relaxed) || said.ended == Some(Termination::Interrupted) {
            return Err(Error::Interrupted);
        }
        let how = how_it_ended(
            said.ended.map(|ended| ended.to_string()).as_deref(),
            &said.errors,
        );
        let unusable = |what: String| Error::Told {
            what,
            how: how.clone(),
        };
        let told =
            image_output::so_far(&said.text, rows).map_err(|what| unusable(what.to_string()))?;
        if let Some(Termination::TooLong(_) | Termination::TooMuch(_)) = said.ended {
            // No row's fault: rows that hang are silent.
            return Err(unusable("the VMM did not come to an end".to_owned()));
        }
        let mut runs = told.runs;
        for run in &mut runs {
            run.notes.push(NOT_COUNTED.to_owned());
        }
        match told.midst {
            Some(row) => {
                let what = format!("the VMM told no more of it{how}");
                runs.push(image_output::hung(0, row, what));
            }
            None if runs.len() < rows.len() => {
                return Err(unusable(format!(
                    "the image ended before {} began",
                    rows[runs.len()].name
                )));
            }
            None => {}
        }
        Ok((runs, told.midst))
    }
}
