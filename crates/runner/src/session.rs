//! One run: a VM, its threads, the protocol with the guest, and the watchdog over it.

mod counts;
mod steady;
pub(crate) mod steps;
mod usual;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use exitpath_exits::layout::{command, port, word};
use exitpath_exits::{Image, Program, Row, Scratch, ladder};
use exitpath_host::{Root, noise_difference, noise_snapshot, noise_snapshot_on};
use exitpath_recording::{Batch, Outcome, Run, Sample, counter};
use exitpath_vmm::kick;
use exitpath_vmm::{Config, Devices, Error, Kvm, Memory, Model, Stop, Vcpu, Vm};

use crate::amounts::{batches_of, samples_of, warm_up_of};
use crate::arch::marker;
use crate::contention;
use crate::counters::Counters;
use crate::exception::Exception;
use crate::kicked::{self, GuestServices};
use crate::settings::Settings;
use counts::BASELINES_COUNTED;
use watch::{PATIENCE, ThreadEnd, Worker, watch};

pub use steady::Steady;
pub use usual::take_usual_place;

/// Among the counters: the guest's TSC frequency in kHz, as KVM reports it.
pub(crate) const TSC_KHZ: &str = counter::GUEST_TSC_KHZ;
/// Threads that were given up in this process: they may still be running.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Everything the first vCPU's thread brings home.
#[derive(Debug, Default)]
struct Harvest {
    samples: Vec<Sample>,
    batches: Vec<Batch>,
    ops: u64,
    userspace_exits: u64,
    /// Why the count of user space exits cannot be one.
    miscounted: Option<String>,
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
    let (vm, vcpus) = match Vm::new(kvm, &Image::new(&program), config(row, settings), &stop) {
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
    let Some(services) = GuestServices::begin(row, settings, &vm, &first, run)? else {
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
            let unbound = bind(cpu, index);
            vcpu.take_rung(row, &model, &cpus)?;
            let mut devices = Devices::default();
            loop {
                let before = vcpu.userspace_exits();
                let stop = vcpu.run(&mut devices);
                exits.fetch_add(vcpu.userspace_exits() - before, Ordering::Relaxed);
                let failure = match stop {
                    Ok(Stop::Control(port::FAULT)) => fault(&memory_seen),
                    Ok(Stop::Control(_)) => continue,
                    Ok(Stop::Asked) => return Ok(unbound),
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
        model,
        counters: Counters { others },
        secondary_exits,
        ..Protocol::new(row, settings.clone(), vm, first)
    };
    let worker = Worker::spawn(move || {
        let unbound = bind(cpu, 0);
        let mut harvest = protocol.follow()?;
        harvest.notes.extend(unbound);
        Ok(harvest)
    });

    let ended = watch(&worker, || signs(&memory), settings.watchdog, &stop);
    stop.store(true, Ordering::Relaxed);
    // Secondary vCPUs come home by themselves only when something went wrong, and then that is
    // why the first one waited.
    let mut ended = ended;
    for thread in threads {
        match thread.collect(PATIENCE) {
            Some(Ok(unbound)) => run.notes.extend(unbound),
            Some(Err(failure)) => ended = ThreadEnd::Home(Err(failure)),
            None => {
                LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
                run.notes
                    .push("a secondary vCPU's thread did not leave KVM_RUN".to_owned());
            }
        }
    }
    finish(ended, &memory, &program, settings.watchdog, run)?;
    services.end(&memory, settings.watchdog, run)
}

/// The VM that a row needs, as it is asked for.
fn config(row: &Row, settings: &Settings) -> Config<'static> {
    let of_row = kicked::config(row);
    let machine = settings.machine;
    Config {
        vcpus: row.vcpus,
        ioeventfds: row.ioeventfds,
        irqfd: row.irqfd,
        scratch: row.scratch != Scratch::Unused,
        log_scratch: row.scratch == Scratch::Clean,
        without_pmu: machine.without_pmu,
        without_irqchip: of_row.without_irqchip || machine.without_irqchip,
        trimmed_cpuid: machine.trimmed_cpuid,
        without_idle_exits: machine.without_idle_exits,
        msr_filter: machine.msr_filter,
        ..of_row
    }
}

/// What changes as long as the guest makes progress.
fn signs(memory: &Memory) -> [u64; 4] {
    [word::PROGRESS, word::UNCOUNTED, word::COMMAND, word::FAULT].map(|at| memory.word(at))
}

fn cpu_of(settings: &Settings, vcpu: usize) -> Option<usize> {
    let cpus = &settings.cpus;
    (!cpus.is_empty()).then(|| cpus[vcpu % cpus.len()])
}

/// Binds the calling thread, a vCPU's, to its CPU. That CPU was among those allowed; where it has been taken
/// away since, that is what the run says, and the thread runs where it may.
fn bind(cpu: Option<usize>, vcpu: usize) -> Option<String> {
    let cpu = cpu?;
    let refused = kick::pin(cpu).err()?;
    Some(format!(
        "vCPU {vcpu} could not be bound to CPU {cpu} ({refused}): it may have moved"
    ))
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
    ended: ThreadEnd<Result<Harvest, Failure>>,
    memory: &Memory,
    program: &Program,
    watchdog: Duration,
    run: &mut Run,
) -> Result<(), Error> {
    match ended {
        ThreadEnd::Home(Ok(harvest)) => {
            run.samples = harvest.samples;
            run.batches = harvest.batches;
            run.ops = harvest.ops;
            run.userspace_exits = harvest.userspace_exits;
            run.counters = harvest.counters;
            run.notes.extend(harvest.notes);
            if let Some(reason) = harvest.miscounted {
                run.outcome = Outcome::Fault { reason };
            }
        }
        ThreadEnd::Home(Err(Failure::Exception(exception))) => {
            run.outcome = exception.outcome(program);
        }
        ThreadEnd::Home(Err(Failure::Error(error @ Error::Unexpected { .. }))) => {
            run.outcome = Outcome::Fault {
                reason: error.to_string(),
            };
        }
        ThreadEnd::Home(Err(Failure::Error(error))) => return Err(error),
        ThreadEnd::Home(Err(Failure::Stopped { rip })) => {
            let place = rip.map_or_else(|| "an unknown place".to_owned(), |rip| program.place(rip));
            run.outcome = Outcome::Hung {
                reason: format!(
                    "no progress for {watchdog:?} after {} operations; the guest was at {place}",
                    memory.word(word::PROGRESS)
                ),
            };
        }
        ThreadEnd::Panicked => {
            run.outcome = Outcome::Fault {
                reason: "a vCPU's thread panicked: report this as a bug of exitpath".to_owned(),
            };
        }
        ThreadEnd::Lost => {
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
    /// With a VM of one vCPU.
    fn new(row: &'static Row, settings: Settings, vm: Vm, vcpu: Vcpu) -> Protocol {
        Protocol {
            row,
            settings,
            vm,
            vcpu,
            devices: Devices::default(),
            model: Arc::default(),
            counters: Counters { others: Vec::new() },
            secondary_exits: Arc::default(),
        }
    }

    fn follow(mut self) -> Result<Harvest, Failure> {
        let samples = samples_of(self.row, &self.settings);
        let (batches, batch_length) = batches_of(self.row, &self.settings);
        let uses_scratch = self.row.scratch != Scratch::Unused;
        let mut harvest = Harvest::default();
        let yielding = u64::from(self.settings.yielding);
        self.vm.memory().set_word(word::YIELD, yielding);

        let cpus = self.settings.cpus.clone();
        self.vcpu.take_rung(self.row, &self.model, &cpus)?;
        self.until_ready()?;
        marker::arm();
        // Nothing that is counted or timed may be the first touch of a page: results, stack, and
        // for rows about pages the scratch memory, of which KVM then has mapped every page once.
        let result_pages = counts::result_pages(samples, batches);
        self.settle(result_pages)?;
        let warm_up = if uses_scratch {
            samples
        } else {
            warm_up_of(self.row, &self.settings)
        };
        if warm_up > 0 {
            self.go(command::PAIRS, warm_up, 0)?;
        }
        let own = self.own(samples)?;

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
        match own.take_off(&mut counters, userspace_exits) {
            Ok(exits) => harvest.userspace_exits = exits,
            Err(reason) => harvest.miscounted = Some(reason),
        }
        if let Some(khz) = self.vcpu.tsc_khz() {
            counters.insert(TSC_KHZ.to_owned(), khz as i64);
        }
        harvest.counters = counters;
        harvest.samples = counts::samples(&self.vm.memory().results(2 * samples as usize));

        if locking {
            // Brackets would make the first vCPU slower than the others.
            let phase = contention::Phase::begin(self.vm.memory(), self.row);
            self.go(command::BATCHES, 1, samples)?;
            let memory = self.vm.memory();
            let ticks = memory.results(4);
            harvest.counters.extend(phase.end(
                memory,
                samples,
                [ticks[0], ticks[1], ticks[2], ticks[3]],
            ));
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
            let times = self.vm.memory().results(4 * batches as usize);
            harvest
                .batches
                .extend(counts::batches(&times, batch_length));
        }
        Ok(harvest)
    }

    /// What the protocol itself makes KVM count while so many samples are taken.
    fn own(&mut self, samples: u32) -> Result<counts::Own, Failure> {
        self.go(command::BASELINE, BASELINES_COUNTED as u32, 0)?;
        let start = self.read()?;
        self.go(command::BASELINE, BASELINES_COUNTED as u32, 0)?;
        let (baseline, baseline_userspace) = self.read()?.since(&start);
        Ok(counts::Own {
            baseline,
            baseline_userspace,
            samples,
            vcpus: self.row.vcpus,
        })
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
