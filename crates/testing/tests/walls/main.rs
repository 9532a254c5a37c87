//! The walls of this workspace, checked: which crate may know which, how long a file may be, where `unsafe`
//! may stand, that no files of a crate know each other in a circle, and what must not get into a lab.
//!
//! ARCHITECTURE.md says why the walls are where they are. Only the text of files is read, and what Cargo says.

mod arrows;
mod circles;
mod files;
mod inside;
mod modules;
mod pages;
mod tokens;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's folder.
fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).expect("crates/testing");
    root.to_owned()
}

/// What Cargo prints, asked in the workspace, without the network.
fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).arg("--offline");
    let output = command.current_dir(workspace()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// All `.rs` files below a folder, without what is built or hidden, in the order of their names.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy();
        if name == "target" || name.starts_with('.') || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A path as seen from the workspace.
fn shown(path: &Path) -> String {
    let seen = path.strip_prefix(workspace()).unwrap_or(path);
    seen.display().to_string()
}
