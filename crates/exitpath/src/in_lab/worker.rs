//! The part of `measure` and `trace` that runs inside the lab: reads a plan, writes the runs.

use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::FileExt;

use exitpath_exits::find;
use exitpath_host::Root;
use exitpath_recording::Run;
use exitpath_runner::{Place, Settings, run_row};
use exitpath_vmm::Kvm;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::output;

/// The hidden command's name.
pub(crate) const NAME: &str = "measure-in-lab";
/// The plan, in the initramfs.
pub(crate) const PLAN_FILE: &str = "/plan.json";
/// How `/proc/PID/maps` calls the vDSO.
pub(super) const VDSO: &str = "[vdso]";
/// The kernel's symbols.
const KALLSYMS: &str = "/proc/kallsyms";
/// The report, in a tmpfs.
pub(crate) const RESULT_FILE: &str = "/run/report.json.gz";

/// What a plan's file is filled up to, in bytes, so that unpacking it takes as many instructions
/// whatever is planned. All rows there are take a tenth.
const PLAN_SIZE: usize = 64 << 10;

/// What one boot measures.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerJob {
    /// Names of rows in the order to measure them.
    pub(crate) order: Vec<String>,
    /// How much of each.
    pub(crate) settings: Settings,
    /// Whether the kernel's symbols are wanted.
    pub(crate) names: bool,
}

impl WorkerJob {
    /// The plan's file.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut file = serde_json::to_vec(self).expect("plain data always serialises");
        // White space behind an object is none of it.
        file.resize(file.len().next_multiple_of(PLAN_SIZE), b'\n');
        file
    }
}

/// What one boot brings out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The runs in the order made.
    pub(crate) runs: Vec<Run>,
    /// The lab's TSC when the plan was read: so far nothing depends on what is in it.
    pub(crate) begun_ticks: u64,
    /// What the examination of the lab's machine found.
    pub(crate) facts: BTreeMap<String, serde_json::Value>,
    /// Code's symbols of `/proc/kallsyms`, where they were wanted.
    pub(crate) kallsyms: Option<String>,
    /// The vDSO, likewise.
    pub(crate) vdso: Option<Vdso>,
}

/// The kernel's code in each process, a shared library that is no file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vdso {
    /// Where the process that read it has it.
    pub(crate) address: u64,
    /// All of it.
    pub(crate) bytes: Vec<u8>,
}

/// This process's vDSO; `None` where there is none to be read.
pub(super) fn vdso() -> Option<Vdso> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mapped = exitpath_names::maps(&maps);
    let mapping = mapped.iter().find(|mapping| mapping.file == VDSO)?;
    let mut bytes = vec![0; usize::try_from(mapping.end - mapping.start).ok()?];
    let memory = std::fs::File::open("/proc/self/mem").ok()?;
    memory.read_exact_at(&mut bytes, mapping.start).ok()?;
    Some(Vdso {
        address: mapping.start,
        bytes,
    })
}

pub(crate) fn run() -> Result<(), Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::Usage(format!(
            "{NAME} is for the lab's own use ({PLAN_FILE}: {error})"
        ))
    };
    exitpath_vmm::files::lift_limit()?;
    let kvm = Kvm::open()?;
    exitpath_runner::take_usual_place(&kvm)?;
    let begun_ticks = exitpath_vmm::clock();
    let plan = std::fs::read(PLAN_FILE).map_err(|error| broken(&error))?;
    let plan: WorkerJob = serde_json::from_slice(&plan).map_err(|error| broken(&error))?;
    let mut runs = Vec::new();
    for (id, name) in (0..).zip(&plan.order) {
        output::print(name)?;
        let row = find(name).ok_or_else(|| broken(&format!("no row {name}")))?;
        // Seed and CPUs are known outside.
        let place = Place {
            id,
            block: 0,
            seed: None,
            cpus: 0,
        };
        runs.push(run_row(&kvm, row, &plan.settings, &place)?);
    }
    let facts = exitpath_host::examine(&Root::default(), None).facts;
    let kallsyms = plan.names.then(self::kallsyms).transpose()?;
    let report = Report {
        runs,
        begun_ticks,
        facts,
        kallsyms,
        vdso: plan.names.then(vdso).flatten(),
    };
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::Cannot(format!("cannot write {RESULT_FILE}: {error}"))
    };
    // Each byte of it costs an exit of the emulator on its way out.
    let file = std::fs::File::create(RESULT_FILE).map_err(|error| cannot(&error))?;
    let mut packed = GzEncoder::new(file, Compression::fast());
    serde_json::to_writer(BufWriter::new(&mut packed), &report).map_err(|error| cannot(&error))?;
    packed.finish().map_err(|error| cannot(&error))?;
    Ok(())
}

/// What a worker wrote, read outside.
pub(super) fn read(result: &[u8]) -> Result<Report, serde_json::Error> {
    serde_json::from_reader(BufReader::new(GzDecoder::new(result)))
}

/// The symbols of the kernel's code.
pub(super) fn kallsyms() -> Result<String, Failure> {
    let text = std::fs::read_to_string(KALLSYMS)
        .map_err(|error| Failure::Cannot(format!("cannot read {KALLSYMS}: {error}")))?;
    Ok(code_symbols(&text))
}

/// The lines of `/proc/kallsyms` that name code: types t, T, w and W (nm(1)).
fn code_symbols(kallsyms: &str) -> String {
    let is_code = |line: &&str| {
        let kind = line.split(' ').nth(1);
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case("t") || kind.eq_ignore_ascii_case("w"))
    };
    kallsyms.split_inclusive('\n').filter(is_code).collect()
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
                yielding: true,
            },
            names: false,
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
