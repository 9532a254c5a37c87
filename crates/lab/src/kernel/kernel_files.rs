//! Where a kernel's files are: in its package, beside its image, in the tree it was built in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::kernel::at_hand::Kernel;
use crate::kernel::bzimage::BzImage;
use crate::kernel::deb;
use crate::kernel::modules::Modules;
use crate::kernel::versions::image_package;

/// Modules that the lab's machine has no device for: two thirds of a package.
const NOT_UNPACKED: [&str; 26] = [
    "drivers/ata",
    "drivers/bluetooth",
    "drivers/comedi",
    "drivers/gpu",
    "drivers/hid",
    "drivers/hwmon",
    "drivers/iio",
    "drivers/infiniband",
    "drivers/input",
    "drivers/isdn",
    "drivers/media",
    "drivers/message",
    "drivers/mmc",
    "drivers/mtd",
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "drivers/net/usb",
    "drivers/net/can",
    "drivers/scsi/lpfc",
    "drivers/scsi/qla2xxx",
    "drivers/staging",
    "drivers/usb",
    "net/bluetooth",
    "net/mac80211",
    "net/wireless",
    "sound",
];

/// A package by its name, and the version that is wanted, if it has to be one.
pub(crate) type Part = (String, Option<String>);

/// The packages that a kernel's package stands for, as it says itself, each with the version that it
/// wants. From 6.19 on Debian's `linux-image-RELEASE` is empty and depends on
/// `linux-binary-RELEASE` (the image), `linux-modules-RELEASE`, and `linux-base-RELEASE` (the
/// configuration and `modules.builtin`; the images of some earlier kernels lack these, too).
pub(crate) fn parts(control: &deb::Control) -> Vec<Part> {
    let Some(release) = release_of(&control.package) else {
        return Vec::new();
    };
    let mut parts: Vec<Part> = Vec::new();
    for dependency in control.depends.split(',') {
        let (name, version) = match dependency.split_once('(') {
            Some((name, version)) => (name.trim(), version.trim().strip_prefix('=')),
            None => (dependency.trim(), None),
        };
        let of_it = name.strip_prefix("linux-").is_some_and(|rest| {
            rest.strip_suffix(release)
                .is_some_and(|kind| kind.ends_with('-'))
        });
        if of_it && name != control.package {
            let version = version.map(|version| version.trim_end_matches(')').trim().to_owned());
            parts.push((name.to_owned(), version));
        }
    }
    if control.package.starts_with("linux-binary-") {
        // It does not depend on its modules.
        let modules = (
            format!("linux-modules-{release}"),
            Some(control.version.clone()),
        );
        parts.push(modules);
    }
    parts
}

/// Whether a kernel boots without this one of its [`parts`]: its image and its modules are elsewhere. An
/// archive keeps some images longer than it.
pub(crate) fn is_optional(part: &str) -> bool {
    part.starts_with("linux-base-")
}

/// The release in the name of a package with a kernel, or with a kernel's image.
fn release_of(package: &str) -> Option<&str> {
    let image = package.strip_suffix("-unsigned").unwrap_or(package);
    if let Some((release, _)) = image_package(image) {
        return Some(release);
    }
    let rest = package.strip_prefix("linux-binary-")?;
    Some(rest.strip_prefix("unsigned-").unwrap_or(rest))
}

/// Packages of this name in a folder, of this version where one is given.
pub(crate) fn deb_beside(folder: &Path, name: &str, version: Option<&str>) -> Option<PathBuf> {
    let start = format!("{name}_");
    sorted_entries(folder).into_iter().find(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let is_named = file.starts_with(&start) && file.ends_with(".deb");
        is_named
            && deb::control(path).is_ok_and(|control| {
                control.package == name && version.is_none_or(|version| control.version == version)
            })
    })
}

/// Unpacks the parts of a kernel's package that the lab has a use for.
pub(crate) fn unpack(cache: &Cache, deb: &Path, control: &deb::Control, dir: &Path) -> Result<()> {
    cache.step(&format!(
        "unpacking {} {}",
        control.package, control.version
    ));
    deb::unpack(deb, dir, place)?;
    Ok(())
}

/// Whether what was unpacked into `dir` has an image; `deb` is the package that was given.
pub(crate) fn check_unpacked(deb: &Path, control: &deb::Control, dir: &Path) -> Result<()> {
    if find_image(dir).is_some() {
        return Ok(());
    }
    let mut needs = control
        .depends
        .split(|c: char| c.is_whitespace() || c == ',');
    let why = match needs.find(|name| image_package(name).is_some()) {
        Some(image) => format!("{} only depends on {image}; give that one", control.package),
        None => format!("the package {} has no boot/vmlinuz", control.package),
    };
    Err(Error::NotAKernel {
        path: deb.into(),
        why,
    })
}

/// Where a file of a kernel's package goes: `boot` and `lib/modules`, also if the package
/// has the latter in `usr`.
fn place(path: &Path) -> Option<PathBuf> {
    if path.starts_with("boot") {
        return Some(path.into());
    }
    let path = path.strip_prefix("usr").unwrap_or(path);
    let in_release = path.strip_prefix("lib/modules").ok()?;
    // RELEASE/kernel/drivers/…
    let subject: PathBuf = in_release.components().skip(2).collect();
    let wanted = !NOT_UNPACKED
        .iter()
        .any(|unwanted| subject.starts_with(unwanted));
    wanted.then(|| path.into())
}

/// The image in an unpacked package.
fn find_image(dir: &Path) -> Option<PathBuf> {
    let is_image = |path: &Path| {
        path.file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(b"vmlinuz"))
    };
    let in_boot = sorted_entries(&dir.join("boot"))
        .into_iter()
        .find(|path| is_image(path));
    let with_modules = || {
        let releases = sorted_entries(&dir.join("lib/modules"));
        releases
            .into_iter()
            .map(|dir| dir.join("vmlinuz"))
            .find(|path| path.is_file())
    };
    in_boot.or_else(with_modules)
}

/// The kernel in a folder that [`unpack`] made; `given` is what to blame if it is broken.
pub(crate) fn unpacked(dir: &Path, origin: String, given: &Path) -> Result<Kernel> {
    let Some(image) = find_image(dir) else {
        let why = format!(
            "{} has lost its boot/vmlinuz (remove that folder)",
            dir.display()
        );
        return Err(Error::Damaged {
            path: given.into(),
            why,
        });
    };
    let release = BzImage::read(&image)?.release().map(str::to_owned);
    Ok(Kernel {
        origin,
        ..beside(&image, release)
    })
}

/// The kernel in an image's file, with what lies beside it: as in `/boot` with
/// `/lib/modules`, in an unpacked package, or in the tree it was built in.
pub(crate) fn beside(image: &Path, release: Option<String>) -> Kernel {
    let folder = image.parent().unwrap_or(Path::new("/"));
    let in_a_tree = folder.ends_with("arch/x86/boot");
    let tree = folder
        .ancestors()
        .nth(if in_a_tree { 3 } else { 0 })
        .unwrap_or(folder);
    let named = |name: &str| {
        let release = release.as_deref()?;
        Some(folder.join(format!("{name}-{release}"))).filter(|path| path.is_file())
    };
    let in_tree = |name: &str| Some(tree.join(name)).filter(|path| path.is_file());
    let root = folder.parent().unwrap_or(folder);
    // As newer packages have it: `lib/modules/RELEASE/vmlinuz`.
    let among_modules = release
        .as_deref()
        .is_some_and(|release| folder.ends_with(Path::new("lib/modules").join(release)));
    let modules = release
        .as_deref()
        .and_then(|release| installed_modules(root, release))
        .or_else(|| among_modules.then(|| folder.to_owned()));
    let among = |name: &str| {
        let path = folder.join(name);
        (among_modules && path.is_file()).then_some(path)
    };
    let built_here = || in_tree("modules.order").map(|_| tree.to_owned());
    Kernel {
        modules: modules.or_else(built_here),
        config: named("config")
            .or_else(|| among("config"))
            .or_else(|| in_tree(".config")),
        system_map: named("System.map")
            .or_else(|| in_tree("System.map"))
            .filter(|p| has_symbols(p)),
        bzimage: image.into(),
        origin: image.display().to_string(),
        release,
    }
}

fn installed_modules(root: &Path, release: &str) -> Option<PathBuf> {
    let folders = ["lib/modules", "usr/lib/modules"].map(|dir| root.join(dir).join(release));
    folders.into_iter().find(|dir| dir.is_dir())
}

/// The folder of modules a user means: itself, or what `make modules_install` made in it.
pub(crate) fn modules_folder(dir: &Path, release: Option<&str>) -> Result<PathBuf> {
    let dir = dir
        .canonicalize()
        .map_err(Error::io("open the modules folder", dir))?;
    fs::read_dir(&dir).map_err(Error::io("read the modules folder", &dir))?;
    let installed = release.and_then(|release| {
        installed_modules(&dir, release).or_else(|| Some(dir.join(release)).filter(|d| d.is_dir()))
    });
    if let (None, Some(release)) = (&installed, release) {
        let of = releases_in(&dir)?;
        if !of.is_empty() && !of.iter().any(|other| other == release) {
            return Err(Error::OtherModules {
                dir,
                of,
                release: release.to_owned(),
            });
        }
    }
    Ok(installed.unwrap_or(dir))
}

/// The releases that the modules in a folder are for, as far as they tell.
fn releases_in(dir: &Path) -> Result<Vec<String>> {
    let installed = ["lib/modules", "usr/lib/modules", ""].map(|below| dir.join(below));
    for folder in &installed {
        let entries = sorted_entries(folder).into_iter();
        let releases: Vec<String> = entries
            .filter(|entry| entry.join("modules.order").is_file() || entry.join("kernel").is_dir())
            .filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned()))
            // A kernel's tree has such folders, too.
            .filter(|name| name.starts_with(|sign: char| sign.is_ascii_digit()))
            .collect();
        if !releases.is_empty() {
            return Ok(releases);
        }
    }
    Ok(Modules::index(dir)?.release()?.into_iter().collect())
}

/// Whether it is a real `System.map`: those in Debian's packages are one line that says
/// where the real one is.
fn has_symbols(system_map: &Path) -> bool {
    fs::metadata(system_map).is_ok_and(|meta| meta.len() > 4096)
}

fn sorted_entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
