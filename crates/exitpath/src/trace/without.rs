//! `exitpath trace --without FUNCTION`: the same trace with functions that return at once, held
//! against the one with them.
//!
//! What patching a function out should save is what its calls took, less what is left of them: a
//! return (and what stands for `endbr64` before it, `xor eax, eax` where it returns 0).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_analysis::path::diff::{InstructionDiff, replaced};
use exitpath_analysis::path::{PhaseTable, RowPath, trace_rows};
use exitpath_lab::gdb::{Patch, Patches};
use exitpath_recording::{Recording, Space, Symbol, Trace as Instructions};

use super::Job;
use crate::cli::Trace;
use crate::failure::Failure;
use crate::lab::Prepared;
use crate::output;

/// What the compiler leaves at the beginning of a traceable function, and ftrace makes of it: a
/// NOP of five bytes.
const FTRACE_NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// Before it where the kernel has indirect branch tracking: `endbr64`, or a NOP in its place where nothing
/// calls the function by its address (`gen_endbr_poison` in arch/x86/include/asm/ibt.h: `nopw (%rax)`,
/// and `nopl -42(%rax)` from Linux 6.15 on).
const LANDING_PADS: [[u8; 4]; 3] = [
    [0xf3, 0x0f, 0x1e, 0xfa],
    [0x66, 0x0f, 0x1f, 0x00],
    [0x0f, 0x1f, 0x40, 0xd6],
];
/// `ret`.
const RETURN: [u8; 5] = [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];
/// `xor eax, eax; ret`.
const RETURN_0: [u8; 5] = [0x31, 0xc0, 0xc3, 0xcc, 0xcc];

/// Instructions named at most that became others outside of what was patched out.
const REPLACED: usize = 10;

/// A function to be patched out.
struct Stub {
    name: String,
    patch: Patch,
    /// Instructions left of a call.
    instructions: u64,
}

pub(super) fn run(
    args: &Trace,
    job: &Job<'_>,
    before: &Recording,
    phases: &PhaseTable,
    prepared: &Prepared,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let trace = before
        .trace
        .as_ref()
        .expect("it was recorded with the plugin");
    let stubs: Vec<Stub> = args
        .without
        .iter()
        .map(|name| stub(trace, name))
        .collect::<Result<_, _>>()?;
    let patched = Job {
        patches: Some(Patches {
            breakpoint: exitpath_runner::ready_address(),
            patches: stubs.iter().map(|stub| stub.patch.clone()).collect(),
        }),
        seeds: job.seeds.clone(),
        ..*job
    };
    let after = patched.record("trace", &args.lab, prepared, interrupted);
    let after = after.map_err(|failure| required(&stubs, failure))?;
    let analyse = |recording| {
        trace_rows(recording, phases).map_err(|error| Failure::Cannot(error.to_string()))
    };
    for warning in &before.manifest.warnings {
        output::remark(&format!("warning: {warning}"));
    }
    let (before, after) = (analyse(before)?, analyse(&after)?);
    for (before, after) in before.iter().zip(&after) {
        output::print(&compare(&stubs, before, after))?;
    }
    Ok(())
}

/// Why there is no trace without the functions. The one with them was just made, in the same lab.
fn required(stubs: &[Stub], failure: Failure) -> Failure {
    let names: Vec<&str> = stubs.iter().map(|stub| stub.name.as_str()).collect();
    let says = match names.as_slice() {
        [name] => format!("{name} is required: with it the same was traced"),
        _ => "one of them is required: try each alone".to_owned(),
    };
    match failure {
        Failure::Usage(what) | Failure::Cannot(what) => {
            Failure::Cannot(format!("without {}: {what}: {says}", names.join(", ")))
        }
        other => other,
    }
}

/// What was to be expected of a row, and what came of it.
fn compare(stubs: &[Stub], before: &RowPath, after: &RowPath) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut expected = 0;
    for stub in stubs {
        let function = before.functions.iter().find(|f| f.name == stub.name);
        let (calls, total) = function.map_or((0, 0), |f| (f.calls.all, f.total.all));
        // A function that is patched out within another one that is, is saved once.
        let saved = total.saturating_sub(calls * stub.instructions);
        expected += saved;
        let _ = writeln!(
            text,
            "{}: {} calls {calls} × (inclusive {} - stub {}) = {saved}",
            before.row,
            stub.name,
            total.checked_div(calls).unwrap_or(0),
            stub.instructions
        );
    }
    let seed = before
        .seed
        .map_or_else(String::new, |seed| format!(" [seed {seed}]"));
    let saved = before.guest_timed as i64 - after.guest_timed as i64;
    let _ = writeln!(
        text,
        "{}: {} -> {}: saved {saved}, expected {expected}, the rest of the path changed by {}{seed}",
        before.row,
        before.guest_timed,
        after.guest_timed,
        expected as i64 - saved
    );
    for (name, change) in others(stubs, before, after) {
        let _ = writeln!(text, "  {name} {change:+}");
    }
    // What takes as many instructions as before may be others.
    let replaced = replaced(before, after);
    let outside = |diff: &&InstructionDiff| stubs.iter().all(|stub| stub.name != diff.function);
    for diff in replaced.iter().filter(outside).take(REPLACED) {
        let _ = writeln!(text, "  {}", exitpath_report::text::instruction(diff));
    }
    text
}

/// Own instructions of functions that changed although neither they nor what they are called by
/// were patched out: how the rest of the path reacts.
fn others(stubs: &[Stub], before: &RowPath, after: &RowPath) -> Vec<(String, i64)> {
    let outside = |path: &RowPath| {
        let mut own: std::collections::BTreeMap<String, i64> = std::collections::BTreeMap::new();
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
    };
    let (before, after) = (outside(before), outside(after));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let of =
        |own: &std::collections::BTreeMap<String, i64>, name| own.get(name).copied().unwrap_or(0);
    let mut changes: Vec<(String, i64)> = names
        .into_iter()
        .map(|name| (name.clone(), of(&after, name) - of(&before, name)))
        .filter(|(_, change)| *change != 0)
        .collect();
    changes.sort_by_key(|(_, change)| -change.abs());
    changes
}

/// How to patch a function out: its nop has to have been executed, and so is known.
fn stub(trace: &Instructions, wanted: &str) -> Result<Stub, Failure> {
    let (name, new) = match wanted.strip_suffix("=0") {
        Some(name) => (name, RETURN_0),
        None => (wanted, RETURN),
    };
    let symbol: &Symbol = trace
        .symbols
        .iter()
        .find(|symbol| symbol.space == Space::Kernel && symbol.name == name)
        .ok_or_else(|| Failure::Usage(format!("no kernel function {name} is on the path")))?;
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
    let (offset, before) = pad.map_or((0, 0), |pad| (pad.len() as u64, 1));
    if bytes_at(symbol.address + offset) != Some(&FTRACE_NOP) {
        return Err(Failure::Usage(format!(
            "{name} does not begin with ftrace's nop, so it cannot be patched out (noinstr, or \
             assembly)"
        )));
    }
    let instructions = before + if new == RETURN_0 { 2 } else { 1 };
    Ok(Stub {
        name: name.to_owned(),
        patch: Patch {
            name: name.to_owned(),
            address: symbol.address + offset,
            old: FTRACE_NOP.to_vec(),
            new: new.to_vec(),
        },
        instructions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use exitpath_recording::Instruction;

    /// A function that begins with these instructions.
    fn beginning(instructions: &[&[u8]]) -> Instructions {
        let mut trace = Instructions::default();
        let mut address = 0xffff_ffff_c000_0000;
        trace.symbols.push(Symbol {
            address,
            size: 64,
            name: "f".to_owned(),
            module: "kvm".to_owned(),
            space: Space::Kernel,
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
            let stub =
                stub(&beginning(&[&pad, &FTRACE_NOP]), "f").unwrap_or_else(|_| panic!("{pad:x?}"));
            assert_eq!(
                (stub.patch.address & 0xff, stub.instructions),
                (4, 2),
                "{pad:x?}"
            );
        }
        let plain = stub(&beginning(&[&FTRACE_NOP]), "f=0").unwrap_or_else(|_| panic!("refused"));
        assert_eq!((plain.patch.address & 0xff, plain.instructions), (0, 2));
        assert!(stub(&beginning(&[&[0x55], &FTRACE_NOP]), "f").is_err());
    }
}
