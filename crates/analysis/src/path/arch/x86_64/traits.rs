//! What is special about functions of a kernel on x86 with SVM.

use crate::path::traits;

/// Names as of Linux 6.1 to 6.12.
pub(in crate::path) fn kernel_traits(name: &str) -> u32 {
    let begins = |with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
    let mut set = match name {
        "irq_entries_start" | "spurious_entries_start" => traits::IDT | traits::STUBS,
        "asm_common_interrupt" | "asm_spurious_interrupt" | "asm_int80_emulation" => traits::IDT,
        "__switch_to_asm" => traits::SWITCH,
        "kvm_emulate_instruction" | "x86_emulate_instruction" => traits::EMULATES,
        "intr_interception" | "interrupt_window_interception" => traits::INTERRUPT_EXIT,
        "nmi_interception" | "smi_interception" => traits::INTERRUPT_EXIT,
        "npf_interception" | "kvm_mmu_page_fault" | "kvm_handle_page_fault" => traits::MEMORY_EXIT,
        "handle_mmio_page_fault" => traits::MEMORY_EXIT,
        "ud_interception" | "gp_interception" | "ac_interception" => traits::EXCEPTION_EXIT,
        "pf_interception" | "iret_interception" => traits::EXCEPTION_EXIT,
        "emulate_on_interception" | "cr_interception" | "dr_interception" => traits::DECODE_ASSISTS,
        "invlpg_interception" | "cr8_write_interception" => traits::DECODE_ASSISTS,
        "svm_handle_exit" | "svm_invoke_exit_handler" => traits::DISPATCHES,
        "__do_insn_fetch_bytes" => traits::FETCHES,
        _ => 0,
    };
    if begins(&["asm_exc_"]) {
        set |= traits::IDT | traits::EXCEPTION;
    }
    if begins(&["asm_sysvec_"]) {
        set |= traits::IDT;
    }
    if begins(&["__x86_indirect_", "__indirect_thunk_start", "__SCT__"]) {
        set |= traits::THUNK;
    }
    if begins(&[
        "srso_",
        "retbleed_",
        "zen_untrain_ret",
        "call_depth_return_thunk",
    ]) || name.ends_with("_return_thunk")
    {
        set |= traits::RETURN_THUNK;
    }
    if name.ends_with("svm_skip_emulated_instruction") {
        set |= traits::SKIPS;
    }
    set
}
