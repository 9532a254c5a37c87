//! `exitpath trace`: the exact path of one exit.

mod view;
mod vmm;
mod without;

use std::path::Path;
use std::time::Duration;

use exitpath_analysis::path::Incomparable;
use exitpath_exits::Row;
use exitpath_lab::gdb::Patches;
use exitpath_lab::plugin::Plugin;
use exitpath_recording::Recording;
use exitpath_runner::Settings;

use crate::cli::{LabOptions, PluginUse, Trace};
use crate::failure::Failure;
use crate::in_lab::vmm::Vmm;
use crate::in_lab::{self, LabMeasurement};
use crate::lab::Prepared;
use crate::{image, interrupt, output, rows};

pub(crate) use view::phases;

/// Iterations before the first round that is recorded.
const WARM_UP: u32 = 64;

pub(crate) fn run(args: &Trace) -> Result<(), Failure> {
    if args.view.list_phases {
        return output::print(view::built_in());
    }
    let phases = phases(args.view.phases.as_deref())?;
    view::check_files(&args.view)?;
    if let Some(dir) = &args.recording {
        let recording = open(dir)?;
        return view::show(&recording, None, &args.rows, dir, &phases, &args.view);
    }
    let dir = output::folder(args.out.as_deref(), "trace")?;
    let vmm = args.vmm.as_deref().map(Vmm::find).transpose()?;
    let rows = match &args.vmm {
        Some(_) => image::choose(&args.rows)?,
        None => rows::choose(&args.rows)?,
    };
    traceable(&rows)?;
    view::check_one_row(&args.view, rows.len())?;
    if !args.without.is_empty() {
        comparable(&rows)?;
    }
    let interrupted = interrupt::flag();
    let prepared = Prepared::new(&args.lab, &interrupted)?;
    let job = Job {
        rows: &rows,
        rounds: args.rounds,
        seeds: args.lab.emulator.seeds(&[1]),
        watchdog: args.watchdog,
        plugin: match args.plugin {
            PluginUse::Absent => None,
            PluginUse::Idles => Some(Plugin::Idles),
            PluginUse::Records => Some(Plugin::Records),
        },
        patches: None,
        vmlinux: args.view.vmlinux.as_deref(),
    };
    if let Some(vmm) = &vmm {
        return vmm::run(args, vmm, &job, &dir, &phases, &prepared, &interrupted);
    }
    let recording = job.record("trace", &args.lab, &prepared, &interrupted)?;
    output::keep(&dir, &recording)?;
    if recording.trace.is_none() {
        return output::print(&format!("recording: {}", dir.display()));
    }
    if args.without.is_empty() {
        return view::show(&recording, None, &[], &dir, &phases, &args.view);
    }
    without::run(args, &job, &recording, &phases, &prepared, &interrupted)?;
    output::print(&format!("recording, with them: {}", dir.display()))
}

/// A trace to be made.
pub(crate) struct Job<'a> {
    pub(crate) rows: &'a [&'static Row],
    pub(crate) rounds: u32,
    pub(crate) seeds: Vec<u64>,
    /// In seconds.
    pub(crate) watchdog: u64,
    pub(crate) plugin: Option<Plugin>,
    pub(crate) patches: Option<Patches>,
    /// Kernel with debug information, if the user names one.
    pub(crate) vmlinux: Option<&'a Path>,
}

impl Job<'_> {
    /// Boots, traces, and names what ran.
    pub(crate) fn record(
        &self,
        command: &'static str,
        options: &LabOptions,
        prepared: &Prepared,
        interrupted: &std::sync::Arc<std::sync::atomic::AtomicBool>,
    ) -> Result<Recording, Failure> {
        let plan = LabMeasurement {
            command,
            rows: self.rows,
            settings: Settings {
                samples: self.rounds,
                warm_up: WARM_UP,
                batches: 0,
                batch_length: 0,
                watchdog: Duration::from_secs(self.watchdog),
                cpus: vec![0],
                yielding: true,
            },
            order_seed: 1,
            seeds: self.seeds.clone(),
            plugin: self.plugin,
            patches: self.patches.clone(),
            vmlinux: self.vmlinux,
            traced: true,
        };
        in_lab::record(&plan, options, prepared, interrupted)
    }
}

/// Refuses rows of which it is known that there is no path to show.
pub(crate) fn traceable(rows: &[&'static Row]) -> Result<(), Failure> {
    for row in rows {
        if row.exits.1 == 0.0 {
            return Err(Failure::Usage(format!(
                "{} makes no exit, so there is no path to trace: {}",
                row.name, row.operation
            )));
        }
        // See the plugin: its CPU index means nothing where QEMU runs several in one thread.
        if in_lab::on_two_cpus(row) {
            return Err(Failure::Usage(format!(
                "{} needs two {}, and QEMU does not tell its plugins which of two CPUs executes \
                 an instruction (thread=single): rows with one vCPU can be traced",
                row.name,
                if row.vcpus > 1 { "vCPUs" } else { "CPUs" },
            )));
        }
    }
    Ok(())
}

/// Refuses rows whose paths cannot be held against each other.
pub(crate) fn comparable(rows: &[&'static Row]) -> Result<(), Failure> {
    match rows.iter().find(|row| row.surrounded) {
        Some(row) => Err(Failure::Usage(
            Incomparable::Surrounded(row.name.to_owned()).to_string(),
        )),
        None => Ok(()),
    }
}

/// Reads a recording that has a trace.
pub(crate) fn open(dir: &Path) -> Result<Recording, Failure> {
    let recording = exitpath_store::read(dir).map_err(|error| Failure::Usage(error.to_string()))?;
    if recording.trace.is_none() {
        return Err(Failure::Usage(format!(
            "{} has no instructions: it was made by `exitpath {}`, and `exitpath trace` records them",
            dir.display(),
            recording.manifest.command
        )));
    }
    Ok(recording)
}
