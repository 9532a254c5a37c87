//! Man pages and shell completions, from the command line's own definition: what `make install` installs.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory};
use clap_complete::{Shell, generate_to};

use crate::failure::Failure;
use exitpath_cli::Cli;

/// The command's name. No help lists it.
pub(crate) const NAME: &str = "generate-files";
/// The program's name.
const PROGRAM: &str = "exitpath";
/// Where shells look for completions under a prefix's `share`.
const COMPLETIONS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions", PROGRAM),
    (Shell::Zsh, "zsh/site-functions", "_exitpath"),
    (Shell::Fish, "fish/vendor_completions.d", "exitpath.fish"),
];

/// Writes them under a folder that stands for a prefix's `share`.
pub(crate) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let [folder] = arguments else {
        return Err(Failure::usage(format!(
            "{NAME} takes the folder to write to, which stands for PREFIX/share"
        )));
    };
    let folder = Path::new(folder);
    let command = visible(&Cli::command());
    write(folder, &command)
        .map_err(|error| Failure::cannot(format!("cannot write to {}: {error}", folder.display())))
}

fn write(folder: &Path, command: &Command) -> std::io::Result<()> {
    let man = folder.join("man/man1");
    fs::create_dir_all(&man)?;
    clap_mangen::generate_to(command.clone(), &man)?;
    for (shell, place, name) in COMPLETIONS {
        let place = folder.join(place);
        fs::create_dir_all(&place)?;
        let written: PathBuf = generate_to(shell, &mut command.clone(), PROGRAM, &place)?;
        fs::rename(written, place.join(name))?;
    }
    Ok(())
}

/// The command without what is hidden: completions would propose it.
fn visible(command: &Command) -> Command {
    let shown = |arg: &&Arg| !arg.is_hide_set();
    let mut made = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(shown).cloned())
        .subcommands(command.get_subcommands().map(visible));
    if let Some(version) = command.get_version() {
        made = made.version(version.to_owned());
    }
    if let Some(about) = command.get_about() {
        made = made.about(about.clone());
    }
    if let Some(after) = command.get_after_help() {
        made = made.after_help(after.clone());
    }
    made
}
