//! Finds rows, in whichever table, and gives each program a place of its own in the guest's memory.

use crate::arch::program::Program;
use crate::layout::{CODE, CODE_END, CODE_SIZE, LOW_CODE_END, MORE_CODE};
use crate::reasons::Reason;
use crate::row::{Code, Group, Row};
use crate::tables::exits::ROWS;
use crate::tables::kicks::{KICKS, SCALING};
use crate::tables::ladder::RUNGS;
use crate::tables::primitives::PRIMITIVES;

/// All tables. The first one's programs lie where any PC has RAM, as they may be in an image for another VMM;
/// the others' follow one another.
const TABLES: [&[Row]; 5] = [ROWS, SCALING, RUNGS, KICKS, PRIMITIVES];

/// Places for programs of the first table, and of all others together.
const PLACES: [u64; 2] = [
    (LOW_CODE_END - CODE) / CODE_SIZE,
    (CODE_END - MORE_CODE) / CODE_SIZE,
];

const _: () = {
    assert!(
        ROWS.len() as u64 <= PLACES[0],
        "there are more rows of exits than places for programs below 0x9f000: make CODE_SIZE in layout.rs smaller"
    );
    let (mut table, mut others) = (1, 0);
    while table < TABLES.len() {
        others += TABLES[table].len() as u64;
        table += 1;
    }
    assert!(
        others <= PLACES[1],
        "there are more rungs and kicks than places for programs: move CODE_END in layout.rs, and what lies there"
    );
};

/// Where the program of this row lies.
fn place(name: &str) -> u64 {
    let at = |rows: &[Row]| rows.iter().position(|row| row.name == name);
    if let Some(index) = at(ROWS) {
        return CODE + index as u64 * CODE_SIZE;
    }
    let mut others = TABLES[1..].iter().flat_map(|rows| rows.iter());
    // A row of no table is a test's.
    let index = others.position(|row| row.name == name).unwrap_or(0);
    MORE_CODE + index as u64 * CODE_SIZE
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
        Program {
            address: place(self.name),
            ..program
        }
    }
}

/// Rows of all tables: those that `measure` knows, rungs and kicks.
pub fn all() -> impl Iterator<Item = &'static Row> {
    TABLES.into_iter().flatten()
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
    use Group::KvmUnitTests as Kut;

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
        assert!(found("CPUID").contains(&"cpuid") && !found("CPUID").contains(&"rdtsc"));
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

    #[test]
    fn every_program_has_a_place_of_its_own_and_there_is_room_for_more() {
        let mut places: Vec<u64> = all().map(|row| place(row.name)).collect();
        places.sort_unstable();
        let rows = places.len();
        places.dedup();
        assert_eq!(places.len(), rows);
        assert!(places.iter().all(|place| place + CODE_SIZE <= CODE_END));
        let free = |table: usize, used: usize| PLACES[table] - used as u64;
        assert!(free(0, ROWS.len()) >= 30);
        assert!(free(1, rows - ROWS.len()) >= 100);
    }

    #[test]
    fn parameters_are_told_beside_the_name() {
        let told = |name: &str| find(name).expect("a row").parameters();
        assert_eq!(told("ioeventfds_pio_512"), [("ioeventfds", 512)]);
        assert_eq!(told("disks_4_each"), [("disks", 4)]);
        assert_eq!(told("locking_global_8"), [("vcpus", 8)]);
        assert_eq!(told("tscdeadline"), [("delay_ticks", 100_000)]);
        assert_eq!(told("cpuid"), []);
    }
}
