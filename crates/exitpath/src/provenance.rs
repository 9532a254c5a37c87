//! When and by which program something was recorded.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Version and build, for the manifest: the VMM is part of what is measured, so the very program
/// is named.
pub(crate) fn version() -> String {
    let program = std::env::current_exe().ok();
    let build = program.and_then(|path| exitpath_lab::bzimage::file_sha256(&path).ok());
    match build {
        Some(sum) => format!("exitpath {} (sha256 {sum})", env!("CARGO_PKG_VERSION")),
        None => format!("exitpath {}", env!("CARGO_PKG_VERSION")),
    }
}
