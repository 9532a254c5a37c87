//! `exitpath lab`: kernels, a shell, any command.

use std::path::Path;

use exitpath_experiment::lab::{self, InLab};
use exitpath_lab::kernels::Kernels;
use exitpath_lab::qemu::Qemu;

use crate::control::control;
use crate::failure::Failure;
use crate::measuring::choice;
use crate::output;
use exitpath_cli::{LabCommand, LabRun};

pub(crate) fn run(command: LabCommand) -> Result<(), Failure> {
    match command {
        LabCommand::Kernels { version, debug } => kernels(version.as_deref(), debug),
        LabCommand::Qemu { fetch } => qemu(fetch),
        LabCommand::Shell { lab } => {
            let shell = ["bash", "sh"].map(|shell| format!("/bin/{shell}"));
            let shell = shell.into_iter().find(|shell| Path::new(shell).exists());
            let shell = shell.unwrap_or_else(|| "/bin/sh".to_owned());
            inside(&lab, vec![shell], true)
        }
        LabCommand::Run { lab, command } => inside(&lab, command, false),
    }
}

/// Says which QEMU the lab uses. Only where it is asked to, it fetches one: that changes figures.
fn qemu(fetch: bool) -> Result<(), Failure> {
    let cache = lab::cache(&control())?;
    let qemu = match fetch {
        true => Qemu::fetch(&cache)?,
        false => Qemu::find(None, &cache)?,
    };
    if !qemu.boots_two_cpus() {
        output::remark(exitpath_report::views::NEWER_QEMU);
    }
    output::print(&format!("{} ({})", qemu.path.display(), qemu.version))
}

fn kernels(version: Option<&str>, debug: bool) -> Result<(), Failure> {
    let control = control();
    if debug {
        let files = lab::fetch_debug_files(version, &control)?;
        return output::print(&files.vmlinux.display().to_string());
    }
    let kernels = Kernels::new(lab::cache(&control)?);
    if let Some(version) = version {
        let kernel = kernels.resolve(Some(version), None)?;
        return output::print(&format!("{} ({})", kernel.bzimage.display(), kernel.origin));
    }
    let listing = kernels.list()?;
    if let Some(note) = &listing.note {
        output::remark(note);
    }
    let lines = listing.kernels.iter().map(|kernel| {
        let cached = if kernel.cached { "  in the cache" } else { "" };
        let (release, version, suite) = (&kernel.release, &kernel.version, &kernel.suite);
        format!("{release:<34} {version:<26} {suite}{cached}")
    });
    output::print(&lines.collect::<Vec<_>>().join("\n"))
}

/// Runs a command in the host's root file system inside the lab.
fn inside(options: &LabRun, argv: Vec<String>, terminal: bool) -> Result<(), Failure> {
    let command = InLab {
        choice: choice(&options.lab),
        seed: options.lab.emulator.seeds(&[1])[0],
        cpus: options.cpus,
        memory_mib: options.memory,
        argv,
        terminal,
    };
    match lab::run(&command, &control())? {
        0 => Ok(()),
        status => Err(Failure::Status(status)),
    }
}
