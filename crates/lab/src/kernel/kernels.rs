//! The kernels that can be booted: Debian's, a package's, or one built by the user.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::{self, Cache};
use crate::error::{Error, Result};
use crate::kernel::apt::{Apt, Available};
use crate::kernel::bzimage::{self, BzImage};
use crate::kernel::deb;
use crate::kernel::kernel_files::{
    Part, beside, check_unpacked, deb_beside, is_optional, modules_folder, parts, unpack, unpacked,
};
use crate::kernel::versions::{self, Spec, image_package};

pub use crate::kernel::at_hand::{BootFile, Kernel};
pub use crate::kernel::versions::Flavour;

/// The package that depends on the image Debian would install today.
const NEWEST: &str = "linux-image-amd64";
/// Where in the cache unpacked kernels are.
const KERNELS: &str = "kernels";
/// What an unpacked kernel's folder says of itself.
const ABOUT: &str = "about.json";

/// A kernel of the Debian archive, at hand or to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKernel {
    /// What `uname -r` says: `6.1.0-56-amd64`.
    pub release: String,
    /// The package: `linux-image-6.1.0-56-amd64`.
    pub package: String,
    /// The package's version: `6.1.192-2`.
    pub version: String,
    /// The suite it is from: `bookworm-security`.
    pub suite: String,
    /// The configuration.
    pub flavour: Flavour,
    /// Whether it is unpacked in the cache.
    pub cached: bool,
}

/// What kernels there are.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The plain ones first, then those for clouds and real time; newest first in each.
    pub kernels: Vec<KnownKernel>,
    /// Why this may not be all of them: no network, no apt. One line.
    pub note: Option<String>,
}

/// An unpacked kernel's [`ABOUT`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    package: String,
    version: String,
    suite: String,
    /// Whether it was what [`NEWEST`] depended on when it was downloaded.
    newest: bool,
}

/// Lists, downloads and finds kernels.
#[derive(Debug, Clone)]
pub struct Kernels {
    cache: Cache,
    etc_apt: Option<PathBuf>,
}

impl Kernels {
    /// Kernels in this cache, and those the machine's apt can reach.
    pub fn new(cache: Cache) -> Self {
        Self {
            cache,
            etc_apt: None,
        }
    }

    /// The same with apt's `sources.list` and `sources.list.d` from another folder.
    #[must_use]
    pub fn with_sources_of(mut self, etc: impl Into<PathBuf>) -> Self {
        self.etc_apt = Some(etc.into());
        self
    }

    /// Every kernel of the archive and of the cache. Without a network or without apt,
    /// those in the cache, and a note that says so.
    ///
    /// # Errors
    /// [`Error::Io`] if the cache cannot be read.
    pub fn list(&self) -> Result<Listing> {
        let mut kernels = self.cached()?;
        let (archive, note) = match self.in_archive() {
            Ok(found) => found,
            Err(e) => (Vec::new(), Some(e.to_string())),
        };
        for kernel in archive {
            let same = |k: &KnownKernel| k.package == kernel.package && k.version == kernel.version;
            if !kernels.iter().any(same) {
                kernels.push(kernel);
            }
        }
        kernels.sort_by(|a, b| a.flavour.cmp(&b.flavour).then_with(|| newest_first(a, b)));
        Ok(Listing { kernels, note })
    }

    /// Finds the kernel a user means, downloading and unpacking it if need be.
    ///
    /// - nothing: the newest in the cache that Debian's `linux-image-amd64` stood for when
    ///   it was downloaded; if there is none, what it stands for now. So a lab stays with
    ///   one kernel until it is told otherwise.
    /// - a release or the beginning of one: `6.1.0-56-amd64`, or `6.1` for the newest
    ///   6.1 there is (never a 6.12), the plain flavour before the others.
    /// - a path, if there is a `/` in it or such a file: a .deb, a bzImage or a vmlinux.
    ///
    /// `modules` names the folder of the kernel's modules, for one given by path whose
    /// modules are not found beside it.
    ///
    /// # Errors
    /// [`Error::UnknownKernel`], [`Error::NotAKernel`], [`Error::Damaged`], and those of
    /// [`Apt`] and [`deb`].
    pub fn resolve(&self, spec: Option<&str>, modules: Option<&Path>) -> Result<Kernel> {
        let mut kernel = match spec {
            None => self.newest()?,
            Some(spec) if is_path(spec) => self.by_path(Path::new(spec))?,
            Some(spec) => self.by_version(spec)?,
        };
        if let Some(dir) = modules {
            kernel.modules = Some(modules_folder(dir, kernel.release.as_deref())?);
        }
        Ok(kernel)
    }

    /// The folder of modules in `dir` that a kernel of this release takes, as for
    /// [`Kernels::resolve`].
    ///
    /// # Errors
    /// [`Error::OtherModules`] if they are another kernel's, [`Error::Io`].
    pub fn modules_for(dir: &Path, release: Option<&str>) -> Result<PathBuf> {
        modules_folder(dir, release)
    }

    fn newest(&self) -> Result<Kernel> {
        let mut cached = self.cached_with_about()?;
        cached.sort_by(|a, b| newest_first(&a.0, &b.0));
        if let Some((kernel, about)) = cached.iter().find(|(_, about)| about.newest) {
            return self.open_cached(kernel, about);
        }
        let found = self.apt().and_then(|(apt, _)| {
            let depends = apt.depends(NEWEST)?;
            let mut packages = depends.split(|c: char| c.is_whitespace() || c == ',');
            let package = packages.find(|name| image_package(name).is_some());
            let known = in_archive(&apt, &[package.unwrap_or(NEWEST).to_owned()])?;
            Ok((apt, known.into_iter().min_by(newest_first)))
        });
        match (found, cached.first()) {
            (Ok((apt, Some(known))), _) => self.download(&apt, &known, true),
            // Better an older kernel than none, without a network.
            (_, Some((kernel, about))) => self.open_cached(kernel, about),
            (Ok((_, None)), None) => Err(Error::UnknownKernel {
                spec: NEWEST.into(),
                nearest: Vec::new(),
            }),
            (Err(e), None) => Err(e),
        }
    }

    fn by_version(&self, text: &str) -> Result<Kernel> {
        let spec = Spec::parse(text);
        let whole = text.strip_prefix("linux-image-").unwrap_or(text);
        let mut cached = self.cached_with_about()?;
        cached.sort_by(|a, b| newest_first(&a.0, &b.0));
        if let Some((kernel, about)) = cached.iter().find(|(k, _)| k.release == whole) {
            return self.open_cached(kernel, about);
        }
        let apt = self.apt();
        let mut known: Vec<KnownKernel> = cached.iter().map(|(k, _)| k.clone()).collect();
        if let Ok((apt, _)) = &apt {
            known.extend(in_archive(apt, &image_packages(apt)?)?);
        }
        known.sort_by(|a, b| a.flavour.cmp(&b.flavour).then_with(|| newest_first(a, b)));
        let Some(found) = known.iter().find(|kernel| spec.matches(&kernel.release)) else {
            let (_apt, _note) = apt?;
            let mut releases: Vec<&str> = known.iter().map(|k| k.release.as_str()).collect();
            releases.dedup();
            return Err(Error::UnknownKernel {
                spec: text.into(),
                nearest: spec.nearest(&releases),
            });
        };
        let same = |k: &KnownKernel| k.package == found.package && k.version == found.version;
        match cached.iter().find(|(kernel, _)| same(kernel)) {
            Some((kernel, about)) => self.open_cached(kernel, about),
            None => self.download(&apt?.0, found, false),
        }
    }

    fn by_path(&self, path: &Path) -> Result<Kernel> {
        let not_a_kernel = |why: &str| Error::NotAKernel {
            path: path.into(),
            why: why.into(),
        };
        if path.is_dir() {
            return Err(not_a_kernel(
                "it is a folder (of a kernel tree, give arch/x86/boot/bzImage)",
            ));
        }
        let path = &path.canonicalize().map_err(Error::io("open", path))?;
        let mut start = Vec::new();
        let file = fs::File::open(path).map_err(Error::io("open", path))?;
        (&file)
            .take(8)
            .read_to_end(&mut start)
            .map_err(Error::io("read", path))?;
        if start.starts_with(b"!<arch>") {
            return self.by_deb(path);
        }
        let release = if bzimage::is_elf(&start) {
            let elf = bzimage::read_loadable(path)?;
            if !bzimage::has_pvh_note(&elf) {
                return Err(not_a_kernel(
                    "it is an ELF file without a PVH entry (is it a vmlinux for x86-64, built with CONFIG_PVH=y?)",
                ));
            }
            bzimage::vmlinux_release(&elf)
        } else {
            BzImage::read(path)?.release().map(str::to_owned)
        };
        Ok(beside(path, release))
    }

    /// A package the user gave, unpacked once for each content.
    fn by_deb(&self, path: &Path) -> Result<Kernel> {
        let control = deb::control(path)?;
        let mut hash = bzimage::file_sha256(path)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let (mut debs, mut missing) = (vec![path.to_owned()], Vec::new());
        for (part, version) in parts(&control) {
            match deb_beside(folder, &part, version.as_deref()) {
                Some(deb) => {
                    hash += &bzimage::file_sha256(&deb)?;
                    debs.push(deb);
                }
                None => missing.push((part, version)),
            }
        }
        if debs.len() > 1 {
            let mut sum = Sha256::new();
            sum.update(&hash);
            hash = sum.finalize().iter().map(|b| format!("{b:02x}")).collect();
        }
        let name = Path::new(KERNELS).join(format!("deb-{}", &hash[..16]));
        let dir = self.cache.folder(name, |dir| {
            let work = self.cache.work_dir()?;
            debs.extend(self.fetch_missing(path, &missing, work.path())?);
            for deb in &debs {
                unpack(&self.cache, deb, &deb::control(deb)?, dir)?;
            }
            check_unpacked(path, &control, dir)
        })?;
        let origin = format!(
            "{} {} from {}",
            control.package,
            control.version,
            path.display()
        );
        unpacked(&dir, origin, path)
    }

    /// Parts of the package at `path` that do not lie beside it, from the archive; those it boots
    /// without as far as they are there.
    fn fetch_missing(&self, path: &Path, missing: &[Part], dir: &Path) -> Result<Vec<PathBuf>> {
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let fetched = self.apt().and_then(|(apt, _)| {
            let wanted = obtainable(&apt, missing)?;
            apt.download(&wanted, dir)
        });
        fetched.or_else(|error| {
            let needed = missing.iter().filter(|(name, _)| !is_optional(name));
            let needed: Vec<String> = needed.map(with_version).collect();
            if needed.is_empty() {
                return Ok(Vec::new());
            }
            Err(Error::PartsMissing {
                path: path.into(),
                missing: needed,
                why: match error {
                    Error::Apt { command, said } => format!("{command}: {said}"),
                    error => error.to_string(),
                },
            })
        })
    }

    /// A kernel of the archive, from the cache or downloaded into it.
    fn download(&self, apt: &Apt, known: &KnownKernel, newest: bool) -> Result<Kernel> {
        let about = About {
            package: known.package.clone(),
            version: known.version.clone(),
            suite: known.suite.clone(),
            newest,
        };
        let text = serde_json::to_string_pretty(&about).unwrap_or_default();
        let dir = self.cache.folder(folder_of(known), |dir| {
            let work = self.cache.work_dir()?;
            let wanted = format!("{}={}", known.package, known.version);
            let [given] = &apt.download(&[wanted], work.path())?[..] else {
                return Err(Error::Apt {
                    command: "apt-get download".into(),
                    said: format!("it did not bring {}", known.package),
                });
            };
            let control = deb::control(given)?;
            let parts = obtainable(apt, &parts(&control))?;
            let parts = apt.download(&parts, work.path())?;
            for deb in [given].into_iter().chain(&parts) {
                unpack(&self.cache, deb, &deb::control(deb)?, dir)?;
            }
            check_unpacked(given, &control, dir)?;
            write_text(&dir.join(ABOUT), &text)
        })?;
        if newest {
            // It may have been downloaded by its number before.
            write_text(&dir.join(ABOUT), &text)?;
        }
        self.open_cached(known, &about)
    }

    fn open_cached(&self, kernel: &KnownKernel, about: &About) -> Result<Kernel> {
        let dir = self.cache.root().join(folder_of(kernel));
        let origin = format!(
            "Debian {} {} ({})",
            about.package, about.version, about.suite
        );
        unpacked(&dir, origin, &dir)
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The folder in the cache of a kernel that was downloaded, relative to the cache, and the
    /// package it is from.
    pub(crate) fn package_of(&self, kernel: &Kernel) -> Option<(PathBuf, KnownKernel)> {
        // `kernels/PACKAGE_VERSION/…`
        let image = kernel.bzimage.strip_prefix(self.cache.root()).ok()?;
        let folder: PathBuf = image.components().take(2).collect();
        let mut cached = self.cached().ok()?.into_iter();
        let known = cached.find(|known| folder_of(known) == folder)?;
        Some((folder, known))
    }

    pub(crate) fn apt(&self) -> Result<(Apt, Option<String>)> {
        let apt = match &self.etc_apt {
            Some(etc) => Apt::with_sources_of(&self.cache, etc)?,
            None => Apt::open(&self.cache)?,
        };
        let note = apt.refresh()?;
        Ok((apt, note))
    }

    fn in_archive(&self) -> Result<(Vec<KnownKernel>, Option<String>)> {
        let (apt, note) = self.apt()?;
        Ok((in_archive(&apt, &image_packages(&apt)?)?, note))
    }

    fn cached(&self) -> Result<Vec<KnownKernel>> {
        Ok(self
            .cached_with_about()?
            .into_iter()
            .map(|(kernel, _)| kernel)
            .collect())
    }

    fn cached_with_about(&self) -> Result<Vec<(KnownKernel, About)>> {
        let dir = self.cache.dir(KERNELS)?;
        let entries = fs::read_dir(&dir).map_err(Error::io("read", &dir))?;
        let abouts = entries.flatten().filter_map(|entry| {
            let text = fs::read(entry.path().join(ABOUT)).ok()?;
            serde_json::from_slice::<About>(&text).ok()
        });
        Ok(abouts
            .filter_map(|about| {
                let known = known(&about.package, &about.version, &about.suite, true)?;
                Some((known, about))
            })
            .collect())
    }
}

/// The names of all packages with a kernel in them.
fn image_packages(apt: &Apt) -> Result<Vec<String>> {
    let mut names = apt.names("linux-image-")?;
    names.retain(|name| image_package(name).is_some());
    Ok(names)
}

/// The named packages in each version the archive has; of one in two suites, the first.
fn in_archive(apt: &Apt, packages: &[String]) -> Result<Vec<KnownKernel>> {
    let mut found: Vec<KnownKernel> = Vec::new();
    let offers = apt.versions(packages)?;
    let incomplete = incomplete(apt, &offers)?;
    for offer in offers {
        if incomplete.contains(&(offer.package.clone(), offer.version.clone())) {
            continue;
        }
        let Some(kernel) = known(&offer.package, &offer.version, &offer.suite, false) else {
            continue;
        };
        let same = |k: &KnownKernel| k.package == kernel.package && k.version == kernel.version;
        if !found.iter().any(same) {
            found.push(kernel);
        }
    }
    Ok(found)
}

/// Of these packages those that stand for others which the archive does not have, and so cannot be
/// booted: each with its version.
fn incomplete(apt: &Apt, offers: &[Available]) -> Result<BTreeSet<(String, String)>> {
    let names: BTreeSet<&str> = offers.iter().map(|offer| &*offer.package).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let needs: Vec<_> = apt
        .dependencies(&names)?
        .into_iter()
        .map(|control| {
            let mut parts = parts(&control);
            parts.retain(|(name, _)| !is_optional(name));
            (parts, control)
        })
        .filter(|(parts, _)| !parts.is_empty())
        .collect();
    let wanted: BTreeSet<&str> = needs
        .iter()
        .flat_map(|(parts, _)| parts.iter().map(|(name, _)| &**name))
        .collect();
    let have = apt.versions(&wanted.into_iter().collect::<Vec<_>>())?;
    let has = |part: &Part| offers_part(&have, part);
    let lacking = needs
        .into_iter()
        .filter(|(parts, _)| !parts.iter().all(has));
    Ok(lacking
        .map(|(_, control)| (control.package, control.version))
        .collect())
}

fn known(package: &str, version: &str, suite: &str, cached: bool) -> Option<KnownKernel> {
    let (release, flavour) = image_package(package)?;
    Some(KnownKernel {
        release: release.into(),
        package: package.into(),
        version: version.into(),
        suite: suite.into(),
        flavour,
        cached,
    })
}

fn newest_first(a: &KnownKernel, b: &KnownKernel) -> std::cmp::Ordering {
    versions::compare(&b.version, &a.version)
        .then_with(|| versions::compare(&b.release, &a.release))
        .then_with(|| b.cached.cmp(&a.cached))
}

/// Whether the package is among these, in its version.
fn offers_part(offers: &[Available], (name, version): &Part) -> bool {
    let is_it = |offer: &Available| {
        let of_version = version.as_ref().is_none_or(|v| offer.version == *v);
        offer.package == *name && of_version
    };
    offers.iter().any(is_it)
}

/// Of these parts all but those that a kernel boots without and the archive does not have, as apt
/// takes them.
fn obtainable(apt: &Apt, parts: &[Part]) -> Result<Vec<String>> {
    let names: Vec<&str> = parts.iter().map(|(name, _)| &**name).collect();
    let have = apt.versions(&names)?;
    let wanted = parts
        .iter()
        .filter(|part| !is_optional(&part.0) || offers_part(&have, part));
    Ok(wanted.map(with_version).collect())
}

/// A package as apt takes it.
fn with_version((name, version): &Part) -> String {
    match version {
        Some(version) => format!("{name}={version}"),
        None => name.clone(),
    }
}

fn folder_of(kernel: &KnownKernel) -> PathBuf {
    Path::new(KERNELS).join(format!("{}_{}", kernel.package, kernel.version))
}

fn is_path(spec: &str) -> bool {
    spec.contains('/') || spec.ends_with(".deb") || Path::new(spec).is_file()
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    cache::replace_file(path, |file| {
        file.write_all(text.as_bytes())
            .map_err(Error::io("write", path))
    })
}
