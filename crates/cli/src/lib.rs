//! What can be asked of exitpath: commands and flags (`commands`, `ablate`, `live`; what several have, `options`), when each flag has an effect (`effects`),
//! how recordings are named (`recording`), and what exit statuses mean (`status`).
//!
//! Nothing is done here: what a command does is in the module of its name in the crate `exitpath`.

#![forbid(unsafe_code)]

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};

mod ablate;
mod commands;
mod effects;
mod live;
mod options;
pub mod recording;
mod status;

pub use ablate::Ablate;
pub use commands::{
    Cli, Command, Diff, Doctor, Gate, Image, Kick, KickTable, LabCommand, LabRun, Measure,
    PluginUse, Primitives, Show, Trace, TraceOptions, TraceView, Userspace,
};
pub use effects::Place;
pub use live::{Attach, Keep};
pub use options::{Emulator, LabOptions, Measuring, On, Sampling};

impl Cli {
    /// What the command line says, and where it says to measure. Clap's own errors and `--help` end the
    /// process here.
    ///
    /// # Errors
    /// In words, which option can have no effect, and what to do about it.
    pub fn read() -> Result<(Cli, Place), String> {
        let command = Cli::command();
        let matches = command.clone().try_get_matches();
        let matches = matches.unwrap_or_else(|error| visible(&command, error).exit());
        let place = effects::check(&command, &matches)?;
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        Ok((cli, place))
    }
}

/// An error of the command line that proposes no hidden option.
fn visible(command: &clap::Command, mut error: clap::Error) -> clap::Error {
    fn hidden(command: &clap::Command, long: &str) -> bool {
        let mut arguments = command.get_arguments();
        let own = arguments.any(|arg| arg.is_hide_set() && arg.get_long() == Some(long));
        own || command.get_subcommands().any(|sub| hidden(sub, long))
    }
    if let Some(ContextValue::String(proposed)) = error.get(ContextKind::SuggestedArg)
        && hidden(command, proposed.trim_start_matches("--"))
    {
        error.remove(ContextKind::SuggestedArg);
    }
    error
}

#[cfg(test)]
mod tests;
