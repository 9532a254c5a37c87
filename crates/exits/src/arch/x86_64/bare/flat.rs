//! The image as a flat real-mode file: how a VMM boots it that knows no ELF (kvmtool).
//!
//! Such a VMM copies the whole file to [`LOADED`] and begins at its first byte, in real mode. An ELF
//! file begins with 7f 45, which as code is JG to offset [`JUMPED_TO`]: taken where no flag is set,
//! as after a reset. From there a jump leads to the code here, which goes to 32-bit protected mode, copies what
//! the ELF would have had loaded to its place, and goes on as the other ways in do.

/// Where the file lies.
pub(super) const LOADED: u64 = 0x1_0000;
/// Offset in the file to which its first two bytes jump: 2 + 0x45.
pub(super) const JUMPED_TO: usize = 0x47;
/// Offset in the file of the code here.
pub(super) const CODE: usize = 0x200;

std::arch::global_asm!(
    ".pushsection .text.exitpath_guest, \"ax\", @progbits",
    ".balign 64",
    ".globl exitpath_bare_flat, exitpath_bare_flat_words, exitpath_bare_flat_end",
    ".hidden exitpath_bare_flat, exitpath_bare_flat_words, exitpath_bare_flat_end",
    ".code16",
    "exitpath_bare_flat:",
    "cli",
    // lgdt [gdtr], by its offset in this segment; all 32 bits of its base.
    ".byte 0x66, 0x0f, 0x01, 0x16",
    ".short {CODE} + (.Lxf_gdtr - exitpath_bare_flat)",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    // A far jump to 32-bit code.
    ".byte 0x66, 0xea",
    ".long {LOADED} + {CODE} + (2f - exitpath_bare_flat)",
    ".short 0x08",
    ".code32",
    "2:",
    "mov eax, 0x10",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "cld",
    "mov ebx, {LOADED} + {CODE}",
    // add ebx, the words' offset.
    ".byte 0x81, 0xc3",
    ".long exitpath_bare_flat_words - exitpath_bare_flat",
    "mov esi, dword ptr [ebx]",
    "mov edi, dword ptr [ebx + 4]",
    "mov ecx, dword ptr [ebx + 8]",
    "rep movsb",
    "jmp dword ptr [ebx + 12]",
    ".balign 8",
    // Null, code, data: flat, 32 bits.
    ".Lxf_gdt:",
    ".quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff",
    ".Lxf_gdtr:",
    ".short 23",
    ".long {LOADED} + {CODE} + (.Lxf_gdt - exitpath_bare_flat)",
    ".balign 4",
    // From, to, bytes, and where to go on: filled in for each image.
    "exitpath_bare_flat_words:",
    ".long 0, 0, 0, 0",
    "exitpath_bare_flat_end:",
    ".code64",
    ".popsection",
    CODE = const CODE,
    LOADED = const LOADED,
);

unsafe extern "C" {
    #[link_name = "exitpath_bare_flat"]
    safe static START: u8;
    #[link_name = "exitpath_bare_flat_words"]
    safe static WORDS: u8;
    #[link_name = "exitpath_bare_flat_end"]
    safe static END: u8;
}

/// Adds this way in to the front of a file: what lies at offset `from` is `bytes` long, belongs to
/// `to`, and is entered at `entry`, in 32-bit mode.
pub(super) fn add(front: &mut [u8], from: usize, to: u64, bytes: usize, entry: u64) {
    let start = &raw const START;
    let offset = |label: *const u8| label as usize - start as usize;
    // SAFETY: both labels are in the one read-only section text above, START before END, so the
    // bytes between them are initialised and never change.
    let code = unsafe { std::slice::from_raw_parts(start, offset(&raw const END)) };
    front[CODE..CODE + code.len()].copy_from_slice(code);
    let words = CODE + offset(&raw const WORDS);
    let values = [LOADED + from as u64, to, bytes as u64, entry];
    for (word, value) in front[words..].chunks_exact_mut(4).zip(values) {
        let value = u32::try_from(value).expect("the image lies below 4 GiB");
        word.copy_from_slice(&value.to_le_bytes());
    }
    // JMP rel16, three bytes long.
    let distance = (CODE - JUMPED_TO - 3) as u16;
    front[JUMPED_TO] = 0xe9;
    front[JUMPED_TO + 1..JUMPED_TO + 3].copy_from_slice(&distance.to_le_bytes());
}
