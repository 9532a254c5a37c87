//! The guest program around an operation: clock reads, loops, the protocol with the VMM.
//!
//! A row gives its operation as assembly text; [`guest_program!`] puts it into this frame, twice:
//! once in a bracket of two clock reads and once in a loop. The result lies among this program's
//! own code (so that padding is made of NOPs) and is copied to its row's place in [`layout::CODE`](crate::layout::CODE);
//! it must not depend on its address, so it refers to itself with relative jumps only and to the control block with
//! absolute addresses below 2 GiB.
//!
//! One iteration is `before`, clock, `setup`, `op`, clock, `after`. The empty bracket is the same
//! with `baseline` (nothing, usually) instead of `op`, so what it measures is everything but the
//! operation. A row's text may use rax, rbx, rcx, rdx, rsi, rdi and rbp freely. r12 points to
//! scratch memory and r13 keeps a word between iterations; both are put back after a baseline.
//! The rest is the frame's. Numeric labels 2 to 9 are the row's. The handler of the test vector
//! counts the interrupt and signals its end, in x2APIC mode unless the row gives another `eoi`.

/// A guest program as it lies in this process, ready to be copied into a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Guest address at which it lies.
    pub address: u64,
    /// Machine code, at most [`layout::CODE_SIZE`](crate::layout::CODE_SIZE) bytes.
    pub code: &'static [u8],
    /// Offset at which a secondary vCPU begins.
    pub secondary: usize,
    /// Offset of the handler of the test vector.
    pub handler: usize,
    /// Offset of the operation inside the bracket, for reports of where a guest stands.
    pub op: usize,
    /// Offset behind it.
    pub op_end: usize,
    /// Offsets of the clock reads (RDTSC) of a sample, in order: begin and end of the bracket
    /// without the operation, begin and end of the one with it.
    pub clocks: [usize; 4],
}

impl Program {
    /// Whether `rip` (a guest address) lies in the operation inside the bracket.
    pub fn is_in_op(&self, rip: u64) -> bool {
        let offset = rip.wrapping_sub(self.address);
        (self.op as u64..self.op_end as u64).contains(&offset)
    }

    /// Names the part of the program that `rip` (a guest address) lies in.
    pub fn place(&self, rip: u64) -> String {
        let offset = rip.wrapping_sub(self.address);
        if rip < self.address || offset >= self.code.len() as u64 {
            return format!("{rip:#x}, outside the row's program");
        }
        let offset = offset as usize;
        let part = if self.is_in_op(rip) {
            "in the operation"
        } else if offset >= self.handler {
            "in the interrupt handler or a secondary vCPU's code"
        } else {
            "around the operation"
        };
        format!("{rip:#x} ({part}, offset {offset:#x})")
    }
}

/// Reads the clock into rax; lfence before it waits for what came before, lfence behind it keeps
/// back what follows (Intel SDM and AMD APM, RDTSC). Clobbers rdx.
macro_rules! clock {
    () => {
        "lfence\nrdtsc\nlfence\nshl rdx, 32\nor rax, rdx\n"
    };
}

/// The same, with a label at the RDTSC.
macro_rules! labelled_clock {
    ($prefix:literal, $name:ident) => {
        concat!(
            "lfence\n",
            label!($prefix, $name),
            "rdtsc\nlfence\nshl rdx, 32\nor rax, rdx\n"
        )
    };
}

/// A label that other codegen units of this program see, and nobody outside it.
macro_rules! label {
    ($prefix:literal, $name:ident) => {
        concat!(
            ".globl ",
            $prefix,
            stringify!($name),
            "\n",
            ".hidden ",
            $prefix,
            stringify!($name),
            "\n",
            $prefix,
            stringify!($name),
            ":\n",
        )
    };
}

/// The first of its arguments: a row's own text, or else the frame's.
macro_rules! first {
    ($first:expr $(, $rest:expr)* $(,)?) => {
        $first
    };
}

/// End of interrupt in x2APIC mode (MSR 0x80b). Clobbers rax, rcx, rdx.
macro_rules! x2apic_eoi {
    () => {
        "mov ecx, 0x80b\nxor eax, eax\nxor edx, edx\nwrmsr\n"
    };
}

/// Assembles a row's program and gives it as a function returning [`Program`].
macro_rules! guest_program {
    (
        $name:ident
        $(, prepare: $prepare:expr)?
        $(, before: $before:expr)?
        $(, setup: $setup:expr)?
        , op: $op:expr
        $(, baseline: $baseline:expr)?
        $(, after: $after:expr)?
        $(, eoi: $eoi:expr)?
        $(, secondary: $secondary:expr)?
        $(, consts: { $($const:ident = $value:expr),+ $(,)? })?
        $(,)?
    ) => {
        pub(crate) mod $name {
            #![allow(unused_imports, reason = "not every row uses every piece of shared text")]
            use crate::layout::{command, mmio, port, word, APIC, CONTROL, DATAMATCH, RESULTS, SCRATCH, TEST_VECTOR};

            std::arch::global_asm!(
                concat!(
                    ".pushsection .text.exitpath_guest, \"ax\", @progbits\n",
                    ".balign 64\n",
                    label!("exitpath_guest_", $name),
                    $($prepare, "\n",)?
                    // Ready: the VMM writes a command before it lets us go on.
                    "20:\n",
                    "mov al, {READY}\n",
                    "out {PORT}, al\n",
                    "cld\n",
                    // The first two pages of scratch memory are not measured: the first touch makes
                    // KVM take a page table out of its reserve, the second makes it fill that up.
                    "mov r12d, {SCRATCH} + 0x2000\n",
                    "mov r13, qword ptr [{STATE}]\n",
                    "mov r10d, {RESULTS}\n",
                    "mov r9, qword ptr [{COUNT}]\n",
                    "mov eax, dword ptr [{COMMAND}]\n",
                    "cmp eax, {PAIRS}\n",
                    "je 30f\n",
                    "cmp eax, {BATCHES}\n",
                    "je 40f\n",
                    "cmp eax, {BASELINE}\n",
                    "je 50f\n",
                    "cmp eax, {TOUCH}\n",
                    "je 80f\n",
                    "cmp eax, {ANSWER}\n",
                    "je 90f\n",
                    "mov al, {BAD_COMMAND}\n",
                    "out {PORT}, al\n",
                    "jmp 20b\n",

                    // Pairs: one empty bracket, one full bracket.
                    ".balign 64\n",
                    "30:\n",
                    "mov r14, r12\n",
                    "mov r15, r13\n",
                    $($before, "\n",)?
                    labelled_clock!("exitpath_guest_clock_0_", $name),
                    "mov r8, rax\n",
                    $($setup, "\n",)?
                    $($baseline, "\n",)?
                    labelled_clock!("exitpath_guest_clock_1_", $name),
                    "sub rax, r8\n",
                    "mov qword ptr [r10], rax\n",
                    $($after, "\n",)?
                    "mov r12, r14\n",
                    "mov r13, r15\n",
                    ".balign 64\n",
                    $($before, "\n",)?
                    labelled_clock!("exitpath_guest_clock_2_", $name),
                    "mov r8, rax\n",
                    $($setup, "\n",)?
                    label!("exitpath_guest_op_", $name),
                    $op, "\n",
                    label!("exitpath_guest_op_end_", $name),
                    labelled_clock!("exitpath_guest_clock_3_", $name),
                    "sub rax, r8\n",
                    "mov qword ptr [r10 + 8], rax\n",
                    $($after, "\n",)?
                    "inc qword ptr [{PROGRESS}]\n",
                    "add r10, 16\n",
                    "dec r9\n",
                    "jnz 30b\n",
                    "29:\n",
                    "mov qword ptr [{STATE}], r13\n",
                    "jmp 20b\n",

                    // Batches: n and 2n baselines, n and 2n operations.
                    ".balign 64\n",
                    "40:\n",
                    "mov r11, qword ptr [{BATCH}]\n",
                    "call 60f\n",
                    "mov qword ptr [r10], rax\n",
                    "mov r11, qword ptr [{BATCH}]\n",
                    "add r11, r11\n",
                    "call 60f\n",
                    "mov qword ptr [r10 + 8], rax\n",
                    "mov r11, qword ptr [{BATCH}]\n",
                    "call 70f\n",
                    "mov qword ptr [r10 + 16], rax\n",
                    "mov r11, qword ptr [{BATCH}]\n",
                    "add r11, r11\n",
                    "call 70f\n",
                    "mov qword ptr [r10 + 24], rax\n",
                    "add r10, 32\n",
                    "dec r9\n",
                    "jnz 40b\n",
                    "jmp 29b\n",

                    // The baseline alone, not timed: what it adds to the counters.
                    "50:\n",
                    "mov r11, r9\n",
                    "call 60f\n",
                    "jmp 29b\n",

                    // Touch r9 pages of the results area, one of the stack, and the first two of
                    // the scratch memory.
                    "80:\n",
                    "push 0\n",
                    "pop rax\n",
                    "mov byte ptr [r12 - 0x2000], al\n",
                    "mov byte ptr [r12 - 0x1000], al\n",
                    "81:\n",
                    "mov qword ptr [r10], rax\n",
                    "add r10, 0x1000\n",
                    "dec r9\n",
                    "jnz 81b\n",
                    "jmp 29b\n",

                    // One operation, and what it answers.
                    "90:\n",
                    $($before, "\n",)?
                    $($setup, "\n",)?
                    $op, "\n",
                    "mov qword ptr [{ANSWERS}], rax\n",
                    "mov qword ptr [{ANSWERS} + 8], rbx\n",
                    "mov qword ptr [{ANSWERS} + 16], rcx\n",
                    "mov qword ptr [{ANSWERS} + 24], rdx\n",
                    "mov qword ptr [{ANSWERS} + 32], rsi\n",
                    "mov qword ptr [{ANSWERS} + 40], rdi\n",
                    "mov qword ptr [{ANSWERS} + 48], rbp\n",
                    $($after, "\n",)?
                    "inc qword ptr [{PROGRESS}]\n",
                    "jmp 29b\n",

                    // r11 baselines; ticks in rax.
                    ".balign 64\n",
                    "60:\n",
                    "mov r14, r12\n",
                    "mov r15, r13\n",
                    clock!(),
                    "mov r8, rax\n",
                    ".balign 64\n",
                    "61:\n",
                    $($before, "\n",)?
                    $($setup, "\n",)?
                    $($baseline, "\n",)?
                    $($after, "\n",)?
                    "inc qword ptr [{UNCOUNTED}]\n",
                    "dec r11\n",
                    "jnz 61b\n",
                    clock!(),
                    "sub rax, r8\n",
                    "mov r12, r14\n",
                    "mov r13, r15\n",
                    "ret\n",

                    // r11 operations; ticks in rax.
                    ".balign 64\n",
                    "70:\n",
                    clock!(),
                    "mov r8, rax\n",
                    ".balign 64\n",
                    "71:\n",
                    $($before, "\n",)?
                    $($setup, "\n",)?
                    $op, "\n",
                    $($after, "\n",)?
                    "inc qword ptr [{PROGRESS}]\n",
                    "dec r11\n",
                    "jnz 71b\n",
                    clock!(),
                    "sub rax, r8\n",
                    "ret\n",

                    ".balign 64\n",
                    label!("exitpath_guest_handler_", $name),
                    "push rax\n",
                    "push rcx\n",
                    "push rdx\n",
                    "inc qword ptr [{INTERRUPTS}]\n",
                    first!($($eoi,)? x2apic_eoi!()), "\n",
                    "pop rdx\n",
                    "pop rcx\n",
                    "pop rax\n",
                    "iretq\n",

                    ".balign 64\n",
                    label!("exitpath_guest_secondary_", $name),
                    $($secondary, "\n",)?
                    "28:\n",
                    "cli\n",
                    "hlt\n",
                    "jmp 28b\n",
                    label!("exitpath_guest_end_", $name),
                    ".popsection\n",
                ),
                PORT = const port::CONTROL,
                READY = const port::READY,
                BAD_COMMAND = const port::BAD_COMMAND,
                PAIRS = const command::PAIRS,
                BATCHES = const command::BATCHES,
                BASELINE = const command::BASELINE,
                TOUCH = const command::TOUCH,
                ANSWER = const command::ANSWER,
                ANSWERS = const CONTROL + word::ANSWER,
                SCRATCH = const SCRATCH,
                RESULTS = const RESULTS,
                STATE = const CONTROL + word::STATE,
                COUNT = const CONTROL + word::COUNT,
                COMMAND = const CONTROL + word::COMMAND,
                BATCH = const CONTROL + word::BATCH,
                PROGRESS = const CONTROL + word::PROGRESS,
                UNCOUNTED = const CONTROL + word::UNCOUNTED,
                INTERRUPTS = const CONTROL + word::INTERRUPTS,
                $($($const = const $value,)+)?
            );

            unsafe extern "C" {
                #[link_name = concat!("exitpath_guest_", stringify!($name))]
                safe static START: u8;
                #[link_name = concat!("exitpath_guest_op_", stringify!($name))]
                safe static OP: u8;
                #[link_name = concat!("exitpath_guest_op_end_", stringify!($name))]
                safe static OP_END: u8;
                #[link_name = concat!("exitpath_guest_clock_0_", stringify!($name))]
                safe static CLOCK_0: u8;
                #[link_name = concat!("exitpath_guest_clock_1_", stringify!($name))]
                safe static CLOCK_1: u8;
                #[link_name = concat!("exitpath_guest_clock_2_", stringify!($name))]
                safe static CLOCK_2: u8;
                #[link_name = concat!("exitpath_guest_clock_3_", stringify!($name))]
                safe static CLOCK_3: u8;
                #[link_name = concat!("exitpath_guest_handler_", stringify!($name))]
                safe static HANDLER: u8;
                #[link_name = concat!("exitpath_guest_secondary_", stringify!($name))]
                safe static SECONDARY: u8;
                #[link_name = concat!("exitpath_guest_end_", stringify!($name))]
                safe static END: u8;
            }

            pub(crate) fn program() -> crate::arch::program::Program {
                let start = &raw const START;
                let offset = |p: *const u8| p as usize - start as usize;
                crate::arch::program::Program {
                    address: crate::layout::CODE,
                    // SAFETY: both labels are in the one read-only section text above, START
                    // before END, so the bytes between them are initialised and never change.
                    code: unsafe { std::slice::from_raw_parts(start, offset(&raw const END)) },
                    secondary: offset(&raw const SECONDARY),
                    handler: offset(&raw const HANDLER),
                    op: offset(&raw const OP),
                    op_end: offset(&raw const OP_END),
                    clocks: [
                        offset(&raw const CLOCK_0),
                        offset(&raw const CLOCK_1),
                        offset(&raw const CLOCK_2),
                        offset(&raw const CLOCK_3),
                    ],
                }
            }
        }
    };
}
