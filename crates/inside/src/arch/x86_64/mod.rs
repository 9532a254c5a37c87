//! I/O ports that QEMU passes on.

use exitpath_lab_start::places::CONSOLE_PORT;
use exitpath_protocol::wire::EXIT_PORT;

/// First port and number of ports of both.
const PORTS: [(u16, libc::c_ulong); 2] = [(CONSOLE_PORT, 1), (EXIT_PORT, 4)];

/// Whether this process may write to the machine's ports, which it asks for.
pub(crate) fn may_speak() -> bool {
    may_use_ports(true)
}

/// Gives up what [`may_speak`] asked for. A command inherits it, and the kernel would copy its bitmap on each
/// return of the command to user space: 56 instructions on every user exit. Allocates nothing.
pub(crate) fn give_up() {
    may_use_ports(false);
}

fn may_use_ports(may: bool) -> bool {
    let mut ports = PORTS.iter();
    // SAFETY: asks for access to two port ranges, or gives it up, which affects nothing but this process.
    ports.all(|&(port, count)| unsafe { libc::ioperm(port.into(), count, may.into()) == 0 })
}

/// Writes bytes to the console port, after [`may_speak`] said that this process may.
pub(crate) fn speak(bytes: &[u8]) {
    // SAFETY: `rep outsb` reads exactly `bytes.len()` bytes of the buffer and writes them to a port; one that
    // was not granted ends this process.
    unsafe {
        std::arch::asm!(
            "rep outsb",
            in("dx") CONSOLE_PORT,
            inout("rsi") bytes.as_ptr() => _,
            inout("rcx") bytes.len() => _,
            options(nostack, readonly, preserves_flags),
        );
    }
}

/// Ends the machine.
pub(crate) fn power_off() -> ! {
    if may_speak() {
        // SAFETY: ends the emulator; the port is granted.
        unsafe {
            std::arch::asm!("out dx, eax", in("dx") EXIT_PORT, in("eax") 0, options(nostack));
        }
    }
    // SAFETY: stops the kernel; init has nothing left to lose.
    unsafe {
        libc::reboot(libc::RB_POWER_OFF);
    }
    loop {
        std::thread::park();
    }
}
