//! The one place where runs get their numbers and a recording is put together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use exitpath_exits::Row;
use exitpath_recording::{
    Condition, Difference, Environment, Machine, Manifest, Recording, Run, Trace,
};
use exitpath_runner::row_info;

use crate::plan::Plan;

/// What the examination of a machine found.
pub(crate) type Facts = BTreeMap<String, serde_json::Value>;

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Version and build, for the manifest: the VMM is part of what is measured, so the very program
/// is named, and of what is measured in the lab the one inside, where it is a file of its own.
pub(crate) fn version(machine: Machine) -> String {
    let sha256 = |path: PathBuf| exitpath_lab::bzimage::file_sha256(&path).ok();
    let program = std::env::current_exe().ok().and_then(sha256);
    let inside = match machine {
        Machine::Lab => exitpath_lab::inside_file().and_then(sha256),
        Machine::Host => None,
    };
    let sums = program.map(|sum| format!("sha256 {sum}"));
    let sums = sums
        .into_iter()
        .chain(inside.map(|sum| format!("inside: sha256 {sum}")));
    let sums: Vec<String> = sums.collect();
    let version = env!("CARGO_PKG_VERSION");
    match sums.is_empty() {
        true => format!("exitpath {version}"),
        false => format!("exitpath {version} ({})", sums.join(", ")),
    }
}

/// Runs made one after the other, and what was recorded of them: its windows' runs are counted from the
/// first of these.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) runs: Vec<Run>,
    pub(crate) trace: Option<Trace>,
}

/// Gives all runs, in this order, their numbers from 0 up.
pub(crate) fn number(batches: &mut [Batch]) {
    let mut first = 0;
    for batch in batches {
        for (id, run) in (first..).zip(&mut batch.runs) {
            run.id = id;
        }
        for window in batch.trace.iter_mut().flat_map(|trace| &mut trace.windows) {
            window.run += first;
        }
        first += batch.runs.len() as u32;
    }
}

/// What a recording says besides its runs.
pub(crate) struct About {
    pub(crate) begun_unix_seconds: u64,
    pub(crate) machine: Machine,
    pub(crate) environment: Environment,
    pub(crate) conditions: Vec<Condition>,
    /// Runs of each row.
    pub(crate) replication: u32,
    /// Whether guests run on a CPU of AMD or Hygon.
    pub(crate) amd: bool,
    pub(crate) warnings: Vec<String>,
}

/// A recording of runs that have their numbers.
pub(crate) fn recording(
    plan: &Plan,
    about: About,
    mut runs: Vec<Run>,
    trace: Option<Trace>,
) -> Recording {
    let mut conditions = about.conditions;
    if plan.by_layers {
        conditions = plan.rows.iter().map(|row| of_layers(row)).collect();
        for run in &mut runs {
            run.condition.clone_from(&run.row);
        }
    }
    Recording {
        manifest: Manifest {
            command: plan.command.to_owned(),
            begun_unix_seconds: about.begun_unix_seconds,
            machine: about.machine,
            environment: about.environment,
            plan: plan.kept(about.replication),
            conditions,
            rows: plan
                .rows
                .iter()
                .map(|row| row_info(row, about.amd))
                .collect(),
            warnings: about.warnings,
        },
        runs,
        trace,
    }
}

/// A rung as a condition: it is called as the rung is.
fn of_layers(row: &Row) -> Condition {
    let layers = row.rung.map(|rung| rung.layers.names()).unwrap_or_default();
    let layers: Vec<String> = layers.into_iter().map(str::to_owned).collect();
    Condition {
        name: row.name.to_owned(),
        differs: vec![Difference::Layers(layers)],
        ..Condition::base()
    }
}

#[cfg(test)]
mod tests {
    use exitpath_recording::{Outcome, Window};

    use super::*;

    fn run(row: &str) -> Run {
        Run {
            id: 7,
            row: row.to_owned(),
            condition: Condition::BASE.to_owned(),
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

    #[test]
    fn runs_are_numbered_through_and_windows_follow_them() {
        let window = |run| Window {
            run,
            ..Window::default()
        };
        let traced = |windows| {
            Some(Trace {
                windows,
                ..Trace::default()
            })
        };
        let mut batches = [
            Batch {
                runs: vec![run("a"), run("b")],
                trace: traced(vec![window(0), window(1)]),
            },
            Batch {
                runs: vec![run("c")],
                trace: None,
            },
            Batch {
                runs: vec![run("a"), run("b")],
                trace: traced(vec![window(1)]),
            },
        ];
        number(&mut batches);
        let ids: Vec<u32> = batches
            .iter()
            .flat_map(|batch| &batch.runs)
            .map(|run| run.id)
            .collect();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        let windows: Vec<u32> = batches
            .iter()
            .flat_map(|batch| batch.trace.iter().flat_map(|trace| &trace.windows))
            .map(|window| window.run)
            .collect();
        assert_eq!(windows, [0, 1, 4]);
    }

    #[test]
    fn a_rung_is_a_condition_that_its_layers_tell_from_others() {
        let row = exitpath_exits::find("signal_mask").expect("a rung");
        let condition = of_layers(row);
        assert_eq!(condition.name, "signal_mask");
        let layers = vec!["signal-mask".to_owned()];
        assert_eq!(condition.differs, [Difference::Layers(layers)]);
    }
}
