//! Gives addresses names: kallsyms, ELF symbol tables, DWARF lines.

#![forbid(unsafe_code)]
