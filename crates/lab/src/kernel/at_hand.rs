//! A kernel that is at hand, and which of its files is booted.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::kernel::bzimage::{self, BzImage};

/// A kernel that is at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What `uname -r` will say, if the image tells.
    pub release: Option<String>,
    /// The image: a bzImage, or a vmlinux that the user gave. See [`Kernel::boot_file`].
    pub bzimage: PathBuf,
    /// The folder of its modules.
    pub modules: Option<PathBuf>,
    /// The configuration it was built with.
    pub config: Option<PathBuf>,
    /// The addresses of its symbols. Debian's packages come without.
    pub system_map: Option<PathBuf>,
    /// Where it is from, for people: package, version and suite, or a path.
    pub origin: String,
}

/// What to give to QEMU's `-kernel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    /// The file.
    pub path: PathBuf,
    /// Whether it is an ELF file with a PVH entry, so that nothing is decompressed in
    /// the lab; else it is a bzImage.
    pub is_vmlinux: bool,
}

impl Kernel {
    /// What to boot: the vmlinux out of the bzImage if QEMU can enter it directly, which
    /// saves half of a boot under an emulator, else the bzImage.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the image does not unpack, [`Error::Io`].
    pub fn boot_file(&self, cache: &Cache) -> Result<BootFile> {
        let as_it_is = BootFile {
            path: self.bzimage.clone(),
            is_vmlinux: false,
        };
        let mut start = [0; 4];
        let mut file = fs::File::open(&self.bzimage).map_err(Error::io("open", &self.bzimage))?;
        if file.read_exact(&mut start).is_ok() && bzimage::is_elf(&start) {
            return Ok(BootFile {
                is_vmlinux: true,
                ..as_it_is
            });
        }
        let path = match BzImage::read(&self.bzimage)?.cached_vmlinux(cache) {
            Ok(path) => path,
            Err(Error::Packed { .. }) => return Ok(as_it_is),
            Err(e) => return Err(e),
        };
        if bzimage::file_has_pvh_note(&path)? {
            return Ok(BootFile {
                path,
                is_vmlinux: true,
            });
        }
        Ok(as_it_is)
    }
}
