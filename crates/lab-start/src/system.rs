//! System calls and I/O ports, those of a lab only.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::places::{CONSOLE_PORT, FIRMWARE_PORT, STOP, STOP_PORT};

/// `finit_module(2)`, on x86-64.
const FINIT_MODULE: c_long = 313;

/// First port and number of ports: the console of results; what stops the machine; QEMU's firmware configuration.
const PORTS: [(u16, c_ulong); 3] = [(CONSOLE_PORT, 1), (STOP_PORT, 1), (FIRMWARE_PORT, 12)];

// The C library that the standard library is linked with.
unsafe extern "C" {
    #[link_name = "mount"]
    fn c_mount(
        what: *const c_char,
        at: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        options: *const c_void,
    ) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn ioperm(from: c_ulong, count: c_ulong, on: c_int) -> c_int;
    fn mmap(
        at: *mut c_void,
        length: usize,
        access: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn munmap(at: *mut c_void, length: usize) -> c_int;
    fn mlock(at: *const c_void, length: usize) -> c_int;
    fn mknod(path: *const c_char, mode: c_uint, device: u64) -> c_int;
    #[link_name = "umask"]
    fn c_umask(mask: c_uint) -> c_uint;
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Mounts a file system of the kernel's.
///
/// # Errors
/// Why the kernel refuses.
pub fn mount(what: &CStr, at: &CStr, kind: &CStr) -> io::Result<()> {
    // SAFETY: three NUL-terminated strings that outlive the call, and no options.
    check(unsafe {
        c_mount(
            what.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    })
}

/// Loads a module. One that is there already is no error.
///
/// # Errors
/// Why the kernel refuses it.
pub fn load_module(file: &File, parameters: &str) -> io::Result<()> {
    let parameters = CString::new(parameters)?;
    // SAFETY: a valid descriptor and a NUL-terminated string that outlives the call.
    let result = unsafe {
        syscall(
            FINIT_MODULE,
            file.as_raw_fd(),
            parameters.as_ptr(),
            0 as c_int,
        )
    };
    let error = io::Error::last_os_error();
    match result {
        0 => Ok(()),
        _ if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    }
}

/// Makes a device node.
///
/// # Errors
/// Why the kernel refuses.
pub fn make_device(path: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let path = CString::new(path)?;
    let (major, minor) = (u64::from(major), u64::from(minor));
    let device = (major & 0xfff) << 8 | (minor & 0xff) | (minor & !0xff) << 12;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { mknod(path.as_ptr(), mode, device) })
}

/// Which permissions new files do not get, from now on. Returns those of before.
pub fn withhold(mask: u32) -> u32 {
    // SAFETY: affects nothing but the files that this process makes.
    unsafe { c_umask(mask) }
}

/// Asks for the ports of this crate, or gives them up.
///
/// # Errors
/// Why the kernel refuses.
pub fn may_use_ports(may: bool) -> io::Result<()> {
    for (port, count) in PORTS {
        // SAFETY: affects nothing but which ports this process may use.
        check(unsafe { ioperm(port.into(), count, may.into()) })?;
    }
    Ok(())
}

/// Becomes another program. Returns only with an error.
pub fn become_program(path: &str) -> io::Error {
    use std::os::unix::process::CommandExt;
    let arguments = std::env::args_os().skip(1);
    std::process::Command::new(path).args(arguments).exec()
}

/// Stops the machine, which goes on in another process of its emulator, or in many. Says its clock before, eight bytes
/// by the console of results: an emulator that is stopped may still let an idle clock jump. Needs the ports.
pub fn stop() {
    let mut clock = [0_u8; 8];
    // SAFETY: reads the clock into eight bytes, writes these to one port that was granted and a byte to another; a
    // port that was not ends this process.
    unsafe {
        std::arch::asm!(
            "rdtsc",
            "mov [rsi], eax",
            "mov [rsi + 4], edx",
            "mov ecx, 8",
            "mov edx, {said}",
            "rep outsb",
            "mov edx, {stop}",
            "mov al, {how}",
            "out dx, al",
            said = const CONSOLE_PORT,
            stop = const STOP_PORT,
            how = const STOP,
            inout("rsi") clock.as_mut_ptr() => _,
            out("rcx") _,
            out("rax") _,
            out("rdx") _,
            options(nostack),
        );
    }
}

/// Writes two bytes to a port that [`may_use_ports`] was granted.
pub(crate) fn write_word(port: u16, word: u16) {
    // SAFETY: as above.
    unsafe { std::arch::asm!("out dx, ax", in("dx") port, in("ax") word, options(nostack)) };
}

/// Likewise, four bytes. What the device does to this program's memory is done when it returns.
pub(crate) fn write_long(port: u16, long: u32) {
    // SAFETY: as above; the memory that the device writes to is its caller's.
    unsafe { std::arch::asm!("out dx, eax", in("dx") port, in("eax") long, options(nostack)) };
}

/// Reads a port again and again, into all of these bytes.
pub(crate) fn read_bytes(port: u16, bytes: &mut [u8]) {
    // SAFETY: writes exactly so many bytes; a port that was not granted ends this process.
    unsafe {
        std::arch::asm!(
            "rep insb",
            in("dx") port,
            inout("rdi") bytes.as_mut_ptr() => _,
            inout("rcx") bytes.len() => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Memory that stays where it is, be it a file's or nobody's.
#[derive(Debug)]
pub struct Pages {
    at: *mut c_void,
    length: usize,
}

impl Pages {
    /// The pages of this file, or new ones.
    ///
    /// # Errors
    /// Why the kernel refuses.
    pub fn of(file: Option<&File>, length: usize) -> io::Result<Pages> {
        const READ_WRITE: c_int = 3;
        const SHARED_POPULATED: c_int = 0x8001;
        const ANONYMOUS: c_int = 0x20;
        let (fd, kind) = match file {
            Some(file) => (file.as_raw_fd(), 0),
            None => (-1, ANONYMOUS),
        };
        // SAFETY: a new mapping, where the kernel likes.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                READ_WRITE,
                SHARED_POPULATED | kind,
                fd,
                0,
            )
        };
        if at as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        let pages = Pages { at, length };
        // SAFETY: the mapping of above.
        check(unsafe { mlock(pages.at, length) })?;
        Ok(pages)
    }

    pub(crate) fn address(&self) -> usize {
        self.at as usize
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is this long and can be written to; nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and there is no reference into it any more.
        unsafe { munmap(self.at, self.length) };
    }
}
