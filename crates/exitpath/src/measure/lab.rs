//! Measuring in the lab: one boot for each seed, a second one for rows with two vCPUs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use exitpath_exits::Row;
use exitpath_lab::Error as LabError;
use exitpath_lab::boot::Sink;
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::job::Job;
use exitpath_recording::{Environment, Machine, Manifest, Plan, Recording, Run};
use exitpath_runner::{Settings, random_order, row_info};
use indicatif::ProgressBar;

use super::worker::{PLAN_FILE, RESULT_FILE, Report, WorkerPlan};
use super::{BATCH_LENGTH, BATCHES};
use crate::cli::Measure;
use crate::failure::Failure;
use crate::lab::Prepared;
use crate::output;

/// Bracketed samples in a run unless the user says otherwise. The same path takes the same number
/// of instructions every time; this many show which other paths there are.
const SAMPLES: u32 = 250;
/// The same for rows whose two vCPUs share the lab's only CPU.
const SHARED_CPU_SAMPLES: u32 = 5;
/// Real time a boot may take, in seconds, unless the user says otherwise. It takes 20.
const BOOT_SECONDS: u64 = 600;

/// Most boots at a time, whatever the machine has: each takes a gigabyte.
const MOST_AT_A_TIME: usize = 8;

/// One boot: its seed, its CPUs, and the rows it measures.
#[derive(Clone)]
struct Boot {
    seed: u64,
    cpus: u32,
    rows: Vec<&'static Row>,
    settings: Settings,
}

pub(super) fn measure(
    args: &Measure,
    rows: &[&'static Row],
    interrupted: &Arc<AtomicBool>,
) -> Result<Recording, Failure> {
    let begun_unix_seconds = super::unix_seconds();
    let order_seed = args.order_seed.unwrap_or(1);
    let prepared = Prepared::new(&args.lab, interrupted)?;
    let samples = args.samples.unwrap_or(SAMPLES);
    let seeds = distinct(&args.lab.seeds);
    let one_cpu = super::settings(args, samples, vec![0], true);
    let boots = plan_boots(&one_cpu, &seeds, rows, prepared.qemu().boots_two_cpus());
    let bar = output::progress(boots.iter().map(|boot| boot.rows.len() as u64).sum());
    let reports = boot_all(&prepared, &boots, order_seed, &bar, interrupted);
    bar.finish_and_clear();
    let reports = reports?;

    let mut runs: Vec<Run> = Vec::new();
    let mut facts = BTreeMap::new();
    let (mut kernel, mut cmdline) = (String::new(), String::new());
    for (boot, (hello, report)) in boots.iter().zip(reports) {
        if facts.is_empty() {
            facts = report.facts;
        }
        (kernel, cmdline) = (hello.release, hello.cmdline);
        runs.extend(report.runs.into_iter().map(|run| Run {
            seed: Some(boot.seed),
            cpus: boot.cpus,
            ..run
        }));
    }
    for (id, run) in (0..).zip(&mut runs) {
        run.id = id;
    }
    // Rows of two vCPUs and of pages differ from the plan's figures.
    let boots_made: Vec<_> = boots
        .iter()
        .map(|boot| {
            serde_json::json!({
                "seed": boot.seed,
                "cpus": boot.cpus,
                "rows": boot.rows.iter().map(|row| row.name).collect::<Vec<_>>(),
                "samples": boot.settings.samples,
                "batches": boot.settings.batches,
                "batch_length": boot.settings.batch_length,
            })
        })
        .collect();
    facts.insert("lab.boots".to_owned(), boots_made.into());
    facts.insert(
        "lab.kernel_origin".to_owned(),
        prepared.kernel.origin.clone().into(),
    );
    let entered = if prepared.enters_vmlinux() {
        "vmlinux by PVH"
    } else {
        "bzImage"
    };
    facts.insert("lab.entered".to_owned(), entered.into());

    Ok(Recording {
        manifest: Manifest {
            command: "measure".to_owned(),
            begun_unix_seconds,
            machine: Machine::Lab,
            environment: Environment {
                kernel,
                cmdline,
                cpu: args.lab.cpu.clone(),
                cpus: boots.iter().map(|boot| boot.cpus).max().unwrap_or(1),
                qemu: Some(prepared.qemu().version.clone()),
                seeds: seeds.clone(),
                tsc_khz: None,
                exitpath: super::version(),
                facts,
            },
            plan: Plan {
                runs: seeds.len() as u32,
                samples,
                batches: BATCHES,
                batch_length: BATCH_LENGTH,
                order_seed,
            },
            rows: rows.iter().map(|row| row_info(row)).collect(),
            warnings: Vec::new(),
        },
        runs,
        trace: None,
    })
}

/// The seeds, each once: a boot with the same seed would say the same.
fn distinct(given: &[u64]) -> Vec<u64> {
    let mut seeds = Vec::new();
    for &seed in given {
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    seeds
}

/// Rows of one vCPU are measured on one CPU, whatever else is in the table, so that a row's value
/// does not depend on its company. Rows of two vCPUs get a boot with two CPUs where QEMU can.
fn plan_boots(
    one_cpu: &Settings,
    seeds: &[u64],
    rows: &[&'static Row],
    two_cpus: bool,
) -> Vec<Boot> {
    let (pairs, singles): (Vec<_>, Vec<_>) = rows.iter().copied().partition(|row| row.vcpus > 1);
    let mut boots = Vec::new();
    for &seed in seeds {
        let one = one_cpu.clone();
        if !singles.is_empty() {
            boots.push(Boot {
                seed,
                cpus: 1,
                rows: singles.clone(),
                settings: one.clone(),
            });
        }
        if pairs.is_empty() {
            continue;
        }
        let (cpus, settings) = if two_cpus {
            // Values differ with the emulator's turns between the CPUs; more do not help.
            (
                2,
                Settings {
                    batches: 2,
                    batch_length: 4,
                    cpus: vec![0, 1],
                    ..one
                },
            )
        } else {
            // Every hand-over between two vCPUs that share a CPU takes a time slice of millions
            // of instructions, and pausing does not make it shorter.
            let settings = Settings {
                samples: one.samples.min(SHARED_CPU_SAMPLES),
                warm_up: 1,
                batches: 0,
                yielding: false,
                ..one
            };
            (1, settings)
        };
        boots.push(Boot {
            seed,
            cpus,
            rows: pairs.clone(),
            settings,
        });
    }
    boots
}

type Booted = (exitpath_lab::wire::Hello, Report);

/// Runs the boots, as many at a time as this machine has CPUs; results in the order of `boots`.
fn boot_all(
    prepared: &Prepared,
    boots: &[Boot],
    order_seed: u64,
    bar: &ProgressBar,
    interrupted: &Arc<AtomicBool>,
) -> Result<Vec<Booted>, Failure> {
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..boots.len()).collect());
    let results: Mutex<Vec<Option<Result<Booted, Failure>>>> =
        Mutex::new(boots.iter().map(|_| None).collect());
    let lock = "no boot panics while it holds a lock";
    let at_a_time = thread::available_parallelism()
        .map_or(1, |n| n.get())
        .min(MOST_AT_A_TIME)
        .min(boots.len());
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
                    let result = boot_one(prepared, &boots[index], order_seed, bar);
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

fn no_kvm(hello: exitpath_lab::wire::Hello) -> LabError {
    LabError::NoKvm {
        release: hello.release,
        refused: hello.refused,
    }
}

struct Progress<'a>(&'a ProgressBar);

impl Sink for Progress<'_> {
    /// The worker prints a row's name when it begins it.
    fn stdout(&mut self, bytes: &[u8]) {
        for name in String::from_utf8_lossy(bytes).lines() {
            self.0.set_message(name.to_owned());
            self.0.inc(1);
        }
    }

    fn stderr(&mut self, _: &[u8]) {}
}

fn boot_one(
    prepared: &Prepared,
    boot: &Boot,
    order_seed: u64,
    bar: &ProgressBar,
) -> Result<Booted, Failure> {
    let plan = WorkerPlan {
        order: random_order(&boot.rows, 1, order_seed)
            .into_iter()
            .map(|(_, row)| row.name.to_owned())
            .collect(),
        settings: boot.settings.clone(),
    };
    let mut files = Initramfs::new();
    let json = serde_json::to_vec(&plan).expect("plain data always serialises");
    files.file(PLAN_FILE, 0o644, json)?;
    if let (Some(config), Some(release)) = (&prepared.kernel.config, &prepared.kernel.release) {
        // So that the examination inside finds the configuration where it always is.
        files.file_from(format!("/boot/config-{release}"), config)?;
    }
    let mut lab = prepared.lab(boot.seed, boot.cpus);
    lab.limit
        .get_or_insert(std::time::Duration::from_secs(BOOT_SECONDS));
    let job = Job {
        argv: vec!["/init".to_owned(), super::worker::NAME.to_owned()],
        cwd: "/".to_owned(),
        output: Some(RESULT_FILE.to_owned()),
        ..Job::default()
    };
    let outcome = lab.run(files, job, &mut Progress(bar))?;
    if !outcome.hello.kvm {
        return Err(no_kvm(outcome.hello).into());
    }
    if outcome.status != 0 {
        let said = outcome.stderr.trim();
        return Err(Failure::Cannot(format!(
            "measuring in the lab failed: {said}"
        )));
    }
    let report = serde_json::from_slice(&outcome.output).map_err(|error| {
        Failure::Cannot(format!(
            "the lab's result cannot be read ({error}): report this as a bug"
        ))
    })?;
    Ok((outcome.hello, report))
}
