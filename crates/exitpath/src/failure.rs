//! How a command ends when it does not succeed: one line, and the documented exit status.

use std::process::ExitCode;

use exitpath_experiment::{Error, Kind};

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something could not be done, and whose fault it is.
    Failed(Kind, String),
    /// What was to be checked is not so, and has been printed. Status 1.
    Check,
    /// A kernel cannot be judged. Status 125, which `git bisect run` takes for "skip this one".
    Unjudged(String),
    /// A command in the lab ended with this status, which is passed on.
    Status(u8),
}

impl Failure {
    /// The user asked for something that does not exist or cannot be read.
    pub(crate) fn usage(why: impl ToString) -> Failure {
        Failure::Failed(Kind::Usage, why.to_string())
    }

    /// This machine cannot do it.
    pub(crate) fn cannot(why: impl ToString) -> Failure {
        Failure::Failed(Kind::Cannot, why.to_string())
    }

    /// Prints the one line and gives the status.
    pub(crate) fn report(self) -> ExitCode {
        let (message, status) = match self {
            Failure::Failed(Kind::Usage, message) => (message, 2),
            Failure::Failed(Kind::Interrupted, _) => {
                ("interrupted: nothing was kept".to_owned(), 130)
            }
            Failure::Failed(_, message) => (message, 3),
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

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Failed(error.kind(), error.to_string())
    }
}

impl From<exitpath_lab::Error> for Failure {
    fn from(error: exitpath_lab::Error) -> Failure {
        Error::from(error).into()
    }
}
