//! `exitpath trace ROW --vmm …`: the exact path through a real VMM.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use exitpath_analysis::path::{PhaseTable, RowPath};
use exitpath_exits::bare;
use exitpath_recording::{Manifest, Recording};
use exitpath_report::{Style, text};

use super::{Job, WARM_UP, view};
use crate::cli::Trace;
use crate::failure::Failure;
use crate::in_lab::vmm::{COMMAND, UnderVmm, Vmm, record};
use crate::lab::Prepared;
use crate::output;

/// Traces the rows under a VMM, and under exitpath's own beside it, and shows both.
pub(super) fn run(
    args: &Trace,
    vmm: &Vmm,
    job: &Job<'_>,
    dir: &Path,
    phases: &PhaseTable,
    prepared: &Prepared,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let own_dir = own_dir(dir);
    exitpath_store::check_writable(&own_dir).map_err(|error| Failure::Usage(error.to_string()))?;
    let under = UnderVmm {
        command: "trace",
        rows: job.rows,
        image: bare::ImageContents {
            samples: job.rounds,
            warm_up: WARM_UP,
            batches: 0,
            batch_length: 0,
            multiboot: true,
        },
        seeds: job.seeds.clone(),
        plugin: job.plugin,
        vmlinux: job.vmlinux,
    };
    let ended = |result: Result<Recording, Failure>| {
        if result.is_err() {
            // The other one will not be used: let it end now.
            interrupted.store(true, Ordering::Relaxed);
        }
        result
    };
    let (theirs, own) = thread::scope(|scope| {
        let own = scope.spawn(|| ended(job.record("trace", &args.lab, prepared, interrupted)));
        let theirs = ended(record(&under, vmm, &args.lab, prepared, interrupted));
        (theirs, own.join().expect("tracing does not panic"))
    });
    let (recording, own) = match (theirs, own) {
        (Ok(recording), Ok(own)) => (recording, own),
        // What made the other one stop, rather than that it was stopped.
        (Err(Failure::Interrupted), Err(error)) | (Err(error), _) | (_, Err(error)) => {
            return Err(error);
        }
    };
    for (dir, recording) in [(dir, &recording), (&*own_dir, &own)] {
        output::keep(dir, recording)?;
    }
    if recording.trace.is_none() {
        return output::print(&format!("recording: {}", dir.display()));
    }
    view::show(&recording, Some(&own), &[], dir, phases, &args.view)?;
    output::remark(&format!(
        "the same under exitpath's own VMM: {}",
        own_dir.display()
    ));
    Ok(())
}

/// Where the recording under exitpath's own VMM goes: beside the other one.
fn own_dir(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push("-own-vmm");
    dir.with_file_name(name)
}

/// The VMM that a recording was made under, where that is not exitpath's own.
pub(super) fn of(manifest: &Manifest) -> Option<&str> {
    manifest.environment.facts.get(COMMAND)?.as_str()
}

/// Whose code the round runs through.
pub(super) fn parts(vmm: &str, path: &RowPath, own: Option<&RowPath>, style: &Style) -> String {
    let program = vmm.split_whitespace().next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    let mut columns = vec![(name, path)];
    columns.extend(own.map(|own| ("exitpath's own VMM", own)));
    let table = text::parts_of(&columns).laid_out(style);
    format!("\n{table}under: {vmm}\n")
}
