//! `exitpath measure`: the table of exits.

pub(crate) mod host;
mod host_vmm;
mod kvm_unit_tests;
mod lab;

use std::path::Path;
use std::time::Duration;

use exitpath_analysis::table::{RowSummary, Verdict, summarise};
use exitpath_host::GuestOutcome;
use exitpath_recording::Recording;
use exitpath_runner::Settings;
use host::HostMeasurement;

use crate::cli::{Measure, On, Place, Sampling};
use crate::failure::Failure;
use crate::{doctor, image, interrupt, output, rows, show};

/// Repetitions of the batch estimator in a run.
const BATCHES: u32 = 8;
/// Operations in its shorter batch.
const BATCH_LENGTH: u32 = 16;
/// Iterations before the first sample that counts.
const WARM_UP: u32 = 64;

pub(crate) fn run(args: &Measure, place: &Place) -> Result<(), Failure> {
    if args.list {
        return output::print(&rows::list());
    }
    if let Some(dir) = &args.kvm_unit_tests {
        return kvm_unit_tests::run(args, dir, &interrupt::flag());
    }
    let rows = match &args.vmm {
        Some(_) => image::choose(&args.rows)?,
        None => rows::choose(&args.rows)?,
    };
    if let Some(limited) = rows::limited(&rows, args.sampling.samples) {
        output::remark(&limited);
    }
    let dir = output::folder(args.measuring.out.as_deref(), "measure")?;
    let interrupted = interrupt::flag();

    let (machine, guest, why) = choose_machine(place)?;
    let mut recording = match machine {
        On::Host => {
            let plan = HostMeasurement {
                command: "measure",
                rows: &rows,
                sampling: &args.sampling,
            };
            match &args.vmm {
                Some(vmm) => host_vmm::measure(&plan, vmm, &guest, &interrupted)?,
                None => host::measure(&plan, &guest, &interrupted)?,
            }
        }
        On::Lab => lab::measure(args, &rows, &interrupted)?,
    };
    keep(&mut recording, why, &dir)?;
    let rows = summarise(&recording);
    show::table(&recording, &rows, &dir, args.measuring.json)?;
    check(&rows)
}

/// Writes a recording, with the reason for measuring where nobody asked to, if there is one.
pub(crate) fn keep(
    recording: &mut Recording,
    why: Option<String>,
    dir: &Path,
) -> Result<(), Failure> {
    if let Some(why) = why {
        output::remark(&why);
        recording.manifest.warnings.insert(0, why);
    }
    output::keep(dir, recording)
}

/// A measurement in which every named row failed is an error, not a table.
fn check(rows: &[RowSummary]) -> Result<(), Failure> {
    let failed = |verdict| matches!(verdict, Verdict::Skipped | Verdict::Void);
    if !rows.is_empty()
        && rows
            .iter()
            .all(|row| failed(row.verdict) && row.figures.is_none())
    {
        let first = &rows[0];
        let why = first.notes.first().map_or("", String::as_str);
        return Err(Failure::Cannot(format!(
            "no row could be measured; {}: {why}",
            first.row.name
        )));
    }
    Ok(())
}

/// Host where guests really run on the CPU, else lab; and the reason where nobody asked.
pub(crate) fn choose_machine(place: &Place) -> Result<(On, GuestOutcome, Option<String>), Failure> {
    let on = place.on;
    if on == Some(On::Lab) {
        return Ok((On::Lab, GuestOutcome::NoDevice, None));
    }
    let guest = doctor::check_guest();
    let why = match &guest {
        GuestOutcome::OnCpu { .. } => return Ok((On::Host, guest, None)),
        GuestOutcome::Interpreted {
            ticks_per_iteration,
            ..
        } => format!(
            "guests do not run on this machine's CPU (an instruction takes \
             {ticks_per_iteration:.0} ticks: something interprets them)"
        ),
        GuestOutcome::NoDevice => "this machine has no /dev/kvm".to_owned(),
        GuestOutcome::NoPermission => "no permission to open /dev/kvm".to_owned(),
        GuestOutcome::Failed { reason } => format!("this machine's KVM does not work: {reason}"),
    };
    match (on, &guest) {
        (Some(On::Host), GuestOutcome::Interpreted { .. } | GuestOutcome::Failed { .. }) => Ok((
            On::Host,
            guest,
            Some(format!("{why}; times are no exit times")),
        )),
        (Some(On::Host), GuestOutcome::NoPermission) => Err(Failure::Cannot(format!(
            "{why}: {}; or use --on lab",
            exitpath_host::to_open_kvm(&exitpath_host::Root::default())
        ))),
        (Some(On::Host), GuestOutcome::NoDevice) => Err(Failure::Cannot(format!(
            "{why}: {}; or use --on lab",
            exitpath_host::to_have_kvm(&exitpath_host::Root::default())
        ))),
        // Opening it again says what to do.
        (Some(On::Host), _) => match exitpath_vmm::Kvm::open() {
            Err(error) => Err(error.into()),
            Ok(_) => Ok((On::Host, guest, None)),
        },
        _ => {
            place.lab_because(&why)?;
            let why = format!("{why}: measured in the lab, in instructions");
            Ok((On::Lab, guest, Some(why)))
        }
    }
}

/// How much of each row one run has.
pub(crate) fn settings(
    sampling: &Sampling,
    samples: u32,
    cpus: Vec<usize>,
    yielding: bool,
) -> Settings {
    Settings {
        samples,
        warm_up: WARM_UP,
        batches: BATCHES,
        batch_length: BATCH_LENGTH,
        watchdog: Duration::from_secs(sampling.watchdog),
        cpus,
        yielding,
    }
}

/// How much an image for another VMM measures of each row.
pub(crate) fn image_plan(samples: u32, multiboot: bool) -> exitpath_exits::bare::ImageContents {
    exitpath_exits::bare::ImageContents {
        samples,
        warm_up: WARM_UP,
        batches: BATCHES,
        batch_length: BATCH_LENGTH,
        multiboot,
    }
}
