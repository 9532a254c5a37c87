//! Views of traced paths made up here: layout, field names, and that the views agree.
//!
//! Snapshots are in `tests/paths/snapshots`. To accept a change that is meant, run with
//! `INSTA_UPDATE=always` and look at the difference.

mod build;
mod diffs;
mod files;
mod texts;
mod warnings;
