//! What optional work costs: the waterfall, each knob, what knobs save together, and what remains.

use exitpath_analysis::ablation::summary::{Ablation, KnobCost, Status, rest, waterfall};
use exitpath_recording::{Machine, Manifest};

use super::environment::measured_on;
use crate::document::{Cell, Column, Document, Table, Tone, Unit};
use crate::words::status;

/// How wide the bar of the whole is.
const BAR: f64 = 40.0;
/// Interactions that are shown.
const SHOWN: usize = 8;

/// Each row's optional work.
pub fn ablations(manifest: &Manifest, ablations: &[Ablation]) -> Document {
    let mut text = Document::new();
    for ablation in ablations {
        if !text.blocks.is_empty() {
            text.space();
        }
        text.note(format!("{}: what optional work costs", ablation.row));
        measured_on(&mut text, manifest);
        of_row(&mut text, ablation);
    }
    text.warnings(&manifest.warnings);
    text
}

/// What an ablation's figures are.
fn unit(ablation: &Ablation) -> Unit {
    match ablation.machine {
        Machine::Lab => Unit::Instructions,
        Machine::Host => Unit::Nanoseconds,
    }
}

fn of_row(text: &mut Document, ablation: &Ablation) {
    let (Some(full), Some(all_off)) = (ablation.full, ablation.all_off) else {
        text.note("nothing could be measured with all on and with all off");
        return;
    };
    text.fact(match ablation.machine {
        Machine::Lab => "figures: instructions of one operation, the value of most samples; taken off in the order of their share",
        Machine::Host => "figures: nanoseconds of one operation, the mean of the runs' medians; taken off in the order of their share",
    });
    text.space();
    let bar = |value: f64| "█".repeat((BAR * value.max(0.0) / full.max(1.0)).round() as usize);
    let mut table = Table::new([
        Column::words("off so far"),
        Column::figures("saves", unit(ablation)),
        Column::figures("left", unit(ablation)),
        Column::words(""),
    ]);
    table.row([
        "all on".into(),
        Cell::Empty,
        Cell::Rounded(full),
        bar(full).into(),
    ]);
    for (name, share, left) in waterfall(ablation) {
        table.row([
            format!("− {name}").into(),
            Cell::Tenths(share),
            Cell::Tenths(left),
            bar(left).into(),
        ]);
    }
    let rest = rest(ablation).unwrap_or(0.0);
    if rest != 0.0 {
        table.row([
            "− what three and more save together".into(),
            Cell::Tenths(rest),
            Cell::Tenths(all_off),
        ]);
    }
    table.row([
        match ablation.machine {
            Machine::Lab => "all off, as measured".into(),
            Machine::Host => "all off: the remainder".into(),
        },
        Cell::Rounded(full - all_off),
        Cell::Rounded(all_off),
        bar(all_off).into(),
    ]);
    if let Some(floor) = ablation.floor {
        if let Some(shortcut) = floor.shortcut {
            table.toned(
                Tone::Faint,
                [
                    "floor: entered again at once behind its handler".into(),
                    Cell::Empty,
                    Cell::Whole(shortcut),
                    bar(shortcut as f64).into(),
                ],
            );
        }
        table.toned(
            Tone::Faint,
            [
                "floor: the assembly of entry and exit".into(),
                Cell::Empty,
                Cell::Whole(floor.assembly),
                bar(floor.assembly as f64).into(),
            ],
        );
    }
    text.table(table);
    if ablation.machine == Machine::Host {
        text.fact("the remainder: what the hardware adds, and all code that cannot be switched off here; a lab says what that is in instructions (`exitpath ablate` without --on)");
    }
    text.space();
    costs(text, ablation);
    together(text, ablation);
    not_measured(text, ablation);
}

/// What each measured knob costs.
fn costs(text: &mut Document, ablation: &Ablation) {
    let mut table = Table::new([
        Column::words("knob"),
        Column::figures("first", unit(ablation)),
        Column::figures("last", unit(ablation)),
        Column::figures("share", unit(ablation)),
        Column::figures("predicted", unit(ablation)),
        Column::words("what it is"),
    ])
    .leaving(&["what it is"]);
    let measured = ablation
        .knobs
        .iter()
        .filter_map(|knob| Some((knob, knob.cost?)));
    for (knob, cost) in measured {
        let share = Cell::estimate(
            Cell::Tenths(cost.shapley),
            knob.interval
                .map(|(low, high)| Cell::range(Cell::Tenths(low), Cell::Tenths(high))),
        );
        table.row([
            Cell::name(&knob.name),
            Cell::Rounded(cost.first),
            Cell::Rounded(cost.last),
            share,
            knob.predicted.map_or(Cell::Unknown, Cell::Signed),
            knob.what.as_str().into(),
        ]);
    }
    text.table(table);
    text.fact("first: what it saves while all else is on; last: while all else is off; share: over all orders of taking off (Shapley); predicted: by the trace, for first");
    let combinations = ablation
        .combinations
        .iter()
        .filter(|combination| combination.value.is_some())
        .count();
    text.fact(match ablation.all_combinations {
        true => format!("all combinations were measured: {combinations}"),
        false => format!(
            "{combinations} combinations were measured, in which effects of one and two knobs are kept apart; of these effects \
             values differ by {:.1} at most",
            ablation.unexplained
        ),
    });
    let missed = ablation.knobs.iter().filter_map(|knob| {
        let (cost, predicted) = (knob.cost?, knob.predicted?);
        (cost.first != predicted as f64)
            .then(|| format!("{} {:+}", knob.name, cost.first - predicted as f64))
    });
    let missed: Vec<String> = missed.collect();
    if !missed.is_empty() {
        text.fact(format!(
            "saved otherwise than predicted: {}",
            missed.join(", ")
        ));
    }
}

/// Knobs that save together something else than each by itself.
fn together(text: &mut Document, ablation: &Ablation) {
    if ablation.interactions.is_empty() {
        text.fact("no two knobs save together anything else than each by itself");
        return;
    }
    let mut table = Table::new([
        Column::words("together"),
        Column::figures("save more", unit(ablation)),
    ]);
    for (knobs, value) in ablation.interactions.iter().take(SHOWN) {
        table.row([knobs.join(" + ").into(), Cell::Tenths(*value)]);
    }
    text.space();
    text.table(table);
    let further = ablation.interactions.len().saturating_sub(SHOWN);
    if further > 0 {
        text.fact(format!("and {further} smaller ones, in JSON"));
    }
}

/// Knobs without figures, and why.
fn not_measured(text: &mut Document, ablation: &Ablation) {
    let without = |knob: &&KnobCost| knob.cost.is_none() && knob.status != Status::Absent;
    // Those for the same reason in one line.
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for knob in ablation.knobs.iter().filter(without) {
        let why = match &knob.status {
            Status::Required(why) | Status::LeftOut(why) => why.as_str(),
            Status::Measured | Status::Absent => "combinations with it are missing",
        };
        let line = why.lines().next().unwrap_or_default();
        let reason = format!("{}: {line}", status(&knob.status));
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(&knob.name),
            None => reasons.push((reason, vec![&knob.name])),
        }
    }
    for (reason, names) in reasons {
        text.note(format!("{}: {reason}", names.join(", ")));
    }
    let absent: Vec<&str> = ablation
        .knobs
        .iter()
        .filter(|knob| knob.status == Status::Absent)
        .map(|knob| knob.name.as_str())
        .collect();
    if !absent.is_empty() {
        let why = match ablation.machine {
            Machine::Lab => "not on this row's way",
            Machine::Host => "off, or not there",
        };
        text.fact(format!("{why}: {}", absent.join(", ")));
    }
}

/// The waterfall as a picture.
pub fn waterfall_svg(ablation: &Ablation) -> String {
    let (full, all_off) = (
        ablation.full.unwrap_or(0.0),
        ablation.all_off.unwrap_or(0.0),
    );
    let mut bars = vec![("all on".to_owned(), 0.0, full, String::new())];
    for (name, share, left) in waterfall(ablation) {
        bars.push((
            format!("− {name}"),
            left.min(left + share),
            share.abs(),
            format!("{share:.1}"),
        ));
    }
    bars.push(("all off".to_owned(), 0.0, all_off, String::new()));
    if let Some(floor) = ablation.floor {
        if let Some(shortcut) = floor.shortcut {
            bars.push((
                "floor: shortcut in C".to_owned(),
                0.0,
                shortcut as f64,
                String::new(),
            ));
        }
        bars.push((
            "floor: assembly".to_owned(),
            0.0,
            floor.assembly as f64,
            String::new(),
        ));
    }
    let (left, width, line) = (190.0, 560.0, 22.0);
    let height = 40.0 + line * bars.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"840\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<text x=\"8\" y=\"20\" font-weight=\"bold\">{}: what optional work costs, in {}</text>\n",
        crate::format::escaped(&ablation.row),
        unit(ablation).name()
    );
    let scale = width / full.max(1.0);
    for (at, (name, from, length, says)) in bars.iter().enumerate() {
        let y = 32.0 + line * at as f64;
        let colour = if says.is_empty() {
            "#4a6fa5"
        } else {
            "#c0504d"
        };
        let says = if says.is_empty() {
            format!("{length:.0}")
        } else {
            says.clone()
        };
        svg.push_str(&format!(
            "<text x=\"8\" y=\"{:.1}\">{}</text><rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{says}</text>\n",
            y + 14.0,
            crate::format::escaped(name),
            left + from * scale,
            (length * scale).max(1.0),
            line - 5.0,
            left + (from + length) * scale + 4.0,
            y + 14.0,
        ));
    }
    svg.push_str("</svg>\n");
    svg
}
