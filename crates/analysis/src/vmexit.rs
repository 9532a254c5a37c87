//! What kvm-unit-tests' x86 vmexit prints, and what is known of how its figures differ from ours.
//!
//! One figure a row: ticks of its last doubling round divided by iterations, truncated. In it are the
//! loop and the call around the operation, and whatever interrupted the round. All figures are
//! instructions: ticks of the lab's clock.

use std::ops::RangeInclusive;

use exitpath_recording::{Recording, Run, counter, fact};

use crate::stats;

/// A row that vmexit has, and does the same operation in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmexitRow {
    /// Its name, in both programs.
    pub name: &'static str,
    /// Instructions of their loop that an iteration takes besides the intercepted one, as gcc 12
    /// compiles it with kvm-unit-tests' flags: call, ENDBR64, arguments, RET, three of the loop.
    pub overhead: u64,
    /// What their operation may take longer for what it leaves to chance, at most.
    pub chance: u64,
}

/// The rows compared.
pub const ROWS: [VmexitRow; 4] = [
    // The leaf is whatever the last CPUID returned in EAX: KVM searches its table for it, which it
    // finds at its front (leaf 0) or not at all.
    VmexitRow {
        name: "cpuid",
        overhead: 8,
        chance: 140,
    },
    VmexitRow {
        name: "inl_from_kernel",
        overhead: 7,
        chance: 0,
    },
    VmexitRow {
        name: "outl_to_kernel",
        overhead: 8,
        chance: 0,
    },
    VmexitRow {
        name: "inl_from_qemu",
        overhead: 7,
        chance: 0,
    },
];

/// KVM looks at the timer of an enabled local APIC on each exit that it handles itself, and as
/// long as some VM of the last second had one disabled, before each use whether it is: their guest
/// has enabled its own, ours has not.
const APIC: u64 = 16;
/// By so much two VMs of one boot differ, as KVM's buffers lie elsewhere and hardened copying
/// looks where.
const MEMORY: u64 = 3;

/// A timer tick with all that it wakes takes so many instructions, usually 3,000. What takes less is
/// another path of the exit's own; what takes longer happens once, and in their mean shows as a
/// rest.
pub const TICK: RangeInclusive<u64> = 2_500..=20_000;

/// Both figures of a row, and what is known of their difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The row.
    pub row: &'static VmexitRow,
    /// What vmexit printed.
    pub theirs: u64,
    /// The most frequent net sample of ours.
    pub ours: i64,
    /// What interruptions of the length of a [`TICK`] add to an operation of ours in the mean: the
    /// lab's timer and the threads it wakes.
    pub interruptions: f64,
    /// `theirs` less `ours` and their loop: what is left to explain.
    pub rest: i64,
    /// Smallest and largest rest that is explained.
    pub known: (i64, i64),
}

impl Comparison {
    /// What vmexit printed, held against a run of the same row. `None` without samples.
    pub fn new(row: &'static VmexitRow, theirs: u64, run: &Run) -> Option<Comparison> {
        let ops: Vec<u64> = run.samples.iter().map(|sample| sample.op).collect();
        let empties: Vec<u64> = run.samples.iter().map(|sample| sample.empty).collect();
        let (op, empty) = (stats::mode(&ops)?.value, stats::mode(&empties)?.value);
        let signed = |ticks: u64| i64::try_from(ticks).unwrap_or(i64::MAX);
        let ours = signed(op).saturating_sub(signed(empty));
        let beyond = ops.iter().map(|&ticks| ticks.saturating_sub(op));
        let of_ticks: u64 = beyond.filter(|beyond| TICK.contains(beyond)).sum();
        let interruptions = of_ticks as f64 / ops.len() as f64;
        let rest = signed(theirs)
            .saturating_sub(ours)
            .saturating_sub(signed(row.overhead));
        let most = row.chance + APIC + MEMORY;
        // Theirs is truncated.
        Some(Comparison {
            row,
            theirs,
            ours,
            interruptions,
            rest,
            known: (
                -1 - signed(MEMORY),
                signed(most).saturating_add(interruptions.ceil() as i64),
            ),
        })
    }

    /// Whether the two figures agree within what is known of their difference.
    #[must_use]
    pub fn agrees(&self) -> bool {
        (self.known.0..=self.known.1).contains(&self.rest)
    }
}

/// The rows of a recording that vmexit was run for, too: what it printed is a counter of a run under a condition
/// of its own, and in recordings up to version 3 among the facts.
#[must_use]
pub fn compared(recording: &Recording) -> Vec<Comparison> {
    let facts = recording.manifest.environment.facts.get(fact::VMEXIT_TICKS);
    let theirs_of = |row: &str| {
        let mut runs = recording.runs.iter().filter(|run| run.row == row);
        match runs.find_map(|run| run.counters.get(counter::VMEXIT_TICKS)) {
            Some(&ticks) => u64::try_from(ticks).ok(),
            None => facts?.get(row)?.as_u64(),
        }
    };
    let of_run = |run: &Run| {
        let theirs = theirs_of(&run.row)?;
        let row = ROWS.iter().find(|row| row.name == run.row)?;
        Comparison::new(row, theirs, run)
    };
    recording.runs.iter().filter_map(of_run).collect()
}

/// The figure that vmexit printed for a row.
///
/// # Errors
/// What it printed instead, in words.
pub fn figure(text: &str, row: &str) -> Result<u64, String> {
    for line in text.lines().map(str::trim) {
        let Some(rest) = line
            .strip_prefix(row)
            .and_then(|rest| rest.strip_prefix(' '))
        else {
            continue;
        };
        if rest == "(skipped)" {
            return Err("it skipped the row: the CPU model lacks what that needs".to_owned());
        }
        return rest
            .parse()
            .map_err(|_| format!("its line `{}` has no number of ticks", shown(line)));
    }
    match text.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(last) => Err(format!(
            "it printed no figure; the last it said is `{}`",
            shown(last)
        )),
        None => Err("it printed nothing".to_owned()),
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
    use exitpath_recording::{Outcome, Sample};

    const SAID: &str =
        "enabling apic\npaging enabled\ncpuid 3208\n  ipi cpuid 7\nwr_ibpb_msr (skipped)\n";

    #[test]
    fn a_figure_is_the_number_behind_the_rows_own_name() {
        assert_eq!(figure(SAID, "cpuid"), Ok(3208));
        let skipped = figure(SAID, "wr_ibpb_msr").unwrap_err();
        assert!(skipped.contains("skipped"), "{skipped}");
    }

    #[test]
    fn what_is_no_figure_is_said_in_words() {
        for (text, says) in [
            ("", "printed nothing"),
            ("\n\n", "printed nothing"),
            ("cpuid \u{1b}[2Jx\n", "no number of ticks"),
            ("cpuid\n", "the last it said is `cpuid`"),
            ("cpuidx 12\n", "the last it said is `cpuidx 12`"),
            ("cpuid -3\n", "no number of ticks"),
        ] {
            let error = figure(text, "cpuid").unwrap_err();
            assert!(error.contains(says) && !error.contains('\u{1b}'), "{error}");
        }
    }

    fn run(samples: &[(u64, u64)]) -> Run {
        Run {
            id: 0,
            row: "cpuid".to_owned(),
            condition: exitpath_recording::Condition::BASE.to_owned(),
            block: 0,
            seed: None,
            cpus: 1,
            outcome: Outcome::Done,
            notes: Vec::new(),
            ops: samples.len() as u64,
            userspace_exits: 0,
            counters: Default::default(),
            samples: samples
                .iter()
                .map(|&(empty, op)| Sample { empty, op })
                .collect(),
            batches: Vec::new(),
        }
    }

    #[test]
    fn figures_agree_within_what_is_known() {
        let kernel = &ROWS[1];
        // 1,738 and, in one sample of 400, a tick; another path, and what is too long for a tick.
        let mut samples = vec![(7, 1745); 397];
        samples.extend([(7, 1745 + 4000), (7, 1785), (7, 2_000_000)]);
        let ours = run(&samples);
        let at = |theirs| Comparison::new(kernel, theirs, &ours).expect("samples");
        assert_eq!((at(1748).ours, at(1748).rest), (1738, 3));
        assert_eq!(at(1748).interruptions, 10.0);
        assert_eq!(at(1748).known, (-4, 29));
        for (theirs, agrees) in [(1740, false), (1741, true), (1774, true), (1775, false)] {
            assert_eq!(at(theirs).agrees(), agrees, "{theirs}");
        }
        assert_eq!(Comparison::new(kernel, 1748, &run(&[])), None);
    }
}
