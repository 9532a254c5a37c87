//! Recordings that are not as they were written: an error, never a panic, never other data.

mod bytes;
#[path = "../common/mod.rs"]
mod common;
mod tables;
mod versions;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::TRACED_FILES;
use common::by_hand::traced;
use exitpath_store::{Error, read, write};
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};

/// A folder with the traced recording in it.
fn written() -> (TempDir, PathBuf) {
    // Copied, because every `write` waits for the disk.
    static BYTES: LazyLock<[Vec<u8>; TRACED_FILES.len()]> = LazyLock::new(|| {
        let folder = tempdir().unwrap();
        let dir = folder.path().join("recording");
        write(&dir, &traced()).unwrap();
        TRACED_FILES.map(|name| fs::read(dir.join(name)).unwrap())
    });
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    fs::create_dir(&dir).unwrap();
    for (name, bytes) in TRACED_FILES.iter().zip(&*BYTES) {
        fs::write(dir.join(name), bytes).unwrap();
    }
    (folder, dir)
}

/// What `read` says, seen to be one line that names the folder.
fn error(dir: &Path) -> Error {
    let error = read(dir).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text:?}");
    assert!(text.contains(dir.to_str().unwrap()), "{text:?}");
    assert!(text.contains("; "), "no word on what to do: {text:?}");
    error
}

/// Replaces text in the manifest, leaving its checksums as they were.
fn edit_manifest(dir: &Path, from: &str, to: &str) {
    let path = dir.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "no {from} in {text}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

/// Changes `manifest.json` and its checksums with it, as a newer exitpath would have written it, or one who
/// wants to harm.
fn rewrite_manifest(dir: &Path, from: &str, to: &str) {
    edit_manifest(dir, from, to);
    let path = dir.join("manifest.json");
    let mut text = fs::read_to_string(&path).unwrap();
    for (key, end) in [("groups", "\n  ]"), ("manifest", "\n  }")] {
        let begin = format!("\n  \"{key}\": ");
        let begin = text.find(&begin).unwrap() + begin.len();
        let end = begin + text[begin..].find(end).unwrap() + end.len();
        let sha256 = format!("{:x}", Sha256::digest(&text.as_bytes()[begin..end]));
        let sum = format!("\"{key}_sha256\": \"");
        let at = text.find(&sum).unwrap() + sum.len();
        text.replace_range(at..at + sha256.len(), &sha256);
    }
    fs::write(&path, text).unwrap();
}

/// Puts other bytes in the place of a table and makes the manifest agree with them, as one would
/// who wants to harm.
fn forge(dir: &Path, name: &str, bytes: &[u8]) {
    let manifest = fs::read(dir.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let groups = manifest["groups"].as_array().unwrap().iter();
    let mut tables = groups.flat_map(|group| group["tables"].as_array().unwrap());
    let entry = tables.find(|entry| entry["name"] == name).unwrap();
    let (old_bytes, old_sha256) = (&entry["bytes"], &entry["sha256"]);
    let sha256 = format!("{:x}", Sha256::digest(bytes));
    rewrite_manifest(
        dir,
        &format!("\"bytes\": {old_bytes},\n          \"sha256\": {old_sha256}"),
        &format!(
            "\"bytes\": {},\n          \"sha256\": \"{sha256}\"",
            bytes.len()
        ),
    );
    fs::write(dir.join(name), bytes).unwrap();
}
