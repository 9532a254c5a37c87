//! The cache folder: what was downloaded or unpacked once and can be had again.
//!
//! A file or folder in it is whole or absent. Everything is made under a temporary
//! name in the same folder and renamed into place at the end, so neither a download cut
//! short nor a second exitpath at the same time leaves something that only looks whole.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::hex::hex;

/// Unfinished work older than this was left behind by a process that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A file that was written more recently than this may be written to again with the same times.
const SETTLED: Duration = Duration::from_secs(2);
/// The folder that remembers what files were found to be.
pub(crate) const MEMOS: &str = "memos";

/// Called with one line when something that takes seconds begins.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// The cache folder. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    root: PathBuf,
    progress: Option<Progress>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// Opens the user's cache, creating it if need be: `$EXITPATH_CACHE`, else
    /// `$XDG_CACHE_HOME/exitpath`, else `~/.cache/exitpath`.
    ///
    /// # Errors
    /// [`Error::NoCacheFolder`] if none of the three is set; [`Error::Io`] if it cannot be written.
    pub fn open() -> Result<Self> {
        let root = locate(|name| env::var_os(name)).ok_or(Error::NoCacheFolder)?;
        Self::at(root)
    }

    /// Opens the cache at a folder of the caller's choice, creating it if need be.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        create_dir(&root)?;
        let root = root.canonicalize().map_err(Error::io("open", &root))?;
        let cache = Self {
            root,
            progress: None,
        };
        cache.remove_abandoned();
        Ok(cache)
    }

    /// The same cache, telling `progress` in one line when something slow begins.
    #[must_use]
    pub fn with_progress(mut self, progress: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// The folder, as an absolute path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Says that something slow begins.
    pub fn step(&self, line: &str) {
        if let Some(progress) = &self.progress {
            progress(line);
        }
    }

    /// A folder in the cache, created if need be.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub fn dir(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let dir = self.root.join(name);
        create_dir(&dir)?;
        Ok(dir)
    }

    /// The file `name` in the cache, written by `fill` if it is not there yet.
    ///
    /// # Errors
    /// Whatever `fill` returns, and [`Error::Io`].
    pub fn file(
        &self,
        name: impl AsRef<Path>,
        fill: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<PathBuf> {
        let target = self.root.join(name);
        if !target.exists() {
            replace_file(&target, fill)?;
        }
        Ok(target)
    }

    /// The folder `name` in the cache, filled by `fill` if it is not there yet.
    ///
    /// # Errors
    /// Whatever `fill` returns, and [`Error::Io`].
    pub fn folder(
        &self,
        name: impl AsRef<Path>,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let target = self.root.join(name);
        if target.exists() {
            return Ok(target);
        }
        let work = self.work_dir()?;
        let made = work.path().join("made");
        create_dir(&made)?;
        fill(&made)?;
        create_dir(parent(&target))?;
        match fs::rename(&made, &target) {
            Ok(()) => Ok(target),
            // Another exitpath was faster, and made the same.
            Err(_) if target.is_dir() => Ok(target),
            Err(source) => Err(Error::Io {
                action: "create",
                path: target,
                source,
            }),
        }
    }

    /// What a file is found to be, in a few words, as it was found before if the file is the same: `what` names it.
    ///
    /// # Errors
    /// Whatever `find` returns. A cache that cannot be written finds it again.
    pub fn memo(
        &self,
        file: &Path,
        what: &str,
        find: impl FnOnce() -> Result<String>,
    ) -> Result<String> {
        let Ok(before) = fs::metadata(file) else {
            return find();
        };
        let identity = format!("{what} {}", identity(file, &before));
        let name = &hex(&Sha256::digest(identity.as_bytes()))[..32];
        let memo = self.root.join(MEMOS).join(name);
        if let Ok(known) = fs::read_to_string(&memo)
            && let Some(known) = known.strip_suffix('\n')
        {
            return Ok(known.to_owned());
        }
        let found = find()?;
        let age = before.modified().map(|at| at.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > SETTLED) && !found.contains('\n') {
            let _ = replace_file(&memo, |file| {
                writeln!(file, "{found}").map_err(Error::io("write", &memo))
            });
        }
        Ok(found)
    }

    /// A folder for unfinished work, removed when dropped.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub fn work_dir(&self) -> Result<tempfile::TempDir> {
        let unfinished = self.unfinished();
        create_dir(&unfinished)?;
        tempfile::tempdir_in(&unfinished).map_err(Error::io("create a folder in", unfinished))
    }

    /// Waits until no other process holds the lock `name`, and holds it until the
    /// returned file is dropped.
    ///
    /// # Errors
    /// [`Error::Io`] if the lock file cannot be made or locked.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(file)
    }

    fn unfinished(&self) -> PathBuf {
        self.root.join("unfinished")
    }

    /// Best effort: what cannot be removed now is left for the next time.
    fn remove_abandoned(&self) {
        let Ok(entries) = fs::read_dir(self.unfinished()) else {
            return;
        };
        for entry in entries.flatten() {
            if age(&entry.path()).is_some_and(|age| age > ABANDONED_AFTER) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Writes `target` as a whole: under a temporary name beside it, renamed when `fill` is done.
///
/// # Errors
/// Whatever `fill` returns, and [`Error::Io`].
pub fn replace_file(target: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    replace_file_unsynced(target, |file| {
        fill(file)?;
        file.sync_all().map_err(Error::io("write", target))
    })
}

/// Likewise, of what has checksums: a machine that loses power may leave it renamed and not written.
///
/// # Errors
/// As [`replace_file`].
pub(crate) fn replace_file_unsynced(
    target: &Path,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let dir = parent(target);
    create_dir(dir)?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempfile_in(dir)
        .map_err(Error::io("create a file in", dir))?;
    fill(temporary.as_file_mut())?;
    temporary
        .persist(target)
        .map_err(|e| Error::io("create", target)(e.error))?;
    Ok(())
}

/// What tells whether a file is the same as before.
fn identity(path: &Path, found: &fs::Metadata) -> String {
    let (written, changed) = (found.mtime(), found.ctime());
    format!(
        "{} {} {} {} {written}.{} {changed}.{}",
        path.display(),
        found.dev(),
        found.ino(),
        found.len(),
        found.mtime_nsec(),
        found.ctime_nsec(),
    )
}

/// How long ago a file was last written; nothing if it is not there. A time in the
/// future, as after a clock was set back, counts as now.
pub(crate) fn age(path: &Path) -> Option<Duration> {
    let written = fs::metadata(path).and_then(|m| m.modified()).ok()?;
    Some(
        SystemTime::now()
            .duration_since(written)
            .unwrap_or_default(),
    )
}

fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io("create", dir))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Where the cache belongs, by the environment. Relative paths in `XDG_CACHE_HOME` and
/// `HOME` are ignored, as the XDG base directory specification has it.
fn locate(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let absolute = |name: &str| set(name).filter(|p| p.is_absolute());
    set("EXITPATH_CACHE")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|p| p.join("exitpath")))
        .or_else(|| absolute("HOME").map(|p| p.join(".cache/exitpath")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(vars: &[(&str, &str)]) -> Option<PathBuf> {
        locate(|name| vars.iter().find(|v| v.0 == name).map(|v| v.1.into()))
    }

    #[test]
    fn the_environment_says_where() {
        let home = ("HOME", "/home/ann");
        let xdg = ("XDG_CACHE_HOME", "/var/tmp/ann");
        assert_eq!(located(&[home]), Some("/home/ann/.cache/exitpath".into()));
        assert_eq!(located(&[home, xdg]), Some("/var/tmp/ann/exitpath".into()));
        assert_eq!(
            located(&[home, xdg, ("EXITPATH_CACHE", "/c")]),
            Some("/c".into())
        );
        assert_eq!(
            located(&[home, ("XDG_CACHE_HOME", "rel"), ("EXITPATH_CACHE", "")]),
            Some("/home/ann/.cache/exitpath".into())
        );
        assert_eq!(located(&[]), None);
    }

    #[test]
    fn what_fails_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("c")).unwrap();
        let file = cache.file("a/b", |f| {
            use std::io::Write;
            f.write_all(b"half").unwrap();
            Err(Error::NoCacheFolder)
        });
        assert!(file.is_err());
        let folder = cache.folder("d/e", |made| {
            fs::write(made.join("half"), "half").unwrap();
            Err(Error::NoCacheFolder)
        });
        assert!(folder.is_err());
        assert_eq!(fs::read_dir(cache.root().join("a")).unwrap().count(), 0);
        assert!(!cache.root().join("d/e").exists());
        assert_eq!(fs::read_dir(cache.unfinished()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_there_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let first = cache.folder("x", |made| {
            fs::write(made.join("f"), "1").map_err(Error::io("write", made))
        });
        let again = cache.folder("x", |_| panic!("made twice"));
        assert_eq!(first.unwrap(), again.unwrap());
        assert_eq!(fs::read_to_string(cache.root().join("x/f")).unwrap(), "1");
        cache.file("y", |_| Ok(())).unwrap();
        cache.file("y", |_| panic!("made twice")).unwrap();
    }

    #[test]
    fn a_memo_is_of_a_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("c")).unwrap();
        let file = dir.path().join("f");
        let read = || {
            let text = || fs::read_to_string(&file).map_err(Error::io("read", &file));
            cache.memo(&file, "text", text).unwrap()
        };
        let known = || {
            cache
                .memo(&file, "text", || Ok("asked".to_owned()))
                .unwrap()
        };
        let write = |text: &str, at: SystemTime| {
            fs::write(&file, text).unwrap();
            let file = File::options().write(true).open(&file).unwrap();
            file.set_modified(at).unwrap();
        };
        let old = SystemTime::now() - Duration::from_secs(3600);
        write("one", SystemTime::now());
        assert_eq!(
            (read().as_str(), known().as_str()),
            ("one", "asked"),
            "it may still change"
        );
        write("one", old);
        assert_eq!((read().as_str(), known().as_str()), ("one", "one"));
        write("two", old);
        assert_eq!((read().as_str(), known().as_str()), ("two", "two"));
        let other = cache.memo(&file, "other", || Ok("else".to_owned()));
        assert_eq!(other.unwrap(), "else");
    }

    #[test]
    fn the_slower_of_two_keeps_the_faster_ones_folder() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let path = cache
            .folder("x", |made| {
                cache.folder("x", |m| {
                    fs::write(m.join("f"), "fast").map_err(Error::io("w", m))
                })?;
                fs::write(made.join("f"), "slow").map_err(Error::io("write", made))
            })
            .unwrap();
        assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "fast");
    }
}
