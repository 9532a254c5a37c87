//! What changed in the paths of two recordings, such as of two kernels.
//!
//! With one seed a lab does the same thing every time, so there is nothing to estimate: what
//! differs at one seed differs. Seeds stand for what varies from boot to boot (where memory lies,
//! when ticks fall), and the answer says at how many of them the difference is the same. That
//! holds only if nothing differs but what is to be compared, so anything else is refused.

use std::collections::{BTreeMap, BTreeSet};

use exitpath_recording::{Environment, Machine, Recording, Space, fact};

pub use super::instructions::{ClassDiff, InstructionDiff, Side};
use super::instructions::{Differing, classes, differing};
use super::known::{Key, key, unqualified};
use super::model::RowPath;
use super::{PathError, PhaseTable, trace_rows};
use crate::compare::{Answer, Pair, exact, paired};

/// Why two recordings cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// They differ in more than what is compared. All of it, in words.
    #[error("the two recordings cannot be compared: {}; record one of them again", .0.join("; "))]
    Differ(Vec<String>),
    /// A row's value is not its path's.
    #[error(
        "{0} is measured less what surrounds its operation, which makes exits of its own: its path holds both, so \
         two of them cannot be compared; compare what `exitpath measure {0}` says"
    )]
    Surrounded(String),
    /// One of them has no paths.
    #[error("recording {which}: {error}")]
    Path {
        /// `A` or `B`.
        which: char,
        /// Why.
        error: PathError,
    },
}

/// Whether two paths are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// At every seed the same instructions in the same functions, in the same order.
    Same,
    /// Not so.
    Different,
}

/// What changed from A to B.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathDiff {
    /// Whether anything did.
    pub verdict: Verdict,
    /// What else differs that may (kernel, command line, exitpath), in words.
    pub notes: Vec<String>,
    /// The rows in the order of A.
    pub rows: Vec<RowDiff>,
}

/// What changed in a row. Unit: instructions per round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDiff {
    /// The row.
    pub name: String,
    /// Whether anything changed, at any seed.
    pub verdict: Verdict,
    /// What the guest's clock said of A, as all below at the first seed with the most frequent
    /// delta.
    pub a: u64,
    /// The same of B.
    pub b: u64,
    /// B − A.
    pub delta: i64,
    /// Seeds whose delta is this one.
    pub seeds_agreeing: usize,
    /// Each seed.
    pub seeds: Vec<SeedDiff>,
    /// Phases of either, in the order of the table.
    pub phases: Vec<PhaseDiff>,
    /// Functions that changed, most changed first.
    pub functions: Vec<FunctionDiff>,
    /// Classes of instructions of which there are more or fewer.
    pub classes: Vec<ClassDiff>,
    /// Instructions that differ in functions that both have, those of functions that take as many
    /// in both first.
    pub instructions: Vec<InstructionDiff>,
    /// How many more differ, in functions that are too different to tell them.
    pub instructions_left_out: usize,
    /// Whether the same instructions run in another order, and nothing else differs.
    pub reordered: bool,
    /// What of the delta the functions do not explain: instructions that were begun and not
    /// completed are theirs and not the clock's.
    pub unexplained: i64,
}

impl RowDiff {
    /// Whether, at any seed, B takes more instructions than A by more than is allowed, or more of any one
    /// class of costly ones.
    pub fn grew(&self, instructions: u64, of_a_class: u64) -> bool {
        let mut seeds = self.seeds.iter();
        seeds.any(|seed| seed.grew(instructions, of_a_class))
    }

    /// Whether A and B execute anything else, at the seed that is shown.
    pub fn paths_differ(&self) -> bool {
        let instructions = !self.instructions.is_empty() || self.instructions_left_out > 0;
        !self.functions.is_empty() || instructions || self.reordered
    }
}

/// A row at one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedDiff {
    /// The seed.
    pub seed: Option<u64>,
    /// What the guest's clock said of A.
    pub a: u64,
    /// The same of B.
    pub b: u64,
    /// B − A.
    pub delta: i64,
    /// Whether A and B execute anything else.
    pub paths_differ: bool,
    /// Classes of instructions of which there are more or fewer.
    pub classes: Vec<ClassDiff>,
}

impl SeedDiff {
    /// Whether A or a class of it grew by more than this; see [`RowDiff::grew`].
    fn grew(&self, instructions: u64, of_a_class: u64) -> bool {
        let beyond = |delta: i64, allowed: u64| u64::try_from(delta).is_ok_and(|by| by > allowed);
        let mut classes = self.classes.iter();
        beyond(self.delta, instructions) || classes.any(|class| beyond(class.delta, of_a_class))
    }
}

/// A phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseDiff {
    /// Its name.
    pub name: String,
    /// Instructions in A.
    pub a: u64,
    /// Instructions in B.
    pub b: u64,
    /// B − A.
    pub delta: i64,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionDiff {
    /// Its name, without what a compiler appends if A's and B's differ in that.
    pub name: String,
    /// Its module.
    pub module: String,
    /// Where it runs.
    pub space: Space,
    /// Whether both have it.
    pub change: Change,
    /// Own instructions in A.
    pub a: u64,
    /// Own instructions in B.
    pub b: u64,
    /// B − A.
    pub delta: i64,
    /// Instructions with everything it calls, in A and in B.
    pub total: (u64, u64),
    /// Times it was entered, in A and in B.
    pub calls: (u64, u64),
}

/// Whether both have a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Both.
    Changed,
    /// Only B.
    New,
    /// Only A.
    Gone,
}

/// Compares the paths of two recordings from the lab.
///
/// # Errors
///
/// [`Incomparable`] says what differs that must not: rows, seeds, QEMU, CPU model, number of CPUs.
pub fn diff_paths(
    a: &Recording,
    b: &Recording,
    phases: &PhaseTable,
) -> Result<PathDiff, Incomparable> {
    let differences = differences(a, b);
    if !differences.is_empty() {
        return Err(Incomparable::Differ(differences));
    }
    let rows = |which, recording| {
        trace_rows(recording, phases).map_err(|error| Incomparable::Path { which, error })
    };
    let (rows_a, rows_b) = (rows('A', a)?, rows('B', b)?);
    let differences = differing_rows(&rows_a, &rows_b);
    if !differences.is_empty() {
        return Err(Incomparable::Differ(differences));
    }
    // Their value is the difference of two paths, and its functions those of one of them.
    let mut surrounded: Vec<String> = Vec::new();
    for row in rows_a
        .iter()
        .chain(&rows_b)
        .filter(|row| row.baseline_exits > 0)
    {
        if !surrounded.contains(&row.row) {
            surrounded.push(row.row.clone());
        }
    }
    let comparable = |row: &RowPath| !surrounded.contains(&row.row);
    let rows_a: Vec<RowPath> = rows_a.into_iter().filter(comparable).collect();
    if let (true, Some(name)) = (rows_a.is_empty(), surrounded.first()) {
        return Err(Incomparable::Surrounded(name.clone()));
    }
    let mut names: Vec<&str> = Vec::new();
    for row in &rows_a {
        if !names.contains(&row.row.as_str()) {
            names.push(&row.row);
        }
    }
    let rows: Vec<RowDiff> = names
        .into_iter()
        .filter_map(|name| row_diff(name, &rows_a, &rows_b, phases))
        .collect();
    let same = rows.iter().all(|row| row.verdict == Verdict::Same);
    let left_out = surrounded
        .into_iter()
        .map(|name| format!("left out: {}", Incomparable::Surrounded(name)));
    Ok(PathDiff {
        verdict: verdict(same),
        notes: notes(a, b).into_iter().chain(left_out).collect(),
        rows,
    })
}

/// The instructions that differ between two paths, in functions that take as many in both.
pub fn replaced(a: &RowPath, b: &RowPath) -> Vec<InstructionDiff> {
    let changed = functions(a, b);
    let unchanged = |diff: &InstructionDiff| {
        !changed.iter().any(|function| {
            (function.space, &function.module) == (diff.space, &diff.module)
                && unqualified(&function.name) == unqualified(&diff.function)
        })
    };
    let mut told = differing(a, b).told;
    told.retain(unchanged);
    told
}

fn verdict(same: bool) -> Verdict {
    if same {
        Verdict::Same
    } else {
        Verdict::Different
    }
}

/// What differs of the two labs and must not.
fn differences(a: &Recording, b: &Recording) -> Vec<String> {
    let mut words = Vec::new();
    for (which, recording) in [('A', a), ('B', b)] {
        if recording.manifest.machine != Machine::Lab {
            words.push(format!("{which} is not from the lab"));
        }
    }
    let (a, b) = (&a.manifest.environment, &b.manifest.environment);
    let qemu = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
    let vmm = |environment: &Environment| {
        let command = environment
            .facts
            .get(fact::VMM_COMMAND)
            .and_then(|command| command.as_str());
        command.unwrap_or("exitpath's own").to_owned()
    };
    let supplied = |environment: &Environment| match environment.has_cpu_supplied() {
        true => environment.cpu_supplied().join(", "),
        false => "nothing (bare SVM)".to_owned(),
    };
    let seeds = |seeds: &[u64]| listed(seeds.iter().map(u64::to_string));
    for (what, a, b) in [
        ("architecture", a.arch.clone(), b.arch.clone()),
        ("machine", a.machine_kind.clone(), b.machine_kind.clone()),
        ("QEMU", qemu(&a.qemu), qemu(&b.qemu)),
        ("CPU model", a.cpu.clone(), b.cpu.clone()),
        ("supplied to the CPU", supplied(a), supplied(b)),
        ("CPUs", a.cpus.to_string(), b.cpus.to_string()),
        ("VMM", vmm(a), vmm(b)),
        ("seeds", seeds(&a.seeds), seeds(&b.seeds)),
    ] {
        if a != b {
            words.push(format!("{what}: {a} in A, {b} in B"));
        }
    }
    words
}

/// What differs of the rows traced and must not.
fn differing_rows(a: &[RowPath], b: &[RowPath]) -> Vec<String> {
    let keys = |rows: &[RowPath]| -> BTreeSet<(String, Option<u64>, u32)> {
        let keys = rows.iter().map(|row| (row.row.clone(), row.seed, row.cpus));
        keys.collect()
    };
    let (a, b) = (keys(a), keys(b));
    let told = |keys: BTreeSet<&(String, Option<u64>, u32)>| {
        listed(keys.into_iter().map(|(row, seed, cpus)| match seed {
            Some(seed) => format!("{row} (seed {seed}, CPUs {cpus})"),
            None => format!("{row} (CPUs {cpus})"),
        }))
    };
    let mut words = Vec::new();
    for (which, only) in [
        ('A', a.difference(&b).collect::<BTreeSet<_>>()),
        ('B', b.difference(&a).collect()),
    ] {
        if !only.is_empty() {
            words.push(format!("only {which} has {}", told(only)));
        }
    }
    words
}

fn listed(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

/// What differs and may.
fn notes(a: &Recording, b: &Recording) -> Vec<String> {
    let done = |recording: &Recording| match recording.manifest.done_to_the_kernel() {
        done if done.is_empty() => "nothing".to_owned(),
        done => done.join(", "),
    };
    let (done_a, done_b) = (done(a), done(b));
    let (a, b) = (&a.manifest.environment, &b.manifest.environment);
    let differing = [
        ("kernel", &a.kernel, &b.kernel),
        ("command line", &a.cmdline, &b.cmdline),
        ("done to the kernel", &done_a, &done_b),
        ("exitpath", &a.exitpath, &b.exitpath),
    ];
    let differing = differing.into_iter().filter(|(_, a, b)| a != b);
    differing
        .map(|(what, a, b)| format!("{what}: {a} in A, {b} in B"))
        .collect()
}

fn row_diff<'a>(
    name: &'a str,
    a: &'a [RowPath],
    b: &'a [RowPath],
    phases: &PhaseTable,
) -> Option<RowDiff> {
    let of_row = |rows: &'a [RowPath]| {
        let of_row = rows.iter().filter(move |row| row.row == name);
        of_row.map(|row| ((row.seed, row.cpus), row))
    };
    let pairs = paired(of_row(a), of_row(b)).pairs;
    let told: Vec<(Vec<FunctionDiff>, Differing)> = pairs
        .iter()
        .map(|Pair { a, b, .. }| (functions(a, b), differing(a, b)))
        .collect();
    let seeds: Vec<SeedDiff> = std::iter::zip(&pairs, &told)
        .map(|(Pair { a, b, .. }, (functions, differing))| SeedDiff {
            seed: a.seed,
            a: a.guest_timed,
            b: b.guest_timed,
            delta: minus(b.guest_timed, a.guest_timed),
            paths_differ: !functions.is_empty() || !differing.is_empty(),
            classes: classes(a, b),
        })
        .collect();
    let deltas: Vec<i64> = seeds.iter().map(|seed| seed.delta).collect();
    let of_seeds = exact(&deltas)?;
    // Of the seeds with the most frequent delta one at which something differs.
    let mut most_frequent = seeds
        .iter()
        .enumerate()
        .filter(|(_, seed)| seed.delta == of_seeds.difference);
    let shown = most_frequent.find(|(_, seed)| seed.paths_differ);
    let shown = shown.map_or(of_seeds.first, |(position, _)| position);
    let (path_a, path_b) = (pairs[shown].a, pairs[shown].b);
    let of_shown = seeds[shown].classes.clone();
    let same = of_seeds.answer == Answer::Same && seeds.iter().all(|seed| !seed.paths_differ);
    let (functions, differing) = told.into_iter().nth(shown)?;
    let delta = of_seeds.difference;
    let explained: i64 = functions.iter().map(|function| function.delta).sum();
    Some(RowDiff {
        name: name.to_owned(),
        verdict: verdict(same),
        a: seeds[shown].a,
        b: seeds[shown].b,
        delta,
        seeds_agreeing: of_seeds.agreeing,
        phases: phases_of(path_a, path_b, phases),
        functions,
        classes: of_shown,
        instructions: differing.told,
        instructions_left_out: differing.left_out,
        reordered: differing.reordered,
        unexplained: delta - explained,
        seeds,
    })
}

fn phases_of(a: &RowPath, b: &RowPath, table: &PhaseTable) -> Vec<PhaseDiff> {
    let count = |row: &RowPath, name: &str| {
        let phase = row.phases.iter().find(|phase| phase.name == name);
        phase.map_or(0, |phase| phase.instructions.all)
    };
    let names = table.names();
    let phases = names.iter().map(|&name| {
        let (a, b) = (count(a, name), count(b, name));
        PhaseDiff {
            name: name.to_owned(),
            a,
            b,
            delta: minus(b, a),
        }
    });
    phases.filter(|phase| phase.a > 0 || phase.b > 0).collect()
}

/// What is compared of a function; of one that a compiler has made several of, together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counts {
    names: BTreeSet<String>,
    own: u64,
    total: u64,
    calls: u64,
}

fn functions(a: &RowPath, b: &RowPath) -> Vec<FunctionDiff> {
    let (mut a, mut b) = (counts(a), counts(b));
    let keys: BTreeSet<Key> = a.keys().chain(b.keys()).cloned().collect();
    let mut changed: Vec<FunctionDiff> = keys
        .into_iter()
        .filter_map(|key| {
            let (in_a, in_b) = (a.remove(&key), b.remove(&key));
            let change = match (&in_a, &in_b) {
                (Some(_), None) => Change::Gone,
                (None, Some(_)) => Change::New,
                _ => Change::Changed,
            };
            let (a, b) = (in_a.unwrap_or_default(), in_b.unwrap_or_default());
            let (space, module, base) = key;
            // A caller whose own work is the same has not changed: its callee has.
            let differs = (a.own, a.calls) != (b.own, b.calls);
            (differs || change != Change::Changed).then(|| FunctionDiff {
                name: shown_name(&a.names, &b.names).unwrap_or(base),
                module,
                space,
                change,
                a: a.own,
                b: b.own,
                delta: minus(b.own, a.own),
                total: (a.total, b.total),
                calls: (a.calls, b.calls),
            })
        })
        .collect();
    // Stable, and by name before: equally changed ones stay in order.
    changed.sort_by_key(|f| {
        let total = minus(f.total.1, f.total.0);
        std::cmp::Reverse((f.delta.unsigned_abs(), total.unsigned_abs()))
    });
    changed
}

fn counts(row: &RowPath) -> BTreeMap<Key, Counts> {
    let mut counts: BTreeMap<Key, Counts> = BTreeMap::new();
    for function in &row.functions {
        let sum = counts.entry(key(function)).or_default();
        sum.names.insert(function.name.clone());
        sum.own += function.own.all;
        sum.total += function.total.all;
        sum.calls += function.calls.all;
    }
    counts
}

/// A full name, if all that is known of a function has but one.
fn shown_name(a: &BTreeSet<String>, b: &BTreeSet<String>) -> Option<String> {
    let mut names = a.union(b);
    match (names.next(), names.next()) {
        (Some(name), None) if !name.starts_with("0x") => Some(name.clone()),
        _ => None,
    }
}

fn minus(b: u64, a: u64) -> i64 {
    (i128::from(b) - i128::from(a)).clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
