//! Looking into the machine, and writing where its CPU would: which CPU executes, a register of it, and memory.
//!
//! No version of the plugin API reads memory by its physical address, its first one reads no registers, and its
//! callbacks do not tell which of several CPUs executes. QEMU's own functions do all of that, and QEMU exports all of its
//! symbols for its modules' sake. They are looked for when the plugin is loaded, so that a QEMU without them loads it
//! too. None of it is an instruction of the machine.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::transmute;

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
    /// Number of CPUs.
    cpus: usize,
}

/// The name of the thread-local variable in which QEMU keeps the CPU that a thread executes.
const CURRENT_CPU: &CStr = c"current_cpu";

thread_local! {
    /// Where that variable is in this thread.
    static CURRENT: Cell<*const *mut Cpu> = const { Cell::new(std::ptr::null()) };
}

/// gdb's numbers of an x86-64 CPU's registers (`target/i386/gdbstub.c`).
pub(crate) mod gdb {
    use std::ffi::c_int;

    pub(crate) const RAX: c_int = 0;
    pub(crate) const FS_BASE: c_int = 24;
    pub(crate) const GS_BASE: c_int = 25;

    /// General-purpose registers in the order in which instructions number them.
    pub(crate) const BY_NUMBER: [c_int; 16] =
        [0, 2, 3, 1, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
}

fn symbol(name: &CStr) -> Option<Symbol> {
    // SAFETY: the name is a C string, and a null handle means the program and all it loaded.
    let found = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

impl Machine {
    /// The functions of the QEMU that loads this.
    pub(crate) fn find(cpus: usize) -> Option<Machine> {
        symbol(CURRENT_CPU)?;
        // SAFETY: QEMU's and GLib's functions of these names have these types, from QEMU 6 on.
        unsafe {
            Some(Machine {
                read_or_write: transmute::<Symbol, ReadOrWrite>(symbol(c"cpu_physical_memory_rw")?),
                register: transmute::<Symbol, ReadRegister>(symbol(c"x86_cpu_gdb_read_register")?),
                cpu: transmute::<Symbol, GetCpu>(symbol(c"qemu_get_cpu")?),
                new_array: transmute::<Symbol, NewArray>(symbol(c"g_byte_array_new")?),
                free_array: transmute::<Symbol, FreeArray>(symbol(c"g_byte_array_free")?),
                cpus,
            })
        }
    }

    /// Index of the CPU that this thread executes.
    pub(crate) fn current(self) -> Option<usize> {
        if self.cpus == 1 {
            return Some(0);
        }
        let mut place = CURRENT.get();
        if place.is_null() {
            // Of a thread-local variable this is its place in the thread that asks.
            place = symbol(CURRENT_CPU)?.cast_const().cast();
            CURRENT.set(place);
        }
        // SAFETY: the variable of this thread, which is a pointer; QEMU knows so many CPUs.
        unsafe {
            let current = *place;
            (0..self.cpus).find(|&index| (self.cpu)(index as c_int) == current)
        }
    }

    /// A register of a CPU, by gdb's number.
    pub(crate) fn register(self, cpu: usize, number: c_int) -> u64 {
        // SAFETY: called from a callback of the CPU's own thread, so that the CPU exists and
        // nothing changes its registers meanwhile; the array is used here only.
        unsafe {
            let array = (self.new_array)();
            let length = (self.register)((self.cpu)(cpu as c_int), array, number);
            let bytes = if length == 8 && (*array).length == 8 {
                (*array).data.cast::<[u8; 8]>().read()
            } else {
                [0; 8]
            };
            (self.free_array)(array, 1);
            u64::from_le_bytes(bytes)
        }
    }

    /// Bytes of the machine's memory, by their physical address.
    pub(crate) fn read<const LENGTH: usize>(self, address: u64) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        // SAFETY: the buffer has as many bytes as are asked for, and memory is read, not written.
        unsafe { (self.read_or_write)(address, bytes.as_mut_ptr().cast(), LENGTH as u64, false) };
        bytes
    }

    /// Writes bytes of the machine's memory.
    pub(crate) fn write(self, address: u64, bytes: &[u8]) {
        // SAFETY: the buffer has so many bytes, and is read, not written; the pointer is mutable because one function does
        // both.
        unsafe {
            let from = bytes.as_ptr().cast_mut().cast();
            (self.read_or_write)(address, from, bytes.len() as u64, true);
        }
    }

    /// A word of the machine's memory.
    pub(crate) fn word(self, address: u64) -> u64 {
        u64::from_le_bytes(self.read(address))
    }
}
