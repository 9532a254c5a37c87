//! What decides how a machine is when it has booted, so that no other machine's snapshot is taken for its own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::hex::hex;

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

    /// Adds a file's content, of which the cache may know what it hashes to.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub(crate) fn add_content(&mut self, what: &str, path: &Path, cache: &Cache) -> Result<()> {
        let hash = cache.memo(path, "sha256", || {
            let bytes = fs::read(path).map_err(Error::io("read", path))?;
            Ok(hex(&Sha256::digest(bytes)))
        })?;
        self.add(what, &hash);
        Ok(())
    }

    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// A name for a file.
    pub(crate) fn name(&self) -> String {
        hex(&Sha256::digest(self.0.as_bytes()))[..32].to_owned()
    }
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
}
