//! What can go wrong when a view is rendered.

use std::fmt;

/// A view that cannot be made of this path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No function of this name was executed.
    UnknownFunction {
        /// The name asked for.
        name: String,
        /// The row.
        row: String,
        /// Names on the path that are like it; else the functions with most instructions.
        near: Vec<String>,
    },
    /// The path has no instructions, so that there is nothing to draw.
    NoInstructions {
        /// The row.
        row: String,
    },
    /// The library that draws flame graphs failed.
    FlameGraph {
        /// In its words.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownFunction { name, row, near } if near.is_empty() => {
                write!(f, "{row} executed no function {name}, nor any other")
            }
            Error::UnknownFunction { name, row, near } => {
                write!(
                    f,
                    "{row} executed no function {name}: try one of {}",
                    near.join(", ")
                )
            }
            Error::NoInstructions { row } => {
                write!(f, "{row} executed no instruction: there is nothing to draw")
            }
            Error::FlameGraph { reason } => write!(
                f,
                "drawing the flame graph failed ({reason}): draw it from --folded with another tool"
            ),
        }
    }
}

impl std::error::Error for Error {}
