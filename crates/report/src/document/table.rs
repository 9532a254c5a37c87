//! Tables.

use super::{Cell, Tone, Unit};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Words, of which a renderer may cut what is longer than so many characters.
    Words(Option<usize>),
    /// Figures, which are never cut.
    Figures(Unit),
    /// So many of so many.
    Parts,
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) title: String,
    pub(crate) kind: Kind,
    /// How soon it is left out where there is no room, from 0; `None`: never.
    pub(crate) leaves: Option<usize>,
}

impl Column {
    pub(crate) fn words(title: impl Into<String>) -> Column {
        Column {
            title: title.into(),
            kind: Kind::Words(None),
            leaves: None,
        }
    }

    /// A column of names, of which the middle is left out where they are longer than this.
    pub(crate) fn names(title: impl Into<String>, longest: usize) -> Column {
        Column {
            kind: Kind::Words(Some(longest)),
            ..Column::words(title)
        }
    }

    pub(crate) fn parts(title: impl Into<String>) -> Column {
        Column {
            kind: Kind::Parts,
            ..Column::words(title)
        }
    }

    pub(crate) fn figures(title: impl Into<String>, unit: Unit) -> Column {
        Column {
            kind: Kind::Figures(unit),
            ..Column::words(title)
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// As many as there are columns.
    pub(crate) cells: Vec<Cell>,
    pub(crate) tone: Tone,
}

/// A table.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
    /// Whether it belongs to the line above it.
    pub(crate) indented: bool,
}

impl Table {
    pub(crate) fn new(columns: impl IntoIterator<Item = Column>) -> Table {
        Table {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
            indented: false,
        }
    }

    /// Columns that can be done without where there is no room, by their titles, the least important one first.
    pub(crate) fn leaving(mut self, titles: &[&str]) -> Table {
        for column in &mut self.columns {
            column.leaves = titles.iter().position(|title| *title == column.title);
        }
        self
    }

    /// The table without the columns of these titles.
    pub(crate) fn without(mut self, titles: &[&str]) -> Table {
        let leaves = |column: &Column| titles.contains(&column.title.as_str());
        while let Some(at) = self.columns.iter().position(leaves) {
            self.columns.remove(at);
            for row in &mut self.rows {
                row.cells.remove(at);
            }
        }
        self
    }

    /// As a part of what the line above it says.
    pub(crate) fn indented(mut self) -> Table {
        self.indented = true;
        self
    }

    /// Appends a row. Cells that it lacks are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.toned(Tone::Plain, cells);
    }

    /// Appends a row that stands out.
    pub(crate) fn toned(&mut self, tone: Tone, cells: impl IntoIterator<Item = Cell>) {
        let mut cells: Vec<Cell> = cells.into_iter().collect();
        cells.resize(self.columns.len(), Cell::Empty);
        self.rows.push(Row { cells, tone });
    }
}
