//! Terminal text: the table of exits, the ladder, the views of a traced path, and what differs between two.

mod annotate;
pub(crate) mod diff;
mod doctor;
mod kick;
mod parts;
mod path;
mod rows;
mod tree;
mod userspace;
mod vmexit;
mod without;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use exitpath_analysis::table::{RowSummary, Variant, Verdict, qemu_version};
use exitpath_recording::{Machine, Manifest, fact};

pub use annotate::annotate;
pub use diff::{commit, diff, instruction};
pub use doctor::doctor;
pub use kick::kick;
pub use parts::{parts_of, under};
pub use path::{Functions, path, seeds};
pub use rows::rows;
pub use tree::tree;
pub use userspace::userspace;
pub use vmexit::vmexit;
pub use without::without;

use crate::format::{count, machine, none, plain, subject};
use crate::layout::{Text, Tone, new_table, push_lines, push_warnings, push_wrapped};
use crate::words;

/// A column's title.
const OTHER_VALUES: &str = "other values";
/// What these two columns are.
const EXITS_AND_USER: &str =
    "exits, user: exits, and those of them that return from KVM_RUN to the VMM, for one operation";
/// Columns for other values than the row's own; those that do not fit are counted.
const VARIANTS_WIDTH: usize = 44;
/// Seeds of such a value that a line shows; the rest are counted.
const SEEDS_SHOWN: usize = 3;

/// The table, what its columns mean, the notes, what it was measured on, and the warnings.
pub fn table(manifest: &Manifest, rows: &[RowSummary]) -> Text {
    let mut text = match manifest.machine {
        Machine::Lab => lab_table(manifest, rows),
        Machine::Host => host_table(manifest, rows),
    };
    notes(&mut text, rows);
    cpus(&mut text, rows);
    push_environment(&mut text, manifest);
    push_warnings(&mut text, &manifest.warnings);
    text
}

fn lab_table(manifest: &Manifest, rows: &[RowSummary]) -> Text {
    let header = [
        "row",
        "handled by",
        "exits",
        "user",
        "instructions",
        "samples",
        "interrupted",
        "verdict",
        OTHER_VALUES,
    ];
    let leaving = [
        "interrupted",
        "samples",
        OTHER_VALUES,
        "user",
        "exits",
        "handled by",
    ];
    let mut table = new_table(&header, &[0, 1, 7, 8]).leaving(&leaving);
    for row in rows {
        let cells = [
            plain(&row.row.name),
            handled(row),
            per_op(row.exits_per_op),
            per_op(row.userspace_exits_per_op),
            row.figures
                .map_or_else(none, |figures| count(figures.median)),
            count(row.samples as f64),
            count(row.interrupted as f64),
            words::verdict(row.verdict).to_owned(),
            variants(row, &manifest.environment.seeds),
        ];
        table.add_toned(tone(row.verdict), cells);
    }
    let mut text = Text::new();
    text.table(table);
    push_wrapped(&mut text, EXITS_AND_USER);
    push_wrapped(
        &mut text,
        "instructions: what most samples take, less what each takes without the operation; they are counted, \
         so that there is no interval",
    );
    if rows
        .iter()
        .any(|row| !variants(row, &manifest.environment.seeds).is_empty())
    {
        push_wrapped(
            &mut text,
            "other values: what other samples take, × how many of them, and in brackets under which seeds \
             where not under all",
        );
    }
    if rows.iter().any(|row| row.interrupted > 0) {
        push_wrapped(
            &mut text,
            "interrupted: samples that an interrupt of the lab's machine hit, left out of the figures",
        );
    }
    text
}

fn host_table(manifest: &Manifest, rows: &[RowSummary]) -> Text {
    let header = [
        "row",
        "handled by",
        "exits",
        "user",
        "floor",
        "median",
        "p99",
        "mean",
        "95 % interval",
        "cycles",
        "samples",
        "runs",
        "verdict",
    ];
    let leaving = [
        "runs",
        "samples",
        "floor",
        "cycles",
        "user",
        "p99",
        "exits",
        "handled by",
        "95 % interval",
        "mean",
    ];
    let mut table = new_table(&header, &[0, 1, 12]).leaving(&leaving);
    let to_ns = words::nanoseconds_per_tick(&manifest.environment);
    for row in rows {
        let ns = row
            .figures
            .zip(to_ns)
            .map(|(figures, factor)| figures.scaled(factor));
        let show = |value: Option<f64>| value.map_or_else(none, nanoseconds);
        let cells = [
            plain(&row.row.name),
            handled(row),
            per_op(row.exits_per_op),
            per_op(row.userspace_exits_per_op),
            show(ns.map(|f| f.floor)),
            show(ns.map(|f| f.median)),
            show(ns.map(|f| f.p99)),
            show(ns.map(|f| f.mean)),
            ns.and_then(|f| f.ci95).map_or_else(none, |(lo, hi)| {
                format!("{} … {}", nanoseconds(lo), nanoseconds(hi))
            }),
            row.figures
                .map_or_else(none, |figures| count(figures.median)),
            count(row.samples as f64),
            row.runs.to_string(),
            words::verdict(row.verdict).to_owned(),
        ];
        table.add_toned(tone(row.verdict), cells);
    }
    let mut text = Text::new();
    text.table(table);
    push_wrapped(&mut text, EXITS_AND_USER);
    push_wrapped(
        &mut text,
        "floor (p1), median, p99: of all samples, ns; mean: of the runs' means, with its interval, ns; cycles: \
         the median in TSC ticks",
    );
    push_wrapped(
        &mut text,
        "of each sample, what it takes without the operation is subtracted",
    );
    text
}

/// What is not clean stands out.
pub(crate) fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Clean => Tone::Plain,
        Verdict::Usable => Tone::Warning,
        Verdict::Void => Tone::Bad,
        Verdict::Skipped => Tone::Faint,
    }
}

fn handled(row: &RowSummary) -> String {
    row.handled_by
        .map_or_else(none, |by| words::handled_by(by).to_owned())
}

fn per_op(exits: Option<f64>) -> String {
    // Nothing is 0.00, not -0.00.
    exits.map_or_else(none, |exits| format!("{:.2}", exits + 0.0))
}

fn nanoseconds(value: f64) -> String {
    // Below 100 a tenth of a nanosecond tells; and there is no -0.0.
    let tenths = (value * 10.0).round() / 10.0 + 0.0;
    if tenths.abs() < 100.0 {
        format!("{tenths:.1}")
    } else {
        count(value)
    }
}

/// The values beside the row's own that were not interrupted. Seeds are named where a value did not
/// occur under all.
fn variants(row: &RowSummary, all: &[u64]) -> String {
    let value = row.figures.map(|figures| figures.median);
    let others: Vec<&Variant> = row
        .variants
        .iter()
        .filter(|variant| !variant.interrupted && Some(variant.instructions as f64) != value)
        .collect();
    let mut text = String::new();
    for (i, variant) in others.iter().enumerate() {
        let instructions = count(variant.instructions as f64);
        let seeds = where_seen(&variant.seeds, all);
        let separator = if i == 0 { "" } else { ", " };
        let next = format!("{separator}{instructions} × {}{seeds}", variant.samples);
        let rest = match others.len() - i {
            1 => String::new(),
            rest => format!(", {rest} more"),
        };
        if i > 0 && text.chars().chain(next.chars()).chain(rest.chars()).count() > VARIANTS_WIDTH {
            let _ = write!(text, ", {} more", others.len() - i);
            break;
        }
        text.push_str(&next);
    }
    text
}

/// Nothing where these are all.
fn where_seen(seeds: &[u64], all: &[u64]) -> String {
    if all.iter().all(|seed| seeds.contains(seed)) {
        return String::new();
    }
    let mut shown: Vec<String> = seeds.iter().take(SEEDS_SHOWN).map(u64::to_string).collect();
    if seeds.len() > SEEDS_SHOWN {
        shown.push(format!("+{}", seeds.len() - SEEDS_SHOWN));
    }
    format!(" [{}]", shown.join(" "))
}

fn names<'a>(rows: impl Iterator<Item = &'a RowSummary>) -> Vec<String> {
    rows.map(|row| plain(&row.row.name)).collect()
}

fn notes(text: &mut Text, rows: &[RowSummary]) {
    // One reason often holds for many rows: say it once.
    let mut said: Vec<&str> = Vec::new();
    for note in rows.iter().flat_map(|row| &row.notes) {
        if said.contains(&note.as_str()) {
            continue;
        }
        said.push(note);
        let names = names(rows.iter().filter(|row| row.notes.contains(note)));
        let whose = if names.len() == rows.len() && names.len() > 1 {
            "all rows".to_owned()
        } else {
            names.join(", ")
        };
        push_wrapped(text, &format!("{whose}: {}", plain(note)));
    }
    if rows.iter().any(|row| row.verdict == Verdict::Void) {
        text.push_str("void: the value does not mean what the row's name says\n");
    }
}

/// Which rows were measured on how many CPUs, where it was not the same number.
fn cpus(text: &mut Text, rows: &[RowSummary]) {
    let counts: BTreeSet<u32> = rows.iter().map(|row| row.cpus).collect();
    let counts: Vec<u32> = counts.into_iter().filter(|&cpus| cpus > 0).collect();
    let [least, more @ ..] = counts.as_slice() else {
        return;
    };
    for &cpus in more {
        let names = names(rows.iter().filter(|row| row.cpus == cpus)).join(", ");
        push_wrapped(text, &format!("on {cpus} CPUs: {names}; others on {least}"));
    }
}

/// What QEMU 10 or a later one would change, and how to get it.
pub const NEWER_QEMU: &str = "with QEMU 10 or later, rows of two vCPUs run on two CPUs (with this QEMU their \
                              threads share one, and they measure its scheduling), xsetbv exits, and many \
                              rows take 1 or 2 % fewer instructions: `exitpath lab qemu --fetch` (or `make \
                              qemu10`) gets QEMU 10, without root";

/// Appends what the figures hold for, and what another emulator would change.
pub(crate) fn push_environment(text: &mut Text, manifest: &Manifest) {
    push_lines(text, &environment(manifest));
    let is_old = qemu_version(&manifest.environment).is_some_and(|(major, _)| major < 10);
    if manifest.machine == Machine::Lab && is_old {
        push_wrapped(text, &format!("QEMU: {NEWER_QEMU}"));
    }
}

/// What the figures hold for: a line on the machine and one on its kernel, and one on the VMM where
/// that is not exitpath's own.
pub fn environment(manifest: &Manifest) -> String {
    let environment = &manifest.environment;
    let machine = machine(manifest, environment.cpus, &environment.seeds);
    let mut text = format!("{machine}\n{}", subject(manifest));
    let text_of = |name| environment.facts.get(name).and_then(|fact| fact.as_str());
    if let Some(command) = text_of(fact::VMM_COMMAND) {
        let version = text_of(fact::VMM_VERSION).map_or_else(String::new, |version| {
            format!(" (version {})", plain(version))
        });
        let _ = write!(text, "\nunder: {}{version}", plain(command));
    }
    text
}
