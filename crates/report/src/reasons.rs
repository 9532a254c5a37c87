//! Exit reasons in words.

use exitpath_exits::reasons;
use exitpath_recording::fact::EXITS_UNREAD;
use exitpath_recording::{Exit, Manifest};

use crate::format::{plain, thousands};

/// Exits, or groups of equal ones, that are named; the rest are counted.
const NAMED: usize = 16;

/// An exit's reason as the kernel's tracepoints name it; its code where they have no name.
pub(crate) fn word(exit: &Exit) -> String {
    reasons::of_svm(exit.code).map_or_else(
        || format!("{:#x}", exit.code),
        |reason| reason.word.to_owned(),
    )
}

/// The words of these, in order; `detail` adds what the CPU says beside the code.
pub(crate) fn list(exits: &[Exit], detail: bool) -> String {
    let mut groups: Vec<(String, usize)> = Vec::new();
    for exit in exits {
        let mut text = word(exit);
        if detail && let Some(detail) = reasons::detail(exit.code, exit.info1, exit.info2) {
            text = format!("{text} ({detail})");
        }
        match groups.last_mut() {
            Some((last, times)) if *last == text => *times += 1,
            _ => groups.push((text, 1)),
        }
    }
    let more = groups.get(NAMED..).unwrap_or_default();
    let more: usize = more.iter().map(|(_, times)| times).sum();
    let named = groups.into_iter().take(NAMED);
    let mut named: Vec<String> = named
        .map(|(text, times)| match times {
            1 => text,
            2 => format!("{text}, {text}"),
            _ => format!("{text} × {}", thousands(times as u64)),
        })
        .collect();
    if more > 0 {
        named.push(format!("… and {} more", thousands(more as u64)));
    }
    named.join(", ")
}

/// The line about the exits of a round: their reasons, or why those are not known. `None` where the
/// recording says neither.
pub(crate) fn line(manifest: &Manifest, exits: Option<&[Exit]>) -> Option<String> {
    match exits {
        Some([]) => None,
        Some(exits) => Some(format!("exits: {}", list(exits, true))),
        None => unread(manifest).map(|why| format!("exits: their reasons are not known: {why}")),
    }
}

/// Why the reasons are not known, if the recording says so.
pub(crate) fn unread(manifest: &Manifest) -> Option<String> {
    let why = manifest.environment.facts.get(EXITS_UNREAD)?;
    why.as_str().map(plain)
}

/// Whether these are other reasons, whatever the CPU says beside the code.
pub(crate) fn differ(some: &[Exit], others: &[Exit]) -> bool {
    !some
        .iter()
        .map(|exit| exit.code)
        .eq(others.iter().map(|exit| exit.code))
}
