//! A kernel's debug information: from Debian's package, from an installed one, from a build.

use std::fs;
use std::path::{Path, PathBuf};

use crate::arch::x86_64::TRACED_MODULES;
use crate::error::{Error, Result};
use crate::kernel::deb;
use crate::kernel::kernels::{Kernel, Kernels};

/// Where Debian's packages of debug symbols have the files, below the root.
const DEBUG: &str = "usr/lib/debug";
/// The first folder of [`DEBUG`]: it is made, and appears, as a whole.
const FIRST: &str = "usr";

/// Files with a kernel's source lines and inlined functions, as DWARF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugFiles {
    /// The kernel's image.
    pub vmlinux: PathBuf,
    /// Of its modules those that an exit passes through, as far as they are modules.
    pub modules: Vec<PathBuf>,
}

impl DebugFiles {
    /// Those that belong to a vmlinux a user names: modules are looked for where Debian's package
    /// has them, and in the tree it was built in. Whether there really is debug information in
    /// them shows when it is read.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such file.
    pub fn of(vmlinux: &Path) -> Result<Self> {
        let vmlinux = vmlinux.canonicalize().map_err(Error::io("open", vmlinux))?;
        fs::File::open(&vmlinux).map_err(Error::io("open", &vmlinux))?;
        let folder = vmlinux.parent().unwrap_or(Path::new("/"));
        let name = vmlinux.file_name().and_then(|name| name.to_str());
        let release = name.and_then(|name| name.strip_prefix("vmlinux-"));
        let packaged = match release {
            Some(release) if folder.ends_with("boot") => {
                let debug = folder.parent().unwrap_or(folder);
                modules_in(&debug.join("lib/modules").join(release).join("kernel"))
            }
            _ => Vec::new(),
        };
        let modules = if packaged.is_empty() {
            modules_in(folder)
        } else {
            packaged
        };
        Ok(Self { vmlinux, modules })
    }
}

impl Kernel {
    /// The files with this kernel's debug information, if they are at hand: fetched by
    /// [`Kernels::fetch_debug_files`], installed beside an installed kernel, or in the tree that
    /// the kernel was built in. A kernel that was given as a vmlinux has its own.
    pub fn debug_files(&self) -> Option<DebugFiles> {
        let folder = self.bzimage.parent()?;
        let installed = || {
            let release = self.release.as_deref()?;
            // `boot`, or `lib/modules/RELEASE` as newer packages have it.
            let of_boot = !folder.parent()?.ends_with("lib/modules");
            let root = folder.ancestors().nth(if of_boot { 1 } else { 3 })?;
            Some(root.join(DEBUG).join(format!("boot/vmlinux-{release}")))
        };
        let built = || {
            let in_a_tree = folder.ends_with("arch/x86/boot");
            in_a_tree.then(|| folder.ancestors().nth(3).map(|tree| tree.join("vmlinux")))?
        };
        // A bzImage is no ELF file and so has another name.
        let own = || {
            let name = self.bzimage.file_name()?.to_str()?;
            name.starts_with("vmlinux").then(|| self.bzimage.clone())
        };
        let candidates = [installed(), built(), own()];
        let vmlinux = candidates.into_iter().flatten().find(|p| p.is_file())?;
        DebugFiles::of(&vmlinux).ok()
    }
}

impl Kernels {
    /// The kernel's debug files, from Debian's package in the kernel's own version, downloaded
    /// into the cache if they are not at hand: some 0.9 GB to fetch and 0.7 GB to keep.
    ///
    /// # Errors
    /// [`Error::NotOfTheArchive`] if the kernel was not downloaded, [`Error::NoDebugPackage`] if
    /// the archive does not have its package, [`Error::Damaged`] if there is no vmlinux in that,
    /// and those of [`crate::kernel::apt::Apt`] and [`deb`].
    pub fn fetch_debug_files(&self, kernel: &Kernel) -> Result<DebugFiles> {
        if let Some(files) = kernel.debug_files() {
            return Ok(files);
        }
        let not_ours = || Error::NotOfTheArchive {
            origin: kernel.origin.clone(),
        };
        let (folder, image) = self.package_of(kernel).ok_or_else(not_ours)?;
        let package = format!("{}-dbg", image.package);
        let wanted = format!("{package}={}", image.version);
        let (apt, _note) = self.apt()?;
        let mut offered = apt.versions(&[&package])?;
        if !offered.iter().any(|offer| offer.version == image.version) {
            offered.dedup_by(|a, b| a.version == b.version);
            return Err(Error::NoDebugPackage {
                package,
                version: image.version,
                offered: offered.into_iter().map(|offer| offer.version).collect(),
            });
        }
        let cache = self.cache();
        cache.folder(folder.join(FIRST), |made| {
            let work = cache.work_dir()?;
            let unpacked = work.path().join("unpacked");
            for deb in apt.download(&[&wanted], work.path())? {
                cache.step(&format!(
                    "unpacking {package} {}: vmlinux and the modules of KVM out of some 5 GB",
                    image.version
                ));
                deb::unpack(&deb, &unpacked, place)?;
                let boot = unpacked.join(DEBUG).join("boot");
                if !fs::read_dir(&boot).is_ok_and(|mut files| files.next().is_some()) {
                    return Err(Error::Damaged {
                        path: deb,
                        why: format!("it has no {DEBUG}/boot/vmlinux"),
                    });
                }
            }
            // `made` becomes the first folder of the paths.
            let inner = unpacked.join(FIRST);
            for entry in fs::read_dir(&inner).map_err(Error::io("read", &inner))? {
                let entry = entry.map_err(Error::io("read", &inner))?;
                let target = made.join(entry.file_name());
                fs::rename(entry.path(), &target).map_err(Error::io("create", &target))?;
            }
            Ok(())
        })?;
        kernel.debug_files().ok_or_else(|| Error::Damaged {
            path: cache.root().join(folder).join(FIRST),
            why: "the package's vmlinux is for another kernel (remove that folder)".into(),
        })
    }
}

/// Where the files that are wanted of a package of debug symbols go: where they are in it.
fn place(path: &Path) -> Option<PathBuf> {
    let inside = path.strip_prefix(DEBUG).ok()?;
    let is_vmlinux = || {
        let name = inside.strip_prefix("boot").ok()?.to_str()?;
        Some(name.starts_with("vmlinux"))
    };
    let is_wanted_module = || {
        let in_release = inside.strip_prefix("lib/modules").ok()?;
        // RELEASE/kernel/arch/…
        let subject: PathBuf = in_release.components().skip(2).collect();
        Some(
            TRACED_MODULES
                .iter()
                .any(|module| subject == Path::new(module)),
        )
    };
    let wanted = is_vmlinux() == Some(true) || is_wanted_module() == Some(true);
    wanted.then(|| path.into())
}

fn modules_in(folder: &Path) -> Vec<PathBuf> {
    let paths = TRACED_MODULES.iter().map(|module| folder.join(module));
    paths.filter(|path| path.is_file()).collect()
}
