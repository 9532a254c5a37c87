//! The table of exits: one place defines each row. Adding one is an entry here and its text in
//! `arch/x86_64/guest.rs`.

use crate::arch::guest;
use crate::layout::delay::TSCDEADLINE_TICKS;
use crate::layout::{DATAMATCH, mmio, port};
use crate::reasons::Reasons;
use crate::row::{Address, Group, Ioeventfd, Need, Row, Scratch, row};

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
    Row { interrupts: true, delay_ticks: TSCDEADLINE_TICKS, max_samples: 200,
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
