//! The driver: what the image executes besides the rows' programs.
//!
//! It begins where a VMM enters it, in one of four ways (PVH, multiboot, as a 64-bit Linux, or flat),
//! puts the guest together as [`layout`](crate::layout) has it, enters 64-bit mode with the registers
//! that exitpath's own VMM sets, and then plays the host's part of the protocol row by row, telling
//! the results over COM1.
//!
//! A program says that it is ready by a byte to a port. In the image the two bytes of that OUT are
//! [`CALL`], an instruction that no CPU executes, and the exception's gate leads here: the
//! program's registers are saved, and `go` returns to the driver's own flow. What is measured is
//! untouched. (INT would do on a CPU, but where KVM emulates instructions it has no INT in 64-bit
//! mode.)
//!
//! The driver lies at [`BASE`] and only there. It has no stack of a program and uses none. Its code is
//! in `driver/`: `entry.s`, `row.s`, `program.s`, `lines.s`.

use exitpath_lab_plugin::stream::Marker;

use crate::layout::{CONTROL, RESULTS, STACK_SIZE, STACKS, TSS, command, port, word};

/// Where the image lies: above all that VMMs put into low memory and all that a guest of ours has
/// there, below the scratch memory.
pub(crate) const BASE: u64 = 0x40_0000;
/// `push es` (and a NOP), which there is not in 64-bit mode, by which programs and exception stubs
/// reach the driver: #UD on any CPU, under TCG, and where KVM emulates instructions. (KVM's emulator
/// gives up at UD2, and QEMU 10's TCG lets a move to CS pass.)
pub(crate) const CALL: [u8; 2] = [0x06, 0x90];
/// The vector of #UD.
pub(crate) const VECTOR: u8 = 6;
/// Bytes at the driver's front that belong to the multiboot header.
pub(crate) const HEADER_SIZE: usize = 0x40;
/// Bytes of the block of parameters behind it.
pub(crate) const PARAMETERS_SIZE: usize = 0xc0;
/// Bytes of a row's record.
pub(crate) const RECORD_SIZE: usize = 136;
/// Bytes of a need's record.
pub(crate) const NEED_SIZE: usize = 48;
/// What the exit port is written with: QEMU's isa-debug-exit makes it status 33.
const EXIT_VALUE: u32 = 0x10;

/// Offsets of the parameters from the front of the image, each a 64-bit word unless it says else.
pub(crate) mod parameter {
    /// Address of the rows' records.
    pub(crate) const ROWS: u64 = 0x40;
    /// Number of rows.
    pub(crate) const ROW_COUNT: u64 = 0x48;
    /// Address at which samples are kept until they are told.
    pub(crate) const BUFFER: u64 = 0x50;
    /// End of the driver's stack.
    pub(crate) const STACK_TOP: u64 = 0x58;
    /// Iterations before the first sample that counts.
    pub(crate) const WARM_UP: u64 = 0x60;
    /// Address of the list of what is copied to low memory: to, from, bytes (64-bit words).
    pub(crate) const SEGMENTS: u64 = 0x68;
    /// Its length.
    pub(crate) const SEGMENT_COUNT: u64 = 0x70;
    /// Where 64-bit mode begins.
    pub(crate) const START_64: u64 = 0x78;
    /// Operand of LGDT, 10 bytes.
    pub(crate) const GDTR: u64 = 0x80;
    /// Operand of LIDT, 10 bytes.
    pub(crate) const IDTR: u64 = 0x90;
    /// Baselines that are run uncounted.
    pub(crate) const BASELINES: u64 = 0xa0;
    /// How the image was entered: 0 PVH, 1 multiboot, 2 as a 64-bit Linux, 3 flat. Written by the driver.
    pub(crate) const ENTERED: u64 = 0xa8;
}

/// Offsets of the words in a row's record.
pub(crate) mod record {
    /// Address and length of the name.
    pub(crate) const NAME: u64 = 0;
    /// Guest address of the program.
    pub(crate) const ADDRESS: u64 = 16;
    /// For CPUs with VMCALL: address and length of the program's bytes, the test vector's gate.
    pub(crate) const INTEL: u64 = 24;
    /// The same for CPUs with VMMCALL.
    pub(crate) const AMD: u64 = 56;
    /// Samples.
    pub(crate) const SAMPLES: u64 = 88;
    /// Repetitions of the batch estimator.
    pub(crate) const BATCHES: u64 = 96;
    /// Operations in the shorter batch.
    pub(crate) const BATCH_LENGTH: u64 = 104;
    /// Address and number of needs.
    pub(crate) const NEEDS: u64 = 112;
    /// An MSR that is 0 again after the row; 0: none.
    pub(crate) const CLEARED: u64 = 128;
}

/// The driver's bytes and the places in it that the image's headers name, as offsets.
pub(crate) struct Driver {
    pub(crate) bytes: &'static [u8],
    pub(crate) pvh: u64,
    pub(crate) multiboot: u64,
    pub(crate) linux64: u64,
    pub(crate) flat: u64,
    pub(crate) start_64: u64,
    pub(crate) handler: u64,
}

std::arch::global_asm!(
    include_str!("driver/entry.s"),
    include_str!("driver/row.s"),
    include_str!("driver/program.s"),
    include_str!("driver/lines.s"),
    HEADER_SIZE = const HEADER_SIZE,
    PARAMETERS_SIZE = const PARAMETERS_SIZE,
    RECORD_SIZE = const RECORD_SIZE,
    NEED_SIZE = const NEED_SIZE,
    EXIT_VALUE = const EXIT_VALUE,
    ROWS = const BASE + parameter::ROWS,
    ROW_COUNT = const BASE + parameter::ROW_COUNT,
    BUFFER = const BASE + parameter::BUFFER,
    STACK_TOP = const BASE + parameter::STACK_TOP,
    WARM_UP = const BASE + parameter::WARM_UP,
    SEGMENTS = const BASE + parameter::SEGMENTS,
    SEGMENT_COUNT = const BASE + parameter::SEGMENT_COUNT,
    START_64 = const BASE + parameter::START_64,
    GDTR = const BASE + parameter::GDTR,
    IDTR = const BASE + parameter::IDTR,
    BASELINES = const BASE + parameter::BASELINES,
    ENTERED = const BASE + parameter::ENTERED,
    NAME = const record::NAME,
    ADDRESS = const record::ADDRESS,
    INTEL = const record::INTEL,
    AMD = const record::AMD,
    SAMPLES = const record::SAMPLES,
    BATCHES = const record::BATCHES,
    BATCH_LENGTH = const record::BATCH_LENGTH,
    NEEDS = const record::NEEDS,
    CLEARED = const record::CLEARED,
    GATE = const crate::layout::IDT + crate::layout::TEST_VECTOR as u64 * 16,
    CALL = const u16::from_le_bytes(CALL),
    UNDEFINED_STUB = const crate::arch::x86_64::image::stub(VECTOR),
    TSS = const TSS,
    PAGE_TABLES = const crate::layout::PAGE_TABLES,
    PROGRAM_STACK = const STACKS + STACK_SIZE,
    RESULTS = const RESULTS,
    APIC = const crate::layout::APIC,
    READY = const port::READY,
    TOUCH = const command::TOUCH,
    BASELINE = const command::BASELINE,
    PAIRS = const command::PAIRS,
    BATCH_COMMAND = const command::BATCHES,
    CONTROL = const CONTROL,
    COMMAND = const CONTROL + word::COMMAND,
    COUNT = const CONTROL + word::COUNT,
    BATCH = const CONTROL + word::BATCH,
    PROGRESS = const CONTROL + word::PROGRESS,
    FAULT = const CONTROL + word::FAULT,
    FAULT_CODE = const CONTROL + word::FAULT_CODE,
    FAULT_RIP = const CONTROL + word::FAULT_RIP,
    FAULT_CR2 = const CONTROL + word::FAULT_CR2,
    ARM = const Marker::Arm.displacement(),
    START = const Marker::Start.displacement(),
    STOP = const Marker::Stop.displacement(),
);

unsafe extern "C" {
    #[link_name = "exitpath_bare"]
    safe static START: u8;
    #[link_name = "exitpath_bare_pvh"]
    safe static PVH: u8;
    #[link_name = "exitpath_bare_multiboot"]
    safe static MULTIBOOT: u8;
    #[link_name = "exitpath_bare_linux64"]
    safe static LINUX64: u8;
    #[link_name = "exitpath_bare_flat_entry"]
    safe static FLAT: u8;
    #[link_name = "exitpath_bare_start_64"]
    safe static START_64: u8;
    #[link_name = "exitpath_bare_handler"]
    safe static HANDLER: u8;
    #[link_name = "exitpath_bare_end"]
    safe static END: u8;
}

pub(crate) fn driver() -> Driver {
    let start = &raw const START;
    let offset = |label: *const u8| (label as usize - start as usize) as u64;
    Driver {
        // SAFETY: both labels are in the one read-only section text above, START before END, so the
        // bytes between them are initialised and never change.
        bytes: unsafe { std::slice::from_raw_parts(start, offset(&raw const END) as usize) },
        pvh: offset(&raw const PVH),
        multiboot: offset(&raw const MULTIBOOT),
        linux64: offset(&raw const LINUX64),
        flat: offset(&raw const FLAT),
        start_64: offset(&raw const START_64),
        handler: offset(&raw const HANDLER),
    }
}
