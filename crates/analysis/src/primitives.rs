//! How often the way of an exit executes a primitive: unit cost times this is the beginning of an estimate of where time goes.

use exitpath_recording::Space;

use crate::path::{Entered, Executed, Node, RowPath};

/// How a call by an address begins, as text.
const DIRECT: &str = "call 0x";
/// Bytes of such a call.
const CALL_LENGTH: u64 = 5;

/// How many instructions of the kernel in a round begin, as text, like one of these, and like none of those.
pub fn instructions(path: &RowPath, texts: &[&str], but: &[&str]) -> u64 {
    let begins = |text: &str, with: &[&str]| with.iter().any(|with| text.starts_with(with));
    let kernel = path
        .instructions
        .iter()
        .filter(|it| it.space == Space::Kernel);
    let counted = kernel.filter(|it| begins(&it.text, texts) && !begins(&it.text, but));
    counted.map(|it| it.times.all).sum()
}

/// How often the kernel calls functions whose names begin so, or jumps to them for its last act, in a round.
pub fn calls(path: &RowPath, begins: &str) -> u64 {
    entered(path, begins, |how| {
        matches!(how, Entered::Call | Entered::TailCall)
    })
}

/// How often the kernel calls a function by its address, but for those whose names begin so, in a round.
pub fn direct_calls_but(path: &RowPath, begins: &str) -> u64 {
    // A call over the next byte calls nothing: it fills the return stack buffer.
    let over_a_byte = |it: &Executed| {
        let target = it.text.strip_prefix(DIRECT);
        let target = target.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        target == Some(it.address + CALL_LENGTH + 1)
    };
    let kernel = path.instructions.iter();
    let direct = kernel.filter(|it| it.space == Space::Kernel && it.text.starts_with(DIRECT));
    let direct = direct.filter(|it| !over_a_byte(it)).map(|it| it.times.all);
    direct
        .sum::<u64>()
        .saturating_sub(entered(path, begins, |how| how == Entered::Call))
}

fn entered(path: &RowPath, begins: &str, how: impl Fn(Entered) -> bool) -> u64 {
    let wanted = |node: &&Node| {
        node.space == Space::Kernel && node.name.starts_with(begins) && how(node.entered)
    };
    path.tree.iter().filter(wanted).map(|node| node.calls).sum()
}
