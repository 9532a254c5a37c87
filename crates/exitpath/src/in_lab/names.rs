//! Names for the addresses of a trace: the kernel's from its own list, the VMM's from this very
//! program, the guest's from the catalogue.

use std::path::Path;

use exitpath_exits::find;
use exitpath_exits::layout::{STACKS, STUBS};
use exitpath_lab::debug_files::DebugFiles;
use exitpath_lab::kernels::Kernel;
use exitpath_names::Mapping;
use exitpath_recording::trace::{BRACKET, GUEST, HANDLER, OPERATION};
use exitpath_recording::{Run, Space, Symbol, Trace};

use super::worker::{VDSO, Vdso};
use crate::failure::Failure;
use crate::output;

/// Adds symbols to a trace.
pub(super) fn add(
    trace: &mut Trace,
    kallsyms: &str,
    vdsos: &[Vdso],
    runs: &[Run],
) -> Result<(), Failure> {
    let mut symbols = exitpath_names::kallsyms(kallsyms)?;
    let program = std::env::current_exe()
        .and_then(std::fs::read)
        .map_err(|error| Failure::Cannot(format!("cannot read this program: {error}")))?;
    // It is linked to its address, and the lab runs this very file.
    symbols.extend(exitpath_names::elf(&program, env!("CARGO_BIN_NAME"), 0)?);
    // Each boot's process may have it elsewhere.
    for vdso in vdsos {
        symbols.extend(exitpath_names::program(
            &vdso.bytes,
            None,
            VDSO,
            vdso.address,
        )?);
    }
    for run in runs {
        symbols.extend(guest(&run.row));
    }
    trace.symbols = exitpath_names::cover(symbols, &trace.instructions);
    Ok(())
}

/// Adds symbols to the trace of a VMM that had these files mapped: of the kernel, of the VMM and
/// its libraries, and of the rows' programs. Files are read on this machine, where they were
/// copied from.
pub(crate) fn add_of_vmm(
    trace: &mut Trace,
    kallsyms: &str,
    maps: &str,
    vdso: Option<&Vdso>,
    runs: &[Run],
) -> Result<(), Failure> {
    let mut symbols = exitpath_names::kallsyms(kallsyms)?;
    let mut files: Vec<Mapping> = Vec::new();
    for mapping in exitpath_names::maps(maps) {
        // A file has one bias, whichever of its parts is looked at.
        if !files.iter().any(|known| known.file == mapping.file) {
            files.push(mapping);
        }
    }
    for mapping in files {
        let path = Path::new(&mapping.file);
        // Another process's is the same, wherever it lies.
        if let Some(vdso) = vdso.filter(|_| mapping.file == VDSO) {
            symbols.extend(exitpath_names::program(
                &vdso.bytes,
                None,
                VDSO,
                mapping.start,
            )?);
        }
        // What else is no file has no names.
        if !path.is_absolute() {
            continue;
        }
        match of_file(path, &mapping) {
            Ok(of_file) => symbols.extend(of_file),
            // A file that is gone since, or none that holds a program: its code is told by place.
            Err(error) => output::remark(&format!("{}: no names: {error}", path.display())),
        }
    }
    for run in runs {
        symbols.extend(guest(&run.row));
    }
    trace.symbols = exitpath_names::cover(symbols, &trace.instructions);
    Ok(())
}

/// The names in a file that a process had mapped, with its debug file's where there is one.
///
/// # Errors
/// Why there are none, in words.
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
pub(crate) fn add_lines(
    trace: &mut Trace,
    kernel: &Kernel,
    vmlinux: Option<&Path>,
) -> Result<(), Failure> {
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
    // The lab's CPU is an AMD one.
    let program = row.program(true);
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
    })
    .to_vec()
}
