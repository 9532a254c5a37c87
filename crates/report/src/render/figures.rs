//! How figures look.

use crate::document::Cell;
use crate::format::{change, count, none, signed, thousands};

/// A cell with its words as they are.
pub(super) fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Unknown => none(),
        Cell::Words(words) => words.to_string(),
        Cell::Whole(number) => thousands(*number),
        Cell::Signed(number) => signed(*number),
        Cell::Change(by) => change(*by),
        Cell::Rounded(value) => count(*value),
        Cell::Tenths(value) => tenths(*value),
        // Nothing is 0.00, not -0.00.
        Cell::Hundredths(value) => format!("{:.2}", value + 0.0),
        Cell::Share(_, 0) => none(),
        Cell::Share(part, whole) => format!("{:.1} %", 100.0 * *part as f64 / *whole as f64),
        Cell::Parts(part, whole) => format!("{part}/{whole}"),
        Cell::Times(ratio) => format!("{ratio:.2} ×"),
        Cell::Range(least, most) => format!("{} … {}", self::cell(least), self::cell(most)),
        Cell::Estimate(value, range) => format!("{} [{}]", self::cell(value), self::cell(range)),
    }
}

fn tenths(value: f64) -> String {
    // Below 100 a tenth tells; and there is no -0.0.
    let tenths = (value * 10.0).round() / 10.0 + 0.0;
    if tenths.abs() < 100.0 {
        format!("{tenths:.1}")
    } else {
        count(value)
    }
}
