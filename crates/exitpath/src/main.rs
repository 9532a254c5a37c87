//! The command line of exitpath: flags, words and exit statuses. Each command's module reads as choose →
//! record → analyse → show; what does the work is in the other crates.

#![forbid(unsafe_code)]

mod ablate;
mod attach;
mod command;
mod control;
mod diff;
mod doctor;
mod failure;
mod gate;
mod generate;
mod image;
mod kick;
mod knobs;
mod lab;
mod measure;
mod measuring;
mod output;
mod primitives;
mod recorded;
mod show;
mod trace;
mod userspace;

use std::ffi::OsStr;
use std::process::ExitCode;

use exitpath_cli::{Cli, Command, Place};
use exitpath_experiment::host::journal;
use failure::Failure;

fn main() -> ExitCode {
    if let Ok(folder) = journal::folder() {
        // What an exitpath that was killed has left changed.
        journal::replay(&folder)
            .iter()
            .for_each(|said| output::remark(said));
    }
    let first = std::env::args_os().nth(1);
    let result = match first.as_deref().and_then(OsStr::to_str) {
        Some(generate::NAME) => generate::run(&std::env::args_os().skip(2).collect::<Vec<_>>()),
        _ => Cli::read()
            .map_err(Failure::usage)
            .and_then(|(cli, place)| run(cli.command, &place)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command, place: &Place) -> Result<(), Failure> {
    match command {
        Command::Measure(args) => measure::run(&args, place),
        Command::Kick(args) => kick::run(&args, place),
        Command::Userspace(args) => userspace::run(&args, place),
        Command::Image(args) => image::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Ablate(args) => ablate::run(&args, place),
        Command::Primitives(args) => primitives::run(&args, place),
        Command::Attach(args) => attach::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Gate(args) => gate::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Lab(command) => lab::run(command),
    }
}
