//! A QEMU as a child of this process: what it is handed, and that it ends with this.

use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Has a child open these descriptors by their numbers, which no other child inherits, and end with this process, however
/// that ends. One that is `apart` gets a process group of its own, so that the terminal's Ctrl-C does not reach it.
pub(crate) fn tie(command: &mut Command, given: Vec<RawFd>, apart: bool) {
    let parent = std::process::id();
    // SAFETY: the closure makes system calls only.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() as u32 != parent {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            if apart {
                libc::setpgid(0, 0);
            }
            for &fd in &given {
                if libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Ends a QEMU when it is no longer wanted, for whatever reason.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
