//! What can go wrong between a VMM and KVM.

use std::io;

/// An error of the VMM. Messages say what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `/dev/kvm`.
    #[error(
        "this machine has no /dev/kvm: load kvm_intel or kvm_amd (and enable virtualisation in the firmware), or use --on lab"
    )]
    NoDevice,
    /// `/dev/kvm` exists but may not be opened.
    #[error(
        "no permission to open /dev/kvm: `exitpath doctor` says how to get it, or use --on lab"
    )]
    NoPermission,
    /// KVM refused an operation.
    #[error("KVM refused {operation}: {source}; see `dmesg` and `exitpath doctor`")]
    Kvm {
        /// What was asked, by the name of its ioctl.
        operation: &'static str,
        /// The errno.
        source: io::Error,
    },
    /// Guest memory could not be set up.
    #[error("cannot set up guest memory: {0}")]
    Memory(String),
    /// The interrupt routes of a VM could not be made.
    #[error(
        "cannot make the guest's {routes} interrupt routes: {why}; report this as a bug of exitpath"
    )]
    Routing {
        /// How many there are.
        routes: usize,
        /// What speaks against them.
        why: String,
    },
    /// A call to the operating system failed.
    #[error("{operation} failed: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The errno.
        source: io::Error,
    },
    /// More eventfds than the process may open.
    #[error(
        "{eventfds} ioeventfds need {needed} open files, and this process may have {allowed} (`ulimit -Hn`): raise that limit, or ask for fewer with --eventfds"
    )]
    TooManyFiles {
        /// Eventfds wanted.
        eventfds: u64,
        /// Files for them and everything else.
        needed: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// The process may open no more files.
    #[error(
        "this process may open no more files (`ulimit -n`): raise that limit, or ask for fewer ioeventfds with --eventfds"
    )]
    NoFilesLeft,
    /// A thread may not take its CPU over when it is woken.
    #[error("sched_setscheduler(SCHED_FIFO): {source}: root may (CAP_SYS_NICE)")]
    NoSchedFifo {
        /// The errno.
        source: std::io::Error,
    },
    /// io_uring is not to be had.
    #[error(
        "io_uring cannot be used here ({source}): the kernel may lack it, kernel.io_uring_disabled may forbid it, or a seccomp filter (as in most containers), or `ulimit -l` be too low for a ring"
    )]
    IoUring {
        /// The errno.
        source: io::Error,
    },
    /// This KVM does not have what a VM was to be made with or without.
    #[error("this KVM cannot {what}")]
    Cannot {
        /// What was asked of it.
        what: &'static str,
    },
    /// `KVM_RUN` returned something no row expects.
    #[error("the guest stopped unexpectedly: {reason}")]
    Unexpected {
        /// The exit reason, with its details.
        reason: String,
    },
}

impl Error {
    /// Of a refusal; the operation is called as its ioctl is.
    pub fn kvm(operation: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
        move |error| Error::Kvm {
            operation,
            source: io::Error::from_raw_os_error(error.errno()),
        }
    }

    /// Of a call that makes a descriptor.
    pub(crate) fn from_files(operation: &'static str, source: io::Error) -> Error {
        match source.raw_os_error() {
            Some(libc::EMFILE) => Error::NoFilesLeft,
            _ => Error::System { operation, source },
        }
    }

    pub(crate) fn last_os(operation: &'static str) -> Error {
        Error::System {
            operation,
            source: io::Error::last_os_error(),
        }
    }
}
