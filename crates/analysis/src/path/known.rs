//! Under which name a function is known in two paths.

use exitpath_recording::Space;

use super::model::Function;

/// Space, module and name.
pub(super) type Key = (Space, String, String);

/// What stands for a function in both.
pub(super) fn key(function: &Function) -> Key {
    let name = unqualified(&function.name);
    (function.space, function.module.clone(), name.to_owned())
}

/// The name under which a function is known in both: without what a compiler appends.
pub(super) fn unqualified(name: &str) -> &str {
    const APPENDED: [&str; 6] = [
        ".constprop.",
        ".isra.",
        ".part.",
        ".cold",
        ".lto_priv.",
        ".llvm.",
    ];
    if name.starts_with("0x") {
        // Addresses are another thing in another kernel.
        return "code without a name";
    }
    let ends = APPENDED.iter().filter_map(|suffix| name.find(suffix));
    let end = ends.filter(|&end| end > 0).min();
    &name[..end.unwrap_or(name.len())]
}
