//! Named groups of tables. Which there are is said here and nowhere else: one that joins is a constant more.

use exitpath_recording::Recording;

use crate::problem::Problem;
use crate::table::{Encoded, Table};
use crate::{runs_group, trace_group};

/// An error with the name of the table it was found in.
type Found = (&'static str, Problem);

/// Tables that a recording has together or not at all.
pub(crate) struct Group {
    /// Its name in the manifest's file.
    pub(crate) name: &'static str,
    /// The group that it says more of.
    pub(crate) needs: Option<&'static str>,
    /// Its tables, in the order in which they are written and read.
    pub(crate) tables: &'static [&'static Table],
    /// Its tables of a recording; `None` where that has not got what they are of.
    pub(crate) encode: fn(&Recording) -> Result<Option<Vec<Encoded>>, Problem>,
    /// Adds to a recording what its tables say.
    pub(crate) decode: fn(&mut Recording, Vec<Encoded>) -> Result<(), Found>,
}

/// All groups, each behind the one it needs. The first one every recording has.
pub(crate) const GROUPS: [&Group; 3] = [
    &runs_group::GROUP,
    &trace_group::GROUP,
    &trace_group::EXITS_GROUP,
];

/// The group of this name.
pub(crate) fn find(name: &str) -> Option<&'static Group> {
    GROUPS.into_iter().find(|group| group.name == name)
}
