//! Unpacks Debian packages into a folder, without installing them.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};

/// What a package says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The package's name: `linux-image-6.1.0-56-amd64`.
    pub package: String,
    /// The package's version: `6.1.192-2`.
    pub version: String,
    /// What it needs, in Debian's notation.
    pub depends: String,
}

/// Reads a package's name and version.
///
/// # Errors
/// [`Error::Damaged`] if it is no whole package, [`Error::MissingTool`] without dpkg-deb.
pub fn control(deb: &Path) -> Result<Control> {
    let output = dpkg_deb(
        &[
            "--showformat=${Package}\\n${Version}\\n${Depends}\\n",
            "--show",
        ],
        deb,
    )
    .output()
    .map_err(cannot_run)?;
    if !output.status.success() {
        return Err(damaged(deb, &output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    Ok(Control {
        package: next(),
        version: next(),
        depends: next(),
    })
}

/// Unpacks some of a package's files into `dir` and returns how many.
///
/// `place` is asked for each path in the package, such as `usr/bin/true`, and answers
/// where below `dir` it belongs, or nothing to leave it out. Modes are kept but for
/// set-user-ID and the like; owners and times are not. Devices are left out.
///
/// # Errors
/// [`Error::Damaged`] if it is no whole package, [`Error::MissingTool`] without
/// dpkg-deb, [`Error::Io`] if `dir` cannot be written.
pub fn unpack(
    deb: &Path,
    dir: &Path,
    mut place: impl FnMut(&Path) -> Option<PathBuf>,
) -> Result<usize> {
    fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let dir = dir.canonicalize().map_err(Error::io("open", dir))?;
    let mut child = dpkg_deb(&["--fsys-tarfile"], deb)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_run)?;
    let Some(mut stdout) = child.stdout.take() else {
        return Err(damaged(deb, b"dpkg-deb gave no output"));
    };
    let unpacked = unpack_tar(&mut stdout, deb, &dir, &mut place);
    // To the end even after an error, so that dpkg-deb's verdict is about the package and
    // not about a closed pipe.
    let _ = io::copy(&mut stdout, &mut io::sink());
    drop(stdout);
    match (unpacked, wait(child)?) {
        (Err(e @ Error::Io { .. }), _) => Err(e),
        (_, Some(complaint)) => Err(damaged(deb, complaint.as_bytes())),
        (unpacked, None) => unpacked,
    }
}

/// The files whose path `place` accepts, from a tar archive to `dir` (which is canonical).
fn unpack_tar(
    tar: &mut dyn Read,
    deb: &Path,
    dir: &Path,
    place: &mut dyn FnMut(&Path) -> Option<PathBuf>,
) -> Result<usize> {
    let broken = |e: io::Error| damaged(deb, e.to_string().as_bytes());
    let mut count = 0;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = normal(&entry.path().map_err(broken)?);
        let Some(target) = path
            .and_then(|path| place(&path))
            .and_then(|path| normal(&path))
        else {
            continue;
        };
        let target = dir.join(target);
        let parent = target.parent().unwrap_or(dir);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(Error::io("create", &target))?;
            continue;
        }
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        // A symlink that came earlier must not lead out of the folder.
        let inside = parent
            .canonicalize()
            .is_ok_and(|parent| parent.starts_with(dir));
        if !inside {
            return Err(damaged(deb, b"it wants to write outside of its folder"));
        }
        if kind.is_file() {
            let _ = fs::remove_file(&target);
            let mut file = fs::File::create(&target).map_err(Error::io("create", &target))?;
            let size = entry.size();
            let copied = io::copy(&mut entry, &mut file);
            match copied {
                Ok(n) if n == size => {}
                Ok(_) => return Err(damaged(deb, b"it ends within a file")),
                // Only the file has error numbers; what is wrong with the archive has none.
                Err(e) if e.raw_os_error().is_some() => {
                    return Err(Error::io("write", &target)(e));
                }
                Err(e) => return Err(broken(e)),
            }
            set_mode(&target, entry.header().mode().unwrap_or(0o644))?;
        } else if kind.is_symlink() {
            let Some(link) = entry.link_name().map_err(broken)? else {
                continue;
            };
            let _ = fs::remove_file(&target);
            symlink(&link, &target).map_err(Error::io("create", &target))?;
        } else if kind.is_hard_link() {
            let link = entry.link_name().map_err(broken)?;
            let Some(link) = link.and_then(|l| normal(&l)).and_then(|l| place(&l)) else {
                continue;
            };
            let link = dir.join(normal(&link).unwrap_or_default());
            fs::copy(&link, &target).map_err(Error::io("copy", &link))?;
        } else {
            continue;
        }
        count += 1;
    }
    Ok(count)
}

/// A path without `.` and a leading `/`; nothing if it climbs with `..` or names nothing.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (out != Path::new("")).then_some(out)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // The owner may always read and write: this is a cache.
    let permissions = fs::Permissions::from_mode(mode & 0o777 | 0o600);
    fs::set_permissions(path, permissions).map_err(Error::io("set the mode of", path))
}

fn dpkg_deb(options: &[&str], deb: &Path) -> Command {
    let mut command = Command::new("dpkg-deb");
    command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .args(options)
        .arg(operand(deb));
    command
}

/// A path that cannot be mistaken for an option.
fn operand(path: &Path) -> PathBuf {
    if path.as_os_str().as_encoded_bytes().starts_with(b"-") {
        Path::new(OsStr::new(".")).join(path)
    } else {
        path.to_owned()
    }
}

/// Waits for dpkg-deb's end; what it complained of, if it failed.
fn wait(child: Child) -> Result<Option<String>> {
    let output = child.wait_with_output().map_err(cannot_run)?;
    Ok((!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn cannot_run(e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound => Error::MissingTool {
            tool: "dpkg-deb",
            advice: "install dpkg, or unpack the package yourself and name its boot/vmlinuz-*",
        },
        _ => Error::io("run", "dpkg-deb")(e),
    }
}

fn damaged(deb: &Path, said: &[u8]) -> Error {
    let said = String::from_utf8_lossy(said);
    // dpkg-deb repeats the file's name; its first complaint is the cause of the others.
    let first = said
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it does not unpack");
    let first = first
        .trim()
        .trim_start_matches("dpkg-deb: ")
        .trim_start_matches("error: ");
    Error::Damaged {
        path: deb.into(),
        why: first.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_do_not_climb() {
        assert_eq!(normal(Path::new("./usr/./bin")), Some("usr/bin".into()));
        assert_eq!(normal(Path::new("/etc")), Some("etc".into()));
        assert_eq!(normal(Path::new("./a/../../b")), None);
        assert_eq!(normal(Path::new("./")), None);
    }

    #[test]
    fn a_symlink_does_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in").canonicalize().unwrap_or_else(|_| {
            fs::create_dir(dir.path().join("in")).unwrap();
            dir.path().join("in").canonicalize().unwrap()
        });
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "out", "..").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "out/evil", &b"evil"[..])
            .unwrap();
        let tar = builder.into_inner().unwrap();

        let mut place = |path: &Path| Some(path.to_owned());
        let result = unpack_tar(&mut &tar[..], Path::new("x.deb"), &inside, &mut place);
        assert!(matches!(result, Err(Error::Damaged { .. })), "{result:?}");
        assert!(!dir.path().join("evil").exists());
    }
}
