//! A document as Markdown, as GitHub reads it.

use std::fmt::Write;

use super::figures::cell;
use crate::document::{Block, Cell, Column, Document, Kind, Piece, Prose, Table};
use crate::format::plain;

impl Document {
    /// The document as Markdown. Names are marked as code, whatever they hold.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            self::block(&mut text, block);
        }
        text
    }
}

fn block(text: &mut String, block: &Block) {
    let _ = match block {
        Block::Title(words) => write!(text, "### {words}\n\n"),
        Block::Note(words, _) | Block::Fact(words) => write!(text, "{}\n\n", marked(words)),
        Block::Item(words) => writeln!(text, "- {}", marked(words)),
        Block::Table(table) => {
            self::table(text, table);
            Ok(())
        }
        Block::Details(summary, details) => {
            let summary = summary.to_string();
            let summary = summary.replace('&', "&amp;").replace('<', "&lt;");
            write!(
                text,
                "<details><summary>{summary}</summary>\n\n{}</details>\n\n",
                details.markdown()
            )
        }
        // What is aligned by characters stays as it is on a terminal.
        Block::Lines(_) | Block::Sum(_) | Block::Tree(_) | Block::Listing(_) => {
            let alone = Document {
                blocks: vec![block.clone()],
            };
            let lines = alone.to_string();
            match lines.trim_matches('\n') {
                "" => Ok(()),
                lines => write!(text, "```\n{lines}\n```\n\n"),
            }
        }
    };
}

fn table(text: &mut String, table: &Table) {
    let line = |text: &mut String, cells: &mut dyn Iterator<Item = String>| {
        for cell in cells {
            let _ = write!(text, "|{cell}");
        }
        text.push_str("|\n");
    };
    let title = |column: &Column| match column.title.as_str() {
        "" => " ".to_owned(),
        title => format!(" {title} "),
    };
    line(text, &mut table.columns.iter().map(title));
    let ruler = |column: &Column| match column.kind {
        Kind::Words(_) => "---".to_owned(),
        Kind::Figures(_) => "--:".to_owned(),
        Kind::Parts => ":-:".to_owned(),
    };
    line(text, &mut table.columns.iter().map(ruler));
    for row in &table.rows {
        let cells = row.cells.iter().map(|of| match of {
            Cell::Empty => " ".to_owned(),
            Cell::Words(words) => format!(" {} ", marked(words)),
            figure => format!(" {} ", cell(figure)),
        });
        line(text, &mut { cells });
    }
    text.push('\n');
}

/// Words with their names as code.
fn marked(prose: &Prose) -> String {
    let pieces = prose.0.iter().map(|piece| match piece {
        Piece::Words(words) => words.clone(),
        Piece::Name(name) => code(name),
    });
    pieces.collect()
}

/// Text that is taken as it is, inside a table too. Nothing stays nothing.
fn code(text: &str) -> String {
    let text = plain(text).replace('`', "'").replace('|', "\\|");
    match text.trim() {
        "" => String::new(),
        text => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Branch, Tone, Tree, Unit};

    #[test]
    fn every_block_has_its_markdown() {
        let mut table = Table::new([
            Column::words("row"),
            Column::figures("instructions", Unit::Instructions),
            Column::words(""),
        ]);
        table.row([Cell::name("a|b"), Cell::Whole(3_120)]);
        table.toned(Tone::Bad, ["odd".into(), Cell::Unknown, Cell::Change(-4)]);
        let branch = |depth, label: &str| Branch {
            depth,
            cells: vec![Cell::Whole(1)],
            label: label.into(),
        };
        let tree = Tree {
            columns: vec![Column::figures("own", Unit::Instructions)],
            title: "function",
            branches: vec![branch(0, "one round"), branch(1, "f")],
        };
        let mut text = Document::new();
        text.push(Block::Title("Exits".to_owned()));
        text.table(table);
        text.push(Block::Tree(tree));
        text.space();
        text.warnings(&["hot".to_owned()]);
        let expected = "### Exits\n\n\
                        | row | instructions | |\n|---|--:|---|\n\
                        | `a\\|b` | 3,120 | |\n| odd | – | −4 |\n\n\
                        ```\n own  function\n   1  one round\n   1  └── f\n```\n\n\
                        warning: hot\n\n";
        assert_eq!(text.markdown(), expected);
    }
}
