//! How often the way of an exit executes a primitive: unit cost times this is the beginning of an estimate of where time goes.

use exitpath_recording::Space;

use crate::path::RowPath;

/// How many instructions of the kernel in a round have a form that begins like one of these.
pub fn uses(path: &RowPath, forms: &[&str]) -> u64 {
    let kernel = path
        .instructions
        .iter()
        .filter(|it| it.space == Space::Kernel);
    let of_form = kernel.filter(|it| forms.iter().any(|form| it.form.starts_with(form)));
    of_form.map(|it| it.times.all).sum()
}
