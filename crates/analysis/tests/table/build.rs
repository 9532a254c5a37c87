//! Recordings made up row by row.

use exitpath_analysis::table::{RowSummary, Verdict, summarise};
use exitpath_recording::fact::GUESTS_ON_CPU;
use exitpath_recording::{
    Batch, Bounds, Environment, Machine, Manifest, Outcome, Plan, Recording, RowInfo, Run, Sample,
};

/// Ticks of the bracket without the operation, unless a test says otherwise.
pub(crate) const EMPTY: u64 = 30;
/// 2.5 ticks a nanosecond.
pub(crate) const TSC_KHZ: u64 = 2_500_000;

pub(crate) fn exactly(exits: f64) -> Bounds {
    Bounds {
        min: exits,
        max: exits,
    }
}

/// A row that makes one exit, which KVM handles.
pub(crate) fn row(name: &str) -> RowInfo {
    RowInfo {
        name: name.to_owned(),
        operation: format!("what {name} does"),
        reference: false,
        halts: false,
        interrupts: false,
        vcpus: 1,
        delay_ticks: 0,
        exits: exactly(1.0),
        userspace_exits: exactly(0.0),
        parameters: std::collections::BTreeMap::new(),
        rung: None,
        kick: None,
    }
}

/// A row that makes no exit because there is nothing in it.
pub(crate) fn reference(name: &str) -> RowInfo {
    RowInfo {
        reference: true,
        exits: exactly(0.0),
        ..row(name)
    }
}

/// A run without samples in which nothing happened.
pub(crate) fn bare_run(row: &str) -> Run {
    Run {
        id: 0,
        row: row.to_owned(),
        condition: exitpath_recording::Condition::BASE.to_owned(),
        block: 0,
        seed: None,
        cpus: 1,
        outcome: Outcome::Done,
        notes: Vec::new(),
        ops: 0,
        userspace_exits: 0,
        counters: [("exits".to_owned(), 0)].into(),
        samples: Vec::new(),
        batches: Vec::new(),
    }
}

/// A run whose operations took so many ticks beyond the bracket, and made one exit each.
pub(crate) fn run(row: &str, net: &[u64]) -> Run {
    let ops = net.len() as u64;
    let sample = |&net: &u64| Sample {
        empty: EMPTY,
        op: EMPTY + net,
    };
    Run {
        ops,
        samples: net.iter().map(sample).collect(),
        ..bare_run(row)
    }
    .count("exits", ops as i64)
}

/// A run without an exit.
pub(crate) fn quiet_run(row: &str, net: &[u64]) -> Run {
    run(row, net).count("exits", 0)
}

pub(crate) trait With: Sized {
    fn count(self, counter: &str, value: i64) -> Self;
    fn seed(self, seed: u64) -> Self;
    /// Batches of 16 and 32 in which an operation takes so many ticks.
    fn slope(self, ticks: u64) -> Self;
    fn ended(self, outcome: Outcome) -> Self;
}

impl With for Run {
    fn count(mut self, counter: &str, value: i64) -> Run {
        self.counters.insert(counter.to_owned(), value);
        self
    }
    fn seed(self, seed: u64) -> Run {
        let seed = Some(seed);
        Run { seed, ..self }
    }
    fn slope(self, ticks: u64) -> Run {
        let batch = Batch {
            n: 16,
            empty_n: 50,
            empty_2n: 82,
            op_n: 50 + 16 * ticks,
            op_2n: 82 + 32 * ticks,
        };
        Run {
            batches: vec![batch; 4],
            ..self
        }
    }
    fn ended(self, outcome: Outcome) -> Run {
        Run { outcome, ..self }
    }
}

pub(crate) fn skipped(reason: &str) -> Outcome {
    Outcome::Skipped {
        reason: reason.to_owned(),
    }
}

pub(crate) fn hung(reason: &str) -> Outcome {
    Outcome::Hung {
        reason: reason.to_owned(),
    }
}

pub(crate) fn recording(machine: Machine, rows: Vec<RowInfo>, mut runs: Vec<Run>) -> Recording {
    for (id, run) in (0..).zip(&mut runs) {
        run.id = id;
    }
    let lab = machine == Machine::Lab;
    let mut seeds: Vec<u64> = runs.iter().filter_map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    Recording {
        manifest: Manifest {
            conditions: vec![exitpath_recording::Condition::base()],
            command: "measure".to_owned(),
            begun_unix_seconds: 1_750_000_000,
            machine,
            environment: Environment {
                arch: "x86_64".to_owned(),
                machine_kind: exitpath_recording::kind::SVM.to_owned(),
                kernel: "6.1.0".to_owned(),
                cmdline: "quiet".to_owned(),
                cpu: "a CPU".to_owned(),
                cpus: 1,
                qemu: lab.then(|| "7.2".to_owned()),
                seeds,
                tsc_khz: (!lab).then_some(TSC_KHZ),
                exitpath: "exitpath 0".to_owned(),
                facts: [(GUESTS_ON_CPU.to_owned(), true.into())].into(),
            },
            plan: Plan {
                runs: 0,
                samples: 0,
                batches: 4,
                batch_length: 16,
                order_seed: 1,
            },
            rows,
            warnings: Vec::new(),
        },
        runs,
        trace: None,
    }
}

/// The summary of the only row of a host's recording.
pub(crate) fn on_host(row: RowInfo, runs: Vec<Run>) -> RowSummary {
    only(&recording(Machine::Host, vec![row], runs))
}

/// The summary of the only row of a lab's recording.
pub(crate) fn in_lab(row: RowInfo, runs: Vec<Run>) -> RowSummary {
    only(&recording(Machine::Lab, vec![row], runs))
}

pub(crate) fn only(recording: &Recording) -> RowSummary {
    let mut rows = summarise(recording);
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

/// That this is the verdict and these are the beginnings of the notes, in this order.
#[track_caller]
pub(crate) fn assert_verdict(summary: &RowSummary, verdict: Verdict, notes: &[&str]) {
    let as_said = summary.notes.len() == notes.len()
        && summary
            .notes
            .iter()
            .zip(notes)
            .all(|(note, start)| note.starts_with(start));
    assert!(
        summary.verdict == verdict && as_said,
        "expected {verdict:?} with {notes:#?}, got {:?} with {:#?}",
        summary.verdict,
        summary.notes
    );
}
