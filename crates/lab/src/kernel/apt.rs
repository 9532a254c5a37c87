//! Packages from the machine's own Debian mirror, without root and without touching the
//! machine's apt.
//!
//! apt runs with a private state in the cache: its own package lists and its own list of
//! sources. The sources are derived from the machine's: its entries for the Debian
//! archive, and beside each release its backports from the same place. So the mirror,
//! the proxy and the keys are those the machine's administrator chose, and nothing else
//! is asked. Hooks (`APT::Update::Post-Invoke` and the like) are not taken over: some
//! delete the machine's own package cache.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::cache::{self, Cache};
use crate::error::{Error, Result};
use crate::kernel::deb::Control;
use crate::kernel::sources::{debian_entries, read_sources, render};

/// Where apt's sources are on every Debian machine.
const ETC_APT: &str = "/etc/apt";

/// Lists younger than this are not fetched again.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// Likewise, if part of them could not be fetched the last time.
const FRESH_IN_PART: Duration = Duration::from_secs(3600);

/// The settings of the machine's apt that decide how to reach and trust an archive.
const KEPT_SETTINGS: [&str; 5] = [
    "Acquire::",
    "Dir::Bin::",
    "Dir::Etc::trusted",
    "Dir::Etc::netrc",
    "APT::Key::",
];
/// But not further kinds of lists to fetch, such as icons and translations.
const LEFT_SETTINGS: [&str; 2] = ["Acquire::IndexTargets", "Acquire::Languages"];

/// A package of the archive in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// The package's name.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The suite that has it: `bookworm-security`.
    pub suite: String,
}

/// apt with a state of its own.
#[derive(Debug)]
pub struct Apt {
    cache: Cache,
    state: PathBuf,
    sources: String,
}

impl Apt {
    /// Sets up the private state from the machine's sources. Needs no network.
    ///
    /// # Errors
    /// [`Error::MissingTool`] without apt, [`Error::NoArchive`] if it has no Debian archive.
    pub fn open(cache: &Cache) -> Result<Self> {
        Self::with_sources_of(cache, Path::new(ETC_APT))
    }

    /// The same with `sources.list` and `sources.list.d` from another folder, and the settings
    /// of its `apt.conf` before the machine's, if there is one.
    ///
    /// # Errors
    /// As [`Apt::open`].
    pub fn with_sources_of(cache: &Cache, etc: &Path) -> Result<Self> {
        let mut dump = Command::new("apt-config");
        let settings = etc.join("apt.conf");
        if etc != Path::new(ETC_APT) && settings.is_file() {
            dump.env("APT_CONFIG", settings);
        }
        let settings = apt("apt-config", dump.arg("dump"))?;
        let sources = render(&debian_entries(&read_sources(etc)?));
        if sources.is_empty() {
            return Err(Error::NoArchive { etc: etc.into() });
        }
        let state = cache.dir("apt")?;
        for dir in ["lists/partial", "archives/partial", "sources"] {
            cache.dir(Path::new("apt").join(dir))?;
        }
        let settings = private_settings(&settings, &state);
        let this = Self {
            cache: cache.clone(),
            state,
            sources,
        };
        write_if_changed(&this.state.join("dpkg-status"), "")?;
        write_if_changed(&this.state.join("sources/debian.sources"), &this.sources)?;
        write_if_changed(&this.state.join("apt.conf"), &settings)?;
        Ok(this)
    }

    /// Fetches the package lists if they are missing, older than a day, or of other
    /// sources than the machine has now. If that fails with lists still at hand, the old
    /// ones serve, and the answer is one line to tell the user so.
    ///
    /// # Errors
    /// [`Error::Apt`] if there are no lists and none can be fetched.
    pub fn refresh(&self) -> Result<Option<String>> {
        let _lock = self.cache.lock("apt")?;
        let stamp = self.state.join("refreshed");
        let last = fs::read_to_string(&stamp).unwrap_or_default();
        let (note, sources) = last.split_once('\n').unwrap_or_default();
        let valid = if note.is_empty() {
            FRESH
        } else {
            FRESH_IN_PART
        };
        if self.has_lists()
            && sources == self.sources
            && cache::age(&stamp).is_some_and(|age| age < valid)
        {
            return Ok((!note.is_empty()).then(|| note.to_owned()));
        }
        self.cache.step("fetching Debian's package lists");
        let note = match apt(
            "apt-get update",
            self.command("apt-get").args(["-q", "update"]),
        ) {
            Ok(_) => None,
            Err(Error::Apt { said, .. }) if self.has_lists() => Some(format!(
                "some of Debian's package lists could not be fetched: {said}"
            )),
            Err(e) => return Err(e),
        };
        write(
            &stamp,
            &format!("{}\n{}", note.as_deref().unwrap_or_default(), self.sources),
        )?;
        Ok(note)
    }

    fn has_lists(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.state.join("lists")) else {
            return false;
        };
        entries
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().contains("_Packages"))
            // One may be a link to an archive that is gone.
            .any(|e| e.path().is_file())
    }

    /// The names of all packages that begin with `prefix`, sorted. Some may be names only,
    /// which other packages mention; [`Apt::versions`] tells.
    ///
    /// # Errors
    /// [`Error::Apt`].
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        let text = apt("apt-cache pkgnames", command.args(["pkgnames", prefix]))?;
        let names: BTreeSet<_> = text.lines().map(|line| line.trim().to_owned()).collect();
        Ok(names.into_iter().filter(|name| !name.is_empty()).collect())
    }

    /// Every version of the named packages that can be downloaded.
    ///
    /// # Errors
    /// [`Error::Apt`].
    pub fn versions<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<Available>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = self.command("apt-cache");
        command
            .args(["madison", "--"])
            .args(names.iter().map(AsRef::as_ref));
        let text = apt("apt-cache madison", &mut command)?;
        Ok(text.lines().filter_map(parse_madison).collect())
    }

    /// What the package needs, in Debian's notation, in the version apt would install.
    ///
    /// # Errors
    /// [`Error::Apt`] if there is no such package.
    pub fn depends(&self, name: &str) -> Result<String> {
        let mut command = self.command("apt-cache");
        let text = apt(
            "apt-cache show",
            command.args(["show", "--no-all-versions", "--", name]),
        )?;
        let line = text.lines().find_map(|line| line.strip_prefix("Depends:"));
        Ok(line.unwrap_or_default().trim().to_owned())
    }

    /// What each of the named packages needs, in each version there is.
    ///
    /// # Errors
    /// [`Error::Apt`].
    pub fn dependencies<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<Control>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = self.command("apt-cache");
        command
            .args(["show", "--all-versions", "--"])
            .args(names.iter().map(AsRef::as_ref));
        let text = apt("apt-cache show", &mut command)?;
        let stanza = |stanza: &str| {
            let field = |name: &str| {
                let line = stanza.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            Some(Control {
                package: field("Package:")?,
                version: field("Version:")?,
                depends: field("Depends:").unwrap_or_default(),
            })
        };
        Ok(text.split("\n\n").filter_map(stanza).collect())
    }

    /// Downloads packages into `dir` and returns their files in the order of `names`. A
    /// name may have a version or suite to it: `name=1.0-1`, `name/bookworm-backports`.
    /// What is there already is not fetched again, and what is there is whole and signed.
    ///
    /// # Errors
    /// [`Error::Apt`] if apt cannot find or fetch one, [`Error::Io`].
    pub fn download<S: AsRef<str>>(&self, names: &[S], dir: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let mut paths = Vec::new();
        for name in names {
            let name = name.as_ref();
            // In a folder without such a file: apt says nothing of what is there already.
            let mut command = self.command("apt-get");
            command
                .args(["-q", "download", "--print-uris", "--", name])
                .current_dir(&self.state);
            let plan = apt("apt-get download", &mut command)?;
            let Some((file, bytes)) = plan.lines().find_map(parse_uri_line) else {
                let said = format!("it does not say where '{name}' is");
                return Err(Error::Apt {
                    command: "apt-get download".into(),
                    said,
                });
            };
            let path = dir.join(file);
            if fs::metadata(&path).map(|m| m.len()).ok() != Some(bytes) {
                self.cache.step(&format!(
                    "downloading {name} ({:.1} MB)",
                    bytes as f64 / 1e6
                ));
                self.download_one(name, &path, bytes)?;
            }
            paths.push(path);
        }
        Ok(paths)
    }

    /// apt checks the signed hash before it gives the file its name.
    fn download_one(&self, name: &str, path: &Path, bytes: u64) -> Result<()> {
        let dir = path.parent().unwrap_or(path);
        let work = tempfile::Builder::new()
            .prefix(".unfinished-")
            .tempdir_in(dir);
        let work = work.map_err(Error::io("create a folder in", dir))?;
        let mut command = self.command("apt-get");
        apt(
            "apt-get download",
            command
                .args(["-q", "download", "--", name])
                .current_dir(work.path()),
        )?;
        let got = work.path().join(path.file_name().unwrap_or_default());
        match fs::metadata(&got) {
            Ok(meta) if meta.len() == bytes => {
                fs::rename(&got, path).map_err(Error::io("create", path))
            }
            _ => Err(Error::Apt {
                command: "apt-get download".into(),
                said: format!("it did not bring '{name}' whole"),
            }),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.state.join("apt.conf"));
        command
    }
}

/// Runs an apt program and returns what it printed.
fn apt(what: &str, command: &mut Command) -> Result<String> {
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::MissingTool {
            tool: "apt",
            advice: "this machine is no Debian; name a kernel by its path: \
                     a .deb, a bzImage or a vmlinux",
        },
        _ => Error::io("run", what)(e),
    })?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if status.success() {
        return Ok(stdout);
    }
    let complaints = String::from_utf8_lossy(&stderr);
    let first = |mark| {
        complaints
            .lines()
            .find_map(|line: &str| line.trim().strip_prefix(mark))
    };
    let said = first("E: ")
        .or_else(|| first("W: "))
        .unwrap_or("it did not say why");
    Err(Error::Apt {
        command: what.into(),
        said: said.trim_end_matches('.').to_owned(),
    })
}

/// Leaves a file alone that says the same already: apt looks at the times.
fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    write(path, text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    cache::replace_file(path, |file| {
        file.write_all(text.as_bytes())
            .map_err(Error::io("write", path))
    })
}

/// apt's configuration: what the machine's says of reaching archives, and a state in `state`.
fn private_settings(machine: &str, state: &Path) -> String {
    let mut out = String::new();
    for line in machine.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let kept = KEPT_SETTINGS
            .iter()
            .any(|prefix| starts_with_no_case(name, prefix));
        let left = LEFT_SETTINGS
            .iter()
            .any(|prefix| starts_with_no_case(name, prefix));
        // Lines with another quote in the value cannot be written back as they are.
        if kept && !left && line.matches('"').count() == 2 && line.ends_with("\";") {
            let _ = writeln!(out, "{line}");
        }
    }
    let path = |name: &str| state.join(name).display().to_string();
    let settings = [
        ("Dir::Etc::main", "/dev/null".into()),
        ("Dir::Etc::parts", "/dev/null".into()),
        ("Dir::Etc::preferences", "/dev/null".into()),
        ("Dir::Etc::preferencesparts", "/dev/null".into()),
        ("Dir::Etc::sourcelist", "/dev/null".into()),
        ("Dir::Etc::sourceparts", path("sources")),
        ("Dir::State", path("")),
        ("Dir::State::lists", path("lists")),
        // Nothing is installed, so that what can be downloaded is all there is.
        ("Dir::State::status", path("dpkg-status")),
        ("Dir::Cache", path("")),
        ("Dir::Cache::archives", path("archives")),
        ("Dir::Cache::pkgcache", path("pkgcache.bin")),
        ("Dir::Cache::srcpkgcache", String::new()),
        ("Acquire::Languages", "none".into()),
        // Without it, apt keeps a symbolic link to the list of a `file:` archive that has no
        // compressed one: the list would be gone with the archive, and change under its hashes.
        ("Acquire::GzipIndexes", "true".into()),
        ("Acquire::http::Timeout", "30".into()),
        ("Acquire::https::Timeout", "30".into()),
        // A list that cannot be fetched is an error, not a warning.
        ("APT::Update::Error-Mode", "any".into()),
        // apt's own user may not enter the cache of the user who runs this.
        ("APT::Sandbox::User", "root".into()),
        // The lab's machine, whatever this one is.
        ("APT::Architecture", "amd64".into()),
    ];
    for (name, value) in settings {
        let _ = writeln!(out, "{name} \"{value}\";");
    }
    out
}

fn starts_with_no_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// ` name | version | uri suite/component arch Packages`.
fn parse_madison(line: &str) -> Option<Available> {
    let mut columns = line.split('|').map(str::trim);
    let (package, version, place) = (columns.next()?, columns.next()?, columns.next()?);
    if !place.ends_with("Packages") {
        return None;
    }
    let (suite, _) = place.split_whitespace().nth(1)?.rsplit_once('/')?;
    Some(Available {
        package: package.into(),
        version: version.into(),
        suite: suite.into(),
    })
}

/// `'uri' file size hash`: the file and its size in bytes.
fn parse_uri_line(line: &str) -> Option<(&str, u64)> {
    let (_, rest) = line.trim().strip_prefix('\'')?.split_once("' ")?;
    let mut words = rest.split(' ');
    let (file, size) = (words.next()?, words.next()?);
    let plain = !file.contains('/') && !file.is_empty() && file != "..";
    Some((file, size.parse().ok()?)).filter(|_| plain)
}
