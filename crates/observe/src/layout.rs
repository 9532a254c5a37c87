//! What the programs and this crate share, as `bpf/exits.bpf.c` has it.

use aya_obj::generated::{BPF_ALU, BPF_ALU64, BPF_LDX, bpf_insn};

use crate::sys::Plain;

/// vCPUs that can be told apart.
pub(crate) const SLOTS: usize = 4096;
/// Indices of exit reasons; the last one is for all others.
pub(crate) const INDICES: usize = 256;
/// Buckets of a histogram.
pub(crate) const BUCKETS: usize = 1024;
/// Parts of the time between an exit and the next entry.
pub(crate) const PARTS: usize = 5;

/// Fields of the kernel's structures, as the programs number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    VcpuId,
    LastGuestTsc,
    L1TscOffset,
    LastHostTsc,
    IoExits,
    NestedRun,
    TscRatio,
    PollSuccessNs,
    PollFailNs,
    TaskState,
}

/// How many there are.
pub(crate) const FIELDS: usize = 10;

/// Offsets that are calculated with, as the programs number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    Reason,
    VmcbCode,
}

/// How many there are.
pub(crate) const NUMBERS: usize = 2;

/// In place of a field's offset: its number, eight apart, from this on.
const FIRST_FIELD: i16 = 0x7000;
/// In place of such an offset.
const FIRST_NUMBER: i32 = 0x7000_0000;

/// Where this kernel has what the programs need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offsets {
    pub(crate) fields: [u32; FIELDS],
    pub(crate) numbers: [u32; NUMBERS],
}

impl Offsets {
    /// Writes them into a program. `None` where one is too large for an instruction.
    pub(crate) fn into_code(self, code: &mut [bpf_insn]) -> Option<()> {
        for instruction in code {
            let class = u32::from(instruction.code) & 7;
            let field = instruction.off.checked_sub(FIRST_FIELD).unwrap_or(-1);
            let number = instruction.imm.checked_sub(FIRST_NUMBER).unwrap_or(-1);
            let is_number = matches!(class, BPF_ALU | BPF_ALU64) && instruction.code & 8 == 0;
            if class == BPF_LDX && (0..8 * FIELDS as i16).contains(&field) {
                instruction.off = i16::try_from(self.fields[field as usize / 8]).ok()?;
            } else if is_number && (0..NUMBERS as i32).contains(&number) {
                instruction.imm = i32::try_from(self.numbers[number as usize]).ok()?;
            }
        }
        Some(())
    }
}

/// What the programs read seldom. Constant when they are verified.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Layout {
    pub(crate) cells: u32,
    pub(crate) blocks: u32,
    pub(crate) clock: u64,
    pub(crate) index: [u8; 1280],
}

impl Layout {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: plain integers without padding between them, in the order of C.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Layout>()) }
    }
}

/// Sums of a vCPU's exits for one reason.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Cell {
    pub(crate) count: u64,
    pub(crate) user_count: u64,
    pub(crate) untimed: u64,
    pub(crate) ns: [u64; PARTS],
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
    pub(crate) vcpu_id: u32,
    pub(crate) index: u32,
    pub(crate) block: [u32; PARTS],
    pub(crate) ended: u32,
}

/// What could not be counted, and what is used up.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Totals {
    pub(crate) no_slot: u64,
    pub(crate) no_thread: u64,
    pub(crate) no_cell: u64,
    pub(crate) no_block: u64,
    pub(crate) unpaired: u64,
    pub(crate) uncertain: u64,
    pub(crate) cells: u64,
    pub(crate) blocks: u64,
}

/// A histogram's counts.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Block(pub(crate) [u32; BUCKETS]);

// SAFETY: integers.
unsafe impl Plain for Cell {}
// SAFETY: integers.
unsafe impl Plain for Totals {}
// SAFETY: integers.
unsafe impl Plain for Block {}
