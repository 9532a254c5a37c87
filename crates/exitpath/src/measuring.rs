//! Recording rows on this machine or in the lab: what `measure`, `userspace` and `kick` have in common.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use exitpath_cli::{self as cli, LabOptions, Measuring, Place};
use exitpath_exits::Row;
use exitpath_experiment::host::{self, Host};
use exitpath_experiment::lab::{Choice, Instructions, Prepared, Session, Setup};
use exitpath_experiment::{self as experiment, Machine, Plan, Sampling, Vmm, choose_machine, rows};
use exitpath_recording::Recording;

use crate::control::control;
use crate::failure::Failure;
use crate::output;

/// Bracketed samples in a run on a host unless the user says otherwise: enough for a 99th percentile.
pub(crate) const HOST_SAMPLES: u32 = 1000;
/// Seeds of a lab that measures, unless the user says otherwise.
pub(crate) const SEEDS: [u64; 3] = [1, 2, 3];

/// Rounds of each row in a comparison, unless the user or a base says otherwise.
pub(crate) const ROUNDS: u32 = 200;
/// Seconds a guest that is traced for a comparison may go without progress.
pub(crate) const WATCHDOG: u64 = 20;

/// What a lab is made of by these options.
pub(crate) fn choice(options: &LabOptions) -> Choice {
    let (kernel, modules) = (options.kernel.clone(), options.modules.clone());
    choice_on(&options.emulator, kernel, modules, options.cmdline.clone())
}

/// The same, of options that several labs have in common.
pub(crate) fn choice_on(
    emulator: &cli::Emulator,
    kernel: Option<String>,
    modules: Option<PathBuf>,
    cmdline: String,
) -> Choice {
    Choice {
        kernel,
        modules,
        cmdline,
        qemu: emulator.qemu.clone(),
        cpu: emulator.cpu.clone(),
        bare_svm: emulator.bare_svm,
        timeout: emulator.timeout.map(Duration::from_secs),
        fresh: emulator.fresh,
    }
}

/// What a command wants recorded.
pub(crate) struct Wanted<'a> {
    pub(crate) command: &'static str,
    pub(crate) rows: Vec<&'static Row>,
    pub(crate) sampling: &'a cli::Sampling,
    /// Bracketed samples in the lab, unless the user says otherwise.
    pub(crate) lab_samples: u32,
    pub(crate) lab: &'a LabOptions,
    /// The VMM to measure under, as the user names it.
    pub(crate) vmm: Option<&'a str>,
    /// Whether instructions are recorded in the lab.
    pub(crate) instructions: Option<Instructions>,
    /// Whether rows are told apart by what the VMM does.
    pub(crate) by_layers: bool,
}

/// Records where the user says, or where it can be done, and keeps the recording.
pub(crate) fn record(
    wanted: Wanted<'_>,
    measuring: &Measuring,
    place: &Place,
) -> Result<(Recording, PathBuf), Failure> {
    let (recording, dir) = measured(wanted, measuring, place)?;
    output::keep(&dir, &recording)?;
    Ok((recording, dir))
}

/// The same, with the folder that the recording is to be kept in.
pub(crate) fn measured(
    wanted: Wanted<'_>,
    measuring: &Measuring,
    place: &Place,
) -> Result<(Recording, PathBuf), Failure> {
    if let Some(limited) = rows::limited(&wanted.rows, wanted.sampling.samples) {
        output::remark(&limited);
    }
    let dir = output::folder(measuring.out.as_deref(), wanted.command)?;
    let control = control();
    let place = experiment::Place {
        on: place.on,
        on_host: place.on_host.clone(),
    };
    let (machine, guest, why) = choose_machine(&place)?;
    let vmm = wanted.vmm.map(Vmm::find).transpose()?;
    let lab = machine == Machine::Lab;
    let (samples, order_seed) = match lab {
        true => (wanted.lab_samples, 1),
        false => (HOST_SAMPLES, unix_seconds()),
    };
    let samples = wanted.sampling.samples.unwrap_or(samples);
    let watchdog = Duration::from_secs(wanted.sampling.watchdog);
    let plan = Plan {
        command: wanted.command,
        rows: wanted.rows,
        sampling: Sampling::measured(samples, watchdog),
        order_seed: wanted.sampling.order_seed.unwrap_or(order_seed),
        by_layers: wanted.by_layers,
    };
    let mut recording = if lab {
        let prepared = Prepared::new(&choice(wanted.lab), &control)?;
        let seeds = wanted.lab.emulator.seeds(&SEEDS);
        let mut session = Session::new(&plan, &seeds, wanted.instructions, &control);
        session.run(vec![match &vmm {
            Some(vmm) => Setup::under(&prepared, vmm),
            None => Setup::base(&prepared),
        }])?;
        session.recording()?
    } else {
        let host = Host {
            guest,
            runs: wanted.sampling.runs,
            vmm: vmm.as_ref(),
        };
        host::record(&plan, &host, &control)?
    };
    if let Some(why) = why {
        output::remark(&why);
        recording.manifest.warnings.insert(0, why);
    }
    Ok((recording, dir))
}

fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
