//! Text whose layout is chosen at the end: how wide it may be, and whether it has colours.
//!
//! A table that is too wide gives up columns, the least important one first, and says which; what is
//! the same in all of its rows is said below it. A number is never broken or cut.

use std::fmt;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::format::{plain, short};

/// Columns after which a note goes on in the next line, however wide the terminal is.
const NOTE_WIDTH: usize = 120;
/// A column of words is never made narrower than this.
const NARROWEST: usize = 12;

/// What text is to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Columns of the terminal; `None` where there is no limit, as in a pipe.
    pub width: Option<usize>,
    /// Whether what is not as it should be is coloured.
    pub colour: bool,
}

/// How much a line stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    #[default]
    Plain,
    /// Less than others: nothing was measured.
    Faint,
    /// To be looked at.
    Warning,
    /// Not to be believed.
    Bad,
}

impl Tone {
    /// The line with its colour, if there are colours: SGR of ECMA-48.
    fn on(self, line: &str, style: &Style) -> String {
        let code = match self {
            Tone::Plain => return line.to_owned(),
            Tone::Faint => 2,
            Tone::Warning => 33,
            Tone::Bad => 31,
        };
        if style.colour {
            format!("\u{1b}[{code}m{line}\u{1b}[0m")
        } else {
            line.to_owned()
        }
    }
}

/// Lines and tables, not yet laid out. Its `Display` is without a limit and without colours.
#[derive(Debug, Clone, Default)]
pub struct Text {
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
enum Block {
    /// As it is.
    Fixed(String),
    /// One line, which is broken where it is longer than this.
    Note(String, usize, Tone),
    Table(Grid),
}

impl Text {
    pub(crate) fn new() -> Text {
        Text::default()
    }

    pub(crate) fn push(&mut self, character: char) {
        self.push_str(character.encode_utf8(&mut [0; 4]));
    }

    /// Appends text that is not to be broken.
    pub fn push_str(&mut self, text: &str) {
        match self.blocks.last_mut() {
            Some(Block::Fixed(last)) => last.push_str(text),
            _ => self.blocks.push(Block::Fixed(text.to_owned())),
        }
    }

    /// Appends another text.
    pub fn append(&mut self, other: Text) {
        self.blocks.extend(other.blocks);
    }

    /// Appends a table and a line break.
    pub(crate) fn table(&mut self, grid: Grid) {
        self.blocks.push(Block::Table(grid));
    }

    /// The text as it is to be printed.
    pub fn laid_out(&self, style: &Style) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            match block {
                Block::Fixed(lines) => text.push_str(lines),
                Block::Note(line, limit, tone) => note(&mut text, line, *limit, *tone, style),
                Block::Table(grid) => grid.lay_out(&mut text, style),
            }
        }
        text
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.laid_out(&Style::default()))
    }
}

/// Appends a line that is broken where it is too long; what follows is indented.
pub(crate) fn push_wrapped(text: &mut Text, line: &str) {
    let tone = match line.starts_with("warning:") {
        true => Tone::Warning,
        false => Tone::Plain,
    };
    text.blocks
        .push(Block::Note(line.to_owned(), NOTE_WIDTH, tone));
}

/// Appends a line for each warning.
pub(crate) fn push_warnings(text: &mut Text, warnings: &[String]) {
    for warning in warnings {
        push_wrapped(text, &format!("warning: {}", plain(warning)));
    }
}

/// Appends lines each of which is broken only where a terminal is narrower.
pub(crate) fn push_lines(text: &mut Text, lines: &str) {
    for line in lines.lines() {
        text.blocks
            .push(Block::Note(line.to_owned(), usize::MAX, Tone::Plain));
    }
}

fn note(text: &mut String, line: &str, limit: usize, tone: Tone, style: &Style) {
    let limit = style.width.map_or(limit, |width| limit.min(width));
    let mut broken = String::new();
    let mut column = 0;
    for word in line.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > limit {
            broken.push_str("\n ");
            column = 1;
        }
        if column > 0 {
            broken.push(' ');
            column += 1;
        }
        broken.push_str(word);
        column += width;
    }
    text.push_str(&tone.on(&broken, style));
    text.push('\n');
}

/// A table without lines.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    columns: Vec<Column>,
    rows: Vec<(Vec<String>, Tone)>,
    /// Positions of columns that can be done without, the least important one first.
    leaving: Vec<usize>,
    /// Whether words may be cut where there is no room even so.
    cut: bool,
}

#[derive(Debug, Clone)]
struct Column {
    title: String,
    left: bool,
}

/// A table; the columns at the positions `left` are words, aligned to the left.
pub(crate) fn new_table(header: &[&str], left: &[usize]) -> Grid {
    let columns = header.iter().enumerate().map(|(i, title)| Column {
        title: (*title).to_owned(),
        left: left.contains(&i),
    });
    Grid {
        columns: columns.collect(),
        rows: Vec::new(),
        leaving: Vec::new(),
        cut: true,
    }
}

impl Grid {
    /// Columns that can be done without where there is no room, the least important one first.
    pub(crate) fn leaving(mut self, titles: &[&str]) -> Grid {
        let at = |title: &&str| {
            self.columns
                .iter()
                .position(|column| column.title == **title)
        };
        self.leaving = titles.iter().filter_map(at).collect();
        self
    }

    /// Leaves words whole, whatever room there is: of a tree the branches would be cut.
    pub(crate) fn uncut(mut self) -> Grid {
        self.cut = false;
        self
    }

    /// Appends a row. Cells that it lacks are empty.
    pub(crate) fn add_row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.add_toned(Tone::Plain, cells);
    }

    /// Appends a row that stands out.
    pub(crate) fn add_toned<C: Into<String>>(
        &mut self,
        tone: Tone,
        cells: impl IntoIterator<Item = C>,
    ) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push((cells, tone));
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

    fn lay_out(&self, text: &mut String, style: &Style) {
        let limit = style.width.unwrap_or(usize::MAX);
        let mut kept: Vec<usize> = (0..self.columns.len()).collect();
        let mut same = Vec::new();
        let mut left_out = Vec::new();
        let broken = self.width(&kept, false) > limit;
        if broken && self.width(&kept, true) > limit {
            // What is the same in all rows need not be in each, and nothing at all need not be said.
            let uniform = self.leaving.iter().filter_map(|&column| {
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
            for &column in &self.leaving {
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
            text.push_str(&tone.on(line, style));
            text.push('\n');
        }
        let mut say = |line: &str| note(text, line, NOTE_WIDTH, Tone::Plain, style);
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
            in_lines(&self.columns[kept[i]].title, width)
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
        let title = |(column, width): (usize, usize)| {
            cell(column, in_lines(&self.columns[column].title, width))
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

/// Words in lines of this width, or of a longer word's.
fn in_lines(words: &str, width: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in words.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            text.push('\n');
            column = 0;
        }
        if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}
