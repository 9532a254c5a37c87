//! How many files this process may have open.

use crate::Error;

/// Files that are open besides what a VM is asked for: the three standard ones, `/dev/kvm`, VM, vCPUs
/// and their statistics, what the program reads for a moment.
const OTHERS: u64 = 64;

/// Linux's default of fs.nr_open, the most that any process may have.
const NR_OPEN: u64 = 1 << 20;

/// Makes sure that so many eventfds can be open at once: the soft limit is raised, up to the hard one.
///
/// # Errors
/// [`Error::TooManyFiles`] where the limit stays below that.
pub fn allow(eventfds: u64) -> Result<(), Error> {
    let needed = eventfds + OTHERS;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is valid and outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(Error::last_os("getrlimit(RLIMIT_NOFILE)"));
    }
    if limit.rlim_cur >= needed {
        return Ok(());
    }
    let wanted = libc::rlimit {
        rlim_cur: needed,
        rlim_max: limit.rlim_max,
    };
    // SAFETY: the structure is valid and outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) } != 0 {
        return Err(Error::TooManyFiles {
            eventfds,
            needed,
            allowed: limit.rlim_max,
        });
    }
    Ok(())
}

/// Lets the process have as many files as the kernel allows any, where it may (CAP_SYS_RESOURCE): for
/// the lab, which belongs to the process.
///
/// # Errors
/// [`Error::System`] where the kernel refuses.
pub fn lift_limit() -> Result<(), Error> {
    let limit = libc::rlimit {
        rlim_cur: NR_OPEN,
        rlim_max: NR_OPEN,
    };
    // SAFETY: the structure is valid and outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(Error::last_os("setrlimit(RLIMIT_NOFILE)"));
    }
    Ok(())
}
