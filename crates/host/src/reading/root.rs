//! The folder everything is read from, and why something could not be read.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The most that is read of one file, in bytes. `/proc/interrupts` of a machine with 512 CPUs stays
/// under it.
const FILE_LIMIT_BYTES: u64 = 32 << 20;

/// The most entries that are listed of one folder.
const LIST_LIMIT: usize = 1 << 17;

/// How much of an unexpected text is quoted in [`Unknown::Malformed`], in characters.
const QUOTE_LIMIT_CHARS: usize = 60;

/// Why something about this machine is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// The file or folder is not there.
    #[error("{path} is absent")]
    Absent {
        /// The path on the machine, without the root's prefix.
        path: String,
    },
    /// This user may not read it.
    #[error("no permission for {path}; run as root to know")]
    NoPermission {
        /// The path on the machine, without the root's prefix.
        path: String,
    },
    /// Opening or reading it failed for another reason.
    #[error("{path} could not be read: {reason}")]
    Failed {
        /// The path on the machine, without the root's prefix.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// It was read and does not say what it should.
    #[error("{path} does not say what was expected of it, but \"{found}\"")]
    Malformed {
        /// The path on the machine, without the root's prefix.
        path: String,
        /// The beginning of what it says.
        found: String,
    },
    /// The question does not apply here, or this machine has no answer to it.
    #[error("{0}")]
    NotHere(String),
}

impl Unknown {
    /// `path` says `found`, and that makes no sense.
    pub(crate) fn malformed(path: &str, found: &str) -> Self {
        let mut found: String = found
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if let Some((end, _)) = found.char_indices().nth(QUOTE_LIMIT_CHARS) {
            found.truncate(end);
            found.push('…');
        }
        Unknown::Malformed {
            path: path.to_owned(),
            found,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Unknown::Absent { .. })
    }

    fn from_io(path: &str, error: &std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Unknown::Absent { path },
            ErrorKind::PermissionDenied => Unknown::NoPermission { path },
            _ => Unknown::Failed {
                path,
                reason: error.to_string(),
            },
        }
    }
}

/// Who owns a file, and what its mode (with the bits of its type) lets whom do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// The folder under which `/proc`, `/sys`, `/dev`, `/boot` and `/run` are looked for: `/` for the
/// machine this runs on, or a copy of another machine's files.
///
/// A copy must hold no absolute symbolic links, they would lead out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    folder: PathBuf,
}

impl Default for Root {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Root {
    /// The machine as found under `folder`.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Root {
            folder: folder.into(),
        }
    }

    /// Where `path` (as on the machine: `/proc/stat`) is under this root.
    fn locate(&self, path: &str) -> PathBuf {
        self.folder.join(Path::new(path.trim_start_matches('/')))
    }

    #[cfg(test)]
    pub(crate) fn path_for_tests(&self, path: &str) -> PathBuf {
        self.locate(path)
    }

    /// Opens for reading; never blocks, not on a FIFO either.
    fn open(&self, path: &str) -> Result<File, Unknown> {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.locate(path))
            .map_err(|error| Unknown::from_io(path, &error))
    }

    /// The whole file, at most [`FILE_LIMIT_BYTES`].
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, Unknown> {
        let mut bytes = self.beginning(path, FILE_LIMIT_BYTES + 1)?;
        if bytes.len() as u64 > FILE_LIMIT_BYTES {
            bytes.clear();
            let reason = format!("longer than {FILE_LIMIT_BYTES} bytes");
            return Err(Unknown::Failed {
                path: path.to_owned(),
                reason,
            });
        }
        Ok(bytes)
    }

    /// At most the first `limit_bytes` of a file.
    pub(crate) fn beginning(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>, Unknown> {
        let mut bytes = Vec::new();
        self.open(path)?
            .take(limit_bytes)
            .read_to_end(&mut bytes)
            .map_err(|error| Unknown::from_io(path, &error))?;
        Ok(bytes)
    }

    /// The whole file as text, with the white space around it taken off.
    pub(crate) fn text(&self, path: &str) -> Result<String, Unknown> {
        let bytes = self.bytes(path)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file that holds one number.
    pub(crate) fn number<T: std::str::FromStr>(&self, path: &str) -> Result<T, Unknown> {
        let text = self.text(path)?;
        text.parse().map_err(|_| Unknown::malformed(path, &text))
    }

    /// A file that holds a switch: `0`, `1`, `Y`, `N`, `y`, `n`.
    pub(crate) fn switch(&self, path: &str) -> Result<bool, Unknown> {
        let text = self.text(path)?;
        crate::reading::parse::switch(&text).ok_or_else(|| Unknown::malformed(path, &text))
    }

    /// `N` bytes at `offset`, as the character devices `/dev/cpu/*/msr` and `cpuid` are read.
    pub(crate) fn bytes_at<const N: usize>(
        &self,
        path: &str,
        offset: u64,
    ) -> Result<[u8; N], Unknown> {
        let mut bytes = [0; N];
        let mut file = self.open(path)?;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| Unknown::from_io(path, &error))?;
        Ok(bytes)
    }

    /// Whether `path` may be opened for reading and writing. Opens and closes it, no more.
    pub(crate) fn openable(&self, path: &str) -> Result<(), Unknown> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.locate(path))
            .map(drop)
            .map_err(|error| Unknown::from_io(path, &error))
    }

    /// Who owns a file, and its mode.
    pub(crate) fn owner(&self, path: &str) -> Result<Owner, Unknown> {
        let about =
            std::fs::metadata(self.locate(path)).map_err(|error| Unknown::from_io(path, &error))?;
        Ok(Owner {
            uid: about.uid(),
            gid: about.gid(),
            mode: about.mode(),
        })
    }

    /// The names in a folder, sorted.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>, Unknown> {
        let entries =
            std::fs::read_dir(self.locate(path)).map_err(|error| Unknown::from_io(path, &error))?;
        let mut names: Vec<String> = entries
            .take(LIST_LIMIT)
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// The names in a folder that are `prefix` and a number, in the order of the number.
    pub(crate) fn numbered(&self, path: &str, prefix: &str) -> Result<Vec<(u32, String)>, Unknown> {
        let mut found: Vec<(u32, String)> = self
            .list(path)?
            .into_iter()
            .filter_map(|name| Some((name.strip_prefix(prefix)?.parse().ok()?, name)))
            .collect();
        found.sort();
        Ok(found)
    }

    /// Whether there is a folder of that name.
    pub(crate) fn has_folder(&self, path: &str) -> bool {
        self.locate(path).is_dir()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn paths_are_looked_up_under_the_root_and_named_without_it() {
        let tree = Tree::new().file("/proc/x", " 12\n");
        assert_eq!(tree.root().number::<u64>("/proc/x"), Ok(12));
        assert_eq!(
            tree.root().text("/proc/y"),
            Err(Unknown::Absent {
                path: "/proc/y".to_owned()
            })
        );
    }

    #[test]
    fn a_file_in_the_way_of_a_folder_means_absent() {
        let tree = Tree::new().file("/proc/x", "1");
        assert!(tree.root().text("/proc/x/y").unwrap_err().is_absent());
        assert!(tree.root().list("/proc/x").unwrap_err().is_absent());
    }

    #[test]
    fn a_folder_in_place_of_a_file_is_a_failure_with_a_reason() {
        let tree = Tree::new().file("/dev/kvm/x", "");
        let error = tree.root().text("/dev/kvm").unwrap_err();
        assert!(matches!(error, Unknown::Failed { .. }), "{error}");
        assert!(tree.root().openable("/dev/kvm").is_err());
    }

    #[test]
    fn permission_is_told_apart() {
        let error = std::io::Error::from(ErrorKind::PermissionDenied);
        assert!(matches!(
            Unknown::from_io("/x", &error),
            Unknown::NoPermission { .. }
        ));
    }

    #[test]
    fn nonsense_is_quoted_shortened_and_on_one_line() {
        let tree = Tree::new().file("/proc/x", &format!("{}\n\x1b[31m", "é\n".repeat(200)));
        let Unknown::Malformed { found, .. } = tree.root().number::<u8>("/proc/x").unwrap_err()
        else {
            panic!("not malformed");
        };
        assert!(found.chars().count() <= QUOTE_LIMIT_CHARS + 1, "{found}");
        assert!(!found.contains(char::is_control), "{found}");
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        let tree = Tree::new().bytes("/proc/x", 0, &[0xff, 0xfe, b'1']);
        assert!(tree.root().number::<u8>("/proc/x").is_err());
        assert!(tree.root().text("/proc/x").is_ok());
    }

    #[test]
    fn bytes_at_an_offset_and_past_the_end() {
        let tree = Tree::new().bytes("/dev/cpu/0/msr", 0x34, &7u64.to_le_bytes());
        assert_eq!(
            tree.root().bytes_at("/dev/cpu/0/msr", 0x34),
            Ok(7u64.to_le_bytes())
        );
        assert!(tree.root().bytes_at::<8>("/dev/cpu/0/msr", 0x38).is_err());
    }

    #[test]
    fn numbered_entries_come_in_the_order_of_their_numbers() {
        let tree = Tree::new()
            .file("/sys/cpu/cpu10/x", "")
            .file("/sys/cpu/cpu2/x", "")
            .file("/sys/cpu/cpufreq/x", "");
        let names = tree.root().numbered("/sys/cpu", "cpu").unwrap();
        assert_eq!(names, [(2, "cpu2".to_owned()), (10, "cpu10".to_owned())]);
    }
}
