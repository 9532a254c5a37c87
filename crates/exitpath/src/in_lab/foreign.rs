//! Real VMMs in the lab: the hidden command that starts them there, and the boot around it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use exitpath_exits::Row;
use exitpath_host::{KernelSays, Root, noise_difference, noise_snapshot_on};
use exitpath_lab::boot::Lab;
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::windows::{Collector, Expected};
use exitpath_lab::wire::Hello;
use exitpath_recording::Run;
use exitpath_runner::foreign::Limits;
use exitpath_runner::image_output;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::boots::{self, CommandResult};
use super::worker::{self, PLAN_FILE, RESULT_FILE, Vdso};
use crate::failure::Failure;
use crate::output;

/// The counter that says how many samples may be interrupted ones.
const INTERRUPTS: &str = "host.cpu_interrupts";
/// What a reader should know of a run whose exits nobody counted.
pub(crate) const NOT_COUNTED: &str = "KVM's statistics of another VMM's guest cannot be read in phase with its \
                           rows; `exitpath trace --vmm` counts exits";
/// The hidden command's name.
pub(crate) const NAME: &str = "vmm-in-lab";

/// What the examination of the lab's machine found.
pub(crate) type Facts = BTreeMap<String, serde_json::Value>;

/// A VMM to be started in the lab, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// What it is for, shown while it runs.
    pub(crate) title: String,
    /// Program and arguments, as they are in the lab.
    pub(crate) argv: Vec<String>,
    /// Seconds of the lab's time it may take.
    pub(crate) seconds: u64,
    /// Bytes it may print.
    pub(crate) text: usize,
}

/// What one boot does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VmmJob {
    /// One after the other.
    pub(crate) starts: Vec<Start>,
    /// Whether the kernel's symbols are wanted.
    pub(crate) names: bool,
}

/// Ticks of the lab's clock (instructions) between two of its timer's interrupts, at Linux's
/// highest rate of 1000 Hz.
const SHORTEST_TICK: u64 = 1_000_000;

/// No more interrupts than this can have hit a run's samples: the lab's timer ticks by its clock,
/// and one or two come by chance. What was counted is of the VMM's whole life.
fn most_interrupts(run: &Run) -> i64 {
    let ticks: u64 = run
        .samples
        .iter()
        .map(|sample| sample.empty + sample.op)
        .sum();
    i64::try_from(ticks / SHORTEST_TICK + 2).unwrap_or(i64::MAX)
}

/// What came of one start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Printed {
    /// Its standard output: the guest's serial port.
    pub(crate) text: String,
    /// Its standard error.
    pub(crate) errors: String,
    /// How it ended, where that was not by itself.
    pub(crate) ended: Option<String>,
    /// `/proc/PID/maps` while it ran.
    pub(crate) maps: String,
    /// Interrupts of the lab's machine meanwhile, its timer's included.
    pub(crate) interrupts: Option<i64>,
}

/// What one boot brings out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VmmReport {
    pub(crate) printed: Vec<Printed>,
    pub(crate) facts: Facts,
    pub(crate) kallsyms: Option<String>,
    pub(crate) vdso: Option<Vdso>,
}

/// What a boot brought out.
pub(crate) struct VmmBooted {
    pub(crate) hello: Hello,
    pub(crate) says: KernelSays,
    pub(crate) report: VmmReport,
    pub(crate) collector: Option<Collector>,
    pub(crate) broken: Option<String>,
}

/// Boots a lab in which these VMMs are started, with `files` to run them.
pub(crate) fn boot(
    lab: Lab,
    mut files: Initramfs,
    plan: &VmmJob,
    expected: Option<Vec<Expected>>,
    bar: &ProgressBar,
) -> Result<VmmBooted, Failure> {
    let json = serde_json::to_vec(plan).expect("plain data always serialises");
    files.file(PLAN_FILE, 0o644, json)?;
    let CommandResult {
        outcome,
        collector,
        broken,
    } = boots::run_command(lab, files, NAME, expected, bar)?;
    let report = serde_json::from_reader(BufReader::new(GzDecoder::new(&*outcome.output)));
    let report = report.map_err(|error| {
        Failure::Cannot(format!(
            "the lab's result cannot be read ({error}): report this as a bug"
        ))
    })?;
    Ok(VmmBooted {
        hello: outcome.hello,
        says: outcome.says,
        report,
        collector,
        broken,
    })
}

/// The hidden command.
pub(crate) fn run() -> Result<(), Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::Usage(format!(
            "{NAME} is for the lab's own use ({PLAN_FILE}: {error})"
        ))
    };
    let plan = std::fs::read(PLAN_FILE).map_err(|error| broken(&error))?;
    let plan: VmmJob = serde_json::from_slice(&plan).map_err(|error| broken(&error))?;
    let mut printed = Vec::new();
    for start in &plan.starts {
        output::print(&start.title)?;
        printed.push(one(start)?);
    }
    let facts = exitpath_host::examine(&Root::default(), None).facts;
    let kallsyms = plan.names.then(worker::kallsyms).transpose()?;
    let report = VmmReport {
        printed,
        facts,
        kallsyms,
        vdso: plan.names.then(worker::vdso).flatten(),
    };
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::Cannot(format!("cannot write {RESULT_FILE}: {error}"))
    };
    let file = File::create(RESULT_FILE).map_err(|error| cannot(&error))?;
    let mut packed = GzEncoder::new(file, Compression::fast());
    serde_json::to_writer(BufWriter::new(&mut packed), &report).map_err(|error| cannot(&error))?;
    packed.finish().map_err(|error| cannot(&error))?;
    Ok(())
}

/// Starts a VMM and waits for its end, or ends it.
fn one(start: &Start) -> Result<Printed, Failure> {
    let before = noise_snapshot_on(&Root::default(), 0);
    let total = Duration::from_secs(start.seconds);
    // The lab's time is not the guest's: only the whole of it is limited.
    let limits = Limits {
        total,
        first: total,
        silence: total,
        text: start.text,
        is_whole: image_output::is_whole,
    };
    let said = exitpath_runner::foreign::run(&start.argv, &limits, &AtomicBool::new(false))
        .map_err(Failure::Cannot)?;
    let after = noise_snapshot_on(&Root::default(), 0);
    Ok(Printed {
        text: said.text,
        errors: said.errors,
        ended: said.ended.map(|ended| ended.to_string()),
        maps: said.maps,
        interrupts: noise_difference(&before, &after).remove(INTERRUPTS),
    })
}

impl Printed {
    /// What the image said, as the runs of these rows. Where it did not say all, the row in the
    /// midst of which it ended hung, and of those behind it that is told.
    ///
    /// # Errors
    /// Where it said nothing, or what it never should, and how the VMM ended, in words.
    pub(crate) fn runs(&self, rows: &[&'static Row]) -> Result<Vec<Run>, String> {
        let how = self.how_it_ended();
        let told = image_output::so_far(&self.text, rows).map_err(|what| format!("{what}{how}"))?;
        let mut runs = told.runs;
        for run in &mut runs {
            run.notes.push(NOT_COUNTED.to_owned());
            let interrupts = self
                .interrupts
                .map(|number| (INTERRUPTS.to_owned(), number.min(most_interrupts(run))));
            run.counters.extend(interrupts);
        }
        for row in &rows[runs.len()..] {
            let what = if told.midst == Some(row.name) {
                "the VMM told no more of it"
            } else {
                "the VMM ended before it began"
            };
            runs.push(image_output::hung(
                runs.len() as u32,
                row.name,
                format!("{what}{how}"),
            ));
        }
        Ok(runs)
    }

    /// How the VMM ended where that was not by itself, and the last it complained of; a message's
    /// end.
    pub(crate) fn how_it_ended(&self) -> String {
        exitpath_runner::foreign::how_it_ended(self.ended.as_deref(), &self.errors)
    }
}
