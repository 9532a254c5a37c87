//! Gives addresses names: kallsyms, ELF symbol tables, DWARF lines.
//!
//! [`kallsyms`] names the kernel's addresses and [`elf`] those of a program or library, which
//! [`maps`] and [`load_bias`] place in a process; [`program`] also what is stripped of its symbols. [`cover`] keeps of all symbols those that a
//! recording needs. [`Lines`] reads source lines and inlined functions from debug information
//! ([`kernel_lines`] all of a kernel's), and [`locations`] collects them for a recording's
//! instructions.

#![forbid(unsafe_code)]

mod alias;
mod cover;
mod elf;
mod error;
mod frames;
mod kallsyms;
mod lines;
mod locations;
mod maps;
mod sections;

pub use cover::cover;
pub use elf::elf;
pub use error::{Error, Result};
pub use frames::{DEBUG_FOLDER, debug_file, program};
pub use kallsyms::{VMLINUX, kallsyms};
pub use lines::{Frame, Lines, kernel_lines};
pub use locations::locations;
pub use maps::{Mapping, load_bias, maps};
