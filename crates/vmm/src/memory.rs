//! Guest memory: the slot with program and results, and the scratch slot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use exitpath_exits::Image;
use exitpath_exits::layout::{
    CODE, CONTROL, RAM_SIZE, RESULTS, RESULTS_SIZE, SCRATCH, SCRATCH_SIZE,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::Error;

/// A guest's memory; clones share it.
#[derive(Debug, Clone)]
pub struct Memory {
    inner: Arc<GuestMemoryMmap<()>>,
}

impl Memory {
    /// Allocates both slots, in 4 KiB pages, and loads the image.
    ///
    /// What a guest has at once is present before it runs: its tables, stacks and code, and where `scratch`,
    /// the scratch slot, so that a nested page fault never includes the host's own first touch. Results
    /// are not: a guest touches those that it will write before anything is measured. No page is a huge
    /// one, so that a fault maps one page.
    ///
    /// # Errors
    /// [`Error::Memory`] where the machine has not enough of it.
    pub fn new(image: &Image, scratch: bool) -> Result<Memory, Error> {
        let ranges = [
            (GuestAddress(0), RAM_SIZE as usize),
            (GuestAddress(SCRATCH), SCRATCH_SIZE as usize),
        ];
        let inner = GuestMemoryMmap::<()>::from_ranges(&ranges)
            .map_err(|error| Error::Memory(error.to_string()))?;
        for region in inner.iter() {
            let host = inner
                .get_host_address(region.start_addr())
                .map_err(|error| Error::Memory(error.to_string()))?;
            // SAFETY: the range is exactly one of our own anonymous mappings, and the advice changes no content.
            // A kernel without transparent huge pages refuses it, which is as good.
            unsafe { libc::madvise(host.cast(), region.len() as usize, libc::MADV_NOHUGEPAGE) };
        }
        let memory = Memory {
            inner: Arc::new(inner),
        };
        for segment in &image.segments {
            memory
                .inner
                .write_slice(&segment.bytes, GuestAddress(segment.at))
                .map_err(|error| Error::Memory(error.to_string()))?;
        }
        memory.populate(0, CODE)?;
        if scratch {
            memory.populate(SCRATCH, SCRATCH_SIZE)?;
        }
        Ok(memory)
    }

    /// Makes pages present, writable ones, without a change of what is in them.
    fn populate(&self, start: u64, size: u64) -> Result<(), Error> {
        let host = self.host(start, size);
        // SAFETY: the range is inside one of our own anonymous mappings, and the advice changes no content.
        let done = host.is_some_and(|host| unsafe {
            libc::madvise(host.cast(), size as usize, libc::MADV_POPULATE_WRITE) == 0
        });
        if done {
            return Ok(());
        }
        // Kernels before 5.14.
        for at in (start..start + size).step_by(4096).map(GuestAddress) {
            let byte: u8 = self
                .inner
                .read_obj(at)
                .map_err(|error| Error::Memory(error.to_string()))?;
            self.inner
                .write_obj(byte, at)
                .map_err(|error| Error::Memory(error.to_string()))?;
        }
        Ok(())
    }

    /// The slots as KVM wants them: guest physical address, size in bytes, host virtual address.
    pub(crate) fn slots(&self) -> Result<Vec<(u64, u64, u64)>, Error> {
        self.inner
            .iter()
            .map(|region| {
                let start = region.start_addr();
                let host = self
                    .inner
                    .get_host_address(start)
                    .map_err(|error| Error::Memory(error.to_string()))?;
                Ok((start.0, region.len(), host as u64))
            })
            .collect()
    }

    /// A word of the control block (an offset from [`exitpath_exits::layout::word`]).
    pub fn word(&self, offset: u64) -> u64 {
        self.inner
            .load(GuestAddress(CONTROL + offset), Ordering::Acquire)
            .expect("the control block is inside the first slot and aligned")
    }

    /// Sets a word of the control block.
    pub fn set_word(&self, offset: u64, value: u64) {
        self.inner
            .store(value, GuestAddress(CONTROL + offset), Ordering::Release)
            .expect("the control block is inside the first slot and aligned");
    }

    /// A 64-bit word anywhere in the slots; 0 where there is none.
    pub(crate) fn load(&self, at: u64) -> u64 {
        self.inner
            .load(GuestAddress(at), Ordering::Acquire)
            .unwrap_or(0)
    }

    /// Sets a 64-bit word anywhere in the slots, as a device does. Does nothing where there is none.
    pub(crate) fn store(&self, at: u64, value: u64) {
        let _ = self.inner.store(value, GuestAddress(at), Ordering::Release);
    }

    /// Where so many bytes are in this process; `None` where they are not all in one slot.
    pub(crate) fn host(&self, at: u64, length: u64) -> Option<*mut u8> {
        let length = usize::try_from(length).ok()?;
        let slice = self.inner.get_slice(GuestAddress(at), length).ok()?;
        Some(slice.ptr_guard_mut().as_ptr())
    }

    /// Bytes anywhere in the slots; empty where they are not all in one.
    pub fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        match self.inner.read_slice(&mut bytes, GuestAddress(at)) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// The first `count` 64-bit results the guest stored.
    ///
    /// # Panics
    /// If that is more than the results area holds; callers limit what they ask the guest for.
    pub fn results(&self, count: usize) -> Vec<u64> {
        assert!(count as u64 * 8 <= RESULTS_SIZE, "results area overrun");
        let mut bytes = vec![0u8; count * 8];
        self.inner
            .read_slice(&mut bytes, GuestAddress(RESULTS))
            .expect("the results area is inside the first slot");
        bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("chunks of 8")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use exitpath_exits::find;

    use super::*;

    fn memory() -> Memory {
        let program = find("empty").expect("a row").program(true);
        Memory::new(&Image::new(&program), false).expect("memory")
    }

    #[test]
    fn nothing_outside_a_slot_is_reached() {
        let memory = memory();
        let slots = memory.slots().expect("two slots");
        let places: Vec<(u64, u64)> = slots
            .iter()
            .map(|&(start, size, _)| (start, size))
            .collect();
        assert_eq!(places, [(0, RAM_SIZE), (SCRATCH, SCRATCH_SIZE)]);
        for (start, size, host) in slots {
            let last = start + size - 8;
            memory.store(last, 0x1234);
            assert_eq!(memory.load(last), 0x1234);
            assert_eq!(memory.bytes(last, 2), [0x34, 0x12]);
            // Where it is in this process, up to the slot's last byte and no further.
            let at = memory.host(start, size).expect("all of the slot");
            assert_eq!(at as u64, host);
            assert_eq!(memory.host(start, size + 1), None);
            assert_eq!(memory.host(last, u64::MAX), None);
            assert!(memory.bytes(last, 9).is_empty());
        }
        let nowhere = SCRATCH + SCRATCH_SIZE;
        memory.store(nowhere, 1);
        assert_eq!(memory.load(nowhere), 0);
    }

    #[test]
    fn clones_share_what_is_in_it() {
        let memory = memory();
        let clone = memory.clone();
        memory.set_word(exitpath_exits::layout::word::PROGRESS, 77);
        assert_eq!(clone.word(exitpath_exits::layout::word::PROGRESS), 77);
        memory.store(RESULTS + 8, 5);
        assert_eq!(clone.results(2), [0, 5]);
    }
}
