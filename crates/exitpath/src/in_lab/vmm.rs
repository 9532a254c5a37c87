//! Rows under a real VMM in the lab, traced or not: which VMM, its boots, and their recording.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use exitpath_exits::{Need, Row, bare};
use exitpath_host::KernelSays;
use exitpath_lab::Error as LabError;
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::plugin::Plugin;
use exitpath_lab::qemu::Qemu;
use exitpath_lab::wire::Hello;
use exitpath_lab::{vmm_files, windows};
use exitpath_recording::fact::EXITS_UNREAD;
use exitpath_recording::{Environment, Machine, Manifest, Outcome, Plan, Recording, Run, Trace};
use exitpath_runner::row_info;
use indicatif::ProgressBar;

use super::foreign::{self, Facts, Start, VmmBooted, VmmJob};
use super::{AMD, boots, distinct, names};
use crate::cli::LabOptions;
use crate::failure::Failure;
use crate::lab::Prepared;
use crate::{output, provenance};

/// Among the facts: the VMM's command, as in the lab.
pub(crate) const COMMAND: &str = "vmm.command";
/// Among the facts: its version, where it says one.
pub(crate) const VERSION: &str = "vmm.version";
/// Seconds of the lab's time that a VMM may take for all rows.
const SECONDS: u64 = 60;
/// Bytes that firmware and the VMM itself may print.
const MOST_OTHER_TEXT: usize = 1 << 20;
/// The image in the lab.
pub(crate) const IMAGE: &str = "/vmm/image.elf";
/// What stands for the image in a command.
const PLACEHOLDER: &str = "{image}";
/// A PC with nothing that the image does not use: what else there is makes KVM's search among its
/// devices longer, or interrupts.
const QEMU_ARGUMENTS: [&str; 17] = [
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-machine",
    "pc,accel=kvm",
    "-cpu",
    "host",
    "-m",
    "128",
    "-smp",
    "1",
    "-device",
    "isa-debug-exit,iobase=0xf4,iosize=4",
    "-serial",
    "stdio",
];

/// A VMM that the user has named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vmm {
    /// QEMU, with arguments of ours.
    Qemu(Qemu),
    /// Any other: program and arguments, one of them with [`PLACEHOLDER`].
    Command(Vec<String>),
}

/// A VMM with its files in the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    argv: Vec<String>,
    /// What it says of its version, if anything.
    pub(crate) version: Option<String>,
}

impl Vmm {
    /// `qemu`: the one in `PATH`; a path of a QEMU; or a command in which `{image}` stands for the
    /// image's path.
    pub(crate) fn find(text: &str) -> Result<Vmm, Failure> {
        if text.contains(PLACEHOLDER) {
            let words = shlex::split(text).ok_or_else(|| {
                Failure::Usage(format!("--vmm {text}: a quote is not closed; close it"))
            })?;
            return Ok(Vmm::Command(words));
        }
        if text == "qemu" {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            let program = std::env::split_paths(&folders)
                .map(|dir| dir.join("qemu-system-x86_64"))
                .find(|path| path.is_file());
            let program = program.ok_or_else(|| {
                Failure::Cannot(
                    "no qemu-system-x86_64 is in PATH: install it (Debian: qemu-system-x86)"
                        .to_owned(),
                )
            })?;
            return Ok(Vmm::Qemu(Qemu::at(&program)?));
        }
        match Qemu::at(Path::new(text)) {
            Ok(qemu) => Ok(Vmm::Qemu(qemu)),
            Err(_) => Err(Failure::Usage(format!(
                "--vmm {text}: give `qemu`, the path of a QEMU, or a command in which {PLACEHOLDER} \
                 stands for the image's path"
            ))),
        }
    }

    /// As this machine starts it.
    pub(crate) fn on_host(&self, interpreted: bool) -> Ready {
        match self {
            Vmm::Qemu(qemu) => {
                let mut argv = vec![qemu.path.display().to_string()];
                let mut arguments = QEMU_ARGUMENTS.to_vec();
                if interpreted {
                    // Such a KVM claims features of the CPU whose MSRs it then refuses, and QEMU
                    // ends; its own default model has none of them.
                    arguments.retain(|word| !["-cpu", "host"].contains(word));
                }
                argv.extend(arguments.into_iter().map(str::to_owned));
                argv.extend(["-kernel", PLACEHOLDER].map(str::to_owned));
                Ready {
                    argv,
                    version: Some(qemu.version.clone()),
                }
            }
            Vmm::Command(command) => Ready {
                argv: command.clone(),
                version: None,
            },
        }
    }

    /// Copies what it needs.
    pub(crate) fn add_to(&self, files: &mut Initramfs) -> Result<Ready, Failure> {
        match self {
            Vmm::Qemu(qemu) => {
                let vmm = vmm_files::add_qemu(files, qemu)?;
                let mut argv = vec![vmm.program.display().to_string()];
                argv.extend(vmm.arguments);
                argv.extend(QEMU_ARGUMENTS.map(str::to_owned));
                argv.extend(["-kernel", PLACEHOLDER].map(str::to_owned));
                Ok(Ready {
                    argv,
                    version: Some(qemu.version.clone()),
                })
            }
            Vmm::Command(command) => {
                // One that is QEMU, or starts it, needs its firmware, too.
                let is_qemu = |path: &PathBuf| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    name.starts_with("qemu-system-")
                };
                let qemu = command
                    .iter()
                    .filter_map(|word| vmm_files::find_program(word).ok())
                    .find(is_qemu)
                    .map(|path| Qemu::at(&path))
                    .transpose()?;
                if let Some(qemu) = &qemu {
                    vmm_files::add_qemu(files, qemu)?;
                }
                let argv = vmm_files::add_command(files, command).map_err(|error| match error {
                    // The user's own words.
                    LabError::NotAProgram { .. } => Failure::Usage(error.to_string()),
                    error => error.into(),
                })?;
                Ok(Ready {
                    argv,
                    version: qemu.map(|qemu| qemu.version),
                })
            }
        }
    }
}

impl Ready {
    /// With further arguments.
    pub(crate) fn and(mut self, more: &[&str]) -> Ready {
        self.argv.extend(more.iter().map(|&word| word.to_owned()));
        self
    }

    /// Its command, for a reader.
    pub(crate) fn command(&self) -> String {
        self.argv.join(" ")
    }

    /// To be started with this file in the image's place, and further arguments; it may take so many
    /// seconds of the lab's time, and the guest print so many bytes.
    pub(crate) fn start(
        &self,
        title: &str,
        image: &str,
        more: &[&str],
        seconds: u64,
        text: usize,
    ) -> Start {
        let argv = self
            .argv
            .iter()
            .map(|word| word.replace(PLACEHOLDER, image));
        Start {
            title: title.to_owned(),
            argv: argv
                .chain(more.iter().map(|&word| word.to_owned()))
                .collect(),
            seconds,
            text: MOST_OTHER_TEXT + text,
        }
    }
}

/// What is to be measured or traced under a VMM.
pub(crate) struct UnderVmm<'a> {
    /// The command that wants it.
    pub(crate) command: &'static str,
    pub(crate) rows: &'a [&'static Row],
    pub(crate) image: bare::ImageContents,
    /// One boot each.
    pub(crate) seeds: Vec<u64>,
    /// The plugin, where instructions are to be recorded.
    pub(crate) plugin: Option<Plugin>,
    /// Kernel with debug information, if the user names one.
    pub(crate) vmlinux: Option<&'a Path>,
}

/// What a boot brought out.
struct Booted {
    booted: VmmBooted,
    runs: Vec<Run>,
    trace: Option<Trace>,
}

/// Boots once for each seed, and makes one recording of what all boots brought out.
pub(crate) fn record(
    plan: &UnderVmm<'_>,
    vmm: &Vmm,
    options: &LabOptions,
    prepared: &Prepared,
    interrupted: &Arc<AtomicBool>,
) -> Result<Recording, Failure> {
    let begun_unix_seconds = provenance::unix_seconds();
    let seeds = distinct(&plan.seeds);
    let mut files = Initramfs::new();
    let ready = vmm.add_to(&mut files)?;
    let order = in_order(plan.rows);
    files.file(IMAGE, 0o644, bare::elf(&order, &plan.image))?;
    let work = VmmJob {
        starts: vec![ready.start(
            "the VMM",
            IMAGE,
            &[],
            SECONDS,
            plan.image.most_text(plan.rows),
        )],
        names: plan.plugin.is_some(),
    };
    let what = format!(
        "{} under a VMM, {} of the lab",
        output::number(plan.rows.len(), "row"),
        output::number(seeds.len(), "boot")
    );
    let bar = output::progress(seeds.len() as u64, &what);
    let booted = boot_all(&seeds, interrupted, |&seed| {
        boot(plan, &order, &work, files.clone(), seed, prepared, &bar)
    });
    bar.finish_and_clear();

    let (mut runs, mut traces): (Vec<Run>, Vec<Trace>) = (Vec::new(), Vec::new());
    let mut first: Option<VmmBooted> = None;
    for (&seed, of_seed) in seeds.iter().zip(booted?) {
        let from = runs.len() as u32;
        runs.extend((from..).zip(of_seed.runs).map(|(id, run)| Run {
            id,
            seed: Some(seed),
            ..run
        }));
        traces.extend(of_seed.trace.map(|mut trace| {
            for window in &mut trace.windows {
                window.run += from;
            }
            trace
        }));
        first.get_or_insert(of_seed.booted);
    }
    let booted = first.ok_or(Failure::Interrupted)?;
    let trace = if traces.is_empty() {
        None
    } else {
        let mut trace = windows::merge(traces);
        let kallsyms = booted.report.kallsyms.as_deref().unwrap_or_default();
        // Addresses are not randomised, so that one boot's files stand for all.
        let maps = booted
            .report
            .printed
            .first()
            .map_or("", |printed| &printed.maps);
        names::add_of_vmm(
            &mut trace,
            kallsyms,
            maps,
            booted.report.vdso.as_ref(),
            &runs,
        )?;
        names::add_lines(&mut trace, &prepared.kernel, plan.vmlinux)?;
        Some(trace)
    };
    let warnings = prepared.without_effect(&booted.says);
    Ok(Recording {
        manifest: Manifest {
            command: plan.command.to_owned(),
            begun_unix_seconds,
            machine: Machine::Lab,
            environment: environment(
                &ready,
                booted.hello,
                (booted.says, &warnings),
                booted.report.facts,
                options,
                prepared,
                &seeds,
            ),
            conditions: vec![exitpath_recording::Condition::base()],
            plan: Plan {
                runs: seeds.len() as u32,
                samples: plan.image.samples,
                batches: plan.image.batches,
                batch_length: plan.image.batch_length,
                order_seed: 0,
            },
            rows: plan.rows.iter().map(|row| row_info(row, AMD)).collect(),
            warnings,
        },
        runs,
        trace,
    })
}

/// Rows in the order in which one VM runs them: those about the x2APIC last. From its mode the guest
/// comes back by switching its APIC off, and for a second thereafter KVM looks on each exit whether
/// the APIC is on: four instructions.
fn in_order(rows: &[&'static Row]) -> Vec<&'static Row> {
    let mut order = rows.to_vec();
    order.sort_by_key(|row| row.needs.contains(&Need::X2apic));
    order
}

/// What figures under a VMM hold for.
pub(crate) fn environment(
    ready: &Ready,
    hello: Hello,
    (says, without_effect): (KernelSays, &[String]),
    mut facts: Facts,
    options: &LabOptions,
    prepared: &Prepared,
    seeds: &[u64],
) -> Environment {
    facts.insert(COMMAND.to_owned(), ready.command().into());
    if let Some(version) = &ready.version {
        facts.insert(VERSION.to_owned(), version.as_str().into());
    }
    super::add_says(&mut facts, says, without_effect);
    facts.insert("vmm.addresses_randomised".to_owned(), false.into());
    facts.insert(
        "lab.kernel_origin".to_owned(),
        prepared.kernel.origin.clone().into(),
    );
    Environment {
        arch: "x86_64".to_owned(),
        machine_kind: exitpath_recording::kind::SVM.to_owned(),
        kernel: hello.release,
        cmdline: hello.cmdline,
        cpu: options.emulator.cpu().to_owned(),
        cpus: 1,
        qemu: Some(prepared.qemu().version.clone()),
        seeds: seeds.to_vec(),
        tsc_khz: None,
        exitpath: provenance::version(),
        facts,
    }
}

/// Makes a boot of each item, as many at a time as this machine has CPUs; results in the order of
/// the items. The first that fails ends the others.
pub(crate) fn boot_all<T: Sync, R: Send>(
    items: &[T],
    interrupted: &AtomicBool,
    boot: impl Fn(&T) -> Result<R, Failure> + Sync,
) -> Result<Vec<R>, Failure> {
    let lock = "no boot panics while it holds a lock";
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..items.len()).collect());
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..boots::at_a_time(items.len()) {
            scope.spawn(|| {
                while let Some(at) = { queue.lock().expect(lock).pop_front() } {
                    match boot(&items[at]) {
                        Ok(result) => done.lock().expect(lock).push((at, result)),
                        Err(error) => {
                            queue.lock().expect(lock).clear();
                            let mut failed = failed.lock().expect(lock);
                            // What made the others stop, rather than that they were stopped.
                            if matches!(*failed, None | Some(Failure::Interrupted)) {
                                *failed = Some(error);
                            }
                            // The others' results will not be used: let them end now.
                            interrupted.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().expect(lock) {
        return Err(error);
    }
    let mut done = done.into_inner().expect(lock);
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

fn boot(
    plan: &UnderVmm<'_>,
    order: &[&'static Row],
    work: &VmmJob,
    files: Initramfs,
    seed: u64,
    prepared: &Prepared,
    bar: &ProgressBar,
) -> Result<Booted, Failure> {
    let mut lab = prepared.lab(seed, 1);
    lab.plugin = plan.plugin;
    let records = plan.plugin == Some(Plugin::Records);
    let expected = records.then(|| boots::windows(order, |row| plan.image.samples_of(row)));
    let mut booted = foreign::boot(lab, files, work, expected, bar)?;
    let runs = match booted.report.printed.first() {
        Some(printed) => printed.runs(order).map_err(Failure::Cannot)?,
        None => Vec::new(),
    };
    let trace = match booted.collector.take() {
        None => None,
        Some(collector) => {
            let (mut done, mut wrong) = (Vec::new(), None);
            for run in &runs {
                match &run.outcome {
                    Outcome::Done => done.push(run.id),
                    Outcome::Skipped { .. } => {}
                    _ => wrong = wrong.or(Some(run)),
                }
            }
            if let Some(run) = wrong.or(runs.first().filter(|_| done.is_empty())) {
                return Err(boots::not_done(run));
            }
            if let Some(why) = collector.unread() {
                let facts = &mut booted.report.facts;
                facts.insert(EXITS_UNREAD.to_owned(), why.into());
            }
            let broken = booted.broken.take();
            let trace = broken.map_or_else(|| collector.finish(&done), Err);
            Some(trace.map_err(|what| LabError::Stream { what })?)
        }
    };
    Ok(Booted {
        booted,
        runs,
        trace,
    })
}
