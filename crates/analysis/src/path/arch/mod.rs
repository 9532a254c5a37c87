//! What depends on the architecture of the kernel whose path it is, each in a folder of its own. A recording
//! says which it has ([`Environment::arch`](exitpath_recording::Environment::arch)); any machine analyses all.

pub mod x86_64;

pub(super) use x86_64::decode::{Decoded, Flow, Interception, form, text};
pub(super) use x86_64::interrupted_an_instruction;
pub(super) use x86_64::traits::kernel_traits;
pub(super) use x86_64::{NAME, PHASES, classes};
