//! The cache folder: what was downloaded or unpacked once and can be had again.
//!
//! A file or folder in it is whole or absent. Everything is made under a temporary
//! name in the same folder and renamed into place at the end, so neither a download cut
//! short nor a second exitpath at the same time leaves something that only looks whole.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};

/// Unfinished work older than this was left behind by a process that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

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
