//! What a row of any table is: its operation, what it needs, what it should do.

mod bus;
pub mod kick;
pub mod rung;

use crate::arch::program::Program;
use crate::reasons::Reasons;
use kick::{Consumer, Kick};
use rung::Rung;

pub use bus::{Address, Ioeventfd};

/// Where a row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Nothing is handled; the row checks the method and is part of every table.
    Reference,
    /// Like a reference row, but measured only when named.
    Check,
    /// A row of kvm-unit-tests' x86 vmexit, under its name.
    KvmUnitTests,
    /// A row of our own.
    Own,
    /// A rung of the ladder of `exitpath userspace`; see [`crate::ladder`].
    Rung,
    /// A unit cost of `exitpath primitives`; see [`crate::primitives`].
    Primitive,
    /// A notification of `exitpath kick`; see [`crate::kicks`].
    Kick,
}

/// What a row needs of the CPU that KVM gives the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// x2APIC mode.
    X2apic,
    /// The local APIC's TSC deadline mode.
    TscDeadline,
    /// RDTSCP.
    Rdtscp,
    /// XSAVE, and with it XSETBV.
    Xsave,
    /// Global pages (CR4.PGE).
    Pge,
    /// An MSR that KVM lists among those it can save and restore.
    Msr(u32),
    /// SPEC_CTRL with IBRS.
    Ibrs,
    /// PRED_CMD with IBPB.
    Ibpb,
    /// TSX_CTRL, by ARCH_CAPABILITIES.
    TsxCtrl,
    /// A performance counter.
    Pmu,
    /// General registers by `kvm_run` (`KVM_CAP_SYNC_REGS`).
    SyncRegs,
}

/// Where CPUID says that the CPU has something: leaf, index, register (0 eax, 1 ebx, 2 ecx, 3 edx), bits of
/// which one must be set.
pub type CpuidPlace = [u32; 4];

/// CPUID does not tell.
const NOWHERE: CpuidPlace = [0; 4];
/// The MSR that CPUID tells of by itself.
const TSC_ADJUST: u32 = 0x3b;

impl Need {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Need::X2apic => "x2APIC",
            Need::TscDeadline => "TSC deadline timer",
            Need::Rdtscp => "RDTSCP",
            Need::Xsave => "XSAVE",
            Need::Pge => "global pages",
            Need::Ibrs => "SPEC_CTRL with IBRS",
            Need::Ibpb => "PRED_CMD with IBPB",
            Need::TsxCtrl => "MSR TSX_CTRL",
            Need::Msr(TSC_ADJUST) => "MSR TSC_ADJUST",
            Need::Msr(_) => "MSR",
            Need::Pmu => "performance counter",
            Need::SyncRegs => "KVM_CAP_SYNC_REGS",
        }
    }

    /// Where CPUID tells of it: one of the places is enough. None: CPUID does not tell. Intel SDM vol. 2A, CPUID;
    /// AMD APM vol. 3, appendix E.
    pub fn cpuid(self) -> [CpuidPlace; 2] {
        let (ebx, ecx, edx) = (1, 2, 3);
        let bit = |leaf, register, bit: u32| [leaf, 0, register, 1 << bit];
        match self {
            Need::X2apic => [bit(1, ecx, 21), NOWHERE],
            Need::TscDeadline => [bit(1, ecx, 24), NOWHERE],
            Need::Rdtscp => [bit(0x8000_0001, edx, 27), NOWHERE],
            Need::Xsave => [bit(1, ecx, 26), NOWHERE],
            Need::Pge => [bit(1, edx, 13), NOWHERE],
            Need::Ibrs => [bit(7, edx, 26), bit(0x8000_0008, ebx, 14)],
            Need::Ibpb => [bit(7, edx, 26), bit(0x8000_0008, ebx, 12)],
            // Further conditions are in ARCH_CAPABILITIES, of which this bit tells; without them the write is
            // refused.
            Need::TsxCtrl => [bit(7, edx, 29), NOWHERE],
            // Where CPUID has it not, KVM takes the write and does nothing.
            Need::Msr(TSC_ADJUST) => [bit(7, ebx, 1), NOWHERE],
            Need::Msr(_) | Need::Pmu | Need::SyncRegs => [NOWHERE; 2],
        }
    }

    /// The MSR that it is about, where KVM lists it among those it can save and restore.
    pub fn msr(self) -> Option<u32> {
        match self {
            Need::TsxCtrl => Some(0x122),
            Need::Msr(msr) => Some(msr),
            _ => None,
        }
    }
}

/// What the VMM has to do with the scratch memory before each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scratch {
    /// Nothing: the row does not use it.
    Unused,
    /// Remove and add the memory slot, so that KVM maps no page of it.
    Unmap,
    /// Fetch the dirty log, so that every page is clean.
    Clean,
}

/// Guest code of a row, by the hypercall instruction the CPU has.
#[derive(Debug, Clone, Copy)]
pub enum Code {
    /// The same everywhere.
    Any(fn() -> Program),
    /// VMCALL on Intel and Zhaoxin, VMMCALL on AMD and Hygon.
    ByVendor {
        /// With VMCALL.
        intel: fn() -> Program,
        /// With VMMCALL.
        amd: fn() -> Program,
    },
}

/// Inclusive bounds on exits per operation.
pub type Bounds = (f64, f64);

/// One exit (or reference) to measure.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name on the command line and in every table.
    pub name: &'static str,
    /// What one operation is, in one line.
    pub operation: &'static str,
    /// Where it comes from.
    pub group: Group,
    /// The guest's code.
    pub code: Code,
    /// What the guest's CPU must have.
    pub needs: &'static [Need],
    /// Exits one operation should make, all vCPUs together. At least one where KVM asks every CPU for
    /// it, whatever the CPU has: none then says that the CPU, an emulated one, did not do as it was asked.
    pub exits: Bounds,
    /// The same on CPUs of AMD and Hygon where that is more than is known of all.
    pub exits_on_amd: Option<Bounds>,
    /// User space exits one operation should make.
    pub userspace_exits: Bounds,
    /// Why the guest exits, where it does.
    pub reasons: Reasons,
    /// vCPUs it runs on.
    pub vcpus: u8,
    /// Whether a vCPU halts.
    pub halts: bool,
    /// Whether external interrupts are part of the operation (a timer, another vCPU's IPI);
    /// elsewhere the exits they make are disturbances.
    pub interrupts: bool,
    /// Deliberate delay inside the bracket, in ticks.
    pub delay_ticks: u64,
    /// Whether what surrounds the operation (the program's baseline) makes exits: the row's value is
    /// then the difference of two paths.
    pub surrounded: bool,
    /// What happens to the scratch memory between phases. Such rows use one page an operation.
    pub scratch: Scratch,
    /// ioeventfds the VMM registers.
    pub ioeventfds: &'static [Ioeventfd],
    /// Whether the first ioeventfd's eventfd is an irqfd too, for the test vector on the first vCPU.
    pub irqfd: bool,
    /// Most samples that make sense in a run.
    pub max_samples: u32,
    /// CPUs that the VMM's threads need beside those of other vCPUs: 2 where a vCPU moves.
    pub cpus: u8,
    /// What the VMM does on each exit where the row is about that; `None`: as it always does.
    pub rung: Option<Rung>,
    /// Who waits for the first ioeventfd's eventfd; `None`: nobody.
    pub consumer: Option<Consumer>,
    /// What `exitpath kick` makes of it, and what it needs for that.
    pub kick: Option<Kick>,
}

impl Row {
    /// What it is measured with, where rows differ in nothing else: the name of each parameter and its value.
    pub fn parameters(&self) -> Vec<(&'static str, u64)> {
        let kick = self.kick;
        let many = kick
            .and_then(|kick| kick.many)
            .map(|many| u64::from(many.count));
        let disks = kick
            .and_then(|kick| kick.disks)
            .map(|disks| u64::from(disks.count));
        let locks = self.rung.is_some_and(|rung| rung.layers.work > 0);
        let vcpus = locks.then_some(u64::from(self.vcpus));
        let delay = (self.delay_ticks > 0).then_some(self.delay_ticks);
        [
            ("ioeventfds", many),
            ("disks", disks),
            ("vcpus", vcpus),
            ("delay_ticks", delay),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// Exits one operation should make on a CPU of AMD or Hygon (`amd`), or on another.
    pub fn exits_on(&self, amd: bool) -> Bounds {
        self.exits_on_amd.filter(|_| amd).unwrap_or(self.exits)
    }
}

pub(crate) const fn row(
    group: Group,
    name: &'static str,
    code: fn() -> Program,
    operation: &'static str,
) -> Row {
    Row {
        name,
        operation,
        group,
        code: Code::Any(code),
        needs: &[],
        exits: (1.0, 1.0),
        exits_on_amd: None,
        userspace_exits: (0.0, 0.0),
        reasons: Reasons::NONE,
        vcpus: 1,
        halts: false,
        interrupts: false,
        delay_ticks: 0,
        surrounded: false,
        scratch: Scratch::Unused,
        ioeventfds: &[],
        irqfd: false,
        max_samples: u32::MAX,
        cpus: 1,
        rung: None,
        consumer: None,
        kick: None,
    }
}

impl Row {
    pub(crate) const fn exits(self, min: f64, max: f64) -> Row {
        Row {
            exits: (min, max),
            ..self
        }
    }
    pub(crate) const fn exits_on_amd(self, min: f64, max: f64) -> Row {
        Row {
            exits_on_amd: Some((min, max)),
            ..self
        }
    }
    pub(crate) const fn reasons(self, reasons: Reasons) -> Row {
        Row { reasons, ..self }
    }
    pub(crate) const fn userspace(self) -> Row {
        Row {
            userspace_exits: (1.0, 1.0),
            ..self
        }
    }
    pub(crate) const fn needs(self, needs: &'static [Need]) -> Row {
        Row { needs, ..self }
    }
    pub(crate) const fn halting(self) -> Row {
        Row {
            halts: true,
            ..self
        }
    }
    pub(crate) const fn two_vcpus(self) -> Row {
        Row {
            vcpus: 2,
            interrupts: true,
            max_samples: 100,
            ..self
        }
    }
    pub(crate) const fn by_vendor(self, intel: fn() -> Program, amd: fn() -> Program) -> Row {
        Row {
            code: Code::ByVendor { intel, amd },
            ..self
        }
    }
    pub(crate) const fn eventfds(self, ioeventfds: &'static [Ioeventfd]) -> Row {
        Row { ioeventfds, ..self }
    }
}
