//! A command of the user's in the lab, in this machine's root file system under a tmpfs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use exitpath_host::KernelSays;
use exitpath_lab::boot::{Kept, Lab, Sink};
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::vmm_files;
use exitpath_protocol::job::{Job, PROGRAMS, RECORDINGS};

use super::{Choice, Prepared};
use crate::control::Control;
use crate::error::{Error, Result};

/// Status of a program that SIGPIPE ended, as shells give it.
const BROKEN_PIPE: u8 = 141;
/// Status of a command whose recording did not come out, as of one that this machine cannot do.
const CANNOT: u8 = 3;
/// Variables of the environment that the command has as they are here.
const VARIABLES: [&str; 4] = ["TERM", "HOME", "LANG", "XDG_DATA_HOME"];
/// Folders of programs, behind the lab's own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command for the lab.
#[derive(Debug, Clone)]
pub struct InLab {
    /// What the lab is made of.
    pub choice: Choice,
    /// Its seed.
    pub seed: u64,
    /// Its CPUs.
    pub cpus: u32,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Whether it gets this terminal.
    pub terminal: bool,
}

/// Runs it, passing on what it prints, and gives its exit status; 141 where nobody reads that any more, 3
/// where it succeeded and a recording that it made did not come out.
///
/// # Errors
/// Where the lab cannot have what the command names, or does not come to its end.
pub fn run(command: &InLab, control: &Control) -> Result<u8> {
    let cwd = std::env::current_dir().map_err(Error::NoCurrentFolder)?;
    check_places(&cwd, &command.argv)?;
    let prepared = Prepared::new(&command.choice, control)?;
    let lab = prepared.lab(command.seed, command.cpus);
    if command.cpus > 1 && !lab.qemu.boots_two_cpus() {
        return Err(Error::TooManyCpus {
            qemu: lab.qemu.version.clone(),
            cpus: command.cpus,
        });
    }
    let lab = Lab {
        memory_mib: command.memory_mib,
        // It shares what is on this machine now, and a terminal's clock goes by ours.
        snapshots: None,
        ..lab
    };
    let mut env = vec![("PATH".to_owned(), format!("{PROGRAMS}:{PATH}"))];
    for name in VARIABLES {
        env.extend(std::env::var(name).map(|value| (name.to_owned(), value)));
    }
    let job = Job {
        argv: command.argv.clone(),
        env,
        cwd: cwd.display().to_string(),
        share_root: true,
        terminal: command.terminal,
        ..Job::default()
    };
    let mut sink = PassOn {
        prepared: &prepared,
        control,
        unread: false,
    };
    let outcome = lab.run(Initramfs::new(), job, None, &mut sink);
    if sink.unread {
        return Ok(BROKEN_PIPE);
    }
    // A recording that was named is there, whatever else the command did.
    let outcome = outcome?;
    let brought = bring_out(outcome.kept, control);
    Ok(match u8::try_from(outcome.status) {
        Ok(0) if !brought => CANNOT,
        Ok(status) => status,
        Err(_) => u8::MAX,
    })
}

/// Passes on what the command prints. When nobody reads any more, the lab is not needed.
struct PassOn<'a> {
    prepared: &'a Prepared,
    control: &'a Control,
    unread: bool,
}

impl Sink for PassOn<'_> {
    fn says(&mut self, says: &KernelSays) {
        for warning in self.prepared.without_effect(says) {
            self.control.progress.remark(&format!("warning: {warning}"));
        }
    }

    fn stdout(&mut self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        if stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .is_err()
        {
            self.unread = true;
            self.control.interrupted.store(true, Ordering::Relaxed);
        }
    }

    fn stderr(&mut self, bytes: &[u8]) {
        let _ = std::io::stderr().write_all(bytes);
    }
}

/// Writes the recordings that were made inside to where they were there. The lab is not trusted: what
/// comes out has to be a recording, and takes nothing's place. Whether all of them are written.
fn bring_out(kept: Vec<Kept>, control: &Control) -> bool {
    let names: Vec<&str> = exitpath_store::file_names().collect();
    let mut folders: BTreeMap<PathBuf, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for file in kept {
        if names.contains(&file.name.as_str()) {
            let files = folders.entry(file.folder).or_default();
            files.insert(file.name, file.bytes);
        }
    }
    let mut all = true;
    for (folder, files) in folders {
        let written = exitpath_store::from_files(&folder, &files)
            .and_then(|recording| exitpath_store::write(&folder, &recording));
        if let Err(error) = written {
            control.progress.remark(&format!(
                "the recording {} was made in the lab and is gone with it: {error}",
                folder.display()
            ));
            all = false;
        }
    }
    all
}

/// Where this runs inside a lab, has it bring this recording out. Elsewhere nothing happens.
pub fn keep(dir: &Path) {
    let list = std::fs::OpenOptions::new().append(true).open(RECORDINGS);
    if let (Ok(mut list), Ok(dir)) = (list, dir.canonicalize()) {
        let _ = list.write_all(format!("{}\n", dir.display()).as_bytes());
    }
}

/// Refuses what the command names and the lab cannot have.
fn check_places(cwd: &Path, argv: &[String]) -> Result<()> {
    let Some((program, arguments)) = argv.split_first() else {
        return Ok(());
    };
    vmm_files::check_folder(cwd)?;
    if program.contains('/') {
        vmm_files::check_program(&cwd.join(program))?;
    }
    for argument in arguments {
        for part in argument.split(['=', ',']) {
            if Path::new(part).is_absolute() {
                vmm_files::check_file(Path::new(part))?;
            }
        }
    }
    Ok(())
}
