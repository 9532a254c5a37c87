//! What is wrong with a table, without the file's name: [`crate::store`] knows the file.

use std::fmt;

/// What went wrong, for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It cannot be so.
    Wrong(String),
    /// It has a value that this exitpath does not know: a newer one wrote it.
    Newer(String),
}

impl Problem {
    /// A word that is none of those this exitpath knows.
    pub(crate) fn unknown(what: &str, word: &str) -> Problem {
        Problem::Newer(format!("the {what} {word:?}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Problem::Wrong(what) | Problem::Newer(what)) = self;
        f.write_str(what)
    }
}

impl From<String> for Problem {
    fn from(what: String) -> Problem {
        Problem::Wrong(what)
    }
}

impl From<&str> for Problem {
    fn from(what: &str) -> Problem {
        Problem::Wrong(what.to_owned())
    }
}

/// [`Problem::Wrong`], formatted.
macro_rules! problem {
    ($($piece:tt)*) => {
        $crate::problem::Problem::Wrong(format!($($piece)*))
    };
}
