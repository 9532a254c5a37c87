//! The rows: one place defines each. Adding one is an entry here and its text in
//! [`guest`](crate::guest).

use crate::guest;
use crate::kicks::{Consumer, KICKS, Kick, SCALING};
use crate::ladder::{RUNGS, Rung};
use crate::layout::{CODE, CODE_SIZE};
use crate::layout::{DATAMATCH, mmio, port};
use crate::program::Program;
use crate::reasons::{Reason, Reasons};

/// Deadline of the `tscdeadline` row after the clock read that opens its bracket, in ticks. Long
/// enough that the write has been handled before it passes, on a host and in the lab.
pub const TSCDEADLINE_DELAY_TICKS: u64 = 100_000;
/// Spin before each operation of `ipi_halt`, in ticks, so that the target has halted.
pub const IPI_HALT_SPIN_TICKS: u64 = 20_000;

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
    /// A rung of the ladder of `exitpath userspace`; see [`ladder`](crate::ladder).
    Rung,
    /// A notification of `exitpath kick`; see [`kicks`](crate::kicks).
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

/// An ioeventfd that KVM answers instead of user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ioeventfd {
    /// Port or guest physical address.
    pub at: Address,
    /// Bytes of the write it answers; 0 for any length, which by MMIO is KVM's fast path on Intel
    /// (no decode) and what QEMU registers for kvm-unit-tests' pci-mem wildcard.
    pub length: u8,
    /// The only value it answers, or any.
    pub datamatch: Option<u8>,
}

/// An address on one of KVM's two buses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// A port.
    Pio(u16),
    /// A guest physical address.
    Mmio(u64),
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
    /// Exits one operation should make on a CPU of AMD or Hygon (`amd`), or on another.
    pub fn exits_on(&self, amd: bool) -> Bounds {
        self.exits_on_amd.filter(|_| amd).unwrap_or(self.exits)
    }

    /// The guest program for a CPU that has VMMCALL (`amd`) or VMCALL.
    pub fn program(&self, amd: bool) -> Program {
        let program = match self.code {
            Code::Any(program) => program(),
            Code::ByVendor {
                intel: _,
                amd: program,
            } if amd => program(),
            Code::ByVendor { intel: program, .. } => program(),
        };
        let slot = TABLES.iter().find_map(|&(first, rows)| {
            let index = rows.iter().position(|row| row.name == self.name)?;
            Some(first + index as u64)
        });
        Program {
            address: CODE + slot.unwrap_or(0) * CODE_SIZE,
            ..program
        }
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

/// An access to a port.
pub(crate) const IO: Reasons = Reasons::new(&["io"], &["IO_INSTRUCTION"]);
/// An access to memory that is none: on VMX a violation the first time, and then what KVM has put
/// into the page table so that it knows.
pub(crate) const MMIO: Reasons = Reasons::new(&["npf"], &["EPT_MISCONFIG", "EPT_VIOLATION"]);
const HYPERCALL: Reasons = Reasons::new(&["hypercall"], &["VMCALL"]);
const WRMSR: Reasons = Reasons::new(&["msr"], &["MSR_WRITE"]);
/// What becomes of a write of the ICR to the vCPU itself where APICv is on.
const ICR: &[&str] = &["APIC_WRITE"];
/// An IPI to the vCPU itself, by ICR: the write, the interrupt's window, and its end.
const IPI_STI: Reasons = Reasons {
    virtual_apic: ICR,
    ..SELF_IPI_STI
};
const IPI_STI_HLT: Reasons = Reasons {
    virtual_apic: ICR,
    ..SELF_IPI_STI_HLT
};
const IPI_TPR: Reasons = Reasons {
    virtual_apic: ICR,
    ..SELF_IPI_TPR
};
const IPI_TPR_STI: Reasons = Reasons {
    virtual_apic: ICR,
    ..SELF_IPI_TPR_STI
};
const IPI_TPR_STI_HLT: Reasons = Reasons {
    virtual_apic: ICR,
    ..SELF_IPI_TPR_STI_HLT
};
/// The same by SELF IPI, which APICv handles without an exit.
const SELF_IPI_STI: Reasons = Reasons::new(&["msr", "vintr"], &["MSR_WRITE", "INTERRUPT_WINDOW"]);
const SELF_IPI_STI_HLT: Reasons = Reasons::new(
    &["msr", "vintr", "hlt"],
    &["MSR_WRITE", "INTERRUPT_WINDOW", "HLT"],
);
const SELF_IPI_TPR: Reasons =
    Reasons::new(&["msr", "write_cr8"], &["MSR_WRITE", "TPR_BELOW_THRESHOLD"]);
const SELF_IPI_TPR_STI: Reasons = Reasons::new(
    &["msr", "write_cr8", "vintr"],
    &["MSR_WRITE", "TPR_BELOW_THRESHOLD", "INTERRUPT_WINDOW"],
);
const SELF_IPI_TPR_STI_HLT: Reasons = Reasons::new(
    &["msr", "write_cr8", "vintr", "hlt"],
    &[
        "MSR_WRITE",
        "TPR_BELOW_THRESHOLD",
        "INTERRUPT_WINDOW",
        "HLT",
    ],
);

use Group::{Check, KvmUnitTests as Kut, Own, Reference};
use Need::{Ibpb, Ibrs, Msr, Pge, Pmu, Rdtscp, TscDeadline, TsxCtrl, X2apic, Xsave};

/// Every row, in the order tables show them.
///
/// An exit is expected of each operation only where KVM asks every CPU of that vendor for it: on Intel's the
/// CPU exits unasked for INVD and XSETBV (SDM vol. 3, 26.1.2); on AMD's `init_vmcb` asks for INVD, WBINVD, XSETBV,
/// writes of CR4 and those of CR0 that change WP; MSR TSC_ADJUST is given to no guest. Others depend on what CPU
/// and kernel have (guest-owned bits, virtual APIC, mediated PMU).
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row(Reference, "empty", guest::empty::program, "nothing").exits(0.0, 0.0),
    row(Reference, "nop", guest::nop::program, "one NOP").exits(0.0, 0.0),
    row(Check, "nop_10", guest::nop_10::program, "ten NOPs").exits(0.0, 0.0),
    row(Check, "nop_100", guest::nop_100::program, "a hundred NOPs").exits(0.0, 0.0),
    row(Check, "nop_1000", guest::nop_1000::program, "a thousand NOPs").exits(0.0, 0.0),
    row(Check, "cpuid_twice", guest::cpuid_twice::program, "CPUID leaf 0, twice").reasons(Reasons::new(&["cpuid"], &["CPUID"])).exits(2.0, 2.0),
    row(Check, "hang", guest::hang::program, "a loop without end, for the watchdog").exits(0.0, 0.0),
    row(Check, "fault", guest::fault::program, "a division by zero, for the exception stubs").exits(0.0, 0.0),

    row(Kut, "cpuid", guest::cpuid::program, "CPUID leaf 0").reasons(Reasons::new(&["cpuid"], &["CPUID"])),
    row(Kut, "vmcall", guest::vmcall::program, "hypercall KVM_HC_VAPIC_POLL_IRQ, which does nothing").reasons(HYPERCALL)
        .by_vendor(guest::vmcall::program, guest::vmmcall::program),
    row(Kut, "wbinvd", guest::wbinvd::program, "WBINVD").reasons(Reasons::new(&["wbinvd"], &["WBINVD"])).exits(0.0, 1.0).exits_on_amd(1.0, 1.0),
    row(Kut, "invd", guest::invd::program, "INVD").reasons(Reasons::new(&["invd"], &["INVD"])),
    row(Kut, "mov_from_cr8", guest::mov_from_cr8::program, "read of CR8").reasons(Reasons::new(&["read_cr8"], &["CR_ACCESS"])).exits(0.0, 1.0),
    row(Kut, "mov_to_cr8", guest::mov_to_cr8::program, "write of CR8").reasons(Reasons::new(&["write_cr8"], &["CR_ACCESS"])).exits(0.0, 1.0),
    row(Kut, "inl_from_pmtimer", guest::inl_from_pmtimer::program, "read of the ACPI PM timer in user space").reasons(IO).userspace(),
    row(Kut, "inl_from_qemu", guest::inl_from_qemu::program, "4-byte read of a port that user space answers").reasons(IO).userspace(),
    row(Kut, "inl_from_kernel", guest::inl_from_kernel::program, "1-byte read of the in-kernel PIC's ELCR").reasons(IO),
    row(Kut, "outl_to_kernel", guest::outl_to_kernel::program, "1-byte write of the in-kernel PIC's ELCR").reasons(IO),
    row(Kut, "mov_dr", guest::mov_dr::program, "write of DR7").reasons(Reasons::new(&["write_dr7"], &["DR_ACCESS"])).exits(0.0, 1.0),
    row(Kut, "tscdeadline_immed", guest::tscdeadline_immed::program, "TSC deadline in the past, until its interrupt is handled").reasons(WRMSR)
        .exits(0.0, 8.0).needs(&[X2apic, TscDeadline]),
    Row { interrupts: true, delay_ticks: TSCDEADLINE_DELAY_TICKS, max_samples: 200,
        ..row(Kut, "tscdeadline", guest::tscdeadline::program,
        "TSC deadline 100,000 ticks ahead: from the deadline until its interrupt is handled").reasons(Reasons::new(&["msr", "interrupt"], &["MSR_WRITE", "EXTERNAL_INTERRUPT", "PREEMPTION_TIMER"])).exits(0.0, 16.0).needs(&[X2apic, TscDeadline]) },
    row(Kut, "self_ipi_sti_nop", guest::self_ipi_sti_nop::program, "IPI to itself by ICR, taken after STI").reasons(IPI_STI).exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "self_ipi_sti_hlt", guest::self_ipi_sti_hlt::program, "IPI to itself by ICR, taken in HLT").reasons(IPI_STI_HLT).exits(0.0, 8.0).needs(&[X2apic]).halting(),
    row(Kut, "self_ipi_tpr", guest::self_ipi_tpr::program, "IPI to itself by ICR, held back by the TPR").reasons(IPI_TPR).exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "self_ipi_tpr_sti_nop", guest::self_ipi_tpr_sti_nop::program, "IPI to itself by ICR, held back by the TPR, taken after STI").reasons(IPI_TPR_STI).exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "self_ipi_tpr_sti_hlt", guest::self_ipi_tpr_sti_hlt::program, "IPI to itself by ICR, held back by the TPR, taken in HLT").reasons(IPI_TPR_STI_HLT).exits(0.0, 8.0).needs(&[X2apic]).halting(),
    row(Kut, "x2apic_self_ipi_sti_nop", guest::x2apic_self_ipi_sti_nop::program, "IPI to itself by SELF IPI, taken after STI").reasons(SELF_IPI_STI).exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "x2apic_self_ipi_sti_hlt", guest::x2apic_self_ipi_sti_hlt::program, "IPI to itself by SELF IPI, taken in HLT").reasons(SELF_IPI_STI_HLT).exits(0.0, 8.0).needs(&[X2apic]).halting(),
    row(Kut, "x2apic_self_ipi_tpr", guest::x2apic_self_ipi_tpr::program, "IPI to itself by SELF IPI, held back by the TPR").reasons(SELF_IPI_TPR).exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "x2apic_self_ipi_tpr_sti_nop", guest::x2apic_self_ipi_tpr_sti_nop::program, "IPI to itself by SELF IPI, held back by the TPR, taken after STI").reasons(SELF_IPI_TPR_STI).exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "x2apic_self_ipi_tpr_sti_hlt", guest::x2apic_self_ipi_tpr_sti_hlt::program, "IPI to itself by SELF IPI, held back by the TPR, taken in HLT").reasons(SELF_IPI_TPR_STI_HLT).exits(0.0, 8.0).needs(&[X2apic]).halting(),
    row(Kut, "ipi", guest::ipi::program, "IPI to a running vCPU, until its handler has counted it").reasons(Reasons { virtual_apic: &["avic_incomplete_ipi"], ..Reasons::new(&["msr", "interrupt"], &["MSR_WRITE", "EXTERNAL_INTERRUPT"]) }).exits(0.0, 16.0).needs(&[X2apic]).two_vcpus(),
    row(Kut, "ipi_halt", guest::ipi_halt::program, "IPI to a vCPU in HLT (where KVM may be polling: halt_poll_ns), until its handler has counted it").reasons(Reasons { virtual_apic: &["avic_incomplete_ipi"], ..Reasons::new(&["msr", "hlt"], &["MSR_WRITE", "HLT"]) }).exits(0.0, 16.0).needs(&[X2apic]).two_vcpus().halting(),
    row(Kut, "ple_round_robin", guest::ple_round_robin::program, "turn handed to another vCPU and back, both waiting with PAUSE").reasons(Reasons::new(&["pause"], &["PAUSE_INSTRUCTION"])).exits(0.0, 1e6).two_vcpus(),
    row(Kut, "wr_kernel_gs_base", guest::wr_kernel_gs_base::program, "write of MSR KERNEL_GS_BASE").reasons(WRMSR).exits(0.0, 1.0),
    row(Kut, "wr_tsx_ctrl_msr", guest::wr_tsx_ctrl_msr::program, "write of MSR TSX_CTRL").reasons(WRMSR).exits(0.0, 1.0).needs(&[TsxCtrl]),
    row(Kut, "wr_ibrs_msr", guest::wr_ibrs_msr::program, "write of MSR SPEC_CTRL, IBRS set and cleared in turn").reasons(WRMSR).exits(0.0, 1.0).needs(&[Ibrs]),
    row(Kut, "wr_ibpb_msr", guest::wr_ibpb_msr::program, "write of MSR PRED_CMD, IBPB").reasons(WRMSR).exits(0.0, 1.0).needs(&[Ibpb]),
    row(Kut, "wr_tsc_adjust_msr", guest::wr_tsc_adjust_msr::program, "write of MSR TSC_ADJUST").reasons(WRMSR).needs(&[Msr(0x3b)]),
    row(Kut, "rd_tsc_adjust_msr", guest::rd_tsc_adjust_msr::program, "read of MSR TSC_ADJUST").reasons(Reasons::new(&["msr"], &["MSR_READ"])).needs(&[Msr(0x3b)]),
    row(Kut, "toggle_cr0_wp", guest::toggle_cr0_wp::program, "write of CR0, WP cleared and set in turn").reasons(Reasons::new(&["cr0_sel_write"], &["CR_ACCESS"])).exits(0.0, 1.0).exits_on_amd(1.0, 1.0),
    row(Kut, "toggle_cr4_pge", guest::toggle_cr4_pge::program, "write of CR4, PGE set and cleared in turn").reasons(Reasons::new(&["write_cr4"], &["CR_ACCESS"])).exits(0.0, 1.0).exits_on_amd(1.0, 1.0).needs(&[Pge]),
    row(Kut, "pci-mem-no-eventfd", guest::pci_mem_no_eventfd::program, "1-byte MMIO write to a device in user space").reasons(MMIO).userspace(),
    row(Kut, "pci-mem-wildcard-eventfd", guest::pci_mem_wildcard_eventfd::program, "1-byte MMIO write to an ioeventfd for any value and length").reasons(MMIO)
        .eventfds(&[Ioeventfd { at: Address::Mmio(mmio::TESTDEV_WILDCARD), length: 0, datamatch: None }]),
    row(Kut, "pci-mem-datamatch-eventfd", guest::pci_mem_datamatch_eventfd::program, "1-byte MMIO write to an ioeventfd for this value").reasons(MMIO)
        .eventfds(&[Ioeventfd { at: Address::Mmio(mmio::TESTDEV_DATAMATCH), length: 1, datamatch: Some(DATAMATCH) }]),
    row(Kut, "pci-io-no-eventfd", guest::pci_io_no_eventfd::program, "1-byte port write to a device in user space").reasons(IO).userspace(),
    row(Kut, "pci-io-wildcard-eventfd", guest::pci_io_wildcard_eventfd::program, "1-byte port write to an ioeventfd for any value").reasons(IO)
        .eventfds(&[Ioeventfd { at: Address::Pio(port::TESTDEV_WILDCARD), length: 1, datamatch: None }]),
    row(Kut, "pci-io-datamatch-eventfd", guest::pci_io_datamatch_eventfd::program, "1-byte port write to an ioeventfd for this value").reasons(IO)
        .eventfds(&[Ioeventfd { at: Address::Pio(port::TESTDEV_DATAMATCH), length: 1, datamatch: Some(DATAMATCH) }]),

    row(Own, "pio_user_write", guest::pio_user_write::program, "4-byte write to a port that user space answers").reasons(IO).userspace(),
    row(Own, "mmio_user_read", guest::mmio_user_read::program, "4-byte MMIO read that user space answers").reasons(MMIO).userspace(),
    row(Own, "hypercall_invalid", guest::hypercall_invalid_vmcall::program, "hypercall with a number that KVM does not know").reasons(HYPERCALL)
        .by_vendor(guest::hypercall_invalid_vmcall::program, guest::hypercall_invalid_vmmcall::program),
    Row { surrounded: true, ..row(Own, "hlt_pending", guest::hlt_pending::program,
        "HLT with an interrupt pending, against NOP in its place").reasons(SELF_IPI_STI_HLT).exits(0.0, 1.0).needs(&[X2apic]).halting() },
    row(Own, "xapic_self_ipi_sti_nop", guest::xapic_self_ipi_sti_nop::program, "IPI to itself by the xAPIC's MMIO page, taken after STI").reasons(Reasons { virtual_apic: &["APIC_WRITE", "EOI_INDUCED"], ..Reasons::new(&["npf", "vintr"], &["EPT_VIOLATION", "APIC_ACCESS", "INTERRUPT_WINDOW"]) }).exits(0.0, 8.0),
    Row { irqfd: true, ..row(Own, "irqfd_loopback", guest::irqfd_loopback::program,
        "1-byte port write to an ioeventfd that is an irqfd, until its interrupt is handled").reasons(Reasons::new(&["io", "msr"], &["IO_INSTRUCTION", "MSR_WRITE"])).exits(1.0, 8.0).needs(&[X2apic])
        .eventfds(&[Ioeventfd { at: Address::Pio(port::TESTDEV_WILDCARD), length: 1, datamatch: None }]) },
    row(Own, "rdtsc", guest::rdtsc::program, "RDTSC").reasons(Reasons::new(&["rdtsc"], &["RDTSC"])).exits(0.0, 1.0),
    row(Own, "rdtscp", guest::rdtscp::program, "RDTSCP").reasons(Reasons::new(&["rdtscp"], &["RDTSCP"])).exits(0.0, 1.0).needs(&[Rdtscp]),
    row(Own, "xsetbv", guest::xsetbv::program, "XSETBV of XCR0 with x87 and SSE").reasons(Reasons::new(&["xsetbv"], &["XSETBV"])).needs(&[Xsave]),
    row(Own, "rdpmc", guest::rdpmc::program, "RDPMC of counter 0").reasons(Reasons::new(&["rdpmc"], &["RDPMC"])).exits(0.0, 1.0).needs(&[Pmu]),
    // Less than one exit an operation where KVM maps neighbours along (tdp_mmu=0).
    Row { scratch: Scratch::Unmap, max_samples: 500, ..row(Own, "nested_page_fault", guest::nested_page_fault::program,
        "first touch of a page that KVM has not mapped (the host has)").reasons(Reasons::new(&["npf"], &["EPT_VIOLATION"])).exits(0.1, 1.0) },
    Row { scratch: Scratch::Clean, max_samples: 500, ..row(Own, "dirty_log_write", guest::dirty_log_write::program,
        "first write to a page since the dirty log was fetched").reasons(Reasons::new(&["npf"], &["EPT_VIOLATION", "PML_FULL"])).exits(0.0, 1.0) },
];

/// All tables of rows, each with the number of its first place in the guest's memory for programs.
const TABLES: [(u64, &[Row]); 4] = [(0, ROWS), (64, SCALING), (104, RUNGS), (153, KICKS)];

// Each table ends before the next one begins, and the last one where the results begin.
const _: () = {
    let mut table = 0;
    while table < TABLES.len() {
        let (first, rows) = TABLES[table];
        let end = CODE + (first + rows.len() as u64) * CODE_SIZE;
        let limit = match table + 1 < TABLES.len() {
            true => CODE + TABLES[table + 1].0 * CODE_SIZE,
            false => crate::layout::RESULTS,
        };
        assert!(
            end <= limit,
            "a table of rows has more rows than places for programs"
        );
        table += 1;
    }
};

/// Rows of all tables: those that `measure` knows, rungs and kicks.
pub fn all() -> impl Iterator<Item = &'static Row> {
    TABLES.iter().flat_map(|&(_, rows)| rows)
}

/// The row of that name, in whichever table.
pub fn find(name: &str) -> Option<&'static Row> {
    all().find(|row| row.name == name)
}

/// The rows of the default table: all but those measured only when named.
pub fn default_rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| row.group != Group::Check)
}

/// Rows of all tables that exit for one of these reasons, in their order; those of the table of exits come
/// first.
pub fn making(reasons: &[&Reason]) -> Vec<&'static Row> {
    all()
        .filter(|row| reasons.iter().any(|reason| row.reasons.has(reason)))
        .collect()
}

/// Names among some rows close to one that is not there, nearest first, at most five.
pub fn nearest<'a>(name: &str, among: &'a [Row]) -> Vec<&'a str> {
    let name = name.to_lowercase();
    let mut scored: Vec<_> = among
        .iter()
        .map(|row| {
            let contained = row.name.contains(&name) || name.contains(row.name);
            (
                !contained,
                strsim::damerau_levenshtein(&name, row.name),
                row.name,
            )
        })
        .filter(|&(apart, distance, row)| !apart || distance <= row.len().max(name.len()) / 2)
        .collect();
    scored.sort_unstable();
    scored
        .into_iter()
        .take(5)
        .map(|(_, _, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of kvm-unit-tests' x86/vmexit.c, in its order; pci-mem and pci-io as their three
    /// variants.
    const KVM_UNIT_TESTS: &str = "cpuid vmcall wbinvd invd mov_from_cr8 mov_to_cr8 \
        inl_from_pmtimer inl_from_qemu inl_from_kernel outl_to_kernel mov_dr tscdeadline_immed \
        tscdeadline self_ipi_sti_nop self_ipi_sti_hlt self_ipi_tpr self_ipi_tpr_sti_nop \
        self_ipi_tpr_sti_hlt x2apic_self_ipi_sti_nop x2apic_self_ipi_sti_hlt x2apic_self_ipi_tpr \
        x2apic_self_ipi_tpr_sti_nop x2apic_self_ipi_tpr_sti_hlt ipi ipi_halt ple_round_robin \
        wr_kernel_gs_base wr_tsx_ctrl_msr wr_ibrs_msr wr_ibpb_msr wr_tsc_adjust_msr \
        rd_tsc_adjust_msr toggle_cr0_wp toggle_cr4_pge pci-mem-no-eventfd \
        pci-mem-wildcard-eventfd pci-mem-datamatch-eventfd pci-io-no-eventfd \
        pci-io-wildcard-eventfd pci-io-datamatch-eventfd";

    #[test]
    fn kvm_unit_tests_rows_are_all_here_in_order() {
        let ours: Vec<_> = ROWS
            .iter()
            .filter(|row| row.group == Kut)
            .map(|row| row.name)
            .collect();
        let theirs: Vec<_> = KVM_UNIT_TESTS.split_whitespace().collect();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn no_two_rows_share_a_place_in_memory() {
        let mut places: Vec<u64> = all().map(|row| row.program(true).address).collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|two| two[0] < two[1]), "{places:x?}");
        let end = places.last().map(|last| last + CODE_SIZE);
        assert!(end <= Some(crate::layout::RESULTS));
    }

    #[test]
    fn names_are_unique_and_bounds_make_sense() {
        for (i, row) in all().enumerate() {
            assert!(
                !all().take(i).any(|other| other.name == row.name),
                "{}",
                row.name
            );
            for (min, max) in [row.exits, row.userspace_exits] {
                assert!(0.0 <= min && min <= max, "{}", row.name);
            }
            assert!(
                u64::from(row.vcpus) <= crate::layout::MAX_VCPUS,
                "{}",
                row.name
            );
            assert!(!row.irqfd || !row.ioeventfds.is_empty(), "{}", row.name);
            assert_eq!(find(row.name).map(|found| found.name), Some(row.name));
        }
    }

    #[test]
    fn the_operation_of_every_program_lies_where_it_says() {
        for row in ROWS {
            for amd in [false, true] {
                let program = row.program(amd);
                let op = &program.code[program.op..program.op_end];
                assert_eq!(op.is_empty(), row.name == "empty", "{}", row.name);
                let place = program.place(program.address + program.op as u64);
                assert_eq!(
                    place.contains("in the operation"),
                    row.name != "empty",
                    "{place}"
                );
                assert!(program.place(0xffff_ffff_8100_0000).contains("outside"));
            }
        }
        let code = |name: &str, amd| {
            let program = find(name).expect("a row").program(amd);
            program.code[program.op..program.op_end].to_vec()
        };
        assert_eq!(code("cpuid", false), [0x0f, 0xa2]);
        assert_eq!(code("vmcall", false), [0x0f, 0x01, 0xc1]);
        assert_eq!(code("vmcall", true), [0x0f, 0x01, 0xd9]);
        assert_eq!(code("nop_100", false), [0x90; 100]);
    }

    #[test]
    fn the_reasons_of_rows_are_reasons() {
        use crate::reasons::{SVM, VMX};
        for row in all() {
            let known = |words: &[&str], tables: &[&[Reason]]| {
                words.iter().enumerate().all(|(i, word)| {
                    let mut reasons = tables.iter().flat_map(|table| *table);
                    reasons.any(|reason| reason.word == *word) && !words[..i].contains(word)
                })
            };
            let reasons = row.reasons;
            assert!(known(reasons.svm, &[SVM]), "{}", row.name);
            assert!(known(reasons.vmx, &[VMX]), "{}", row.name);
            assert!(known(reasons.virtual_apic, &[SVM, VMX]), "{}", row.name);
            assert_eq!(reasons.svm.is_empty(), row.exits.1 == 0.0, "{}", row.name);
            assert_eq!(reasons.vmx.is_empty(), row.exits.1 == 0.0, "{}", row.name);
        }
    }

    #[test]
    fn rows_are_found_by_the_reasons_they_make() {
        let found = |word: &str| -> Vec<&str> {
            let rows = making(&crate::reasons::named(word)).into_iter();
            rows.map(|row| row.name).collect()
        };
        assert!(found("APIC_WRITE").contains(&"xapic_self_ipi_sti_nop"));
        for fault in ["EPT_VIOLATION", "npf"] {
            for row in ["nested_page_fault", "mmio_user_read", "pci-mem-no-eventfd"] {
                assert!(found(fault).contains(&row), "{fault}: {row}");
            }
        }
        assert!(found("EXIT_REASON_HLT").contains(&"hlt_pending"));
        assert!(!found("EXIT_REASON_HLT").contains(&"cpuid"));
        assert_eq!(found("CPUID"), ["cpuid_twice", "cpuid"]);
        assert!(found("TASK_SWITCH").is_empty() && found("cpiud").is_empty());
    }

    #[test]
    fn near_names_are_near() {
        assert_eq!(nearest("cpiud", ROWS).first(), Some(&"cpuid"));
        assert_eq!(
            nearest("INL_FROM_QEMU", ROWS).first(),
            Some(&"inl_from_qemu")
        );
        assert!(
            nearest("pci-mem", ROWS)
                .iter()
                .all(|name| name.starts_with("pci-mem"))
        );
        assert!(nearest("zzzzzzzzzzzzzzzzzz", ROWS).is_empty());
    }
}
