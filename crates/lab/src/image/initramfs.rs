//! Writes the archive that the lab's kernel unpacks as its root file system.
//!
//! The archive is the same to the byte for the same content: entries are sorted by path,
//! inodes are numbered in that order, and owners and times are zero. A run in the lab is
//! only repeatable if its file system is.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Component, Path, PathBuf};

use cpio::newc;
use exitpath_lab_start::payload::{DEVICE, FILE, FOLDER, KIND, SYMLINK};

use crate::cache;
use crate::error::{Error, Result};
use crate::image::libraries::{self, Libraries};

/// How many symlinks in a row are followed, as many as Linux does.
const SYMLINKS: usize = 40;

/// One thing in the archive.
#[derive(Debug, Clone)]
enum Node {
    Directory { mode: u32 },
    File { mode: u32, content: Content },
    Symlink { target: PathBuf },
    Device { mode: u32, major: u32, minor: u32 },
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    /// A file of this machine, read when the archive is written.
    OfHost(PathBuf),
}

impl Node {
    fn what(&self) -> &'static str {
        match self {
            Node::Directory { .. } => "a folder",
            Node::File { .. } => "a file",
            Node::Symlink { .. } => "a symlink",
            Node::Device { .. } => "a device",
        }
    }
}

/// A root file system in the making.
///
/// Paths are those in the lab, absolute or not. Folders on the way to a path are made,
/// and symlinks on the way are followed, as the kernel will when it unpacks the archive.
#[derive(Debug, Clone, Default)]
pub struct Initramfs {
    /// By path without the leading slash; no path goes through a symlink.
    nodes: BTreeMap<String, Node>,
    library_folders: Vec<PathBuf>,
}

impl Initramfs {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder. One that is there already keeps its mode.
    ///
    /// # Errors
    /// [`Error::Occupied`] if something else is there.
    pub fn directory(&mut self, path: impl AsRef<Path>, mode: u32) -> Result<&mut Self> {
        let key = self.key(path.as_ref())?;
        match self.nodes.get(&key) {
            Some(Node::Directory { .. }) => {}
            Some(Node::Symlink { .. }) => {
                let path = self.follow(&key)?;
                return self.directory(path, mode);
            }
            _ => self.put(
                key,
                Node::Directory {
                    mode: mode & 0o7777,
                },
            )?,
        }
        Ok(self)
    }

    /// Adds a file, in place of one that is there already.
    ///
    /// # Errors
    /// [`Error::Occupied`] if something else than a file is there.
    pub fn file(
        &mut self,
        path: impl AsRef<Path>,
        mode: u32,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<&mut Self> {
        let key = self.key(path.as_ref())?;
        let content = Content::Bytes(bytes.into());
        self.put(
            key,
            Node::File {
                mode: mode & 0o7777,
                content,
            },
        )?;
        Ok(self)
    }

    /// Adds a file of this machine under another path, with its mode. It is read when the
    /// archive is written.
    ///
    /// # Errors
    /// [`Error::Occupied`]; [`Error::Io`] if there is no such file.
    pub fn file_from(&mut self, path: impl AsRef<Path>, host: &Path) -> Result<&mut Self> {
        let host = host.canonicalize().map_err(Error::io("open", host))?;
        let node = host_file(&host)?;
        let key = self.key(path.as_ref())?;
        self.put(key, node)?;
        Ok(self)
    }

    /// Adds a symlink, in place of one that is there already.
    ///
    /// # Errors
    /// [`Error::Occupied`] if something else than a symlink is there.
    pub fn symlink(
        &mut self,
        path: impl AsRef<Path>,
        target: impl Into<PathBuf>,
    ) -> Result<&mut Self> {
        let key = self.key(path.as_ref())?;
        self.put(
            key,
            Node::Symlink {
                target: target.into(),
            },
        )?;
        Ok(self)
    }

    /// Adds a character device: `/dev/console` is 5, 1.
    ///
    /// # Errors
    /// [`Error::Occupied`] if something else than a device is there.
    pub fn device(
        &mut self,
        path: impl AsRef<Path>,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Result<&mut Self> {
        let key = self.key(path.as_ref())?;
        self.put(
            key,
            Node::Device {
                mode: mode & 0o7777,
                major,
                minor,
            },
        )?;
        Ok(self)
    }

    /// Looks for shared libraries in this folder first, as with `LD_LIBRARY_PATH`, which
    /// then has to name it in the lab too.
    pub fn library_folder(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.library_folders.push(dir.into());
        self
    }

    /// Copies a file of this machine, or a folder with all that is in it, to the same
    /// path in the lab, and what symlinks there lead to, with the symlinks. Returns how
    /// many files that were.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Occupied`].
    pub fn add_path(&mut self, host: &Path) -> Result<usize> {
        let host = std::path::absolute(host).map_err(Error::io("find", host))?;
        self.add_tree(&host, &mut BTreeSet::new())
    }

    /// Copies a program of this machine to the same path in the lab, with its interpreter
    /// and all the shared libraries it is linked with, and theirs, so that it runs there
    /// unchanged. A script's program comes along too. Returns the paths by which the
    /// files are known to the dynamic linker, the program first.
    ///
    /// What a program opens by itself is not seen: data files, and libraries it loads
    /// with `dlopen`. Give the former to [`Initramfs::add_path`], the latter to this as well.
    ///
    /// # Errors
    /// [`Error::NotAProgram`], [`Error::LibraryNotFound`], [`Error::Io`], [`Error::Occupied`].
    pub fn add_program(&mut self, program: &Path) -> Result<Vec<PathBuf>> {
        let program = std::path::absolute(program).map_err(Error::io("find", program))?;
        let libraries = Libraries::of_this_machine(&self.library_folders);
        let files = libraries.needed_by(&program)?;
        for file in &files {
            self.add_path(file)?;
        }
        if libraries.need_linker_cache(&files) {
            let cache = Path::new(libraries::LINKER_CACHE);
            if cache.is_file() {
                self.add_path(cache)?;
            }
        }
        Ok(files)
    }

    /// Whether there is something at a path, following symlinks on the way there.
    pub fn contains(&self, path: impl AsRef<Path>) -> bool {
        self.locate(path.as_ref())
            .is_ok_and(|key| self.nodes.contains_key(&key))
    }

    /// The paths in the archive, sorted, without a leading slash.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// The first thing where the lab's kernel mounts file systems of its own, which hide it; and
    /// where that is.
    pub(crate) fn hidden(&self) -> Option<(PathBuf, &'static str)> {
        self.nodes.iter().find_map(|(path, node)| {
            let own = ["/proc", "/sys", "/dev"];
            let path = Path::new("/").join(path);
            let own = own.into_iter().find(|own| path.starts_with(own))?;
            let there = matches!(node, Node::File { .. } | Node::Symlink { .. });
            there.then_some((path, own))
        })
    }

    /// What is in it, folders before what is in them: path without a leading slash, kind and mode, and content: a
    /// file's bytes, a symlink's target, a device's major and minor number (little-endian).
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<(&str, u32, Cow<'_, [u8]>)>> {
        self.nodes.iter().map(|(path, node)| {
            let (mode, content) = match node {
                Node::Directory { mode } => (FOLDER | mode, Cow::default()),
                Node::Device { mode, major, minor } => {
                    let numbers = [major.to_le_bytes(), minor.to_le_bytes()].concat();
                    (DEVICE | mode, numbers.into())
                }
                Node::Symlink { target } => (
                    SYMLINK | 0o777,
                    target.as_os_str().as_encoded_bytes().into(),
                ),
                Node::File { mode, content } => {
                    let bytes = match content {
                        Content::Bytes(bytes) => bytes.into(),
                        Content::OfHost(host) => {
                            fs::read(host).map_err(Error::io("read", host))?.into()
                        }
                    };
                    (FILE | mode, bytes)
                }
            };
            Ok((path.as_str(), mode, content))
        })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::TooLarge`].
    pub fn write(&self, mut out: impl Write) -> Result<()> {
        for (inode, entry) in (1..).zip(self.entries()) {
            let (path, mode, content) = entry?;
            let failed = |e| Error::io("write the initramfs at", path)(e);
            let builder = newc::Builder::new(path).ino(inode).mode(mode);
            let (builder, content): (_, &[u8]) = match (mode & KIND, &*content) {
                (FOLDER, _) => (builder.nlink(2), &[]),
                (DEVICE, &[a, b, c, d, e, f, g, h]) => {
                    let [major, minor] = [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes);
                    (builder.rdev_major(major).rdev_minor(minor), &[])
                }
                (_, content) => (builder, content),
            };
            let size = u32::try_from(content.len()).map_err(|_| Error::TooLarge {
                path: format!("/{path}"),
                bytes: content.len() as u64,
            })?;
            let mut writer = builder.write(&mut out, size);
            writer.write_all(content).map_err(failed)?;
            writer.finish().map_err(failed)?;
        }
        newc::trailer(&mut out).map_err(Error::io("write", "the initramfs"))?;
        out.flush().map_err(Error::io("write", "the initramfs"))
    }

    /// The archive in memory.
    ///
    /// # Errors
    /// As [`Initramfs::write`].
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.write(&mut out)?;
        Ok(out)
    }

    /// Writes the archive to a file, which is whole or not there.
    ///
    /// # Errors
    /// As [`Initramfs::write`].
    pub fn to_file(&self, path: &Path) -> Result<()> {
        cache::replace_file(path, |file| {
            self.write(BufWriter::with_capacity(1 << 20, file))
        })
    }

    /// Puts a node at a key from [`Initramfs::key`], in place of one of its kind only.
    fn put(&mut self, key: String, node: Node) -> Result<()> {
        match self.nodes.get(&key) {
            Some(old) if old.what() != node.what() => Err(Error::Occupied {
                path: key,
                is: old.what(),
                wanted: node.what(),
            }),
            _ => {
                self.nodes.insert(key, node);
                Ok(())
            }
        }
    }

    /// The key for a new node: where its path leads through symlinks that are there, with
    /// all folders on the way made.
    fn key(&mut self, path: &Path) -> Result<String> {
        let key = self.locate(path)?;
        let mut at = 0;
        while let Some(slash) = key[at..].find('/') {
            at += slash;
            match self.nodes.get(&key[..at]) {
                None => {
                    self.nodes
                        .insert(key[..at].to_owned(), Node::Directory { mode: 0o755 });
                }
                Some(Node::Directory { .. }) => {}
                Some(node) => {
                    let (path, is) = (key[..at].to_owned(), node.what());
                    return Err(Error::Occupied {
                        path,
                        is,
                        wanted: "a folder",
                    });
                }
            }
            at += 1;
        }
        Ok(key)
    }

    /// Where a path leads through the symlinks in the archive, the last part as it is.
    fn locate(&self, path: &Path) -> Result<String> {
        let mut todo: Vec<PathBuf> = parts_reversed(path);
        let mut key = String::new();
        let mut followed = 0;
        while let Some(part) = todo.pop() {
            if part == Path::new("..") {
                key.truncate(key.rfind('/').unwrap_or(0));
                continue;
            }
            let text = part
                .to_str()
                .ok_or_else(|| unwritable(path, "its name is not UTF-8"))?;
            let next = join(&key, text);
            match self.nodes.get(&next) {
                Some(Node::Symlink { target }) if !todo.is_empty() => {
                    followed += 1;
                    if followed > SYMLINKS {
                        return Err(unwritable(path, "its symlinks lead in a circle"));
                    }
                    if target.is_absolute() {
                        key.clear();
                    }
                    todo.extend(parts_reversed(target));
                }
                _ => key = next,
            }
        }
        if key.is_empty() {
            return Err(unwritable(path, "it names the root folder or nothing"));
        }
        Ok(key)
    }

    /// Where the symlink at `key` leads.
    fn follow(&self, key: &str) -> Result<PathBuf> {
        let mut path = PathBuf::from(format!("/{key}"));
        for _ in 0..SYMLINKS {
            match self.nodes.get(&self.locate(&path)?) {
                Some(Node::Symlink { target }) => {
                    path.pop();
                    path.push(target);
                }
                _ => return Ok(path),
            }
        }
        Err(unwritable(Path::new(key), "its symlinks lead in a circle"))
    }

    /// [`Initramfs::add_path`]; `seen` holds the folders entered, under their real paths.
    fn add_tree(&mut self, host: &Path, seen: &mut BTreeSet<PathBuf>) -> Result<usize> {
        let Some((real, inside)) = self.import(host)? else {
            return Ok(0);
        };
        let meta = fs::metadata(&real).map_err(Error::io("read", &real))?;
        if !meta.is_dir() {
            let node = host_file(&real)?;
            self.put(inside, node)?;
            return Ok(1);
        }
        if !seen.insert(real.clone()) {
            return Ok(0);
        }
        self.directory(&inside, 0o755)?;
        let entries = fs::read_dir(&real).map_err(Error::io("read", &real))?;
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(Error::io("read", &real))?;
        names.sort();
        let mut count = 0;
        for name in names {
            let path = real.join(name);
            // A symlink to nothing is copied as such; sockets and the like are left out.
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() || meta.is_file() => {
                    count += self.add_tree(&path, seen)?
                }
                Ok(_) => {}
                Err(_) => drop(self.import(&path)?),
            }
        }
        Ok(count)
    }

    /// Follows a path of this machine to its end and copies the symlinks on the way.
    /// Returns the path without symlinks, and the key for it in the archive; nothing if
    /// it ends in a symlink to nothing.
    fn import(&mut self, host: &Path) -> Result<Option<(PathBuf, String)>> {
        let mut todo = parts_reversed(host);
        // Two cursors: they part where the archive has a folder and the machine a symlink.
        let mut real = PathBuf::from("/");
        let mut inside = String::new();
        let mut followed = 0;
        while let Some(part) = todo.pop() {
            if part == Path::new("..") {
                real.pop();
                inside.truncate(inside.rfind('/').unwrap_or(0));
                continue;
            }
            let text = part
                .to_str()
                .ok_or_else(|| unwritable(host, "its name is not UTF-8"))?;
            let next = real.join(&part);
            let key = join(&inside, text);
            let Ok(meta) = fs::symlink_metadata(&next) else {
                if followed > 0 {
                    return Ok(None);
                }
                return Err(Error::io("read", host)(io::ErrorKind::NotFound.into()));
            };
            if !meta.is_symlink() {
                real = next;
                inside = key;
                continue;
            }
            followed += 1;
            if followed > SYMLINKS {
                return Err(unwritable(host, "its symlinks lead in a circle"));
            }
            if let Some(Node::Directory { .. }) = self.nodes.get(&key) {
                real = next.canonicalize().map_err(Error::io("open", &next))?;
                inside = key;
                continue;
            }
            let target = fs::read_link(&next).map_err(Error::io("read", &next))?;
            let key = self.key(Path::new(&key))?;
            if target.is_absolute() {
                real = PathBuf::from("/");
                inside.clear();
            }
            todo.extend(parts_reversed(&target));
            self.put(key, Node::Symlink { target })?;
        }
        let inside = if inside.is_empty() {
            inside
        } else {
            self.key(Path::new(&inside))?
        };
        Ok(Some((real, inside)))
    }
}

fn host_file(real: &Path) -> Result<Node> {
    use std::os::unix::fs::PermissionsExt;
    let meta = fs::metadata(real).map_err(Error::io("read", real))?;
    if !meta.is_file() {
        return Err(unwritable(real, "it is no regular file"));
    }
    let mode = meta.permissions().mode() & 0o777;
    Ok(Node::File {
        mode,
        content: Content::OfHost(real.into()),
    })
}

/// The parts of a path, last first; `.` and the root are left out.
fn parts_reversed(path: &Path) -> Vec<PathBuf> {
    let parts = path
        .components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::ParentDir => Some(PathBuf::from("..")),
            _ => None,
        });
    parts.collect()
}

fn join(key: &str, part: &str) -> String {
    if key.is_empty() {
        part.to_owned()
    } else {
        format!("{key}/{part}")
    }
}

fn unwritable(path: &Path, why: &str) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidInput, why);
    Error::Io {
        action: "put into the initramfs",
        path: path.into(),
        source,
    }
}
