//! Functions of a program or library that was stripped: what its dynamic symbols leave unnamed.
//!
//! A stripped file still says where its functions begin and end, for exceptions and debuggers to
//! find their way up the stack: `.eh_frame` has an entry (FDE) for each. And which function an
//! entry of its procedure linkage table leads to is in the relocation of the slot it jumps through.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};
use object::read::elf::ElfFile64;
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, RelocationTarget,
};

use exitpath_recording::{Space, Symbol};

use crate::cover::contains;
use crate::elf::{demangle, elf};
use crate::error::{Error, Result};

/// Where Debian and others install debug symbols, by the build's id.
pub const DEBUG_FOLDER: &str = "/usr/lib/debug/.build-id";
/// Sections of the procedure linkage table, and bytes of an entry (x86-64 psABI).
const LINKAGE: [(&str, u64); 3] = [(".plt", 16), (".plt.got", 8), (".plt.sec", 16)];

/// The functions of a program or library at `bias`, by whatever names them: `debug`, the file of
/// its debug symbols, else its own symbols as in [`elf`]; the entries of its linkage table by the
/// functions they lead to (`memcpy@plt`); and all others by their place in the file
/// (`libfoo.so.1+0x1234`). In the order of their addresses, without overlap.
///
/// # Errors
/// [`Error::NotElf`] if one of the files is none; what its `.eh_frame` has wrong ends the list of
/// functions without a name and is no error.
pub fn program(bytes: &[u8], debug: Option<&[u8]>, module: &str, bias: u64) -> Result<Vec<Symbol>> {
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(|error| Error::NotElf {
        what: module.into(),
        why: error.to_string(),
    })?;
    let mut known = match debug {
        Some(debug) => elf(debug, module, 0)?,
        None => Vec::new(),
    };
    if known.is_empty() {
        known = elf(bytes, module, 0)?;
    }
    let symbol = |address, size, name| Symbol {
        space: Space::User,
        address,
        size,
        name,
        module: module.into(),
        condition: None,
    };
    let entries = linkage(&file)
        .into_iter()
        .map(|(address, size, name)| symbol(address, size, name));
    let mut symbols = add(known, entries);
    let functions = frames(&file)
        .into_iter()
        .map(|(address, size)| symbol(address, size, format!("{module}+{address:#x}")));
    symbols = add(symbols, functions);
    for symbol in &mut symbols {
        symbol.address = symbol.address.wrapping_add(bias);
    }
    symbols.sort_by_key(|symbol| symbol.address);
    Ok(symbols)
}

/// The file of debug symbols of a program or library, if the user has it in the folder where
/// distributions put them.
pub fn debug_file(bytes: &[u8]) -> Option<PathBuf> {
    debug_file_in(Path::new(DEBUG_FOLDER), bytes)
}

fn debug_file_in(folder: &Path, bytes: &[u8]) -> Option<PathBuf> {
    let file = ElfFile64::<Endianness>::parse(bytes).ok()?;
    let id = file.build_id().ok()??;
    let (first, rest) = id.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(format!("{first:02x}/{rest}.debug"));
    path.is_file().then_some(path)
}

/// Adds symbols where there is none: one that begins in another is left out, one that reaches
/// into another ends there.
fn add(mut known: Vec<Symbol>, more: impl Iterator<Item = Symbol>) -> Vec<Symbol> {
    let mut added = Vec::new();
    for mut symbol in more {
        let behind = known.partition_point(|other| other.address <= symbol.address);
        let before = behind.checked_sub(1).map(|last| &known[last]);
        if before.is_some_and(|before| contains(before, symbol.address)) {
            continue;
        }
        if let Some(next) = known.get(behind) {
            symbol.size = symbol.size.min(next.address - symbol.address);
        }
        added.push(symbol);
    }
    known.append(&mut added);
    known.sort_by_key(|symbol| symbol.address);
    known
}

/// First address and size of each function that `.eh_frame` knows, by address, without overlap.
fn frames(file: &ElfFile64<'_, Endianness>) -> BTreeMap<u64, u64> {
    let mut functions = BTreeMap::new();
    let Some(section) = file.section_by_name(".eh_frame") else {
        return functions;
    };
    let Ok(data) = section.data() else {
        return functions;
    };
    let mut bases = BaseAddresses::default().set_eh_frame(section.address());
    if let Some(text) = file.section_by_name(".text") {
        bases = bases.set_text(text.address());
    }
    let frame = EhFrame::new(data, LittleEndian);
    let mut entries = frame.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        if let Ok(fde) = partial.parse(EhFrame::cie_from_offset) {
            functions.insert(fde.initial_address(), fde.len());
        }
    }
    // What a linker dropped has address 0; the linkage table has names of its own, or none.
    functions.remove(&0);
    for (name, _) in LINKAGE {
        if let Some(section) = file.section_by_name(name) {
            let (start, end) = (section.address(), section.address() + section.size());
            functions.retain(|address, _| !(start..end).contains(address));
        }
    }
    let starts: Vec<u64> = functions.keys().copied().collect();
    for (start, next) in starts.iter().zip(starts.iter().skip(1)) {
        if let Some(size) = functions.get_mut(start) {
            *size = (*size).min(next - start);
        }
    }
    functions.retain(|_, size| *size > 0);
    functions
}

/// The entries of the procedure linkage table: address, size, and the name of what they lead to.
fn linkage(file: &ElfFile64<'_, Endianness>) -> Vec<(u64, u64, String)> {
    let mut slots: HashMap<u64, String> = HashMap::new();
    let symbols = file.dynamic_symbol_table();
    let relocations = file.dynamic_relocations().into_iter().flatten();
    for (slot, relocation) in relocations {
        let RelocationTarget::Symbol(index) = relocation.target() else {
            continue;
        };
        let symbol = symbols.and_then(|symbols| symbols.symbol_by_index(index).ok());
        let name = symbol.and_then(|symbol| symbol.name().ok().map(demangle));
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            slots.insert(slot, name);
        }
    }
    let mut entries = Vec::new();
    for (name, size) in LINKAGE {
        let Some(section) = file.section_by_name(name) else {
            continue;
        };
        let data = section.data().unwrap_or_default();
        let code = (section.address()..).step_by(size as usize);
        for (address, code) in code.zip(data.chunks(size as usize)) {
            if let Some(name) = slot_of(address, code).and_then(|slot| slots.get(&slot)) {
                entries.push((address, size, format!("{name}@plt")));
            }
        }
    }
    entries.sort();
    entries
}

/// The slot that an entry jumps through: `jmp *disp32(%rip)`, perhaps behind ENDBR64 and with a
/// BND prefix.
fn slot_of(address: u64, code: &[u8]) -> Option<u64> {
    let at = code.windows(2).position(|pair| pair == [0xff, 0x25])?;
    let offset = code.get(at + 2..at + 6)?;
    let offset = i32::from_le_bytes(offset.try_into().ok()?);
    Some((address + at as u64 + 6).wrapping_add_signed(offset.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This very test program, which has symbols.
    fn this() -> Vec<u8> {
        let path = std::env::current_exe().expect("the test's path");
        std::fs::read(path).expect("the test's file")
    }

    /// The same without its table of symbols: its section is said to be something else.
    fn stripped(mut bytes: Vec<u8>) -> Vec<u8> {
        let word = |bytes: &[u8], at: usize, size: usize| {
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[at..at + size]);
            u64::from_le_bytes(value) as usize
        };
        let (table, size, count) = (
            word(&bytes, 0x28, 8),
            word(&bytes, 0x3a, 2),
            word(&bytes, 0x3c, 2),
        );
        for header in (0..count).map(|number| table + number * size) {
            // SHT_SYMTAB becomes SHT_PROGBITS.
            if word(&bytes, header + 4, 4) == 2 {
                bytes[header + 4] = 1;
            }
        }
        bytes
    }

    #[test]
    fn a_stripped_programs_functions_are_where_its_symbols_were() {
        let whole = this();
        let known = elf(&whole, "t", 0).expect("an ELF file");
        let bytes = stripped(whole);
        assert!(elf(&bytes, "t", 0).expect("an ELF file").is_empty());
        let found = program(&bytes, None, "t", 0x1000).expect("an ELF file");
        let starts: std::collections::HashSet<u64> = known.iter().map(|s| s.address).collect();
        let hits = found
            .iter()
            .filter(|s| starts.contains(&(s.address - 0x1000)))
            .count();
        // Pieces of functions that a compiler moved elsewhere have frames of their own.
        assert!(
            hits * 10 > known.len() * 8,
            "{hits} of {} in {}",
            known.len(),
            found.len()
        );
        for pair in found.windows(2) {
            assert!(
                pair[0].address + pair[0].size <= pair[1].address,
                "{pair:?}"
            );
        }
        let one = &found[0];
        assert_eq!(one.name, format!("t+{:#x}", one.address - 0x1000));
    }

    #[test]
    fn symbols_win_over_frames_and_those_of_a_debug_file_over_both() {
        let whole = this();
        let known = elf(&whole, "t", 0).expect("an ELF file");
        let bytes = stripped(whole.clone());
        for found in [
            program(&whole, None, "t", 0),
            program(&bytes, Some(&whole), "t", 0),
        ] {
            let found = found.expect("ELF files");
            assert!(known.iter().all(|symbol| found.contains(symbol)));
        }
        assert!(program(b"no ELF", None, "t", 0).is_err());
    }

    #[test]
    fn broken_frames_end_the_list_and_nothing_else() {
        let mut bytes = stripped(this());
        let whole = program(&bytes, None, "t", 0).expect("an ELF file").len();
        let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
        let section = file.section_by_name(".eh_frame").expect("frames");
        let (from, size) = section.file_range().expect("in the file");
        let middle = (from + size / 2) as usize;
        bytes[middle..middle + 256].fill(0xff);
        let found = program(&bytes, None, "t", 0).expect("an ELF file").len();
        assert!(found < whole, "{found} of {whole}");
    }

    #[test]
    fn an_entry_of_the_linkage_table_is_known_by_its_slot() {
        let plain = [0xff, 0x25, 0x10, 0, 0, 0];
        assert_eq!(slot_of(0x1000, &plain), Some(0x1016));
        let behind_endbr = [
            0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xf0, 0xff, 0xff, 0xff,
        ];
        assert_eq!(slot_of(0x1000, &behind_endbr), Some(0x1000 + 11 - 16));
        assert_eq!(slot_of(0x1000, &[0xff, 0x25, 0]), None);
        assert_eq!(slot_of(0x1000, &[0x90; 16]), None);
    }

    #[test]
    fn a_debug_file_is_found_by_the_builds_id() {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes = this();
        let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
        assert_eq!(debug_file_in(folder.path(), &bytes), None);
        // Not every linker gives an id.
        if let Ok(Some(id)) = file.build_id() {
            let name: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            let path = folder
                .path()
                .join(&name[..2])
                .join(format!("{}.debug", &name[2..]));
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, b"symbols").expect("a file");
            assert_eq!(debug_file_in(folder.path(), &bytes), Some(path));
        }
    }
}
