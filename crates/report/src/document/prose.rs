//! Words with names in them.

use std::fmt;

use crate::format::plain;

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Words(String),
    /// What somebody called something: a function, a row, a command. It may hold any character.
    Name(String),
}

/// A line of words and names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Prose(pub(crate) Vec<Piece>);

impl Prose {
    pub(crate) fn new() -> Prose {
        Prose::default()
    }

    /// A name alone.
    pub(crate) fn of(name: &str) -> Prose {
        Prose::new().name(name)
    }

    pub(crate) fn words(mut self, words: impl AsRef<str>) -> Prose {
        match self.0.last_mut() {
            Some(Piece::Words(last)) => last.push_str(words.as_ref()),
            _ => self.0.push(Piece::Words(words.as_ref().to_owned())),
        }
        self
    }

    pub(crate) fn name(mut self, name: &str) -> Prose {
        self.0.push(Piece::Name(name.to_owned()));
        self
    }

    pub(crate) fn and(mut self, other: Prose) -> Prose {
        for piece in other.0 {
            match piece {
                Piece::Words(words) => self = self.words(words),
                name => self.0.push(name),
            }
        }
        self
    }

    /// These, with a separator between two of them.
    pub(crate) fn joined(proses: impl IntoIterator<Item = Prose>, separator: &str) -> Prose {
        let mut all = Prose::new();
        for (at, prose) in proses.into_iter().enumerate() {
            if at > 0 {
                all = all.words(separator);
            }
            all = all.and(prose);
        }
        all
    }
}

impl From<&str> for Prose {
    fn from(words: &str) -> Prose {
        Prose::new().words(words)
    }
}

impl From<String> for Prose {
    fn from(words: String) -> Prose {
        Prose::new().words(words)
    }
}

/// Without marks; of a name what a terminal may show.
impl fmt::Display for Prose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Words(words) => f.write_str(words),
            Piece::Name(name) => f.write_str(&plain(name)),
        })
    }
}
