//! The snapshots in the cache: found, kept, and never too many of them.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cache::{self, Cache, MEMOS};
use crate::error::{Error, Result};
use crate::snapshot::file::{About, Snapshot};
use crate::snapshot::key::Key;

/// The folder of the cache.
const FOLDER: &str = "snapshots";
/// How a snapshot's file ends, and that of the lock that belongs to it.
const SNAPSHOT: &str = "snapshot";
const LOCK: &str = "lock";
/// Most bytes of all snapshots on the disk: some forty.
const MOST_BYTES: u64 = 4 << 30;
/// One that was not used for so long goes, and so does what belongs to none any more.
const OLDEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// An unfinished one of this age was left behind.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Where labs have their snapshots.
#[derive(Debug, Clone)]
pub struct Snapshots {
    cache: Cache,
    /// Of which kernel, for people.
    kernel: String,
    /// Those from before are not used: what was booted is to be booted again.
    not_before: Option<SystemTime>,
}

/// A snapshot that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What was booted; `None` where the file does not tell.
    pub about: Option<About>,
    /// Bytes on the disk.
    pub bytes: u64,
    /// When it was last used.
    pub used: SystemTime,
    path: PathBuf,
}

impl Snapshots {
    /// In this cache, of a kernel that is from there. `fresh` boots again what was booted before now.
    pub fn new(cache: &Cache, kernel: &str, fresh: bool) -> Snapshots {
        Snapshots {
            cache: cache.clone(),
            kernel: kernel.to_owned(),
            not_before: fresh.then(SystemTime::now),
        }
    }

    /// Where the kernel is from.
    pub(crate) fn kernel(&self) -> &str {
        &self.kernel
    }

    /// The cache.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    fn path(&self, key: &Key, ending: &str) -> PathBuf {
        folder(&self.cache).join(key.name()).with_extension(ending)
    }

    /// Waits until nobody else boots the same machine, and keeps others from it until the file is dropped. Nothing
    /// where the cache cannot be written: then several may boot it.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(crate) fn lock(&self, key: &Key, interrupted: &AtomicBool) -> Result<Option<File>> {
        let path = self.path(key, LOCK);
        let open = || {
            fs::create_dir_all(folder(&self.cache))?;
            File::create(&path)
        };
        let Ok(file) = open() else {
            return Ok(None);
        };
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The snapshot of such a machine, if there is one that may be used. One that is damaged is told and removed.
    pub(crate) fn find(&self, key: &Key) -> Option<Snapshot> {
        let path = self.path(key, SNAPSHOT);
        // A machine maps it writable, for itself alone.
        let file = File::options().read(true).write(true).open(&path).ok()?;
        let (snapshot, header) = match Snapshot::open(file, key.text()) {
            Ok(found) => found,
            Err(why) => {
                self.discard(key, &why);
                return None;
            }
        };
        let made = UNIX_EPOCH + Duration::from_millis(header.made);
        if self.not_before.is_some_and(|not_before| made < not_before) {
            return None;
        }
        // So that it is the last to go. One that cannot be touched goes sooner.
        let _ = snapshot.memory.set_modified(SystemTime::now());
        Some(snapshot)
    }

    /// Removes a snapshot that turned out to be of no use, and says so.
    pub(crate) fn discard(&self, key: &Key, why: &str) {
        let path = self.path(key, SNAPSHOT);
        if fs::remove_file(&path).is_ok() {
            self.cache.step(&format!(
                "the snapshot {} cannot be used ({why}): making it anew",
                path.display()
            ));
        }
    }

    /// Keeps a snapshot for later labs. Where that cannot be, it is said once, and labs go on without.
    pub(crate) fn keep(&self, key: &Key, snapshot: &Snapshot, about: &About) {
        static SAID: Once = Once::new();
        let path = self.path(key, SNAPSHOT);
        let made = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let write = |file: &mut File| {
            let written = snapshot.write(key.text(), about, made.as_millis() as u64, file);
            written.map_err(Error::io("write", &path))
        };
        // Its checksums tell whether it is whole, so that nobody has to wait for the disk.
        if let Err(error) = cache::replace_file_unsynced(&path, write) {
            SAID.call_once(|| {
                self.cache.step(&format!(
                    "labs are booted each time, as no snapshot of them can be kept: {error}"
                ));
            });
        }
        prune(&self.cache, MOST_BYTES, OLDEST);
    }

    /// What is known of the machine of such a snapshot, by this name.
    pub(crate) fn aside(&self, key: &Key, name: &str) -> Option<Vec<u8>> {
        let path = self.path(key, name);
        let mut bytes = fs::read(path).ok()?;
        let sum = bytes.split_off(bytes.len().checked_sub(4)?);
        (crc32fast::hash(&bytes).to_le_bytes() == *sum).then_some(bytes)
    }

    /// Keeps what is known of it. Without, it is asked for again.
    pub(crate) fn keep_aside(&self, key: &Key, name: &str, bytes: &[u8]) {
        let path = self.path(key, name);
        let _ = cache::replace_file_unsynced(&path, |file| {
            let sum = crc32fast::hash(bytes).to_le_bytes();
            let written = file.write_all(bytes).and_then(|()| file.write_all(&sum));
            written.map_err(Error::io("write", &path))
        });
    }

    /// All that there are, the one that was used last first.
    pub fn list(cache: &Cache) -> Vec<Kept> {
        let mut kept: Vec<Kept> = entries(&folder(cache))
            .filter_map(|path| kept(&path))
            .collect();
        kept.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.path.cmp(&b.path)));
        kept
    }

    /// Removes all of them. Labs that run from one go on. Returns those that are gone.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be removed.
    pub fn clear(cache: &Cache) -> Result<Vec<Kept>> {
        let all = Snapshots::list(cache);
        for path in entries(&folder(cache)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(all)
    }
}

fn folder(cache: &Cache) -> PathBuf {
    cache.root().join(FOLDER)
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn kept(path: &Path) -> Option<Kept> {
    if path.extension()? != SNAPSHOT {
        return None;
    }
    let file = File::open(path).ok()?;
    let found = file.metadata().ok()?;
    Some(Kept {
        about: Snapshot::header(&file).ok().map(|header| header.about),
        bytes: found.blocks() * 512,
        used: found.modified().ok()?,
        path: path.to_owned(),
    })
}

/// Removes what is too old, and then what was not used for longest until the rest fits. Best effort.
fn prune(cache: &Cache, most_bytes: u64, oldest: Duration) {
    let folder = folder(cache);
    let mut bytes = 0;
    for (place, kept) in Snapshots::list(cache).into_iter().enumerate() {
        bytes += kept.bytes;
        let old = kept.used.elapsed().is_ok_and(|age| age > oldest);
        // The newest stays, whatever its size.
        if old || (place > 0 && bytes > most_bytes) {
            bytes -= kept.bytes;
            let stem = kept.path.file_stem();
            for path in entries(&folder).filter(|path| path.file_stem() == stem) {
                let _ = fs::remove_file(path);
            }
        }
    }
    for path in entries(&cache.root().join(MEMOS)).chain(entries(&folder)) {
        let unfinished = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let limit = if unfinished { ABANDONED } else { oldest };
        let is_file = path.is_file() && path.extension().is_none_or(|ending| ending != SNAPSHOT);
        if is_file && cache::age(&path).is_some_and(|age| age > limit) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(seed: u64) -> About {
        About {
            kernel: "6.1".to_owned(),
            cmdline: "a=b".to_owned(),
            qemu: "7.2".to_owned(),
            cpu: "EPYC".to_owned(),
            cpus: 1,
            memory_mib: 1,
            seed,
            ready: false,
        }
    }

    fn key(seed: u64) -> Key {
        let mut key = Key::default();
        key.add("seed", &seed.to_string());
        key
    }

    fn snapshot() -> Snapshot {
        use std::os::unix::fs::FileExt;
        let memory = Snapshot::room(1 << 20).expect("memory");
        memory.write_all_at(&[7; 1 << 16], 0).expect("written");
        Snapshot::new(memory, 1 << 20, b"state".to_vec(), Vec::new())
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(dir.path().join("cache")).expect("a cache");
        (dir, cache)
    }

    fn age(cache: &Cache, seed: u64, seconds: u64) {
        let path = Snapshots::new(cache, "6.1", false).path(&key(seed), SNAPSHOT);
        let file = File::options().write(true).open(path).expect("there");
        let then = SystemTime::now() - Duration::from_secs(seconds);
        file.set_modified(then).expect("a time");
    }

    #[test]
    fn what_is_kept_is_found_listed_and_cleared() {
        let (_dir, cache) = cache();
        let snapshots = Snapshots::new(&cache, "6.1", false);
        assert!(snapshots.find(&key(1)).is_none());
        snapshots.keep(&key(1), &snapshot(), &about(1));
        let found = snapshots.find(&key(1)).expect("kept");
        assert_eq!(found.state, b"state");
        assert!(snapshots.find(&key(2)).is_none());
        let listed = Snapshots::list(&cache);
        assert_eq!(listed[0].about, Some(about(1)));
        assert!((1 << 16..1 << 18).contains(&listed[0].bytes), "{listed:?}");
        assert_eq!(Snapshots::clear(&cache).expect("cleared"), listed);
        assert!(snapshots.find(&key(1)).is_none());
        found
            .check()
            .expect("a thread")
            .finish()
            .expect("what is open stays readable");
        assert_eq!(Snapshots::clear(&cache).expect("nothing there"), []);
    }

    #[test]
    fn a_fresh_one_is_made_once() {
        let (_dir, cache) = cache();
        Snapshots::new(&cache, "6.1", false).keep(&key(1), &snapshot(), &about(1));
        thread::sleep(Duration::from_millis(5));
        let fresh = Snapshots::new(&cache, "6.1", true);
        assert!(fresh.find(&key(1)).is_none());
        thread::sleep(Duration::from_millis(5));
        fresh.keep(&key(1), &snapshot(), &about(1));
        assert!(fresh.find(&key(1)).is_some());
    }

    #[test]
    fn one_of_another_machine_or_damaged_is_removed() {
        let (_dir, cache) = cache();
        let snapshots = Snapshots::new(&cache, "6.1", false);
        snapshots.keep(&key(1), &snapshot(), &about(1));
        let [one, two] = [1, 2].map(|seed| snapshots.path(&key(seed), SNAPSHOT));
        fs::copy(&one, &two).expect("copied");
        assert!(snapshots.find(&key(2)).is_none());
        assert!(!two.exists() && one.exists());
        fs::write(&one, "half").expect("damaged");
        assert!(snapshots.find(&key(1)).is_none());
        assert!(!one.exists());
    }

    #[test]
    fn too_many_and_too_old_ones_go() {
        let (_dir, cache) = cache();
        let snapshots = Snapshots::new(&cache, "6.1", false);
        for seed in 1..=4 {
            snapshots.keep(&key(seed), &snapshot(), &about(seed));
            age(&cache, seed, 100 - seed);
        }
        let seeds = || {
            let listed = Snapshots::list(&cache).into_iter();
            listed
                .filter_map(|kept| Some(kept.about?.seed))
                .collect::<Vec<_>>()
        };
        let one = Snapshots::list(&cache)[0].bytes;
        assert_eq!(seeds(), [4, 3, 2, 1]);
        age(&cache, 1, 10);
        prune(&cache, 3 * one, OLDEST);
        assert_eq!(seeds(), [1, 4, 3]);
        age(&cache, 4, OLDEST.as_secs() + 10);
        prune(&cache, 3 * one, OLDEST);
        assert_eq!(seeds(), [1, 3]);
        prune(&cache, 1, OLDEST);
        assert_eq!(seeds(), [1]);
    }

    #[test]
    fn only_one_boots_a_machine() {
        let (_dir, cache) = cache();
        let snapshots = Snapshots::new(&cache, "6.1", false);
        let no = AtomicBool::new(false);
        let held = snapshots.lock(&key(1), &no).expect("free");
        assert!(held.is_some());
        assert!(snapshots.lock(&key(2), &no).expect("another").is_some());
        let yes = AtomicBool::new(true);
        assert!(matches!(
            snapshots.lock(&key(1), &yes),
            Err(Error::Interrupted)
        ));
        drop(held);
        assert!(snapshots.lock(&key(1), &no).expect("free again").is_some());
    }
}
