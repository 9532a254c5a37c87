//! `exitpath lab`: kernels, a shell, any command.

use std::path::Path;

use exitpath_experiment::lab::{self, InLab};
use exitpath_lab::kernels::Kernels;
use exitpath_lab::qemu::Qemu;
use exitpath_lab::snapshot::{Kept, Snapshots};

use crate::control::control;
use crate::failure::Failure;
use crate::measuring::choice;
use crate::output;
use exitpath_cli::{LabCommand, LabRun};

pub(crate) fn run(command: LabCommand) -> Result<(), Failure> {
    match command {
        LabCommand::Kernels { version, debug } => kernels(version.as_deref(), debug),
        LabCommand::Qemu { fetch } => qemu(fetch),
        LabCommand::Cache { clear } => cache(clear),
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

/// Lists the labs that have booted and are kept, or removes them.
fn cache(clear: bool) -> Result<(), Failure> {
    let cache = lab::cache(&control())?;
    let kept = match clear {
        true => Snapshots::clear(&cache)?,
        false => Snapshots::list(&cache),
    };
    let bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
    let mut lines: Vec<String> = Vec::new();
    if !clear {
        lines.extend(kept.iter().map(line));
    }
    lines.push(format!(
        "{} of labs that have booted, {} MB{}",
        match kept.len() {
            1 => "1 snapshot".to_owned(),
            number => format!("{number} snapshots"),
        },
        bytes / 1_000_000,
        if clear { ": removed" } else { "" }
    ));
    output::print(&lines.join("\n"))
}

/// What was booted, how large it is, when it was last used.
fn line(kept: &Kept) -> String {
    let days = kept.used.elapsed().unwrap_or_default().as_secs() / (24 * 3600);
    let used = match days {
        0 => "used today".to_owned(),
        1 => "used yesterday".to_owned(),
        days => format!("used {days} days ago"),
    };
    let what = kept
        .about
        .as_ref()
        .map_or("of another exitpath, or damaged".to_owned(), |about| {
            let version = about.qemu.split(' ').next().unwrap_or_default();
            let cmdline = match about.cmdline.as_str() {
                "" => String::new(),
                more => format!(", `{more}`"),
            };
            format!(
                "{}{cmdline}, QEMU {version}, {}, {}, {} MiB, seed {}, {}",
                about.kernel,
                about.cpu,
                match about.cpus {
                    1 => "1 CPU".to_owned(),
                    cpus => format!("{cpus} CPUs"),
                },
                about.memory_mib,
                about.seed,
                if about.ready { "ready" } else { "booted" }
            )
        });
    format!("{:>4} MB  {used}  {what}", kept.bytes / 1_000_000)
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
