//! Finding QEMU, and the options every lab has.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::kernel::apt::Apt;
use crate::kernel::deb;

const PROGRAM: &str = "qemu-system-x86_64";
/// Debian's packages of the program, its modules and its firmware; the first names the version.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];
/// The folder of the cache that holds unpacked QEMU packages, one folder a version.
pub const UNPACKED: &str = "qemu";

/// A QEMU that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// Its version as it prints it, for instance `10.0.2 (Debian 1:10.0.2+ds-2)`.
    pub version: String,
    /// Major and minor version.
    pub number: (u32, u32),
    /// Folders of its firmware, where it is unpacked rather than installed.
    data: Vec<PathBuf>,
    /// Folder of its modules, likewise.
    modules: Option<PathBuf>,
}

impl Qemu {
    /// The QEMU at `path`, or else the newest one found in `PATH` and in the cache.
    ///
    /// # Errors
    /// [`Error::NoQemu`] if there is none, [`Error::QemuUnusable`] if the named one does not run.
    pub fn find(path: Option<&Path>, cache: &Cache) -> Result<Qemu> {
        if let Some(path) = path {
            return Qemu::known(path, cache);
        }
        let in_path = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates: Vec<_> = std::env::split_paths(&in_path)
            .map(|dir| dir.join(PROGRAM))
            .collect();
        if let Ok(unpacked) = std::fs::read_dir(cache.root().join(UNPACKED)) {
            candidates.extend(
                unpacked
                    .flatten()
                    .map(|dir| dir.path().join("usr/bin").join(PROGRAM)),
            );
        }
        candidates
            .iter()
            .filter(|path| path.is_file())
            .filter_map(|path| Qemu::known(path, cache).ok())
            .max_by_key(|qemu| qemu.number)
            .ok_or(Error::NoQemu)
    }

    /// The QEMU at `path`, whose version the cache may know.
    fn known(path: &Path, cache: &Cache) -> Result<Qemu> {
        // A script starts what it likes.
        let mut magic = [0; 4];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
        if read.is_err() || magic != *b"\x7fELF" {
            return Qemu::at(path);
        }
        let said = cache.memo(path, "version", || Qemu::said(path))?;
        Qemu::of(path, &said)
    }

    /// The QEMU at `path`, asked for its version.
    ///
    /// # Errors
    /// [`Error::QemuUnusable`].
    pub fn at(path: &Path) -> Result<Qemu> {
        Qemu::of(path, &Qemu::said(path)?)
    }

    /// The first line that it says of itself.
    fn said(path: &Path) -> Result<String> {
        let output = Command::new(path).arg("--version").output();
        let output = output.map_err(|error| Error::QemuUnusable {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    fn of(path: &Path, said: &str) -> Result<Qemu> {
        let unusable = |why: String| Error::QemuUnusable {
            path: path.to_owned(),
            why,
        };
        let (version, number) = parse_version(said)
            .ok_or_else(|| unusable("it does not say `QEMU emulator version …`".to_owned()))?;
        let prefix = path
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("/usr"));
        let unpacked = prefix != Path::new("/usr") && prefix.join("share/qemu").is_dir();
        let data = ["share/qemu", "share/seabios"].map(|dir| prefix.join(dir));
        let installed = Path::new("/usr/share/seabios").to_owned();
        Ok(Qemu {
            path: path.to_owned(),
            version,
            number,
            data: if unpacked {
                data.into_iter()
                    .chain([installed])
                    .filter(|dir| dir.is_dir())
                    .collect()
            } else {
                Vec::new()
            },
            modules: unpacked.then(|| prefix.join("lib/x86_64-linux-gnu/qemu")),
        })
    }

    /// A QEMU that boots two CPUs: the one found, or else one from the machine's Debian archive or
    /// its backports, unpacked into the cache. Nothing is installed and nothing needs root; its
    /// libraries are those of Debian's QEMU, which is installed already.
    ///
    /// # Errors
    /// [`Error::NoQemu`] if the archive has none either, [`Error::Apt`], or
    /// [`Error::QemuUnusable`] if what was fetched does not run.
    pub fn fetch(cache: &Cache) -> Result<Qemu> {
        match Qemu::find(None, cache) {
            Ok(found) if found.boots_two_cpus() => return Ok(found),
            _ => {}
        }
        let apt = Apt::open(cache)?;
        apt.refresh()?;
        let versions = apt.versions(&[PACKAGES[0]])?;
        let new_enough = |version: &str| {
            let version = version
                .split_once(':')
                .map_or(version, |(_epoch, rest)| rest);
            version
                .split('.')
                .next()
                .and_then(|major| major.parse().ok())
                >= Some(10)
        };
        let version = &versions
            .iter()
            .find(|available| new_enough(&available.version))
            .ok_or(Error::NoQemu)?
            .version;
        // Packages of one version only: QEMU refuses the modules of another build.
        let names = PACKAGES.map(|package| format!("{package}={version}"));
        let folder = Path::new(UNPACKED).join(version.replace([':', '~', '+'], "_"));
        let work = cache.work_dir()?;
        let debs = apt.download(&names, work.path())?;
        cache.step(&format!("unpacking QEMU {version}"));
        let folder = cache.folder(&folder, |dir| {
            debs.iter().try_for_each(|package| {
                deb::unpack(package, dir, |path| Some(path.to_owned())).map(|_| ())
            })
        })?;
        Qemu::at(&folder.join("usr/bin").join(PROGRAM))
    }

    /// Whether two CPUs boot under counted time: QEMU 7.2 stops at "Booting SMP configuration"
    /// and 10.0 does not; what is between was not tried.
    pub fn boots_two_cpus(&self) -> bool {
        self.number >= (10, 0)
    }

    /// Folders of its firmware, where it is unpacked rather than installed; else none.
    pub fn data_folders(&self) -> &[PathBuf] {
        &self.data
    }

    /// The command with what this QEMU needs to find its own files.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        for dir in &self.data {
            command.arg("-L").arg(dir);
        }
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }
}

/// `QEMU emulator version 7.2.22 (Debian …)`: what follows "version", and its first two numbers.
fn parse_version(line: &str) -> Option<(String, (u32, u32))> {
    let version = line.strip_prefix("QEMU emulator version ")?.trim();
    let mut numbers = version.split(['.', ' ']).map(str::parse);
    let number = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((version.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_debian_and_upstream() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)";
        let (version, number) = parse_version(debian).expect("a version");
        assert_eq!(number, (10, 0));
        assert!(version.starts_with("10.0.2 (Debian"));
        assert_eq!(
            parse_version("QEMU emulator version 9.1").map(|v| v.1),
            Some((9, 1))
        );
        assert_eq!(parse_version("qemu-img version 9.1.0"), None);
        assert_eq!(parse_version("QEMU emulator version x"), None);
    }

    #[test]
    fn something_else_is_refused_in_words() {
        let error = Qemu::at(Path::new("/bin/true")).expect_err("not QEMU");
        assert!(error.to_string().contains("/bin/true"), "{error}");
        assert!(Qemu::at(Path::new("/nonexistent/qemu")).is_err());
    }
}
