//! What can go wrong inside: the outside shows it to the user.

use exitpath_runner::work::PLAN_FILE;

/// Why a command inside did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody started it outside of a lab.
    #[error("this program is for the inside of exitpath's labs only: use exitpath")]
    NotByHand,
    /// The plan is none.
    #[error("the lab's plan {PLAN_FILE} cannot be used: {0}")]
    Plan(String),
    /// KVM, or this machine's VMM.
    #[error(transparent)]
    Vmm(#[from] exitpath_vmm::Error),
    /// A run, or another VMM.
    #[error(transparent)]
    Run(#[from] exitpath_runner::Error),
    /// A setting of the machine cannot be made.
    #[error("this lab's kernel does not take {value} in {}: {error}", file.display())]
    Set {
        /// Its file.
        file: std::path::PathBuf,
        /// What was to be written.
        value: String,
        /// Why not.
        error: std::io::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {cause}")]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: &'static str,
        /// Why not.
        cause: std::io::Error,
    },
}
