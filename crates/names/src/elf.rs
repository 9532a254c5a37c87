//! The functions of a program or library, from its own table of symbols.

use object::elf::{SHF_EXECINSTR, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE};
use object::read::elf::{ElfFile64, Sym};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolSection};

use exitpath_recording::{Space, Symbol};

use crate::alias;
use crate::cover::resolve;
use crate::error::{Error, Result};

/// A symbol of a section that is executed.
struct Entry {
    /// As in the file.
    address: u64,
    /// 0 where the table does not say.
    size: u64,
    /// Of the section.
    end: u64,
    is_function: bool,
    global: bool,
    name: String,
}

/// The functions of an ELF file for 64 bits that is loaded at `bias`, in the order of their
/// addresses, without overlap; empty if it has no symbols at all.
///
/// They are those of `.symtab`, or of a stripped file's `.dynsym`. A function without a size
/// (assembly, mostly) reaches up to the next symbol or the end of its section; elsewhere what is
/// between two functions has no name. Symbols without a type count as functions if they are not
/// inside of one: labels of assembly.
///
/// Names of Rust and C++ are demangled, Rust's without their hash. Of several names of one
/// address one with a size is taken before one without, then a global (or weak) one, then one
/// with fewer leading underscores (`ioctl` rather than `__ioctl`), then the shorter one, then the
/// alphabetically first one.
///
/// # Errors
/// [`Error::NotElf`].
pub fn elf(bytes: &[u8], module: &str, bias: u64) -> Result<Vec<Symbol>> {
    let not_elf = |e: object::Error| Error::NotElf {
        what: module.into(),
        why: e.to_string(),
    };
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(not_elf)?;
    let mut entries = entries(&file, file.symbols());
    if !entries.iter().any(|entry| entry.is_function) {
        entries = self::entries(&file, file.dynamic_symbols());
    }
    entries.sort_by(|a, b| {
        let order = (a.address, a.size == 0).cmp(&(b.address, b.size == 0));
        order.then_with(|| alias::compare((&a.name, a.global), (&b.name, b.global)))
    });
    let mut symbols: Vec<Symbol> = Vec::new();
    // End of the sized functions so far.
    let mut covered = 0;
    let mut groups = entries.chunk_by(|a, b| a.address == b.address).peekable();
    while let Some(group) = groups.next() {
        let best = &group[0];
        let mut size = group.iter().map(|entry| entry.size).max().unwrap_or(0);
        if size == 0 {
            if best.address < covered {
                continue;
            }
            let next = groups.peek().map_or(u64::MAX, |next| next[0].address);
            size = next.min(best.end).saturating_sub(best.address);
        } else {
            covered = covered.max(best.address.saturating_add(size));
        }
        symbols.push(Symbol {
            space: Space::User,
            address: best.address,
            size: size.min(best.end.saturating_sub(best.address)),
            name: best.name.clone(),
            module: module.into(),
            condition: None,
        });
    }
    let mut symbols = resolve(symbols);
    for symbol in &mut symbols {
        symbol.address = symbol.address.wrapping_add(bias);
    }
    // A bias that wraps some of the addresses breaks their order.
    symbols.sort_by_key(|symbol| symbol.address);
    Ok(symbols)
}

fn entries<'data: 'file, 'file>(
    file: &'file ElfFile64<'data, Endianness>,
    symbols: impl Iterator<Item = object::read::elf::ElfSymbol64<'data, 'file, Endianness>>,
) -> Vec<Entry> {
    let endian = file.endian();
    let mut entries = Vec::new();
    for symbol in symbols {
        let raw = symbol.elf_symbol();
        let kind = raw.st_type();
        let is_function = kind == STT_FUNC || kind == STT_GNU_IFUNC;
        let (Ok(name), SymbolSection::Section(index)) = (symbol.name(), symbol.section()) else {
            continue;
        };
        // An assembler's own labels begin with a dot, the ABI's mapping symbols with a dollar.
        let is_label = kind == STT_NOTYPE && !name.starts_with(['.', '$']);
        if name.is_empty() || !(is_function || is_label) {
            continue;
        }
        let Ok(section) = file.section_by_index(index) else {
            continue;
        };
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            continue;
        };
        let end = section.address().saturating_add(section.size());
        if sh_flags.0 & SHF_EXECINSTR.0 == 0 || symbol.address() < section.address() {
            continue;
        }
        entries.push(Entry {
            address: symbol.address(),
            size: raw.st_size(endian),
            end,
            is_function,
            global: raw.st_bind() != STB_LOCAL,
            name: demangle(name),
        });
    }
    entries
}

/// A name as its programmer wrote it, as far as that can be told.
pub(crate) fn demangle(name: &str) -> String {
    // In a library's .symtab the version is part of the name: `memcpy@@GLIBC_2.14`.
    let name = match name.find('@') {
        Some(at) if at > 0 => &name[..at],
        _ => name,
    };
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    if name.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(name)
        && let Ok(cpp) = symbol.demangle()
    {
        return cpp;
    }
    name.to_owned()
}
