//! The lab: kernels under an emulator with counted time, one boot for each seed and condition.

mod boots;
mod command;
mod foreign;
pub mod kvm_unit_tests;
mod names;
mod prepared;
mod session;
mod steps;

pub use command::{InLab, keep, run};
pub use prepared::{
    Choice, DEFAULT_CPU, Prepared, assign_modules, cache, fetch_debug_files, find_qemu,
};
pub use session::{Instructions, Session, Setup};
pub use steps::check_steps;

/// Whether the lab's CPU is one of AMD: it has SVM.
pub(crate) const AMD: bool = true;

/// The seeds, each once: a boot with the same seed would say the same.
pub(crate) fn distinct(given: &[u64]) -> Vec<u64> {
    let mut seeds = Vec::new();
    for &seed in given {
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    seeds
}
