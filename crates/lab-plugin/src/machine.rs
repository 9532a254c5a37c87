//! Looking into the machine: a register of its CPU, and its memory.
//!
//! No version of the plugin API reads memory by its physical address, and its first one reads no
//! registers. QEMU's own functions do both, and QEMU exports all of its symbols for its modules'
//! sake. They are looked for when the plugin is loaded, so that a QEMU without them loads it too.
//! Reading changes nothing in the machine and is no instruction of it.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::transmute;

use crate::stream::Unread;

/// `GByteArray` as far as it is read.
#[repr(C)]
struct ByteArray {
    data: *const u8,
    length: c_uint,
}

/// `CPUState`.
#[repr(C)]
struct Cpu {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

type ReadOrWrite = unsafe extern "C" fn(u64, *mut c_void, u64, bool);
type ReadRegister = unsafe extern "C" fn(*mut Cpu, *mut ByteArray, c_int) -> c_int;
type GetCpu = unsafe extern "C" fn(c_int) -> *mut Cpu;
type NewArray = unsafe extern "C" fn() -> *mut ByteArray;
type FreeArray = unsafe extern "C" fn(*mut ByteArray, c_int) -> *mut u8;
type Symbol = *mut c_void;

/// QEMU's functions; names and types are those of `include/exec/cpu-common.h`,
/// `include/hw/core/cpu.h`, `target/i386/cpu.h` and GLib's `garray.h`.
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    read_or_write: ReadOrWrite,
    register: ReadRegister,
    cpu: GetCpu,
    new_array: NewArray,
    free_array: FreeArray,
}

/// RAX among gdb's registers of x86-64.
const RAX: c_int = 0;
/// Bytes of a page: a VMCB is one.
const PAGE: u64 = 4096;
/// Offset of the word of a VMCB whose bit 0 intercepts VMRUN, without which no CPU takes it.
const INTERCEPTS: u64 = 0x10;
/// Offset of EXITCODE in a VMCB; EXITINFO1 and EXITINFO2 follow (AMD's manual, volume 2, appendix B).
const EXIT_CODE: u64 = 0x70;

impl Machine {
    /// The functions of the QEMU that loads this.
    pub(crate) fn find() -> Option<Machine> {
        let symbol = |name: &CStr| {
            // SAFETY: the name is a C string, and a null handle means the program and all it loaded.
            let found = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
            (!found.is_null()).then_some(found)
        };
        // SAFETY: QEMU's and GLib's functions of these names have these types, from QEMU 6 on.
        unsafe {
            Some(Machine {
                read_or_write: transmute::<Symbol, ReadOrWrite>(symbol(c"cpu_physical_memory_rw")?),
                register: transmute::<Symbol, ReadRegister>(symbol(c"x86_cpu_gdb_read_register")?),
                cpu: transmute::<Symbol, GetCpu>(symbol(c"qemu_get_cpu")?),
                new_array: transmute::<Symbol, NewArray>(symbol(c"g_byte_array_new")?),
                free_array: transmute::<Symbol, FreeArray>(symbol(c"g_byte_array_free")?),
            })
        }
    }

    /// RAX of the only CPU, which executes VMRUN: the physical address of the guest's VMCB.
    pub(crate) fn vmcb(self) -> Result<u64, Unread> {
        // SAFETY: called from a callback of the CPU's own thread, so that the CPU exists and
        // nothing changes its registers meanwhile; the array is used here only.
        let rax = unsafe {
            let array = (self.new_array)();
            let length = (self.register)((self.cpu)(0), array, RAX);
            let bytes = if length == 8 && (*array).length == 8 {
                (*array).data.cast::<[u8; 8]>().read()
            } else {
                [0; 8]
            };
            (self.free_array)(array, 1);
            u64::from_le_bytes(bytes)
        };
        if rax == 0 || rax % PAGE != 0 || self.read::<1>(rax + INTERCEPTS)[0] & 1 == 0 {
            return Err(Unread::Address);
        }
        Ok(rax)
    }

    /// Exit code, EXITINFO1 and EXITINFO2 of a VMCB.
    pub(crate) fn exit(self, vmcb: u64) -> [u64; 3] {
        self.read(vmcb + EXIT_CODE)
    }

    /// Words of the machine's memory, by their physical address.
    fn read<const WORDS: usize>(self, address: u64) -> [u64; WORDS] {
        let mut words = [0u64; WORDS];
        let length = size_of_val(&words) as u64;
        // SAFETY: the buffer has as many bytes as are asked for, and memory is read, not written.
        unsafe { (self.read_or_write)(address, words.as_mut_ptr().cast(), length, false) };
        words.map(u64::from_le)
    }
}
