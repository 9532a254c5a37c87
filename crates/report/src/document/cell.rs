//! What stands in a table.

use super::Prose;

/// What a column's figures count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things: samples, seeds, calls, exits for one operation.
    Count,
    /// Instructions of one round or operation.
    Instructions,
    Nanoseconds,
    /// Ticks of the TSC.
    Ticks,
    /// Of a whole.
    Share,
    /// Requests or exits in a second; in the lab in one of 10⁹ instructions.
    PerSecond,
}

impl Unit {
    /// The word for it, as a column's title or in a sentence.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::Count => "number",
            Unit::Instructions => "instructions",
            Unit::Nanoseconds => "ns",
            Unit::Ticks => "cycles",
            Unit::Share => "share",
            Unit::PerSecond => "per second",
        }
    }
}

/// What stands in a table, or beside a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// Nothing.
    Empty,
    /// No figure where there could be one.
    Unknown,
    Words(Prose),
    /// A whole number.
    Whole(u64),
    /// One that may be below zero.
    Signed(i64),
    /// A difference.
    Change(i64),
    /// A number of which the whole part tells.
    Rounded(f64),
    /// A number of which tenths tell while it is below 100.
    Tenths(f64),
    /// A number of which hundredths tell.
    Hundredths(f64),
    /// So much as a share of the whole: `Unknown` of nothing.
    Share(u64, u64),
    /// So many of so many.
    Parts(u64, u64),
    /// So many times as much.
    Times(f64),
    /// From the first to the second.
    Range(Box<Cell>, Box<Cell>),
    /// A value and the range in which it is to be expected.
    Estimate(Box<Cell>, Box<Cell>),
}

impl Cell {
    /// A name of something.
    pub(crate) fn name(name: &str) -> Cell {
        Cell::Words(Prose::of(name))
    }

    pub(crate) fn range(least: Cell, most: Cell) -> Cell {
        Cell::Range(Box::new(least), Box::new(most))
    }

    /// A value, with its range where there is one.
    pub(crate) fn estimate(value: Cell, range: Option<Cell>) -> Cell {
        match range {
            Some(range) => Cell::Estimate(Box::new(value), Box::new(range)),
            None => value,
        }
    }

    /// The cell of a value, where there is one.
    pub(crate) fn known<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell) -> Cell {
        value.map_or(Cell::Unknown, cell)
    }
}

impl From<&str> for Cell {
    fn from(words: &str) -> Cell {
        Cell::Words(words.into())
    }
}

impl From<String> for Cell {
    fn from(words: String) -> Cell {
        Cell::Words(words.into())
    }
}

impl From<Prose> for Cell {
    fn from(words: Prose) -> Cell {
        Cell::Words(words)
    }
}
