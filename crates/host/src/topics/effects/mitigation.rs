//! The state of a vulnerability against the option that should have set it.

use std::collections::BTreeMap;

use crate::reading::cmdline::{Word, normal, words};
use crate::topics::arch::x86_64::mitigations::works;
use crate::topics::arch::x86_64::setters::{SETTERS, SWITCHES};

/// The folder with a file for each vulnerability of the CPU.
pub(crate) const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";

/// A mitigation that is not as an option asks for, by what the vulnerability's file says.
pub(super) fn mitigation(
    word: &Word,
    vulnerabilities: &BTreeMap<String, String>,
) -> Option<String> {
    let name = normal(&word.name);
    let switch = SWITCHES.iter().find(|(switch, _)| *switch == name);
    let (option, value) = match (switch, &word.value) {
        (Some((_, option)), None) => (*option, "off"),
        (_, Some(value)) => (name.as_str(), value.as_str()),
        _ => return None,
    };
    let setter = SETTERS.iter().find(|setter| setter.option == option)?;
    let state = vulnerabilities.get(setter.file);
    if !setter.all.is_empty() && !setter.all.contains(&value) {
        let all = setter.all.join(", ");
        let now = state.map_or_else(String::new, |state| format!("; the kernel says '{state}'"));
        return Some(format!(
            "{word}: '{value}' is no value of {option} that the kernel's documentation has ({all}){now}"
        ));
    }
    // A kernel without the file may have the option all the same.
    let state = state?;
    let expected = setter.on.iter().find(|(on, _)| *on == value);
    if value != "off" && expected.is_none() {
        return None;
    }
    if state.starts_with("Not affected") {
        return Some(format!(
            "{word} had no effect: the kernel says '{state}' of {} on this CPU",
            setter.file
        ));
    }
    let lower = state.to_lowercase();
    let as_asked = match expected {
        // The half of it that has no switch works all the same.
        None if option == "l1tf" && !lower.contains("vmx:") => return None,
        None if option == "l1tf" => lower.contains("vmx: vulnerable"),
        None => !works(state),
        Some((_, pieces)) => works(state) && pieces.split('|').any(|piece| lower.contains(piece)),
    };
    (!as_asked).then(|| {
        format!(
            "{word} did not come about: the kernel says '{state}' of {}",
            setter.file
        )
    })
}

/// The same of a parameter as it is written.
pub(crate) fn of_mitigation(
    parameter: &str,
    vulnerabilities: &BTreeMap<String, String>,
) -> Option<String> {
    let words = words(parameter);
    words
        .first()
        .and_then(|word| mitigation(word, vulnerabilities))
}
