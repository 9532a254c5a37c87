//! The guest's memory before it runs: descriptor tables, page tables, exception stubs, program.

use crate::arch::program::Program;
use crate::layout::{
    CODE_SIZE, CONTROL, GDT, IDT, MAX_VCPUS, PAGE_TABLES, STACK_SIZE, STACKS, STUBS, TEST_VECTOR,
    port, word,
};

/// Selector of the 64-bit code segment.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the data segment.
pub const DATA_SELECTOR: u16 = 0x10;
/// Selector of the task state segment.
pub const TSS_SELECTOR: u16 = 0x18;
/// Bytes of the GDT.
pub const GDT_SIZE: u16 = 5 * 8;
/// Bytes of the IDT.
pub const IDT_SIZE: u16 = 256 * 16;
/// Physical address of the page table root, for CR3.
pub const PAGE_TABLE_ROOT: u64 = PAGE_TABLES;

/// Bytes to be placed at a guest physical address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address.
    pub at: u64,
    /// What goes there.
    pub bytes: Vec<u8>,
}

/// A guest ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What to place where; all other memory is zero.
    pub segments: Vec<Segment>,
    /// Address the first vCPU begins at.
    pub entry: u64,
    /// Address every other vCPU begins at.
    pub secondary_entry: u64,
}

/// Initial stack pointer of a vCPU.
///
/// # Panics
/// If `vcpu` is not below [`MAX_VCPUS`].
pub fn stack_top(vcpu: u64) -> u64 {
    assert!(vcpu < MAX_VCPUS, "a guest has at most {MAX_VCPUS} vCPUs");
    STACKS + (vcpu + 1) * STACK_SIZE
}

impl Image {
    /// The image of a row's program.
    ///
    /// # Panics
    /// If the program is larger than [`CODE_SIZE`]; a test holds every row to it.
    pub fn new(program: &Program) -> Image {
        assert!(
            program.code.len() as u64 <= CODE_SIZE,
            "a row's program has {CODE_SIZE} bytes"
        );
        let handler = program.address + program.handler as u64;
        Image {
            segments: vec![
                Segment {
                    at: GDT,
                    bytes: gdt(),
                },
                Segment {
                    at: IDT,
                    bytes: idt(handler),
                },
                Segment {
                    at: PAGE_TABLES,
                    bytes: page_tables(),
                },
                Segment {
                    at: STUBS,
                    bytes: stubs::bytes().to_vec(),
                },
                Segment {
                    at: program.address,
                    bytes: program.code.to_vec(),
                },
            ],
            entry: program.address,
            secondary_entry: program.address + program.secondary as u64,
        }
    }
}

/// Null, 64-bit code, data, and a 16-byte TSS descriptor (Intel SDM vol. 3, 3.4.5 and 7.2.3).
fn gdt() -> Vec<u8> {
    let tss = crate::layout::TSS;
    let tss_low = 0x67 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
    [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        tss_low,
        tss >> 32,
    ]
    .iter()
    .flat_map(|entry: &u64| entry.to_le_bytes())
    .collect()
}

/// Interrupt gates (Intel SDM vol. 3, 6.14.1): exceptions to their stubs, the test vector to the
/// program's handler, everything else to the stub of its vector.
fn idt(handler: u64) -> Vec<u8> {
    (0..256u64)
        .flat_map(|vector| {
            let to = if vector == u64::from(TEST_VECTOR) {
                handler
            } else {
                stub(vector as u8)
            };
            gate(to)
        })
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// Address of the exception stub of a vector.
pub(crate) const fn stub(vector: u8) -> u64 {
    STUBS + vector as u64 * stubs::STUB_SIZE
}

/// An interrupt gate that leads to an address.
pub(crate) fn gate(to: u64) -> [u64; 2] {
    let low =
        (to & 0xffff) | u64::from(CODE_SELECTOR) << 16 | 0x8e00 << 32 | (to >> 16 & 0xffff) << 48;
    [low, to >> 32]
}

/// One PML4, one PDPT, four page directories: the first 4 GiB one to one in 2 MiB pages,
/// present, writable, accessed and dirty, so that the guest's tables are never written to.
fn page_tables() -> Vec<u8> {
    const PRESENT_WRITABLE_ACCESSED: u64 = 0x23;
    const LARGE_DIRTY: u64 = 0xc0;
    let mut tables = vec![0u64; 512 * 6];
    tables[0] = (PAGE_TABLES + 0x1000) | PRESENT_WRITABLE_ACCESSED;
    for i in 0..4u64 {
        tables[512 + i as usize] = (PAGE_TABLES + 0x2000 + i * 0x1000) | PRESENT_WRITABLE_ACCESSED;
    }
    for i in 0..2048u64 {
        tables[1024 + i as usize] = (i << 21) | PRESENT_WRITABLE_ACCESSED | LARGE_DIRTY;
    }
    tables.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// One stub per vector: leaves the vector in the control block and tells the VMM.
mod stubs {
    use super::{CONTROL, port, word};

    /// Bytes between two stubs.
    pub(super) const STUB_SIZE: u64 = 16;

    std::arch::global_asm!(
        ".pushsection .text.exitpath_guest, \"ax\", @progbits",
        ".balign 64",
        ".globl exitpath_guest_stubs, exitpath_guest_stubs_end",
        ".hidden exitpath_guest_stubs, exitpath_guest_stubs_end",
        "exitpath_guest_stubs:",
        ".set vector, 0",
        ".rept 256",
        ".balign 16",
        // Vectors 8, 10 to 14, 17, 21, 29 and 30 push an error code themselves.
        ".if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)",
        ".else",
        "push 0",
        ".endif",
        "push vector",
        "jmp exitpath_guest_stub_common",
        ".set vector, vector + 1",
        ".endr",
        ".balign 16",
        "exitpath_guest_stub_common:",
        "pop rax",
        "inc rax",
        "mov qword ptr [{FAULT}], rax",
        "pop rax",
        "mov qword ptr [{FAULT_CODE}], rax",
        "mov rax, qword ptr [rsp]",
        "mov qword ptr [{FAULT_RIP}], rax",
        "mov rax, cr2",
        "mov qword ptr [{FAULT_CR2}], rax",
        "2:",
        "mov al, {VALUE}",
        "out {PORT}, al",
        "jmp 2b",
        "exitpath_guest_stubs_end:",
        ".popsection",
        FAULT = const CONTROL + word::FAULT,
        FAULT_CODE = const CONTROL + word::FAULT_CODE,
        FAULT_RIP = const CONTROL + word::FAULT_RIP,
        FAULT_CR2 = const CONTROL + word::FAULT_CR2,
        VALUE = const port::FAULT,
        PORT = const port::CONTROL,
    );

    unsafe extern "C" {
        #[link_name = "exitpath_guest_stubs"]
        safe static START: u8;
        #[link_name = "exitpath_guest_stubs_end"]
        safe static END: u8;
    }

    pub(super) fn bytes() -> &'static [u8] {
        let start = &raw const START;
        // SAFETY: both labels are in the read-only section text above, START before END.
        unsafe { std::slice::from_raw_parts(start, &raw const END as usize - start as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RESULTS;

    #[test]
    fn segments_do_not_overlap_and_fit_into_memory() {
        for row in crate::ROWS {
            for amd in [false, true] {
                let image = Image::new(&row.program(amd));
                let mut end = CONTROL + 0x1000;
                for segment in &image.segments {
                    assert!(
                        segment.at >= end,
                        "{}: overlap at {:#x}",
                        row.name,
                        segment.at
                    );
                    end = segment.at + segment.bytes.len() as u64;
                }
                assert!(end <= RESULTS);
                let stacks = STACKS + MAX_VCPUS * STACK_SIZE;
                assert!(image.entry >= stacks, "{}: on the stacks", row.name);
            }
        }
    }

    #[test]
    fn stubs_keep_their_distance() {
        // push imm8, push imm32, jmp rel32: at most 2 + 5 + 5 bytes.
        let bytes = stubs::bytes();
        assert!(bytes.len() as u64 > 256 * stubs::STUB_SIZE);
        assert!(STUBS + (bytes.len() as u64) < STACKS);
        assert_eq!(
            bytes[0], 0x6a,
            "the stub of vector 0 pushes an error code of its own"
        );
        assert_eq!(
            bytes[14 * 16 + 1],
            14,
            "the stub of vector 14 pushes only its vector"
        );
    }
}
