//! The engine: a plan says which rows are measured under which conditions and how often; a machine runs it,
//! and one recording comes out.
//!
//! ```text
//! Plan ──► host::record  ─┐
//!      └─► lab::Session ──┴─► Recording
//! ```
//!
//! [`Plan`] is plain data. On a host each run is a fresh VM, in a random order by blocks ([`host`]). In the
//! lab each boot measures the rows of one condition with one seed, all boots of all conditions in one queue
//! ([`lab`]). Whatever was measured, [`record`](mod@record) is the one place where runs get their numbers and a recording is put
//! together.
//!
//! Who asks passes a [`Control`]: how far the work is, and whether it is still wanted. Nothing here prints,
//! reads a command line, or computes a figure. Every failure is an [`Error`], whose [`Kind`] says whose fault it is.

#![forbid(unsafe_code)]

mod control;
pub mod error;
pub mod guest;
pub mod host;
mod image;
pub mod knobs;
pub mod lab;
mod machine;
mod plan;
mod pool;
mod record;
pub mod rows;
mod vmm;

pub use control::{Control, Progress, Silent};
pub use error::{Error, Kind, Result};
pub use image::image_contents;
pub use machine::{Machine, Place, choose_machine};
pub use plan::{Plan, Sampling, TRACED_WARM_UP};
pub use vmm::{OWN, Vmm};
