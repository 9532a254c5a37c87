//! Where an image is put, so that a VMM can open it by its path.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where images are put for the VMM.
pub(super) enum ImagePlace {
    /// In memory: nothing is left of it, however this ends.
    Memory,
    /// In a folder.
    Folder(Folder),
}

/// An image that a VMM can open by its path, as long as this is there.
pub(super) struct Image {
    pub(super) path: PathBuf,
    _in_memory: Option<File>,
}

impl ImagePlace {
    pub(super) fn put(&self, image: &[u8]) -> Result<Image> {
        match self {
            ImagePlace::Memory => {
                let file = exitpath_lab::descriptors::sealed_file("exitpath-image", image)?;
                let (process, number) = (std::process::id(), file.as_raw_fd());
                Ok(Image {
                    path: format!("/proc/{process}/fd/{number}").into(),
                    _in_memory: Some(file),
                })
            }
            ImagePlace::Folder(folder) => {
                let path = folder.path.join("image.elf");
                std::fs::write(&path, image).map_err(|cause| Error::File {
                    action: "write",
                    path: path.clone(),
                    cause,
                })?;
                Ok(Image {
                    path,
                    _in_memory: None,
                })
            }
        }
    }
}

/// Its name's beginning and end; between them is the process that made it.
const FOLDER: [&str; 2] = ["exitpath-", "-image"];
/// A file in it that is locked as long as the process lives.
const LOCK: &str = "lock";

/// A folder for the image, which goes with it; where a kill came first, the next one removes it.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    pub(super) fn new(above: &Path) -> Result<Folder> {
        Folder::remove_abandoned(above);
        let [begin, end] = FOLDER;
        let path = above.join(format!("{begin}{}{end}", std::process::id()));
        // Under its name it is locked, so that nobody takes it for an abandoned one.
        let unlocked = path.with_extension("new");
        let lock = std::fs::create_dir(&unlocked)
            .and_then(|()| File::create_new(unlocked.join(LOCK)))
            .and_then(|lock| lock.lock().map(|()| lock))
            .and_then(|lock| std::fs::rename(&unlocked, &path).map(|()| lock));
        match lock {
            Ok(lock) => Ok(Folder { path, _lock: lock }),
            Err(cause) => {
                let _ = std::fs::remove_dir_all(&unlocked);
                Err(Error::ImageFolder { path, cause })
            }
        }
    }

    /// Best effort: others' folders are theirs.
    fn remove_abandoned(above: &Path) {
        let [begin, end] = FOLDER;
        for entry in std::fs::read_dir(above).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with(begin) || !name.ends_with(end) {
                continue;
            }
            let lock = File::open(entry.path().join(LOCK));
            if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_processes_that_are_gone_are_removed() {
        let above = tempfile::tempdir().expect("a folder");
        let at = |name: &str| above.path().join(name);
        let make = |name: &str| {
            std::fs::create_dir(at(name)).expect("a folder");
            std::fs::write(at(name).join("image.elf"), "image").expect("a file");
            File::create(at(name).join(LOCK)).expect("a file")
        };
        drop(make("exitpath-1-image"));
        drop(make("exitpath-1-other"));
        let others = make("exitpath-2-image");
        others.lock().expect("a lock");
        std::fs::create_dir(at("exitpath-3-image")).expect("a folder");
        let ours = Folder::new(above.path()).expect("a folder");
        let mut left: Vec<_> = std::fs::read_dir(above.path())
            .expect("a folder")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        left.sort();
        let mut expected = vec![
            at("exitpath-1-other"),
            at("exitpath-2-image"),
            at("exitpath-3-image"),
            ours.path.clone(),
        ];
        expected.sort();
        assert_eq!(left, expected);
        let path = ours.path.clone();
        drop(ours);
        assert!(!path.exists());
    }

    #[test]
    fn an_image_in_memory_can_be_opened_by_its_path() {
        let image = ImagePlace::Memory.put(b"an image").expect("memory");
        assert_eq!(std::fs::read(&image.path).expect("its path"), b"an image");
        let path = image.path.clone();
        drop(image);
        assert!(!path.exists());
    }
}
