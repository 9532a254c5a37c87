//! The ladder: what each layer of a VMM's path adds to an exit.

use std::fmt::Write;

use exitpath_analysis::table::Verdict;
use exitpath_analysis::userspace::{Estimate, Ladder, Locking, Rung, Sum};
use exitpath_recording::{Manifest, counter};

use super::environment::{environment, tone};
use crate::document::{Block, Cell, Column, Document, Scale, Table, Unit};
use crate::format::{change, of, plain};
use crate::words;

/// Functions that a line on a difference names; the rest are summed.
const NAMED: usize = 6;
/// Rungs that a note names; of more it says how many they are.
const MOST_NAMED: usize = 8;

/// The rungs, whether they add up, several vCPUs, and what it all holds for.
pub fn userspace(manifest: &Manifest, ladder: &Ladder) -> Document {
    let unit = Scale::of(manifest);
    let mut text = rungs(&unit, &ladder.rungs);
    if let Some(sum) = &ladder.sum {
        text.space();
        add_up(&mut text, &unit, sum);
    }
    if ladder.rungs.iter().any(|rung| rung.explained.is_some()) {
        text.lines("\nwhere the differences are, function by function:\n");
        for rung in &ladder.rungs {
            explained(&mut text, rung);
        }
    }
    if !ladder.locking.is_empty() {
        text.space();
        text.append(locking(&unit, &ladder.locking));
    }
    text.space();
    notes(&mut text, ladder);
    environment(&mut text, manifest);
    text.warnings(&manifest.warnings);
    text
}

impl Scale {
    fn estimate(&self, estimate: Option<Estimate>) -> Cell {
        Cell::known(estimate, |estimate| self.value(estimate.value))
    }

    fn difference(&self, ticks: f64) -> Cell {
        Cell::known(self.factor, |factor| {
            Cell::Change((ticks * factor).round() as i64)
        })
    }

    /// A difference's interval.
    fn interval(&self, estimate: Option<Estimate>) -> Cell {
        let interval = estimate.and_then(|estimate| estimate.ci95);
        Cell::known(interval, |(lo, hi)| {
            Cell::range(self.difference(lo), self.difference(hi))
        })
    }

    /// A value's interval.
    fn range(&self, estimate: Option<Estimate>) -> Cell {
        let interval = estimate.and_then(|estimate| estimate.ci95);
        Cell::known(interval, |(lo, hi)| {
            Cell::range(self.value(lo), self.value(hi))
        })
    }
}

fn rungs(unit: &Scale, rungs: &[Rung]) -> Document {
    let (of, title) = match unit.lab {
        true => (Unit::Instructions, Unit::Instructions.name()),
        false => (Unit::Nanoseconds, "mean, ns"),
    };
    let mut columns = vec![
        Column::words("rung"),
        Column::figures(title, of),
        Column::figures("difference", of),
    ];
    if !unit.lab {
        columns.push(Column::figures("95 % interval", of));
    }
    columns.push(Column::words("to"));
    let traced = rungs.iter().any(|rung| rung.explained.is_some());
    if traced {
        let whose = ["kernel", "libc", "VMM"];
        columns.extend(whose.map(|part| Column::figures(part, Unit::Instructions)));
    }
    columns.extend([
        Column::figures("state reloads", Unit::Count),
        Column::figures("n", Unit::Count),
        Column::words("verdict"),
        Column::words("what it is"),
    ]);
    let mut table = Table::new(columns).leaving(&[
        "what it is",
        "n",
        "state reloads",
        "libc",
        "VMM",
        "kernel",
        "to",
    ]);
    for rung in rungs {
        let mut cells = vec![
            Cell::name(&rung.summary.row.name),
            unit.estimate(rung.value),
            Cell::known(rung.delta, |delta| unit.difference(delta.value)),
        ];
        if !unit.lab {
            cells.push(unit.interval(rung.delta));
        }
        let reference = rung.info.reference.as_deref();
        cells.push(Cell::known(reference, Cell::name));
        if traced {
            let share = rung.explained.as_ref().map(|explained| explained.share);
            for part in [
                share.map(|share| share.kernel),
                share.map(|share| share.libc),
                share.map(|share| share.vmm),
            ] {
                cells.push(Cell::known(part, Cell::Whole));
            }
        }
        let reloads = rung.witness.get(counter::HOST_STATE_RELOAD).copied();
        cells.push(Cell::known(reloads, Cell::Hundredths));
        let n = rung.delta.or(rung.value).map_or(0, |value| value.n);
        cells.push(Cell::Whole(n as u64));
        cells.push(words::verdict(rung.delta_verdict).into());
        cells.push(plain(&rung.summary.row.operation).into());
        table.toned(tone(rung.delta_verdict), cells);
    }
    let mut text = Document::new();
    text.table(table);
    let what = if unit.lab {
        "instructions: of one port write, less what goes on without it; difference: to the rung named, at the first seed"
    } else {
        "mean: of one port write, over runs, less what goes on without it; difference: to the rung named, within blocks"
    };
    text.note(what);
    if traced {
        let whose = "kernel, libc, VMM: whose instructions they are; the guest's one is left out";
        text.note(whose);
    }
    text.note("state reloads: KVM's host_state_reload per operation: 0 where the exit stays in the kernel, 1 where it \
         leaves it, and on AMD 1 more for each further ioctl that takes the vCPU");
    let n = if unit.lab { "seeds" } else { "runs" };
    text.note(format!(
        "n: {n}; verdict: of the rung and of the one it is compared with, the worse"
    ));
    let two: Vec<String> = rungs
        .iter()
        .filter(|rung| unit.lab && rung.summary.cpus > 1)
        .map(|rung| plain(&rung.summary.row.name))
        .collect();
    if !two.is_empty() {
        text.note(format!("on 2 CPUs: {}; others on 1", two.join(", ")));
    }
    text
}

fn add_up(text: &mut Document, unit: &Scale, sum: &Sum) {
    let value = |estimate: Estimate| {
        let range = estimate.ci95.map(|_| unit.range(Some(estimate)));
        (unit.value(estimate.value), range.unwrap_or(Cell::Empty))
    };
    let difference = |estimate: Estimate| {
        let range = estimate.ci95.map(|_| unit.interval(Some(estimate)));
        (
            unit.difference(estimate.value),
            range.unwrap_or(Cell::Empty),
        )
    };
    let lines = [
        ("bare", value(sum.bare)),
        ("sum of layers", difference(sum.sum_of_deltas)),
        ("interaction", difference(sum.interaction)),
        ("= all_on", value(sum.all_on)),
    ];
    text.lines("do the layers add up?\n");
    let lines = lines.map(|(name, (value, range))| (name, value, range));
    text.push(Block::Sum(lines.into()));
    if sum.verdict > Verdict::Usable {
        text.note("void: a rung of the sum is; it means nothing");
    }
    if let Some(unexplained) = sum.unexplained.filter(|_| !sum.functions.is_empty()) {
        let rest = match unexplained {
            0 => String::new(),
            rest => format!("; not explained {}", change(rest)),
        };
        text.note(format!("interaction: {}{rest}", changes(&sum.functions)));
    }
}

fn explained(text: &mut Document, rung: &Rung) {
    let Some(explained) = &rung.explained else {
        return;
    };
    if explained.functions.is_empty() && explained.unexplained == 0 {
        return;
    }
    let mut line = format!(
        " {}: {}",
        plain(&rung.summary.row.name),
        changes(&explained.functions)
    );
    if explained.unexplained != 0 {
        let why = match explained.halts {
            0 => "not explained",
            _ => "while the lab's CPU was halted",
        };
        let _ = write!(line, "; {why} {}", change(explained.unexplained));
    }
    text.note(line);
}

/// The largest changes by name, the others as one.
fn changes(functions: &[(String, i64)]) -> String {
    let (top, rest) = functions.split_at(functions.len().min(NAMED));
    let mut words: Vec<String> = top
        .iter()
        .map(|(name, by)| format!("{} {}", plain(name), change(*by)))
        .collect();
    if !rest.is_empty() {
        let by: i64 = rest.iter().map(|(_, by)| by).sum();
        words.push(format!("{} more {}", rest.len(), change(by)));
    }
    words.join(", ")
}

fn locking(unit: &Scale, rows: &[Locking]) -> Document {
    let (of, title) = match unit.lab {
        true => (Unit::Instructions, "instructions per exit"),
        false => (Unit::Nanoseconds, "ns per exit"),
    };
    let mut table = Table::new([
        Column::figures("vCPUs", Unit::Count),
        Column::words("lock"),
        Column::figures(title, of),
        Column::figures("95 % interval", of),
        Column::figures("exits per second", Unit::PerSecond),
        Column::figures("to one vCPU", Unit::Share),
        Column::figures("n", Unit::Count),
        Column::words("verdict"),
    ])
    .leaving(&["n", "to one vCPU", "95 % interval"]);
    for row in rows {
        let rate = row.exits_per_second.map(|rate| rate.value);
        let ratio = |ratio: Estimate| {
            let range = |(lo, hi)| Cell::range(Cell::Hundredths(lo), Cell::Hundredths(hi));
            Cell::estimate(Cell::Times(ratio.value), ratio.ci95.map(range))
        };
        let cells = [
            Cell::Whole(row.vcpus.into()),
            Cell::name(&row.lock),
            unit.estimate(row.per_exit),
            unit.range(row.per_exit),
            Cell::known(rate, Cell::Rounded),
            Cell::known(row.to_one, ratio),
            Cell::Whole(row.per_exit.map_or(0, |value| value.n as u64)),
            words::verdict(row.verdict).into(),
        ];
        table.toned(tone(row.verdict), cells);
    }
    let mut text = Document::new();
    text.table(table);
    let second = match unit.lab {
        true => ", in a virtual second of 10⁹ instructions",
        false => "",
    };
    text.note(format!(
            "per exit: the first vCPU's, its device's work included; exits per second: of all vCPUs{second}"
        ));
    text.note("lock: none; global: one around the device model, from the return of KVM_RUN to the next call; device: \
         one for each");
    text
}

fn notes(text: &mut Document, ladder: &Ladder) {
    let rungs = ladder.rungs.iter().map(|rung| {
        let name = plain(&rung.summary.row.name);
        (name, &rung.summary.notes)
    });
    let locking = ladder.locking.iter().map(|row| {
        let vcpus = of(row.vcpus.into(), "vCPU", "vCPUs");
        let name = format!("{vcpus} with lock {}", plain(&row.lock));
        (name, &row.notes)
    });
    let all: Vec<(String, &Vec<String>)> = rungs.chain(locking).collect();
    let mut said: Vec<&str> = Vec::new();
    for note in all.iter().flat_map(|(_, notes)| notes.iter()) {
        if said.contains(&note.as_str()) {
            continue;
        }
        said.push(note);
        let whose: Vec<&str> = all
            .iter()
            .filter(|(_, notes)| notes.contains(note))
            .map(|(name, _)| name.as_str())
            .collect();
        let whose = if whose.len() == all.len() && whose.len() > 1 {
            "all".to_owned()
        } else if whose.len() > MOST_NAMED {
            format!("{} of {}", whose.len(), all.len())
        } else {
            whose.join("; ")
        };
        text.note(format!("{whose}: {}", plain(note)));
    }
    for rung in &ladder.rungs {
        if !rung.delta_by_seed.is_empty() {
            let seeds: Vec<String> = rung
                .delta_by_seed
                .iter()
                .map(|(seed, delta)| format!("{} at seed {seed}", change(*delta as i64)))
                .collect();
            let name = plain(&rung.summary.row.name);
            text.note(format!("{name}: difference {}", seeds.join(", ")));
        }
    }
    let is_void = |verdict: &Verdict| *verdict == Verdict::Void;
    let rungs = ladder.rungs.iter().map(|rung| &rung.summary.verdict);
    let locking = ladder.locking.iter().map(|row| &row.verdict);
    if rungs.chain(locking).any(is_void) {
        text.lines("void: the value does not mean what the rung's name says\n");
    }
}
