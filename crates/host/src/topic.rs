//! What a topic of the examination is.

use crate::finding::Examination;
use crate::machine::Machine;

/// One topic of the examination.
pub(crate) struct Topic {
    /// Reads what it needs and adds its facts and findings.
    pub(crate) examine: fn(&Machine<'_>, &mut Examination),
    /// The `id` of each of its findings, and what that looks at. An `id` keeps its meaning for good:
    /// scripts may rely on it.
    pub(crate) findings: &'static [(&'static str, &'static str)],
}
