//! Executes a plan: one fresh VM per run, the protocol with its guest, counters, raw samples.
//!
//! The same code runs on a host and inside the lab. Nothing is computed here beyond taking the
//! protocol's own exits off the counters: what comes out is raw, and `analysis` does the rest.

mod amounts;
mod arch;
mod calibrate;
mod contention;
mod counters;
mod error;
mod exception;
pub mod foreign;
pub mod image_output;
mod kicked;
mod order;
mod row_info;
mod run;
mod session;
mod settings;
pub mod work;

pub use amounts::samples_of;
pub use calibrate::{Calibration, calibrate};
pub use error::{Error, Result};
pub use order::random_order;
pub use row_info::row_info;
pub use run::{run_row, run_steps};
pub use session::{Steady, take_usual_place};
pub use settings::{Machine, Place, Settings};
