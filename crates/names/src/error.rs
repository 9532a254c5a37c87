//! The one error type of this crate. Every message says what to do next.

use std::io;
use std::path::PathBuf;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why addresses cannot be named, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel shows its symbols, but every address is 0.
    #[error(
        "the kernel hides the addresses of its symbols: read /proc/kallsyms as root, \
         with the sysctl kernel.kptr_restrict at 0 or 1"
    )]
    HiddenAddresses,

    /// There is no function in what should be `/proc/kallsyms`.
    #[error(
        "no function is in the kernel's list of symbols: {why}; use a kernel built with CONFIG_KALLSYMS"
    )]
    NoKernelSymbols {
        /// What was found instead.
        why: String,
    },

    /// The bytes are not an ELF file whose symbols can be read.
    #[error("the symbols of {what} cannot be read: {why}; give a whole ELF file for 64 bits")]
    NotElf {
        /// The module, program or library.
        what: String,
        /// What does not fit.
        why: String,
    },

    /// No loadable part of the file is where the mapping says it is from.
    #[error(
        "{file} has nothing to load at file offset {offset:#x}: it is not the file that is \
         mapped; give the one the program was started from"
    )]
    NotMapped {
        /// The file, as the mapping names it.
        file: String,
        /// The mapping's offset in the file, in bytes.
        offset: u64,
    },

    /// The operating system refused to read something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why the operating system refused.
        source: io::Error,
    },

    /// A good ELF file, but without lines.
    #[error(
        "{} has no debug information: give the file from the package of debug symbols, \
         or build it with it (CONFIG_DEBUG_INFO for a kernel)", path.display()
    )]
    NoDebugInformation {
        /// The file.
        path: PathBuf,
    },

    /// Debug information that contradicts itself, or is packed in an unknown way.
    #[error("the debug information of {} cannot be used: {why}; fetch or build it again", path.display())]
    BadDebugInformation {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },

    /// The file's names are at other places than the symbols'.
    #[error(
        "{} is of another build than the {module} that ran: give the debug information of the \
         very same version", path.display()
    )]
    AnotherBuild {
        /// The file.
        path: PathBuf,
        /// The module, as the symbols name it.
        module: String,
    },
}
