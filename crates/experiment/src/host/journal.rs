//! Settings of this machine that are changed for a while, and put back whatever happens.
//!
//! Before a setting is changed, what it was is written to a journal, which its owner holds locked. Whoever starts next and
//! finds a journal that nobody holds puts its settings back: its owner was killed. A journal outlives neither.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// A setting as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    path: PathBuf,
    value: String,
}

/// What a journal has in it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Written {
    /// The boot that its settings are of: the next one has its own.
    boot: String,
    changed: Vec<Before>,
}

/// The id of this boot of the machine.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

impl Before {
    /// Makes it what it was; says whether it was something else.
    fn put_back(&self) -> Result<bool> {
        if read(&self.path)? == self.value {
            return Ok(false);
        }
        write(&self.path, &self.value)?;
        Ok(true)
    }
}

/// Changes settings, and puts them back: when told to, when it goes, or at exitpath's next start.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Locked for as long as it is open.
    file: File,
    changed: Vec<Before>,
}

/// Where journals are: in the user's folder for state.
///
/// # Errors
/// Where there is no such folder.
pub fn folder() -> Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path: &PathBuf| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Ok(state.ok_or(Error::NoHome)?.join("exitpath"))
}

impl Journal {
    /// An empty one in that folder.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn new(folder: &Path) -> Result<Journal> {
        let path = folder.join(format!("journal-{}", std::process::id()));
        let open = || {
            fs::create_dir_all(folder)?;
            let file = File::create(&path)?;
            file.try_lock().map_err(std::io::Error::from)?;
            Ok(file)
        };
        let file = open().map_err(|error: std::io::Error| cannot(&path, &error))?;
        Ok(Journal {
            path,
            file,
            changed: Vec::new(),
        })
    }

    /// Changes a setting, and looks whether it took.
    ///
    /// # Errors
    /// Where it cannot be read, written, or does not become what it was to be.
    pub fn set(&mut self, setting: &Path, value: &str) -> Result<()> {
        if self.changed.iter().all(|before| before.path != setting) {
            let before = Before {
                path: setting.to_owned(),
                value: read(setting)?,
            };
            self.changed.push(before);
            self.write()?;
        }
        write(setting, value)?;
        let is = read(setting)?;
        match is == value {
            true => Ok(()),
            false => Err(Error::Said {
                kind: Kind::Cannot,
                says: format!("{} was set to {value} and is {is}", setting.display()),
            }),
        }
    }

    /// Puts all settings back, the one changed last first.
    ///
    /// # Errors
    /// Where one cannot be written. The others are put back all the same, and that one stays in the journal.
    pub fn restore(&mut self) -> Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let mut failed = Ok(());
        let mut left = Vec::new();
        for before in std::mem::take(&mut self.changed).into_iter().rev() {
            if let Err(error) = before.put_back() {
                left.insert(0, before);
                failed = Err(error);
            }
        }
        self.changed = left;
        self.write()?;
        failed
    }

    /// What is changed, to the disk, before it is.
    fn write(&mut self) -> Result<()> {
        let written = Written {
            boot: boot(),
            changed: self.changed.clone(),
        };
        let text = serde_json::to_vec(&written).expect("plain data always serialises");
        let path = self.path.with_extension("new");
        // Whole or not at all: a journal is read after a crash.
        let written = || {
            let mut new = File::create(&path)?;
            new.write_all(&text)?;
            new.sync_all()?;
            new.try_lock().map_err(std::io::Error::from)?;
            fs::rename(&path, &self.path)?;
            Ok(new)
        };
        self.file = written().map_err(|error: std::io::Error| cannot(&self.path, &error))?;
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.restore().is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Puts back what killed exitpaths left changed; a line for each setting.
pub fn replay(folder: &Path) -> Vec<String> {
    let mut said = Vec::new();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut journals: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    journals.retain(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with("journal-") && path.extension().is_none()
    });
    for journal in journals {
        let Ok(file) = File::open(&journal) else {
            continue;
        };
        // Whoever holds it restores by itself.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            continue;
        }
        let text = fs::read(&journal).ok();
        let written: Option<Written> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let written = written.filter(|written| written.boot == boot());
        let mut all = true;
        for before in written.unwrap_or_default().changed.into_iter().rev() {
            let (setting, value) = (before.path.display(), &before.value);
            match before.put_back() {
                Ok(false) => {}
                Ok(true) => said.push(format!(
                    "{setting} is {value} again: an exitpath that was killed had changed it"
                )),
                Err(error) => {
                    all = false;
                    said.push(format!(
                        "{setting} was {value} before an exitpath that was killed changed it: {error}"
                    ));
                }
            }
        }
        if all {
            let _ = fs::remove_file(&journal);
        }
    }
    said
}

/// A setting's value. Of several words the one in brackets, as sysfs marks what is chosen.
pub fn read(setting: &Path) -> Result<String> {
    let text = fs::read_to_string(setting).map_err(|error| cannot(setting, &error))?;
    let chosen = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    Ok(chosen.map_or(text.trim(), |(chosen, _)| chosen).to_owned())
}

pub(crate) fn write(setting: &Path, value: &str) -> Result<()> {
    let open = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(setting);
    open.and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|error| cannot(setting, &error))
}

fn cannot(path: &Path, error: &std::io::Error) -> Error {
    Error::Said {
        kind: Kind::Cannot,
        says: format!("{}: {error}", path.display()),
    }
}
