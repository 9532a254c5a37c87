//! What each command shows, as documents: the table of exits, the ladder, kicks, the views of a traced path, and
//! what differs between two.

mod ablate;
mod annotate;
mod diff;
mod doctor;
mod environment;
mod exits;
mod kick;
mod live;
mod parts;
mod path;
mod primitives;
mod pull_request;
mod rows;
mod tree;
mod userspace;
mod vmexit;
mod without;

pub use crate::changes::{commit, instruction};
pub use ablate::{ablations, waterfall_svg};
pub use annotate::annotate;
pub use diff::diff;
pub use doctor::doctor;
pub use environment::NEWER_QEMU;
pub use exits::table;
pub use kick::kick;
pub use live::live;
pub use parts::{parts_of, under};
pub use path::{Functions, path, seeds};
pub use primitives::primitives;
pub use pull_request::pull_request;
pub use rows::rows;
pub use tree::tree;
pub use userspace::userspace;
pub use vmexit::vmexit;
pub use without::without;
