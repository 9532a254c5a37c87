//! Makes the payload's files.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};

use crate::firmware::Payload;
use crate::payload::{DEVICE, Entry, FILE, FOLDER, KIND, SYMLINK, entries};
use crate::system::{self, Pages};
use crate::{Failed, Step};

/// Unpacks everything.
///
/// # Errors
/// What could not be made, and why.
pub fn all(mut payload: Payload) -> Result<(), Failed> {
    let index = payload.index().to_vec();
    let mask = system::withhold(0);
    for entry in entries(&index) {
        let entry = entry.ok_or("the payload's index is cut off")?;
        let path = std::str::from_utf8(entry.path).map_err(|_| "a path that is no text")?;
        one(&mut payload, &entry, &format!("/{path}"))?;
    }
    system::withhold(mask);
    Ok(())
}

fn one(payload: &mut Payload, entry: &Entry<'_>, path: &str) -> Result<(), Failed> {
    let permissions = entry.mode & !KIND;
    if entry.mode & KIND == FOLDER {
        return match DirBuilder::new().mode(permissions).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made.step(path),
        };
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(format!("{path}: {error}"));
        }
        _ => {}
    }
    let (from, length) = entry.content;
    let length = usize::try_from(length).map_err(|_| format!("{path} is too large"))?;
    match entry.mode & KIND {
        FILE => {
            let mut options = File::options();
            options
                .read(true)
                .write(true)
                .create_new(true)
                .mode(permissions);
            let file = options.open(path).step(path)?;
            if length > 0 {
                file.set_len(length as u64).step(path)?;
                // Its own pages are written to: nothing is copied.
                let mut pages = Pages::of(Some(&file), length).step(path)?;
                payload.read(from, length, &mut pages)?;
            }
            Ok(())
        }
        kind => {
            let mut pages = Pages::of(None, length.max(1)).step(path)?;
            payload.read(from, length, &mut pages)?;
            let content = &pages.bytes()[..length];
            match (kind, content) {
                (SYMLINK, target) => {
                    let target =
                        std::str::from_utf8(target).map_err(|_| "a target that is no text")?;
                    symlink(target, path).step(path)
                }
                (DEVICE, &[a, b, c, d, e, f, g, h]) => {
                    let [major, minor] = [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes);
                    system::make_device(path, entry.mode, major, minor).step(path)
                }
                _ => Err(format!("{path} is of no kind that is known")),
            }
        }
    }
}
