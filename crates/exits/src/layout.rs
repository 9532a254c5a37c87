//! Where things are in the guest's physical memory, and the words host and guest exchange.
//!
//! The guest runs in 64-bit mode with its first 4 GiB mapped one to one, so guest physical and
//! guest virtual addresses are the same number.

/// The control block: one page of 64-bit words shared between guest and VMM.
pub const CONTROL: u64 = 0x1000;
/// Global descriptor table.
pub const GDT: u64 = 0x2000;
/// Interrupt descriptor table: 256 gates of 16 bytes.
pub const IDT: u64 = 0x3000;
/// Page tables: one PML4, one PDPT, four page directories of 2 MiB pages.
pub const PAGE_TABLES: u64 = 0x4000;
/// Task state segment, one for all vCPUs; nothing in it is used.
pub const TSS: u64 = 0xa000;
/// Exception stubs, shared by all programs.
pub const STUBS: u64 = 0xc000;
/// The programs. Each row's has a place of its own, though a guest holds only one, so that in a
/// trace of several rows a guest address means one thing.
pub const CODE: u64 = 0x4_0000;
/// Room for a row's program, in bytes.
pub const CODE_SIZE: u64 = 0x1000;
/// Where programs of the table of exits have to end: beyond it a PC has other things than RAM.
pub const LOW_CODE_END: u64 = 0x9_f000;
/// The other tables' programs.
pub const MORE_CODE: u64 = 0xa_0000;
/// Where all programs end. User space of a lab begins there at the earliest, so that an address tells whether a
/// guest executes it.
pub const CODE_END: u64 = 0x20_0000;
/// Stacks: vCPU i's stack ends (exclusively) at `STACKS + (i + 1) * STACK_SIZE`.
pub const STACKS: u64 = 0x2_0000;
/// Bytes of stack for each vCPU.
pub const STACK_SIZE: u64 = 0x2000;
/// Most vCPUs a row may have.
pub const MAX_VCPUS: u64 = 8;
/// Where the guest stores its samples.
pub const RESULTS: u64 = CODE_END;
/// Room for samples, in bytes.
pub const RESULTS_SIZE: u64 = 0x10_0000;
/// Size of the memory slot that holds all of the above, in bytes.
pub const RAM_SIZE: u64 = RESULTS + RESULTS_SIZE;
/// A memory slot of its own, for rows about the first touch of a page and dirty logging.
pub const SCRATCH: u64 = 0x100_0000;
/// Size of that slot, in bytes.
pub const SCRATCH_SIZE: u64 = 0x20_0000;
/// A page that no memory slot backs: accesses reach the VMM.
pub const MMIO: u64 = 0xd000_0000;
/// The local APIC in xAPIC mode.
pub const APIC: u64 = 0xfee0_0000;

/// Waits that are part of a row, in ticks.
pub mod delay {
    /// Deadline of the `tscdeadline` row after the clock read that opens its bracket. Long enough that the write
    /// has been handled before it passes, on a host and in the lab.
    pub const TSCDEADLINE_TICKS: u64 = 100_000;
    /// Spin before each operation of `ipi_halt`, so that the target has halted.
    pub const IPI_HALT_SPIN_TICKS: u64 = 20_000;
    /// Wait before each operation that has a consumer, so that it sleeps.
    pub const SLEEP_TICKS: u64 = 20_000;
}

/// Offsets of the words in the control block, in bytes.
pub mod word {
    /// What to do next, one of [`super::command`].
    pub const COMMAND: u64 = 0x00;
    /// How often.
    pub const COUNT: u64 = 0x08;
    /// Operations in the shorter batch.
    pub const BATCH: u64 = 0x10;
    /// Operations finished since the guest began.
    pub const PROGRESS: u64 = 0x18;
    /// Vector of an unexpected exception plus one; 0 while there was none.
    pub const FAULT: u64 = 0x20;
    /// Its error code, 0 where it has none.
    pub const FAULT_CODE: u64 = 0x28;
    /// The instruction pointer it was taken at.
    pub const FAULT_RIP: u64 = 0x30;
    /// CR2 at that time.
    pub const FAULT_CR2: u64 = 0x38;
    /// A word a row keeps between phases (r13).
    pub const STATE: u64 = 0x48;
    /// Not 0 where a vCPU that waits for another must PAUSE to let it run: an emulator that runs
    /// one CPU at a time. On a real CPU pausing would add exits (pause-loop exiting).
    pub const YIELD: u64 = 0x40;
    /// Counted in place of PROGRESS where the baseline runs.
    pub const UNCOUNTED: u64 = 0x50;
    /// Interrupts of the test vector handled, by whichever vCPU. On a cache line of its own.
    pub const INTERRUPTS: u64 = 0x80;
    /// Secondary vCPUs that are ready. On a cache line of its own.
    pub const READY: u64 = 0xc0;
    /// Turn word for the first vCPU, on a cache line of its own.
    pub const TURN_0: u64 = 0x100;
    /// Turn word for the second vCPU, on a cache line of its own.
    pub const TURN_1: u64 = 0x140;
    /// Port writes of vCPU i in the rows about locks: this word and 64 × i bytes, a cache line each.
    pub const WRITES: u64 = 0x400;
    /// Distance of two of them, in bytes.
    pub const WRITES_STEP: u64 = 64;
    /// Where rows about kicks write: a port or an address.
    pub const KICK_AT: u64 = 0x180;
    /// What they write there, two bytes as virtio does.
    pub const KICK_VALUE: u64 = 0x188;
    /// Kicks that their consumer has taken. On a cache line of its own.
    pub const SEQUENCE: u64 = 0x1c0;
    /// RAX, RBX, RCX, RDX, RSI, RDI and RBP behind an operation, a word each.
    pub const ANSWER: u64 = 0x200;
    /// The clock, as the consumer read it when it ran last.
    pub const STAMP: u64 = 0x1c8;
}

/// Values of the COMMAND word.
pub mod command {
    /// COUNT pairs of an empty and a full bracket, stored as two ticks each.
    pub const PAIRS: u64 = 1;
    /// COUNT repetitions of the four batches, stored as four ticks each.
    pub const BATCHES: u64 = 2;
    /// COUNT times the baseline alone, nothing stored: what it contributes to the counters.
    pub const BASELINE: u64 = 3;
    /// Touch COUNT pages of the results area, so that none is touched first in a bracket.
    pub const TOUCH: u64 = 4;
    /// One operation, and the registers behind it to the ANSWER words.
    pub const ANSWER: u64 = 5;
}

/// The guest's port writes to the VMM that are part of the protocol, not of a row.
pub mod port {
    /// The control port: the guest writes one byte.
    pub const CONTROL: u16 = 0x0e0;
    /// Value: ready for a command (also: the last one is done).
    pub const READY: u8 = 1;
    /// Value: an unexpected exception was taken; see the FAULT words.
    pub const FAULT: u8 = 2;
    /// Value: the command is not known.
    pub const BAD_COMMAND: u8 = 3;
    /// Value: a kick that the VMM answers, as its row says (see [`crate::kicks::Handler`]).
    pub const KICKED: u8 = 4;

    /// Port of kvm-unit-tests' `inl_from_qemu`: no device of ours or QEMU's is there, user
    /// space answers.
    pub const USER_READ: u16 = 0x1234;
    /// A user-space port for writes.
    pub const USER_WRITE: u16 = 0x1238;
    /// First of the ports of the rows about locks: vCPU i writes to this one and 4 × i.
    pub const LOCKED: u16 = 0x1300;
    /// The ACPI PM timer, where QEMU's q35 has it.
    pub const PM_TIMER: u16 = 0x608;
    /// ELCR of the in-kernel PIC, as in kvm-unit-tests' `inl_from_kernel`.
    pub const ELCR: u16 = 0x4d0;
    /// First port of the rows about many ioeventfds, four apart.
    pub const MANY: u16 = 0x4000;
    /// First doorbell of the rows about disks, four apart.
    pub const DOORBELL: u16 = 0x2000;
    /// Port of the pci-io rows without an eventfd; the next two have one.
    pub const TESTDEV_PLAIN: u16 = 0xc000;
    /// With an eventfd that takes any value.
    pub const TESTDEV_WILDCARD: u16 = 0xc004;
    /// With an eventfd that takes [`super::DATAMATCH`] only.
    pub const TESTDEV_DATAMATCH: u16 = 0xc008;
}

/// Addresses of the user-space MMIO page.
pub mod mmio {
    /// A register user space answers.
    pub const USER: u64 = super::MMIO + 0x100;
    /// A kick by MMIO that the VMM answers like [`super::port::KICKED`].
    pub const KICKED: u64 = super::MMIO + 0x300;
    /// First address of the rows about many ioeventfds, four apart.
    pub const MANY: u64 = super::MMIO + 0x1_0000;
    /// The pci-mem rows without an eventfd; the next two have one.
    pub const TESTDEV_PLAIN: u64 = super::MMIO + 0x200;
    /// With an eventfd that takes any value.
    pub const TESTDEV_WILDCARD: u64 = super::MMIO + 0x204;
    /// With an eventfd that takes [`super::DATAMATCH`] only.
    pub const TESTDEV_DATAMATCH: u64 = super::MMIO + 0x208;
}

/// The disks of the rows about them: queues and buffers in the scratch slot, behind the pages that
/// every program touches.
///
/// A queue is one page: words that guest and I/O thread share, then the ring of requests.
pub mod disk {
    /// The first disk's queue; the others' follow.
    pub const QUEUES: u64 = super::SCRATCH + 0x1_0000;
    /// Bytes from queue to queue.
    pub const QUEUE_SIZE: u64 = 0x1000;
    /// The first disk's buffers, a page for each place in its ring; the others' follow.
    pub const BUFFERS: u64 = super::SCRATCH + 0x2_0000;
    /// Bytes from disk to disk there: 16 times [`QUEUE_SIZE`], which the guest relies on.
    pub const BUFFERS_SIZE: u64 = 16 * QUEUE_SIZE;
    /// Requests that one operation makes on each disk.
    pub const REQUESTS: u64 = 64;
    /// Most disks.
    pub const MOST: u32 = 8;
    /// Places in a ring, a power of two, and requests that the guest keeps under way on each disk.
    pub const DEPTH: u64 = 8;
    /// Bytes that a request reads.
    pub const REQUEST: u64 = 0x1000;
    /// Requests' worth of bytes in a disk's file, a power of two.
    pub const BLOCKS: u64 = 64;

    /// Offset of the number of requests the guest has made available.
    pub const AVAILABLE: u64 = 0x00;
    /// Offset of the number of requests the guest has seen done. Its own.
    pub const REAPED: u64 = 0x08;
    /// Offset of the number of requests the guest has still to make in this operation. Its own.
    pub const LEFT: u64 = 0x10;
    /// Offset of the number of requests done, in their order. On a cache line of its own.
    pub const USED: u64 = 0x40;
    /// Offset of the ring.
    pub const RING: u64 = 0x80;
    /// Bytes of a place in the ring: first byte on the disk, length, guest address, unused.
    pub const ENTRY_SIZE: u64 = 32;
}

/// The byte the pci-mem and pci-io rows write.
pub const DATAMATCH: u8 = 0xfa;
/// The vector all interrupt rows use.
pub const TEST_VECTOR: u8 = 0x60;
