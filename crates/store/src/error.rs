//! What can go wrong with a recording on disk, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a recording could not be written or read. Each message is one line and ends with what to
/// do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading: nothing has that name.
    #[error("{}: no such folder; name the folder that was given as --out when it was recorded", path.display())]
    NoSuchFolder {
        /// The path that was to be read.
        path: PathBuf,
    },

    /// Reading: there is something of that name, but it is no folder.
    #[error("{} is a file; a recording is a folder, so name the folder that holds it", path.display())]
    NotAFolder {
        /// The path that was to be read.
        path: PathBuf,
    },

    /// Reading: a folder, but of something else.
    #[error("{} is not an exitpath recording: {why}; name a folder that exitpath wrote", path.display())]
    NotARecording {
        /// The folder that was to be read.
        path: PathBuf,
        /// What is missing or different.
        why: String,
    },

    /// Reading: written by an exitpath that came later than this one.
    #[error(
        "{} has recording format version {found}, and this exitpath reads versions up to \
         {supported}; read it with a newer exitpath", path.display()
    )]
    Newer {
        /// The folder that was to be read.
        path: PathBuf,
        /// The version the recording names.
        found: u64,
        /// The newest version this crate reads, [`crate::VERSION`].
        supported: u64,
    },

    /// Reading: of a version that this one reads, but with a value that it does not know.
    #[error(
        "{} has {what}, which this exitpath does not know: it was written by a newer exitpath; read it \
         with that one", path.display()
    )]
    NewerValue {
        /// The file that has it.
        path: PathBuf,
        /// The value, and what it is of.
        what: String,
    },

    /// Reading: the bytes are not those that were written.
    #[error(
        "{} was truncated or altered: {why}; copy the recording again from where it was made, or \
         record again", path.display()
    )]
    Altered {
        /// The file that differs from what was written.
        path: PathBuf,
        /// How that shows.
        why: String,
    },

    /// Reading: the bytes are as written, but what they say cannot be.
    #[error(
        "{} is inconsistent: {why}; record again, and if exitpath alone wrote this, report it as \
         a bug", path.display()
    )]
    Inconsistent {
        /// The file that says it.
        path: PathBuf,
        /// What cannot be.
        why: String,
    },

    /// Reading: the operating system would not hand out the bytes.
    #[error("cannot read {}: {cause}; {}", path.display(), read_advice(cause))]
    Read {
        /// The file or folder that could not be read.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },

    /// Writing: there is something of that name, and it is not an empty folder.
    #[error("{} exists and is not an empty folder; choose another --out", path.display())]
    Exists {
        /// The path that was to be written.
        path: PathBuf,
    },

    /// Writing: an empty folder, but one that cannot be replaced.
    #[error(
        "{} is {what}, which cannot be replaced; choose a folder in it, for instance --out {}",
        path.display(), path.join("recording").display()
    )]
    InUse {
        /// The path that was to be written.
        path: PathBuf,
        /// What makes it irreplaceable.
        what: &'static str,
    },

    /// Writing: the operating system would not take the bytes. Nothing is left at `path`, unless
    /// it is the folder that holds the recording: then the recording is whole and in place, but
    /// might not outlast a loss of power.
    #[error("cannot write {}: {cause}; {}", path.display(), write_advice(cause))]
    Write {
        /// The file or folder that could not be written.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },

    /// Writing: it failed, and a temporary folder could not be removed.
    #[error("{error}; also remove {}, which is incomplete", leftover.display())]
    LeftBehind {
        /// Why writing failed.
        error: Box<Error>,
        /// What is still there.
        leftover: PathBuf,
    },

    /// Writing: the recording in memory cannot be told apart from another one once it is read
    /// again, so it is not written.
    #[error("not a recording that can be stored: {why}; report this as a bug in exitpath")]
    Unstorable {
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// For `map_err`: reading `path` failed.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Read {
            path: path.into(),
            cause,
        }
    }

    /// For `map_err`: writing `path` failed.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Write {
            path: path.into(),
            cause,
        }
    }
}

fn read_advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "ask its owner for read permission, or copy it",
        _ => "check the disk it is on, or copy the recording again",
    }
}

fn write_advice(cause: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match cause.kind() {
        Kind::StorageFull => "free some space, or choose an --out on another disk",
        Kind::QuotaExceeded => "free some of your quota, or choose an --out on another disk",
        Kind::FileTooLarge => "raise the limit on file sizes (ulimit -f), or choose another --out",
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => {
            "choose an --out in a folder you can write to"
        }
        Kind::NotADirectory => "choose an --out that has only folders above it",
        _ => "choose another --out",
    }
}
