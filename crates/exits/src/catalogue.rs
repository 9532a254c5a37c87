//! The rows: one place defines each. Adding one is an entry here and its text in
//! [`guest`](crate::guest).

use crate::guest;
use crate::kicks::{Consumer, KICKS, Kick, SCALING};
use crate::ladder::{RUNGS, Rung};
use crate::layout::{CODE, CODE_SIZE};
use crate::layout::{DATAMATCH, mmio, port};
use crate::program::Program;

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
    /// Exits one operation should make, all vCPUs together.
    pub exits: Bounds,
    /// User space exits one operation should make.
    pub userspace_exits: Bounds,
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
        userspace_exits: (0.0, 0.0),
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

use Group::{Check, KvmUnitTests as Kut, Own, Reference};
use Need::{Ibpb, Ibrs, Msr, Pge, Pmu, Rdtscp, TscDeadline, TsxCtrl, X2apic, Xsave};

/// Every row, in the order tables show them.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row(Reference, "empty", guest::empty::program, "nothing").exits(0.0, 0.0),
    row(Reference, "nop", guest::nop::program, "one NOP").exits(0.0, 0.0),
    row(Check, "nop_10", guest::nop_10::program, "ten NOPs").exits(0.0, 0.0),
    row(Check, "nop_100", guest::nop_100::program, "a hundred NOPs").exits(0.0, 0.0),
    row(Check, "nop_1000", guest::nop_1000::program, "a thousand NOPs").exits(0.0, 0.0),
    row(Check, "cpuid_twice", guest::cpuid_twice::program, "CPUID leaf 0, twice").exits(2.0, 2.0),
    row(Check, "hang", guest::hang::program, "a loop without end, for the watchdog").exits(0.0, 0.0),
    row(Check, "fault", guest::fault::program, "a division by zero, for the exception stubs").exits(0.0, 0.0),

    row(Kut, "cpuid", guest::cpuid::program, "CPUID leaf 0"),
    row(Kut, "vmcall", guest::vmcall::program, "hypercall KVM_HC_VAPIC_POLL_IRQ, which does nothing")
        .by_vendor(guest::vmcall::program, guest::vmmcall::program),
    row(Kut, "wbinvd", guest::wbinvd::program, "WBINVD").exits(0.0, 1.0),
    row(Kut, "invd", guest::invd::program, "INVD").exits(0.0, 1.0),
    row(Kut, "mov_from_cr8", guest::mov_from_cr8::program, "read of CR8").exits(0.0, 1.0),
    row(Kut, "mov_to_cr8", guest::mov_to_cr8::program, "write of CR8").exits(0.0, 1.0),
    row(Kut, "inl_from_pmtimer", guest::inl_from_pmtimer::program, "read of the ACPI PM timer in user space").userspace(),
    row(Kut, "inl_from_qemu", guest::inl_from_qemu::program, "4-byte read of a port that user space answers").userspace(),
    row(Kut, "inl_from_kernel", guest::inl_from_kernel::program, "1-byte read of the in-kernel PIC's ELCR"),
    row(Kut, "outl_to_kernel", guest::outl_to_kernel::program, "1-byte write of the in-kernel PIC's ELCR"),
    row(Kut, "mov_dr", guest::mov_dr::program, "write of DR7").exits(0.0, 1.0),
    row(Kut, "tscdeadline_immed", guest::tscdeadline_immed::program, "TSC deadline in the past, until its interrupt is handled")
        .exits(0.0, 8.0).needs(&[X2apic, TscDeadline]),
    Row { interrupts: true, delay_ticks: TSCDEADLINE_DELAY_TICKS, max_samples: 200,
        ..row(Kut, "tscdeadline", guest::tscdeadline::program,
        "TSC deadline 100,000 ticks ahead: from the deadline until its interrupt is handled").exits(0.0, 16.0).needs(&[X2apic, TscDeadline]) },
    row(Kut, "self_ipi_sti_nop", guest::self_ipi_sti_nop::program, "IPI to itself by ICR, taken after STI").exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "self_ipi_sti_hlt", guest::self_ipi_sti_hlt::program, "IPI to itself by ICR, taken in HLT").exits(0.0, 8.0).needs(&[X2apic]).halting(),
    row(Kut, "self_ipi_tpr", guest::self_ipi_tpr::program, "IPI to itself by ICR, held back by the TPR").exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "self_ipi_tpr_sti_nop", guest::self_ipi_tpr_sti_nop::program, "IPI to itself by ICR, held back by the TPR, taken after STI").exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "self_ipi_tpr_sti_hlt", guest::self_ipi_tpr_sti_hlt::program, "IPI to itself by ICR, held back by the TPR, taken in HLT").exits(0.0, 8.0).needs(&[X2apic]).halting(),
    row(Kut, "x2apic_self_ipi_sti_nop", guest::x2apic_self_ipi_sti_nop::program, "IPI to itself by SELF IPI, taken after STI").exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "x2apic_self_ipi_sti_hlt", guest::x2apic_self_ipi_sti_hlt::program, "IPI to itself by SELF IPI, taken in HLT").exits(0.0, 8.0).needs(&[X2apic]).halting(),
    row(Kut, "x2apic_self_ipi_tpr", guest::x2apic_self_ipi_tpr::program, "IPI to itself by SELF IPI, held back by the TPR").exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "x2apic_self_ipi_tpr_sti_nop", guest::x2apic_self_ipi_tpr_sti_nop::program, "IPI to itself by SELF IPI, held back by the TPR, taken after STI").exits(0.0, 8.0).needs(&[X2apic]),
    row(Kut, "x2apic_self_ipi_tpr_sti_hlt", guest::x2apic_self_ipi_tpr_sti_hlt::program, "IPI to itself by SELF IPI, held back by the TPR, taken in HLT").exits(0.0, 8.0).needs(&[X2apic]).halting(),
    row(Kut, "ipi", guest::ipi::program, "IPI to a running vCPU, until its handler has counted it").exits(0.0, 16.0).needs(&[X2apic]).two_vcpus(),
    row(Kut, "ipi_halt", guest::ipi_halt::program, "IPI to a vCPU in HLT (where KVM may be polling: halt_poll_ns), until its handler has counted it").exits(0.0, 16.0).needs(&[X2apic]).two_vcpus().halting(),
    row(Kut, "ple_round_robin", guest::ple_round_robin::program, "turn handed to another vCPU and back, both waiting with PAUSE").exits(0.0, 1e6).two_vcpus(),
    row(Kut, "wr_kernel_gs_base", guest::wr_kernel_gs_base::program, "write of MSR KERNEL_GS_BASE").exits(0.0, 1.0),
    row(Kut, "wr_tsx_ctrl_msr", guest::wr_tsx_ctrl_msr::program, "write of MSR TSX_CTRL").exits(0.0, 1.0).needs(&[TsxCtrl]),
    row(Kut, "wr_ibrs_msr", guest::wr_ibrs_msr::program, "write of MSR SPEC_CTRL, IBRS set and cleared in turn").exits(0.0, 1.0).needs(&[Ibrs]),
    row(Kut, "wr_ibpb_msr", guest::wr_ibpb_msr::program, "write of MSR PRED_CMD, IBPB").exits(0.0, 1.0).needs(&[Ibpb]),
    row(Kut, "wr_tsc_adjust_msr", guest::wr_tsc_adjust_msr::program, "write of MSR TSC_ADJUST").exits(0.0, 1.0).needs(&[Msr(0x3b)]),
    row(Kut, "rd_tsc_adjust_msr", guest::rd_tsc_adjust_msr::program, "read of MSR TSC_ADJUST").exits(0.0, 1.0).needs(&[Msr(0x3b)]),
    row(Kut, "toggle_cr0_wp", guest::toggle_cr0_wp::program, "write of CR0, WP cleared and set in turn").exits(0.0, 1.0),
    row(Kut, "toggle_cr4_pge", guest::toggle_cr4_pge::program, "write of CR4, PGE set and cleared in turn").exits(0.0, 1.0).needs(&[Pge]),
    row(Kut, "pci-mem-no-eventfd", guest::pci_mem_no_eventfd::program, "1-byte MMIO write to a device in user space").userspace(),
    row(Kut, "pci-mem-wildcard-eventfd", guest::pci_mem_wildcard_eventfd::program, "1-byte MMIO write to an ioeventfd for any value and length")
        .eventfds(&[Ioeventfd { at: Address::Mmio(mmio::TESTDEV_WILDCARD), length: 0, datamatch: None }]),
    row(Kut, "pci-mem-datamatch-eventfd", guest::pci_mem_datamatch_eventfd::program, "1-byte MMIO write to an ioeventfd for this value")
        .eventfds(&[Ioeventfd { at: Address::Mmio(mmio::TESTDEV_DATAMATCH), length: 1, datamatch: Some(DATAMATCH) }]),
    row(Kut, "pci-io-no-eventfd", guest::pci_io_no_eventfd::program, "1-byte port write to a device in user space").userspace(),
    row(Kut, "pci-io-wildcard-eventfd", guest::pci_io_wildcard_eventfd::program, "1-byte port write to an ioeventfd for any value")
        .eventfds(&[Ioeventfd { at: Address::Pio(port::TESTDEV_WILDCARD), length: 1, datamatch: None }]),
    row(Kut, "pci-io-datamatch-eventfd", guest::pci_io_datamatch_eventfd::program, "1-byte port write to an ioeventfd for this value")
        .eventfds(&[Ioeventfd { at: Address::Pio(port::TESTDEV_DATAMATCH), length: 1, datamatch: Some(DATAMATCH) }]),

    row(Own, "pio_user_write", guest::pio_user_write::program, "4-byte write to a port that user space answers").userspace(),
    row(Own, "mmio_user_read", guest::mmio_user_read::program, "4-byte MMIO read that user space answers").userspace(),
    row(Own, "hypercall_invalid", guest::hypercall_invalid_vmcall::program, "hypercall with a number that KVM does not know")
        .by_vendor(guest::hypercall_invalid_vmcall::program, guest::hypercall_invalid_vmmcall::program),
    Row { surrounded: true, ..row(Own, "hlt_pending", guest::hlt_pending::program,
        "HLT with an interrupt pending, against NOP in its place").exits(0.0, 1.0).needs(&[X2apic]).halting() },
    row(Own, "xapic_self_ipi_sti_nop", guest::xapic_self_ipi_sti_nop::program, "IPI to itself by the xAPIC's MMIO page, taken after STI").exits(0.0, 8.0),
    Row { irqfd: true, ..row(Own, "irqfd_loopback", guest::irqfd_loopback::program,
        "1-byte port write to an ioeventfd that is an irqfd, until its interrupt is handled").exits(1.0, 8.0).needs(&[X2apic])
        .eventfds(&[Ioeventfd { at: Address::Pio(port::TESTDEV_WILDCARD), length: 1, datamatch: None }]) },
    row(Own, "rdtsc", guest::rdtsc::program, "RDTSC").exits(0.0, 1.0),
    row(Own, "rdtscp", guest::rdtscp::program, "RDTSCP").exits(0.0, 1.0).needs(&[Rdtscp]),
    row(Own, "xsetbv", guest::xsetbv::program, "XSETBV of XCR0 with x87 and SSE").exits(0.0, 1.0).needs(&[Xsave]),
    row(Own, "rdpmc", guest::rdpmc::program, "RDPMC of counter 0").exits(0.0, 1.0).needs(&[Pmu]),
    // Less than one exit an operation where KVM maps neighbours along (tdp_mmu=0).
    Row { scratch: Scratch::Unmap, max_samples: 500, ..row(Own, "nested_page_fault", guest::nested_page_fault::program,
        "first touch of a page that KVM has not mapped (the host has)").exits(0.1, 1.0) },
    Row { scratch: Scratch::Clean, max_samples: 500, ..row(Own, "dirty_log_write", guest::dirty_log_write::program,
        "first write to a page since the dirty log was fetched").exits(0.0, 1.0) },
];

/// All tables of rows, each with the number of its first place in the guest's memory for programs.
const TABLES: [(u64, &[Row]); 4] = [(0, ROWS), (64, SCALING), (104, RUNGS), (152, KICKS)];

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
