//! What a worker inside a lab is asked to measure, and what it brings out: files there, as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use exitpath_recording::Run;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

/// The command of the program inside that measures rows in VMs of exitpath's own.
pub const WORKER: &str = "measure-in-lab";
/// The command of the program inside that starts other VMMs.
pub const VMM: &str = "vmm-in-lab";
/// The plan of other VMMs, as a file inside: a [`VmmJob`]. A [`WorkerJob`] is handed over when its machine is ready.
pub const PLAN_FILE: &str = "/plan.json";
/// The report, in a tmpfs and packed by gzip: a [`WorkerReport`] or a [`VmmReport`].
pub const RESULT_FILE: &str = "/run/report.json.gz";

/// What a plan's file is filled up to, in bytes, so that unpacking it takes as many instructions
/// whatever is planned. All rows there are take a tenth.
const PLAN_SIZE: usize = 64 << 10;

/// What the examination of a machine found.
pub type Facts = BTreeMap<String, serde_json::Value>;

/// What one boot measures.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerJob {
    /// Names of rows in the order to measure them.
    pub order: Vec<String>,
    /// How much of each.
    pub settings: Settings,
    /// What is written to files of the kernel's before anything is measured: settings of the machine.
    #[serde(default)]
    pub set: Vec<(PathBuf, String)>,
    /// As often samples are taken of each row, in one VM, with the kernel's code changed from outside meanwhile; 0: once,
    /// with all that belongs to a run.
    pub steps: u32,
    /// Whether the kernel's symbols are wanted.
    pub names: bool,
    /// Whether the machine is examined.
    pub facts: bool,
}

impl WorkerJob {
    /// To examine the machine, and nothing else.
    pub fn examine() -> WorkerJob {
        WorkerJob {
            order: Vec::new(),
            settings: Settings {
                samples: 0,
                warm_up: 0,
                batches: 0,
                batch_length: 0,
                watchdog: std::time::Duration::ZERO,
                cpus: Vec::new(),
                machine: Default::default(),
                yielding: false,
            },
            set: Vec::new(),
            steps: 0,
            names: false,
            facts: true,
        }
    }

    /// To bring out what names addresses, and nothing else.
    pub fn name_addresses() -> WorkerJob {
        WorkerJob {
            names: true,
            facts: false,
            ..WorkerJob::examine()
        }
    }

    /// The plan's file.
    ///
    /// # Panics
    /// Never: plain data always serialises.
    pub fn file(&self) -> Vec<u8> {
        let mut file = serde_json::to_vec(self).expect("plain data always serialises");
        // White space behind an object is none of it.
        file.resize(file.len().next_multiple_of(PLAN_SIZE), b'\n');
        file
    }
}

/// What one boot brings out.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The runs in the order made. Their numbers, seeds and conditions are known outside.
    pub runs: Vec<Run>,
    /// The lab's TSC when the plan was read: so far nothing depends on what is in it.
    pub begun_ticks: u64,
    /// What the examination of the lab's machine found, where it was wanted.
    pub facts: Facts,
    /// Code's symbols of `/proc/kallsyms`, where they were wanted.
    pub kallsyms: Option<String>,
    /// The vDSO, likewise.
    pub vdso: Option<Vdso>,
}

/// The kernel's code in each process, a shared library that is no file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vdso {
    /// Where the process that read it has it.
    pub address: u64,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A VMM to be started in the lab, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// What it is for, shown while it runs.
    pub title: String,
    /// Program and arguments, as they are in the lab.
    pub argv: Vec<String>,
    /// Seconds of the lab's time it may take.
    pub seconds: u64,
    /// Bytes it may print.
    pub text: usize,
}

/// What one boot does with other VMMs.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmmJob {
    /// One after the other.
    pub starts: Vec<Start>,
    /// Whether the kernel's symbols are wanted.
    pub names: bool,
}

/// What came of one start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// Its standard output: the guest's serial port.
    pub text: String,
    /// Its standard error.
    pub errors: String,
    /// How it ended, where that was not by itself.
    pub ended: Option<String>,
    /// `/proc/PID/maps` while it ran.
    pub maps: String,
    /// Interrupts of the lab's machine meanwhile, its timer's included.
    pub interrupts: Option<i64>,
}

/// What one boot with other VMMs brings out.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmmReport {
    /// Of each start.
    pub printed: Vec<Printed>,
    /// What the examination of the lab's machine found.
    pub facts: Facts,
    /// As in [`WorkerReport`].
    pub kallsyms: Option<String>,
    /// As in [`WorkerReport`].
    pub vdso: Option<Vdso>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rows: &[&str]) -> WorkerJob {
        WorkerJob {
            order: rows.iter().map(|row| (*row).to_owned()).collect(),
            settings: Settings {
                samples: 250,
                warm_up: 64,
                batches: 8,
                batch_length: 16,
                watchdog: std::time::Duration::from_secs(2),
                cpus: vec![0],
                machine: Default::default(),
                yielding: true,
            },
            set: Vec::new(),
            steps: 0,
            names: false,
            facts: false,
        }
    }

    #[test]
    fn a_plans_file_is_as_long_whatever_is_planned() {
        let all: Vec<&str> = exitpath_exits::ROWS.iter().map(|row| row.name).collect();
        let (few, many) = (plan(&["cpuid"]).file(), plan(&all).file());
        assert_eq!((few.len(), many.len()), (PLAN_SIZE, PLAN_SIZE));
        let read: WorkerJob = serde_json::from_slice(&many).expect("JSON");
        assert_eq!(read.order, all);
    }
}
