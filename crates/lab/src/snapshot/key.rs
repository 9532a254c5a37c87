//! What decides how a machine is when it has booted, so that no other machine's snapshot is taken for its own.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A file that was written more recently than this may be written to again with the same times.
const SETTLED: Duration = Duration::from_secs(2);

/// Everything that decides it, a line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// Adds something.
    pub(crate) fn add(&mut self, what: &str, value: &str) {
        self.0.push_str(&format!("{what} {value:?}\n"));
    }

    /// Adds bytes by their hash.
    pub(crate) fn add_bytes(&mut self, what: &str, bytes: &[u8]) {
        self.add(what, &hex(&Sha256::digest(bytes)));
    }

    /// Adds a file by when it was written and how long it is, for one that is installed and not changed; one that is
    /// not there is none.
    pub(crate) fn add_installed(&mut self, path: &Path) {
        let found = fs::metadata(path).map_or("none".to_owned(), |found| {
            format!("{} {}.{}", found.len(), found.mtime(), found.mtime_nsec())
        });
        self.add("file", &format!("{} {found}", path.display()));
    }

    /// Adds a file's content. `memos` is a folder that remembers what contents hash to.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub(crate) fn add_content(&mut self, what: &str, path: &Path, memos: &Path) -> Result<()> {
        let read = |error| Error::io("read", path)(error);
        let before = fs::metadata(path).map_err(read)?;
        let identity = identity(path, &before);
        let memo = memos.join(name(&identity));
        if let Ok(hash) = fs::read_to_string(&memo)
            && hash.len() == 64
        {
            self.add(what, &hash);
            return Ok(());
        }
        let hash = hex(&Sha256::digest(fs::read(path).map_err(read)?));
        let age = before.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > SETTLED) {
            // Without a memo it is read again.
            let _ = crate::cache::replace_file(&memo, |file| {
                use std::io::Write;
                (file.write_all(hash.as_bytes())).map_err(Error::io("write", &memo))
            });
        }
        self.add(what, &hash);
        Ok(())
    }

    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// A name for a file.
    pub(crate) fn name(&self) -> String {
        name(&self.0)
    }
}

/// What tells whether a file is the same as before.
fn identity(path: &Path, found: &Metadata) -> String {
    format!(
        "{} {} {} {} {}.{} {}.{}",
        path.display(),
        found.dev(),
        found.ino(),
        found.len(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    )
}

fn name(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))[..32].to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_makes_another_key() {
        let of = |parts: &[(&str, &str)]| {
            let mut key = Key::default();
            for (what, value) in parts {
                key.add(what, value);
            }
            key.name()
        };
        let all = [
            of(&[]),
            of(&[("a", "b c")]),
            of(&[("a", "b"), ("a", "c")]),
            of(&[("a", "b\na \"c")]),
            of(&[("a b", "c")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
            assert_eq!(one.len(), 32);
        }
    }

    #[test]
    fn a_memo_is_of_a_file_as_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, memos) = (dir.path().join("kernel"), dir.path().join("memos"));
        let key = || {
            let mut key = Key::default();
            key.add_content("kernel", &file, &memos).expect("a key");
            key
        };
        let old = SystemTime::now() - Duration::from_secs(3600);
        let write = |text: &str, at: SystemTime| {
            fs::write(&file, text).expect("written");
            let file = fs::File::options().write(true).open(&file).expect("open");
            file.set_modified(at).expect("a time");
        };
        write("one", SystemTime::now());
        let one = key();
        assert!(!memos.exists(), "it may still change");
        write("one", old);
        assert_eq!(key(), one);
        assert_eq!(fs::read_dir(&memos).expect("memos").count(), 1);
        assert_eq!(key(), one);
        write("two", old);
        assert_ne!(key(), one);
        assert!(Key::default().add_content("x", &dir.path().join("none"), &memos).is_err());
    }
}
