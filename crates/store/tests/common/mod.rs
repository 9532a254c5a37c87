//! What the tests of recordings share: the names of files, recordings made by hand, and arbitrary ones.

#![allow(dead_code, reason = "each test uses its own part")]

pub(crate) mod arbitrary;
pub(crate) mod by_hand;

use std::fs;
use std::path::Path;

/// The files of a recording without a trace, the manifest last.
pub(crate) const FILES: [&str; 5] = [
    "runs.parquet",
    "counters.parquet",
    "samples.parquet",
    "batches.parquet",
    "manifest.json",
];

/// The files of a recording with a trace, the manifest last.
pub(crate) const TRACED_FILES: [&str; 11] = [
    "runs.parquet",
    "counters.parquet",
    "samples.parquet",
    "batches.parquet",
    "instructions.parquet",
    "paths.parquet",
    "windows.parquet",
    "symbols.parquet",
    "locations.parquet",
    "exits.parquet",
    "manifest.json",
];

/// The names in a folder, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
