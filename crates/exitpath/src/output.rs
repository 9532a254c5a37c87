//! Writing to standard output, remarks on standard error, and recordings to their folders.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use exitpath_recording::Recording;
use exitpath_report::{Document, Style};

use crate::failure::Failure;

/// Prints text and a line break. A reader that has gone away is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::cannot(format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints text as standard output is to have it, and behind it where the recording is.
pub(crate) fn show(text: &Document, recording: &Path) -> Result<(), Failure> {
    let (text, place) = (text.laid_out(&style()), recording.display());
    print(&format!("{text}recording: {place}"))
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

/// A remark for a person, on standard error.
pub(crate) fn remark(text: &str) {
    eprintln!("exitpath: {text}");
}

/// The folder for a command's recording: the one given, or a new one. That it can be written is found out
/// here, before anything is measured.
pub(crate) fn folder(given: Option<&Path>, command: &str) -> Result<PathBuf, Failure> {
    let dir = given.map_or_else(|| default_folder(command), |dir| Ok(dir.to_owned()))?;
    exitpath_store::check_writable(&dir).map_err(Failure::usage)?;
    Ok(dir)
}

/// Writes a recording; one made inside a lab comes out of it.
pub(crate) fn keep(dir: &Path, recording: &Recording) -> Result<(), Failure> {
    exitpath_store::write(dir, recording).map_err(Failure::cannot)?;
    exitpath_experiment::lab::keep(dir);
    Ok(())
}

/// A new folder in the user's data folder for a command's recording, named by the time.
fn default_folder(command: &str) -> Result<PathBuf, Failure> {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")))
        .ok_or(exitpath_experiment::Error::NoHome)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    let name = format!("{command}-{seconds}-{}", std::process::id());
    let base = base.join("exitpath");
    // In a lab, times and process numbers are the same each time.
    let names = (2..).map(|nth| format!("{name}-{nth}"));
    let mut free = std::iter::once(name.clone()).chain(names);
    let free = free.find(|name| base.join(name).symlink_metadata().is_err());
    Ok(base.join(free.unwrap_or(name)))
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
