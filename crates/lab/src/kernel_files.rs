//! Where a kernel's files are: in its package, beside its image, in the tree it was built in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bzimage::BzImage;
use crate::cache::Cache;
use crate::deb;
use crate::error::{Error, Result};
use crate::kernels::Kernel;
use crate::versions::image_package;

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

/// Unpacks the parts of a kernel's package that the lab has a use for.
pub(crate) fn unpack(cache: &Cache, deb: &Path, control: &deb::Control, dir: &Path) -> Result<()> {
    cache.step(&format!(
        "unpacking {} {}",
        control.package, control.version
    ));
    deb::unpack(deb, dir, place)?;
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
    let modules = release
        .as_deref()
        .and_then(|release| installed_modules(root, release));
    let built_here = || in_tree("modules.order").map(|_| tree.to_owned());
    Kernel {
        modules: modules.or_else(built_here),
        config: named("config").or_else(|| in_tree(".config")),
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
    Ok(installed.unwrap_or(dir))
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
