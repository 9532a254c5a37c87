//! Pipes and files in memory that are handed to QEMU as descriptors.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

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

/// Where the first so many bytes of a file are more than holes, in order. A file system that cannot tell says: everywhere.
pub(crate) fn data(file: &File, bytes: u64) -> std::io::Result<Vec<Range<u64>>> {
    let seek = |from: u64, what: libc::c_int| {
        // SAFETY: moves the file's cursor, which nobody uses.
        let found = unsafe { libc::lseek(file.as_raw_fd(), from as libc::off_t, what) };
        match u64::try_from(found) {
            Ok(found) => Ok(found.min(bytes)),
            Err(_) => Err(std::io::Error::last_os_error()),
        }
    };
    let mut found = Vec::new();
    let mut end = 0;
    while end < bytes {
        let start = match seek(end, libc::SEEK_DATA) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => break,
            start => start?,
        };
        end = seek(start, libc::SEEK_HOLE)?;
        if start < end {
            found.push(start..end);
        }
    }
    Ok(found)
}

/// Two sockets, each of which reads what is written to the other.
///
/// # Errors
/// [`Error::Io`] if the kernel has none to give.
pub(crate) fn sockets() -> Result<(UnixStream, UnixStream)> {
    UnixStream::pair().map_err(Error::io("create", "a socket"))
}

/// Sends bytes over a socket, and a descriptor with them (unix(7), `SCM_RIGHTS`).
pub(crate) fn send_with(socket: &UnixStream, bytes: &[u8], fd: &OwnedFd) -> std::io::Result<()> {
    const SIZE: usize = size_of::<libc::c_int>();
    // Large enough for one descriptor, and aligned as its header has to be.
    let mut control = [0_u64; 8];
    let mut piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeros is a message without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the macros compute places within `control`, which is larger than one descriptor needs; what the message
    // points to outlives the call, and the kernel does not write to it.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(SIZE as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(SIZE as u32) as usize;
        libc::CMSG_DATA(header)
            .cast::<libc::c_int>()
            .write_unaligned(fd.as_raw_fd());
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    match usize::try_from(sent) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) => Err(std::io::ErrorKind::WriteZero.into()),
        Err(_) => Err(std::io::Error::last_os_error()),
    }
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
