//! The groups of tables that there are. They are listed here and nowhere else: one that joins is a constant more.

use crate::group::Group;
use crate::{runs_group, trace_group};

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
