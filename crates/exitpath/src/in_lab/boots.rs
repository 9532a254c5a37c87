//! The boots of a plan: which there are, running them, and what each brings out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use exitpath_exits::Row;
use exitpath_exits::ladder::is_locking;
use exitpath_host::KernelSays;
use exitpath_lab::Error as LabError;
use exitpath_lab::boot::{Lab, SILENCE, Sink};
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::job::Job;
use exitpath_lab::plugin::Plugin;
use exitpath_lab::windows::{Collector, Expected};
use exitpath_lab::wire::Hello;
use exitpath_recording::{Outcome, Run, Trace};
use exitpath_runner::{Settings, random_order, samples_of};
use indicatif::ProgressBar;

use super::LabMeasurement;
use super::worker::{self, PLAN_FILE, RESULT_FILE, Report, WorkerJob};
use crate::failure::Failure;
use crate::lab::Prepared;

/// Samples of rows whose two vCPUs share the lab's only CPU, at most.
const SHARED_CPU_SAMPLES: u32 = 5;
/// Real time a boot may take, in seconds, unless the user says otherwise. It takes 20.
const BOOT_SECONDS: u64 = 600;
/// Most boots at a time, whatever the machine has: each takes a gigabyte.
const MOST_AT_A_TIME: usize = 8;

type Rows = Vec<&'static Row>;

/// One boot: its seed, its CPUs, and the rows it measures.
#[derive(Clone)]
pub(super) struct Boot {
    pub(super) seed: u64,
    pub(super) cpus: u32,
    pub(super) rows: Vec<&'static Row>,
    pub(super) settings: Settings,
    /// The plugin, where the plan has one and can have it here.
    pub(super) plugin: Option<Plugin>,
}

/// What a boot brought out.
pub(super) struct Booted {
    pub(super) hello: Hello,
    pub(super) says: KernelSays,
    pub(super) report: Report,
    /// Windows are of runs counted from this boot's first.
    pub(super) trace: Option<Trace>,
    /// Why the trace has no reasons of exits, in words.
    pub(super) exits_unread: Option<&'static str>,
}

/// Whether a row belongs on two CPUs. One vCPU that locks is what several are compared with.
pub(crate) fn on_two_cpus(row: &Row) -> bool {
    row.vcpus > 1 || row.cpus > 1 || is_locking(row)
}

/// Rows of one vCPU are measured on one CPU, whatever else is in the table, so that a row's value
/// does not depend on its company. Rows of several vCPUs, those whose vCPU moves, and what they are
/// compared with get a boot with two CPUs where QEMU can, and are never recorded: see [`crate::trace::traceable`].
pub(super) fn plan(plan: &LabMeasurement<'_>, seeds: &[u64], two_cpus: bool) -> Vec<Boot> {
    let rows = plan.rows.iter().copied();
    let (several, single): (Rows, Rows) = rows.partition(|row| on_two_cpus(row));
    let one = &plan.settings;
    let mut kinds = vec![(1, single, one.clone(), plan.plugin)];
    if two_cpus {
        // The emulator's turns between the CPUs fall into some operations, and into more batches the longer
        // these are.
        let settings = Settings {
            batch_length: 4,
            cpus: vec![0, 1],
            ..one.clone()
        };
        kinds.push((2, several, settings, None));
    } else {
        // Every hand-over between two vCPUs that share a CPU takes a time slice of millions
        // of instructions, and pausing does not make it shorter. Rungs do not wait in the guest.
        let (rungs, waiting): (Rows, Rows) =
            several.into_iter().partition(|row| row.rung.is_some());
        let settings = Settings {
            samples: one.samples.min(SHARED_CPU_SAMPLES),
            warm_up: 1,
            batches: 0,
            yielding: false,
            ..one.clone()
        };
        kinds.push((1, waiting, settings, None));
        kinds.push((1, rungs, one.clone(), None));
    }
    kinds.retain(|(_, rows, _, _)| !rows.is_empty());
    let boots = seeds.iter().flat_map(|&seed| {
        kinds
            .iter()
            .map(move |(cpus, rows, settings, plugin)| Boot {
                seed,
                cpus: *cpus,
                rows: rows.clone(),
                settings: settings.clone(),
                plugin: *plugin,
            })
    });
    boots.collect()
}

/// Runs the boots, as many at a time as this machine has CPUs; results in the order of `boots`.
pub(super) fn run_all(
    plan: &LabMeasurement<'_>,
    prepared: &Prepared,
    boots: &[Boot],
    bar: &ProgressBar,
    interrupted: &Arc<AtomicBool>,
) -> Result<Vec<Booted>, Failure> {
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..boots.len()).collect());
    let results: Mutex<Vec<Option<Result<Booted, Failure>>>> =
        Mutex::new(boots.iter().map(|_| None).collect());
    let lock = "no boot panics while it holds a lock";
    let at_a_time = self::at_a_time(boots.len());
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                loop {
                    if failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let Some(index) = queue.lock().expect(lock).pop_front() else {
                        return;
                    };
                    let result = boot_one(plan, prepared, &boots[index], bar);
                    if result.is_err() && !failed.swap(true, Ordering::Relaxed) {
                        // The others' results will not be used: let them end now.
                        interrupted.store(true, Ordering::Relaxed);
                    }
                    results.lock().expect(lock)[index] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().expect(lock);
    let mut booted = Vec::new();
    let mut first = None;
    for result in results.into_iter().flatten() {
        match result {
            Ok(result) => booted.push(result),
            // What made the others stop, rather than that they were stopped.
            Err(Failure::Interrupted) if first.is_some() => {}
            Err(error) if matches!(first, None | Some(Failure::Interrupted)) => first = Some(error),
            Err(_) => {}
        }
    }
    match first {
        Some(error) => Err(error),
        None => Ok(booted),
    }
}

/// How many of so many boots are made at a time.
pub(super) fn at_a_time(boots: usize) -> usize {
    let cpus = thread::available_parallelism().map_or(1, |n| n.get());
    cpus.min(MOST_AT_A_TIME).min(boots)
}

fn no_kvm(hello: Hello) -> LabError {
    LabError::NoKvm {
        release: hello.release,
        refused: hello.refused,
    }
}

/// Shows how far a boot is, and collects its instructions.
struct Follow<'a> {
    bar: &'a ProgressBar,
    collector: Option<Collector>,
    /// What was wrong with the stream first. The boot goes on: its report may say why.
    broken: Option<String>,
}

impl Sink for Follow<'_> {
    /// The worker prints a row's name when it begins it.
    fn stdout(&mut self, bytes: &[u8]) {
        for name in String::from_utf8_lossy(bytes).lines() {
            self.bar.set_message(name.to_owned());
            self.bar.inc(1);
        }
    }

    fn stderr(&mut self, _: &[u8]) {}

    fn instructions(&mut self, bytes: &[u8]) -> Result<(), String> {
        if let (Some(collector), None) = (&mut self.collector, &self.broken) {
            self.broken = collector.push(bytes).err();
        }
        Ok(())
    }
}

/// How a boot ended that did its work.
pub(super) struct CommandResult {
    pub(super) outcome: exitpath_lab::boot::Outcome,
    /// The windows, where they were expected.
    pub(super) collector: Option<Collector>,
    /// What was wrong with the stream first.
    pub(super) broken: Option<String>,
}

/// Boots, and runs this program's hidden command there.
pub(super) fn run_command(
    mut lab: Lab,
    files: Initramfs,
    command: &str,
    expected: Option<Vec<Expected>>,
    bar: &ProgressBar,
) -> Result<CommandResult, Failure> {
    let mut follow = Follow {
        bar,
        collector: expected.map(Collector::new),
        broken: None,
    };
    lab.limit
        .get_or_insert(std::time::Duration::from_secs(BOOT_SECONDS));
    lab.silence.get_or_insert(SILENCE);
    let job = Job {
        argv: vec!["/init".to_owned(), command.to_owned()],
        cwd: "/".to_owned(),
        // Some VMMs keep sockets there. What measures itself has no environment, as ever.
        env: if command == worker::NAME {
            Vec::new()
        } else {
            vec![("HOME".to_owned(), "/run".to_owned())]
        },
        output: Some(RESULT_FILE.to_owned()),
        fixed_addresses: command != worker::NAME,
        ..Job::default()
    };
    let outcome = lab.run(files, job, &mut follow)?;
    if !outcome.hello.kvm {
        return Err(no_kvm(outcome.hello).into());
    }
    if outcome.status != 0 {
        let said = outcome.stderr.trim();
        return Err(Failure::Cannot(format!(
            "measuring in the lab failed: {said}"
        )));
    }
    Ok(CommandResult {
        outcome,
        collector: follow.collector,
        broken: follow.broken,
    })
}

fn boot_one(
    plan: &LabMeasurement<'_>,
    prepared: &Prepared,
    boot: &Boot,
    bar: &ProgressBar,
) -> Result<Booted, Failure> {
    let order: Vec<&'static Row> = random_order(&boot.rows, 1, plan.order_seed)
        .into_iter()
        .map(|(_, row)| row)
        .collect();
    let work = WorkerJob {
        order: order.iter().map(|row| row.name.to_owned()).collect(),
        settings: boot.settings.clone(),
        names: plan.traced,
    };
    let mut files = Initramfs::new();
    files.file(PLAN_FILE, 0o644, work.file())?;
    if let (Some(config), Some(release)) = (&prepared.kernel.config, &prepared.kernel.release) {
        // So that the examination inside finds the configuration where it always is.
        files.file_from(format!("/boot/config-{release}"), config)?;
    }
    let mut lab = prepared.lab(boot.seed, boot.cpus);
    lab.plugin = boot.plugin;
    lab.patches = plan.patches.clone();
    lab.silence = Some(silence(&boot.settings));
    let expected = (boot.plugin == Some(Plugin::Records)).then(|| expected(&order, &boot.settings));
    let CommandResult {
        outcome,
        collector,
        broken,
    } = run_command(lab, files, worker::NAME, expected, bar)?;
    let report = worker::read(&outcome.output).map_err(|error| {
        Failure::Cannot(format!(
            "the lab's result cannot be read ({error}): report this as a bug"
        ))
    })?;
    let exits_unread = collector.as_ref().and_then(Collector::unread);
    let trace = match collector {
        None => None,
        Some(collector) => {
            // A row that did not end as it should has no whole window, and is the better reason.
            // One that this CPU cannot do has none at all, and the others do.
            let skipped = |run: &&Run| matches!(run.outcome, Outcome::Skipped { .. });
            let wrong = |run: &&Run| run.outcome != Outcome::Done && !skipped(run);
            let done: Vec<u32> = (0..)
                .zip(&report.runs)
                .filter(|(_, run)| run.outcome == Outcome::Done)
                .map(|(id, _)| id)
                .collect();
            let failed = report.runs.iter().find(wrong);
            let failed = failed.or(report.runs.first().filter(|_| done.is_empty()));
            if let Some(run) = failed {
                return Err(not_done(run));
            }
            let trace = broken.map_or_else(|| collector.finish(&done), Err);
            Some(trace.map_err(|what| match plan.patches {
                // What is missing is what a patched kernel did not do.
                Some(_) => {
                    Failure::Cannot(format!("the guest did not do what it was told: {what}"))
                }
                None => LabError::Stream { what }.into(),
            })?)
        }
    };
    Ok(Booted {
        hello: outcome.hello,
        says: outcome.says,
        report,
        trace,
        exits_unread,
    })
}

/// Seconds of the lab's clock that may pass while one row is measured, none of which takes as long: what
/// is common to all, what waits for its watchdog, and samples, of which the slowest sleep.
fn silence(settings: &Settings) -> u64 {
    SILENCE + 10 * settings.watchdog.as_secs() + u64::from(settings.samples) / 20
}

/// The windows that a boot should send: one for each row, in their order.
fn expected(order: &[&'static Row], settings: &Settings) -> Vec<Expected> {
    windows(order, |row| samples_of(row, settings))
}

/// The windows of rows of which so many samples are taken.
pub(super) fn windows(order: &[&'static Row], samples: impl Fn(&Row) -> u32) -> Vec<Expected> {
    let window = |(run, row): (u32, &&'static Row)| {
        // The lab's CPU is an AMD one; rows with two programs differ in the operation only.
        let program = row.program(true);
        Expected {
            run,
            clocks: program.clocks.map(|offset| program.address + offset as u64),
            samples: samples(row),
        }
    };
    (0..).zip(order).map(window).collect()
}

pub(crate) fn not_done(run: &Run) -> Failure {
    let why = match &run.outcome {
        Outcome::Done => "done",
        Outcome::Skipped { reason } | Outcome::Fault { reason } | Outcome::Hung { reason } => {
            reason
        }
    };
    Failure::Cannot(format!("{} could not be measured: {why}", run.row))
}
