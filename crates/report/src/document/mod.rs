//! What is shown, before anybody knows how: the one model of all views. `render` makes terminal text or
//! Markdown of it.
//!
//! A document is a list of blocks. Figures in it are values, not digits ([`Cell`], and a column's [`Unit`]); how wide
//! a line may be, what becomes of a table that is too wide, and how a name is marked are the renderers' business.

mod cell;
mod listing;
mod prose;
mod scale;
mod table;
mod tree;

pub(crate) use cell::{Cell, Unit};
pub(crate) use listing::{Listed, Listing};
pub(crate) use prose::{Piece, Prose};
pub(crate) use scale::Scale;
pub(crate) use table::{Column, Kind, Table};
pub(crate) use tree::{Branch, Tree};

use crate::format::plain;

/// How much something stands out.
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

/// What a view shows. Its `Display` is terminal text without a limit and without colours.
#[derive(Debug, Clone, Default)]
pub struct Document {
    pub(crate) blocks: Vec<Block>,
}

/// A part of a document.
#[derive(Debug, Clone)]
pub(crate) enum Block {
    /// What the document is about.
    Title(String),
    /// Lines that are not to be broken.
    Lines(String),
    /// A line of words, which is broken where it is long.
    Note(Prose, Tone),
    /// A line that is broken only where there is no room: what figures hold for.
    Fact(Prose),
    /// One of several things to be known.
    Item(Prose),
    /// Named values, one below the other, whose sum or difference is another of them.
    Sum(Vec<(&'static str, Cell, Cell)>),
    Table(Table),
    Tree(Tree),
    Listing(Listing),
    /// What need not be looked at first, with what stands for it.
    Details(Prose, Document),
}

impl Document {
    pub(crate) fn new() -> Document {
        Document::default()
    }

    /// Appends another document.
    pub fn append(&mut self, other: Document) {
        self.blocks.extend(other.blocks);
    }

    /// Appends an empty line.
    pub(crate) fn space(&mut self) {
        self.lines("\n");
    }

    /// Appends lines that are not to be broken, with their line breaks.
    pub fn lines(&mut self, lines: &str) {
        match self.blocks.last_mut() {
            Some(Block::Lines(last)) => last.push_str(lines),
            _ => self.blocks.push(Block::Lines(lines.to_owned())),
        }
    }

    /// Appends a line of words.
    pub(crate) fn note(&mut self, words: impl Into<Prose>) {
        self.blocks.push(Block::Note(words.into(), Tone::Plain));
    }

    /// Appends a line for each warning.
    pub(crate) fn warnings(&mut self, warnings: &[String]) {
        for warning in warnings {
            let words = format!("warning: {}", plain(warning));
            self.blocks.push(Block::Note(words.into(), Tone::Warning));
        }
    }

    /// Appends what figures hold for, if anything is known of it.
    pub(crate) fn fact(&mut self, words: impl Into<Prose>) {
        let words = words.into();
        if !words.to_string().is_empty() {
            self.blocks.push(Block::Fact(words));
        }
    }

    pub(crate) fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }

    pub(crate) fn table(&mut self, table: Table) {
        self.blocks.push(Block::Table(table));
    }
}
