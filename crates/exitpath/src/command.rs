//! Names of the commands that record, as their recordings have them: a recording is shown as its command does.

/// `exitpath measure`.
pub(crate) const MEASURE: &str = "measure";
/// `exitpath userspace`.
pub(crate) const USERSPACE: &str = "userspace";
/// `exitpath kick`.
pub(crate) const KICK: &str = "kick";
/// `exitpath trace`.
pub(crate) const TRACE: &str = "trace";
/// `exitpath ablate`.
pub(crate) const ABLATE: &str = "ablate";
/// `exitpath primitives`.
pub(crate) const PRIMITIVES: &str = "primitives";
/// `exitpath gate`.
pub(crate) const GATE: &str = "gate";
