//! The group that every recording has: the tables' columns, and how runs become rows and rows runs.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::group::Group;
use crate::lists::numbered;
use crate::problem::Problem;
use crate::table::{Encoded, GroupReader, Table, encode_table, read_table};
use exitpath_recording::{Batch, Condition, Manifest, Outcome, Run, Sample};

/// One row per run.
const RUNS: Table = Table {
    name: "runs.parquet",
    schema: "message runs {
        REQUIRED INT32 id (INTEGER(32,false));
        REQUIRED BINARY row (STRING);
        REQUIRED BINARY condition (STRING);
        REQUIRED INT32 block (INTEGER(32,false));
        OPTIONAL INT64 seed (INTEGER(64,false));
        REQUIRED INT32 cpus (INTEGER(32,false));
        REQUIRED BINARY status (STRING);
        OPTIONAL BINARY reason (STRING);
        REQUIRED GROUP notes (LIST) { REPEATED GROUP list { REQUIRED BINARY element (STRING); } }
        REQUIRED INT64 ops (INTEGER(64,false));
        REQUIRED INT64 userspace_exits (INTEGER(64,false));
    }",
    before: Some(
        "message runs {
        REQUIRED INT32 id (INTEGER(32,false));
        REQUIRED BINARY row (STRING);
        REQUIRED INT32 block (INTEGER(32,false));
        OPTIONAL INT64 seed (INTEGER(64,false));
        REQUIRED INT32 cpus (INTEGER(32,false));
        REQUIRED BINARY status (STRING);
        OPTIONAL BINARY reason (STRING);
        REQUIRED GROUP notes (LIST) { REPEATED GROUP list { REQUIRED BINARY element (STRING); } }
        REQUIRED INT64 ops (INTEGER(64,false));
        REQUIRED INT64 userspace_exits (INTEGER(64,false));
    }",
    ),
    counting: &["id"],
    rows_max: 1 << 20,
};

/// One row per run and counter.
const COUNTERS: Table = Table {
    name: "counters.parquet",
    schema: "message counters {
        REQUIRED INT32 run (INTEGER(32,false));
        REQUIRED BINARY name (STRING);
        REQUIRED INT64 delta (INTEGER(64,true));
    }",
    before: None,
    counting: &[],
    rows_max: 1 << 24,
};

/// One row per bracketed sample.
const SAMPLES: Table = Table {
    name: "samples.parquet",
    schema: "message samples {
        REQUIRED INT32 run (INTEGER(32,false));
        REQUIRED INT32 index (INTEGER(32,false));
        REQUIRED INT64 empty (INTEGER(64,false));
        REQUIRED INT64 op (INTEGER(64,false));
    }",
    before: None,
    counting: &["index"],
    rows_max: 1 << 27,
};

/// One row per repetition of the batch estimator.
const BATCHES: Table = Table {
    name: "batches.parquet",
    schema: "message batches {
        REQUIRED INT32 run (INTEGER(32,false));
        REQUIRED INT32 index (INTEGER(32,false));
        REQUIRED INT64 n (INTEGER(64,false));
        REQUIRED INT64 empty_n (INTEGER(64,false));
        REQUIRED INT64 empty_2n (INTEGER(64,false));
        REQUIRED INT64 op_n (INTEGER(64,false));
        REQUIRED INT64 op_2n (INTEGER(64,false));
    }",
    before: None,
    counting: &["index"],
    rows_max: 1 << 24,
};

/// The group.
pub(crate) const GROUP: Group = Group {
    name: "runs",
    needs: None,
    tables: &[&RUNS, &COUNTERS, &SAMPLES, &BATCHES],
    encode: |recording| {
        check_runs(&recording.manifest, &recording.runs)?;
        Ok(Some(encode(&recording.runs)?.into()))
    },
    decode: |recording, tables| {
        recording.runs = decode(&recording.manifest, tables)?;
        Ok(())
    },
};

/// The runs of a recording as the group's tables, in their order.
fn encode(runs: &[Run]) -> Result<[Encoded; 4], Problem> {
    let counters = runs.iter().flat_map(|run| {
        run.counters
            .iter()
            .map(|(name, &delta)| (run.id, name.as_str(), delta))
    });
    let samples = runs.iter().flat_map(|run| numbered(run.id, &run.samples));
    let batches = runs.iter().flat_map(|run| numbered(run.id, &run.batches));
    Ok([
        encode_table(&RUNS, runs.iter(), |rows, group| {
            group.u32s(rows.iter().map(|run| run.id))?;
            group.texts(rows.iter().map(|run| run.row.as_str()))?;
            group.texts(rows.iter().map(|run| run.condition.as_str()))?;
            group.u32s(rows.iter().map(|run| run.block))?;
            group.optional_u64s(rows.iter().map(|run| run.seed))?;
            group.u32s(rows.iter().map(|run| run.cpus))?;
            group.texts(rows.iter().map(|run| outcome_columns(&run.outcome).0))?;
            group.optional_texts(rows.iter().map(|run| outcome_columns(&run.outcome).1))?;
            group.text_lists(rows.iter().map(|run| run.notes.as_slice()))?;
            group.u64s(rows.iter().map(|run| run.ops))?;
            group.u64s(rows.iter().map(|run| run.userspace_exits))
        })?,
        encode_table(&COUNTERS, counters, |rows, group| {
            group.u32s(rows.iter().map(|row| row.0))?;
            group.texts(rows.iter().map(|row| row.1))?;
            group.i64s(rows.iter().map(|row| row.2))
        })?,
        encode_table(&SAMPLES, samples, |rows, group| {
            group.u32s(rows.iter().map(|row| row.0))?;
            group.u32s(rows.iter().map(|row| row.1))?;
            group.u64s(rows.iter().map(|row| row.2.empty))?;
            group.u64s(rows.iter().map(|row| row.2.op))
        })?,
        encode_table(&BATCHES, batches, |rows, group| {
            group.u32s(rows.iter().map(|row| row.0))?;
            group.u32s(rows.iter().map(|row| row.1))?;
            group.u64s(rows.iter().map(|row| row.2.n))?;
            group.u64s(rows.iter().map(|row| row.2.empty_n))?;
            group.u64s(rows.iter().map(|row| row.2.empty_2n))?;
            group.u64s(rows.iter().map(|row| row.2.op_n))?;
            group.u64s(rows.iter().map(|row| row.2.op_2n))
        })?,
    ])
}

fn outcome_columns(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Done => ("done", None),
        Outcome::Skipped { reason } => ("skipped", Some(reason)),
        Outcome::Fault { reason } => ("fault", Some(reason)),
        Outcome::Hung { reason } => ("hung", Some(reason)),
    }
}

fn outcome(status: &str, reason: Option<String>) -> Result<Outcome, Problem> {
    match (status, reason) {
        ("done", None) => Ok(Outcome::Done),
        ("skipped", Some(reason)) => Ok(Outcome::Skipped { reason }),
        ("fault", Some(reason)) => Ok(Outcome::Fault { reason }),
        ("hung", Some(reason)) => Ok(Outcome::Hung { reason }),
        ("done", Some(_)) => Err("a run that is done has a reason".into()),
        ("skipped" | "fault" | "hung", None) => Err(problem!("a run is {status} without a reason")),
        _ => Err(Problem::unknown("status of a run", status)),
    }
}

/// What has to hold between the manifest and the runs, before writing and after reading: names
/// that others refer to are there, and once.
fn check_runs(manifest: &Manifest, runs: &[Run]) -> Result<(), Problem> {
    let mut conditions = HashSet::new();
    for condition in &manifest.conditions {
        if condition.name.is_empty() || !conditions.insert(condition.name.as_str()) {
            return Err(problem!(
                "the manifest has a condition without a name, or two that are called {:?}",
                condition.name
            ));
        }
    }
    if conditions.is_empty() {
        return Err("the manifest has no condition".into());
    }
    let mut rows = HashSet::new();
    for row in &manifest.rows {
        if !rows.insert(row.name.as_str()) {
            return Err(problem!("the manifest describes row {:?} twice", row.name));
        }
    }
    let mut ids = HashSet::new();
    for run in runs {
        if !ids.insert(run.id) {
            return Err(problem!("there are two runs {}", run.id));
        }
        if !conditions.contains(run.condition.as_str()) {
            return Err(problem!(
                "run {} is of condition {:?}, which the manifest does not describe",
                run.id,
                run.condition
            ));
        }
        if !rows.contains(run.row.as_str()) {
            return Err(problem!(
                "run {} is of row {:?}, which the manifest does not describe",
                run.id,
                run.row
            ));
        }
    }
    Ok(())
}

/// Undoes [`encode`]. An error comes with the name of the table it was found in.
fn decode(manifest: &Manifest, tables: Vec<Encoded>) -> Result<Vec<Run>, (&'static str, Problem)> {
    let Ok([runs, counters, samples, batches]) = <[Encoded; 4]>::try_from(tables) else {
        return Err((RUNS.name, "the group has another number of tables".into()));
    };
    let of = |table: &Table| {
        let name = table.name;
        move |problem| (name, problem)
    };
    let mut runs = decode_runs(runs).map_err(of(&RUNS))?;
    check_runs(manifest, &runs).map_err(of(&RUNS))?;
    let mut by_id = RunsById::new(&mut runs);
    by_id.add_counters(counters).map_err(of(&COUNTERS))?;
    by_id.add_samples(samples).map_err(of(&SAMPLES))?;
    by_id.add_batches(batches).map_err(of(&BATCHES))?;
    Ok(runs)
}

/// The runs that `runs.parquet` lists, without what the other tables say of them.
fn decode_runs(file: Encoded) -> Result<Vec<Run>, Problem> {
    let mut runs = Vec::new();
    read_table(&RUNS, file, |group| {
        let mut part: Vec<Run> = group.u32s("id")?.into_iter().map(bare_run).collect();
        set(&mut part, group.texts("row")?, |run, row| run.row = row);
        if group.has("condition") {
            set(&mut part, group.texts("condition")?, |run, condition| {
                run.condition = condition
            });
        }
        set(&mut part, group.u32s("block")?, |run, block| {
            run.block = block
        });
        set(&mut part, group.optional_u64s("seed")?, |run, seed| {
            run.seed = seed
        });
        set(&mut part, group.u32s("cpus")?, |run, cpus| run.cpus = cpus);
        let ends = group
            .texts("status")?
            .into_iter()
            .zip(group.optional_texts("reason")?);
        let outcomes = ends.map(|(status, reason)| outcome(&status, reason));
        let outcomes = outcomes.collect::<Result<Vec<_>, _>>()?;
        set(&mut part, outcomes, |run, outcome| run.outcome = outcome);
        set(&mut part, group.text_lists("notes")?, |run, notes| {
            run.notes = notes
        });
        set(&mut part, group.u64s("ops")?, |run, ops| run.ops = ops);
        set(&mut part, group.u64s("userspace_exits")?, |run, exits| {
            run.userspace_exits = exits
        });
        runs.append(&mut part);
        Ok(())
    })?;
    Ok(runs)
}

fn bare_run(id: u32) -> Run {
    Run {
        id,
        row: String::new(),
        condition: Condition::BASE.to_owned(),
        block: 0,
        seed: None,
        cpus: 0,
        outcome: Outcome::Done,
        notes: Vec::new(),
        ops: 0,
        userspace_exits: 0,
        counters: BTreeMap::new(),
        samples: Vec::new(),
        batches: Vec::new(),
    }
}

/// Hands each run its value of a column. [`GroupReader`] sees to it that there are as many.
fn set<T>(runs: &mut [Run], column: Vec<T>, set: impl Fn(&mut Run, T)) {
    for (run, value) in runs.iter_mut().zip(column) {
        set(run, value);
    }
}

/// Runs that can be found by id, to be given what the other tables say of them.
struct RunsById<'a> {
    runs: &'a mut [Run],
    places: HashMap<u32, usize>,
}

impl<'a> RunsById<'a> {
    fn new(runs: &'a mut [Run]) -> Self {
        let places = runs
            .iter()
            .enumerate()
            .map(|(place, run)| (run.id, place))
            .collect();
        Self { runs, places }
    }

    fn add_counters(&mut self, file: Encoded) -> Result<(), Problem> {
        read_table(&COUNTERS, file, |group| {
            let (names, deltas) = (group.texts("name")?, group.i64s("delta")?);
            for ((id, name), delta) in group.u32s("run")?.into_iter().zip(names).zip(deltas) {
                match self.run(id)?.counters.entry(name) {
                    Entry::Vacant(entry) => _ = entry.insert(delta),
                    Entry::Occupied(entry) => {
                        return Err(problem!("run {id} has counter {:?} twice", entry.key()));
                    }
                }
            }
            Ok(())
        })
    }

    fn add_samples(&mut self, file: Encoded) -> Result<(), Problem> {
        read_table(&SAMPLES, file, |group| {
            let samples = group.u64s("empty")?.into_iter().zip(group.u64s("op")?);
            let samples = samples.map(|(empty, op)| Sample { empty, op });
            self.add(group, samples, |run| &mut run.samples)
        })
    }

    fn add_batches(&mut self, file: Encoded) -> Result<(), Problem> {
        read_table(&BATCHES, file, |group| {
            let empty = group
                .u64s("empty_n")?
                .into_iter()
                .zip(group.u64s("empty_2n")?);
            let op = group.u64s("op_n")?.into_iter().zip(group.u64s("op_2n")?);
            let batches = group.u64s("n")?.into_iter().zip(empty).zip(op).map(
                |((n, (empty_n, empty_2n)), (op_n, op_2n))| Batch {
                    n,
                    empty_n,
                    empty_2n,
                    op_n,
                    op_2n,
                },
            );
            self.add(group, batches, |run| &mut run.batches)
        })
    }

    /// Appends each item to the list of its run. Each run's indexes have to count up from 0, so
    /// that none is missing, double or out of order.
    fn add<T>(
        &mut self,
        group: &GroupReader<'_>,
        items: impl Iterator<Item = T>,
        list: impl Fn(&mut Run) -> &mut Vec<T>,
    ) -> Result<(), Problem> {
        let indexes = group.u32s("index")?;
        for ((id, index), item) in group.u32s("run")?.into_iter().zip(indexes).zip(items) {
            let list = list(self.run(id)?);
            if list.len() != index as usize {
                return Err(problem!(
                    "run {id} has index {index} where {} was due",
                    list.len()
                ));
            }
            list.push(item);
        }
        Ok(())
    }

    fn run(&mut self, id: u32) -> Result<&mut Run, Problem> {
        let place = self
            .places
            .get(&id)
            .and_then(|&place| self.runs.get_mut(place));
        place.ok_or_else(|| problem!("it speaks of run {id}, which runs.parquet does not list"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> Vec<Run> {
        vec![bare_run(5), bare_run(3)]
    }

    fn samples(rows: &[(u32, u32)]) -> Encoded {
        encode_table(&SAMPLES, rows.iter(), |rows, group| {
            group.u32s(rows.iter().map(|row| row.0))?;
            group.u32s(rows.iter().map(|row| row.1))?;
            group.u64s(rows.iter().map(|_| 30))?;
            group.u64s(rows.iter().map(|row| u64::from(row.1)))
        })
        .unwrap()
    }

    fn counters(rows: &[(u32, &str)]) -> Encoded {
        encode_table(&COUNTERS, rows.iter(), |rows, group| {
            group.u32s(rows.iter().map(|row| row.0))?;
            group.texts(rows.iter().map(|row| row.1))?;
            group.i64s(rows.iter().map(|_| -1))
        })
        .unwrap()
    }

    #[test]
    fn rows_of_different_runs_may_alternate() {
        let mut runs = runs();
        let table = samples(&[(3, 0), (5, 0), (3, 1), (3, 2), (5, 1)]);
        RunsById::new(&mut runs).add_samples(table).unwrap();
        let ops = |run: &Run| {
            run.samples
                .iter()
                .map(|sample| sample.op)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            runs.iter().map(ops).collect::<Vec<_>>(),
            [vec![0, 1], vec![0, 1, 2]]
        );
    }

    #[test]
    fn samples_missing_double_or_out_of_order_are_problems() {
        for rows in [
            [(3, 1), (3, 2)],
            [(3, 0), (3, 0)],
            [(3, 1), (3, 0)],
            [(3, 0), (3, u32::MAX)],
        ] {
            let problem = RunsById::new(&mut runs())
                .add_samples(samples(&rows))
                .unwrap_err();
            assert!(problem.to_string().contains("was due"), "{problem}");
        }
    }

    #[test]
    fn counters_given_twice_are_a_problem() {
        let table = counters(&[(3, "exits"), (5, "exits"), (3, "exits")]);
        let problem = RunsById::new(&mut runs()).add_counters(table).unwrap_err();
        assert_eq!(problem.to_string(), "run 3 has counter \"exits\" twice");
    }

    #[test]
    fn outcomes_are_read_as_written_and_nothing_else_is() {
        let reason = || "why".to_owned();
        for outcome_in in [
            Outcome::Done,
            Outcome::Skipped { reason: reason() },
            Outcome::Fault { reason: reason() },
            Outcome::Hung {
                reason: String::new(),
            },
        ] {
            let (status, reason) = outcome_columns(&outcome_in);
            assert_eq!(
                outcome(status, reason.map(String::from)),
                Ok(outcome_in.clone())
            );
        }
        for (status, reason) in [("done", Some(reason())), ("hung", None), ("Done", None)] {
            assert!(outcome(status, reason).is_err());
        }
    }
}
