//! `/dev/kvm` itself, and what it can give a guest.

use exitpath_exits::Need;
use exitpath_exits::row::CpuidPlace;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Cap;

use crate::Error;

/// An open `/dev/kvm` with the CPUID its guests get.
#[derive(Debug)]
pub struct Kvm {
    device: kvm_ioctls::Kvm,
    cpuid: CpuId,
    msrs: Vec<u32>,
}

impl Kvm {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::NoPermission`], or KVM's own refusal.
    pub fn open() -> Result<Kvm, Error> {
        let device = kvm_ioctls::Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => Error::NoDevice,
            libc::EACCES | libc::EPERM => Error::NoPermission,
            _ => Error::kvm("opening /dev/kvm")(error),
        })?;
        let mut cpuid = device
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        for leaf in cpuid.as_mut_slice() {
            if leaf.function == 1 {
                leaf.ecx |= 1 << 21; // x2APIC, which the in-kernel APIC always has
                if device.check_extension(Cap::TscDeadlineTimer) {
                    leaf.ecx |= 1 << 24; // not among the supported bits (api.rst, 4.46)
                }
            }
        }
        let msrs = device
            .get_msr_index_list()
            .map_err(Error::kvm("KVM_GET_MSR_INDEX_LIST"))?
            .as_slice()
            .to_vec();
        Ok(Kvm {
            device,
            cpuid,
            msrs,
        })
    }

    pub(crate) fn device(&self) -> &kvm_ioctls::Kvm {
        &self.device
    }

    pub(crate) fn cpuid(&self) -> &CpuId {
        &self.cpuid
    }

    /// eax, ebx, ecx, edx of a CPUID leaf as the guest sees it, zero where there is none.
    pub fn leaf(&self, function: u32, index: u32) -> [u32; 4] {
        self.cpuid
            .as_slice()
            .iter()
            .find(|leaf| leaf.function == function && leaf.index == index)
            .map_or([0; 4], |leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
    }

    /// Whether the guest's CPU has VMMCALL (AMD and Hygon) rather than VMCALL.
    pub fn is_amd(&self) -> bool {
        let [_, ebx, _, _] = self.leaf(0, 0);
        [*b"Auth", *b"Hygo"].contains(&ebx.to_le_bytes())
    }

    /// Why a guest cannot have what a row needs; `None` where it can.
    pub fn lacks(&self, need: Need) -> Option<String> {
        let told = |[function, index, register, bits]: CpuidPlace| {
            self.leaf(function, index)[register as usize] & bits != 0
        };
        let by_cpuid = need.cpuid().into_iter().any(told);
        let listed = |msr| self.msrs.contains(&msr);
        let there = match need {
            Need::Msr(msr) => {
                return (!listed(msr)).then(|| format!("KVM gives the guest no MSR {msr:#x} here"));
            }
            Need::SyncRegs => {
                return (!self.device.check_extension(Cap::SyncRegs))
                    .then(|| format!("this KVM has no {}", need.name()));
            }
            Need::Pmu => self.has_pmu(),
            _ => by_cpuid && need.msr().is_none_or(listed),
        };
        (!there).then(|| format!("KVM gives the guest's CPU no {}", need.name()))
    }

    /// Intel: architectural performance monitoring. AMD: the four legacy counters have no CPUID
    /// bit; KVM lists their MSRs only where it gives guests a PMU.
    fn has_pmu(&self) -> bool {
        if self.is_amd() {
            self.msrs.contains(&0xc001_0004)
        } else {
            self.leaf(0xa, 0)[0] & 0xff > 0
        }
    }
}
