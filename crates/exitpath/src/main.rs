//! The command line of exitpath. Thin: each command's module reads as what it does.
//!
//! Inside the lab the same program is process 1; see [`exitpath_lab::init`].

mod cli;
mod diff;
mod doctor;
mod failure;
mod gate;
mod generate;
mod image;
mod in_lab;
mod interrupt;
mod kick;
mod lab;
mod measure;
mod output;
mod provenance;
mod rows;
mod show;
mod trace;
mod userspace;

use std::ffi::OsStr;
use std::process::ExitCode;

use cli::{Cli, Command, Place};
use failure::Failure;

fn main() -> ExitCode {
    if exitpath_lab::init::is_init() {
        exitpath_lab::init::main();
    }
    let first = std::env::args_os().nth(1);
    let result = match first.as_deref().and_then(OsStr::to_str) {
        Some(in_lab::worker::NAME) => in_lab::worker::run(),
        Some(in_lab::foreign::NAME) => in_lab::foreign::run(),
        Some(generate::NAME) => generate::run(&std::env::args_os().skip(2).collect::<Vec<_>>()),
        _ => Cli::read().and_then(|(cli, place)| run(cli.command, &place)),
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
        Command::Diff(args) => diff::run(&args),
        Command::Gate(args) => gate::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Lab(command) => lab::run(command),
    }
}
