//! Measuring under a real VMM on this machine: a fresh process of it for each run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exitpath_exits::{Row, bare};
use exitpath_host::GuestOutcome;
use exitpath_recording::{Machine, Manifest, Plan, Recording, Run};
use exitpath_runner::foreign::{self, Ended, Limits, how_it_ended};
use exitpath_runner::{random_order, row_info, told};
use exitpath_vmm::kick;

use super::host::{self, HostPlan, SAMPLES};
use super::{BATCH_LENGTH, BATCHES};
use crate::failure::Failure;
use crate::in_lab::foreign::NOT_COUNTED;
use crate::in_lab::vmm::{COMMAND, Ready, VERSION, Vmm};
use crate::{doctor, output, provenance};

/// Silences that a VMM may take to the guest's first word, and as many beside one for each row.
const SILENCES: u32 = 10;

/// Runs the rows in a fresh VMM for each run, in random order within it.
pub(super) fn measure(
    plan: &HostPlan<'_>,
    vmm: &str,
    guest: &GuestOutcome,
    interrupted: &AtomicBool,
) -> Result<Recording, Failure> {
    let HostPlan {
        command,
        rows,
        sampling,
    } = *plan;
    let vmm = Vmm::find(vmm)?;
    let ready = vmm.on_host(matches!(guest, GuestOutcome::Interpreted { .. }));
    let examination = doctor::examine(guest.clone());
    let allowed = kick::allowed_cpus()?;
    let order_seed = sampling.order_seed.unwrap_or_else(provenance::unix_seconds);
    let begun_unix_seconds = provenance::unix_seconds();
    let samples = sampling.samples.unwrap_or(SAMPLES);
    let folder = Folder::new()?;
    let mut started = Started {
        ready: &ready,
        image: super::image_plan(samples, true),
        silence: Duration::from_secs(sampling.watchdog),
        folder: &folder.0,
        interrupted,
        given_up: Vec::new(),
    };

    let order = random_order(rows, sampling.runs, order_seed);
    let what = format!("{} rows, {} starts of the VMM", rows.len(), sampling.runs);
    let bar = output::progress(u64::from(sampling.runs), &what);
    let mut runs = Vec::new();
    for (block, of_block) in (0..).zip(order.chunks(rows.len().max(1))) {
        let of_block: Vec<_> = of_block.iter().map(|&(_, row)| row).collect();
        for run in started.block(&of_block)? {
            runs.push(Run {
                id: runs.len() as u32,
                block,
                cpus: allowed.len() as u32,
                ..run
            });
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut warnings = host::warnings(&examination, false);
    if let Vmm::Command(_) = vmm {
        warnings.push(
            "vmm: nanoseconds suppose that its guest runs on this machine's KVM and has this \
             machine's TSC; ticks are the guest's own → go by ticks where the command does not \
             use KVM"
                .to_owned(),
        );
    }
    let mut environment = host::environment(&examination, guest, &allowed, &[]);
    let facts = &mut environment.facts;
    facts.insert(COMMAND.to_owned(), ready.command().into());
    if let Some(version) = &ready.version {
        facts.insert(VERSION.to_owned(), version.as_str().into());
    }
    Ok(Recording {
        manifest: Manifest {
            command: command.to_owned(),
            begun_unix_seconds,
            machine: Machine::Host,
            environment,
            plan: Plan {
                runs: sampling.runs,
                samples,
                batches: BATCHES,
                batch_length: BATCH_LENGTH,
                order_seed,
            },
            // Nobody counts exits here.
            rows: rows.iter().map(|row| row_info(row, false)).collect(),
            warnings,
        },
        runs,
        trace: None,
    })
}

/// What all starts have in common.
struct Started<'a> {
    ready: &'a Ready,
    image: bare::Plan,
    silence: Duration,
    folder: &'a Path,
    interrupted: &'a AtomicBool,
    /// Rows that hung, each time for a whole silence.
    given_up: Vec<&'static str>,
}

impl Started<'_> {
    /// One run of each row, in this order. Where a row does not end, the others get a VMM of their
    /// own.
    fn block(&mut self, rows: &[&'static Row]) -> Result<Vec<Run>, Failure> {
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
    fn start(&self, rows: &[&'static Row]) -> Result<(Vec<Run>, Option<&'static str>), Failure> {
        let image = self.folder.join("image.elf");
        std::fs::write(&image, bare::elf(rows, &self.image)).map_err(|error| {
            Failure::Cannot(format!("cannot write {}: {error}", image.display()))
        })?;
        let start = self.ready.start(
            "the VMM",
            &image.display().to_string(),
            &[],
            0,
            self.image.most_text(rows),
        );
        // The image says nothing while it takes a row's samples.
        let silence = self.silence * self.image.samples.div_ceil(SAMPLES).max(1);
        let limits = Limits {
            total: silence * (2 * SILENCES + rows.len() as u32),
            first: silence * SILENCES,
            silence,
            text: start.text,
            is_whole: told::is_whole,
        };
        let said = foreign::run(&start.argv, &limits, self.interrupted).map_err(|what| {
            Failure::Usage(format!(
                "--vmm: {what}; name a program that this machine has"
            ))
        })?;
        if self.interrupted.load(Ordering::Relaxed) || said.ended == Some(Ended::Interrupted) {
            return Err(Failure::Interrupted);
        }
        let how = how_it_ended(
            said.ended.map(|ended| ended.to_string()).as_deref(),
            &said.errors,
        );
        let told = told::so_far(&said.text, rows)
            .map_err(|what| Failure::Cannot(format!("{what}{how}")))?;
        if let Some(Ended::TooLong(_) | Ended::TooMuch(_)) = said.ended {
            // No row's fault: rows that hang are silent.
            let never = "the VMM did not come to an end";
            return Err(Failure::Cannot(format!("{never}{how}")));
        }
        let mut runs = told.runs;
        for run in &mut runs {
            run.notes.push(NOT_COUNTED.to_owned());
        }
        match told.midst {
            Some(row) => {
                let what = format!("the VMM told no more of it{how}");
                runs.push(told::hung(0, row, what));
            }
            None if runs.len() < rows.len() => {
                return Err(Failure::Cannot(format!(
                    "the image ended before {} began{how}",
                    rows[runs.len()].name
                )));
            }
            None => {}
        }
        Ok((runs, told.midst))
    }
}

/// A folder for the image, which goes with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Result<Folder, Failure> {
        let unique = format!("exitpath-{}-image", std::process::id());
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir(&path).map_err(|error| {
            Failure::Cannot(format!(
                "cannot make the folder {}: {error}; set TMPDIR to one that can be written",
                path.display()
            ))
        })?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
