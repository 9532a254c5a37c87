//! Boots: which ones a condition needs, and what each brings out.

use std::path::PathBuf;
use std::time::Duration;

use exitpath_exits::Row;
use exitpath_exits::ladder::is_locking;
use exitpath_host::KernelSays;
use exitpath_lab::Error as LabError;
use exitpath_lab::boot::{Lab, Plan as Handed, SILENCE, Sink};
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::plugin::Plugin;
use exitpath_lab::windows::{Collector, Expected};
use exitpath_protocol::job::Job;
use exitpath_protocol::wire::Hello;
use exitpath_recording::{Outcome, Run, Trace};
use exitpath_runner::work::{
    PLAN_FILE, RESULT_FILE, VMM, VmmJob, VmmReport, WORKER, WorkerJob, WorkerReport,
};
use exitpath_runner::{Settings, random_order, samples_of};
use flate2::read::GzDecoder;

use super::AMD;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::knobs::Switches;
use crate::plan::Plan;
use crate::rows::on_two_cpus;

/// Samples of rows whose two vCPUs share the lab's only CPU, at most.
const SHARED_CPU_SAMPLES: u32 = 3;
/// Operations in a batch on two CPUs: the emulator's turns between them fall into some operations, and into more
/// batches the longer these are.
const TWO_CPUS_BATCH: u32 = 4;
/// Real time a boot may take unless the user says otherwise. It takes 20 s.
const BOOT_LIMIT: Duration = Duration::from_secs(600);

type Rows = Vec<&'static Row>;

/// A boot that measures rows in VMs of exitpath's own.
#[derive(Debug, Clone)]
pub(super) struct OwnBoot {
    pub(super) cpus: u32,
    pub(super) rows: Rows,
    pub(super) settings: Settings,
    /// Settings of the machine, made before anything is measured.
    pub(super) set: Vec<(PathBuf, String)>,
    /// Whether instructions can be recorded in it.
    pub(super) recordable: bool,
}

impl OwnBoot {
    /// The same where these are switched.
    pub(super) fn switched(&self, switches: &Switches) -> OwnBoot {
        let mut switched = self.clone();
        switched.settings.machine = switches.machine;
        switched.set.clone_from(&switches.settings);
        switched
    }
}

/// Rows of one vCPU are measured on one CPU, whatever else is in the table, so that a row's value
/// does not depend on its company. Rows of several vCPUs, those whose vCPU moves, and what they are
/// compared with get a boot with two CPUs where the emulator can, and are recorded there only.
pub(super) fn own_boots(plan: &Plan, two_cpus: bool) -> Vec<OwnBoot> {
    let one = plan.sampling.settings(vec![0], true);
    let rows = plan.rows.iter().copied();
    let (several, single): (Rows, Rows) = rows.partition(|row| on_two_cpus(row));
    let boot = |cpus, rows, settings| OwnBoot {
        cpus,
        rows,
        settings,
        set: Vec::new(),
        recordable: false,
    };
    let mut boots = vec![OwnBoot {
        recordable: true,
        ..boot(1, single, one.clone())
    }];
    if two_cpus {
        let settings = Settings {
            batch_length: TWO_CPUS_BATCH,
            cpus: vec![0, 1],
            ..one
        };
        // The emulator's turns make every path of several vCPUs that lock another one, 70 MB of them where nobody
        // asked for their paths.
        let (locking, followed): (Rows, Rows) = several
            .into_iter()
            .partition(|row| plan.by_layers && is_locking(row));
        boots.push(OwnBoot {
            recordable: true,
            ..boot(2, followed, settings.clone())
        });
        boots.push(boot(2, locking, settings));
    } else {
        // Every hand-over between two vCPUs that share a CPU takes a time slice of millions
        // of instructions, and pausing does not make it shorter. Rungs do not wait in the guest.
        let (rungs, waiting): (Rows, Rows) =
            several.into_iter().partition(|row| row.rung.is_some());
        let settings = Settings {
            samples: one.samples.min(SHARED_CPU_SAMPLES),
            warm_up: 1,
            batches: 0,
            machine: Default::default(),
            yielding: false,
            ..one.clone()
        };
        boots.push(boot(1, waiting, settings));
        boots.push(boot(1, rungs, one));
    }
    boots.retain(|boot| !boot.rows.is_empty());
    boots
}

/// What a boot brought out.
#[derive(Clone)]
pub(super) struct Booted {
    pub(super) hello: Hello,
    pub(super) says: KernelSays,
    /// What the examination of the lab's machine found.
    pub(super) facts: crate::record::Facts,
    pub(super) kallsyms: Option<String>,
    pub(super) vdso: Option<exitpath_runner::work::Vdso>,
    /// The lab's TSC when a worker had read its plan.
    pub(super) begun_ticks: Option<u64>,
    /// What VMMs printed that were started.
    pub(super) printed: Vec<exitpath_runner::work::Printed>,
    pub(super) runs: Vec<Run>,
    /// Its windows are of runs counted from this boot's first.
    pub(super) trace: Option<Trace>,
    /// Why the trace has no reasons of exits, in words.
    pub(super) exits_unread: Option<&'static str>,
}

/// Measures rows in VMs of exitpath's own.
pub(super) fn own(
    mut lab: Lab,
    boot: &OwnBoot,
    order_seed: u64,
    config: Option<(String, &std::path::Path)>,
    names: bool,
    control: &Control,
) -> Result<Booted> {
    let order: Rows = random_order(&boot.rows, 1, order_seed)
        .into_iter()
        .map(|(_, row)| row)
        .collect();
    let job = WorkerJob {
        order: order.iter().map(|row| row.name.to_owned()).collect(),
        settings: boot.settings.clone(),
        set: boot.set.clone(),
        steps: 0,
        names: false,
        facts: false,
    };
    let mut files = Initramfs::new();
    if let Some((place, config)) = config {
        files.file_from(place, config)?;
    }
    lab.silence = Some(silence(&boot.settings));
    let expected = (lab.plugin == Some(Plugin::Records))
        .then(|| windows(&order, |row| samples_of(row, &boot.settings)));
    let patched = lab.patches.is_some();
    // What is known of the machine beforehand is found out once, in one that does nothing else.
    let (examine, name) = (
        WorkerJob::examine().file(),
        WorkerJob::name_addresses().file(),
    );
    let mut asides = vec![("facts", &*examine)];
    if names {
        asides.push(("names", &*name));
    }
    let does = Does::Measures(Handed {
        bytes: &job.file(),
        asides: &asides,
    });
    let mut ended = recorded(lab, files, does, expected, control)?;
    let report: WorkerReport = read(&ended.outcome.output)?;
    let aside = |at: usize| {
        ended
            .outcome
            .asides
            .get(at)
            .map(|output| read(output))
            .transpose()
    };
    let examined: Option<WorkerReport> = aside(0)?;
    let named: Option<WorkerReport> = aside(1)?;
    let trace = ended.trace(&report.runs, patched)?;
    Ok(Booted {
        hello: ended.outcome.hello,
        says: ended.outcome.says,
        facts: examined.map(|report| report.facts).unwrap_or_default(),
        kallsyms: named.as_ref().and_then(|report| report.kallsyms.clone()),
        vdso: named.and_then(|report| report.vdso),
        begun_ticks: Some(report.begun_ticks),
        printed: Vec::new(),
        runs: report.runs,
        trace,
        exits_unread: ended.exits_unread,
    })
}

/// Starts other VMMs; `runs` makes runs of what they print. Of these `order` says which windows they send.
pub(super) fn foreign(
    lab: Lab,
    mut files: Initramfs,
    job: &VmmJob,
    expected: Option<Vec<Expected>>,
    control: &Control,
    runs: impl FnOnce(&[exitpath_runner::work::Printed]) -> Result<Vec<Run>>,
) -> Result<Booted> {
    let json = serde_json::to_vec(job).expect("plain data always serialises");
    files.file(PLAN_FILE, 0o644, json)?;
    let mut ended = recorded(lab, files, Does::StartsVmms, expected, control)?;
    let report: VmmReport = read(&ended.outcome.output)?;
    let runs = runs(&report.printed)?;
    let trace = ended.trace(&runs, false)?;
    Ok(Booted {
        hello: ended.outcome.hello,
        says: ended.outcome.says,
        facts: report.facts,
        kallsyms: report.kallsyms,
        vdso: report.vdso,
        begun_ticks: None,
        printed: report.printed,
        runs,
        trace,
        exits_unread: ended.exits_unread,
    })
}

/// Measures one row in so many steps, in a lab whose patches are changed before each and behind it: what each brought out. The
/// error comes with the number of the step in which it happened.
pub(super) fn in_steps(
    lab: Lab,
    boot: &OwnBoot,
    steps: u32,
    control: &Control,
) -> std::result::Result<Vec<Booted>, (Error, Option<u32>)> {
    let job = WorkerJob {
        order: boot.rows.iter().map(|row| row.name.to_owned()).collect(),
        settings: boot.settings.clone(),
        set: boot.set.clone(),
        steps,
        names: false,
        facts: false,
    };
    let examine = WorkerJob::examine().file();
    let does = Does::Measures(Handed {
        bytes: &job.file(),
        asides: &[("facts", &*examine)],
    });
    let mut follow = Follow::new(control, None);
    let ended = run_command(lab, Initramfs::new(), does, &mut follow)
        .and_then(|outcome| Ok((read::<WorkerReport>(&outcome.output)?, outcome)));
    let (report, outcome) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            let step = follow.last.rsplit(' ').next();
            return Err((error, step.and_then(|step| step.parse().ok())));
        }
    };
    let examined = outcome
        .asides
        .first()
        .map(|output| read(output))
        .transpose();
    let examined: Option<WorkerReport> = examined.map_err(|error| (error, None))?;
    let facts = examined.map(|report| report.facts).unwrap_or_default();
    let of_run = |run| Booted {
        hello: outcome.hello.clone(),
        says: outcome.says.clone(),
        facts: facts.clone(),
        kallsyms: None,
        vdso: None,
        begun_ticks: Some(report.begun_ticks),
        printed: Vec::new(),
        runs: vec![run],
        trace: None,
        exits_unread: None,
    };
    Ok(report.runs.into_iter().map(of_run).collect())
}

/// Shows how far a boot is, and collects its instructions.
struct Follow<'a> {
    control: &'a Control,
    /// What was begun last.
    last: String,
    collector: Option<Collector>,
    /// What was wrong with the stream first. The boot goes on: its report may say why.
    broken: Option<String>,
}

impl<'a> Follow<'a> {
    fn new(control: &'a Control, expected: Option<Vec<Expected>>) -> Follow<'a> {
        Follow {
            control,
            last: String::new(),
            collector: expected.map(Collector::new),
            broken: None,
        }
    }
}

impl Sink for Follow<'_> {
    /// What runs inside prints what it begins.
    fn stdout(&mut self, bytes: &[u8]) {
        for name in String::from_utf8_lossy(bytes).lines() {
            self.control.progress.at(name);
            self.control.progress.step();
            name.clone_into(&mut self.last);
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
struct Ended {
    outcome: exitpath_lab::boot::Outcome,
    /// The windows, where they were expected.
    collector: Option<Collector>,
    /// What was wrong with the stream first.
    broken: Option<String>,
    exits_unread: Option<&'static str>,
}

impl Ended {
    /// Takes the trace of these runs out, where one was expected.
    fn trace(&mut self, runs: &[Run], patched: bool) -> Result<Option<Trace>> {
        let Some(collector) = self.collector.take() else {
            return Ok(None);
        };
        // A row that did not end as it should has no whole window, and is the better reason.
        // One that this CPU cannot do has none at all, and the others do.
        let skipped = |run: &&Run| matches!(run.outcome, Outcome::Skipped { .. });
        let wrong = |run: &&Run| run.outcome != Outcome::Done && !skipped(run);
        let done: Vec<u32> = (0..)
            .zip(runs)
            .filter(|(_, run)| run.outcome == Outcome::Done)
            .map(|(id, _)| id)
            .collect();
        let failed = runs.iter().find(wrong);
        if let Some(run) = failed.or(runs.first().filter(|_| done.is_empty())) {
            return Err(not_done(run));
        }
        let trace = self
            .broken
            .take()
            .map_or_else(|| collector.finish(&done), Err);
        trace.map(Some).map_err(|what| match patched {
            // What is missing is what a patched kernel did not do.
            true => Error::Disobeyed { what },
            false => LabError::Stream { what }.into(),
        })
    }
}

/// What the program inside does.
#[derive(Clone, Copy)]
enum Does<'a> {
    /// It measures rows by this plan, which it is handed once it is ready.
    Measures(Handed<'a>),
    /// It starts other VMMs, by a plan among its files.
    StartsVmms,
}

/// Boots, and runs a command of the program inside, whose instructions may be recorded.
fn recorded(
    lab: Lab,
    files: Initramfs,
    does: Does<'_>,
    expected: Option<Vec<Expected>>,
    control: &Control,
) -> Result<Ended> {
    let mut follow = Follow::new(control, expected);
    let outcome = run_command(lab, files, does, &mut follow)?;
    let exits_unread = follow.collector.as_ref().and_then(Collector::unread);
    Ok(Ended {
        outcome,
        collector: follow.collector,
        broken: follow.broken,
        exits_unread,
    })
}

/// Boots, and runs a command of the program inside.
fn run_command(
    mut lab: Lab,
    files: Initramfs,
    does: Does<'_>,
    follow: &mut Follow<'_>,
) -> Result<exitpath_lab::boot::Outcome> {
    lab.limit.get_or_insert(BOOT_LIMIT);
    lab.silence.get_or_insert(SILENCE);
    let (command, plan) = match does {
        Does::Measures(plan) => (WORKER, Some(plan)),
        Does::StartsVmms => (VMM, None),
    };
    let own = plan.is_some();
    let job = Job {
        argv: vec!["/init".to_owned(), command.to_owned()],
        cwd: "/".to_owned(),
        // Some VMMs keep sockets there. What measures itself has no environment, as ever.
        env: match own {
            true => Vec::new(),
            false => vec![("HOME".to_owned(), "/run".to_owned())],
        },
        output: Some(RESULT_FILE.to_owned()),
        fixed_addresses: !own,
        ..Job::default()
    };
    let outcome = lab.run(files, job, plan, follow)?;
    if !outcome.hello.kvm {
        return Err(LabError::NoKvm {
            release: outcome.hello.release,
            refused: outcome.hello.refused,
        }
        .into());
    }
    if outcome.status != 0 {
        return Err(Error::Inside {
            said: outcome.stderr.trim().to_owned(),
        });
    }
    Ok(outcome)
}

/// A report of the program inside.
fn read<T: serde::de::DeserializeOwned>(output: &[u8]) -> Result<T> {
    let unpacked = std::io::BufReader::new(GzDecoder::new(output));
    serde_json::from_reader(unpacked).map_err(|error| Error::Report {
        why: error.to_string(),
    })
}

/// Seconds of the lab's clock that may pass while one row is measured, none of which takes as long: what
/// is common to all, what waits for its watchdog, and samples, of which the slowest sleep.
fn silence(settings: &Settings) -> u64 {
    SILENCE + 10 * settings.watchdog.as_secs() + u64::from(settings.samples) / 20
}

/// The windows of rows of which so many samples are taken, in their order.
pub(super) fn windows(order: &[&'static Row], samples: impl Fn(&Row) -> u32) -> Vec<Expected> {
    let window = |(run, row): (u32, &&'static Row)| {
        // Rows with two programs differ in the operation only.
        let program = row.program(AMD);
        Expected {
            run,
            clocks: program.clocks.map(|offset| program.address + offset as u64),
            samples: samples(row),
        }
    };
    (0..).zip(order).map(window).collect()
}

/// The error for a run without which nothing can be made of the rest.
pub(super) fn not_done(run: &Run) -> Error {
    Error::NotDone {
        row: run.row.clone(),
        why: run.outcome.reason().unwrap_or("done").to_owned(),
    }
}
