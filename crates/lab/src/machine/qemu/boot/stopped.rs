//! What a machine says before it stops itself, and its clock when it has.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use crate::descriptors::readable;

/// Instructions from the one that reads a machine's clock to the one that stops it (`exitpath_lab_start::system::stop`).
const STOPPING: i64 = 16;
/// Nanoseconds by which a clock may have jumped to its next timer.
const LONGEST_JUMP: i64 = 10_000_000_000;

/// What a machine says by its console of results, before it stops.
pub(super) struct Said {
    pub(super) from: File,
    pub(super) bytes: Vec<u8>,
}

impl Said {
    pub(super) fn new(from: OwnedFd) -> Said {
        Said {
            from: from.into(),
            bytes: Vec::new(),
        }
    }

    /// Takes out the clock that a machine says last before it stops, and some instructions later, when it has stopped.
    pub(super) fn clock(&mut self) -> Option<i64> {
        let at = self.bytes.len().checked_sub(8)?;
        let clock = self.bytes.split_off(at);
        let clock = i64::from_le_bytes(*clock.first_chunk()?);
        clock.checked_add(STOPPING)
    }

    /// Takes in what there is.
    pub(super) fn take_in(&mut self) {
        let mut buffer = [0; 1 << 12];
        while readable(&self.from, 0) {
            match self.from.read(&mut buffer) {
                Ok(length) if length > 0 => self.bytes.extend_from_slice(&buffer[..length]),
                _ => return,
            }
        }
    }
}

/// Sets the clock of a machine that was stopped to what it was when it stopped itself. QEMU's main loop may have taken the
/// stopped CPU for an idle one and advanced the clock to its next timer, or not: that depends on how fast it was. Nothing
/// but the clock's bias is changed by that, as such a timer runs when the CPU goes on.
pub(super) fn set_clock(state: &mut [u8], clock: i64) -> std::result::Result<(), String> {
    /// The section of the clock (QEMU's `icount_vmstate_timers`): behind its version the bias, and the instructions
    /// executed.
    const SECTION: &[u8] = b"\x0ctimer/icount\0\0\0\x01";
    let strange = || "its clock is not where it should be".to_owned();
    let at = memchr::memmem::find(state, SECTION).ok_or_else(strange)? + SECTION.len();
    let number = |at: usize| Some(i64::from_be_bytes(*state.get(at..)?.first_chunk()?));
    let (bias, executed) = number(at).zip(number(at + 8)).ok_or_else(strange)?;
    let jumped = bias + executed - clock;
    if !(0..LONGEST_JUMP).contains(&jumped) {
        return Err(format!("its clock jumped by {jumped} ns"));
    }
    state[at..at + 8].copy_from_slice(&(clock - executed).to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state with a clock: its bias, and the instructions executed.
    fn state(bias: i64, executed: i64) -> Vec<u8> {
        let mut state = b"...\x0ctimer/icount\0\0\0\x01".to_vec();
        state.extend_from_slice(&bias.to_be_bytes());
        state.extend_from_slice(&executed.to_be_bytes());
        state.extend_from_slice(b"...");
        state
    }

    #[test]
    fn a_clock_that_jumped_is_set_back() {
        for bias in [1000, 1000 + 2_430_563] {
            let mut jumped = state(bias, 5_000_000);
            set_clock(&mut jumped, 5_001_000).expect("a clock");
            assert_eq!(jumped, state(1000, 5_000_000));
        }
    }

    #[test]
    fn what_is_no_clock_is_told() {
        assert!(set_clock(&mut b"no clock".to_vec(), 1).is_err());
        assert!(
            set_clock(&mut state(0, 10), 11).is_err(),
            "it would go back"
        );
        assert!(set_clock(&mut state(LONGEST_JUMP, 10), 10).is_err());
        let mut cut = state(0, 10);
        cut.truncate(22);
        assert!(set_clock(&mut cut, 10).is_err());
    }
}
