//! Optional work on the way of an exit: where it is in the kernel's code, and what switching it off should save.

use std::collections::BTreeSet;

use super::code::{Change, Code, jump_over};
use crate::path::RowPath;

/// Where a knob's work is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A function, which returns at once; with a value where one is given.
    Function {
        /// Its name.
        name: String,
        /// What it returns.
        returns: Option<u32>,
    },
    /// Calls of a function by another one, which are taken out; where a value is given, that is what they return.
    Call {
        /// Who calls.
        caller: String,
        /// What is called.
        callee: String,
        /// What the caller finds in EAX.
        returns: Option<u32>,
    },
    /// Instructions of a function with one of these mnemonics, in lower case.
    Instructions {
        /// The function.
        function: String,
        /// The mnemonics.
        mnemonics: Vec<String>,
    },
    /// What is left of calls and jumps that the kernel patched out, in functions of these modules.
    PatchedOut {
        /// The modules.
        modules: Vec<String>,
    },
    /// A run of register clearings in a function.
    Clearing {
        /// The function.
        function: String,
    },
    /// The loop in a function that fills the return stack buffer.
    ReturnStack {
        /// The function.
        function: String,
    },
}

/// Optional work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knob {
    /// What it is called.
    pub name: String,
    /// What it is, for a reader.
    pub what: String,
    /// Where it is. Places that are not there are none of it.
    pub places: Vec<Place>,
}

/// A knob in the code that was executed.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    stubs: Vec<Stub>,
    /// Addresses of instructions that are taken out.
    removed: BTreeSet<u64>,
    /// Calls that become a MOV to EAX.
    answered: Vec<Change>,
    /// Stretches of code that are jumped over.
    jumps: Vec<Jump>,
    /// Calls that are taken out or answered: who calls what.
    calls: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
struct Jump {
    change: Change,
    /// Addresses of the instructions that are jumped over, the one that becomes the jump too.
    over: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Stub {
    change: Change,
    /// The function's addresses.
    range: std::ops::Range<u64>,
    /// Instructions left of a call.
    left: u64,
}

impl Knob {
    /// One of the user's: a function that returns at once, `NAME` or `NAME=VALUE`; a call taken out, `CALLER:CALLEE`, with `=VALUE` too.
    ///
    /// # Errors
    /// In words, where it is none of these.
    pub fn parse(text: &str) -> Result<Knob, String> {
        let (place, returns) = match text.split_once('=') {
            None => (text, None),
            Some((place, value)) => {
                let value = value.parse().map_err(|_| {
                    format!("{value} is no value that a function can return here: 0 to 4294967295")
                })?;
                (place, Some(value))
            }
        };
        let named = |name: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            match !name.is_empty() && name.chars().all(fits) {
                true => Ok(name.to_owned()),
                false => Err(format!("'{name}' is no name of a function")),
            }
        };
        let (place, what) = match place.split_once(':') {
            None => (
                Place::Function {
                    name: named(place)?,
                    returns,
                },
                "a function that returns at once",
            ),
            Some((caller, callee)) => (
                Place::Call {
                    caller: named(caller)?,
                    callee: named(callee)?,
                    returns,
                },
                "calls that are taken out",
            ),
        };
        Ok(Knob {
            name: text.to_owned(),
            what: what.to_owned(),
            places: vec![place],
        })
    }

    /// One that takes a boot: what is appended to the kernel's command line.
    pub fn boot(text: &str) -> Knob {
        let what = match text
            .split_once('=')
            .map_or(text, |(name, _)| name)
            .contains('.')
        {
            true => "a parameter of a module",
            false => "the kernel's command line",
        };
        Knob {
            name: text.to_owned(),
            what: what.to_owned(),
            places: Vec::new(),
        }
    }

    /// Where it is in this code; `None` where it is nowhere.
    pub fn resolve(&self, code: &Code) -> Option<Resolved> {
        let mut resolved = Resolved::default();
        for place in &self.places {
            place.resolve(code, &mut resolved);
        }
        let is_there = !resolved.stubs.is_empty()
            || !resolved.jumps.is_empty()
            || !resolved.removed.is_empty()
            || !resolved.answered.is_empty();
        is_there.then_some(resolved)
    }
}

impl Place {
    fn resolve(&self, code: &Code, into: &mut Resolved) {
        match self {
            Place::Function { name, returns } => into.stubs.extend(stub(code, name, *returns)),
            Place::Call {
                caller,
                callee,
                returns,
            } => {
                let Some(target) = code.symbol(callee).map(|symbol| symbol.address) else {
                    return;
                };
                let calls = code
                    .function(caller)
                    .filter(|(_, known)| known.calls() == Some(target));
                for (at, known) in calls {
                    into.calls.push((caller.clone(), callee.clone()));
                    match returns {
                        None => drop(into.removed.insert(at)),
                        Some(value) => into.answered.push(Change {
                            function: caller.clone(),
                            address: at,
                            old: known.bytes.clone(),
                            new: mov_eax(*value),
                        }),
                    }
                }
            }
            Place::Instructions {
                function,
                mnemonics,
            } => {
                let wanted = |mnemonic| {
                    let name = format!("{mnemonic:?}").to_lowercase();
                    mnemonics.contains(&name)
                };
                let found = code
                    .function(function)
                    .filter(|(_, known)| wanted(known.decoded.mnemonic()));
                into.removed.extend(found.map(|(at, _)| at));
            }
            Place::PatchedOut { modules } => {
                let found = code
                    .known
                    .iter()
                    .filter(|(_, known)| modules.contains(&known.module) && known.is_patched_out());
                into.removed.extend(found.map(|(at, _)| *at));
            }
            Place::Clearing { function } => {
                let found = code.function(function).filter(|(_, known)| known.clears());
                into.removed.extend(found.map(|(at, _)| at));
            }
            Place::ReturnStack { function } => into.jumps.extend(return_stack(code, function)),
        }
    }
}

/// How a function returns at once: behind its landing pad and in place of its ftrace NOP where it has these, else in its first
/// instruction.
fn stub(code: &Code, name: &str, returns: Option<u32>) -> Option<Stub> {
    let symbol = code.symbol(name)?;
    let pad = code.known.get(&symbol.address)?;
    let has_pad = pad.decoded.mnemonic() == iced_x86::Mnemonic::Endbr64
        || pad.bytes == [0x66, 0x0f, 0x1f, 0x00];
    let address = symbol.address + if has_pad { pad.bytes.len() as u64 } else { 0 };
    let new = match returns {
        None => vec![0xc3],
        Some(0) => vec![0x31, 0xc0, 0xc3],
        Some(value) => [mov_eax(value), vec![0xc3]].concat(),
    };
    // What is overwritten has to be known: what runs from there on, without a gap.
    let mut old = Vec::new();
    while old.len() < new.len() {
        old.extend(&code.known.get(&(address + old.len() as u64))?.bytes);
    }
    let mut new = new;
    let keeps_rest = old.split_at(new.len()).1.to_vec();
    new.extend(keeps_rest);
    Some(Stub {
        change: Change {
            function: name.to_owned(),
            address,
            old,
            new,
        },
        range: symbol.address..symbol.address + symbol.size.max(1),
        left: u64::from(has_pad) + if returns.is_some() { 2 } else { 1 },
    })
}

/// MOV to EAX, five bytes as a near CALL has.
fn mov_eax(value: u32) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(value.to_le_bytes());
    code
}

/// A jump over the loop that fills the return stack buffer: calls over a byte, what sets up their number before them, and all up to the
/// LFENCE behind them. The bytes between the calls are never executed, and so are not known.
fn return_stack(code: &Code, function: &str) -> Option<Jump> {
    let known: Vec<_> = code.function(function).collect();
    let over_a_byte = |at: &usize| {
        let (_, known) = known[*at];
        let target = known.calls();
        target.is_some_and(|target| target == known.decoded.next_ip() + 1)
    };
    let first = (0..known.len()).find(over_a_byte)?.checked_sub(1)?;
    let is_fence = |at: &usize| known[*at].1.decoded.mnemonic() == iced_x86::Mnemonic::Lfence;
    let last = (first..known.len()).find(is_fence)?;
    let (start, begins) = known[first];
    let jump = jump_over(known[last].1.decoded.next_ip() - start)?;
    let mut new = begins.bytes.clone();
    new.get_mut(..jump.len())?.copy_from_slice(&jump);
    Some(Jump {
        change: Change {
            function: function.to_owned(),
            address: start,
            old: begins.bytes.clone(),
            new,
        },
        over: known[first..=last].iter().map(|(at, _)| *at).collect(),
    })
}

/// What to change so that these knobs are off together.
pub fn changes(code: &Code, off: &[&Resolved]) -> Vec<Change> {
    let stubs: Vec<&Stub> = off.iter().flat_map(|resolved| &resolved.stubs).collect();
    let jumps: Vec<&Jump> = off.iter().flat_map(|resolved| &resolved.jumps).collect();
    // What is never reached need not be changed.
    let reached = |at: u64| {
        let stubbed = stubs.iter().any(|stub| stub.range.contains(&at));
        !stubbed && !jumps.iter().any(|jump| jump.over.contains(&at))
    };
    let answered = off.iter().flat_map(|resolved| &resolved.answered);
    let answered: Vec<&Change> = answered.filter(|change| reached(change.address)).collect();
    let removed = off.iter().flat_map(|resolved| &resolved.removed).copied();
    let is_removed = |at: &u64| reached(*at) && answered.iter().all(|change| change.address != *at);
    let removed: BTreeSet<u64> = removed.filter(is_removed).collect();
    let stubs = stubs.iter().map(|stub| &stub.change);
    let jumps = jumps.iter().map(|jump| &jump.change);
    let mut seen = BTreeSet::new();
    let mut changes: Vec<Change> = stubs
        .chain(jumps)
        .chain(answered.iter().copied())
        .cloned()
        .collect();
    changes.retain(|change| seen.insert(change.address));
    changes.extend(code.without(&removed).0);
    changes
}

impl Resolved {
    /// What a row should save where this alone is off, by what it was seen to execute: instructions per round.
    pub fn predicted(&self, code: &Code, path: &RowPath) -> i64 {
        let stubbed = |name: &str| self.stubs.iter().find(|stub| stub.change.function == name);
        let called =
            |caller: &str, callee: &str| self.calls.iter().any(|(a, b)| a == caller && b == callee);
        let mut saved = 0;
        let mut skipped: BTreeSet<usize> = BTreeSet::new();
        for (at, node) in path.tree.iter().enumerate() {
            let parent = &path.tree[node.parent];
            if at != node.parent && skipped.contains(&node.parent) {
                skipped.insert(at);
                continue;
            }
            // What waited for the guest when the round began is not left out of it.
            if node.calls == 0 {
                continue;
            }
            if let Some(stub) = stubbed(&node.name) {
                saved += node.total.all as i64 - (node.calls * stub.left) as i64;
                skipped.insert(at);
            } else if called(&parent.name, &node.name) {
                saved += node.total.all as i64;
                skipped.insert(at);
            }
        }
        let times = |at: u64| code.times(at, &path.row) as i64;
        let (_, left) = code.without(&self.removed);
        let jumped = self.jumps.iter().map(|jump| {
            let over: i64 = jump.over.iter().map(|at| times(*at)).sum();
            over - times(jump.change.address)
        });
        saved + jumped.sum::<i64>() + self.removed.iter().map(|at| times(*at)).sum::<i64>()
            - left.into_iter().map(times).sum::<i64>()
    }

    /// Whether a row executes any of it.
    pub fn is_on(&self, code: &Code, row: &str) -> bool {
        let stubs = self.stubs.iter().map(|stub| stub.change.address);
        let answered = self.answered.iter().map(|change| change.address);
        let jumps = self.jumps.iter().map(|jump| jump.change.address);
        let removed = self.removed.iter().copied();
        let mut all = stubs.chain(answered).chain(jumps).chain(removed);
        all.any(|at| code.times(at, row) > 0)
    }

    /// What is changed, a phrase each.
    pub fn said(&self) -> Vec<String> {
        let stubs = self
            .stubs
            .iter()
            .map(|stub| format!("{} returns at once", stub.change.function));
        let calls: BTreeSet<String> = self
            .calls
            .iter()
            .map(|(a, b)| format!("{a} does not call {b}"))
            .collect();
        let jumped: usize = self.jumps.iter().map(|jump| jump.over.len()).sum();
        let others = self.removed.len() + self.answered.len() + jumped - self.calls.len();
        let others = (others > 0).then(|| format!("{others} instructions taken out"));
        stubs.chain(calls).chain(others).collect()
    }
}
