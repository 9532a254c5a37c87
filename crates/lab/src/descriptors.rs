//! Pipes and files in memory that are handed to QEMU as descriptors.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Error, Result};

/// Whether there is something to read, or the end, within so many milliseconds.
pub(crate) fn readable(file: &File, milliseconds: i32) -> bool {
    let mut fd = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut fd, 1, milliseconds) > 0 }
}

/// A file in memory, without a name that could be left behind. Other processes can open it as long as
/// this one has it open (`/proc/PID/fd/N`).
///
/// # Errors
/// [`Error::Io`] if the kernel has none to give.
///
/// # Panics
/// If the name has a NUL.
pub fn sealed_file(name: &str, bytes: &[u8]) -> Result<File> {
    let name = std::ffi::CString::new(name).expect("names have no NUL");
    // SAFETY: a NUL-terminated name; the descriptor is new and owned by nobody else.
    let mut file = unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(Error::io("create", "a file in memory")(
                std::io::Error::last_os_error(),
            ));
        }
        File::from_raw_fd(fd)
    };
    file.write_all(bytes)
        .map_err(Error::io("write", "a file in memory"))?;
    Ok(file)
}

/// Lets a pipe hold a megabyte, so that its writer waits less often; without it, it holds 64 KiB.
pub(crate) fn enlarge(pipe: &OwnedFd) {
    // SAFETY: changes the capacity of a pipe, or fails.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20) };
}

/// A pipe: its reading end and its writing end.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = std::io::pipe().map_err(Error::io("create", "a pipe"))?;
    Ok((read.into(), write.into()))
}
