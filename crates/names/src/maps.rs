//! Where a process has which file: `/proc/PID/maps`.

use object::Endianness;
use object::elf::{FileHeader64, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::error::{Error, Result};

/// What maps appends to the name of a file that was removed or replaced since.
const DELETED: &str = " (deleted)";
/// Files are mapped in whole pages.
const PAGE: u64 = 4096;

/// A range of a process's addresses that it may execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address behind the last one.
    pub end: u64,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// The file's path, or `[vdso]` or `[vsyscall]`, which are no files.
    pub file: String,
    /// Whether the file was removed or replaced since, so that what is at its path is another.
    pub deleted: bool,
}

/// The executable mappings with a name in the text of `/proc/PID/maps`, in its order.
///
/// Memory without a file has no names to be had and is left out, as are lines of another form.
pub fn maps(text: &str) -> Vec<Mapping> {
    text.lines().filter_map(parse).collect()
}

/// `7f0c8a2d0000-7f0c8a425000 r-xp 00026000 fe:00 1835153                    /usr/lib/libc.so.6`.
fn parse(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut word = || {
        let (word, behind) = rest.split_once(' ')?;
        rest = behind.trim_start_matches(' ');
        Some(word)
    };
    let (start, end) = word()?.split_once('-')?;
    let modes = word()?;
    let offset = word()?;
    let (_device, _inode) = (word()?, word()?);
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let executable = modes.as_bytes().get(2) == Some(&b'x');
    if !executable || rest.is_empty() || start >= end {
        return None;
    }
    let (name, deleted) = match rest.strip_suffix(DELETED) {
        Some(name) => (name, true),
        None => (rest, false),
    };
    Some(Mapping {
        start,
        end,
        offset: number(offset)?,
        // The one character that maps escapes.
        file: name.replace("\\012", "\n"),
        deleted,
    })
}

/// What to add to an address in an ELF file to have its address in the process: 0 for a program
/// that is linked to a fixed place. The arithmetic wraps, as may the sum.
///
/// # Errors
/// [`Error::NotElf`] if the bytes are none, [`Error::NotMapped`] if the mapping's offset is in
/// none of the parts that are loaded.
pub fn load_bias(mapping: &Mapping, bytes: &[u8]) -> Result<u64> {
    let not_elf = |e: object::Error| Error::NotElf {
        what: mapping.file.clone(),
        why: e.to_string(),
    };
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(not_elf)?;
    let endian = header.endian().map_err(not_elf)?;
    let segments = header.program_headers(endian, bytes).map_err(not_elf)?;
    let holds = |s: &&object::elf::ProgramHeader64<Endianness>| {
        let start = s.p_offset(endian) & !(PAGE - 1);
        let end = s.p_offset(endian).saturating_add(s.p_filesz(endian));
        s.p_type(endian) == PT_LOAD && start <= mapping.offset && mapping.offset < end
    };
    let mut fitting = segments.iter().filter(holds);
    // The end of one part and the start of the next may be in one page of the file.
    let executable = fitting.clone().find(|s| s.p_flags(endian).0 & PF_X.0 != 0);
    let Some(segment) = executable.or_else(|| fitting.next()) else {
        return Err(Error::NotMapped {
            file: mapping.file.clone(),
            offset: mapping.offset,
        });
    };
    let in_file = segment
        .p_vaddr(endian)
        .wrapping_sub(segment.p_offset(endian))
        .wrapping_add(mapping.offset);
    Ok(mapping.start.wrapping_sub(in_file))
}
