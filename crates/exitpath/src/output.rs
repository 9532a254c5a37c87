//! Writing to standard output, and progress on standard error.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use exitpath_recording::Recording;
use exitpath_report::Style;
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;
use crate::{lab, provenance};

/// Prints text and a line break. A reader that has gone away is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Cannot(format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// What text on standard output is to look like: as wide as the terminal, which `COLUMNS` may say, and
/// with colours unless `NO_COLOR` is set or `TERM` is `dumb`; in a pipe or a file as wide as it is, and
/// without.
pub(crate) fn style() -> Style {
    let terminal = io::stdout().is_terminal();
    let size = console::Term::stdout().size_checked();
    let size = size.map(|(_, columns)| usize::from(columns));
    style_of(terminal, size, |name| std::env::var_os(name))
}

fn style_of(
    terminal: bool,
    size: Option<usize>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Style {
    if !terminal {
        return Style::default();
    }
    let columns = variable("COLUMNS").and_then(|text| text.to_str()?.parse().ok());
    // https://no-color.org: present and not empty.
    let wanted = variable("NO_COLOR").is_none_or(|value| value.is_empty());
    let capable = variable("TERM").is_some_and(|term| term != "dumb");
    Style {
        width: columns.or(size).filter(|&width| width > 0),
        colour: wanted && capable,
    }
}

/// A progress bar over `steps` on a terminal; elsewhere one line that says what is begun, so that
/// nobody takes a minute of silence for a hang.
pub(crate) fn progress(steps: u64, what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        remark(what);
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// A remark for a person, on standard error.
pub(crate) fn remark(text: &str) {
    eprintln!("exitpath: {text}");
}

/// The folder for a command's recording: the one given, or a new one. That it can be written is found out
/// here, before anything is measured.
pub(crate) fn folder(given: Option<&Path>, command: &str) -> Result<PathBuf, Failure> {
    let dir = given.map_or_else(|| default_folder(command), |dir| Ok(dir.to_owned()))?;
    exitpath_store::check_writable(&dir).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(dir)
}

/// Writes a recording; one made inside a lab comes out of it.
pub(crate) fn keep(dir: &Path, recording: &Recording) -> Result<(), Failure> {
    exitpath_store::write(dir, recording).map_err(|error| Failure::Cannot(error.to_string()))?;
    lab::keep(dir);
    Ok(())
}

/// A new folder in the user's data folder for a command's recording, named by the time.
fn default_folder(command: &str) -> Result<PathBuf, Failure> {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")))
        .ok_or_else(|| {
            Failure::Usage("no HOME to put the recording into: name a folder with --out".to_owned())
        })?;
    let name = format!(
        "{command}-{}-{}",
        provenance::unix_seconds(),
        std::process::id()
    );
    let base = base.join("exitpath");
    // In a lab, times and process numbers are the same each time.
    let names = (2..).map(|nth| format!("{name}-{nth}"));
    let mut free = std::iter::once(name.clone()).chain(names);
    let free = free.find(|name| base.join(name).symlink_metadata().is_err());
    Ok(base.join(free.unwrap_or(name)))
}

/// So many of these, in words.
pub(crate) fn number(of: usize, what: &str) -> String {
    let plural = if of == 1 { "" } else { "s" };
    format!("{of} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_has_no_limit_and_no_colours_and_a_terminal_has_its_own() {
        let style = |terminal, size, variables: &[(&str, &str)]| {
            let find = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            let style = style_of(terminal, size, find);
            (style.width, style.colour)
        };
        let term = ("TERM", "xterm");
        assert_eq!(
            style(false, None, &[term, ("COLUMNS", "80")]),
            (None, false)
        );
        assert_eq!(style(true, Some(80), &[term]), (Some(80), true));
        assert_eq!(
            style(true, Some(80), &[term, ("COLUMNS", "100")]),
            (Some(100), true)
        );
        assert_eq!(
            style(true, Some(80), &[term, ("COLUMNS", "x")]),
            (Some(80), true)
        );
        assert_eq!(style(true, None, &[term, ("COLUMNS", "0")]), (None, true));
        assert_eq!(
            style(true, Some(80), &[term, ("NO_COLOR", "1")]),
            (Some(80), false)
        );
        assert_eq!(
            style(true, Some(80), &[term, ("NO_COLOR", "")]),
            (Some(80), true)
        );
        assert_eq!(
            style(true, Some(80), &[("TERM", "dumb")]),
            (Some(80), false)
        );
        assert_eq!(style(true, Some(80), &[]), (Some(80), false));
    }
}
