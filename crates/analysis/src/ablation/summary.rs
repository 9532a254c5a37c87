//! What a recording says of optional work: the waterfall, each knob's cost, what was predicted, the floor.

use std::collections::{BTreeMap, BTreeSet};

use exitpath_recording::{
    Condition, Difference, KnobKind, Machine, Outcome, Recording, Run, Sample,
};

use super::code::Code;
use super::design::{self, Design};
use super::effects::{Cost, Effects, Interaction, Values, effects};
use super::knobs::Knob;
use super::table::built_in;
use crate::path::{Node, PathError, PhaseTable, RowPath, trace_rows};
use crate::stats::{Confidence, Sorted, mean_interval};

/// What came of a knob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It was off in all combinations, and its cost is known.
    Measured,
    /// Without it the guest's answers were wrong, or the lab or the guest ended: why, in words.
    Required(String),
    /// The row does not come by it.
    Absent,
    /// It could be measured, and was left out of the combinations: why.
    LeftOut(String),
}

/// The condition that is traced where these knobs are off for which a lab of its own is needed.
pub fn base_name(off: &[&str]) -> String {
    match off {
        [] => Condition::BASE.to_owned(),
        off => format!("{TRACED_WITH}{}", off.join(" ")),
    }
}

/// What the names of such conditions begin with, but for the base.
const TRACED_WITH: &str = "base with ";

/// Why a knob on the way was not measured, where nobody wanted it.
const NOT_ASKED_FOR: &str = "not asked for";

/// A knob and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct KnobCost {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub what: String,
    /// How it is switched.
    pub kind: KnobKind,
    /// What was changed for it, a phrase each.
    pub changes: Vec<String>,
    /// What came of it.
    pub status: Status,
    /// Its cost, where it was measured.
    pub cost: Option<Cost>,
    /// The interval of its Shapley share, where blocks differ.
    pub interval: Option<(f64, f64)>,
    /// What was predicted for it alone.
    pub predicted: Option<i64>,
}

/// A combination and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Combination {
    /// Names of the knobs that were off.
    pub off: Vec<String>,
    /// The row's value, the mean over blocks; `None` where there is none.
    pub value: Option<f64>,
    /// The value's interval, where blocks differ.
    pub interval: Option<(f64, f64)>,
    /// Why there is no value.
    pub why: Option<String>,
}

/// What remains where all that is optional is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// What the assembly around the entry takes, from where the guest is left until it is entered again.
    pub assembly: u64,
    /// That, all that is done around it per entry, and the handler of this exit: as if KVM entered the guest again at once. `None` where the
    /// exit goes to user space.
    pub shortcut: Option<u64>,
}

/// A row's optional work.
#[derive(Debug, Clone, PartialEq)]
pub struct Ablation {
    /// The row.
    pub row: String,
    /// Where it was measured.
    pub machine: Machine,
    /// All combinations, the base first.
    pub combinations: Vec<Combination>,
    /// All knobs: those measured by what they cost, most first, then the others.
    pub knobs: Vec<KnobCost>,
    /// Groups of knobs that save together something else than each by itself, by their names, largest first.
    pub interactions: Vec<(Vec<String>, f64)>,
    /// The largest difference of a value from what effects of one and two knobs make of it.
    pub unexplained: f64,
    /// Whether all combinations were measured.
    pub all_combinations: bool,
    /// The row's value with all on.
    pub full: Option<f64>,
    /// And with all off that were measured.
    pub all_off: Option<f64>,
    /// What remains.
    pub floor: Option<Floor>,
}

/// Which knobs are off under a condition, how each is switched, and what was changed for it.
fn off(condition: &Condition) -> Off<'_> {
    let off = condition
        .differs
        .iter()
        .filter_map(|differs| match differs {
            Difference::Off {
                knob,
                kind,
                changes,
            } => Some((knob.as_str(), (*kind, changes.as_slice()))),
            _ => None,
        });
    off.collect()
}

/// What a tick is.
#[derive(Debug, Clone, Copy)]
enum Tick {
    /// An instruction: in the lab.
    Instruction,
    /// So many nanoseconds; `None` where the TSC's frequency is not known.
    Nanoseconds(Option<f64>),
}

impl Tick {
    fn of(recording: &Recording) -> Tick {
        match recording.manifest.machine {
            Machine::Lab => Tick::Instruction,
            Machine::Host => {
                Tick::Nanoseconds(recording.manifest.environment.nanoseconds_per_tick())
            }
        }
    }
}

/// A run's value: in the lab what most samples took, less what each took without the operation and the row's own delay; on a host the median of
/// that, in nanoseconds.
fn value(run: &Run, delay: u64, tick: Tick) -> Result<f64, String> {
    if let Some(reason) = run.outcome.reason() {
        return Err(reason.to_owned());
    }
    let net = |sample: &Sample| sample.op as i64 - sample.empty as i64 - delay as i64;
    if let Tick::Nanoseconds(factor) = tick {
        let factor = factor.ok_or("the frequency of this machine's TSC is not known")?;
        let net = run.samples.iter().map(|sample| net(sample) as f64);
        let sorted = Sorted::new(net.collect()).map_err(|error| error.to_string())?;
        return Ok(sorted.median() * factor);
    }
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for sample in &run.samples {
        *counts.entry(net(sample)).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|&(value, count)| (count, std::cmp::Reverse(value)));
    most.map(|(value, _)| value as f64)
        .ok_or_else(|| "no sample was taken".to_owned())
}

/// Exits of an operation, as KVM counts them, to the nearest: an interrupt of the machine makes one, too. `None` where it does not count.
fn exits(run: &Run) -> Option<i64> {
    let exits = *run.counters.get("exits")?;
    let ops = i64::try_from(run.ops).ok().filter(|&ops| ops > 0)?;
    Some((exits + ops / 2) / ops)
}

/// The ablations of a recording's rows.
///
/// # Errors
/// Where its trace, which says what is on the path, cannot be understood.
pub fn ablations(recording: &Recording, further: &[Knob]) -> Result<Vec<Ablation>, PathError> {
    let traced = |name: &str| -> Result<Vec<RowPath>, PathError> {
        let base = recording.under(name).filter(|base| base.trace.is_some());
        let paths = base.map(|base| trace_rows(&base, &PhaseTable::default()));
        Ok(paths.transpose()?.unwrap_or_default())
    };
    let paths = traced(Condition::BASE)?;
    // What remains is told where most is off for which a lab of its own is needed.
    let conditions = recording.manifest.conditions.iter();
    let least = conditions.filter(|condition| !is_step(condition));
    let least = least.max_by_key(|condition| off(condition).len());
    let floors = match least {
        Some(least) if least.name != Condition::BASE => traced(&least.name)?,
        _ => paths.clone(),
    };
    let code = recording
        .trace
        .as_ref()
        .map(|trace| Code::of(trace, &paths));
    let rows = recording.manifest.rows.iter();
    Ok(rows
        .map(|row| {
            of_row(
                recording,
                &row.name,
                row.delay_ticks,
                further,
                code.as_ref(),
                &paths,
                &floors,
            )
        })
        .collect())
}

/// Whether the guests of all rows did with these off what they do with all on.
pub fn is_right(recording: &Recording, off: &[&str]) -> bool {
    let wanted: BTreeSet<&str> = off.iter().copied().collect();
    let mut rows = recording.manifest.rows.iter();
    rows.all(|row| {
        let steps = steps(recording, &row.name, row.delay_ticks);
        let mut same = steps
            .iter()
            .filter(|step| step.off.keys().copied().eq(wanted.iter().copied()));
        same.all(|step| step.values.is_ok())
    })
}

/// What is off, by name: how it is switched, and what was changed for it.
type Off<'a> = BTreeMap<&'a str, (KnobKind, &'a [String])>;

/// A combination as it was measured of a row.
struct Step<'a> {
    off: Off<'a>,
    /// Its value in each block; or why it has none.
    values: Result<Vec<f64>, String>,
    /// Whether that is because the machine cannot be made so.
    skipped: bool,
}

/// Whether a condition is a combination, and none that was traced.
fn is_step(condition: &Condition) -> bool {
    condition.name != Condition::BASE && !condition.name.starts_with(TRACED_WITH)
}

/// All combinations of a row, in the order in which they were measured.
fn steps<'a>(recording: &'a Recording, row: &str, delay: u64) -> Vec<Step<'a>> {
    let runs = |condition: &Condition| -> Vec<&'a Run> {
        let runs = recording.runs.iter();
        runs.filter(|run| run.condition == condition.name && run.row == row)
            .collect()
    };
    let measured = recording
        .manifest
        .conditions
        .iter()
        .filter(|it| is_step(it));
    let measured: Vec<(Off<'a>, Vec<&'a Run>)> = measured
        .map(|condition| (off(condition), runs(condition)))
        .filter(|(_, runs)| !runs.is_empty())
        .collect();
    // What a right step makes of exits.
    let all_on = measured.iter().find(|(off, _)| off.is_empty());
    let right = all_on.map(|(_, runs)| runs.iter().map(|run| exits(run)).collect());
    let right: Vec<Option<i64>> = right.unwrap_or_default();
    let tick = Tick::of(recording);
    let valued = |off: &Off<'_>, block: usize, run: &Run| {
        let value = value(run, delay, tick)?;
        // A VM that is made otherwise may do without the exit. Nothing else may, and another exit is none that it can be held against.
        let of_vm = off.values().any(|(kind, _)| *kind == KnobKind::Vm);
        match right.get(block) {
            Some(expected) if of_vm && exits(run) < *expected => Ok(value),
            Some(expected) if *expected != exits(run) => Err(format!(
                "an operation made {} exits, and {} with all on",
                exits(run).unwrap_or(0),
                expected.unwrap_or(0)
            )),
            _ => Ok(value),
        }
    };
    let step = |(off, runs): (Off<'a>, Vec<&'a Run>)| {
        let blocks = runs.iter().enumerate();
        let values = blocks
            .map(|(block, run)| valued(&off, block, run))
            .collect();
        let skipped = runs
            .iter()
            .any(|run| matches!(run.outcome, Outcome::Skipped { .. }));
        Step {
            off,
            values,
            skipped,
        }
    };
    measured.into_iter().map(step).collect()
}

fn of_row(
    recording: &Recording,
    row: &str,
    delay: u64,
    further: &[Knob],
    code: Option<&Code>,
    paths: &[RowPath],
    floors: &[RowPath],
) -> Ablation {
    let path = paths.iter().find(|path| path.row == row);
    let steps = steps(recording, row, delay);
    // The combinations are of the knobs that are off where most are.
    let most = steps.iter().filter(|step| step.values.is_ok());
    let most = most.max_by_key(|step| step.off.len());
    let names: Vec<&str> = most.map_or_else(Vec::new, |step| step.off.keys().copied().collect());
    let blocks = steps.iter().flat_map(|step| &step.values).map(Vec::len);
    let blocks = blocks.min().unwrap_or(0);
    let found = (0..blocks).filter_map(|block| in_block(&steps, &names, block));
    let found: Vec<Effects> = found.collect();
    let combinations = steps.iter().map(|step| Combination {
        off: step.off.keys().map(|&name| name.to_owned()).collect(),
        value: step.values.as_ref().ok().and_then(|values| mean(values)),
        interval: step
            .values
            .as_ref()
            .ok()
            .and_then(|values| interval(values)),
        why: step.values.as_ref().err().cloned(),
    });
    let combinations: Vec<Combination> = combinations.collect();
    let of_row = OfRow {
        row,
        steps: &steps,
        combinations: &combinations,
        names: &names,
        found: &found,
        code,
        path,
    };
    let known = known(&steps, further, recording.manifest.machine);
    let mut knobs: Vec<KnobCost> = known.iter().map(|knob| of_row.cost(knob)).collect();
    let share = |knob: &KnobCost| knob.cost.map_or(f64::NEG_INFINITY, |cost| cost.shapley);
    knobs.sort_by(|a, b| share(b).total_cmp(&share(a)));
    let of_off = |wanted: &[&str]| {
        // Both are in the order of names.
        let same = |combination: &&Combination| combination.off.iter().eq(wanted.iter());
        let found = combinations.iter().find(same);
        found.and_then(|combination| combination.value)
    };
    let unexplained = found.iter().map(|effects| effects.unexplained);
    Ablation {
        row: row.to_owned(),
        machine: recording.manifest.machine,
        interactions: interactions(&found, &names),
        unexplained: unexplained.fold(0.0, f64::max),
        all_combinations: Design::of(names.len()).is_some_and(|design| design.is_full()),
        full: of_off(&[]),
        all_off: of_off(&names),
        floor: floors.iter().find(|path| path.row == row).map(floor),
        combinations,
        knobs,
    }
}

/// What a row's knobs are to be told from.
struct OfRow<'a> {
    row: &'a str,
    steps: &'a [Step<'a>],
    combinations: &'a [Combination],
    /// The knobs of the combinations.
    names: &'a [&'a str],
    /// The effects in each block.
    found: &'a [Effects],
    code: Option<&'a Code>,
    path: Option<&'a RowPath>,
}

impl OfRow<'_> {
    fn cost(&self, knob: &Knob) -> KnobCost {
        let name = knob.name.as_str();
        let switched = self.steps.iter().find_map(|step| step.off.get(name));
        let alone = self.steps.iter();
        let mut alone = alone.filter(|step| step.off.len() == 1 && step.off.contains_key(name));
        let alone = alone.next();
        let skipped = alone.is_some_and(|alone| alone.skipped);
        let alone = alone.map(|step| &step.values);
        let resolved = self.code.and_then(|code| Some((knob.resolve(code)?, code)));
        let resolved = resolved.filter(|(resolved, code)| resolved.is_on(code, self.row));
        let predicted = resolved.as_ref().zip(self.path);
        let predicted = predicted.map(|((resolved, code), path)| resolved.predicted(code, path));
        let at = self.names.iter().position(|known| *known == name);
        let costs = at.map(|at| self.found.iter().map(move |effects| effects.costs[at]));
        let costs: Vec<Cost> = costs.into_iter().flatten().collect();
        let shares: Vec<f64> = costs.iter().map(|cost| cost.shapley).collect();
        let status = match (alone, at) {
            (Some(Err(why)), _) if skipped => Status::LeftOut(why.clone()),
            (Some(Err(why)), _) => Status::Required(why.clone()),
            (Some(Ok(_)), Some(_)) => Status::Measured,
            (Some(Ok(_)), None) => Status::LeftOut(left_out(self.combinations, name)),
            (None, _) if resolved.is_some() => Status::LeftOut(NOT_ASKED_FOR.to_owned()),
            (None, _) => Status::Absent,
        };
        KnobCost {
            name: knob.name.clone(),
            what: knob.what.clone(),
            kind: switched.map(|(kind, _)| *kind).unwrap_or_default(),
            changes: switched.map_or_else(Vec::new, |(_, changes)| changes.to_vec()),
            status,
            cost: mean_cost(&costs),
            interval: interval(&shares),
            predicted,
        }
    }
}

/// The effects in one block, where all combinations of the design have a value there.
fn in_block(steps: &[Step<'_>], names: &[&str], block: usize) -> Option<Effects> {
    let design = Design::of(names.len())?;
    let mut of_block = Values::new();
    for step in steps {
        let value = step
            .values
            .as_ref()
            .ok()
            .and_then(|values| values.get(block));
        let Some(value) = value.filter(|_| step.off.keys().all(|name| names.contains(name))) else {
            continue;
        };
        let is_off = |at: &usize| step.off.contains_key(names[*at]);
        let bits = (0..names.len()).filter(is_off);
        of_block.insert(bits.fold(0, |off, at| off | 1 << at), *value);
    }
    effects(&design, &of_block)
}

/// All knobs there is something to be said of, each once: on a host all that are known there; in the lab those in the code, and what was
/// off somewhere.
fn known(steps: &[Step<'_>], further: &[Knob], machine: Machine) -> Vec<Knob> {
    let mut known: Vec<Knob> = match machine {
        Machine::Host => further.to_vec(),
        Machine::Lab => built_in(),
    };
    for (name, (kind, _)) in steps.iter().flat_map(|step| &step.off) {
        if known.iter().all(|knob| knob.name != *name) {
            let found = further.iter().find(|knob| knob.name == *name);
            known.push(found.cloned().unwrap_or_else(|| of_recording(name, *kind)));
        }
    }
    let mut seen = BTreeSet::new();
    known.retain(|knob| seen.insert(knob.name.clone()));
    known
}

/// A knob of the user's, as a recording knows it.
fn of_recording(name: &str, kind: KnobKind) -> Knob {
    match Knob::parse(name) {
        Ok(knob) if kind == KnobKind::Code => knob,
        _ => Knob::boot(name),
    }
}

/// Why a knob that works alone is in no combination.
fn left_out(combinations: &[Combination], name: &str) -> String {
    let with = combinations.iter().filter(|combination| {
        combination.off.len() > 1 && combination.off.iter().any(|off| off == name)
    });
    with.filter_map(|combination| {
        let others: Vec<&str> = combination
            .off
            .iter()
            .map(String::as_str)
            .filter(|off| *off != name)
            .collect();
        Some(format!(
            "required where {} are off: {}",
            others.join(", "),
            combination.why.as_ref()?
        ))
    })
    .next()
    .unwrap_or_else(|| "there were too many knobs, or another row requires it".to_owned())
}

fn mean(values: &[f64]) -> Option<f64> {
    crate::stats::mean(values).ok()
}

/// The interval of a mean, where the values differ and there are enough of them.
fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let differ = values.windows(2).any(|pair| pair[0] != pair[1]);
    let found = differ
        .then(|| mean_interval(values, Confidence::P95).ok())
        .flatten()?;
    let interval = found.interval();
    Some((interval.lo, interval.hi))
}

fn mean_cost(costs: &[Cost]) -> Option<Cost> {
    let of = |part: &dyn Fn(&Cost) -> f64| mean(&costs.iter().map(part).collect::<Vec<_>>());
    Some(Cost {
        first: of(&|cost| cost.first)?,
        last: of(&|cost| cost.last)?,
        shapley: of(&|cost| cost.shapley)?,
    })
}

/// Groups that save together something else than their parts, in all blocks.
fn interactions(found: &[Effects], names: &[&str]) -> Vec<(Vec<String>, f64)> {
    let Some(first) = found.first() else {
        return Vec::new();
    };
    let of_group = |at: usize, group: &Interaction| {
        let values: Vec<f64> = found
            .iter()
            .map(|effects| effects.interactions[at].value)
            .collect();
        let named = (0..names.len())
            .filter(|knob| group.knobs >> knob & 1 == 1)
            .map(|knob| names[knob].to_owned());
        let value = mean(&values)?;
        // Zero is none; where blocks differ, what may be zero is none either.
        let is_zero = value.abs() < 0.5
            || interval(&values).is_some_and(|(low, high)| low <= 0.0 && high >= 0.0);
        (!is_zero).then(|| (named.collect(), value))
    };
    let groups = first.interactions.iter().enumerate();
    let mut groups: Vec<(Vec<String>, f64)> = groups
        .filter_map(|(at, group)| of_group(at, group))
        .collect();
    groups.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    groups
}

/// The floor of a row, by its path.
fn floor(path: &RowPath) -> Floor {
    let total = |names: &[&str]| {
        let nodes = path
            .tree
            .iter()
            .filter(|node| names.contains(&node.name.as_str()));
        nodes.map(|node| node.total.all).sum::<u64>()
    };
    let is_entry = |node: &&Node| node.own.all > 0 && node.name.starts_with("entry_SYSCALL");
    let user = path.tree.iter().any(|node| is_entry(&node));
    let around = total(&["svm_vcpu_run", "vmx_vcpu_run"]);
    let handler = total(&["svm_invoke_exit_handler", "vmx_handle_exit"]);
    Floor {
        assembly: total(&["__svm_vcpu_run", "__vmx_vcpu_run"]),
        shortcut: (!user).then_some(around + handler),
    }
}

/// The waterfall: what is left when the measured knobs are taken off one behind the other, those with the largest share first, each by its share.
pub fn waterfall(ablation: &Ablation) -> Vec<(&str, f64, f64)> {
    let mut left = ablation.full.unwrap_or(0.0);
    let measured = ablation
        .knobs
        .iter()
        .filter_map(|knob| Some((knob, knob.cost?)));
    measured
        .map(|(knob, cost)| {
            left -= cost.shapley;
            (knob.name.as_str(), cost.shapley, left)
        })
        .collect()
}

/// What all measured knobs save together beyond the sum of their shares: nothing where all combinations were measured; of a fraction,
/// what three knobs and more save together.
pub fn rest(ablation: &Ablation) -> Option<f64> {
    let shares = ablation
        .knobs
        .iter()
        .filter_map(|knob| Some(knob.cost?.shapley));
    let rest = ablation.full? - ablation.all_off? - shares.sum::<f64>();
    Some(if rest.abs() < 1e-6 { 0.0 } else { rest })
}

/// The combinations that are needed of so many knobs, by number; `None` for too many.
pub fn needed(knobs: usize) -> Option<Vec<design::Off>> {
    Some(Design::of(knobs)?.all)
}
