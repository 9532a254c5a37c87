//! What the image says over its serial port, as runs; [`exitpath_exits::bare`] describes it.

use std::collections::BTreeMap;

use exitpath_exits::Row;
use exitpath_exits::layout::port;
use exitpath_recording::{Batch, Outcome, Run, Sample};

use crate::error::{Error, Result};
use crate::exception::Exception;

/// How far from the end the image's last line is looked for, in lines.
const LAST_LINES: usize = 8;

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

/// The runs of those of these rows that the text tells to their end. A VMM that was ended may have
/// been in the midst of a line, which is left out.
///
/// # Errors
/// Where the image said nothing, or what it never should.
pub fn so_far(text: &str, rows: &[&'static Row]) -> Result<SoFar> {
    let whole_lines = text.rfind('\n').map_or(0, |at| at + 1);
    lines(&text[..whole_lines], rows)
}

fn lines(text: &str, rows: &[&'static Row]) -> Result<SoFar> {
    let mut runs: Vec<Run> = Vec::new();
    let mut open = false;
    let mut whole = false;
    let mut due = 0;
    let mut vmmcall = false;
    for line in text.lines().map(str::trim_end) {
        let Some(line) = line.strip_prefix("xp1 ") else {
            continue;
        };
        if whole {
            // A VMM that boots it again has measured all the same.
            break;
        }
        let words = checked(line, due).ok_or_else(|| Error::Garbled {
            line: due,
            shown: shown(line),
        })?;
        due += 1;
        let strange = || Error::Strange { shown: shown(line) };
        match words.as_slice() {
            ["boot", _, _, vendor @ ..] => vmmcall = is_amd(&vendor.join(" ")),
            ["row", _, name] if !open && rows.get(runs.len()).is_some_and(|r| r.name == *name) => {
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
                let figures: Option<Vec<u64>> = figures.iter().map(|f| f.parse().ok()).collect();
                let Some(&[byte, vector, code, rip, cr2, progress]) = figures.as_deref() else {
                    return Err(strange());
                };
                let row = rows.get(runs.len() - 1).ok_or_else(strange)?;
                let exception = Exception {
                    vector: vector.wrapping_sub(1),
                    code,
                    rip,
                    cr2,
                    progress,
                };
                runs.last_mut().ok_or_else(strange)?.outcome = if byte == u64::from(port::FAULT) {
                    exception.outcome(&row.program(vmmcall))
                } else {
                    Outcome::Fault {
                        reason: format!("the guest wrote {byte} to the control port"),
                    }
                };
            }
            ["broken", figures @ ..] => {
                return Err(Error::DriverBroken {
                    figures: figures.join(" "),
                });
            }
            ["end", ..] if open => {
                open = false;
            }
            ["bye", _] if !open => whole = true,
            _ => return Err(strange()),
        }
    }
    if due == 0 {
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        return Err(match last {
            Some(last) => Error::NotTheImages { last: shown(last) },
            None => Error::PrintedNothing,
        });
    }
    let midst = if open { runs.pop() } else { None };
    let midst = midst.and_then(|_| rows.get(runs.len()).map(|row| row.name));
    Ok(SoFar { runs, midst, whole })
}

/// Whether the image has said all: nothing that is printed from now on is of use.
pub fn is_whole(text: &str) -> bool {
    let mut last = text.lines().rev().take(LAST_LINES);
    last.any(|line| line.starts_with("xp1 ") && line.contains(" bye "))
}

/// Whether the driver took a CPU of this vendor for one with VMMCALL, as `row.s` does.
fn is_amd(vendor: &str) -> bool {
    ["AuthenticAMD", "HygonGenuine"].contains(&vendor)
}

/// A line's words, if its number is the one due and its sum is right.
fn checked(line: &str, due: u64) -> Option<Vec<&str>> {
    let (said, sum) = line.rsplit_once(" #")?;
    if u32::from_str_radix(sum, 16).ok()? != hash(&format!("xp1 {said}")) {
        return None;
    }
    let (number, words) = said.split_once(' ')?;
    (number.parse() == Ok(due)).then(|| words.split(' ').collect())
}

/// FNV-1a, 32 bits.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
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

/// A run of this row that did not come to its end.
pub fn hung(id: u32, row: &str, reason: String) -> Run {
    Run {
        outcome: Outcome::Hung { reason },
        ..begun(id, row)
    }
}

/// A run of this row of which nothing is told yet.
fn begun(id: u32, row: &str) -> Run {
    Run {
        id,
        row: row.to_owned(),
        condition: exitpath_recording::Condition::BASE.to_owned(),
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

    fn of(text: &str, row: &str) -> Result<SoFar, String> {
        let rows = [exitpath_exits::find(row).expect("a row")];
        so_far(text, &rows).map_err(|why| why.to_string())
    }

    /// The runs, where the text is whole.
    fn parsed(text: &str) -> Result<Vec<Run>, String> {
        let told = of(text, "inl_from_qemu")?;
        match told.midst {
            Some(row) => Err(format!("in the midst of {row}")),
            None if told.whole => Ok(told.runs),
            None => Err("not whole".to_owned()),
        }
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
    fn what_comes_after_the_end_is_not_looked_at() {
        assert_eq!(parsed(&SAID.repeat(2)), parsed(SAID), "booted again");
        let garbage = format!("{SAID}xp1 5 row\n");
        assert_eq!(parsed(&garbage), parsed(SAID));
        assert!(is_whole(SAID) && !is_whole(&SAID[..SAID.find("xp1 4").expect("there")]));
    }

    /// Lines as the image says them, with their sums.
    fn signed(lines: impl IntoIterator<Item = String>) -> String {
        let lines = lines.into_iter();
        lines
            .map(|line| format!("{line} #{:08x}\n", hash(&line)))
            .collect()
    }

    fn with_fault(vector: u64, rip: u64, progress: u64) -> Outcome {
        let lines = [
            "xp1 0 boot 0 1 AuthenticAMD".to_owned(),
            "xp1 1 row 0 inl_from_qemu".to_owned(),
            format!("xp1 2 fault 2 {} 0 {rip} 0 {progress}", vector + 1),
            "xp1 3 end 0 fault".to_owned(),
            "xp1 4 bye 1".to_owned(),
        ];
        parsed(&signed(lines)).expect("whole")[0].outcome.clone()
    }

    #[test]
    fn an_exception_is_a_refusal_or_a_fault_as_under_our_own_vmm() {
        let program = exitpath_exits::find("inl_from_qemu")
            .expect("a row")
            .program(true);
        let op = program.address + program.op as u64;
        let outcome = with_fault(13, op, 0);
        assert!(
            matches!(&outcome, Outcome::Skipped { reason } if reason.contains("#GP")),
            "{outcome:?}"
        );
        for (vector, rip, progress) in [(13, op, 7), (14, op, 0), (13, 0, 0)] {
            let outcome = with_fault(vector, rip, progress);
            assert!(matches!(outcome, Outcome::Fault { .. }), "{outcome:?}");
        }
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
        let other = of(SAID, "cpuid");
        assert!(other.unwrap_err().contains("never should"));
    }

    /// What an image may say, in any order.
    #[derive(Debug, Clone, PartialEq)]
    enum Says {
        Boot,
        Row(&'static str),
        Samples(Vec<(u64, u64, usize)>),
        Batch([u64; 5]),
        Lacks,
        Fault,
        End,
        Bye,
        Strange(String),
    }

    impl Says {
        fn words(&self) -> String {
            match self {
                Says::Boot => "boot 1 1 GenuineIntel".to_owned(),
                Says::Row(name) => format!("row 0 {name}"),
                Says::Samples(pairs) => {
                    let pair = |&(empty, op, times): &(u64, u64, usize)| match times {
                        1 => format!(" {empty},{op}"),
                        _ => format!(" {empty},{op}*{times}"),
                    };
                    format!("samples{}", pairs.iter().map(pair).collect::<String>())
                }
                Says::Batch([n, a, b, c, d]) => format!("batch {n} {a} {b} {c} {d}"),
                Says::Lacks => "lacks X2APIC".to_owned(),
                Says::Fault => "fault 9 14 0 0 0 7".to_owned(),
                Says::End => "end 0 done".to_owned(),
                Says::Bye => "bye 1".to_owned(),
                Says::Strange(words) => words.clone(),
            }
        }
    }

    /// The rows that the image of the tests was made for.
    const ROWS: [&str; 2] = ["cpuid", "inl_from_qemu"];

    /// What is to be made of it: each row's samples and batches, and whether it is all; `None` where it is
    /// what no image says.
    fn expected(said: &[Says]) -> Option<(Vec<(usize, usize)>, bool)> {
        let (mut rows, mut open) = (Vec::new(), false);
        for says in said {
            match (says, open) {
                (Says::Boot, _) => {}
                (Says::Row(name), false) if ROWS.get(rows.len()) == Some(name) => {
                    rows.push((0, 0));
                    open = true;
                }
                (Says::Samples(pairs), true) => {
                    rows.last_mut()?.0 += pairs.iter().map(|(_, _, times)| times).sum::<usize>();
                }
                (Says::Batch(_), true) => rows.last_mut()?.1 += 1,
                (Says::Lacks | Says::Fault, true) => {}
                (Says::End, true) => open = false,
                // What comes after is not looked at.
                (Says::Bye, false) => return Some((rows, true)),
                _ => return None,
            }
        }
        if open {
            rows.pop();
        }
        (!said.is_empty()).then_some((rows, false))
    }

    fn says() -> impl proptest::strategy::Strategy<Value = Says> {
        use proptest::prelude::*;
        let samples = prop::collection::vec((0..9u64, 0..9_999u64, 1..300usize), 1..4);
        prop_oneof![
            1 => Just(Says::Boot),
            6 => prop::sample::select(&ROWS[..]).prop_map(Says::Row),
            4 => samples.prop_map(Says::Samples),
            2 => any::<[u64; 5]>().prop_map(Says::Batch),
            1 => Just(Says::Lacks),
            1 => Just(Says::Fault),
            6 => Just(Says::End),
            1 => Just(Says::Bye),
            1 => "(samples|batch|fault|row|end|bye)? ?[ -~]{0,12}".prop_map(Says::Strange),
        ]
    }

    /// A conversation as an image has it, in which one thing may be another or missing.
    fn conversation() -> impl proptest::strategy::Strategy<Value = Vec<Says>> {
        use proptest::prelude::*;
        let samples = prop::collection::vec((0..9u64, 0..9_999u64, 1..300usize), 1..4);
        let orderly = samples.prop_map(|pairs| {
            let row = |name| [Says::Row(name), Says::Samples(pairs.clone()), Says::End];
            let rows = ROWS.iter().flat_map(|name| row(name));
            [Says::Boot]
                .into_iter()
                .chain(rows)
                .chain([Says::Bye])
                .collect::<Vec<Says>>()
        });
        let altered = (orderly.clone(), 0..8usize, prop::option::of(says()));
        let altered = altered.prop_map(|(mut said, at, other)| {
            said.splice(at..=at, other);
            said
        });
        prop_oneof![1 => orderly, 3 => altered, 2 => prop::collection::vec(says(), 0..12)]
    }

    proptest::proptest! {
        #[test]
        fn what_an_image_may_say_is_taken_as_it_is_and_all_else_refused(said in conversation()) {
            let is_strange = |says: &Says| matches!(says, Says::Strange(_));
            let lines = said.iter().enumerate();
            let text = signed(lines.map(|(i, says)| format!("xp1 {i} {}", says.words())));
            let rows = ROWS.map(|name| exitpath_exits::find(name).expect("a row"));
            let told = so_far(&text, &rows);
            match (told, expected(&said)) {
                (Ok(told), Some((rows, whole))) => {
                    let of = |run: &Run| (run.samples.len(), run.batches.len());
                    proptest::prop_assert_eq!(told.runs.iter().map(of).collect::<Vec<_>>(), rows);
                    proptest::prop_assert_eq!(told.whole, whole);
                    let names = told.runs.iter().map(|run| run.row.as_str());
                    proptest::prop_assert!(names.eq(ROWS.iter().copied().take(told.runs.len())));
                }
                (Err(why), None) => {
                    let why = why.to_string();
                    proptest::prop_assert!(!why.contains('\n') && why.len() > 10, "{}", why);
                }
                // By chance it may be what an image says.
                (_, None) if said.iter().any(is_strange) => {}
                (told, expected) => {
                    proptest::prop_assert!(false, "{:?} for {:?}:\n{}", told, expected, text);
                }
            }
        }

        #[test]
        fn any_text_without_a_sum_is_refused(text in "(xp1 [0-9]? ?(row|samples|batch|end|bye|fault)?.{0,20}\n|.{0,30}\n){0,8}") {
            // The sum is what makes a line the image's.
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
