//! Another VMM that rows are measured under: which one, and how it is started here and in the lab.

use std::path::{Path, PathBuf};

use exitpath_lab::Error as LabError;
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::qemu::Qemu;
use exitpath_lab::vmm_files;
use exitpath_recording::Difference;
use exitpath_runner::work::Start;

use crate::error::{Error, Result};

/// What a reader should know of a run whose exits nobody counted.
pub(crate) const NOT_COUNTED: &str = "KVM's statistics of another VMM's guest cannot be read in phase with its \
                                      rows; `exitpath trace --vmm` counts exits";
/// Name of the condition of exitpath's own VMM where another one's is beside it.
pub const OWN: &str = "own";
/// Bytes that firmware and the VMM itself may print.
const MOST_OTHER_TEXT: usize = 1 << 20;
/// What stands for the image in a command.
const PLACEHOLDER: &str = "{image}";
/// A PC with nothing that the image does not use: what else there is makes KVM's search among its
/// devices longer, or interrupts.
const QEMU_ARGUMENTS: [&str; 17] = [
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-machine",
    "pc,accel=kvm",
    "-cpu",
    "host",
    "-m",
    "128",
    "-smp",
    "1",
    "-device",
    "isa-debug-exit,iobase=0xf4,iosize=4",
    "-serial",
    "stdio",
];

/// A VMM that the user has named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vmm {
    /// QEMU, with arguments of ours.
    Qemu(Qemu),
    /// Any other: program and arguments, one of them with `{image}` in the image's place.
    Command(Vec<String>),
}

/// A VMM that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    argv: Vec<String>,
    /// What it says of its version, if anything.
    pub(crate) version: Option<String>,
}

impl Vmm {
    /// `qemu`: the one in `PATH`; a path of a QEMU; or a command in which `{image}` stands for the
    /// image's path.
    ///
    /// # Errors
    /// [`Error::Quote`], [`Error::NoQemuInPath`], [`Error::NoVmm`].
    pub fn find(text: &str) -> Result<Vmm> {
        if text.contains(PLACEHOLDER) {
            let words = shlex::split(text).ok_or_else(|| Error::Quote(text.to_owned()))?;
            return Ok(Vmm::Command(words));
        }
        if text == "qemu" {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            let program = std::env::split_paths(&folders)
                .map(|dir| dir.join("qemu-system-x86_64"))
                .find(|path| path.is_file());
            return Ok(Vmm::Qemu(Qemu::at(&program.ok_or(Error::NoQemuInPath)?)?));
        }
        Qemu::at(Path::new(text))
            .map(Vmm::Qemu)
            .map_err(|_| Error::NoVmm {
                text: text.to_owned(),
                placeholder: PLACEHOLDER,
            })
    }

    /// What the condition is called of rows that are measured under it: its program's name.
    pub fn name(&self) -> String {
        let program = match self {
            Vmm::Qemu(qemu) => qemu.path.as_path(),
            Vmm::Command(command) => Path::new(command.first().map_or("", String::as_str)),
        };
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        // Beside exitpath's own it is to be another.
        if [OWN, ""].contains(&&*name) {
            "vmm".to_owned()
        } else {
            name.into_owned()
        }
    }

    /// As this machine starts it.
    pub(crate) fn on_host(&self, interpreted: bool) -> Ready {
        match self {
            Vmm::Qemu(qemu) => {
                let mut argv = vec![qemu.path.display().to_string()];
                let mut arguments = QEMU_ARGUMENTS.to_vec();
                if interpreted {
                    // Such a KVM claims features of the CPU whose MSRs it then refuses, and QEMU
                    // ends; its own default model has none of them.
                    arguments.retain(|word| !["-cpu", "host"].contains(word));
                }
                argv.extend(arguments.into_iter().map(str::to_owned));
                argv.extend(["-kernel", PLACEHOLDER].map(str::to_owned));
                Ready {
                    argv,
                    version: Some(qemu.version.clone()),
                }
            }
            Vmm::Command(command) => Ready {
                argv: command.clone(),
                version: None,
            },
        }
    }

    /// Copies what it needs.
    pub(crate) fn add_to(&self, files: &mut Initramfs) -> Result<Ready> {
        match self {
            Vmm::Qemu(qemu) => {
                let vmm = vmm_files::add_qemu(files, qemu)?;
                let mut argv = vec![vmm.program.display().to_string()];
                argv.extend(vmm.arguments);
                argv.extend(QEMU_ARGUMENTS.map(str::to_owned));
                argv.extend(["-kernel", PLACEHOLDER].map(str::to_owned));
                Ok(Ready {
                    argv,
                    version: Some(qemu.version.clone()),
                })
            }
            Vmm::Command(command) => {
                // One that is QEMU, or starts it, needs its firmware, too.
                let is_qemu = |path: &PathBuf| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    name.starts_with("qemu-system-")
                };
                let qemu = command
                    .iter()
                    .filter_map(|word| vmm_files::find_program(word).ok())
                    .find(is_qemu)
                    .map(|path| Qemu::at(&path))
                    .transpose()?;
                if let Some(qemu) = &qemu {
                    vmm_files::add_qemu(files, qemu)?;
                }
                let argv = vmm_files::add_command(files, command).map_err(|error| match error {
                    // The user's own words.
                    LabError::NotAProgram { .. } => Error::OfTheUser(error),
                    error => error.into(),
                })?;
                Ok(Ready {
                    argv,
                    version: qemu.map(|qemu| qemu.version),
                })
            }
        }
    }
}

impl Ready {
    /// With further arguments.
    pub(crate) fn and(mut self, more: &[&str]) -> Ready {
        self.argv.extend(more.iter().map(|&word| word.to_owned()));
        self
    }

    /// Its command, for a reader.
    pub(crate) fn command(&self) -> String {
        self.argv.join(" ")
    }

    /// What it makes a condition of.
    pub(crate) fn differs(&self) -> Vec<Difference> {
        vec![Difference::Vmm {
            command: self.command(),
            version: self.version.clone(),
        }]
    }

    /// To be started with this file in the image's place, and further arguments; it may take so many
    /// seconds of the lab's time, and the guest print so many bytes.
    pub(crate) fn start(
        &self,
        title: &str,
        image: &str,
        more: &[&str],
        seconds: u64,
        text: usize,
    ) -> Start {
        let argv = self
            .argv
            .iter()
            .map(|word| word.replace(PLACEHOLDER, image));
        Start {
            title: title.to_owned(),
            argv: argv
                .chain(more.iter().map(|&word| word.to_owned()))
                .collect(),
            seconds,
            text: MOST_OTHER_TEXT + text,
        }
    }
}
