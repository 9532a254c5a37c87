//! The driver: what the image executes besides the rows' programs.
//!
//! It begins where a VMM enters it, in one of three ways (PVH, multiboot, or as a 64-bit Linux), puts the guest together as
//! [`layout`](crate::layout) has it, enters 64-bit mode with the registers that exitpath's own VMM
//! sets, and then plays the host's part of the protocol row by row, telling the results over COM1.
//!
//! A program says that it is ready by a byte to a port. In the image the two bytes of that OUT are
//! [`CALL`], an instruction that no CPU executes, and the exception's gate leads here: the
//! program's registers are saved, and `go` returns to the driver's own flow. What is measured is
//! untouched. (INT would do on a CPU, but where KVM emulates instructions it has no INT in 64-bit
//! mode.)
//!
//! The driver lies at [`BASE`] and only there. It has no stack of a program and uses none.

use exitpath_lab_plugin::stream::Marker;

use crate::layout::{CONTROL, RESULTS, STACK_SIZE, STACKS, TSS, command, port, word};

/// Where the image lies: above all that VMMs put into low memory and all that a guest of ours has
/// there, below the scratch memory.
pub(crate) const BASE: u64 = 0x40_0000;
/// `push es` (and a NOP), which there is not in 64-bit mode, by which programs and exception stubs
/// reach the driver: #UD on any CPU, under TCG, and where KVM emulates instructions. (KVM's emulator gives up at
/// UD2, and QEMU 10's TCG lets a move to CS pass.)
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

/// Reads a line's text that stands in the driver itself.
macro_rules! say {
    ($label:literal) => {
        concat!("lea rsi, [rip + ", $label, "]\ncall .Lxb_text\n")
    };
}

std::arch::global_asm!(
    concat!(
    ".pushsection .text.exitpath_guest, \"ax\", @progbits\n",
    ".balign 64\n",
    ".globl exitpath_bare, exitpath_bare_pvh, exitpath_bare_multiboot, exitpath_bare_linux64\n",
    ".hidden exitpath_bare, exitpath_bare_pvh, exitpath_bare_multiboot, exitpath_bare_linux64\n",
    ".globl exitpath_bare_start_64, exitpath_bare_handler, exitpath_bare_flat_entry, exitpath_bare_end\n",
    ".hidden exitpath_bare_start_64, exitpath_bare_handler, exitpath_bare_flat_entry, exitpath_bare_end\n",
    "exitpath_bare:\n",
    ".skip {HEADER_SIZE} + {PARAMETERS_SIZE}, 0\n",

    // Entered as a 64-bit Linux (Documentation/arch/x86/boot.rst): paging is on, with tables that
    // may lie where ours go. Down to 32 bits without paging, which the other ways begin with.
    ".code64\n",
    "exitpath_bare_linux64:\n",
    "cli\n",
    "mov esp, dword ptr [{STACK_TOP}]\n",
    "lea rax, [rip + .Lxb_gdt]\n",
    "mov qword ptr [rip + .Lxb_gdtr + 2], rax\n",
    "lgdt [rip + .Lxb_gdtr]\n",
    "push 0x08\n",
    "lea rax, [rip + 2f]\n",
    "push rax\n",
    "retfq\n",
    ".code32\n",
    "2:\n",
    "mov eax, 0x10\n",
    "mov ds, eax\nmov es, eax\nmov ss, eax\n",
    "mov eax, 0x21\n", // NE, PE: paging off
    "mov cr0, eax\n",
    "mov ecx, 0xc0000080\nxor eax, eax\nxor edx, edx\nwrmsr\n",
    "mov ebp, 2\n",
    "jmp 3f\n",

    "exitpath_bare_flat_entry:\n",
    "mov ebp, 3\n",
    "jmp 3f\n",
    "exitpath_bare_multiboot:\n",
    "mov ebp, 1\n",
    "jmp 3f\n",
    "exitpath_bare_pvh:\n",
    "xor ebp, ebp\n",
    // 32-bit protected mode, flat segments, no paging. Tables, stubs and page tables to their
    // places.
    "3:\n",
    "cli\n",
    "cld\n",
    "mov dword ptr [{ENTERED}], ebp\n",
    "mov esp, dword ptr [{STACK_TOP}]\n",
    "mov ebx, dword ptr [{SEGMENTS}]\n",
    "mov edx, dword ptr [{SEGMENT_COUNT}]\n",
    "4:\n",
    "mov edi, dword ptr [ebx]\n",
    "mov esi, dword ptr [ebx + 8]\n",
    "mov ecx, dword ptr [ebx + 16]\n",
    "rep movsb\n",
    "add ebx, 24\n",
    "dec edx\n",
    "jnz 4b\n",
    "xor eax, eax\n",
    "mov edi, {TSS}\nmov ecx, 0x1000\nrep stosb\n",
    // Registers as vmm/src/vcpu.rs has them.
    "mov eax, 0x6a0\nmov cr4, eax\n",
    "mov eax, {PAGE_TABLES}\nmov cr3, eax\n",
    "mov ecx, 0xc0000080\nmov eax, 0x100\nxor edx, edx\nwrmsr\n",
    "mov eax, 0x80050033\nmov cr0, eax\n",
    "lgdt [{GDTR}]\n",
    "push 0x08\n",
    "push dword ptr [{START_64}]\n",
    "retf\n",

    ".code64\n",
    "exitpath_bare_start_64:\n",
    "mov eax, 0x10\n",
    "mov ds, eax\nmov es, eax\nmov ss, eax\nmov fs, eax\nmov gs, eax\n",
    "mov rsp, qword ptr [{STACK_TOP}]\n",
    "lidt [{IDTR}]\n",
    "mov eax, 0x18\nltr ax\n",
    // The PICs keep their interrupts.
    "mov al, 0xff\nout 0x21, al\nout 0xa1, al\n",
    // COM1: no interrupts, 115200 8N1, FIFOs where there are any.
    "mov edx, 0x3f9\nxor eax, eax\nout dx, al\n",
    "mov edx, 0x3fb\nmov al, 0x80\nout dx, al\n",
    "mov edx, 0x3f8\nmov al, 1\nout dx, al\n",
    "mov edx, 0x3f9\nxor eax, eax\nout dx, al\n",
    "mov edx, 0x3fb\nmov al, 3\nout dx, al\n",
    "mov edx, 0x3fa\nmov al, 7\nout dx, al\n",
    "mov edx, 0x3fc\nmov al, 3\nout dx, al\n",
    "mov dword ptr [rip + .Lxb_burst], 1\n",
    "mov edx, 0x3fa\nin al, dx\n",
    "and al, 0xc0\ncmp al, 0xc0\njne 2f\n",
    "mov dword ptr [rip + .Lxb_burst], 16\n",
    "2:\n",
    "xor eax, eax\n",
    "cpuid\n",
    "mov dword ptr [rip + .Lxb_vendor], ebx\n",
    "mov dword ptr [rip + .Lxb_vendor + 4], edx\n",
    "mov dword ptr [rip + .Lxb_vendor + 8], ecx\n",
    "xor eax, eax\n",
    "cmp ebx, 0x68747541\n", // "Auth"
    "je 3f\n",
    "cmp ebx, 0x6f677948\n", // "Hygo"
    "jne 4f\n",
    "3:\n",
    "mov eax, 1\n",
    "4:\n",
    "mov dword ptr [rip + .Lxb_amd], eax\n",

    // What firmware has left on the line is no part of ours.
    "mov al, 10\ncall .Lxb_put\n",
    "call .Lxb_line\n",
    say!(".Lxb_boot"),
    "mov rax, qword ptr [{ENTERED}]\ncall .Lxb_number\n",
    "mov rax, qword ptr [{ROW_COUNT}]\ncall .Lxb_number\n",
    "call .Lxb_space\n",
    "lea rsi, [rip + .Lxb_vendor]\nmov ecx, 12\ncall .Lxb_bytes\n",
    "call .Lxb_end_line\n",

    "mov rbx, qword ptr [{ROWS}]\n",
    "xor ebp, ebp\n",
    ".Lxb_rows:\n",
    "cmp rbp, qword ptr [{ROW_COUNT}]\n",
    "jae .Lxb_finished\n",
    "call .Lxb_row\n",
    "add rbx, {RECORD_SIZE}\n",
    "inc rbp\n",
    "jmp .Lxb_rows\n",
    ".Lxb_finished:\n",
    "call .Lxb_line\n",
    say!(".Lxb_bye"),
    "mov rax, rbp\ncall .Lxb_number\n",
    "call .Lxb_end_line\n",

    // The end: QEMU's isa-debug-exit, the keyboard controller's reset line, and then nothing.
    ".Lxb_leave:\n",
    "mov edx, 0xf4\nmov eax, {EXIT_VALUE}\nout dx, eax\n",
    "mov al, 0xfe\nout 0x64, al\n",
    "2:\n",
    "cli\nhlt\njmp 2b\n",

    // One row. rbx: its record; rbp: its number.
    ".Lxb_row:\n",
    "call .Lxb_renew\n",
    "call .Lxb_line\n",
    say!(".Lxb_begins"),
    "mov rax, rbp\ncall .Lxb_number\n",
    "call .Lxb_space\n",
    "mov rsi, qword ptr [rbx + {NAME}]\n",
    "mov rcx, qword ptr [rbx + {NAME} + 8]\n",
    "call .Lxb_bytes\n",
    "call .Lxb_end_line\n",
    "call .Lxb_has_needs\n",
    "jne .Lxb_lacking\n",

    // The control block empty; the program, from its pristine copy; its handler's gate.
    "mov edi, {CONTROL}\nmov ecx, 512\nxor eax, eax\nrep stosq\n",
    "lea r12, [rbx + {INTEL}]\n",
    "lea rax, [rbx + {AMD}]\n",
    "cmp dword ptr [rip + .Lxb_amd], 0\n",
    "cmovne r12, rax\n",
    "mov rdi, qword ptr [rbx + {ADDRESS}]\n",
    "mov rsi, qword ptr [r12]\n",
    "mov rcx, qword ptr [r12 + 8]\n",
    "rep movsb\n",
    "mov rax, qword ptr [r12 + 16]\nmov qword ptr [{GATE}], rax\n",
    "mov rax, qword ptr [r12 + 24]\nmov qword ptr [{GATE} + 8], rax\n",
    "lea rdi, [rip + .Lxb_registers]\nmov ecx, 15\nxor eax, eax\nrep stosq\n",
    "mov rax, qword ptr [rbx + {ADDRESS}]\nmov qword ptr [rip + .Lxb_rip], rax\n",
    "mov qword ptr [rip + .Lxb_flags], 2\n",
    "mov qword ptr [rip + .Lxb_rsp], {PROGRAM_STACK}\n",
    "mov qword ptr [rip + .Lxb_gave_up], rsp\n",

    // The protocol, as runner/src/session.rs follows it.
    "call .Lxb_resume\n",
    "nop dword ptr [rax + rax + {ARM}]\n",
    // Pages of results: a page holds 256 samples, or 128 repetitions of batches.
    "mov rsi, qword ptr [rbx + {SAMPLES}]\nadd rsi, 255\nshr rsi, 8\n",
    "mov rax, qword ptr [rbx + {BATCHES}]\nadd rax, 127\nshr rax, 7\n",
    "cmp rsi, rax\ncmovb rsi, rax\n",
    "mov eax, 1\ncmp rsi, rax\ncmovb rsi, rax\n",
    "mov edi, {TOUCH}\nxor edx, edx\ncall .Lxb_go\n",
    "mov edi, {BASELINE}\nmov esi, 1\nxor edx, edx\ncall .Lxb_go\n",
    "mov rsi, qword ptr [{WARM_UP}]\n",
    "test rsi, rsi\njz 2f\n",
    "mov edi, {PAIRS}\nxor edx, edx\ncall .Lxb_go\n",
    "2:\n",
    "mov edi, {BASELINE}\nmov rsi, qword ptr [{BASELINES}]\nxor edx, edx\ncall .Lxb_go\n",
    "mov edi, {BASELINE}\nmov rsi, qword ptr [{BASELINES}]\nxor edx, edx\ncall .Lxb_go\n",
    // The port of the diagnostics' display, which nobody reads: whoever records from here on sees
    // the VMM enter the guest before the first sample.
    "nop dword ptr [rax + rax + {START}]\n",
    "in al, 0x80\n",
    "mov edi, {PAIRS}\nmov rsi, qword ptr [rbx + {SAMPLES}]\nxor edx, edx\n",
    "call .Lxb_go\n",
    "nop dword ptr [rax + rax + {STOP}]\n",
    "mov esi, {RESULTS}\n",
    "mov rdi, qword ptr [{BUFFER}]\n",
    "mov rcx, qword ptr [rbx + {SAMPLES}]\nadd rcx, rcx\n",
    "rep movsq\n",
    "mov rsi, qword ptr [rbx + {BATCHES}]\n",
    "test rsi, rsi\njz 3f\n",
    "mov rdx, qword ptr [rbx + {BATCH_LENGTH}]\n",
    "mov edi, {BATCH_COMMAND}\ncall .Lxb_go\n",
    "3:\n",
    "mov ecx, dword ptr [rbx + {CLEARED}]\n",
    "test ecx, ecx\njz 4f\n",
    "xor eax, eax\nxor edx, edx\nwrmsr\n",
    "4:\n",
    "call .Lxb_renew\n",
    "call .Lxb_tell_samples\n",
    "call .Lxb_tell_batches\n",
    "lea r12, [rip + .Lxb_done]\n",
    ".Lxb_end_row:\n",
    "call .Lxb_line\n",
    say!(".Lxb_ends"),
    "mov rax, rbp\ncall .Lxb_number\n",
    "mov rsi, r12\ncall .Lxb_text\n",
    "jmp .Lxb_end_line\n",

    // The CPU lacks what [r13] names.
    ".Lxb_lacking:\n",
    "call .Lxb_line\n",
    say!(".Lxb_lacks"),
    "call .Lxb_space\n",
    "mov rsi, qword ptr [r13]\nmov rcx, qword ptr [r13 + 8]\ncall .Lxb_bytes\n",
    "call .Lxb_end_line\n",
    "lea r12, [rip + .Lxb_lacking_end]\n",
    "jmp .Lxb_end_row\n",

    // The program took an exception (al = FAULT), or says what it never should.
    ".Lxb_went_wrong:\n",
    "mov rsp, qword ptr [rip + .Lxb_gave_up]\n",
    "mov r14d, eax\n",
    "call .Lxb_renew\n",
    "call .Lxb_line\n",
    say!(".Lxb_fault"),
    "mov rax, r14\ncall .Lxb_number\n",
    "mov rax, qword ptr [{FAULT}]\ncall .Lxb_number\n",
    "mov rax, qword ptr [{FAULT_CODE}]\ncall .Lxb_number\n",
    "mov rax, qword ptr [{FAULT_RIP}]\ncall .Lxb_number\n",
    "mov rax, qword ptr [{FAULT_CR2}]\ncall .Lxb_number\n",
    "mov rax, qword ptr [{PROGRESS}]\ncall .Lxb_number\n",
    "call .Lxb_end_line\n",
    "lea r12, [rip + .Lxb_fault_end]\n",
    "jmp .Lxb_end_row\n",

    // The samples: `empty,operation`, and `*n` where n in a row are the same.
    ".Lxb_tell_samples:\n",
    "mov r12, qword ptr [{BUFFER}]\n",
    "mov r13, qword ptr [rbx + {SAMPLES}]\n",
    ".Lxb_sample_line:\n",
    "test r13, r13\njz 9f\n",
    "call .Lxb_line\n",
    say!(".Lxb_samples"),
    "mov r14d, 16\n",
    "2:\n",
    "mov rax, qword ptr [r12]\ncall .Lxb_number\n",
    "mov al, 44\ncall .Lxb_put\n",
    "mov rax, qword ptr [r12 + 8]\ncall .Lxb_digits\n",
    "mov r15d, 1\n",
    "3:\n",
    "dec r13\njz 4f\n",
    "mov rax, qword ptr [r12 + 16]\ncmp rax, qword ptr [r12]\njne 4f\n",
    "mov rax, qword ptr [r12 + 24]\ncmp rax, qword ptr [r12 + 8]\njne 4f\n",
    "add r12, 16\ninc r15\njmp 3b\n",
    "4:\n",
    "add r12, 16\n",
    "cmp r15, 1\nje 5f\n",
    "mov al, 42\ncall .Lxb_put\n",
    "mov rax, r15\ncall .Lxb_digits\n",
    "5:\n",
    "test r13, r13\njz 6f\n",
    "dec r14\njnz 2b\n",
    "6:\n",
    "call .Lxb_end_line\n",
    "jmp .Lxb_sample_line\n",
    "9:\nret\n",

    // The batches, a line each.
    ".Lxb_tell_batches:\n",
    "mov r12d, {RESULTS}\n",
    "mov r13, qword ptr [rbx + {BATCHES}]\n",
    "2:\n",
    "test r13, r13\njz 9f\n",
    "call .Lxb_line\n",
    say!(".Lxb_batch"),
    "mov rax, qword ptr [rbx + {BATCH_LENGTH}]\ncall .Lxb_number\n",
    "mov r14d, 4\n",
    "3:\n",
    "mov rax, qword ptr [r12]\ncall .Lxb_number\n",
    "add r12, 8\n",
    "dec r14\njnz 3b\n",
    "call .Lxb_end_line\n",
    "dec r13\njmp 2b\n",
    "9:\nret\n",

    // Zero flag set: the CPU has all the row needs. Otherwise r13 points to what it lacks.
    ".Lxb_has_needs:\n",
    "mov r13, qword ptr [rbx + {NEEDS}]\n",
    "mov r14, qword ptr [rbx + {NEEDS} + 8]\n",
    "2:\n",
    "test r14, r14\njz 9f\n",
    // Two places where CPUID may say it; a mask of 0 in both: nobody can tell beforehand.
    "mov eax, dword ptr [r13 + 28]\nor eax, dword ptr [r13 + 44]\njz 5f\n",
    "lea r15, [r13 + 16]\ncall 6f\njne 5f\n",
    "lea r15, [r13 + 32]\ncall 6f\njne 5f\n",
    "or r14, r14\n",
    "jmp 9f\n",
    "5:\n",
    "add r13, {NEED_SIZE}\n",
    "dec r14\njmp 2b\n",
    "9:\nret\n",
    // Of [r15] leaf, index, register, mask: zero flag clear where a bit is set. rbx is kept.
    "6:\n",
    "push rbx\n",
    "mov eax, dword ptr [r15]\n",
    "and eax, 0x80000000\n",
    "xor ecx, ecx\n",
    "cpuid\n",
    "cmp eax, dword ptr [r15]\n",
    "jb 7f\n",
    "mov eax, dword ptr [r15]\n",
    "mov ecx, dword ptr [r15 + 4]\n",
    "cpuid\n",
    "push rdx\npush rcx\npush rbx\npush rax\n",
    "mov ecx, dword ptr [r15 + 8]\n",
    "mov eax, dword ptr [rsp + rcx * 8]\n",
    "lea rsp, [rsp + 32]\n",
    "pop rbx\n",
    "test eax, dword ptr [r15 + 12]\n",
    "ret\n",
    "7:\n",
    "pop rbx\n",
    "xor eax, eax\n",
    "ret\n",

    // What a row may have left behind: control registers, debug registers, the APIC.
    ".Lxb_renew:\n",
    "mov eax, 0x80050033\nmov cr0, rax\n",
    "mov eax, 0x6a0\nmov cr4, rax\n",
    "mov eax, 0x400\nmov dr7, rax\n",
    "xor eax, eax\nmov cr8, rax\n",
    "cld\n",
    "push rbx\n",
    "mov eax, 1\nxor ecx, ecx\ncpuid\n",
    "mov r15d, edx\n",
    "pop rbx\n",
    "test r15d, 0x200\njz 4f\n",
    // An APIC in x2APIC mode goes back by way of being off; in xAPIC mode it is left on.
    "mov ecx, 0x1b\nrdmsr\n",
    "test eax, 0x400\njz 3f\n",
    "and eax, 0xfffff3ff\nwrmsr\n",
    "or eax, 0x800\nwrmsr\n",
    "3:\n",
    "mov edi, {APIC}\n",
    "mov dword ptr [rdi + 0xb0], 0\n",
    "mov dword ptr [rdi + 0xb0], 0\n",
    "mov dword ptr [rdi + 0xf0], 0xff\n",
    "4:\n",
    "ret\n",

    // Lets the program execute one command: rdi what, rsi how often, rdx operations of a batch.
    // Comes back when it is ready again, and does not where it went wrong.
    ".Lxb_go:\n",
    "mov qword ptr [{COMMAND}], rdi\n",
    "mov qword ptr [{COUNT}], rsi\n",
    "mov qword ptr [{BATCH}], rdx\n",
    ".Lxb_resume:\n",
    "push rbx\npush rbp\npush r12\npush r13\npush r14\npush r15\n",
    "mov qword ptr [rip + .Lxb_driver_rsp], rsp\n",
    "mov dword ptr [rip + .Lxb_in_program], 1\n",
    "push 0x10\n",
    "push qword ptr [rip + .Lxb_rsp]\n",
    "push qword ptr [rip + .Lxb_flags]\n",
    "push 0x08\n",
    "push qword ptr [rip + .Lxb_rip]\n",
    "mov rax, qword ptr [rip + .Lxb_registers]\n",
    "mov rbx, qword ptr [rip + .Lxb_registers + 8]\n",
    "mov rcx, qword ptr [rip + .Lxb_registers + 16]\n",
    "mov rdx, qword ptr [rip + .Lxb_registers + 24]\n",
    "mov rsi, qword ptr [rip + .Lxb_registers + 32]\n",
    "mov rdi, qword ptr [rip + .Lxb_registers + 40]\n",
    "mov rbp, qword ptr [rip + .Lxb_registers + 48]\n",
    "mov r8, qword ptr [rip + .Lxb_registers + 56]\n",
    "mov r9, qword ptr [rip + .Lxb_registers + 64]\n",
    "mov r10, qword ptr [rip + .Lxb_registers + 72]\n",
    "mov r11, qword ptr [rip + .Lxb_registers + 80]\n",
    "mov r12, qword ptr [rip + .Lxb_registers + 88]\n",
    "mov r13, qword ptr [rip + .Lxb_registers + 96]\n",
    "mov r14, qword ptr [rip + .Lxb_registers + 104]\n",
    "mov r15, qword ptr [rip + .Lxb_registers + 112]\n",
    "iretq\n",

    // Where #UD leads: in the program's place and on its stack. A real one goes to its stub.
    ".balign 16\n",
    "exitpath_bare_handler:\n",
    "push rax\n",
    "mov rax, qword ptr [rsp + 8]\n",
    "cmp word ptr [rax], {CALL}\n",
    "pop rax\n",
    "jne .Lxb_undefined\n",
    "add qword ptr [rsp], 2\n",
    "mov qword ptr [rip + .Lxb_registers], rax\n",
    "mov qword ptr [rip + .Lxb_registers + 8], rbx\n",
    "mov qword ptr [rip + .Lxb_registers + 16], rcx\n",
    "mov qword ptr [rip + .Lxb_registers + 24], rdx\n",
    "mov qword ptr [rip + .Lxb_registers + 32], rsi\n",
    "mov qword ptr [rip + .Lxb_registers + 40], rdi\n",
    "mov qword ptr [rip + .Lxb_registers + 48], rbp\n",
    "mov qword ptr [rip + .Lxb_registers + 56], r8\n",
    "mov qword ptr [rip + .Lxb_registers + 64], r9\n",
    "mov qword ptr [rip + .Lxb_registers + 72], r10\n",
    "mov qword ptr [rip + .Lxb_registers + 80], r11\n",
    "mov qword ptr [rip + .Lxb_registers + 88], r12\n",
    "mov qword ptr [rip + .Lxb_registers + 96], r13\n",
    "mov qword ptr [rip + .Lxb_registers + 104], r14\n",
    "mov qword ptr [rip + .Lxb_registers + 112], r15\n",
    "cld\n",
    "cmp dword ptr [rip + .Lxb_in_program], 0\n",
    "je .Lxb_broken\n",
    "mov dword ptr [rip + .Lxb_in_program], 0\n",
    "pop qword ptr [rip + .Lxb_rip]\n",
    "pop rcx\n",
    "pop qword ptr [rip + .Lxb_flags]\n",
    "pop qword ptr [rip + .Lxb_rsp]\n",
    "mov rsp, qword ptr [rip + .Lxb_driver_rsp]\n",
    "pop r15\npop r14\npop r13\npop r12\npop rbp\npop rbx\n",
    "movzx eax, al\n",
    "cmp eax, {READY}\n",
    "jne .Lxb_went_wrong\n",
    "ret\n",

    ".Lxb_undefined:\n",
    "push {UNDEFINED_STUB}\n",
    "ret\n",

    // An exception in the driver itself.
    ".Lxb_broken:\n",
    "mov rsp, qword ptr [{STACK_TOP}]\n",
    "call .Lxb_line\n",
    say!(".Lxb_broke"),
    "mov rax, qword ptr [{FAULT}]\ncall .Lxb_number\n",
    "mov rax, qword ptr [{FAULT_CODE}]\ncall .Lxb_number\n",
    "mov rax, qword ptr [{FAULT_RIP}]\ncall .Lxb_number\n",
    "mov rax, qword ptr [{FAULT_CR2}]\ncall .Lxb_number\n",
    "call .Lxb_end_line\n",
    "jmp .Lxb_leave\n",

    // Lines. Each has a number and ends with the FNV-1a hash (32 bits) of what stands before.
    ".Lxb_line:\n",
    "mov dword ptr [rip + .Lxb_hash], 0x811c9dc5\n",
    say!(".Lxb_mark"),
    "mov rax, qword ptr [rip + .Lxb_lines]\n",
    "inc qword ptr [rip + .Lxb_lines]\n",
    "jmp .Lxb_digits\n",

    ".Lxb_end_line:\n",
    "mov eax, dword ptr [rip + .Lxb_hash]\n",
    "push rax\n",
    say!(".Lxb_sum"),
    "pop rax\n",
    "push rbx\n",
    "mov ebx, eax\n",
    "mov ecx, 8\n",
    "2:\n",
    "rol ebx, 4\n",
    "mov eax, ebx\nand eax, 15\n",
    "add al, 48\ncmp al, 57\njbe 3f\nadd al, 39\n",
    "3:\n",
    "call .Lxb_put\n",
    "dec ecx\njnz 2b\n",
    "pop rbx\n",
    "mov al, 10\n",
    "jmp .Lxb_put\n",

    // A space and rax as a decimal number; without the space.
    ".Lxb_number:\n",
    "push rax\ncall .Lxb_space\npop rax\n",
    ".Lxb_digits:\n",
    "push rbx\n",
    "mov ebx, 10\n",
    "xor ecx, ecx\n",
    "2:\n",
    "xor edx, edx\ndiv rbx\npush rdx\ninc ecx\n",
    "test rax, rax\njnz 2b\n",
    "3:\n",
    "pop rax\nadd al, 48\ncall .Lxb_put\n",
    "dec ecx\njnz 3b\n",
    "pop rbx\n",
    "ret\n",

    ".Lxb_space:\n",
    "mov al, 32\n",
    "jmp .Lxb_put\n",

    // The text at rsi, up to its zero.
    ".Lxb_text:\n",
    "lodsb\ntest al, al\njz 2f\n",
    "call .Lxb_put\njmp .Lxb_text\n",
    "2:\nret\n",

    // rcx bytes at rsi.
    ".Lxb_bytes:\n",
    "test rcx, rcx\njz 2f\n",
    "lodsb\ncall .Lxb_put\ndec rcx\njmp .Lxb_bytes\n",
    "2:\nret\n",

    // The character al, when the UART has room; without a UART it is lost after a while. Keeps all
    // registers but rax and rdx.
    ".Lxb_put:\n",
    "push rcx\n",
    "mov cl, al\n",
    "movzx eax, al\n",
    "xor eax, dword ptr [rip + .Lxb_hash]\n",
    "imul eax, eax, 0x01000193\n",
    "mov dword ptr [rip + .Lxb_hash], eax\n",
    "sub dword ptr [rip + .Lxb_room], 1\n",
    "jns 4f\n",
    "mov ah, cl\n",
    "mov ecx, dword ptr [rip + .Lxb_patience]\n",
    "mov edx, 0x3fd\n",
    "2:\n",
    "in al, dx\ntest al, 0x20\njnz 3f\n",
    "dec ecx\njns 2b\n",
    // Nobody takes anything: do not wait so long for each of the others.
    "mov dword ptr [rip + .Lxb_patience], 0\n",
    "3:\n",
    "mov cl, ah\n",
    "mov eax, dword ptr [rip + .Lxb_burst]\ndec eax\n",
    "mov dword ptr [rip + .Lxb_room], eax\n",
    "4:\n",
    "mov al, cl\nmov edx, 0x3f8\nout dx, al\n",
    "pop rcx\n",
    "ret\n",

    ".Lxb_mark: .asciz \"xp1 \"\n",
    ".Lxb_boot: .asciz \" boot\"\n",
    ".Lxb_begins: .asciz \" row\"\n",
    ".Lxb_lacks: .asciz \" lacks\"\n",
    ".Lxb_samples: .asciz \" samples\"\n",
    ".Lxb_batch: .asciz \" batch\"\n",
    ".Lxb_fault: .asciz \" fault\"\n",
    ".Lxb_broke: .asciz \" broken\"\n",
    ".Lxb_ends: .asciz \" end\"\n",
    ".Lxb_done: .asciz \" done\"\n",
    ".Lxb_lacking_end: .asciz \" lacking\"\n",
    ".Lxb_fault_end: .asciz \" fault\"\n",
    ".Lxb_bye: .asciz \" bye\"\n",
    ".Lxb_sum: .asciz \" #\"\n",

    ".balign 16\n",
    ".Lxb_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n",
    ".Lxb_gdtr: .word 23\n.quad 0\n",
    ".balign 16\n",
    ".Lxb_registers: .skip 120, 0\n",
    ".Lxb_rip: .quad 0\n",
    ".Lxb_flags: .quad 0\n",
    ".Lxb_rsp: .quad 0\n",
    ".Lxb_driver_rsp: .quad 0\n",
    ".Lxb_gave_up: .quad 0\n",
    ".Lxb_lines: .quad 0\n",
    ".Lxb_vendor: .skip 12, 0\n",
    ".Lxb_amd: .long 0\n",
    ".Lxb_in_program: .long 0\n",
    ".Lxb_hash: .long 0\n",
    ".Lxb_room: .long 0\n",
    ".Lxb_burst: .long 1\n",
    ".Lxb_patience: .long 1000000\n",
    ".balign 16\n",
    "exitpath_bare_end:\n",
    ".popsection\n",
    ),
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
    UNDEFINED_STUB = const crate::image::stub(VECTOR),
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
