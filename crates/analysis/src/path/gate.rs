//! Whether a row grew by more than is allowed, and whether a recorded base can be held against a kernel.

use exitpath_recording::{Machine, Recording, fact};

use super::diff::PathDiff;
use super::{PathError, PhaseTable, trace_rows};

/// By how much a row may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Instructions, of whichever kind.
    pub instructions: u64,
    /// Instructions of any one class. Where instructions are added, a class cannot grow by more than
    /// all of them: so the same limit for both catches what an instruction was replaced by.
    pub of_a_class: u64,
}

impl Limits {
    /// The same for both.
    pub fn both(allowed: u64) -> Limits {
        Limits {
            instructions: allowed,
            of_a_class: allowed,
        }
    }
}

/// Whether a row takes more instructions than before at any seed, or more of a class of costly ones, by
/// more than is allowed.
pub fn grew(diff: &PathDiff, limits: &Limits) -> bool {
    let mut rows = diff.rows.iter();
    rows.any(|row| row.grew(limits.instructions, limits.of_a_class))
}

/// What a kernel is going to be traced with, as far as somebody said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// QEMU's CPU model.
    pub cpu: Option<String>,
    /// Whether SVM is to be what QEMU emulates.
    pub bare_svm: bool,
    /// QEMU's version.
    pub qemu: String,
    /// Seeds; none where nobody said any.
    pub seeds: Vec<u64>,
}

/// Why a recording is no base for a kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// It was made on a host.
    #[error("it is not from the lab")]
    NotOfTheLab,
    /// A row is not in it.
    #[error("it has no trace of {0}: record it with `exitpath trace`")]
    NoRow(String),
    /// A row is not in it at some seed.
    #[error("it has no trace of {row} at seed {seed}")]
    NoSeed {
        /// The row.
        row: String,
        /// The seed.
        seed: u64,
    },
    /// It was recorded under another VMM.
    #[error("it was recorded under another VMM ({0}), and a kernel is judged under exitpath's own")]
    OtherVmm(String),
    /// Something was done to its kernel.
    #[error("it was recorded {0}, and a kernel is judged as it is")]
    Changed(String),
    /// It was recorded on another CPU model.
    #[error("it was recorded with -cpu {recorded}, not {wanted}")]
    OtherCpu {
        /// Its own.
        recorded: String,
        /// What was asked for.
        wanted: String,
    },
    /// It was recorded with features of the CPU supplied.
    #[error("it was recorded with {0} supplied to the lab's CPU, not with --bare-svm")]
    NotBare(String),
    /// It was recorded with another QEMU.
    #[error(
        "it was recorded with QEMU {recorded}, and this is {wanted}: name that one with --qemu PATH, or \
         record the base again"
    )]
    OtherQemu {
        /// Its own.
        recorded: String,
        /// The one there is.
        wanted: String,
    },
    /// It was recorded with other seeds.
    #[error("it was recorded with --seed {recorded}, not {wanted}")]
    OtherSeeds {
        /// Its own.
        recorded: String,
        /// What was asked for.
        wanted: String,
    },
    /// Its trace does not hold together.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The base with these rows only, if a kernel's trace with what is wanted can be held against it: all that
/// must be the same, but for what booting will tell.
///
/// # Errors
/// [`BaseError`] says what is not the same.
pub fn base(mut base: Recording, rows: &[&str], wanted: &Wanted) -> Result<Recording, BaseError> {
    if base.manifest.machine != Machine::Lab {
        return Err(BaseError::NotOfTheLab);
    }
    keep(&mut base, rows)?;
    let environment = &base.manifest.environment;
    if let Some(command) = environment.facts.get(fact::VMM_COMMAND) {
        return Err(BaseError::OtherVmm(command.to_string()));
    }
    let done = base.manifest.done_to_the_kernel();
    if !done.is_empty() {
        return Err(BaseError::Changed(done.join(", ")));
    }
    if let Some(cpu) = wanted.cpu.as_ref().filter(|cpu| **cpu != environment.cpu) {
        return Err(BaseError::OtherCpu {
            recorded: environment.cpu.clone(),
            wanted: cpu.clone(),
        });
    }
    if wanted.bare_svm && environment.has_cpu_supplied() {
        return Err(BaseError::NotBare(environment.cpu_supplied().join(", ")));
    }
    let qemu = environment.qemu.as_deref().unwrap_or("none");
    if qemu != wanted.qemu {
        return Err(BaseError::OtherQemu {
            recorded: qemu.to_owned(),
            wanted: wanted.qemu.clone(),
        });
    }
    let sorted = |seeds: &[u64]| {
        let mut seeds = seeds.to_vec();
        seeds.sort_unstable();
        seeds.dedup();
        seeds
    };
    let (recorded, given) = (sorted(&environment.seeds), sorted(&wanted.seeds));
    if !given.is_empty() && given != recorded {
        let words = |seeds: &[u64]| {
            let words: Vec<String> = seeds.iter().map(u64::to_string).collect();
            words.join(",")
        };
        return Err(BaseError::OtherSeeds {
            recorded: words(&recorded),
            wanted: words(&given),
        });
    }
    let paths = trace_rows(&base, &PhaseTable::default())?;
    for &row in rows {
        for &seed in &recorded {
            let has = |path: &super::RowPath| {
                (path.row.as_str(), path.seed, path.cpus) == (row, Some(seed), 1)
            };
            if !paths.iter().any(has) {
                return Err(BaseError::NoSeed {
                    row: row.to_owned(),
                    seed,
                });
            }
        }
    }
    Ok(base)
}

/// Leaves of a base only these rows, all of which it must have.
fn keep(base: &mut Recording, rows: &[&str]) -> Result<(), BaseError> {
    let has = |row: &&&str| base.manifest.rows.iter().any(|of| of.name == **row);
    if let Some(row) = rows.iter().find(|row| !has(row)) {
        return Err(BaseError::NoRow((*row).to_owned()));
    }
    base.manifest
        .rows
        .retain(|row| rows.contains(&row.name.as_str()));
    base.runs.retain(|run| rows.contains(&run.row.as_str()));
    let runs: Vec<u32> = base.runs.iter().map(|run| run.id).collect();
    if let Some(trace) = &mut base.trace {
        trace.windows.retain(|window| runs.contains(&window.run));
    }
    Ok(())
}
