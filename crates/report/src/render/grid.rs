//! Tables of text without lines.
//!
//! A table that is too wide gives up columns, the least important one first, and says which; what is
//! the same in all of its rows is said below it. A number is never broken or cut.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::style::Style;
use super::wrap::wrapped;
use crate::document::Tone;
use crate::format::short;

/// A column of words is never made narrower than this.
const NARROWEST: usize = 12;

pub(super) struct Aligned {
    pub(super) title: String,
    /// Words, which may be cut; figures may not.
    pub(super) left: bool,
    /// How soon it is left out, from 0; `None`: never.
    pub(super) leaves: Option<usize>,
}

pub(super) struct Grid {
    pub(super) columns: Vec<Aligned>,
    /// As many cells as there are columns.
    pub(super) rows: Vec<(Vec<String>, Tone)>,
    /// Whether words may be cut where there is no room even without columns.
    pub(super) cut: bool,
}

impl Grid {
    /// Positions of columns that can be done without, the least important one first.
    fn leaving(&self) -> Vec<usize> {
        let mut leaving: Vec<usize> = (0..self.columns.len())
            .filter(|&column| self.columns[column].leaves.is_some())
            .collect();
        leaving.sort_by_key(|&column| self.columns[column].leaves);
        leaving
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows
            .iter()
            .map(move |(cells, _)| cells[column].as_str())
    }

    /// With its title in one line, or in as many as it has words.
    fn column_width(&self, column: usize, broken: bool) -> usize {
        let cells = self.cells(column).map(|cell| cell.chars().count());
        let title = &self.columns[column].title;
        let title = match broken {
            true => title.split(' ').map(|word| word.chars().count()).max(),
            false => Some(title.chars().count()),
        };
        // An empty one takes a blank, too.
        cells.chain(title).max().unwrap_or(0).max(1)
    }

    /// Of these columns: one blank before the first, two between.
    fn width(&self, columns: &[usize], broken: bool) -> usize {
        let cells: usize = columns.iter().map(|&i| self.column_width(i, broken)).sum();
        (cells + 2 * columns.len()).saturating_sub(1)
    }

    pub(super) fn lay_out(&self, text: &mut String, style: &Style) {
        let limit = style.width.unwrap_or(usize::MAX);
        let mut kept: Vec<usize> = (0..self.columns.len()).collect();
        let mut same = Vec::new();
        let mut left_out = Vec::new();
        let leaving = self.leaving();
        let broken = self.width(&kept, false) > limit;
        if broken && self.width(&kept, true) > limit {
            // What is the same in all rows need not be in each, and nothing at all need not be said.
            let uniform = leaving.iter().filter_map(|&column| {
                let mut cells = self.cells(column);
                let first = cells.next()?;
                (self.rows.len() > 1 && cells.all(|cell| cell == first)).then_some((column, first))
            });
            let (empty, uniform): (Vec<_>, Vec<_>) = uniform.partition(|(_, cell)| cell.is_empty());
            kept.retain(|column| !empty.iter().any(|(other, _)| other == column));
            for (column, cell) in uniform {
                if self.width(&kept, true) > limit {
                    kept.retain(|&other| other != column);
                    same.push(format!("{} {cell}", self.columns[column].title));
                }
            }
            for &column in &leaving {
                if self.width(&kept, true) > limit && kept.contains(&column) {
                    kept.retain(|&other| other != column);
                    left_out.push(column);
                }
            }
            // Others may be narrow enough to stay after all, the most important first.
            for column in left_out.clone().into_iter().rev() {
                let mut with: Vec<usize> = kept.iter().copied().chain([column]).collect();
                with.sort_unstable();
                if self.width(&with, true) <= limit {
                    kept = with;
                    left_out.retain(|&other| other != column);
                }
            }
        }
        let widths = self.narrowed(&kept, broken, limit);
        let lines = self.lines(&kept, &widths);
        let of_header = lines.len().saturating_sub(self.rows.len());
        let tones = std::iter::repeat_n(Tone::Plain, of_header);
        let tones = tones.chain(self.rows.iter().map(|(_, tone)| *tone));
        for (line, tone) in lines.iter().zip(tones) {
            text.push_str(&style.toned(tone, line));
            text.push('\n');
        }
        let mut say = |line: &str| style.note(text, line, Tone::Plain);
        if !same.is_empty() {
            say(&format!("in all rows: {}", same.join(", ")));
        }
        if !left_out.is_empty() {
            let titles: Vec<&str> = left_out
                .iter()
                .map(|&i| self.columns[i].title.as_str())
                .collect();
            let titles = titles.join(", ");
            say(&format!(
                "not shown: {titles} (a wider terminal, a file or a pipe has all columns)"
            ));
        }
    }

    /// How wide these columns may be: all as they are, but for columns of words where it would be too
    /// much together.
    fn narrowed(&self, kept: &[usize], broken: bool, limit: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = kept.iter().map(|&i| self.column_width(i, broken)).collect();
        let all =
            |widths: &[usize]| (widths.iter().sum::<usize>() + 2 * widths.len()).saturating_sub(1);
        while self.cut && all(&widths) > limit {
            let words = (0..kept.len()).filter(|&i| self.columns[kept[i]].left);
            let Some(widest) = words.max_by_key(|&i| widths[i]) else {
                break;
            };
            if widths[widest] <= NARROWEST {
                break;
            }
            widths[widest] -= 1;
        }
        // What is left goes to the titles with most lines.
        let lines = |i: usize, width: usize| {
            wrapped(&self.columns[kept[i]].title, width, 0)
                .matches('\n')
                .count()
        };
        while broken && all(&widths) < limit {
            let titles = (0..kept.len()).filter(|&i| lines(i, widths[i]) > 0);
            let Some(most) = titles.max_by_key(|&i| lines(i, widths[i])) else {
                break;
            };
            widths[most] += 1;
        }
        widths
    }

    /// The header and each row, without blanks at their ends.
    fn lines(&self, kept: &[usize], widths: &[usize]) -> Vec<String> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        let cell = |column: usize, text: String| {
            let alignment = match self.columns[column].left {
                true => CellAlignment::Left,
                false => CellAlignment::Right,
            };
            Cell::new(text).set_alignment(alignment)
        };
        let columns = || kept.iter().copied().zip(widths.iter().copied());
        // One that fits stays as it is: a folder's name may have two blanks in a row.
        let title = |(column, width): (usize, usize)| {
            let title = &self.columns[column].title;
            let fits = title.chars().count() <= width;
            cell(
                column,
                match fits {
                    true => title.clone(),
                    false => wrapped(title, width, 0),
                },
            )
        };
        table.set_header(columns().map(title));
        for (cells, _) in &self.rows {
            table.add_row(columns().map(|(column, width)| {
                let text = &cells[column];
                match self.columns[column].left {
                    true => cell(column, short(text, width)),
                    false => cell(column, text.clone()),
                }
            }));
        }
        table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let column = |title: &str, left, leaves| Aligned {
            title: title.to_owned(),
            left,
            leaves,
        };
        let row = |cells: [&str; 4]| (cells.map(str::to_owned).into(), Tone::Plain);
        Grid {
            columns: vec![
                column("name", true, None),
                column("first to leave", false, Some(0)),
                column("my  own", false, None),
                column("second", false, Some(1)),
            ],
            rows: vec![
                row(["a", "1,000", "20", "5"]),
                row(["bb", "2,000", "3", "5"]),
            ],
            cut: true,
        }
    }

    fn at(width: usize) -> String {
        let style = Style {
            width: Some(width),
            colour: false,
        };
        let mut text = String::new();
        grid().lay_out(&mut text, &style);
        text
    }

    #[test]
    fn titles_break_then_what_is_the_same_goes_then_columns_in_their_order() {
        assert!(at(80).starts_with(" name  first to leave  my  own  second\n"));
        // There is room for all but in one line.
        assert!(
            at(30)
                .lines()
                .nth(1)
                .is_some_and(|line| line.contains("leave"))
        );
        let of_one_line = |width| at(width).split_whitespace().collect::<Vec<_>>().join(" ");
        let narrower = of_one_line(22);
        assert!(narrower.ends_with("in all rows: second 5"), "{narrower}");
        let narrow = of_one_line(12);
        assert!(narrow.contains("bb 3 in all rows: second 5"), "{narrow}");
        assert!(narrow.contains("not shown: first to leave (a"), "{narrow}");
    }
}
