//! How a command ends when it does not succeed: one line, and the documented exit status.

use std::process::ExitCode;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user asked for something that does not exist or cannot be read. Status 2.
    Usage(String),
    /// This machine cannot do it. Status 3.
    Cannot(String),
    /// This machine lacks something that has nothing to do with what is measured. Status 3.
    Machine(String),
    /// The lab's kernel could not be patched, and ran as it is. Status 3.
    Unpatched(String),
    /// The user interrupted. Status 130.
    Interrupted,
    /// What was to be checked is not so, and has been printed. Status 1.
    Check,
    /// A kernel cannot be judged. Status 125, which `git bisect run` takes for "skip this one".
    Unjudged(String),
    /// A command in the lab ended with this status, which is passed on.
    Status(u8),
}

impl Failure {
    /// What it says, without saying it.
    pub(crate) fn message(&self) -> String {
        match self {
            Failure::Usage(message)
            | Failure::Cannot(message)
            | Failure::Machine(message)
            | Failure::Unpatched(message)
            | Failure::Unjudged(message) => message.clone(),
            Failure::Interrupted => "interrupted".to_owned(),
            Failure::Check => "the check failed".to_owned(),
            Failure::Status(status) => format!("status {status}"),
        }
    }

    /// Prints the one line and gives the status.
    pub(crate) fn report(self) -> ExitCode {
        let (message, status) = match self {
            Failure::Usage(message) => (message, 2),
            Failure::Cannot(message) | Failure::Machine(message) | Failure::Unpatched(message) => {
                (message, 3)
            }
            Failure::Interrupted => ("interrupted: nothing was kept".to_owned(), 130),
            Failure::Check => return ExitCode::from(1),
            Failure::Unjudged(message) => (format!("this kernel cannot be judged: {message}"), 125),
            Failure::Status(status) => return ExitCode::from(status),
        };
        // Causes may have line breaks; a message is one line.
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        eprintln!("exitpath: {message}");
        ExitCode::from(status)
    }
}

impl From<exitpath_lab::Error> for Failure {
    fn from(error: exitpath_lab::Error) -> Failure {
        use exitpath_lab::Error as Lab;
        match error {
            Lab::Interrupted => Failure::Interrupted,
            Lab::UnknownKernel { .. }
            | Lab::NotAKernel { .. }
            | Lab::Damaged { .. }
            | Lab::NotInTheLab { .. }
            | Lab::UnknownParameter { .. }
            | Lab::UnknownModule { .. }
            | Lab::ParametersRefused { .. }
            | Lab::OtherModules { .. }
            | Lab::PartsMissing { .. } => Failure::Usage(error.to_string()),
            Lab::NoQemu
            | Lab::QemuUnusable { .. }
            | Lab::NoPlugin { .. }
            | Lab::PluginRefused { .. }
            | Lab::NoCacheFolder
            | Lab::MissingTool { .. }
            | Lab::NoArchive { .. }
            | Lab::Apt { .. } => Failure::Machine(error.to_string()),
            Lab::Patch { .. } => Failure::Unpatched(error.to_string()),
            error => Failure::Cannot(error.to_string()),
        }
    }
}

impl From<exitpath_names::Error> for Failure {
    fn from(error: exitpath_names::Error) -> Failure {
        Failure::Cannot(error.to_string())
    }
}

impl From<exitpath_vmm::Error> for Failure {
    fn from(error: exitpath_vmm::Error) -> Failure {
        Failure::Cannot(error.to_string())
    }
}
