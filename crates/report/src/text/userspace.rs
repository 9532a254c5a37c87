//! The ladder: what each layer of a VMM's path adds to an exit.

use std::fmt::Write;

use exitpath_analysis::table::Verdict;
use exitpath_analysis::userspace::{Estimate, Ladder, Locking, Rung, Sum};
use exitpath_recording::{Manifest, counter};

use super::{push_environment, tone};
use crate::format::{Unit, change, count, none, of, plain, thousands};
use crate::layout::{Text, new_table, push_warnings, push_wrapped};
use crate::words;

/// Functions that a line on a difference names; the rest are summed.
const NAMED: usize = 6;
/// Rungs that a note names; of more it says how many they are.
const MOST_NAMED: usize = 8;

/// The rungs, whether they add up, several vCPUs, and what it all holds for.
pub fn userspace(manifest: &Manifest, ladder: &Ladder) -> Text {
    let unit = Unit::of(manifest);
    let mut text = rungs(&unit, &ladder.rungs);
    if let Some(sum) = &ladder.sum {
        text.push('\n');
        add_up(&mut text, &unit, sum);
    }
    if ladder.rungs.iter().any(|rung| rung.explained.is_some()) {
        text.push_str("\nwhere the differences are, function by function:\n");
        for rung in &ladder.rungs {
            explained(&mut text, rung);
        }
    }
    if !ladder.locking.is_empty() {
        text.push('\n');
        text.append(locking(&unit, &ladder.locking));
    }
    text.push('\n');
    notes(&mut text, ladder);
    push_environment(&mut text, manifest);
    push_warnings(&mut text, &manifest.warnings);
    text
}

impl Unit {
    fn estimate(&self, estimate: Option<Estimate>) -> String {
        estimate.map_or_else(none, |estimate| self.value(estimate.value))
    }

    fn difference(&self, ticks: f64) -> String {
        self.factor
            .map_or_else(none, |factor| change((ticks * factor).round() as i64))
    }

    /// A difference's interval.
    fn interval(&self, estimate: Option<Estimate>) -> String {
        let interval = estimate.and_then(|estimate| estimate.ci95);
        interval.map_or_else(none, |(lo, hi)| {
            format!("{} … {}", self.difference(lo), self.difference(hi))
        })
    }

    /// A value's interval.
    fn range(&self, estimate: Option<Estimate>) -> String {
        let interval = estimate.and_then(|estimate| estimate.ci95);
        interval.map_or_else(none, |(lo, hi)| {
            format!("{} … {}", self.value(lo), self.value(hi))
        })
    }
}

fn rungs(unit: &Unit, rungs: &[Rung]) -> Text {
    let title = if unit.lab { "instructions" } else { "mean, ns" };
    let mut header = vec!["rung", title, "difference"];
    if !unit.lab {
        header.push("95 % interval");
    }
    header.push("to");
    let traced = rungs.iter().any(|rung| rung.explained.is_some());
    if traced {
        header.extend(["kernel", "libc", "VMM"]);
    }
    header.extend(["state reloads", "n", "verdict", "what it is"]);
    let to = if unit.lab { 3 } else { 4 };
    let left = [0, to, header.len() - 2, header.len() - 1];
    let leaving = [
        "what it is",
        "n",
        "state reloads",
        "libc",
        "VMM",
        "kernel",
        "to",
    ];
    let mut table = new_table(&header, &left).leaving(&leaving);
    for rung in rungs {
        let mut cells = vec![
            plain(&rung.summary.row.name),
            unit.estimate(rung.value),
            rung.delta
                .map_or_else(none, |delta| unit.difference(delta.value)),
        ];
        if !unit.lab {
            cells.push(unit.interval(rung.delta));
        }
        cells.push(rung.info.reference.as_deref().map_or_else(none, plain));
        if traced {
            let share = rung.explained.as_ref().map(|explained| explained.share);
            for part in [
                share.map(|share| share.kernel),
                share.map(|share| share.libc),
                share.map(|share| share.vmm),
            ] {
                cells.push(part.map_or_else(none, thousands));
            }
        }
        let reloads = rung.witness.get(counter::HOST_STATE_RELOAD);
        cells.push(reloads.map_or_else(none, |reloads| format!("{:.2}", reloads + 0.0)));
        let n = rung.delta.or(rung.value).map_or(0, |value| value.n);
        cells.push(n.to_string());
        cells.push(words::verdict(rung.delta_verdict).to_owned());
        cells.push(plain(&rung.summary.row.operation));
        table.add_toned(tone(rung.delta_verdict), cells);
    }
    let mut text = Text::new();
    text.table(table);
    let what = if unit.lab {
        "instructions: of one port write, less what goes on without it; difference: to the rung named, at the first seed"
    } else {
        "mean: of one port write, over runs, less what goes on without it; difference: to the rung named, within blocks"
    };
    push_wrapped(&mut text, what);
    if traced {
        let whose = "kernel, libc, VMM: whose instructions they are; the guest's one is left out";
        push_wrapped(&mut text, whose);
    }
    push_wrapped(
        &mut text,
        "state reloads: KVM's host_state_reload per operation: 0 where the exit stays in the kernel, 1 where it \
         leaves it, and on AMD 1 more for each further ioctl that takes the vCPU",
    );
    let n = if unit.lab { "seeds" } else { "runs" };
    push_wrapped(
        &mut text,
        &format!("n: {n}; verdict: of the rung and of the one it is compared with, the worse"),
    );
    let two: Vec<String> = rungs
        .iter()
        .filter(|rung| unit.lab && rung.summary.cpus > 1)
        .map(|rung| plain(&rung.summary.row.name))
        .collect();
    if !two.is_empty() {
        push_wrapped(
            &mut text,
            &format!("on 2 CPUs: {}; others on 1", two.join(", ")),
        );
    }
    text
}

fn add_up(text: &mut Text, unit: &Unit, sum: &Sum) {
    let line = |name: &str, estimate: Estimate, signed: bool| {
        let value = if signed {
            unit.difference(estimate.value)
        } else {
            unit.value(estimate.value)
        };
        let interval = match estimate.ci95 {
            None => String::new(),
            Some(_) if signed => format!("  ({})", unit.interval(Some(estimate))),
            Some(_) => format!("  ({})", unit.range(Some(estimate))),
        };
        format!(" {name:<16} {value:>12}{interval}\n")
    };
    text.push_str("do the layers add up?\n");
    text.push_str(&line("bare", sum.bare, false));
    text.push_str(&line("sum of layers", sum.sum_of_deltas, true));
    text.push_str(&line("interaction", sum.interaction, true));
    text.push_str(&line("= all_on", sum.all_on, false));
    if sum.verdict > Verdict::Usable {
        push_wrapped(text, "void: a rung of the sum is; it means nothing");
    }
    if let Some(unexplained) = sum.unexplained.filter(|_| !sum.functions.is_empty()) {
        let rest = match unexplained {
            0 => String::new(),
            rest => format!("; not explained {}", change(rest)),
        };
        push_wrapped(
            text,
            &format!("interaction: {}{rest}", changes(&sum.functions)),
        );
    }
}

fn explained(text: &mut Text, rung: &Rung) {
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
    push_wrapped(text, &line);
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

fn locking(unit: &Unit, rows: &[Locking]) -> Text {
    let title = if unit.lab {
        "instructions per exit"
    } else {
        "ns per exit"
    };
    let header = [
        "vCPUs",
        "lock",
        title,
        "95 % interval",
        "exits per second",
        "to one vCPU",
        "n",
        "verdict",
    ];
    let leaving = ["n", "to one vCPU", "95 % interval"];
    let mut table = new_table(&header, &[1, 7]).leaving(&leaving);
    for row in rows {
        let rate = row.exits_per_second.map(|rate| rate.value);
        let ratio = row.to_one.map(|ratio| match ratio.ci95 {
            Some((lo, hi)) => format!("{:.2} × [{lo:.2} … {hi:.2}]", ratio.value),
            None => format!("{:.2} ×", ratio.value),
        });
        let cells = [
            row.vcpus.to_string(),
            plain(&row.lock),
            unit.estimate(row.per_exit),
            unit.range(row.per_exit),
            rate.map_or_else(none, count),
            ratio.unwrap_or_else(none),
            row.per_exit.map_or(0, |value| value.n).to_string(),
            words::verdict(row.verdict).to_owned(),
        ];
        table.add_toned(tone(row.verdict), cells);
    }
    let mut text = Text::new();
    text.table(table);
    let second = match unit.lab {
        true => ", in a virtual second of 10⁹ instructions",
        false => "",
    };
    push_wrapped(
        &mut text,
        &format!(
            "per exit: the first vCPU's, its device's work included; exits per second: of all vCPUs{second}"
        ),
    );
    push_wrapped(
        &mut text,
        "lock: none; global: one around the device model, from the return of KVM_RUN to the next call; device: \
         one for each",
    );
    text
}

fn notes(text: &mut Text, ladder: &Ladder) {
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
        push_wrapped(text, &format!("{whose}: {}", plain(note)));
    }
    for rung in &ladder.rungs {
        if !rung.delta_by_seed.is_empty() {
            let seeds: Vec<String> = rung
                .delta_by_seed
                .iter()
                .map(|(seed, delta)| format!("{} at seed {seed}", change(*delta as i64)))
                .collect();
            let name = plain(&rung.summary.row.name);
            push_wrapped(text, &format!("{name}: difference {}", seeds.join(", ")));
        }
    }
    let is_void = |verdict: &Verdict| *verdict == Verdict::Void;
    let rungs = ladder.rungs.iter().map(|rung| &rung.summary.verdict);
    let locking = ladder.locking.iter().map(|row| &row.verdict);
    if rungs.chain(locking).any(is_void) {
        text.push_str("void: the value does not mean what the rung's name says\n");
    }
}
