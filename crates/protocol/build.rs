//! Hashes what the program inside a lab is made of: sources, versions of dependencies, how they are compiled.

use std::fs;
use std::path::{Path, PathBuf};

/// The crates that the program inside is made of.
const CRATES: [&str; 9] = [
    "exits",
    "host",
    "inside",
    "lab-plugin",
    "lab-start",
    "protocol",
    "recording",
    "runner",
    "vmm",
];

/// What says how they are compiled, beside what Cargo says in these variables.
const SETTINGS: [&str; 3] = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"];
const VARIABLES: [&str; 3] = ["PROFILE", "TARGET", "CARGO_ENCODED_RUSTFLAGS"];

fn main() {
    let mut hash = Fnv::default();
    for name in SETTINGS {
        let file = Path::new("../..").join(name);
        println!("cargo::rerun-if-changed={}", file.display());
        hash.add(&fs::read(&file).expect("the workspace has its settings"));
    }
    for name in VARIABLES {
        let value = std::env::var_os(name).unwrap_or_default();
        hash.add(value.as_encoded_bytes());
        hash.add(b"\n");
    }
    for name in CRATES {
        let sources = Path::new("..").join(name).join("src");
        println!("cargo::rerun-if-changed={}", sources.display());
        let mut files = Vec::new();
        list(&sources, &mut files);
        files.sort();
        for file in files {
            hash.add(file.to_string_lossy().as_bytes());
            hash.add(&fs::read(&file).expect("a source that was just listed"));
        }
    }
    println!("cargo::rustc-env=EXITPATH_SOURCES={:016x}", hash.0);
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// FNV-1a, 64 bits: accidents are to be noticed, not forgers.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
