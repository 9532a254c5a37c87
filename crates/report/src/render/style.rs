//! What text is to look like, which is chosen at the end: how wide it may be, and whether it has colours.

use super::wrap::wrapped;
use crate::document::Tone;

/// Columns after which a note goes on in the next line, however wide the terminal is.
const NOTE_WIDTH: usize = 120;

/// What text is to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Columns of the terminal; `None` where there is no limit, as in a pipe.
    pub width: Option<usize>,
    /// Whether what is not as it should be is coloured.
    pub colour: bool,
}

impl Style {
    /// The line with its colour, if there are colours: SGR of ECMA-48.
    pub(super) fn toned(&self, tone: Tone, line: &str) -> String {
        let code = match tone {
            Tone::Plain => return line.to_owned(),
            Tone::Faint => 2,
            Tone::Warning => 33,
            Tone::Bad => 31,
        };
        if self.colour {
            format!("\u{1b}[{code}m{line}\u{1b}[0m")
        } else {
            line.to_owned()
        }
    }

    /// A line, broken where it is too long; what follows is indented.
    pub(super) fn note(&self, text: &mut String, line: &str, tone: Tone) {
        self.broken(text, line, NOTE_WIDTH, tone);
    }

    /// A line, broken where it is longer than this or than there is room.
    pub(super) fn broken(&self, text: &mut String, line: &str, limit: usize, tone: Tone) {
        let limit = self.width.map_or(limit, |width| limit.min(width));
        text.push_str(&self.toned(tone, &wrapped(line, limit, 2)));
        text.push('\n');
    }
}
