//! Renders analysis results as terminal text, Markdown, JSON, flame graphs and timelines.
//!
//! [`views`] has a function for each thing that is shown: it makes a [`Document`] of what the analysis found, with
//! figures as values in their units. A document is laid out as terminal text ([`Document::laid_out`]) or as Markdown
//! ([`Document::markdown`]), and knows neither. [`json`] is the promised machine-readable form, typed by itself; [`flame`]
//! and [`perfetto`] draw a path. None of them computes: all show what the analysis found, as it is.

#![forbid(unsafe_code)]

mod calls;
mod changes;
mod document;
mod error;
pub mod flame;
mod format;
pub mod json;
pub mod perfetto;
mod reasons;
mod render;
pub mod views;
mod words;

pub use document::Document;
pub use error::Error;
pub use render::Style;
