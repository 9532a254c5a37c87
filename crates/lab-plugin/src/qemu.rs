//! QEMU's plugin API as far as it is used, declared by hand: no package ships its header.
//!
//! Names and types are those of `include/qemu/qemu-plugin.h`.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `qemu_plugin_id_t`.
pub(crate) type Id = u64;

/// `struct qemu_plugin_tb`, a block of code being translated.
#[repr(C)]
pub(crate) struct Block {
    _opaque: [u8; 0],
}

/// `struct qemu_plugin_insn`, one of its instructions.
#[repr(C)]
pub(crate) struct Instruction {
    _opaque: [u8; 0],
}

/// `qemu_info_t` as far as it is read.
#[repr(C)]
pub(crate) struct Info {
    pub(crate) target_name: *const c_char,
    pub(crate) version_min: c_int,
    pub(crate) version_cur: c_int,
    pub(crate) system_emulation: bool,
    /// CPUs; of a machine, which `system_emulation` says it is.
    pub(crate) cpus: c_int,
}

/// `QEMU_PLUGIN_CB_NO_REGS`: a callback reads no registers.
pub(crate) const NO_REGISTERS: c_int = 0;
/// `QEMU_PLUGIN_CB_R_REGS`: a callback reads registers. From API 2 on QEMU puts them where they can
/// be read; before that it takes no notice, and what is there is what they were when the block of code
/// began.
pub(crate) const READS_REGISTERS: c_int = 1;
/// Whether that is heeded.
pub(crate) const HEEDS_REGISTERS: bool = cfg!(not(feature = "v1"));

pub(crate) type TranslateCallback = extern "C" fn(Id, *mut Block);
pub(crate) type ExecuteCallback = extern "C" fn(c_uint, *mut c_void);

unsafe extern "C" {
    pub(crate) fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: TranslateCallback);
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: ExecuteCallback,
        flags: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_reset(id: Id, callback: extern "C" fn(Id));
    pub(crate) fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    pub(crate) fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    pub(crate) fn qemu_plugin_insn_size(instruction: *const Instruction) -> usize;
    pub(crate) fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    /// Where the machine's memory with the instruction lies in QEMU's own; null where it is no memory.
    pub(crate) fn qemu_plugin_insn_haddr(instruction: *const Instruction) -> *const c_void;
    #[cfg(feature = "v1")]
    fn qemu_plugin_insn_data(instruction: *const Instruction) -> *const c_void;
    #[cfg(not(feature = "v1"))]
    fn qemu_plugin_insn_data(instruction: *const Instruction, to: *mut c_void, n: usize) -> usize;
}

/// The version of the API that this object is made for; QEMU compares it with its own.
#[unsafe(no_mangle)]
#[allow(unreachable_pub, reason = "it is exported by its symbol")]
#[allow(non_upper_case_globals, reason = "QEMU looks it up by this name")]
pub static qemu_plugin_version: c_int = if cfg!(feature = "v1") { 1 } else { 3 };

/// Copies an instruction's machine code to `to` and returns its length.
///
/// # Safety
/// `instruction` must be of a block that is being translated.
pub(crate) unsafe fn machine_code(instruction: *const Instruction, to: &mut [u8; 16]) -> usize {
    // SAFETY: as the caller promises; QEMU gives as many bytes as it says, and no more are
    // copied than `to` has.
    unsafe {
        let size = qemu_plugin_insn_size(instruction).min(to.len());
        #[cfg(feature = "v1")]
        {
            let from: *const u8 = qemu_plugin_insn_data(instruction).cast();
            std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), size);
            size
        }
        #[cfg(not(feature = "v1"))]
        qemu_plugin_insn_data(instruction, to.as_mut_ptr().cast(), size)
    }
}
