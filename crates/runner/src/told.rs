//! What the image says over its serial port, as runs; [`exitpath_exits::bare`] describes it.

use std::collections::BTreeMap;

use exitpath_exits::Row;
use exitpath_recording::{Batch, Outcome, Run, Sample};

/// What an image has said so far.
#[derive(Debug, Clone, PartialEq)]
pub struct SoFar {
    /// The rows it has ended, in order.
    pub runs: Vec<Run>,
    /// The row it is in the midst of.
    pub midst: Option<&'static str>,
    /// Whether it said that this is all.
    pub whole: bool,
}

/// The runs of these rows, in this order and all of them.
///
/// # Errors
/// What is missing or wrong, in words.
pub fn runs(text: &str, rows: &[&'static Row]) -> Result<Vec<Run>, String> {
    let told = so_far(text, rows)?;
    match told.midst {
        Some(row) => Err(format!("it ended in the midst of {row}")),
        None if told.whole && told.runs.len() == rows.len() => Ok(told.runs),
        None => Err("it ended before all rows were measured".to_owned()),
    }
}

/// The runs of those of these rows that the text tells to their end. Whoever ended the VMM hands
/// over whole lines only.
///
/// # Errors
/// Where the image said nothing, or what it never should, in words.
pub fn so_far(text: &str, rows: &[&'static Row]) -> Result<SoFar, String> {
    let mut runs: Vec<Run> = Vec::new();
    let mut open = false;
    let mut whole = false;
    let mut due = 0;
    for line in text.lines().map(str::trim_end) {
        let Some(line) = line.strip_prefix("xp1 ") else {
            continue;
        };
        let words = checked(line, due).ok_or_else(|| {
            format!(
                "the image's line {due} is garbled, or not there (`{}`)",
                shown(line)
            )
        })?;
        due += 1;
        let strange = || format!("the image says what it never should: `{}`", shown(line));
        match words.as_slice() {
            ["boot", ..] => {}
            ["row", _, name]
                if !open && !whole && rows.get(runs.len()).is_some_and(|r| r.name == *name) =>
            {
                runs.push(begun(runs.len() as u32, name));
                open = true;
            }
            ["samples", pairs @ ..] if open => {
                let run = runs.last_mut().ok_or_else(strange)?;
                for pair in pairs {
                    let (sample, times) = samples(pair).ok_or_else(strange)?;
                    let times = times.min(1 << 16);
                    run.samples.extend(std::iter::repeat_n(sample, times));
                }
            }
            ["batch", figures @ ..] if open => {
                let figures: Option<Vec<u64>> = figures.iter().map(|f| f.parse().ok()).collect();
                let Some(&[n, empty_n, empty_2n, op_n, op_2n]) = figures.as_deref() else {
                    return Err(strange());
                };
                runs.last_mut().ok_or_else(strange)?.batches.push(Batch {
                    n,
                    empty_n,
                    empty_2n,
                    op_n,
                    op_2n,
                });
            }
            ["lacks", what @ ..] if open => {
                runs.last_mut().ok_or_else(strange)?.outcome = Outcome::Skipped {
                    reason: format!("the VMM gives the guest's CPU no {}", what.join(" ")),
                };
            }
            ["fault", figures @ ..] if open => {
                runs.last_mut().ok_or_else(strange)?.outcome = Outcome::Fault {
                    reason: format!(
                        "the guest took an exception (byte, vector plus 1, code, address, CR2, operations: {})",
                        figures.join(" ")
                    ),
                };
            }
            ["end", ..] if open => {
                open = false;
            }
            ["bye", _] if !open && !whole => whole = true,
            _ => return Err(strange()),
        }
    }
    if due == 0 {
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        return Err(match last {
            Some(last) => format!(
                "nothing it printed is the image's; the last is `{}`: has the VMM a serial port \
                 (COM1) on its standard output, and did it boot the image?",
                shown(last)
            ),
            None => "it printed nothing: has the VMM a serial port (COM1) on its standard output, \
                     and did it boot the image?"
                .to_owned(),
        });
    }
    let midst = if open { runs.pop() } else { None };
    let midst = midst.and_then(|_| rows.get(runs.len()).map(|row| row.name));
    Ok(SoFar { runs, midst, whole })
}

/// A line's words, if its number is the one due and its sum is right.
fn checked(line: &str, due: u64) -> Option<Vec<&str>> {
    let (said, sum) = line.rsplit_once(" #")?;
    let hash = format!("xp1 {said}")
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    if u32::from_str_radix(sum, 16).ok()? != hash {
        return None;
    }
    let (number, words) = said.split_once(' ')?;
    (number.parse() == Ok(due)).then(|| words.split(' ').collect())
}

/// `7,5491*199`.
fn samples(pair: &str) -> Option<(Sample, usize)> {
    let (pair, times) = pair.split_once('*').unwrap_or((pair, "1"));
    let (empty, op) = pair.split_once(',')?;
    let sample = Sample {
        empty: empty.parse().ok()?,
        op: op.parse().ok()?,
    };
    Some((sample, times.parse().ok()?))
}

/// A run of this row of which nothing is told yet.
pub fn begun(id: u32, row: &str) -> Run {
    Run {
        id,
        row: row.to_owned(),
        block: 0,
        seed: None,
        cpus: 1,
        outcome: Outcome::Done,
        notes: Vec::new(),
        ops: 0,
        userspace_exits: 0,
        counters: BTreeMap::new(),
        samples: Vec::new(),
        batches: Vec::new(),
    }
}

/// The beginning of a line, without what moves a terminal's cursor.
fn shown(line: &str) -> String {
    let plain = line.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "SeaBIOS\n\
        xp1 0 boot 1 1 AuthenticAMD #3c1bd83f\n\
        xp1 1 row 0 inl_from_qemu #c9e3b0e4\n\
        xp1 2 samples 7,5541 7,5491*199 #89afa44c\n\
        xp1 3 end 0 done #e4860904\n\
        xp1 4 bye 1 #44da2e6b\n";

    fn parsed(text: &str) -> Result<Vec<Run>, String> {
        runs(
            text,
            &[exitpath_exits::find("inl_from_qemu").expect("a row")],
        )
    }

    #[test]
    fn a_whole_text_becomes_runs() {
        let runs = parsed(SAID).expect("whole");
        assert_eq!(runs.len(), 1);
        // Nobody counted what they did.
        assert_eq!((runs[0].ops, runs[0].samples.len()), (0, 200));
        assert_eq!(runs[0].samples[0], Sample { empty: 7, op: 5541 });
        assert_eq!(runs[0].samples[199], Sample { empty: 7, op: 5491 });
    }

    #[test]
    fn what_is_cut_garbled_or_not_ours_is_refused_in_words() {
        let cut = &SAID[..SAID.find("xp1 3").expect("there")];
        assert!(
            parsed(cut)
                .unwrap_err()
                .contains("in the midst of inl_from_qemu")
        );
        let garbled = SAID.replace("5541", "5542");
        assert!(parsed(&garbled).unwrap_err().contains("line 2 is garbled"));
        let missing = SAID.replace("xp1 2", "zp1 2");
        assert!(parsed(&missing).unwrap_err().contains("line 2 is garbled"));
        assert!(parsed("hello\n").unwrap_err().contains("`hello`"));
        assert!(parsed("").unwrap_err().contains("printed nothing"));
        let other = runs(SAID, &[exitpath_exits::find("cpuid").expect("a row")]);
        assert!(other.unwrap_err().contains("never should"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_taken_in_words(text in "(xp1 [0-9]? ?(row|samples|batch|end|bye|fault)?.{0,20}\n|.{0,30}\n){0,8}") {
            // No sum is right by chance.
            proptest::prop_assert!(parsed(&text).is_err());
        }

        #[test]
        fn what_is_cut_is_never_taken_for_whole(at in 0..SAID.len() - 1) {
            proptest::prop_assert!(parsed(&SAID[..at]).is_err());
        }

        #[test]
        fn what_is_altered_gives_the_same_or_no_result(at in 0..SAID.len(), byte in 0u8..128) {
            let mut text = SAID.as_bytes().to_vec();
            text[at] = byte;
            let text = String::from_utf8(text).expect("ASCII");
            if let Ok(runs) = parsed(&text) {
                proptest::prop_assert_eq!(runs, parsed(SAID).expect("whole"));
            }
        }
    }
}
