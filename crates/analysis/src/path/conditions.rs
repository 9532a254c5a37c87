//! Whether two traces were made under two conditions, or under one that was asked for in two ways.

use exitpath_recording::{Manifest, fact};

/// What a kernel says of itself that a command line can change, among a recording's facts, with its
/// name for a reader.
const TOLD: [(&str, &str); 4] = [
    (fact::VULNERABILITIES, "vulnerabilities"),
    (fact::MODULES, "modules' parameters"),
    (fact::KERNEL_PREEMPTION, "preemption"),
    (fact::CPU_BUGS, "the CPU's bugs"),
];

/// What a reader of a comparison has to know of its two sides: what either was warned of, and that
/// two command lines came to the same as far as the kernel tells.
pub fn warnings(a: &Manifest, b: &Manifest) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    for warning in &a.warnings {
        let both = b.warnings.contains(warning);
        let which = if both { "a and b" } else { "a" };
        warnings.push(format!("{which}: {warning}"));
    }
    let of_b = b.warnings.iter();
    let of_b = of_b.filter(|warning| !a.warnings.contains(warning));
    warnings.extend(of_b.map(|warning| format!("b: {warning}")));
    warnings.extend(one_condition(a, b));
    warnings
}

/// That two command lines made the same of one kernel, if it tells no difference.
fn one_condition(a: &Manifest, b: &Manifest) -> Option<String> {
    let (a, b) = (&a.environment, &b.environment);
    if a.kernel != b.kernel || a.cmdline == b.cmdline {
        return None;
    }
    let known = TOLD.iter().filter(|(fact, _)| a.facts.contains_key(*fact));
    let told: Vec<&str> = known.clone().map(|(_, name)| *name).collect();
    let same = known
        .clone()
        .all(|(fact, _)| a.facts.get(*fact) == b.facts.get(*fact));
    (same && !told.is_empty()).then(|| {
        format!(
            "nothing that the kernel says of itself shows that the two command lines make two \
             conditions: it says the same of {}",
            told.join(", ")
        )
    })
}
