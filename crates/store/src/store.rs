//! Recordings on disk: [`write()`] and [`read()`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::Error;
use crate::groups::GROUPS;
use crate::manifest_file::{Fault, GroupEntry, ManifestFile, TableEntry, VERSION, sha256};
use crate::problem::Problem;
use crate::table::Encoded;
use exitpath_recording::Recording;

/// The file that makes a folder a recording. It is written last.
const MANIFEST: &str = "manifest.json";

/// How the temporary folder's name begins.
const TEMPORARY: &str = ".exitpath-";

/// Whether [`write()`] to `dir` can work, to be asked before something that takes long is measured.
///
/// Makes and removes an empty folder beside `dir`.
///
/// # Errors
///
/// Those that [`write()`] would return for this `dir`.
pub fn check_writable(dir: &Path) -> Result<(), Error> {
    let target = Target::find(dir)?;
    let above = target.parent.ancestors().find(|above| above.exists());
    let above = above.unwrap_or(&target.parent);
    let probe = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(above);
    probe.and_then(TempDir::close).map_err(Error::write(above))
}

/// Writes a recording as the folder `dir`.
///
/// `dir` must not exist yet or be an empty folder; folders above it are made where they are
/// missing. Everything is written to a temporary folder beside `dir` (`.exitpath-…`), the
/// manifest last, and forced to the disk before the folder is renamed to `dir`. So `dir` is
/// always either as it was or the whole recording. After an error nothing is left behind; after
/// a kill or a loss of power the temporary folder may be.
///
/// The same recording makes the same bytes.
///
/// # Errors
///
/// [`Error::Exists`], [`Error::InUse`] and [`Error::Write`] if the folder or the disk is not up
/// to it, [`Error::LeftBehind`] if it cannot even be tidied up, and [`Error::Unstorable`] for a
/// recording that contradicts itself or could not be read back as it is.
pub fn write(dir: &Path, recording: &Recording) -> Result<(), Error> {
    let unstorable = |why| Error::Unstorable { why };
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut entries = Vec::new();
    for group in GROUPS {
        let encoded =
            (group.encode)(recording).map_err(|problem| unstorable(problem.to_string()))?;
        let Some(encoded) = encoded else { continue };
        let tables = group.tables.iter().zip(encoded);
        let mut of_group = Vec::new();
        for (table, Encoded { rows, bytes, .. }) in tables {
            of_group.push(TableEntry {
                name: table.name.into(),
                rows,
                bytes: bytes.len() as u64,
                sha256: sha256(&bytes),
            });
            files.push((table.name, bytes));
        }
        entries.push(GroupEntry {
            name: group.name.into(),
            tables: of_group,
        });
    }
    let manifest = ManifestFile::encode(&recording.manifest, entries).map_err(unstorable)?;
    files.push((MANIFEST, manifest));

    let target = Target::find(dir)?;
    let made = make_folders(&target.parent)?;
    let written = target.write(&files);
    if written.is_err() {
        // Only folders made just now, and only if nobody has put anything there.
        for folder in made {
            _ = fs::remove_dir(folder);
        }
    }
    written
}

/// Where a recording goes.
struct Target {
    /// The folder the recording becomes.
    dir: PathBuf,
    /// The folder it is in.
    parent: PathBuf,
    /// The mode of the empty folder it replaces, if it does.
    mode: Option<u32>,
}

impl Target {
    fn find(dir: &Path) -> Result<Self, Error> {
        let exists = || Error::Exists { path: dir.into() };
        let in_use = |what| Error::InUse {
            path: dir.into(),
            what,
        };
        let parent_of = |dir: &Path| dir.parent().map(Path::to_path_buf);

        let metadata = match fs::metadata(dir) {
            Ok(metadata) => metadata,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let dir = std::path::absolute(dir).map_err(Error::write(dir))?;
                let parent = parent_of(&dir).ok_or_else(exists)?;
                return Ok(Self {
                    dir,
                    parent,
                    mode: None,
                });
            }
            Err(cause) => return Err(Error::write(dir)(cause)),
        };
        if !metadata.is_dir()
            || fs::read_dir(dir)
                .map_err(Error::write(dir))?
                .next()
                .is_some()
        {
            return Err(exists());
        }
        // Follows links, so that the folder is replaced and not the link to it.
        let real = dir.canonicalize().map_err(Error::write(dir))?;
        let parent = parent_of(&real).ok_or_else(|| in_use("the root folder"))?;
        if std::env::current_dir().is_ok_and(|current| current == real) {
            return Err(in_use("the current folder"));
        }
        if fs::metadata(&parent).map_err(Error::write(&parent))?.dev() != metadata.dev() {
            return Err(in_use("a mount point"));
        }
        Ok(Self {
            dir: real,
            parent,
            mode: Some(metadata.mode() & 0o7777),
        })
    }

    /// Writes all files or nothing; the folder above has to exist.
    fn write(&self, files: &[(&str, Vec<u8>)]) -> Result<(), Error> {
        // Mode 777 less the umask, as for any other new folder, and not the temporary's 700.
        let temporary = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(fs::Permissions::from_mode(0o777))
            .tempdir_in(&self.parent)
            .map_err(Error::write(&self.parent))?;
        let place = self.fill(temporary.path(), files).and_then(|()| {
            fs::rename(temporary.path(), &self.dir).map_err(|cause| self.rename_error(cause))
        });
        match place {
            // From here on there is no temporary folder to remove.
            Ok(()) => _ = temporary.keep(),
            Err(error) => {
                let leftover = temporary.path().to_path_buf();
                return Err(match temporary.close() {
                    Ok(()) => error,
                    Err(_) => Error::LeftBehind {
                        error: Box::new(error),
                        leftover,
                    },
                });
            }
        }
        sync_folder(&self.parent).map_err(Error::write(&self.parent))
    }

    /// Errors name the file by where it would have been: the temporary folder goes away.
    fn fill(&self, temporary: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), Error> {
        for (name, bytes) in files {
            write_file(&temporary.join(name), bytes).map_err(Error::write(&self.dir.join(name)))?;
        }
        if let Some(mode) = self.mode {
            fs::set_permissions(temporary, fs::Permissions::from_mode(mode))
                .map_err(Error::write(&self.dir))?;
        }
        sync_folder(temporary).map_err(Error::write(&self.dir))
    }

    /// Why the finished folder could not be put in place: someone else may have been there since.
    fn rename_error(&self, cause: io::Error) -> Error {
        use io::ErrorKind as Kind;
        let path = self.dir.clone();
        match cause.kind() {
            Kind::DirectoryNotEmpty | Kind::AlreadyExists | Kind::NotADirectory => {
                Error::Exists { path }
            }
            Kind::ResourceBusy => Error::InUse {
                path,
                what: "a mount point",
            },
            _ => Error::Write { path, cause },
        }
    }
}

/// Makes `dir` and what is missing above it, and returns what it made, innermost first.
fn make_folders(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let missing = dir.ancestors().take_while(|above| !above.exists());
    let missing: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
    if let Err(cause) = fs::create_dir_all(dir) {
        for folder in missing {
            _ = fs::remove_dir(folder);
        }
        return Err(Error::write(dir)(cause));
    }
    Ok(missing)
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Some file systems (9p, some of FUSE) do not know how to, and then there is nothing to wait for.
fn sync_folder(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        Err(cause)
            if matches!(
                cause.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Reads the recording in the folder `dir`.
///
/// Files in it that are not the recording's are left alone.
///
/// # Errors
///
/// Every other way a folder can be: [`Error::NoSuchFolder`], [`Error::NotAFolder`],
/// [`Error::NotARecording`], [`Error::Newer`], [`Error::Altered`], [`Error::Inconsistent`] and
/// [`Error::Read`]. No bytes make it panic.
pub fn read(dir: &Path) -> Result<Recording, Error> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(Error::NotAFolder { path: dir.into() }),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoSuchFolder { path: dir.into() });
        }
        Err(cause) => return Err(Error::read(dir)(cause)),
    }
    read_through(dir, &|name| read_file(&dir.join(name)))
}

/// Reads a recording from its files' bytes, by their names; they may have come from another machine.
/// `dir` is the folder they are from, for messages.
///
/// # Errors
///
/// As [`read()`], but for those about the folder itself.
pub fn from_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<Recording, Error> {
    read_through(dir, &|name| Ok(files.get(name).cloned()))
}

/// The names that a recording's files can have.
pub fn file_names() -> impl Iterator<Item = &'static str> {
    let tables = GROUPS.iter().flat_map(|group| group.tables);
    tables.map(|table| table.name).chain([MANIFEST])
}

/// The bytes of the file with this name, if there is one.
type ReadFile<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, Error>;

fn read_through(dir: &Path, file: ReadFile<'_>) -> Result<Recording, Error> {
    let path = dir.join(MANIFEST);
    let not_ours = |why: String| Error::NotARecording {
        path: dir.into(),
        why,
    };
    let bytes = file(MANIFEST)?.ok_or_else(|| not_ours(format!("it has no {MANIFEST}")))?;
    let ManifestFile {
        manifest,
        old,
        groups,
    } = ManifestFile::decode(&bytes).map_err(|fault| match fault {
        Fault::NotOurs(why) => not_ours(why),
        Fault::Newer(found) => Error::Newer {
            path: dir.into(),
            found,
            supported: VERSION,
        },
        Fault::NewerValue(what) => Error::NewerValue {
            path: path.clone(),
            what,
        },
        Fault::Altered(why) => Error::Altered {
            path: path.clone(),
            why,
        },
        Fault::Inconsistent(why) => Error::Inconsistent {
            path: path.clone(),
            why,
        },
    })?;

    // All of them before any is decoded, so that damage is called damage.
    let mut read = Vec::new();
    for (group, entries) in groups {
        let tables = entries
            .iter()
            .map(|entry| read_table(dir, entry, old, file));
        read.push((group, tables.collect::<Result<Vec<Encoded>, Error>>()?));
    }
    let mut recording = Recording {
        manifest,
        runs: Vec::new(),
        trace: None,
    };
    for (group, tables) in read {
        (group.decode)(&mut recording, tables).map_err(|(table, problem)| {
            let path = dir.join(table);
            match problem {
                Problem::Wrong(why) => Error::Inconsistent { path, why },
                Problem::Newer(what) => Error::NewerValue { path, what },
            }
        })?;
    }
    Ok(recording)
}

/// Reads a table's file and sees whether its bytes are those the manifest promises.
fn read_table(
    dir: &Path,
    entry: &TableEntry,
    old: bool,
    read: ReadFile<'_>,
) -> Result<Encoded, Error> {
    let path = dir.join(&entry.name);
    let altered = |why| Error::Altered {
        path: path.clone(),
        why,
    };
    let bytes = read(&entry.name)?.ok_or_else(|| altered("it is missing".into()))?;
    if bytes.len() as u64 != entry.bytes {
        return Err(altered(format!(
            "{} bytes instead of {}",
            bytes.len(),
            entry.bytes
        )));
    }
    if sha256(&bytes) != entry.sha256 {
        return Err(altered("its SHA-256 is not the manifest's".into()));
    }
    Ok(Encoded {
        rows: entry.rows,
        bytes,
        old,
    })
}

/// The whole of a regular file, if there is one. A pipe of that name would never end.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let read = || {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        fs::read(path)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::read(path)(cause)),
    }
}
