//! The one error type of this crate.

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run could not be made, or what another VMM's guest told cannot be used. What goes wrong with a
/// guest of exitpath's own is no error but its run's outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// KVM refuses what every row needs.
    #[error(transparent)]
    Vmm(#[from] exitpath_vmm::Error),

    /// A VMM's command without a word.
    #[error("the command has no words")]
    NoWords,
    /// A VMM that cannot be started.
    #[error("cannot start {program}: {cause}")]
    Start {
        /// The program.
        program: String,
        /// Why the operating system refused.
        cause: std::io::Error,
    },

    /// A line of the image is not as it wrote it.
    #[error("the image's line {line} is garbled, or not there (`{shown}`)")]
    Garbled {
        /// The line's number, from 0.
        line: u64,
        /// Its beginning.
        shown: String,
    },
    /// A line of the image that it never should write.
    #[error("the image says what it never should: `{shown}`")]
    Strange {
        /// Its beginning.
        shown: String,
    },
    /// The image's driver failed.
    #[error(
        "the image's own driver took an exception (vector plus 1, code, address, CR2: {figures}): report \
         this as a bug of exitpath, with the VMM's command"
    )]
    DriverBroken {
        /// What it says of it.
        figures: String,
    },
    /// The VMM printed other things only.
    #[error(
        "nothing it printed is the image's; the last is `{last}`: has the VMM a serial port (COM1) on its \
         standard output, and did it boot the image?"
    )]
    NotTheImages {
        /// The beginning of its last line.
        last: String,
    },
    /// The VMM printed nothing.
    #[error(
        "it printed nothing: has the VMM a serial port (COM1) on its standard output, and did it boot the \
         image?"
    )]
    PrintedNothing,
}
