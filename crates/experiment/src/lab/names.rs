//! Names for the addresses of a trace: the kernel's from its own list, the VMM's from the program that ran in
//! the lab or the files that it had mapped, the guest's from the catalogue.

use std::path::Path;

use exitpath_exits::find;
use exitpath_exits::layout::{STACKS, STUBS};
use exitpath_lab::debug_files::DebugFiles;
use exitpath_lab::kernels::Kernel;
use exitpath_names::Mapping;
use exitpath_recording::trace::{BRACKET, GUEST, HANDLER, OPERATION};
use exitpath_recording::{Location, Run, Space, Symbol, Trace};
use exitpath_runner::work::Vdso;

use super::AMD;
use crate::control::Control;
use crate::error::Result;

/// How `/proc/PID/maps` calls the vDSO.
const VDSO: &str = "[vdso]";
/// The module of exitpath's own VMM, which measures in the lab.
const OWN_VMM: &str = "exitpath";

/// Whose code ran in user space.
pub(super) enum UserSpace<'a> {
    /// exitpath's own VMM; each boot's process may have its vDSO elsewhere.
    Own(Vec<&'a Vdso>),
    /// Another VMM that had these files mapped (`/proc/PID/maps`), and the vDSO of some process.
    Foreign {
        maps: &'a str,
        vdso: Option<&'a Vdso>,
    },
}

/// Adds symbols to a trace of these runs.
pub(super) fn add(
    trace: &mut Trace,
    kallsyms: &str,
    user: &UserSpace<'_>,
    runs: &[&Run],
    control: &Control,
) -> Result<()> {
    let mut symbols = exitpath_names::kallsyms(kallsyms)?;
    match user {
        UserSpace::Own(vdsos) => {
            // It is linked to its address.
            symbols.extend(exitpath_names::elf(&exitpath_lab::inside()?, OWN_VMM, 0)?);
            for vdso in vdsos {
                symbols.extend(of_vdso(vdso, vdso.address)?);
            }
        }
        UserSpace::Foreign { maps, vdso } => symbols.extend(of_maps(maps, *vdso, control)?),
    }
    for run in runs {
        symbols.extend(guest(&run.row));
    }
    trace.symbols = exitpath_names::cover(symbols, &trace.instructions);
    Ok(())
}

fn of_vdso(vdso: &Vdso, at: u64) -> Result<Vec<Symbol>> {
    Ok(exitpath_names::program(&vdso.bytes, None, VDSO, at)?)
}

/// Symbols of the files that a process had mapped. They are read on this machine, where they were copied
/// from.
fn of_maps(maps: &str, vdso: Option<&Vdso>, control: &Control) -> Result<Vec<Symbol>> {
    let mut files: Vec<Mapping> = Vec::new();
    for mapping in exitpath_names::maps(maps) {
        // A file has one bias, whichever of its parts is looked at.
        if !files.iter().any(|known| known.file == mapping.file) {
            files.push(mapping);
        }
    }
    let mut symbols = Vec::new();
    for mapping in files {
        let path = Path::new(&mapping.file);
        // Another process's is the same, wherever it lies.
        if let Some(vdso) = vdso.filter(|_| mapping.file == VDSO) {
            symbols.extend(of_vdso(vdso, mapping.start)?);
        }
        // What else is no file has no names.
        if !path.is_absolute() {
            continue;
        }
        match of_file(path, &mapping) {
            Ok(of_file) => symbols.extend(of_file),
            // A file that is gone since, or none that holds a program: its code is told by place.
            Err(why) => {
                let remark = format!("{}: no names: {why}", path.display());
                control.progress.remark(&remark);
            }
        }
    }
    Ok(symbols)
}

/// The names in a file that a process had mapped, with its debug file's where there is one; else why there
/// are none, in words.
fn of_file(path: &Path, mapping: &Mapping) -> Result<Vec<Symbol>, String> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let bytes = read(path)?;
    let debug = exitpath_names::debug_file(&bytes)
        .map(|debug| read(&debug))
        .transpose()?;
    let bias = exitpath_names::load_bias(mapping, &bytes).map_err(|error| error.to_string())?;
    let module = path.file_name().unwrap_or_default().to_string_lossy();
    exitpath_names::program(&bytes, debug.as_deref(), &module, bias)
        .map_err(|error| error.to_string())
}

/// Adds source lines and inlined functions, where there is debug information of the kernel.
pub(super) fn add_lines(trace: &mut Trace, kernel: &Kernel, vmlinux: Option<&Path>) -> Result<()> {
    let files = match vmlinux {
        Some(vmlinux) => Some(DebugFiles::of(vmlinux)?),
        None => kernel.debug_files(),
    };
    let Some(files) = files else {
        return Ok(());
    };
    let lines = exitpath_names::kernel_lines(&files.vmlinux, &files.modules, &trace.symbols)?;
    trace.locations = exitpath_names::locations(&trace.instructions, &trace.symbols, &lines)?;
    Ok(())
}

/// What a row's program consists of.
fn guest(row: &str) -> Vec<Symbol> {
    let Some(row) = find(row) else {
        return Vec::new();
    };
    let program = row.program(AMD);
    let at = program.address;
    let (op, op_end, handler) = (program.op, program.op_end, program.handler);
    [
        (STUBS, STACKS - STUBS, HANDLER),
        (at, op as u64, BRACKET),
        (at + op as u64, (op_end - op) as u64, OPERATION),
        (at + op_end as u64, (handler - op_end) as u64, BRACKET),
        (
            at + handler as u64,
            (program.code.len() - handler) as u64,
            HANDLER,
        ),
    ]
    .map(|(address, size, name)| Symbol {
        space: Space::Guest,
        address,
        size,
        name: name.to_owned(),
        module: GUEST.to_owned(),
        condition: None,
    })
    .to_vec()
}

/// One trace of several that have names of their own, each of some conditions.
pub(super) fn side_by_side(named: Vec<(Vec<&str>, Trace)>) -> Option<Trace> {
    if named.len() < 2 {
        return named.into_iter().next().map(|(_, trace)| trace);
    }
    let mut all = Trace::default();
    for (conditions, trace) in named {
        let (instructions, paths) = (all.instructions.len() as u32, all.paths.len() as u32);
        all.instructions.extend(trace.instructions);
        all.paths.extend(trace.paths.into_iter().map(|mut path| {
            for block in &mut path.blocks {
                block.first += instructions;
            }
            path
        }));
        all.windows
            .extend(trace.windows.into_iter().map(|mut window| {
                for segment in &mut window.segments {
                    segment.path += paths;
                }
                window
            }));
        all.locations
            .extend(trace.locations.into_iter().map(|location| Location {
                instruction: location.instruction + instructions,
                ..location
            }));
        for condition in conditions {
            all.symbols
                .extend(trace.symbols.iter().cloned().map(|symbol| Symbol {
                    condition: Some(condition.to_owned()),
                    ..symbol
                }));
        }
    }
    all.symbols.sort_by(|a, b| {
        let place = |symbol: &Symbol| (symbol.space, symbol.address);
        (&a.condition, place(a)).cmp(&(&b.condition, place(b)))
    });
    // A trace knows the reasons of all exits or of none.
    if !all.knows_exits() {
        for window in &mut all.windows {
            window.exits = None;
        }
    }
    Some(all)
}
