//! What a group of tables is.

use exitpath_recording::Recording;

use crate::problem::Problem;
use crate::table::{Encoded, Table};

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
