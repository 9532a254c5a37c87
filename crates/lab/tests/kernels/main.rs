//! Kernels and the initramfs, over kernels, modules, packages and an archive made for the
//! purpose. With a real kernel in the cache (or leave to fetch one), over that as well.

mod archive;
mod bzimage;
mod forge;
mod initramfs;
mod modules;
mod packages;
mod real;

use std::path::Path;

use exitpath_testing::{Need, skipped};

/// Whether the files are at hand; says which is not.
fn have(paths: &[&str]) -> bool {
    let missing = paths.iter().find(|path| !Path::new(path).exists());
    if let Some(path) = missing {
        skipped(Need::Tools, format!("{path} is not installed"));
    }
    missing.is_none()
}
