//! What a lab says besides its results: its console, and the terminal it may use.

use crate::error::Error;
use crate::machine::qemu::complaint::{self, Complaint, Kind};

/// What the plugin's complaints begin with.
const PLUGIN_SAYS: &str = "exitpath's plugin: ";
/// How much of the console an error shows.
const CONSOLE_TAIL_LINES: usize = 6;

/// The kernel's console and QEMU's own complaints, as far as a message may need them.
#[derive(Default)]
pub(crate) struct Console {
    text: Vec<u8>,
    /// Whether something came since this was last asked.
    news: bool,
}

impl Console {
    /// Bytes kept at least.
    pub(crate) const KEPT: usize = 1 << 16;

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.news = true;
        self.text.extend_from_slice(bytes);
        if self.text.len() > 2 * Self::KEPT {
            self.text.drain(..self.text.len() - Self::KEPT);
        }
    }

    /// Whether something came since this was last asked.
    pub(crate) fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// What its kernel complained of first, if it cannot go on.
    pub(crate) fn complaint(&self) -> Option<Complaint> {
        complaint::first(&String::from_utf8_lossy(&self.text))
    }

    /// The last lines that say something, or the oops or the panic if there is one.
    pub(crate) fn tail(&self) -> String {
        if let Some(oops) = self.complaint().filter(|found| found.kind == Kind::Oops) {
            return oops.said;
        }
        let text = String::from_utf8_lossy(&self.text);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty() && !line.contains("warning: TCG doesn't support"))
            .collect();
        if let Some(panic) = lines.iter().find(|line| line.contains("Kernel panic")) {
            return (*panic).to_owned();
        }
        lines[lines.len().saturating_sub(CONSOLE_TAIL_LINES)..].join(" | ")
    }

    /// Whether QEMU complained of a plugin, or of the option itself.
    pub(crate) fn names_plugin(&self) -> bool {
        String::from_utf8_lossy(&self.text).contains("plugin")
    }

    /// What the plugin complained of, if it did.
    pub(crate) fn plugins_complaint(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.text);
        let mut said = text.lines().filter_map(|line| line.split_once(PLUGIN_SAYS));
        said.next().map(|(_, said)| said.trim_end().to_owned())
    }

    /// The lab ended because of this.
    pub(crate) fn died_of(&self, complaint: Complaint) -> Error {
        Error::LabDied {
            what: complaint.kind.words().to_owned(),
            console: complaint.said,
        }
    }

    /// The lab did this; where its kernel oopsed, it did that.
    pub(crate) fn died(&self, what: &str) -> Error {
        if let Some(oops) = self.complaint().filter(|found| found.kind == Kind::Oops) {
            return self.died_of(oops);
        }
        Error::LabDied {
            what: what.to_owned(),
            console: self.tail(),
        }
    }
}

/// The terminal's settings before QEMU made it raw: a QEMU that is killed leaves it so.
pub(crate) struct Terminal {
    settings: libc::termios,
    flags: i32,
}

impl Terminal {
    /// The settings of standard input; `None` where it is no terminal.
    pub(crate) fn save() -> Option<Terminal> {
        // SAFETY: an all-zero termios is a valid value, and tcgetattr fills it or fails.
        unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            (libc::tcgetattr(0, &raw mut settings) == 0).then(|| Terminal {
                settings,
                flags: libc::fcntl(0, libc::F_GETFL),
            })
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // SAFETY: settings and flags are those the same descriptor had before.
        unsafe {
            libc::tcsetattr(0, libc::TCSANOW, &raw const self.settings);
            libc::fcntl(0, libc::F_SETFL, self.flags);
        }
    }
}
