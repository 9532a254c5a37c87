//! Where KVM's emulator keeps a guest's instruction, which is chance, and is made the same for all rows.
//!
//! KVM copies the instruction that it emulates into an object of a slab whose order the kernel shuffles
//! (`CONFIG_SLAB_FREELIST_RANDOM`), and the check of that copy (`CONFIG_HARDENED_USERCOPY`) takes an instruction
//! or two less where the object begins in the slab's first page. A boot's first vCPU draws that lot; each
//! later one gets what the one before it gave back. So a row's value depended on what the random numbers
//! depend on: which rows there are, the command line, the files in the initramfs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exitpath_exits::layout::command;
use exitpath_exits::{Image, Row, find};
use exitpath_vmm::{Config, Error, Kvm, Vm, kick};

use super::{Failure, Protocol, ThreadEnd, Worker, signs, watch};
use crate::settings::Settings;

/// vCPUs among which the usual place is looked for. A slab of KVM's emulator has some 11 objects in
/// eight pages, of which two begin in the first one: the others are the majority of any five.
const PLACES: usize = 5;
/// Brackets timed of each: an interrupt may come into some.
const BRACKETS: u32 = 16;
/// How long a guest may go without progress.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lets the vCPUs that follow have the place that most have: for a lab, where instructions are counted,
/// before anything depends on what is measured.
///
/// Where there is nothing to be told apart, or a guest does not run, it changes nothing.
///
/// # Errors
/// Where KVM refuses a VM.
pub fn take_usual_place(kvm: &Kvm) -> Result<(), Error> {
    kick::install();
    let row = find("cpuid").expect("the catalogue has it");
    let mut places = Vec::new();
    for _ in 0..PLACES {
        match timed(kvm, row)? {
            Some(place) => places.push(place),
            None => break,
        }
    }
    let usual = most_frequent(places.iter().map(|(ticks, _)| *ticks));
    // What is given back last is taken first.
    let kept = usual.and_then(|usual| places.iter().position(|(ticks, _)| *ticks == usual));
    let kept = kept.map(|kept| places.swap_remove(kept));
    drop(places);
    drop(kept);
    Ok(())
}

/// A vCPU, and what CPUID takes on it.
fn timed(kvm: &Kvm, row: &'static Row) -> Result<Option<(u64, Protocol)>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let config = Config {
        vcpus: 1,
        ..Config::default()
    };
    let image = Image::new(&row.program(kvm.is_amd()));
    let (vm, vcpus) = Vm::new(kvm, &image, config, &stop)?;
    let memory = vm.memory().clone();
    let Some(vcpu) = vcpus.into_iter().next() else {
        return Ok(None);
    };
    let settings = Settings {
        samples: BRACKETS,
        warm_up: BRACKETS,
        batches: 0,
        batch_length: 0,
        watchdog: PATIENCE,
        cpus: Vec::new(),
        machine: Default::default(),
        yielding: false,
    };
    let mut protocol = Protocol::new(row, settings, vm, vcpu);
    let worker = Worker::spawn(move || -> Result<(u64, Protocol), Failure> {
        let model = protocol.model.clone();
        protocol.vcpu.take_rung(row, &model, &[])?;
        protocol.until_ready()?;
        protocol.settle(1)?;
        protocol.go(command::PAIRS, BRACKETS, 0)?;
        protocol.go(command::PAIRS, BRACKETS, 0)?;
        let results = protocol.vm.memory().results(2 * BRACKETS as usize);
        let net = results
            .chunks_exact(2)
            .map(|pair| pair[1].saturating_sub(pair[0]));
        Ok((most_frequent(net).unwrap_or(0), protocol))
    });
    let ended = watch(&worker, || signs(&memory), PATIENCE, &stop);
    stop.store(true, Ordering::Relaxed);
    match ended {
        ThreadEnd::Home(Ok(place)) => Ok(Some(place)),
        // What a row's run will say better.
        ThreadEnd::Home(Err(Failure::Error(Error::Unexpected { .. }))) => Ok(None),
        ThreadEnd::Home(Err(Failure::Error(error))) => Err(error),
        _ => Ok(None),
    }
}

/// The most frequent value; of several the largest.
fn most_frequent(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut counts = std::collections::BTreeMap::new();
    for value in values {
        *counts.entry(value).or_insert(0) += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|&(value, count)| (count, value));
    most.map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::most_frequent;

    #[test]
    fn what_most_have_is_usual() {
        assert_eq!(
            most_frequent([3_120, 3_119, 3_120].into_iter()),
            Some(3_120)
        );
        assert_eq!(most_frequent([3_119, 3_120].into_iter()), Some(3_120));
        assert_eq!(most_frequent([].into_iter()), None);
    }
}
