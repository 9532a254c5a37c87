//! What patching functions out of the kernel should save of a row, and what it saved.
//!
//! What it should save is what the functions' calls took, less what is left of them: a return (and what stands
//! for `endbr64` before it, `xor eax, eax` where it returns 0). What else changes is how the rest of the path
//! reacts.

use std::collections::BTreeMap;

use exitpath_recording::{Difference, Recording, Space, Symbol, Trace};

use super::arch::x86_64::{FTRACE_NOP, LANDING_PADS, RETURN, RETURN_0};
use super::diff::{InstructionDiff, replaced};
use super::model::RowPath;
use super::{PathError, PhaseTable, trace_rows};
use crate::compare::{Exact, Pair, exact, paired};

/// A function that is to return at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    /// The function.
    pub name: String,
    /// What it is to return; `None`: whatever the register holds.
    pub returns: Option<u64>,
    /// Virtual address of what is overwritten.
    pub address: u64,
    /// What has to be there.
    pub old: Vec<u8>,
    /// What is to be there, as long.
    pub new: Vec<u8>,
    /// Instructions left of a call.
    pub instructions: u64,
}

impl Stub {
    /// What the condition without it differs in.
    pub fn difference(&self) -> Difference {
        Difference::Patch {
            function: self.name.clone(),
            returns: self.returns,
        }
    }
}

/// Why there is nothing to compare.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WithoutError {
    /// No such function was executed.
    #[error("no kernel function {0} is on the path")]
    NotOnPath(String),
    /// A function has no place for a patch.
    #[error(
        "{0} does not begin with ftrace's nop, so it cannot be patched out (noinstr, or assembly)"
    )]
    NoPlace(String),
    /// No condition of the recording has patches.
    #[error("the recording has no condition with functions patched out")]
    NoPatches,
    /// A row was recorded under one of the conditions only.
    #[error("{0} was recorded under one of the two conditions only; record it again")]
    Unpaired(String),
    /// There are no paths.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// How to patch a function out: its nop has to have been executed, and so is known. `NAME=0`: it returns 0.
///
/// # Errors
/// [`WithoutError::NotOnPath`], [`WithoutError::NoPlace`].
pub fn stub(trace: &Trace, wanted: &str) -> Result<Stub, WithoutError> {
    let (name, returns) = match wanted.strip_suffix("=0") {
        Some(name) => (name, Some(0)),
        None => (wanted, None),
    };
    let symbol: &Symbol = trace
        .symbols
        .iter()
        .find(|symbol| symbol.space == Space::Kernel && symbol.name == name)
        .ok_or_else(|| WithoutError::NotOnPath(name.to_owned()))?;
    let bytes_at = |address: u64| {
        trace
            .instructions
            .iter()
            .find(|instruction| instruction.address == address)
            .map(|instruction| instruction.bytes.as_slice())
    };
    let first = bytes_at(symbol.address);
    let pad = LANDING_PADS
        .iter()
        .find(|pad| first == Some(pad.as_slice()));
    let offset = pad.map_or(0, |pad| pad.len() as u64);
    if bytes_at(symbol.address + offset) != Some(&FTRACE_NOP) {
        return Err(WithoutError::NoPlace(name.to_owned()));
    }
    Ok(Stub {
        name: name.to_owned(),
        returns,
        address: symbol.address + offset,
        old: FTRACE_NOP.to_vec(),
        new: replacement(returns).to_vec(),
        instructions: left(returns, pad.is_some()),
    })
}

fn replacement(returns: Option<u64>) -> [u8; 5] {
    match returns {
        Some(_) => RETURN_0,
        None => RETURN,
    }
}

/// Instructions left of a call of a function that returns at once.
fn left(returns: Option<u64>, has_pad: bool) -> u64 {
    u64::from(has_pad) + if returns.is_some() { 2 } else { 1 }
}

/// All rows of a recording with and without functions.
#[derive(Debug, Clone, PartialEq)]
pub struct Without {
    /// The conditions: with them, and without.
    pub conditions: [String; 2],
    /// The rows at each seed.
    pub rows: Vec<RowWithout>,
}

/// A row at one seed. Unit: instructions per round.
#[derive(Debug, Clone, PartialEq)]
pub struct RowWithout {
    /// The row.
    pub row: String,
    /// The seed.
    pub seed: Option<u64>,
    /// Each function that was patched out.
    pub stubs: Vec<StubSaved>,
    /// What the guest's clock said with them.
    pub before: u64,
    /// And without.
    pub after: u64,
    /// The first less the second.
    pub saved: i64,
    /// What was saved at all seeds of the row.
    pub of_seeds: Exact<i64>,
    /// What the functions should have saved.
    pub expected: i64,
    /// What of that was not saved: the rest of the path changed by so much.
    pub rest: i64,
    /// Own instructions of functions that changed although neither they nor what they are called by
    /// were patched out, most changed first.
    pub others: Vec<(String, i64)>,
    /// Instructions outside of what was patched out that became others, in functions that take as many.
    pub replaced: Vec<InstructionDiff>,
}

/// What a function that was patched out should have saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StubSaved {
    /// The function.
    pub name: String,
    /// Its calls in a round.
    pub calls: u64,
    /// Instructions of one of them with all that it calls.
    pub inclusive: u64,
    /// Instructions left of one.
    pub stub_instructions: u64,
    /// What all calls took less what is left of them. A function that is patched out within another one
    /// that is, is saved once.
    pub saved: u64,
}

/// Holds a recording's second condition, in which functions are patched out, against its first.
///
/// # Errors
/// [`WithoutError::NoPatches`] where there is no such condition, and those of [`stub`] and [`trace_rows`].
pub fn without(recording: &Recording, phases: &PhaseTable) -> Result<Without, WithoutError> {
    let conditions = &recording.manifest.conditions;
    let patched = |differs: &[Difference]| {
        let patch = |difference: &Difference| match difference {
            Difference::Patch { function, returns } => Some((function.clone(), *returns)),
            _ => None,
        };
        differs.iter().filter_map(patch).collect::<Vec<_>>()
    };
    let with = conditions.iter().find(|c| patched(&c.differs).is_empty());
    let without = conditions.iter().find(|c| !patched(&c.differs).is_empty());
    let (Some(with), Some(without)) = (with, without) else {
        return Err(WithoutError::NoPatches);
    };
    let under = |name: &str| recording.under(name).ok_or(WithoutError::NoPatches);
    let (before, after) = (under(&with.name)?, under(&without.name)?);
    let trace = before.trace.as_ref().ok_or(PathError::NoTrace)?;
    let mut stubs = Vec::new();
    for (function, returns) in patched(&without.differs) {
        let wanted = match returns {
            Some(value) => format!("{function}={value}"),
            None => function,
        };
        stubs.push(stub(trace, &wanted)?);
    }
    let (before, after) = (trace_rows(&before, phases)?, trace_rows(&after, phases)?);
    let keyed = |rows: Vec<RowPath>| {
        let keyed = rows.into_iter();
        keyed.map(|path| ((path.row.clone(), path.seed, path.cpus), path))
    };
    let paired = paired(keyed(before), keyed(after));
    if let Some((row, _, _)) = paired.only_a.iter().chain(&paired.only_b).next() {
        return Err(WithoutError::Unpaired(row.clone()));
    }
    let saved = |Pair { a, b, .. }: &Pair<_, RowPath>| a.guest_timed as i64 - b.guest_timed as i64;
    let of_seeds = |name: &str| {
        let of_row = paired.pairs.iter().filter(|pair| pair.a.row == name);
        exact(&of_row.map(saved).collect::<Vec<_>>())
    };
    let of_pair = |pair: &Pair<_, RowPath>| {
        let (saved, of_seeds) = (saved(pair), of_seeds(&pair.a.row)?);
        Some(row(&stubs, &pair.a, &pair.b, saved, of_seeds))
    };
    let rows = paired.pairs.iter().filter_map(of_pair).collect();
    Ok(Without {
        conditions: [with.name.clone(), without.name.clone()],
        rows,
    })
}

/// What was to be expected of a row, and what came of it.
fn row(
    stubs: &[Stub],
    before: &RowPath,
    after: &RowPath,
    saved: i64,
    of_seeds: Exact<i64>,
) -> RowWithout {
    let of_stub = |stub: &Stub| {
        let function = before.functions.iter().find(|f| f.name == stub.name);
        let (calls, total) = function.map_or((0, 0), |f| (f.calls.all, f.total.all));
        StubSaved {
            name: stub.name.clone(),
            calls,
            inclusive: total.checked_div(calls).unwrap_or(0),
            stub_instructions: stub.instructions,
            saved: total.saturating_sub(calls * stub.instructions),
        }
    };
    let saved_by: Vec<StubSaved> = stubs.iter().map(of_stub).collect();
    let expected = saved_by.iter().map(|stub| stub.saved as i64).sum();
    let outside = |diff: &InstructionDiff| stubs.iter().all(|stub| stub.name != diff.function);
    let mut replaced = replaced(before, after);
    replaced.retain(outside);
    RowWithout {
        row: before.row.clone(),
        seed: before.seed,
        stubs: saved_by,
        before: before.guest_timed,
        after: after.guest_timed,
        saved,
        of_seeds,
        expected,
        rest: expected - saved,
        others: others(stubs, before, after),
        replaced,
    }
}

/// Own instructions by function, of what is in none that was patched out.
fn outside(stubs: &[Stub], path: &RowPath) -> BTreeMap<String, i64> {
    let mut own: BTreeMap<String, i64> = BTreeMap::new();
    for node in &path.tree {
        let mut at = node;
        let mut inside = false;
        loop {
            inside |= stubs.iter().any(|stub| stub.name == at.name);
            let parent = &path.tree[at.parent];
            if std::ptr::eq(parent, at) {
                break;
            }
            at = parent;
        }
        if !inside {
            *own.entry(node.name.clone()).or_default() += node.own.all as i64;
        }
    }
    own
}

fn others(stubs: &[Stub], before: &RowPath, after: &RowPath) -> Vec<(String, i64)> {
    let mut changes = outside(stubs, after);
    for (name, own) in outside(stubs, before) {
        *changes.entry(name).or_default() -= own;
    }
    let mut changes: Vec<(String, i64)> = changes.into_iter().collect();
    changes.retain(|(_, change)| *change != 0);
    changes.sort_by_key(|(_, change)| -change.abs());
    changes
}

#[cfg(test)]
mod tests {
    use exitpath_recording::Instruction;

    use super::*;

    /// A function that begins with these instructions.
    fn beginning(instructions: &[&[u8]]) -> Trace {
        let mut trace = Trace::default();
        let mut address = 0xffff_ffff_c000_0000;
        trace.symbols.push(Symbol {
            address,
            size: 64,
            name: "f".to_owned(),
            module: "kvm".to_owned(),
            space: Space::Kernel,
            condition: None,
        });
        for bytes in instructions {
            trace.instructions.push(Instruction {
                address,
                bytes: bytes.to_vec(),
            });
            address += bytes.len() as u64;
        }
        trace
    }

    #[test]
    fn the_nop_is_found_behind_whatever_stands_for_endbr64() {
        for pad in LANDING_PADS {
            let stub = stub(&beginning(&[&pad, &FTRACE_NOP]), "f").expect("it has a nop");
            assert_eq!((stub.address & 0xff, stub.instructions), (4, 2), "{pad:x?}");
            assert_eq!(stub.new[0], 0xc3);
        }
        let plain = stub(&beginning(&[&FTRACE_NOP]), "f=0").expect("it has a nop");
        assert_eq!((plain.address & 0xff, plain.instructions), (0, 2));
        assert_eq!(plain.returns, Some(0));
    }

    #[test]
    fn what_cannot_be_patched_out_is_told_from_what_is_not_there() {
        let begun = beginning(&[&[0x55], &FTRACE_NOP]);
        assert_eq!(
            stub(&begun, "f"),
            Err(WithoutError::NoPlace("f".to_owned()))
        );
        assert_eq!(
            stub(&begun, "g"),
            Err(WithoutError::NotOnPath("g".to_owned()))
        );
    }
}
