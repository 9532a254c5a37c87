//! From the plugin's bytes to windows, segments and paths.

pub mod decoder;
pub mod windows;

pub use decoder::{Decoder, Record};
