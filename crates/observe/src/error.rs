//! Why exits cannot be observed.

use std::io;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no type information.
    #[error("this kernel has no BTF ({file}): it was built without CONFIG_DEBUG_INFO_BTF: {cause}")]
    NoBtf {
        /// The file that is not there.
        file: String,
        /// Why it cannot be read.
        cause: String,
    },
    /// A KVM of this machine is not there.
    #[error("no KVM for this CPU is loaded: neither kvm_amd nor kvm_intel")]
    NoKvm,
    /// A type, a field or a function is not where it is looked for.
    #[error("this kernel's KVM has no {what}: its exits cannot be told apart this way")]
    Layout {
        /// What is missing.
        what: String,
    },
    /// The user may not.
    #[error(
        "{what} is for root, or for CAP_BPF and CAP_PERFMON, and for nobody under lockdown (/sys/kernel/security/lockdown): {cause}"
    )]
    NotAllowed {
        /// What was tried.
        what: String,
        /// What the kernel says.
        cause: io::Error,
    },
    /// The kernel refused it.
    #[error("the kernel refused {what}: {cause}{log}")]
    Refused {
        /// What was tried.
        what: String,
        /// What the kernel says.
        cause: io::Error,
        /// The end of what its verifier says, on a line of its own.
        log: String,
    },
    /// The object that is built in is none.
    #[error("the built-in BPF object cannot be used: {0}")]
    Object(String),
    /// A file cannot be read.
    #[error("cannot read {file}: {cause}")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        cause: io::Error,
    },
}

impl Error {
    /// The error for a call that the kernel refused.
    pub(crate) fn refused(what: impl Into<String>, cause: io::Error, log: &str) -> Error {
        let what = what.into();
        match cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if log.is_empty() => Error::NotAllowed { what, cause },
            _ => Error::Refused {
                what,
                cause,
                log: log.to_owned(),
            },
        }
    }
}

/// What this crate's functions give.
pub type Result<T> = std::result::Result<T, Error>;
