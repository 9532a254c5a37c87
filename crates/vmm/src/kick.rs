//! Getting a thread out of `KVM_RUN`, and threads onto CPUs.

use std::cell::Cell;
use std::ptr;
use std::sync::Once;

use crate::Error;

/// The signal that interrupts `KVM_RUN`: the system call returns EINTR.
pub(crate) fn signal() -> i32 {
    libc::SIGRTMIN()
}

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs, where it is to be set.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// Does nothing, or sets `immediate_exit`, so that a signal just before `KVM_RUN` is not lost.
extern "C" fn interrupt(_: i32) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: who has set the pointer takes it back before the page goes.
        unsafe { flag.write_volatile(1) };
    }
}

/// From now on the signal sets this byte where it finds the calling thread, as well; null: no more.
///
/// # Safety
/// The byte must stay writable until another call on the same thread.
pub(crate) unsafe fn set_on_signal(flag: *mut u8) {
    IMMEDIATE_EXIT.set(flag);
}

/// Installs the handler; once per process is enough and further calls do nothing.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: an all-zero sigaction is a valid one (no flags, empty mask); the handler is an
        // `extern "C"` function that reads a thread-local word that needs no initialisation and
        // writes a byte, so it is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = interrupt as *const () as usize;
            libc::sigaction(signal(), &raw const action, std::ptr::null_mut());
        }
    });
}

/// A thread that can be kicked.
#[derive(Debug, Clone, Copy)]
pub struct Kickable {
    process: i32,
    thread: i32,
}

impl Kickable {
    /// The calling thread.
    pub fn current() -> Kickable {
        // SAFETY: neither call has preconditions.
        unsafe {
            Kickable {
                process: libc::getpid(),
                thread: libc::gettid(),
            }
        }
    }

    /// Interrupts the thread's `KVM_RUN`. A signal that comes just before `KVM_RUN` is lost, so
    /// whoever waits for the thread repeats it. Does nothing where the thread has ended.
    pub fn kick(self) {
        // SAFETY: tgkill takes plain numbers and names the process, so that a thread id used
        // anew by another process is not hit.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, signal()) };
    }
}

/// The CPUs this process may run on, ascending.
///
/// # Errors
/// Where the kernel refuses.
pub fn allowed_cpus() -> Result<Vec<usize>, Error> {
    // SAFETY: an all-zero cpu_set_t is a valid empty set, and the kernel fills at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return Err(Error::last_os("sched_getaffinity"));
        }
        set
    };
    Ok((0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below CPU_SETSIZE.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect())
}

/// Binds the calling thread to one CPU.
///
/// # Errors
/// Where the kernel refuses, for instance because that CPU is not among [`allowed_cpus`].
pub fn pin(cpu: usize) -> Result<(), Error> {
    // SAFETY: the set is initialised and `cpu` is checked against its size by CPU_SET's contract.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu < libc::CPU_SETSIZE as usize {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Error::last_os("sched_setaffinity"))
    }
}
