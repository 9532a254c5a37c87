//! How often the way of an exit executes a primitive: unit cost times this is the beginning of an estimate of where time goes.

use exitpath_recording::Space;

use crate::path::RowPath;

/// How many instructions of the kernel in a round begin, as text, like one of these, and like none of those.
pub fn uses(path: &RowPath, texts: &[&str], but: &[&str]) -> u64 {
    let begins = |text: &str, with: &[&str]| with.iter().any(|with| text.starts_with(with));
    let kernel = path
        .instructions
        .iter()
        .filter(|it| it.space == Space::Kernel);
    let counted = kernel.filter(|it| begins(&it.text, texts) && !begins(&it.text, but));
    counted.map(|it| it.times.all).sum()
}
