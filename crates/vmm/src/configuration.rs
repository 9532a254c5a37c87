//! What a VM can be made with or without, apart from its devices: its PMU, exits of an idle guest, a filter of MSRs.

use kvm_bindings::{
    KVM_CAP_PMU_CAPABILITY, KVM_CAP_X86_DISABLE_EXITS, KVM_CAP_X86_MSR_FILTER, KVM_PMU_CAP_DISABLE,
    KVM_X86_DISABLE_EXITS_HLT, KVM_X86_DISABLE_EXITS_MWAIT, KVM_X86_DISABLE_EXITS_PAUSE,
    kvm_enable_cap,
};
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

use crate::{Error, Kvm};

/// MSRs in each of the two ranges that have bits in the CPUs' own permission maps (Intel SDM vol. 3, 25.6.9; AMD APM vol. 2, 15.11).
const MSRS: u32 = 0x2000;
/// Where these ranges begin.
const RANGES: [u32; 2] = [0, 0xc000_0000];
/// The exits of an idle guest that may be left out. C-states are not among them: they slow down the host's other threads.
const IDLE_EXITS: u32 =
    KVM_X86_DISABLE_EXITS_MWAIT | KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE;

impl Kvm {
    /// Whether guests can be made without a PMU: where they would have one.
    pub fn can_leave_pmu_out(&self) -> bool {
        self.extension(KVM_CAP_PMU_CAPABILITY) > 0
    }

    /// Whether a VM can be told to make no exits for HLT or PAUSE.
    pub fn can_leave_idle_exits_out(&self) -> bool {
        self.idle_exits() > 0
    }

    /// Whether a VM's accesses to MSRs can be filtered.
    pub fn can_filter_msrs(&self) -> bool {
        self.extension(KVM_CAP_X86_MSR_FILTER) > 0
    }

    /// The exits of an idle guest that this KVM can leave out. It has no bit for what it does not have or should not leave out.
    fn idle_exits(&self) -> u32 {
        self.extension(KVM_CAP_X86_DISABLE_EXITS) & IDLE_EXITS
    }

    fn extension(&self, cap: u32) -> u32 {
        let found = self.device().check_extension_raw(u64::from(cap));
        u32::try_from(found).unwrap_or(0)
    }
}

/// Leaves the guest's PMU out (from Linux 5.18 on). Before any vCPU is made.
pub(crate) fn leave_pmu_out(kvm: &Kvm, fd: &VmFd) -> Result<(), Error> {
    if !kvm.can_leave_pmu_out() {
        return Err(Error::Cannot {
            what: "leave out a guest's PMU",
        });
    }
    enable(
        fd,
        KVM_CAP_PMU_CAPABILITY,
        KVM_PMU_CAP_DISABLE,
        "KVM_ENABLE_CAP of KVM_CAP_PMU_CAPABILITY",
    )
}

/// Lets HLT, PAUSE and MWAIT not exit. Before any vCPU is made.
pub(crate) fn leave_idle_exits_out(kvm: &Kvm, fd: &VmFd) -> Result<(), Error> {
    let exits = kvm.idle_exits();
    if exits == 0 {
        return Err(Error::Cannot {
            what: "leave out exits for HLT, PAUSE or MWAIT",
        });
    }
    enable(
        fd,
        KVM_CAP_X86_DISABLE_EXITS,
        exits,
        "KVM_ENABLE_CAP of KVM_CAP_X86_DISABLE_EXITS",
    )
}

fn enable(fd: &VmFd, cap: u32, what: u32, call: &'static str) -> Result<(), Error> {
    let mut cap = kvm_enable_cap {
        cap,
        ..Default::default()
    };
    cap.args[0] = u64::from(what);
    fd.enable_cap(&cap).map_err(Error::kvm(call))
}

/// A filter that lets through each access to an MSR, and is asked at each that exits.
pub(crate) fn filter_msrs(kvm: &Kvm, fd: &VmFd) -> Result<(), Error> {
    if !kvm.can_filter_msrs() {
        return Err(Error::Cannot {
            what: "filter MSRs",
        });
    }
    let bitmap = [0xff; MSRS as usize / 8];
    let ranges = RANGES.map(|base| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base,
        msr_count: MSRS,
        bitmap: &bitmap,
    });
    fd.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges)
        .map_err(Error::kvm("KVM_X86_SET_MSR_FILTER"))
}
