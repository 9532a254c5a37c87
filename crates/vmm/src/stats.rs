//! KVM's own statistics through `KVM_GET_STATS_FD` (Documentation/virt/kvm/api.rst, 4.133).

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use vmm_sys_util::ioctl_io_nr;

use crate::Error;

ioctl_io_nr!(KVM_GET_STATS_FD, kvm_bindings::KVMIO, 0xce);

/// Statistics of one vCPU or VM, by KVM's names.
#[derive(Debug)]
pub struct Stats {
    file: File,
    /// Name and offset of every counter of one value.
    counters: Vec<(String, u64)>,
    data_offset: u64,
    data_size: usize,
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

/// What a refusal means: nothing where the kernel does not know the ioctl, which a vCPU's descriptor
/// answers with EINVAL and a VM's with ENOTTY (`kvm_arch_vcpu_ioctl`, `kvm_arch_vm_ioctl`). A kernel that
/// knows it uses neither.
fn refused(errno: i32) -> Option<Error> {
    match errno {
        libc::EINVAL | libc::ENOTTY => None,
        _ => Some(Error::from_files(
            "KVM_GET_STATS_FD",
            std::io::Error::from_raw_os_error(errno),
        )),
    }
}

/// Names and offsets of the counters of one value, and the size of all data, by descriptors of `step` bytes
/// each.
fn layout(descriptors: &[u8], step: usize) -> Option<(Vec<(String, u64)>, usize)> {
    let (mut counters, mut data_size) = (Vec::new(), 0);
    for descriptor in descriptors.chunks_exact(step) {
        let size = u16::from_le_bytes([*descriptor.get(6)?, *descriptor.get(7)?]);
        let offset = u32_at(descriptor, 8)?;
        data_size = data_size.max(offset as usize + 8 * usize::from(size));
        if size == 1 {
            let name = descriptor.get(16..)?;
            let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
            let name = String::from_utf8_lossy(&name[..end]).into_owned();
            counters.push((name, u64::from(offset)));
        }
    }
    Some((counters, data_size))
}

impl Stats {
    /// Opens the statistics of a KVM VM or vCPU; `None` where the kernel has none (before 5.14).
    ///
    /// # Errors
    /// Where the kernel has them but they cannot be opened or read.
    pub fn open(fd: &impl AsRawFd) -> Result<Option<Stats>, Error> {
        // SAFETY: KVM_GET_STATS_FD takes no argument and returns a new descriptor.
        let stats = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_GET_STATS_FD() as _, 0) };
        if stats < 0 {
            let errno = vmm_sys_util::errno::Error::last().errno();
            return refused(errno).map_or(Ok(None), Err);
        }
        // SAFETY: the ioctl has just returned this descriptor, so nobody else owns it.
        let file = unsafe { File::from_raw_fd(stats) };
        let io = |source| Error::System {
            operation: "reading KVM's statistics",
            source,
        };
        let malformed = || Error::Unexpected {
            reason: "KVM's statistics have an unknown layout".to_owned(),
        };

        // struct kvm_stats_header: flags, name_size, num_desc, id_offset, desc_offset, data_offset.
        let mut header = [0u8; 24];
        file.read_exact_at(&mut header, 0).map_err(io)?;
        let field = |i: usize| u32_at(&header, 4 * i).expect("six fields of four bytes");
        let (name_size, count) = (field(1) as usize, field(2) as usize);
        let (descriptors, data_offset) = (u64::from(field(4)), u64::from(field(5)));
        if name_size > 4096 || count > 65536 {
            return Err(malformed());
        }

        // struct kvm_stats_desc: flags u32, exponent s16, size u16, offset u32, bucket u32, name.
        let step = 16 + name_size;
        let mut bytes = vec![0u8; step * count];
        file.read_exact_at(&mut bytes, descriptors).map_err(io)?;
        let (counters, data_size) = layout(&bytes, step).ok_or_else(malformed)?;
        Ok(Some(Stats {
            file,
            counters,
            data_offset,
            data_size,
        }))
    }

    /// All counters now, added to `into` under their names.
    ///
    /// # Errors
    /// Where the kernel refuses the read.
    pub fn add_to(&self, into: &mut BTreeMap<String, i64>) -> Result<(), Error> {
        let mut data = vec![0u8; self.data_size];
        self.file
            .read_exact_at(&mut data, self.data_offset)
            .map_err(|source| Error::System {
                operation: "reading KVM's statistics",
                source,
            })?;
        for (name, offset) in &self.counters {
            let at = *offset as usize;
            let value = data
                .get(at..at + 8)
                .map_or(0, |b| i64::from_le_bytes(b.try_into().expect("8 bytes")));
            *into.entry(name.clone()).or_default() += value;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use exitpath_testing::{Need, skipped};

    use super::*;

    #[test]
    fn only_a_kernel_that_does_not_know_them_has_no_statistics() {
        assert!(refused(libc::EINVAL).is_none() && refused(libc::ENOTTY).is_none());
        assert!(matches!(refused(libc::EMFILE), Some(Error::NoFilesLeft)));
        for errno in [libc::ENFILE, libc::ENOMEM, libc::EPERM, libc::EINTR] {
            let error = refused(errno).expect("an error");
            let source = io::Error::from_raw_os_error(errno).to_string();
            let words = error.to_string();
            assert!(
                words.contains("KVM_GET_STATS_FD") && words.contains(&source),
                "{words}"
            );
        }
    }

    /// A descriptor: flags, exponent, size, offset, bucket, name of eight bytes.
    fn descriptor(name: &[u8; 8], size: u16, offset: u32) -> Vec<u8> {
        let mut bytes = vec![0; 6];
        bytes.extend(size.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(name);
        bytes
    }

    #[test]
    fn counters_are_found_by_their_descriptors() {
        let descriptors = [
            descriptor(b"exits\0\0\0", 1, 16),
            // A histogram: no counter, but data.
            descriptor(b"halt\0\0\0\0", 32, 24),
            descriptor(b"io_exits", 1, 0),
        ]
        .concat();
        let (counters, size) = layout(&descriptors, 24).expect("a layout");
        let expected = [("exits".to_owned(), 16), ("io_exits".to_owned(), 0)];
        assert_eq!(counters, expected);
        assert_eq!(size, 24 + 32 * 8);
        assert_eq!(layout(&descriptors, 8), None, "no room for a descriptor");
        assert_eq!(layout(&[], 24), Some((Vec::new(), 0)));
    }

    /// Set where this test's program runs as a process that may open no more files.
    const ALONE: &str = "EXITPATH_TEST_NO_FILES_LEFT";

    #[test]
    fn no_files_left_is_no_old_kernel() {
        if std::env::var_os(ALONE).is_none() {
            // The limit holds for a process: one of its own.
            let test = "stats::tests::no_files_left_is_no_old_kernel";
            let output = std::process::Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", test, "--nocapture"])
                .env(ALONE, "1")
                .output()
                .expect("this program runs again");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            eprint!("{said}");
            return;
        }
        let Ok(device) = kvm_ioctls::Kvm::new() else {
            return skipped(Need::Kvm, "there is no /dev/kvm that opens");
        };
        let vm = device.create_vm().expect("a VM");
        let vcpu = vm.create_vcpu(0).expect("a vCPU");
        let Ok(Some(_)) = Stats::open(&vcpu) else {
            return skipped(Need::Kvm, "this kernel has no statistics of KVM");
        };
        let limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the structure is valid and outlives the call.
        let limited = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        assert_eq!(limited, 0);
        let opened = Stats::open(&vcpu);
        assert!(matches!(opened, Err(Error::NoFilesLeft)), "{opened:?}");
    }
}
