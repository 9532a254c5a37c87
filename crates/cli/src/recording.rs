//! How a recording is named: its folder, or `DIR@CONDITION`, what was measured under one of its conditions.

use std::path::Path;

/// Folder and condition, where the name has both. What is there under the name as a whole is a folder's.
pub fn split(name: &Path) -> Option<(&str, &str)> {
    let text = name.to_str().filter(|_| !name.exists())?;
    text.rsplit_once('@')
}

/// Whether a name is that of a recording's folder, with or without a condition.
pub fn is_one(name: &Path) -> bool {
    name.is_dir() || split(name).is_some_and(|(dir, _)| Path::new(dir).is_dir())
}
