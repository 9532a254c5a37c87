//! A document as text: for a terminal, or as Markdown.

mod figures;
mod grid;
mod markdown;
mod style;
mod text;
mod wrap;

pub use style::Style;
