//! The one error type of this crate: every message is one line, or becomes one, and says what to do.

use std::path::PathBuf;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is, and so what a caller can do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user asked for something that does not exist or cannot be read.
    Usage,
    /// This machine, or the kernel that was to be measured, cannot do it.
    Cannot,
    /// This machine lacks something that has nothing to do with what is measured.
    Machine,
    /// The lab's kernel could not be patched, and ran as it is.
    Unpatched,
    /// The user interrupted.
    Interrupted,
}

/// Why an experiment did not come to a recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lab did not do its part.
    #[error(transparent)]
    Lab(#[from] exitpath_lab::Error),
    /// KVM, or the VMM that measures, did not.
    #[error(transparent)]
    Vmm(#[from] exitpath_vmm::Error),
    /// A run could not be made.
    #[error(transparent)]
    Run(#[from] exitpath_runner::Error),
    /// Addresses of a trace could not be named.
    #[error(transparent)]
    Names(#[from] exitpath_names::Error),
    /// The recording could not be written.
    #[error(transparent)]
    Store(#[from] exitpath_store::Error),
    /// The user wants it no more.
    #[error("interrupted")]
    Interrupted,

    /// A name that is none of a row, a rung or a kick.
    #[error("{0}")]
    UnknownRow(
        /// What to say of it, with the names near to it.
        String,
    ),
    /// A row that an image for another VMM cannot hold.
    #[error(
        "{row} cannot be measured under another VMM: {why}; `exitpath measure {row}` does it under \
         exitpath's own"
    )]
    NotUnderAnotherVmm {
        /// The row.
        row: &'static str,
        /// Why.
        why: &'static str,
    },
    /// A row that has no path.
    #[error("{row} makes no exit, so there is no path to trace: {operation}")]
    NoExit {
        /// The row.
        row: &'static str,
        /// What it does.
        operation: &'static str,
    },
    /// A row that cannot be traced with this QEMU.
    #[error(
        "{row} is traced on two CPUs, which QEMU {qemu} does not boot under counted time: QEMU 10 or later does \
         (`exitpath lab qemu --fetch`, --qemu PATH)"
    )]
    TwoCpusTraced {
        /// The row.
        row: &'static str,
        /// QEMU's version.
        qemu: String,
    },
    /// An option of the host where the lab would be taken.
    #[error(
        "{option} has an effect on a host only, and {why}, so that the lab would be taken: leave \
         {option} out, or give --on host"
    )]
    HostOnly {
        /// The option, as it is written.
        option: String,
        /// Why the lab would be taken.
        why: String,
    },
    /// The host that was asked for has no KVM that can be used.
    #[error("{why}: {advice}; or use --on lab")]
    NoHostKvm {
        /// What is missing.
        why: String,
        /// What to do about it.
        advice: String,
    },

    /// A row's run did not end as it should, and nothing can be made of the boot without it.
    #[error("{row} could not be measured: {why}")]
    NotDone {
        /// The row.
        row: String,
        /// What became of it.
        why: String,
    },
    /// What ran inside the lab failed.
    #[error("measuring in the lab failed: {said}")]
    Inside {
        /// What it said.
        said: String,
    },
    /// What came out of the lab is no report.
    #[error("the lab's result cannot be read ({why}): report this as a bug")]
    Report {
        /// What is wrong with it.
        why: String,
    },
    /// A patched kernel let the guest do something else.
    #[error("the guest did not do what it was told: {what}")]
    Disobeyed {
        /// What is missing.
        what: String,
    },
    /// The lab cannot have so many CPUs.
    #[error(
        "QEMU {qemu} does not boot {cpus} CPUs under counted time: use QEMU 10 (`exitpath lab qemu \
         --fetch`, or --qemu PATH)"
    )]
    TooManyCpus {
        /// Its version.
        qemu: String,
        /// How many.
        cpus: u32,
    },
    /// A folder of modules for which no kernel is left.
    #[error(
        "--modules {}: the kernel of this release has a folder of modules already; give one for each kernel",
        folder.display()
    )]
    ModulesTwice {
        /// The folder.
        folder: PathBuf,
    },
    /// A file that the user named cannot be read.
    #[error("{0}")]
    OfTheUser(
        /// What the lab says of it.
        exitpath_lab::Error,
    ),

    /// A VMM's command that no shell would take.
    #[error("--vmm {0}: a quote is not closed; close it")]
    Quote(
        /// The command.
        String,
    ),
    /// What was named is no VMM.
    #[error(
        "--vmm {text}: give `qemu`, the path of a QEMU, or a command in which {placeholder} stands for the \
         image's path"
    )]
    NoVmm {
        /// What was named.
        text: String,
        /// What stands for the image.
        placeholder: &'static str,
    },
    /// There is no QEMU to measure under.
    #[error("no qemu-system-x86_64 is in PATH: install it (Debian: qemu-system-x86)")]
    NoQemuInPath,
    /// A VMM that was to be QEMU is another one.
    #[error(
        "--vmm {0}: vmexit runs under QEMU, whose test devices it needs; give `qemu` or a QEMU's path"
    )]
    NotQemu(
        /// What was named.
        String,
    ),
    /// The VMM could not be started.
    #[error("--vmm: {why}; name a program that this machine has")]
    VmmStart {
        /// Why.
        why: String,
    },
    /// What the guest told under a VMM cannot be used.
    #[error("{what}{how}")]
    Told {
        /// What is wrong with it.
        what: String,
        /// How the VMM ended.
        how: String,
    },
    /// kvm-unit-tests' test said nothing that can be used.
    #[error("kvm-unit-tests' vmexit, {row}: {what}{how}")]
    Vmexit {
        /// The row.
        row: &'static str,
        /// What is wrong.
        what: String,
        /// How the VMM ended.
        how: String,
    },
    /// The folder of kvm-unit-tests has no such test.
    #[error("{0}")]
    NoVmexit(
        /// What to do about it.
        String,
    ),

    /// A file or folder of this machine cannot be written or read.
    #[error("cannot {action} {}: {cause}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why the operating system refused.
        cause: std::io::Error,
    },
    /// There is no folder for an image.
    #[error(
        "cannot make the folder {}: {cause}; set TMPDIR to one that can be written", path.display()
    )]
    ImageFolder {
        /// The folder.
        path: PathBuf,
        /// Why the operating system refused.
        cause: std::io::Error,
    },
    /// The current folder is gone.
    #[error(
        "the current folder, in which the command would begin, is gone ({0}): change to another"
    )]
    NoCurrentFolder(
        /// What the operating system said.
        std::io::Error,
    ),
    /// There is no place for a recording.
    #[error("no HOME to put the recording into: name a folder with --out")]
    NoHome,

    /// An error with what it says changed: the same fault of another thing.
    #[error("{says}")]
    Said {
        /// Whose fault it is.
        kind: Kind,
        /// What to say.
        says: String,
    },
}

impl Error {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Lab(error) => of_lab(error),
            Error::Interrupted => Kind::Interrupted,
            Error::UnknownRow(_)
            | Error::NotUnderAnotherVmm { .. }
            | Error::NoExit { .. }
            | Error::HostOnly { .. }
            | Error::ModulesTwice { .. }
            | Error::OfTheUser(_)
            | Error::Quote(_)
            | Error::NoVmm { .. }
            | Error::NotQemu(_)
            | Error::VmmStart { .. }
            | Error::NoVmexit(_)
            | Error::NoCurrentFolder(_)
            | Error::NoHome => Kind::Usage,
            Error::Said { kind, .. } => *kind,
            _ => Kind::Cannot,
        }
    }

    /// Whether it says no more than that somebody stopped the work.
    pub fn is_interruption(&self) -> bool {
        self.kind() == Kind::Interrupted
    }

    /// The same fault, said otherwise.
    #[must_use]
    pub fn said(self, says: impl FnOnce(String) -> String) -> Error {
        let (kind, was) = (self.kind(), self.to_string());
        Error::Said {
            kind,
            says: says(was),
        }
    }
}

fn of_lab(error: &exitpath_lab::Error) -> Kind {
    use exitpath_lab::Error as Lab;
    match error {
        Lab::Interrupted => Kind::Interrupted,
        Lab::UnknownKernel { .. }
        | Lab::CpuModel { .. }
        | Lab::NotAKernel { .. }
        | Lab::Damaged { .. }
        | Lab::NotInTheLab { .. }
        | Lab::UnknownParameter { .. }
        | Lab::UnknownModule { .. }
        | Lab::ParametersRefused { .. }
        | Lab::OtherModules { .. }
        | Lab::PartsMissing { .. } => Kind::Usage,
        Lab::NoQemu
        | Lab::QemuUnusable { .. }
        | Lab::NoPlugin { .. }
        | Lab::NoInside { .. }
        | Lab::OtherInside { .. }
        | Lab::PluginRefused { .. }
        | Lab::NoCacheFolder
        | Lab::MissingTool { .. }
        | Lab::NoArchive { .. }
        | Lab::Apt { .. } => Kind::Machine,
        Lab::Patch { .. } => Kind::Unpatched,
        _ => Kind::Cannot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_inside_that_is_not_there_is_no_kernels_fault() {
        let missing = exitpath_lab::Error::NoInside {
            searched: Vec::new(),
        };
        let other = exitpath_lab::Error::OtherInside {
            path: "exitpath-inside".into(),
        };
        for error in [missing, other] {
            assert_eq!(Error::from(error).kind(), Kind::Machine);
        }
    }
}
