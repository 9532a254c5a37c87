//! Executed instructions with what is known of them.

/// A line of a listing.
#[derive(Debug, Clone)]
pub(crate) enum Listed {
    /// An instruction: how often it ran in a round, and of that without skip-emulation.
    Instruction {
        /// `None`: never, which should not be.
        times: Option<u64>,
        /// `None` where there is no skip-emulation.
        lean: Option<u64>,
        address: u64,
        /// From the symbol it lies in.
        offset: Option<u64>,
        text: String,
    },
    /// So many bytes were not executed.
    Gap(u64),
    /// Another symbol begins.
    Symbol(String),
    /// Where the next instruction is from, so deep inlined.
    Source(usize, String),
}

/// The instructions of a function, in the order of their addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    pub(crate) lines: Vec<Listed>,
}
