//! The devices in user space: an ACPI PM timer and registers that answer reads and swallow writes.

use std::time::{Duration, Instant};

use exitpath_exits::layout::port;

/// Frequency of the ACPI PM timer in Hz (ACPI specification, 4.8.2.1).
const PM_TIMER_HZ: u128 = 3_579_545;

/// The device model. One instance serves one VM; exits reach it by port or address.
#[derive(Debug)]
pub struct Devices {
    since: Instant,
    last_write: u64,
}

impl Default for Devices {
    fn default() -> Self {
        Devices {
            since: Instant::now(),
            last_write: 0,
        }
    }
}

impl Devices {
    /// Answers a port read.
    pub fn pio_read(&mut self, at: u16, data: &mut [u8]) {
        let value = match at {
            port::PM_TIMER => self.pm_timer(),
            _ => u32::MAX,
        };
        let bytes = value.to_le_bytes();
        let length = data.len().min(bytes.len());
        data[..length].copy_from_slice(&bytes[..length]);
    }

    /// Takes a port write.
    pub fn pio_write(&mut self, _at: u16, data: &[u8]) {
        self.keep(data);
    }

    /// Answers an MMIO read.
    pub fn mmio_read(&mut self, _at: u64, data: &mut [u8]) {
        let bytes = self.last_write.to_le_bytes();
        let length = data.len().min(bytes.len());
        data[..length].copy_from_slice(&bytes[..length]);
    }

    /// Takes an MMIO write.
    pub fn mmio_write(&mut self, _at: u64, data: &[u8]) {
        self.keep(data);
    }

    fn keep(&mut self, data: &[u8]) {
        let mut bytes = [0u8; 8];
        let length = data.len().min(8);
        bytes[..length].copy_from_slice(&data[..length]);
        self.last_write = u64::from_le_bytes(bytes);
    }

    /// The timer's count: 24 bits, at its frequency, since the VM was made.
    fn pm_timer(&self) -> u32 {
        pm_timer_after(self.since.elapsed())
    }
}

fn pm_timer_after(time: Duration) -> u32 {
    let ticks = time.as_nanos() * PM_TIMER_HZ / 1_000_000_000;
    (ticks & 0xff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pm_timer_counts_to_24_bits_and_begins_anew() {
        let after = |ns| pm_timer_after(Duration::from_nanos(ns));
        assert_eq!((after(0), after(279), after(280)), (0, 0, 1));
        assert_eq!(pm_timer_after(Duration::from_secs(1)), 3_579_545);
        // 2^24 ticks take 4.69 s.
        assert_eq!(
            pm_timer_after(Duration::from_secs(5)),
            5 * 3_579_545 - (1 << 24)
        );
        assert!(pm_timer_after(Duration::MAX) < 1 << 24);
    }

    #[test]
    fn registers_keep_what_is_written_and_ports_without_a_device_are_all_ones() {
        let mut devices = Devices::default();
        let mut word = [0; 4];
        devices.pio_read(0x80, &mut word);
        assert_eq!(word, [0xff; 4]);
        devices.mmio_write(0, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        devices.mmio_read(8, &mut word);
        assert_eq!(word, [1, 2, 3, 4]);
        devices.pio_write(0x80, &[9]);
        let mut all = [0xaa; 9];
        devices.mmio_read(0, &mut all);
        assert_eq!(
            all,
            [9, 0, 0, 0, 0, 0, 0, 0, 0xaa],
            "no more than eight bytes"
        );
    }
}
