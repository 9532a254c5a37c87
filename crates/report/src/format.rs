//! What all texts have in common: numbers, words, the machine's description.

use exitpath_recording::{Machine, Manifest, Space, fact};

/// Without line breaks and what else moves a terminal's cursor: a recording may come from anybody.
pub(crate) fn plain(text: &str) -> String {
    let blank = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(blank).collect()
}

/// [`plain`], with the middle of a long text left out.
pub(crate) fn short(text: &str, width: usize) -> String {
    let characters: Vec<char> = plain(text).chars().collect();
    if characters.len() <= width {
        return characters.into_iter().collect();
    }
    let kept = width.saturating_sub(1);
    // A name's end tells more than its beginning, which is often a path of modules.
    let (head, tail) = (kept / 3, kept - kept / 3);
    let head = characters.iter().take(head);
    let tail = characters.iter().skip(characters.len() - tail);
    head.chain(std::iter::once(&'…')).chain(tail).collect()
}

/// What stands where there is no figure.
pub(crate) fn none() -> String {
    "–".to_owned()
}

/// A whole number with separators.
pub(crate) fn count(value: f64) -> String {
    let rounded = value.round() as i64;
    let sign = if rounded < 0 { "-" } else { "" };
    format!("{sign}{}", thousands(rounded.unsigned_abs()))
}

/// A number with separators.
pub(crate) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with separators and, where it is negative, a minus sign.
pub(crate) fn signed(value: i64) -> String {
    let sign = if value < 0 { "−" } else { "" };
    format!("{sign}{}", thousands(value.unsigned_abs()))
}

/// A difference with separators and its sign.
pub(crate) fn change(delta: i64) -> String {
    let plus = if delta > 0 { "+" } else { "" };
    format!("{plus}{}", signed(delta))
}

/// Something counted, in the singular or in the plural.
pub(crate) fn of(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        thousands(number),
        if number == 1 { one } else { many }
    )
}

/// The word for a space.
pub(crate) fn space(space: Space) -> &'static str {
    match space {
        Space::Guest => "guest",
        Space::User => "user space",
        Space::Kernel => "kernel",
    }
}

/// The machine.
pub(crate) fn machine(manifest: &Manifest, cpus: u32, seeds: &[u64]) -> String {
    let environment = &manifest.environment;
    let cpu = plain(&environment.cpu);
    let cpus = of(cpus.into(), "CPU", "CPUs");
    match manifest.machine {
        Machine::Host => {
            let khz = environment.tsc_khz.map_or_else(
                || "unknown".to_owned(),
                |khz| format!("{} kHz", thousands(khz)),
            );
            format!("host: {cpu}, {cpus}, TSC {khz}")
        }
        Machine::Lab => {
            let qemu = environment.qemu.as_deref().map_or_else(none, plain);
            let word = if seeds.len() == 1 { "seed" } else { "seeds" };
            let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
            let seeds = seeds.join(" ");
            format!(
                "lab: QEMU {qemu}, -cpu {cpu}{}, {cpus}, {word} {seeds}",
                svm(manifest)
            )
        }
    }
}

/// What of the lab's CPU is not as QEMU emulates it; of recordings from before there was a choice, nothing.
pub(crate) fn svm(manifest: &Manifest) -> String {
    let environment = &manifest.environment;
    if !environment.facts.contains_key(fact::CPU_SUPPLIED) {
        return String::new();
    }
    match environment.has_cpu_supplied() {
        true => {
            let names: Vec<String> = environment.cpu_supplied().into_iter().map(plain).collect();
            format!(" with {}", names.join(" "))
        }
        false => " with bare SVM".to_owned(),
    }
}

/// The kernel, which is what is looked at, with what differs in it under the only condition.
pub(crate) fn subject(manifest: &Manifest) -> String {
    let environment = &manifest.environment;
    let [kernel, cmdline] = [&environment.kernel, &environment.cmdline].map(|text| plain(text));
    let done: String = manifest
        .done_to_the_kernel()
        .iter()
        .map(|done| format!(", {}", plain(done)))
        .collect();
    format!("Linux {kernel}{done}, command line: {cmdline}")
}

/// Text as it may stand in XML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
