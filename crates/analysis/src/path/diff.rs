//! Two traces of the same rows held against each other: usually of two kernels.
//!
//! Nothing is estimated. At one seed a path is exact, so that any difference is one; how many of
//! the seeds show the same difference tells a change of the code from one of the layout of memory,
//! which moves some paths by an instruction or two.

use std::collections::{BTreeMap, HashMap};

use exitpath_recording::{Machine, Recording, Space};

use super::{Function, PathError, PhaseTable, RowPath, trace_rows};

/// Why two recordings are not held against each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// They differ in something that a difference of their paths could come from.
    #[error(
        "not comparable: {what} is {a} in the first and {b} in the second; record both with the same"
    )]
    Differ {
        /// What differs, in words.
        what: &'static str,
        /// What it is in the first one.
        a: String,
        /// And in the second one.
        b: String,
    },
    /// One of them is no path.
    #[error("the {which} recording: {why}")]
    Path {
        /// `first` or `second`.
        which: &'static str,
        /// What is wrong with it.
        why: PathError,
    },
    /// They have no row in common.
    #[error("not comparable: they have no row in common ({a}; {b})")]
    NoRow {
        /// Rows of the first one.
        a: String,
        /// Rows of the second one.
        b: String,
    },
}

/// What differs between two traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathDiff {
    /// Whether any row differs at any seed.
    pub different: bool,
    /// Rows that both have, in the order of the first one.
    pub rows: Vec<RowDiff>,
    /// What differs besides, and may matter, in words: the kernel, its command line.
    pub notes: Vec<String>,
}

/// What differs between two paths of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDiff {
    /// The row.
    pub name: String,
    /// Instructions as the guest timed them, in the first one.
    pub a: u64,
    /// And in the second one.
    pub b: u64,
    /// `b - a`: the most frequent one of the seeds, of equally frequent ones the first seed's.
    /// What is here besides is of the first seed with this difference.
    pub delta: i64,
    /// Seeds whose difference this is.
    pub seeds_agreeing: usize,
    /// Every seed's difference.
    pub seeds: Vec<(u64, i64)>,
    /// Whether any seed's value or any function's count differs.
    pub different: bool,
    /// Phases that differ, most first.
    pub phases: Vec<PhaseDelta>,
    /// Functions whose own instructions differ, most first. Compilers' suffixes (`.isra.0`,
    /// `.constprop.0`, `.part.0`, `.cold`) are no part of a name here.
    pub functions: Vec<FunctionDelta>,
}

/// What differs in a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseDelta {
    /// Its name.
    pub name: String,
    /// Instructions in the first one.
    pub a: u64,
    /// And in the second one.
    pub b: u64,
    /// `b - a`.
    pub delta: i64,
}

/// What differs in a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionDelta {
    /// Its name.
    pub name: String,
    /// Its module.
    pub module: String,
    /// Its own instructions in the first one; 0 where it is not on the path.
    pub a: u64,
    /// And in the second one.
    pub b: u64,
    /// `b - a`.
    pub delta: i64,
    /// The same for the function with everything it calls.
    pub total: (u64, u64),
    /// Times it was called.
    pub calls: (u64, u64),
    /// Whether it is on one of the paths only.
    pub presence: Presence,
}

/// Which of two paths a function is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Both.
    Both,
    /// The second one only.
    New,
    /// The first one only.
    Gone,
}

/// What differs between the traces of two recordings.
///
/// # Errors
/// Where they cannot be held against each other: they must be of the lab and of the same QEMU,
/// CPU model, number of CPUs and seeds, and have a row in common.
pub fn diff(a: &Recording, b: &Recording, phases: &PhaseTable) -> Result<PathDiff, Incomparable> {
    comparable(a, b)?;
    let paths = |recording, which| {
        trace_rows(recording, phases).map_err(|why| Incomparable::Path { which, why })
    };
    let (paths_a, paths_b) = (paths(a, "first")?, paths(b, "second")?);
    let mut names: Vec<&str> = Vec::new();
    for path in &paths_a {
        let in_both = paths_b.iter().any(|other| other.row == path.row);
        if in_both && !names.contains(&path.row.as_str()) {
            names.push(&path.row);
        }
    }
    if names.is_empty() {
        return Err(Incomparable::NoRow {
            a: rows(a),
            b: rows(b),
        });
    }
    let rows = names
        .iter()
        .map(|name| row(name, &paths_a, &paths_b))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(PathDiff {
        different: rows.iter().any(|row| row.different),
        rows,
        notes: notes(a, b),
    })
}

fn rows(recording: &Recording) -> String {
    let names: Vec<&str> = recording
        .manifest
        .rows
        .iter()
        .map(|row| row.name.as_str())
        .collect();
    names.join(", ")
}

fn comparable(a: &Recording, b: &Recording) -> Result<(), Incomparable> {
    let machine = |recording: &Recording| match recording.manifest.machine {
        Machine::Host => "a host".to_owned(),
        Machine::Lab => "the lab".to_owned(),
    };
    let (x, y) = (&a.manifest.environment, &b.manifest.environment);
    let seeds = |seeds: &[u64]| {
        let mut seeds = seeds.to_vec();
        seeds.sort_unstable();
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        seeds.join(",")
    };
    let qemu = |qemu: &Option<String>| qemu.clone().unwrap_or_else(|| "none".to_owned());
    let facts = [
        ("the machine", machine(a), machine(b)),
        ("QEMU", qemu(&x.qemu), qemu(&y.qemu)),
        ("the CPU model", x.cpu.clone(), y.cpu.clone()),
        ("the number of CPUs", x.cpus.to_string(), y.cpus.to_string()),
        ("the set of seeds", seeds(&x.seeds), seeds(&y.seeds)),
    ];
    for (what, a, b) in facts {
        if a != b {
            return Err(Incomparable::Differ { what, a, b });
        }
    }
    Ok(())
}

/// Differences that do not keep anything from being compared, and may be its reason.
fn notes(a: &Recording, b: &Recording) -> Vec<String> {
    let (x, y) = (&a.manifest.environment, &b.manifest.environment);
    let mut notes = Vec::new();
    let mut note = |what: &str, a: &str, b: &str| {
        if a != b {
            notes.push(format!("{what}: {a} → {b}"));
        }
    };
    note("kernel", &x.kernel, &y.kernel);
    note("command line", &x.cmdline, &y.cmdline);
    note("VMM", &x.exitpath, &y.exitpath);
    notes
}

/// Holds a row's paths against each other, seed by seed.
fn row(name: &str, a: &[RowPath], b: &[RowPath]) -> Result<RowDiff, Incomparable> {
    let pairs: Vec<(&RowPath, &RowPath)> = a
        .iter()
        .filter(|a| a.row == name)
        .filter_map(|a| {
            let b = b.iter().find(|b| b.row == name && b.seed == a.seed)?;
            Some((a, b))
        })
        .collect();
    let mut seeds = Vec::new();
    let mut different = false;
    for (a, b) in &pairs {
        if a.cpus != b.cpus {
            return Err(Incomparable::Differ {
                what: "the number of CPUs of a row",
                a: a.cpus.to_string(),
                b: b.cpus.to_string(),
            });
        }
        seeds.push((a.seed.unwrap_or(0), delta(a.guest_timed, b.guest_timed)));
        different |= a.guest_timed != b.guest_timed || !functions(a, b).is_empty();
    }
    let count = |delta| seeds.iter().filter(|(_, other)| *other == delta).count();
    // The first of equally frequent ones.
    let best = seeds
        .iter()
        .enumerate()
        .max_by_key(|(at, (_, delta))| (count(*delta), std::cmp::Reverse(*at)))
        .map(|(at, _)| at);
    let Some((best, (a, b))) = best.map(|at| (at, pairs[at])) else {
        return Err(Incomparable::NoRow {
            a: name.to_owned(),
            b: "the same row at other seeds".to_owned(),
        });
    };
    Ok(RowDiff {
        name: name.to_owned(),
        a: a.guest_timed,
        b: b.guest_timed,
        delta: seeds[best].1,
        seeds_agreeing: count(seeds[best].1),
        seeds,
        different,
        phases: phases(a, b),
        functions: functions(a, b),
    })
}

fn delta(a: u64, b: u64) -> i64 {
    b.wrapping_sub(a).cast_signed()
}

fn phases(a: &RowPath, b: &RowPath) -> Vec<PhaseDelta> {
    let mut both: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for phase in &a.phases {
        both.entry(&phase.name).or_default().0 += phase.instructions.all;
    }
    for phase in &b.phases {
        both.entry(&phase.name).or_default().1 += phase.instructions.all;
    }
    let mut deltas: Vec<PhaseDelta> = both
        .into_iter()
        .filter(|(_, (a, b))| a != b)
        .map(|(name, (a, b))| PhaseDelta {
            name: name.to_owned(),
            a,
            b,
            delta: delta(a, b),
        })
        .collect();
    deltas.sort_by_key(|phase| std::cmp::Reverse(phase.delta.unsigned_abs()));
    deltas
}

/// What one path has of a function.
#[derive(Default, Clone, Copy)]
struct Of {
    own: u64,
    total: u64,
    calls: u64,
    there: bool,
}

fn functions(a: &RowPath, b: &RowPath) -> Vec<FunctionDelta> {
    type Key<'a> = (&'a str, &'a str, Space);
    let mut both: HashMap<Key<'_>, (Of, Of)> = HashMap::new();
    let add = |of: &mut Of, function: &Function| {
        of.own += function.own.all;
        // A suffixed part is called by the rest of the function, or is all of it.
        of.total = of.total.max(function.total.all);
        of.calls = of.calls.max(function.calls.all);
        of.there = true;
    };
    for function in &a.functions {
        let key = (
            base_name(&function.name),
            function.module.as_str(),
            function.space,
        );
        add(&mut both.entry(key).or_default().0, function);
    }
    for function in &b.functions {
        let key = (
            base_name(&function.name),
            function.module.as_str(),
            function.space,
        );
        add(&mut both.entry(key).or_default().1, function);
    }
    let mut deltas: Vec<FunctionDelta> = both
        .into_iter()
        .filter(|(_, (a, b))| a.own != b.own)
        .map(|((name, module, _), (a, b))| FunctionDelta {
            name: name.to_owned(),
            module: module.to_owned(),
            a: a.own,
            b: b.own,
            delta: delta(a.own, b.own),
            total: (a.total, b.total),
            calls: (a.calls, b.calls),
            presence: match (a.there, b.there) {
                (true, true) => Presence::Both,
                (false, _) => Presence::New,
                (true, false) => Presence::Gone,
            },
        })
        .collect();
    deltas.sort_by(|x, y| {
        let most = y.delta.unsigned_abs().cmp(&x.delta.unsigned_abs());
        most.then_with(|| (&x.name, &x.module).cmp(&(&y.name, &y.module)))
    });
    deltas
}

/// A function's name without what a compiler appends to name a piece or a copy of it.
fn base_name(name: &str) -> &str {
    const SUFFIXES: [&str; 5] = [".isra.", ".constprop.", ".part.", ".cold", ".llvm."];
    let end = SUFFIXES.iter().filter_map(|suffix| name.find(suffix)).min();
    // A name that begins with a dot is all there is.
    match end {
        Some(end) if end > 0 => &name[..end],
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::base_name;

    #[test]
    fn suffixes_of_compilers_are_no_part_of_a_name() {
        for (name, base) in [
            ("kvm_cpuid", "kvm_cpuid"),
            ("foo.constprop.0", "foo"),
            ("foo.isra.0.cold", "foo"),
            ("foo.cold", "foo"),
            (".cold", ".cold"),
            ("core::fmt::write", "core::fmt::write"),
        ] {
            assert_eq!(base_name(name), base);
        }
    }
}
