//! One vCPU: registers at the start, and the loop around `KVM_RUN`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exitpath_exits::layout::{mmio, port};
use kvm_bindings::{CpuId, kvm_mp_state};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use exitpath_exits::Row;

use crate::arch;
use crate::devices::Devices;
use crate::layers::{Layered, Model};
use crate::{Error, Memory, Stats};

/// Why [`Vcpu::run`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The guest wrote this byte to the control port.
    Control(u8),
    /// Somebody asked the vCPU to stop.
    Asked,
}

/// A virtual CPU. Belongs to the thread that runs it.
#[derive(Debug)]
pub struct Vcpu {
    /// In place of the usual loop. Before the descriptor, so that it goes first.
    layered: Option<Layered>,
    pub(crate) fd: VcpuFd,
    stats: Option<Stats>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) userspace_exits: u64,
    /// What the guest writes to. Kept until the descriptor above is closed: KVM refers to it by
    /// plain host addresses, and a vCPU's descriptor keeps its VM alive.
    _memory: Memory,
}

impl Vcpu {
    pub(crate) fn new(
        vm: &VmFd,
        index: u8,
        entry: u64,
        cpuid: &CpuId,
        memory: Memory,
        stop: Arc<AtomicBool>,
    ) -> Result<Vcpu, Error> {
        let fd = vm
            .create_vcpu(u64::from(index))
            .map_err(Error::kvm("KVM_CREATE_VCPU"))?;

        fd.set_cpuid2(&arch::own_cpuid(cpuid, index))
            .map_err(Error::kvm("KVM_SET_CPUID2"))?;

        // Secondary vCPUs of a VM with an in-kernel APIC wait for INIT/SIPI; ours begin at once.
        fd.set_mp_state(kvm_mp_state { mp_state: 0 })
            .map_err(Error::kvm("KVM_SET_MP_STATE"))?;

        arch::begin(&fd, index, entry)?;

        let stats = Stats::open(&fd)?;
        Ok(Vcpu {
            layered: None,
            fd,
            stats,
            stop,
            userspace_exits: 0,
            _memory: memory,
        })
    }

    /// Gives the vCPU the loop of a rung of the ladder, if `row` is one. To be called on the thread
    /// that runs it; `cpus` are those that the rung's thread may be moved between.
    ///
    /// # Errors
    /// Where KVM or the operating system refuses what the rung's layers need.
    pub fn take_rung(
        &mut self,
        row: &Row,
        model: &Arc<Model>,
        cpus: &[usize],
    ) -> Result<(), Error> {
        self.layered = Layered::new(self, row, model, cpus)?;
        Ok(())
    }

    /// Runs the guest until it writes to the control port or the vCPU is asked to stop.
    ///
    /// # Errors
    /// Where `KVM_RUN` fails or ends for a reason no row has.
    pub fn run(&mut self, devices: &mut Devices) -> Result<Stop, Error> {
        if let Some(mut layered) = self.layered.take() {
            let stop = layered.run(self);
            self.layered = Some(layered);
            return stop;
        }
        let unexpected = |reason: String| Err(Error::Unexpected { reason });
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Stop::Asked);
            }
            let exit = match self.fd.run() {
                Ok(exit) => exit,
                Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {
                    continue;
                }
                Err(error) => return Err(Error::kvm("KVM_RUN")(error)),
            };
            self.userspace_exits += 1;
            match exit {
                VcpuExit::IoOut(port::CONTROL, &[value, ..]) => return Ok(Stop::Control(value)),
                VcpuExit::IoOut(at, data) => devices.pio_write(at, data),
                VcpuExit::IoIn(at, data) => devices.pio_read(at, data),
                VcpuExit::MmioWrite(mmio::KICKED, _) => return Ok(Stop::Control(port::KICKED)),
                VcpuExit::MmioWrite(at, data) => devices.mmio_write(at, data),
                VcpuExit::MmioRead(at, data) => devices.mmio_read(at, data),
                VcpuExit::Intr => {}
                VcpuExit::Shutdown => {
                    return unexpected("triple fault (KVM_EXIT_SHUTDOWN)".to_owned());
                }
                VcpuExit::FailEntry(reason, cpu) => {
                    return unexpected(format!(
                        "KVM could not enter the guest on CPU {cpu} (KVM_EXIT_FAIL_ENTRY, {reason:#x})"
                    ));
                }
                VcpuExit::InternalError => {
                    // SAFETY: KVM_EXIT_INTERNAL_ERROR says that this is the union's member.
                    let internal = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal };
                    let data = &internal.data[..(internal.ndata as usize).min(16)];
                    return unexpected(format!(
                        "KVM gave up (KVM_EXIT_INTERNAL_ERROR, suberror {}, data {data:x?}); see \
                         linux/kvm.h for KVM_INTERNAL_ERROR_*, and `dmesg`",
                        internal.suberror
                    ));
                }
                other => {
                    let other = format!("{other:?}");
                    return unexpected(format!("KVM_RUN returned {other}"));
                }
            }
        }
    }

    /// The guest's instruction pointer, for reports of where it stands.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn rip(&self) -> Result<u64, Error> {
        Ok(self.fd.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?.rip)
    }

    /// The guest's TSC frequency in kHz, `None` where KVM does not say.
    pub fn tsc_khz(&self) -> Option<u64> {
        self.fd.get_tsc_khz().ok().map(u64::from)
    }

    /// Times `KVM_RUN` has returned with an exit so far.
    pub fn userspace_exits(&self) -> u64 {
        self.userspace_exits
    }

    /// KVM's counters of this vCPU and those of its rung's threads, added to `into`; false where the
    /// kernel has none of KVM's.
    ///
    /// # Errors
    /// Where the kernel refuses the read.
    pub fn add_counters(&self, into: &mut BTreeMap<String, i64>) -> Result<bool, Error> {
        into.extend(self.layered.iter().flat_map(Layered::counters));
        match &self.stats {
            Some(stats) => stats.add_to(into).map(|()| true),
            None => Ok(false),
        }
    }

    /// Another reader of the same counters, for a thread that does not run this vCPU.
    ///
    /// # Errors
    /// Where the kernel has statistics but they cannot be read.
    pub fn open_stats(&self) -> Result<Option<Stats>, Error> {
        Stats::open(&self.fd)
    }
}
