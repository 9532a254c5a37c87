//! The unit costs of an exit's way: what each takes, how often it is used, and what that makes.

use exitpath_analysis::table::RowSummary;
use exitpath_recording::{Machine, Manifest};

use super::environment::{environment, tone};
use crate::document::{Cell, Column, Document, Table, Unit};
use crate::json::Used;
use crate::words;

/// The rows whose ways are looked at, as they are called in `used`, with a column's title for each.
const WAYS: [(&str, &str); 2] = [("cpuid", "in cpuid"), ("pio_user_write", "in a user exit")];

/// All primitives.
pub fn primitives(
    manifest: &Manifest,
    rows: &[RowSummary],
    what: impl Fn(&str) -> &'static str,
    used: &Used,
) -> Document {
    let (unit, factor) = match manifest.machine {
        Machine::Lab => (Unit::Instructions, Some(1.0)),
        Machine::Host => (
            Unit::Nanoseconds,
            manifest.environment.nanoseconds_per_tick(),
        ),
    };
    let mut columns = vec![
        Column::words("primitive"),
        Column::figures(unit.name(), unit),
    ];
    if manifest.machine == Machine::Host {
        columns.push(Column::figures(Unit::Ticks.name(), Unit::Ticks));
    }
    for (_, title) in WAYS {
        columns.push(Column::figures(title, Unit::Count));
        columns.push(Column::figures("makes", unit));
    }
    columns.push(Column::words("verdict"));
    columns.push(Column::words("used for"));
    let mut table = Table::new(columns).leaving(&["used for", "verdict"]);
    for row in rows {
        let median = row
            .figures
            .zip(factor)
            .map(|(figures, factor)| figures.scaled(factor).median);
        let figure = |value: f64| match manifest.machine {
            Machine::Lab => Cell::Rounded(value),
            Machine::Host => Cell::Tenths(value),
        };
        let mut cells = vec![Cell::name(&row.row.name), Cell::known(median, figure)];
        if manifest.machine == Machine::Host {
            cells.push(Cell::known(row.figures, |figures| {
                Cell::Rounded(figures.median)
            }));
        }
        for (way, _) in WAYS {
            let times = used
                .get(&row.row.name)
                .and_then(|used| used.get(way))
                .copied();
            cells.push(times.map_or(Cell::Empty, Cell::Whole));
            let made = times
                .filter(|times| *times > 0)
                .zip(median)
                .map(|(times, median)| times as f64 * median);
            cells.push(made.map_or(Cell::Empty, figure));
        }
        cells.push(words::verdict(row.verdict).into());
        cells.push(what(&row.row.name).into());
        table.toned(tone(row.verdict), cells);
    }
    let mut text = Document::new();
    text.table(table);
    text.note("what one takes at CPL 0 in a guest, less the bracket around it; how often the kernel's half of an exit executes it, by a trace in the lab; and \
               the product, which is no part of the exit's time: what surrounds an instruction changes what it costs");
    if used.is_empty() {
        text.note("how often each is used is not known here: a path is traced in the lab only");
    }
    environment(&mut text, manifest);
    text.warnings(&manifest.warnings);
    text
}
