//! The parts of an ELF file that lines are read from, without the rest: of a kernel with debug
//! information that is a third.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use gimli::{EndianRcSlice, RunTimeEndian, SectionId};
use object::elf::{ET_REL, SHF_EXECINSTR, STT_FUNC, STT_NOTYPE};
use object::read::ReadCache;
use object::read::elf::{ElfFile64, ElfSection64, FileHeader, Sym};
use object::{
    CompressedData, CompressionFormat, Endianness, Object, ObjectSection, ObjectSymbol, ReadRef,
    RelocationKind, RelocationTarget, SectionFlags, SectionIndex, SymbolSection,
};

use crate::error::{Error, Result};

/// Bytes of a section, shared.
pub(crate) type Reader = EndianRcSlice<RunTimeEndian>;
type Elf<'a> = ElfFile64<'a, Endianness, &'a ReadCache<File>>;

/// What addr2line makes use of: where variables are is of no interest.
const USED: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// Where the first section of a relocatable file is put, and the least distance between two:
/// address 0 stands for what a linker left out, and an end should not touch a start.
const APART: u64 = 4096;

/// A section that is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    /// First address in the file. Sections of a relocatable file have none: they are laid out one
    /// behind the other.
    pub(crate) start: u64,
    pub(crate) size: u64,
    /// Regions of one piece keep their distance: all of a linked file, one of a relocatable file.
    pub(crate) piece: usize,
}

/// A name of [`Region`]'s address, as the linker knows it.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) address: u64,
    pub(crate) piece: usize,
}

/// What was read of a file.
pub(crate) struct Contents {
    pub(crate) dwarf: gimli::Dwarf<Reader>,
    pub(crate) regions: Vec<Region>,
    pub(crate) functions: Vec<Function>,
    /// Whether it is an object file such as a kernel module.
    pub(crate) relocatable: bool,
}

/// Reads a file, applying the relocations of a relocatable one.
pub(crate) fn read(path: &Path) -> Result<Contents> {
    let io = |action| {
        move |source| Error::Io {
            action,
            path: path.into(),
            source,
        }
    };
    let bad = |why: &dyn std::fmt::Display| Error::BadDebugInformation {
        path: path.into(),
        why: why.to_string(),
    };
    let file = File::open(path).map_err(io("open"))?;
    // What the operating system says of a folder would else be said to be no ELF file.
    file.read_at(&mut [0], 0).map_err(io("read"))?;
    let whole = file.try_clone().map_err(io("read"))?;
    let cache = ReadCache::new(file);
    let elf = Elf::parse(&cache).map_err(|e| Error::NotElf {
        what: path.display().to_string(),
        why: e.to_string(),
    })?;
    if elf.section_by_name(".debug_info").is_none() {
        return Err(Error::NoDebugInformation { path: path.into() });
    }
    let layout = Layout::of(&elf);
    let endian = match elf.endian() {
        Endianness::Little => RunTimeEndian::Little,
        Endianness::Big => RunTimeEndian::Big,
    };
    let load = |id: SectionId| -> Result<Reader> {
        let section = elf.section_by_name(id.name());
        let bytes = match section.filter(|_| USED.contains(&id)) {
            Some(section) => {
                let mut bytes = section_bytes(&section, &cache, &whole).map_err(|e| bad(&e))?;
                if layout.relocatable {
                    relocate(&elf, &section, &layout, &mut bytes).map_err(|e| bad(&e))?;
                }
                bytes
            }
            None => Vec::new(),
        };
        Ok(Reader::new(Rc::from(bytes), endian))
    };
    Ok(Contents {
        dwarf: gimli::Dwarf::load(load)?,
        functions: layout.functions(&elf).map_err(|e| bad(&e))?,
        relocatable: layout.relocatable,
        regions: layout.regions,
    })
}

/// Where sections are taken to be.
struct Layout {
    relocatable: bool,
    regions: Vec<Region>,
    /// For each section the region it is in, if it is executed.
    of_section: Vec<Option<usize>>,
}

impl Layout {
    fn of(elf: &Elf<'_>) -> Self {
        let relocatable = elf.elf_header().e_type(elf.endian()) == ET_REL;
        let mut layout = Self {
            relocatable,
            regions: Vec::new(),
            of_section: Vec::new(),
        };
        let mut next = APART;
        for section in elf.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
                continue;
            };
            if sh_flags.0 & SHF_EXECINSTR.0 == 0 || section.size() == 0 {
                continue;
            }
            let index = section.index().0;
            if layout.of_section.len() <= index {
                layout.of_section.resize(index + 1, None);
            }
            layout.of_section[index] = Some(layout.regions.len());
            let start = if relocatable {
                let align = section.align().clamp(1, APART);
                next = next.div_ceil(align) * align;
                next
            } else {
                section.address()
            };
            layout.regions.push(Region {
                start,
                size: section.size(),
                piece: if relocatable { layout.regions.len() } else { 0 },
            });
            // Sizes are the file's word; those of a damaged one may be anything.
            next = next.saturating_add(section.size()).saturating_add(APART) & !(APART - 1);
            next = next.min(1 << 62);
        }
        layout
    }

    fn region(&self, section: SectionIndex) -> Option<usize> {
        self.of_section.get(section.0).copied().flatten()
    }

    /// The address of something in a section.
    fn place(&self, section: SectionIndex, address: u64) -> u64 {
        let region = self.region(section).filter(|_| self.relocatable);
        region.map_or(address, |region| {
            self.regions[region].start.wrapping_add(address)
        })
    }

    /// The names of addresses in regions.
    fn functions(&self, elf: &Elf<'_>) -> object::Result<Vec<Function>> {
        // As a whole: one read for each of a kernel's 100,000 names takes longer than all else.
        let strings = match elf.section_by_name(".strtab") {
            Some(section) => section.data()?,
            None => &[],
        };
        let mut functions = Vec::new();
        for symbol in elf.symbols() {
            let raw = symbol.elf_symbol();
            let SymbolSection::Section(section) = symbol.section() else {
                continue;
            };
            let Some(region) = self.region(section) else {
                continue;
            };
            let kind = raw.st_type();
            if kind != STT_FUNC && kind != STT_NOTYPE {
                continue;
            }
            let at = raw.st_name(elf.endian()) as usize;
            let name = strings.get(at..).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let Ok(name) = std::str::from_utf8(name) else {
                continue;
            };
            if !name.is_empty() {
                functions.push(Function {
                    name: name.into(),
                    address: self.place(section, symbol.address()),
                    piece: self.regions[region].piece,
                });
            }
        }
        Ok(functions)
    }
}

/// A section's bytes, uncompressed.
fn section_bytes<'a>(
    section: &ElfSection64<'a, '_, Endianness, &'a ReadCache<File>>,
    cache: &'a ReadCache<File>,
    file: &File,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let range = section.compressed_file_range()?;
    let length = cache.len().unwrap_or(0);
    if range.offset.saturating_add(range.compressed_size) > length {
        return Err(format!("{} is cut short", section.name()?).into());
    }
    if range.format != CompressionFormat::None {
        return decompressed(&range.data(cache)?)
            .map_err(|e| format!("{}: {e}", section.name().unwrap_or_default()).into());
    }
    // Not through the cache, which would hold it for a second time.
    let mut bytes = vec![0; usize::try_from(range.compressed_size)?];
    file.read_exact_at(&mut bytes, range.offset)?;
    Ok(bytes)
}

fn decompressed(packed: &CompressedData<'_>) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut unpacker: Box<dyn Read> = match packed.format {
        CompressionFormat::Zlib => Box::new(flate2::read::ZlibDecoder::new(packed.data)),
        CompressionFormat::Zstandard => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(packed.data)?)
        }
        _ => return Err("it is compressed in an unknown way".into()),
    };
    let mut bytes = Vec::new();
    // The size stated is not reserved: in a damaged file it may be anything.
    unpacker
        .by_ref()
        .take(packed.uncompressed_size)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 != packed.uncompressed_size {
        return Err("it is cut short".into());
    }
    Ok(bytes)
}

/// Writes into a section of a relocatable file what a linker would.
fn relocate<'a>(
    elf: &Elf<'a>,
    section: &ElfSection64<'a, '_, Endianness, &'a ReadCache<File>>,
    layout: &Layout,
    bytes: &mut [u8],
) -> Result<(), Box<dyn std::error::Error>> {
    let little = elf.endian() == Endianness::Little;
    for (offset, relocation) in section.relocations() {
        let kind = relocation.kind();
        if kind == RelocationKind::None {
            continue;
        }
        let (RelocationKind::Absolute, RelocationTarget::Symbol(target)) =
            (kind, relocation.target())
        else {
            return Err(format!("{} has an unknown relocation", section.name()?).into());
        };
        let symbol = elf.symbol_by_index(target)?;
        let value = match symbol.section() {
            SymbolSection::Section(section) => layout.place(section, symbol.address()),
            _ => symbol.address(),
        };
        let width = usize::from(relocation.size() / 8);
        let place = usize::try_from(offset)
            .ok()
            .and_then(|at| bytes.get_mut(at..at.checked_add(width)?))
            .filter(|place| matches!(place.len(), 4 | 8));
        let Some(place) = place else {
            return Err(format!("{} has a relocation outside of it", section.name()?).into());
        };
        let mut word = [0; 8];
        let addend = if relocation.has_implicit_addend() {
            word[..width].copy_from_slice(place);
            if !little {
                word[..width].reverse();
            }
            u64::from_le_bytes(word)
        } else {
            relocation.addend().cast_unsigned()
        };
        word = value.wrapping_add(addend).to_le_bytes();
        place.copy_from_slice(&word[..width]);
        if !little {
            place.reverse();
        }
    }
    Ok(())
}
