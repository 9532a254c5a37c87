//! A document as terminal text.

use std::fmt::{self, Write as _};

use super::figures::cell;
use super::grid::{Aligned, Grid};
use super::style::Style;
use crate::document::{Block, Column, Document, Kind, Listed, Listing, Table, Tone, Tree};
use crate::format::{none, of, short, thousands};

impl Document {
    /// The document as it is to be printed.
    pub fn laid_out(&self, style: &Style) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            self::block(&mut text, block, style);
        }
        text
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.laid_out(&Style::default()))
    }
}

fn block(text: &mut String, block: &Block, style: &Style) {
    match block {
        Block::Title(words) => {
            text.push_str(words);
            text.push('\n');
        }
        Block::Lines(lines) => text.push_str(lines),
        Block::Note(words, tone) => style.note(text, &words.to_string(), *tone),
        Block::Fact(words) => style.broken(text, &words.to_string(), usize::MAX, Tone::Plain),
        Block::Item(words) => style.note(text, &words.to_string(), Tone::Plain),
        Block::Sum(lines) => {
            for (name, value, range) in lines {
                let (value, range) = (cell(value), cell(range));
                let range = match range.as_str() {
                    "" => range,
                    range => format!("  ({range})"),
                };
                let _ = writeln!(text, " {name:<16} {value:>12}{range}");
            }
        }
        Block::Table(table) => grid(table).lay_out(text, style),
        Block::Tree(tree) => drawn(tree).lay_out(text, style),
        Block::Listing(listing) => list(text, listing),
        Block::Details(summary, details) => {
            style.note(text, &summary.to_string(), Tone::Plain);
            text.push_str(&details.laid_out(style));
        }
    }
}

fn aligned(column: &Column) -> Aligned {
    Aligned {
        title: column.title.clone(),
        left: matches!(column.kind, Kind::Words(_)),
        leaves: column.leaves,
    }
}

fn grid(table: &Table) -> Grid {
    let indent = table.indented.then(|| Aligned {
        title: String::new(),
        left: true,
        leaves: None,
    });
    let columns = indent.into_iter().chain(table.columns.iter().map(aligned));
    let rows = table.rows.iter().map(|row| {
        let cells = row.cells.iter().zip(&table.columns).map(|(of, column)| {
            match (column.kind, cell(of)) {
                (Kind::Words(Some(longest)), words) => short(&words, longest),
                (_, words) => words,
            }
        });
        let indent = table.indented.then(String::new);
        (indent.into_iter().chain(cells).collect(), row.tone)
    });
    Grid {
        columns: columns.collect(),
        rows: rows.collect(),
        cut: true,
    }
}

/// A tree with its branches drawn in the last column.
fn drawn(tree: &Tree) -> Grid {
    let title = Column::words(tree.title);
    let columns = tree.columns.iter().chain([&title]).map(aligned).collect();
    let mut indent: Vec<&str> = Vec::new();
    let rows = tree
        .branches
        .iter()
        .zip(tree.lasts())
        .map(|(branch, last)| {
            indent.truncate(branch.depth.saturating_sub(1));
            let own = match (branch.depth, last) {
                (0, _) => "",
                (_, true) => "└── ",
                (_, false) => "├── ",
            };
            let label = format!("{}{own}{}", indent.concat(), branch.label);
            if branch.depth > 0 {
                indent.push(if last { "    " } else { "│   " });
            }
            let cells = branch.cells.iter().map(cell).chain([label]).collect();
            (cells, Tone::Plain)
        });
    Grid {
        columns,
        rows: rows.collect(),
        // Of a tree the branches would be cut.
        cut: false,
    }
}

/// Columns for a number of times.
const WIDTH: usize = 7;
/// Columns before an instruction's text, but for those of the lean number of times.
const MARGIN: usize = WIDTH + 2 + 16 + 1 + 8 + 1;

fn list(text: &mut String, listing: &Listing) {
    let is_lean = |line: &Listed| matches!(line, Listed::Instruction { lean: Some(_), .. });
    let has_lean = listing.lines.iter().any(is_lean);
    let lean = |cell: &str| match has_lean {
        true => format!(" {cell:>WIDTH$}"),
        false => String::new(),
    };
    let margin = MARGIN + lean("").len();
    let _ = writeln!(
        text,
        "{:>WIDTH$}{}  {:<16} {:<8} instruction",
        "times",
        lean("lean"),
        "address",
        "offset"
    );
    for line in &listing.lines {
        let _ = match line {
            Listed::Instruction {
                times,
                lean: of_these,
                address,
                offset,
                text: instruction,
            } => {
                let times = times.map_or_else(none, thousands);
                let offset = offset.map_or_else(String::new, |offset| format!("+{offset:#x}"));
                writeln!(
                    text,
                    "{times:>WIDTH$}{}  {address:016x} {offset:<8} {instruction}",
                    lean(&of_these.map_or_else(none, thousands))
                )
            }
            Listed::Gap(bytes) => {
                writeln!(text, "{:>WIDTH$} {}", "⋮", of(*bytes, "byte", "bytes"))
            }
            Listed::Symbol(name) => writeln!(text, "{:margin$}{name}:", ""),
            Listed::Source(depth, what) => writeln!(
                text,
                "{:margin$}{:depth2$}; {what}",
                "",
                "",
                depth2 = 2 * depth
            ),
        };
    }
}
