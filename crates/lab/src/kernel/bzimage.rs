//! Reads x86 Linux kernels: the bzImage and the vmlinux inside it.
//!
//! A bzImage is a real-mode setup program with a header, followed by a decompressor and
//! its compressed payload, which is the kernel proper as an ELF file. Under an emulator
//! that decompressor is half of a boot. A vmlinux with a PVH entry point can be booted
//! directly, so it is unpacked here, once, and kept in the cache.
//!
//! Source of the layout: *The Linux/x86 Boot Protocol*, `Documentation/arch/x86/boot.rst`.

use std::fs;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{FileHeader64, PT_NOTE, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::hex::hex;
use crate::kernel::compression::Compression;

/// Larger than any kernel: Debian's vmlinux is 66 MB, one with everything in it 200 MB.
const VMLINUX_LIMIT: usize = 1 << 30;

/// `XEN_ELFNOTE_PHYS32_ENTRY`: where a loader enters a kernel in 32-bit mode, from
/// `include/xen/interface/elfnote.h`.
const PHYS32_ENTRY: u32 = 18;

/// The oldest boot protocol with `payload_offset` (Linux 2.6.26).
const WITH_PAYLOAD: u16 = 0x0208;

/// A kernel in the form boot loaders take, usually named `vmlinuz` or `bzImage`.
#[derive(Debug)]
pub struct BzImage {
    path: PathBuf,
    bytes: Vec<u8>,
    protocol: u16,
    version: Option<String>,
    payload: Option<Range<usize>>,
}

impl BzImage {
    /// Reads and checks a bzImage.
    ///
    /// # Errors
    /// [`Error::NotAKernel`] for another kind of file, [`Error::Damaged`] for one cut
    /// short, [`Error::Io`] if it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        Self::parse(bytes, path)
    }

    /// Checks the bytes of a bzImage; `path` is for messages only.
    ///
    /// # Errors
    /// As [`BzImage::read`].
    pub fn parse(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        let not_a_kernel = |why: &str| Error::NotAKernel {
            path: path.into(),
            why: why.into(),
        };
        let damaged = |why: String| Error::Damaged {
            path: path.into(),
            why,
        };

        if bytes.get(0x202..0x206) != Some(b"HdrS") {
            return Err(not_a_kernel(&format!("it is {}", describe(&bytes))));
        }
        let too_short = || damaged("it ends within its header".into());
        let u16_at = |at| read_u16(&bytes, at).ok_or_else(too_short);
        let u32_at = |at| read_u32(&bytes, at).ok_or_else(too_short);

        if u16_at(0x1fe)? != 0xaa55 {
            return Err(damaged("its boot sector has no signature".into()));
        }
        // boot.rst: 0 means 4, for backwards compatibility.
        let setup_sectors = match bytes[0x1f1] {
            0 => 4,
            n => usize::from(n),
        };
        let setup = (setup_sectors + 1) * 512;
        let whole = setup as u64 + 16 * u64::from(u32_at(0x1f4)?);
        // The last paragraph may be padding that a signing tool cut off.
        if (bytes.len() as u64) + 16 < whole {
            return Err(damaged(format!(
                "it has {} of its {whole} bytes",
                bytes.len()
            )));
        }

        let protocol = u16_at(0x206)?;
        let version = match usize::from(u16_at(0x20e)?) {
            0 => None,
            at => text_at(&bytes, at + 0x200),
        };
        let payload = if protocol >= WITH_PAYLOAD {
            let start = setup + u32_at(0x248)? as usize;
            let length = u32_at(0x24c)? as usize;
            let range = start..start.saturating_add(length);
            if length > 0 && bytes.get(range.clone()).is_none() {
                return Err(damaged("its payload lies beyond its end".into()));
            }
            (length > 4).then_some(range)
        } else {
            None
        };
        Ok(Self {
            path: path.into(),
            bytes,
            protocol,
            version,
            payload,
        })
    }

    /// The boot protocol's version, major in the high byte: `0x020f` is 2.15.
    pub fn protocol(&self) -> u16 {
        self.protocol
    }

    /// What `uname -r` will say: `6.1.0-56-amd64`.
    pub fn release(&self) -> Option<&str> {
        self.version.as_deref()?.split_whitespace().next()
    }

    /// The whole version string: release, builder, build number and date.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The SHA-256 of the whole file, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(&self.bytes))
    }

    /// The kernel proper, decompressed: an ELF file. May be followed by relocations.
    ///
    /// # Errors
    /// [`Error::Packed`] if it is packed in a way not known here, so the bzImage has
    /// to be booted as it is; [`Error::Damaged`] if it does not unpack.
    pub fn vmlinux(&self) -> Result<Vec<u8>> {
        let damaged = |why: String| Error::Damaged {
            path: self.path.clone(),
            why,
        };
        let packed = |how: String| Error::Packed {
            path: self.path.clone(),
            how,
        };
        let Some(payload) = self.payload.clone().and_then(|range| self.bytes.get(range)) else {
            return Err(packed("of a boot protocol older than 2.08".into()));
        };
        // The build appends the unpacked size; gzip's own format ends in it anyway.
        let (body, size) = payload.split_at(payload.len() - 4);
        let size = (read_u32(size, 0).unwrap_or_default() as usize).min(VMLINUX_LIMIT);
        let compression = Compression::of(payload);
        let elf = match compression {
            Compression::Other(format) => {
                return Err(packed(format!("compressed with {format}")));
            }
            Compression::None if is_elf(payload) => return Ok(payload.to_vec()),
            Compression::None => return Err(packed("compressed in an unknown way".into())),
            Compression::Gzip => compression.decompress(payload, size),
            _ => compression.decompress(body, size),
        };
        let elf = elf.map_err(|e| damaged(format!("its payload does not unpack ({e})")))?;
        if elf.len() != size {
            let why = format!(
                "its payload unpacks to {} bytes instead of {size}",
                elf.len()
            );
            return Err(damaged(why));
        }
        if !is_elf(&elf) {
            return Err(damaged("its payload is not an ELF file".into()));
        }
        Ok(elf)
    }

    /// The kernel proper as a file in the cache, unpacked the first time it is asked for.
    ///
    /// # Errors
    /// As [`BzImage::vmlinux`], and [`Error::Io`].
    pub fn cached_vmlinux(&self, cache: &Cache) -> Result<PathBuf> {
        let name = Path::new("vmlinux").join(self.sha256());
        cache.file(&name, |file| {
            cache.step(&format!("unpacking the kernel in {}", self.path.display()));
            file.write_all(&self.vmlinux()?)
                .map_err(Error::io("write", &name))
        })
    }
}

/// Whether the bytes are an ELF file.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Whether a vmlinux can be entered directly in 32-bit mode (PVH): it has an ELF note of
/// the name "Xen" and the type `XEN_ELFNOTE_PHYS32_ENTRY`. QEMU's `-kernel` boots such a file.
pub fn has_pvh_note(elf: &[u8]) -> bool {
    find_pvh_note(elf).unwrap_or(false)
}

/// Likewise of a file, of which only headers and notes are read.
///
/// # Errors
/// [`Error::Io`] if it cannot be opened.
pub fn file_has_pvh_note(path: &Path) -> Result<bool> {
    let file = fs::File::open(path).map_err(Error::io("read", path))?;
    Ok(find_pvh_note(&ReadCache::new(file)).unwrap_or(false))
}

fn find_pvh_note<'data>(elf: impl ReadRef<'data>) -> object::Result<bool> {
    let header = FileHeader64::<Endianness>::parse(elf)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, elf)? {
        if segment.p_type(endian) != PT_NOTE {
            continue;
        }
        let Some(mut notes) = segment.notes(endian, elf)? else {
            continue;
        };
        while let Some(note) = notes.next()? {
            if note.name() == b"Xen" && note.n_type(endian).0 == PHYS32_ENTRY {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Reads the part of an ELF file that a loader reads: up to the end of its segments,
/// without the debug information that follows.
///
/// # Errors
/// [`Error::Damaged`] if it ends before, [`Error::NotAKernel`] if it has no segments.
pub fn read_loadable(path: &Path) -> Result<Vec<u8>> {
    let file = fs::File::open(path).map_err(Error::io("read", path))?;
    let mut bytes = Vec::new();
    // The program headers follow the file's header.
    (&file)
        .take(64 << 10)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    let end = end_of_segments(&bytes).unwrap_or(0);
    if end == 0 || end > VMLINUX_LIMIT as u64 {
        let why = "it is no 64-bit ELF file with segments to load".into();
        return Err(Error::NotAKernel {
            path: path.into(),
            why,
        });
    }
    file.take(end.saturating_sub(bytes.len() as u64))
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if (bytes.len() as u64) < end {
        let why = format!("it has {} of its {end} bytes", bytes.len());
        return Err(Error::Damaged {
            path: path.into(),
            why,
        });
    }
    Ok(bytes)
}

fn end_of_segments(start: &[u8]) -> object::Result<u64> {
    let header = FileHeader64::<Endianness>::parse(start)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, start)?;
    let end = |s: &ProgramHeader64<Endianness>| {
        let (offset, size) = s.file_range(endian);
        offset.saturating_add(size)
    };
    Ok(segments.iter().map(end).max().unwrap_or(0))
}

/// The release in a vmlinux's banner, "Linux version 6.1.0-56-amd64 (…": what `uname -r` says.
pub fn vmlinux_release(elf: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    memchr::memmem::find_iter(elf, BANNER).find_map(|at| {
        let text = elf.get(at + BANNER.len()..)?;
        let end = text.iter().take(128).position(|b| *b == b' ')?;
        let release = std::str::from_utf8(&text[..end]).ok()?;
        // The format string "Linux version %s (%s)" is in there too.
        release
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| release.to_owned())
    })
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn file_sha256(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).map_err(Error::io("read", path))?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash).map_err(Error::io("read", path))?;
    Ok(hex(&hash.finalize()))
}

/// What a file that is no bzImage seems to be.
fn describe(bytes: &[u8]) -> String {
    let what = match bytes {
        [] => "empty",
        b if b.len() < 0x206 => "too short for one",
        b if b.starts_with(b"!<arch>\n") => "an ar archive or a package",
        b if b.get(0x38..0x3c) == Some(b"ARMd") => "a kernel for arm64, not for x86",
        b if is_elf(b) => "an ELF file",
        b => match Compression::of(b) {
            Compression::None => "without the header of one",
            _ => "a compressed file: unpack it first",
        },
    };
    what.into()
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

fn text_at(bytes: &[u8], at: usize) -> Option<String> {
    let text = bytes.get(at..)?;
    let end = text.iter().take(512).position(|b| *b == 0)?;
    let text = std::str::from_utf8(&text[..end]).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}
