//! `exitpath trace ROW --vmm …`: the exact path through a real VMM.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_exits::bare;
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::plugin::Plugin;
use exitpath_lab::qemu::Qemu;
use exitpath_lab::{vmm_files, windows};
use exitpath_recording::{
    Environment, Machine, Manifest, Outcome, Plan, Recording, Run, Sample,
};
use exitpath_runner::row_info;

use super::{Job, WARM_UP};
use crate::cli::LabOptions;
use crate::failure::Failure;
use crate::in_lab::foreign::{self, Start, VmmPlan};
use crate::in_lab::names;
use crate::lab::Prepared;
use crate::{output, provenance};

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

pub(super) fn record(
    job: &Job<'_>,
    options: &LabOptions,
    prepared: &Prepared,
    interrupted: &Arc<AtomicBool>,
) -> Result<Recording, Failure> {
    let begun_unix_seconds = provenance::unix_seconds();
    let _ = interrupted;
    let image = bare::Plan { samples: job.rounds, warm_up: WARM_UP, batches: 0, batch_length: 0, multiboot: true };
    let qemu = match std::env::var("VQ") { Ok(p) => Qemu::at(Path::new(&p))?, _ => Qemu::at(Path::new("/usr/bin/qemu-system-x86_64"))? };
    let mut files = Initramfs::new();
    let vmm = vmm_files::add_qemu(&mut files, &qemu)?;
    files.file(IMAGE, 0o644, bare::elf(job.rows, &image))?;
    let mut argv = vec![vmm.program.display().to_string()];
    argv.extend(vmm.arguments.clone());
    argv.extend("-nodefaults -no-user-config -display none -no-reboot -machine pc,accel=kvm -cpu host -m 128 -smp 1 -device isa-debug-exit,iobase=0xf4,iosize=4 -serial stdio -kernel".split(' ').map(str::to_owned));
    argv.push(IMAGE.to_owned());
    let plan = VmmPlan { starts: vec![Start { title: "qemu".into(), argv, environment: vmm.environment.clone(), seconds: SECONDS }], names: true };
    let seed = job.seeds[0];
    let mut lab = prepared.lab(seed, 1);
    lab.plugin = Some(Plugin::Records);
    let bar = output::progress(1);
    let booted = foreign::boot(lab, files, &plan, Some(foreign::windows(job.rows, &image)), &bar)?;
    let printed = &booted.report.printed[0];
    let mut runs = parse(&printed.text);
    for run in &mut runs { run.seed = Some(seed); }
    if std::env::var_os("XD").is_some() { eprintln!("{} {} {:?}\n{}", printed.text, printed.errors, printed.ended, printed.maps); }
    let collector = booted.collector.unwrap();
    if let Some(b) = booted.broken { return Err(Failure::Cannot(b)); }
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
