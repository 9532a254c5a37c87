//! One run: a VM, its threads, the protocol with the guest, and the watchdog over it.

mod usual;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use exitpath_exits::layout::{command, port, word};
use exitpath_exits::{Image, Program, Row, Scratch, ladder};
use exitpath_host::{Root, noise_difference, noise_snapshot, noise_snapshot_on};
use exitpath_recording::{Batch, Outcome, Run, Sample};
use exitpath_vmm::kick::{self, Kickable};
use exitpath_vmm::{Config, Devices, Error, Kvm, Memory, Model, Stop, Vcpu, Vm};

use crate::counters::Counters;
use crate::exception::Exception;
use crate::kicked::{self, Served};
use crate::{Settings, batches_of, samples_of};
use crate::{contention, marker};

pub use usual::take_usual_place;

/// Among the counters: the guest's TSC frequency in kHz, as KVM reports it.
pub(crate) const TSC_KHZ: &str = "guest.tsc_khz";
/// How long a kicked thread may take to leave `KVM_RUN` before it is given up.
const PATIENCE: Duration = Duration::from_secs(3);
/// Threads that were given up in this process: they may still be running.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);
/// Baselines run to learn what they add to the counters.
const BASELINES_COUNTED: u64 = 64;

/// Everything the first vCPU's thread brings home.
#[derive(Debug, Default)]
struct Harvest {
    samples: Vec<Sample>,
    batches: Vec<Batch>,
    ops: u64,
    userspace_exits: u64,
    counters: std::collections::BTreeMap<String, i64>,
    notes: Vec<String>,
}

/// Why the first vCPU's thread came home early.
#[derive(Debug)]
enum Failure {
    /// The guest took an exception.
    Exception(Exception),
    /// It was kicked.
    Stopped { rip: Option<u64> },
    /// KVM or the operating system refused.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

/// Runs `row` in a fresh VM and fills `run`.
pub(crate) fn run(
    kvm: &Kvm,
    row: &'static Row,
    settings: &Settings,
    run: &mut Run,
) -> Result<(), Error> {
    kick::install();
    if LEFT_BEHIND.load(Ordering::Relaxed) > 0 {
        run.notes.push(
            "a vCPU's thread of an earlier run could not be stopped and may still take CPU time"
                .to_owned(),
        );
    }
    let program = row.program(kvm.is_amd());
    let stop = Arc::new(AtomicBool::new(false));
    let config = Config {
        vcpus: row.vcpus,
        ioeventfds: row.ioeventfds,
        irqfd: row.irqfd,
        log_scratch: row.scratch == Scratch::Clean,
        ..kicked::config(row)
    };
    let (vm, vcpus) = match Vm::new(kvm, &Image::new(&program), config, &stop) {
        Ok(made) => made,
        // What such a row asks of KVM may be more than it gives, and others ask less.
        Err(error @ (Error::Kvm { .. } | Error::NoFilesLeft)) if row.kick.is_some() => {
            run.outcome = Outcome::Skipped {
                reason: format!("it cannot be set up: {error}"),
            };
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let memory = vm.memory().clone();
    let mut vcpus = vcpus.into_iter();
    let first = vcpus.next().expect("every row has a vCPU");
    let Some(served) = Served::begin(row, settings, &vm, &first, run)? else {
        return Ok(());
    };

    let model = Arc::new(Model::default());
    let mut others = Vec::new();
    let secondary_exits = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for (index, mut vcpu) in (1..).zip(vcpus) {
        others.extend(vcpu.open_stats()?);
        let cpu = cpu_of(settings, index);
        let exits = secondary_exits.clone();
        let (memory_seen, stop_all) = (memory.clone(), stop.clone());
        let (model, cpus) = (model.clone(), settings.cpus.clone());
        threads.push(Worker::spawn(move || {
            bind(cpu);
            vcpu.climb(row, &model, &cpus)?;
            let mut devices = Devices::default();
            loop {
                let before = vcpu.userspace_exits();
                let stop = vcpu.run(&mut devices);
                exits.fetch_add(vcpu.userspace_exits() - before, Ordering::Relaxed);
                let failure = match stop {
                    Ok(Stop::Control(port::FAULT)) => fault(&memory_seen),
                    Ok(Stop::Control(_)) => continue,
                    Ok(Stop::Asked) => return Ok(()),
                    Err(error) => Failure::Error(error),
                };
                // The first vCPU would wait for this one in vain.
                stop_all.store(true, Ordering::Relaxed);
                return Err(failure);
            }
        }));
    }

    let cpu = cpu_of(settings, 0);
    let protocol = Protocol {
        row,
        settings: settings.clone(),
        vm,
        vcpu: first,
        devices: Devices::default(),
        model,
        counters: Counters { others },
        secondary_exits,
    };
    let worker = Worker::spawn(move || {
        bind(cpu);
        protocol.follow()
    });

    let ended = watch(&worker, &memory, settings.watchdog, &stop);
    stop.store(true, Ordering::Relaxed);
    // Secondary vCPUs come home by themselves only when something went wrong, and then that is
    // why the first one waited.
    let mut ended = ended;
    for thread in threads {
        match thread.collect(PATIENCE) {
            Some(Ok(())) => {}
            Some(Err(failure)) => ended = Ended::Home(Err(failure)),
            None => {
                LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
                run.notes
                    .push("a secondary vCPU's thread did not leave KVM_RUN".to_owned());
            }
        }
    }
    finish(ended, &memory, &program, settings.watchdog, run)?;
    served.end(&memory, settings.watchdog, run)
}

fn cpu_of(settings: &Settings, vcpu: usize) -> Option<usize> {
    let cpus = &settings.cpus;
    (!cpus.is_empty()).then(|| cpus[vcpu % cpus.len()])
}

fn bind(cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        // The CPU came from the allowed set; if it has been taken away since, the run is merely
        // not bound.
        let _ = kick::pin(cpu);
    }
}

/// The exception that a vCPU's stub has left in the control block.
fn fault(memory: &Memory) -> Failure {
    Failure::Exception(Exception {
        vector: memory.word(word::FAULT).wrapping_sub(1),
        code: memory.word(word::FAULT_CODE),
        rip: memory.word(word::FAULT_RIP),
        cr2: memory.word(word::FAULT_CR2),
        progress: memory.word(word::PROGRESS),
    })
}

/// Turns what the watchdog saw into the run's outcome.
fn finish(
    ended: Ended<Result<Harvest, Failure>>,
    memory: &Memory,
    program: &Program,
    watchdog: Duration,
    run: &mut Run,
) -> Result<(), Error> {
    match ended {
        Ended::Home(Ok(harvest)) => {
            run.samples = harvest.samples;
            run.batches = harvest.batches;
            run.ops = harvest.ops;
            run.userspace_exits = harvest.userspace_exits;
            run.counters = harvest.counters;
            run.notes.extend(harvest.notes);
        }
        Ended::Home(Err(Failure::Exception(exception))) => {
            run.outcome = exception.outcome(program);
        }
        Ended::Home(Err(Failure::Error(error @ Error::Unexpected { .. }))) => {
            run.outcome = Outcome::Fault {
                reason: error.to_string(),
            };
        }
        Ended::Home(Err(Failure::Error(error))) => return Err(error),
        Ended::Home(Err(Failure::Stopped { rip })) => {
            let place = rip.map_or_else(|| "an unknown place".to_owned(), |rip| program.place(rip));
            run.outcome = Outcome::Hung {
                reason: format!(
                    "no progress for {watchdog:?} after {} operations; the guest was at {place}",
                    memory.word(word::PROGRESS)
                ),
            };
        }
        Ended::Panicked => {
            run.outcome = Outcome::Fault {
                reason: "a vCPU's thread panicked: report this as a bug of exitpath".to_owned(),
            };
        }
        Ended::Lost => {
            LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
            run.outcome = Outcome::Hung {
                reason: format!(
                    "no progress for {watchdog:?} after {} operations, and KVM_RUN did not return \
                     when its thread was signalled: the thread was given up",
                    memory.word(word::PROGRESS)
                ),
            };
        }
    }
    Ok(())
}

/// A thread that can be kicked and whose result can be waited for with a limit.
struct Worker<T> {
    kickable: Kickable,
    result: mpsc::Receiver<T>,
}

impl<T: Send + 'static> Worker<T> {
    fn spawn(work: impl FnOnce() -> T + Send + 'static) -> Worker<T> {
        let (tell, kickable) = mpsc::channel();
        let (done, result) = mpsc::channel();
        thread::spawn(move || {
            let _ = tell.send(Kickable::current());
            let _ = done.send(work());
        });
        let kickable = kickable
            .recv()
            .expect("the thread tells who it is before anything else");
        Worker { kickable, result }
    }

    /// Kicks until the thread comes home; `None` when it does not within `patience`.
    fn collect(&self, patience: Duration) -> Option<T> {
        let step = Duration::from_millis(10);
        let mut waited = Duration::ZERO;
        while waited < patience {
            self.kickable.kick();
            match self.result.recv_timeout(step) {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Timeout) => waited += step,
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }
}

/// How a watched thread ended.
enum Ended<T> {
    Home(T),
    /// It did not come home and was left behind.
    Lost,
    /// It ended without a result.
    Panicked,
}

/// Waits for the first vCPU's thread as long as the guest makes progress.
fn watch<T: Send + 'static>(
    worker: &Worker<T>,
    memory: &Memory,
    limit: Duration,
    stop: &AtomicBool,
) -> Ended<T> {
    let signs =
        || [word::PROGRESS, word::UNCOUNTED, word::COMMAND, word::FAULT].map(|at| memory.word(at));
    let mut seen = signs();
    loop {
        match worker.result.recv_timeout(limit) {
            Ok(result) => return Ended::Home(result),
            Err(RecvTimeoutError::Disconnected) => return Ended::Panicked,
            Err(RecvTimeoutError::Timeout) => {
                let now = signs();
                if now == seen {
                    stop.store(true, Ordering::Relaxed);
                    return worker.collect(PATIENCE).map_or(Ended::Lost, Ended::Home);
                }
                seen = now;
            }
        }
    }
}

/// The host's side of the conversation with a guest.
struct Protocol {
    row: &'static Row,
    settings: Settings,
    vm: Vm,
    vcpu: Vcpu,
    devices: Devices,
    model: Arc<Model>,
    counters: Counters,
    secondary_exits: Arc<AtomicU64>,
}

impl Protocol {
    fn follow(mut self) -> Result<Harvest, Failure> {
        let samples = samples_of(self.row, &self.settings);
        let (batches, batch_length) = batches_of(self.row, &self.settings);
        let uses_scratch = self.row.scratch != Scratch::Unused;
        let mut harvest = Harvest::default();
        let yielding = u64::from(self.settings.yielding);
        self.vm.memory().set_word(word::YIELD, yielding);

        let cpus = self.settings.cpus.clone();
        self.vcpu.climb(self.row, &self.model, &cpus)?;
        self.until_ready()?;
        marker::arm();
        // Nothing that is counted or timed may be the first touch of a page: results, stack, and
        // for rows about pages the scratch memory, of which KVM then has mapped every page once.
        let result_pages = samples.div_ceil(256).max(batches.div_ceil(128));
        self.settle(result_pages)?;
        let warm_up = if uses_scratch {
            samples
        } else {
            kicked::warm_up(self.row, &self.settings)
        };
        if warm_up > 0 {
            self.go(command::PAIRS, warm_up, 0)?;
        }
        self.go(command::BASELINE, BASELINES_COUNTED as u32, 0)?;

        let start = self.read()?;
        self.go(command::BASELINE, BASELINES_COUNTED as u32, 0)?;
        let (baseline, baseline_userspace) = self.read()?.since(&start);
        let external = baseline.get("irq_exits").copied().unwrap_or(0);
        // The write to the control port that ends the phase is one exit of each kind. The rest is
        // what a bracket makes without the operation: a whole number, or chance, which would be
        // multiplied here. Each sample has two brackets.
        let own = |total: i64, external: i64| {
            if self.row.vcpus > 1 {
                // What another vCPU does goes by time, not by brackets, and no bracket of such a
                // row exits without its operation.
                return 1;
            }
            let per_baseline = (total - external - 1) as f64 / BASELINES_COUNTED as f64;
            1 + per_baseline.round() as i64 * 2 * i64::from(samples)
        };

        self.prepare_scratch(result_pages)?;
        let cpu = cpu_of(&self.settings, 0).and_then(|cpu| u32::try_from(cpu).ok());
        let machine = || {
            let root = Root::default();
            cpu.map_or_else(
                || noise_snapshot(&root),
                |cpu| noise_snapshot_on(&root, cpu),
            )
        };
        let machine_before = machine();
        let locking = ladder::is_locking(self.row);
        if locking {
            contention::wait_for_others(self.vm.memory(), self.row, self.settings.watchdog)?;
        }
        let start = self.read()?;
        marker::start();
        self.go(command::PAIRS, samples, 0)?;
        marker::stop();
        let (mut counters, userspace_exits) = self.read()?.since(&start);
        counters.extend(noise_difference(&machine_before, &machine()));
        harvest.ops = u64::from(samples);
        let userspace_exits = userspace_exits - own(baseline_userspace, 0);
        harvest.userspace_exits = u64::try_from(userspace_exits).unwrap_or(0);
        for (name, external) in [("exits", external), ("io_exits", 0)] {
            if let (Some(value), Some(&base)) = (counters.get_mut(name), baseline.get(name)) {
                *value -= own(base, external);
            }
        }
        // Each control write loads the host's state once as well, and the baseline has one.
        if let (1, Some(value)) = (self.row.vcpus, counters.get_mut(STATE_RELOADS)) {
            *value -= baseline.get(STATE_RELOADS).copied().unwrap_or(0);
        }
        counters.retain(|name, value| *value != 0 || KEPT_AT_ZERO.contains(&name.as_str()));
        if let Some(khz) = self.vcpu.tsc_khz() {
            counters.insert(TSC_KHZ.to_owned(), khz as i64);
        }
        harvest.counters = counters;
        harvest.samples = self
            .vm
            .memory()
            .results(2 * samples as usize)
            .chunks_exact(2)
            .map(|pair| Sample {
                empty: pair[0],
                op: pair[1],
            })
            .collect();

        if locking {
            // Brackets would make the first vCPU slower than the others.
            let phase = contention::Phase::begin(self.vm.memory(), self.row);
            self.go(command::BATCHES, 1, samples)?;
            let memory = self.vm.memory();
            let ticks = memory.results(4);
            let sum = |at: usize| ticks[at].saturating_add(ticks[at + 1]);
            let (empty, writing) = (sum(0), sum(2));
            let counted = phase.end(
                memory,
                u64::from(samples) * 3,
                writing,
                empty.saturating_add(writing),
            );
            harvest.counters.extend(counted);
        }

        let phases = if uses_scratch {
            self.settings.batches.min(4)
        } else {
            1
        };
        for _ in 0..phases {
            if batches == 0 || batch_length == 0 {
                break;
            }
            self.prepare_scratch(result_pages)?;
            self.go(command::BATCHES, batches, batch_length)?;
            harvest.batches.extend(
                self.vm
                    .memory()
                    .results(4 * batches as usize)
                    .chunks_exact(4)
                    .map(|times| Batch {
                        n: u64::from(batch_length),
                        empty_n: times[0],
                        empty_2n: times[1],
                        op_n: times[2],
                        op_2n: times[3],
                    }),
            );
        }
        Ok(harvest)
    }

    fn read(&self) -> Result<crate::counters::Reading, Failure> {
        let secondary = self.secondary_exits.load(Ordering::Relaxed);
        Ok(self.counters.read(&self.vcpu, secondary)?)
    }

    /// Puts the scratch memory into the state the row is about. KVM drops all of its mappings when
    /// a slot goes, so what the guest needs besides is touched again.
    fn prepare_scratch(&mut self, result_pages: u32) -> Result<(), Failure> {
        match self.row.scratch {
            Scratch::Unused => return Ok(()),
            Scratch::Unmap => self.vm.unmap_scratch()?,
            Scratch::Clean => {
                self.vm.clean_scratch()?;
            }
        }
        self.settle(result_pages)
    }

    /// Touches what a phase uses besides the operation: results, stack, the code of all loops.
    fn settle(&mut self, result_pages: u32) -> Result<(), Failure> {
        self.go(command::TOUCH, result_pages.max(1), 0)?;
        self.go(command::BASELINE, 1, 0)
    }

    /// Lets the guest execute one command.
    fn go(&mut self, what: u64, count: u32, batch: u32) -> Result<(), Failure> {
        let memory = self.vm.memory();
        memory.set_word(word::COMMAND, what);
        memory.set_word(word::COUNT, u64::from(count));
        memory.set_word(word::BATCH, u64::from(batch));
        self.until_ready()
    }

    fn until_ready(&mut self) -> Result<(), Failure> {
        loop {
            match self.vcpu.run(&mut self.devices)? {
                Stop::Control(port::KICKED) => kicked::answer(self.row, &self.vm, &self.vcpu)?,
                Stop::Control(port::READY) => return Ok(()),
                Stop::Asked => {
                    return Err(Failure::Stopped {
                        rip: self.vcpu.rip().ok(),
                    });
                }
                Stop::Control(port::FAULT) => return Err(fault(self.vm.memory())),
                Stop::Control(value) => {
                    return Err(Failure::Error(Error::Unexpected {
                        reason: format!("the guest wrote {value} to the control port"),
                    }));
                }
            }
        }
    }
}

/// Counters that are recorded even where nothing happened: their zero is a finding.
const KEPT_AT_ZERO: [&str; 4] = ["exits", "io_exits", "mmio_exits", STATE_RELOADS];
/// KVM's counter of returns from a guest's state to the host's.
const STATE_RELOADS: &str = "host_state_reload";
