//! `exitpath trace ROW --vmm …`: the exact path through a real VMM.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use exitpath_analysis::path::{PhaseTable, RowPath};
use exitpath_exits::bare;
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::plugin::Plugin;
use exitpath_lab::qemu::Qemu;
use exitpath_lab::{vmm_files, windows};
use exitpath_recording::{
    Environment, Machine, Manifest, Outcome, Plan, Recording, Run, Sample,
};
use exitpath_report::text;
use exitpath_runner::row_info;

use super::{Job, WARM_UP, view};
use crate::cli::{LabOptions, Trace};
use crate::failure::Failure;
use crate::in_lab::foreign::{self, Start, VmmPlan};
use crate::in_lab::names;
use crate::lab::Prepared;
use crate::{output, provenance};

/// Among the facts: the VMM's command, as in the lab.
const COMMAND: &str = "vmm.command";
/// Among the facts: its version, where it says one.
const VERSION: &str = "vmm.version";
const IMAGE: &str = "/vmm/image";
const SECONDS: u64 = 60;

fn parse(text: &str) -> Vec<Run> {
    let mut runs = Vec::new();
    for line in text.lines() {
        let Some(line) = line.strip_prefix("xp1 ") else { continue };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[1] {
            "row" => runs.push(Run {
                id: runs.len() as u32, row: words[3].to_owned(), block: 0, seed: None, cpus: 1,
                outcome: Outcome::Done, notes: vec![], ops: 0, userspace_exits: 0, counters: BTreeMap::new(), samples: vec![], batches: vec![],
            }),
            "samples" => {
                for w in &words[2..words.len() - 1] {
                    let (pair, n) = w.split_once('*').unwrap_or((w, "1"));
                    let (e, o) = pair.split_once(',').unwrap();
                    for _ in 0..n.parse::<u32>().unwrap() {
                        runs.last_mut().unwrap().samples.push(Sample { empty: e.parse().unwrap(), op: o.parse().unwrap() });
                    }
                }
            }
            _ => {}
        }
    }
    runs
}

/// Traces the rows under a VMM, and under exitpath's own beside it, and shows both.
pub(super) fn run(
    args: &Trace,
    vmm: &str,
    job: &Job<'_>,
    dir: &Path,
    phases: &PhaseTable,
    prepared: &Prepared,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let own_dir = own_dir(dir);
    exitpath_recording::check_writable(&own_dir)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let ended = |result: Result<Recording, Failure>| {
        if result.is_err() {
            // The other one will not be used: let it end now.
            interrupted.store(true, Ordering::Relaxed);
        }
        result
    };
    let (theirs, own) = thread::scope(|scope| {
        let own = scope.spawn(|| ended(job.record("trace", &args.lab, prepared, interrupted)));
        let theirs = ended(record(job, vmm, &args.lab, prepared));
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
        exitpath_recording::write(dir, recording)
            .map_err(|error| Failure::Cannot(error.to_string()))?;
    }
    if recording.trace.is_none() {
        return output::print(&format!("recording: {}", dir.display()));
    }
    view::show(&recording, Some(&own), &[], dir, phases, &args.view)
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
pub(super) fn parts(vmm: &str, path: &RowPath, own: Option<&RowPath>) -> String {
    let program = vmm.split_whitespace().next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    let mut columns = vec![(name, path)];
    columns.extend(own.map(|own| ("exitpath's own VMM", own)));
    let table = text::parts_of(&columns);
    format!("\n{table}\nunder: {vmm}\n")
}

fn record(
    job: &Job<'_>,
    vmm: &str,
    options: &LabOptions,
    prepared: &Prepared,
) -> Result<Recording, Failure> {
    let begun_unix_seconds = provenance::unix_seconds();
    let _ = vmm;
    let image = bare::Plan { samples: job.rounds, warm_up: WARM_UP, batches: 0, batch_length: 0, multiboot: true };
    let qemu = match std::env::var("VQ") { Ok(p) => Qemu::at(Path::new(&p))?, _ => Qemu::at(Path::new("/usr/bin/qemu-system-x86_64"))? };
    let mut files = Initramfs::new();
    let vmm = vmm_files::add_qemu(&mut files, &qemu)?;
    files.file(IMAGE, 0o644, bare::elf(job.rows, &image))?;
    let mut argv = vec![vmm.program.display().to_string()];
    argv.extend(vmm.arguments.clone());
    argv.extend("-nodefaults -no-user-config -display none -no-reboot -machine pc,accel=kvm -cpu host -m 128 -smp 1 -device isa-debug-exit,iobase=0xf4,iosize=4 -serial stdio -kernel".split(' ').map(str::to_owned));
    argv.push(IMAGE.to_owned());
    let command = argv.join(" ");
    let plan = VmmPlan { starts: vec![Start { title: "qemu".into(), argv, environment: vmm.environment.clone(), seconds: SECONDS }], names: true };
    let seed = job.seeds[0];
    let mut lab = prepared.lab(seed, 1);
    lab.plugin = Some(Plugin::Records);
    let bar = output::progress(1);
    let mut booted = foreign::boot(lab, files, &plan, Some(foreign::windows(job.rows, &image)), &bar)?;
    let printed = &booted.report.printed[0];
    let mut runs = parse(&printed.text);
    for run in &mut runs { run.seed = Some(seed); }
    if std::env::var_os("XD").is_some() { eprintln!("{} {} {:?}\n{}", printed.text, printed.errors, printed.ended, printed.maps); }
    let collector = booted.collector.unwrap();
    if let Some(b) = booted.broken { return Err(Failure::Cannot(b)); }
    booted.report.facts.insert(COMMAND.to_owned(), command.into());
    booted.report.facts.insert(VERSION.to_owned(), qemu.version.clone().into());
    let ids: Vec<u32> = runs.iter().map(|r| r.id).collect();
    let trace = collector.finish(&ids).map_err(Failure::Cannot)?;
    let mut trace = windows::merge(vec![trace]);
    names::add_of_vmm(&mut trace, booted.report.kallsyms.as_deref().unwrap_or_default(), &printed.maps, &runs)?;
    names::add_lines(&mut trace, &prepared.kernel, job.vmlinux)?;
    Ok(Recording {
        manifest: Manifest {
            command: "trace".to_owned(),
            begun_unix_seconds,
            machine: Machine::Lab,
            environment: Environment {
                kernel: booted.hello.release,
                cmdline: booted.hello.cmdline,
                cpu: options.emulator.cpu().to_owned(),
                cpus: 1,
                qemu: Some(prepared.qemu().version.clone()),
                seeds: vec![seed],
                tsc_khz: None,
                exitpath: provenance::version(),
                facts: booted.report.facts,
            },
            plan: Plan { runs: 1, samples: job.rounds, batches: 0, batch_length: 0, order_seed: 1 },
            rows: job.rows.iter().map(|row| row_info(row)).collect(),
            warnings: Vec::new(),
        },
        runs,
        trace: Some(trace),
    })
}
