//! What a recording says, as plain data. Nothing here computes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::trace::Trace;

/// Which lens made the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// This machine's KVM; samples are TSC ticks.
    Host,
    /// A kernel under QEMU TCG with counted time; samples are instructions.
    Lab,
}

/// Everything that had a hand in the numbers of one recording; what differs from condition to condition is
/// as under the first one. [`Manifest::environment_under`] gives another's.
///
/// Facts that only one lens has are `None` in the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Architecture of the kernel whose KVM ran the guests, in the kernel's word (`uname -m`).
    #[serde(default = "x86_64")]
    pub arch: String,
    /// What kind of machine that was: [`kind::HOST`], or one of the lab's. Empty in recordings from before
    /// there were several; reading fills it in.
    #[serde(default)]
    pub machine_kind: String,
    /// Release of the kernel whose KVM ran the guests (`uname -r`).
    pub kernel: String,
    /// That kernel's command line.
    pub cmdline: String,
    /// The CPU model KVM ran on: the brand string on a host, QEMU's `-cpu` in the lab.
    pub cpu: String,
    /// Number of CPUs of the machine KVM ran on; in the lab the largest number any boot had.
    pub cpus: u32,
    /// QEMU's version in the lab, `None` on a host.
    pub qemu: Option<String>,
    /// The lab's seeds, one boot each (two where SMP rows need a boot of their own); empty on a host.
    pub seeds: Vec<u64>,
    /// TSC frequency in kHz as KVM reports it to the guest (`KVM_GET_TSC_KHZ`); `None` in the
    /// lab, where a tick is an instruction.
    pub tsc_khz: Option<u64>,
    /// Version and build of the exitpath that measured.
    pub exitpath: String,
    /// Further facts, by name: the doctor's findings, the kernel's configuration, mitigations …
    pub facts: BTreeMap<String, serde_json::Value>,
}

impl Environment {
    /// Nanoseconds of a tick of the TSC on a host; `None` where its frequency is not known, as in the lab.
    pub fn nanoseconds_per_tick(&self) -> Option<f64> {
        let khz = self.tsc_khz.filter(|&khz| khz > 0);
        khz.map(|khz| 1e6 / khz as f64)
    }
}

impl Environment {
    /// Features of the lab's CPU that exitpath supplied from outside, by QEMU's names.
    pub fn cpu_supplied(&self) -> Vec<&str> {
        let named = self.facts.get(crate::fact::CPU_SUPPLIED);
        let named = named.and_then(|names| names.as_array());
        named.map_or_else(Vec::new, |names| {
            names.iter().filter_map(|name| name.as_str()).collect()
        })
    }

    /// Whether there are any.
    pub fn has_cpu_supplied(&self) -> bool {
        !self.cpu_supplied().is_empty()
    }
}

/// What recordings from before it was recorded were made on.
fn x86_64() -> String {
    "x86_64".to_owned()
}

/// Kinds of machines: values of [`Environment::machine_kind`].
pub mod kind {
    /// This machine itself.
    pub const HOST: &str = "host";
    /// QEMU TCG with emulated SVM.
    pub const SVM: &str = "svm";
    /// All of them.
    pub const ALL: [&str; 2] = [HOST, SVM];
}

/// Something that rows are measured under. Conditions of one recording are compared with each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Its name, which no other condition of the recording has.
    pub name: String,
    /// What distinguishes it from the others; nothing for one that is as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Difference>,
    /// Facts that are others under it than [`Environment::facts`] says; null for one that there is not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// Those of [`Manifest::warnings`] that concern it and not every other condition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Condition {
    /// Name of the condition of a recording that compares none.
    pub const BASE: &'static str = "base";

    /// The condition in which nothing differs.
    pub fn base() -> Condition {
        Condition {
            name: Condition::BASE.to_owned(),
            differs: Vec::new(),
            facts: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }
}

/// One thing that differs from one condition to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The kernel's release.
    Kernel(String),
    /// The kernel's command line, all of it.
    Cmdline(String),
    /// A parameter of a kernel module.
    Parameter {
        /// The module.
        module: String,
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
    },
    /// A function of the kernel that returns at once.
    Patch {
        /// The function.
        function: String,
        /// What it returns; `None`: whatever the register holds.
        returns: Option<u64>,
    },
    /// Optional work that is switched off.
    Off {
        /// What it is called.
        knob: String,
        /// How it is switched.
        #[serde(default)]
        kind: KnobKind,
        /// What was changed for it, a phrase each.
        changes: Vec<String>,
    },
    /// Optional work that is switched on, which the machine does not do by itself.
    On {
        /// What it is called.
        knob: String,
        /// What was changed for it, a phrase each.
        changes: Vec<String>,
    },
    /// A tracer that is switched on.
    Tracer(String),
    /// A wait that is added to each exit.
    Delay {
        /// How long, in ticks.
        ticks: u64,
    },
    /// Another VMM.
    Vmm {
        /// Its command.
        command: String,
        /// Its version, where it says one.
        version: Option<String>,
    },
    /// What exitpath's own VMM does on each exit, one word each.
    Layers(Vec<String>),
    /// Another program in the guest than exitpath's.
    Guest {
        /// What it is.
        name: String,
        /// SHA-256 of its file.
        sha256: Option<String>,
    },
}

/// How optional work is switched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KnobKind {
    /// The kernel's code is changed.
    #[default]
    Code,
    /// The kernel is booted with another command line.
    Cmdline,
    /// A kernel module is given another parameter.
    Parameter,
    /// A file of the kernel's is written while it runs.
    Setting,
    /// The VM is made otherwise.
    Vm,
}

/// Inclusive bounds on a number of exits per operation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Smallest number of exits per operation that is plausible.
    pub min: f64,
    /// Largest number of exits per operation that is plausible.
    pub max: f64,
}

/// What the catalogue said about a row when it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowInfo {
    /// The row's name.
    pub name: String,
    /// One line: what one operation is.
    pub operation: String,
    /// True for rows that exist to check the method (`empty`, `nop`, …): nothing is handled.
    pub reference: bool,
    /// True where the operation makes the vCPU halt, so that virtual time may be skipped.
    pub halts: bool,
    /// True where external interrupts belong to the operation (a timer, another vCPU's IPI);
    /// elsewhere the exits they make are disturbances.
    pub interrupts: bool,
    /// vCPUs the row runs on.
    pub vcpus: u32,
    /// Ticks of deliberate delay inside one operation, to be subtracted from its value.
    pub delay_ticks: u64,
    /// Exits one operation should make, all vCPUs together.
    pub exits: Bounds,
    /// User space exits one operation should make.
    pub userspace_exits: Bounds,
    /// What it is measured with, where rows differ in nothing else (`ioeventfds`, `disks`, `vcpus`,
    /// `delay_ticks`), by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, u64>,
    /// Its place on the ladder of `exitpath userspace`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<RungInfo>,
    /// What `exitpath kick` makes of the row; `None` where it is no part of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kick: Option<KickInfo>,
}

/// What a rung of the ladder is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungInfo {
    /// What the VMM does on each exit beyond what it must, one word each.
    pub layers: Vec<String>,
    /// The rung it is compared with; `None` where it stands for itself.
    pub reference: Option<String>,
    /// What it is to the others.
    pub role: RungRole,
}

/// What a rung is to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RungRole {
    /// No layer is on.
    Bare,
    /// One more layer than in its reference.
    Layer,
    /// One of those layers of which `AllOn` is made.
    Part,
    /// All layers are on.
    AllOn,
    /// All but one.
    AllBut,
    /// Several vCPUs exit at once; which lock keeps them apart.
    Locking(String),
}

/// Which of `exitpath kick`'s tables a row is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KickPart {
    /// What a kick costs the guest while nobody waits for it.
    Cost,
    /// What it costs while a consumer waits.
    Waited,
    /// From the kick until the consumer runs.
    Wakeup,
    /// What it costs with so many ioeventfds.
    Scaling,
    /// Requests to disks.
    Disks,
    /// From the device to the guest.
    Completion,
    /// There to go wrong.
    Check,
}

/// A row's part in `exitpath kick`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KickInfo {
    /// The table.
    pub part: KickPart,
    /// The way of notifying; for disks `shared` or `each`, what the I/O threads are.
    pub how: String,
    /// ioeventfds that were to be registered, where the row is about their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eventfds: Option<u32>,
    /// Disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<u32>,
    /// Requests that one operation makes, on all disks together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Outcome {
    /// All samples were taken.
    Done,
    /// This machine cannot do the row.
    Skipped {
        /// Why, for a reader.
        reason: String,
    },
    /// The guest took an exception it should not have taken.
    Fault {
        /// Which one and where, for a reader.
        reason: String,
    },
    /// The guest made no progress for longer than the watchdog allows.
    Hung {
        /// Where it was, for a reader.
        reason: String,
    },
}

impl Outcome {
    /// Why not all samples were taken; `None` where they were.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Outcome::Done => None,
            Outcome::Skipped { reason } | Outcome::Fault { reason } | Outcome::Hung { reason } => {
                Some(reason)
            }
        }
    }
}

/// One timed operation and the empty bracket (or baseline) measured right beside it, both raw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Ticks of the bracket without the operation.
    pub empty: u64,
    /// Ticks of the bracket with the operation.
    pub op: u64,
}

/// The four batch timings of one repetition of the slope estimator, raw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Operations in the shorter batch; the longer has twice as many.
    pub n: u64,
    /// Ticks of n iterations without the operation.
    pub empty_n: u64,
    /// Ticks of 2n iterations without the operation.
    pub empty_2n: u64,
    /// Ticks of n iterations with the operation.
    pub op_n: u64,
    /// Ticks of 2n iterations with the operation.
    pub op_2n: u64,
}

/// One run: one row in one fresh VM. The unit of replication on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Position in the order the runs were made, from 0.
    pub id: u32,
    /// The row measured.
    pub row: String,
    /// The condition it was measured under: the name of one of [`Manifest::conditions`].
    pub condition: String,
    /// The block of the randomised order this run belongs to; every row occurs once per block.
    pub block: u32,
    /// The lab's seed; `None` on a host.
    pub seed: Option<u64>,
    /// CPUs of the machine it ran on: one lab boot may differ from another.
    pub cpus: u32,
    /// How it ended. Samples and counters are those taken until then.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Things a reader should know about this run, for instance that two vCPUs shared a CPU.
    pub notes: Vec<String>,
    /// Operations counted: the bracketed samples.
    pub ops: u64,
    /// Times `KVM_RUN` returned to the VMM for these operations, all vCPUs together, the
    /// protocol's own exits and the baseline's not counted.
    pub userspace_exits: u64,
    /// What these operations did to KVM's statistics (`exits`, `io_exits`, …; all vCPUs
    /// together; the protocol's own exits and the baseline's taken off `exits` and `io_exits`),
    /// and to the thread's and the machine's (`vmm.involuntary_switches`, `host.steal_ticks`, …).
    pub counters: BTreeMap<String, i64>,
    /// Bracketed samples in the order taken.
    pub samples: Vec<Sample>,
    /// Batch timings in the order taken.
    pub batches: Vec<Batch>,
}

/// How much of each row is measured, and in which order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Runs of each row: fresh VMs on a host, one per seed in the lab.
    pub runs: u32,
    /// Bracketed samples in a run, unless a row limits itself.
    pub samples: u32,
    /// Repetitions of the batch estimator in a run.
    pub batches: u32,
    /// Operations in the shorter batch.
    pub batch_length: u32,
    /// Seed of the random order.
    pub order_seed: u64,
}

/// What is measured and what was found, apart from the tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The command that made the recording, for instance `measure`.
    pub command: String,
    /// Unix time at which the recording was begun, in seconds.
    pub begun_unix_seconds: u64,
    /// Which lens.
    pub machine: Machine,
    /// What it was measured on.
    pub environment: Environment,
    /// What was planned.
    pub plan: Plan,
    /// The conditions that rows were measured under: at least one, in the order to compare them in.
    #[serde(default = "only_base")]
    pub conditions: Vec<Condition>,
    /// The rows as the catalogue described them, in its order.
    pub rows: Vec<RowInfo>,
    /// Warnings with advice, for a reader, of all conditions.
    pub warnings: Vec<String>,
}

/// The conditions of recordings from before there were any.
fn only_base() -> Vec<Condition> {
    vec![Condition::base()]
}

/// A recording in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// What was measured on what.
    pub manifest: Manifest,
    /// Every run in the order made.
    pub runs: Vec<Run>,
    /// Every instruction that was executed for the runs' bracketed samples, where they were
    /// recorded (the lab's plugin): some runs, or none.
    pub trace: Option<Trace>,
}
