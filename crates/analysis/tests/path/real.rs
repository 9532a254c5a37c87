//! Traces of real kernels (`tests/recordings`): everything is explained, and known facts show.

use std::path::Path;

use exitpath_analysis::path::diff::Verdict;
use exitpath_analysis::path::{Entered, PhaseTable, RowPath, diff_paths, trace_rows};
use exitpath_recording::Recording;
use exitpath_store::read;

use crate::build::{counts, hangs_together, node, place};

fn recording(kernel: &str) -> Recording {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings");
    read(&recordings.join(format!("trace-{kernel}-qemu7.2"))).unwrap()
}

fn rows(kernel: &str) -> Vec<RowPath> {
    trace_rows(&recording(kernel), &PhaseTable::default()).unwrap()
}

fn row(kernel: &str, name: &str) -> RowPath {
    let mut rows = rows(kernel).into_iter();
    rows.find(|row| row.row == name).unwrap()
}

#[test]
fn nothing_is_left_over() {
    for kernel in ["6.1", "6.12"] {
        for row in rows(kernel) {
            hangs_together(&row);
            let told = format!("{kernel} {} seed {:?}", row.row, row.seed);
            assert_eq!(row.residual, 0, "{told}");
            assert_eq!(row.rounds_with_residual, 0, "{told}");
            assert_eq!(row.rounds_with_empty_residual, 0, "{told}");
            assert_eq!(row.rounds, 40, "{told}");
            // Every function found its way up to one that the table knows.
            assert!(
                row.phases.iter().all(|phase| phase.name != "other"),
                "{told}"
            );
            // No call was lost: the VMM's frames are under everything.
            let outermost = row.tree.iter().skip(1).filter(|node| node.parent == 0);
            assert_eq!(outermost.count(), 1, "{told}");
        }
    }
}

#[test]
fn an_exit_that_the_kernel_handles() {
    let row = row("6.1", "cpuid");
    assert_eq!((row.exits, row.intercepted), (1, 1));
    assert_eq!(row.total.all, row.guest_timed + 1);
    // Retpolines and return thunks lie in between, and do not show.
    let handled = place(&row, "kvm_emulate_cpuid");
    assert!(
        handled.ends_with("svm_handle_exit/svm_invoke_exit_handler/kvm_emulate_cpuid"),
        "{handled}"
    );
    // Measured by patching it out: 197 of 198 without mitigations, and 9 return thunks here.
    assert_eq!(counts(&row, "kvm_pmu_trigger_event"), (134, 225, 1));
    // The loop was entered before, and the emulator is there for lack of NRIPS only.
    assert_eq!(counts(&row, "kvm_arch_vcpu_ioctl_run").2, 0);
    let skipped = row.total.all - row.total.lean;
    assert_eq!(node(&row, "kvm_emulate_instruction").total.all, skipped);
    assert_eq!(row.artefacts.len(), 1);
    assert_eq!(row.artefacts[0].instructions, skipped);
}

#[test]
fn an_exit_that_the_vmm_handles() {
    for kernel in ["6.1", "6.12"] {
        let row = row(kernel, "inl_from_qemu");
        assert_eq!(row.total.all, row.total.lean);
        // Out through all that was entered before, and in again.
        let entries = row.tree.iter().filter(|node| node.name == "kvm_vcpu_ioctl");
        let entered: Vec<Entered> = entries.map(|node| node.entered).collect();
        assert_eq!(entered.len(), 2);
        assert_eq!(entered[0], Entered::Before);
        assert_eq!(counts(&row, "kvm_vcpu_ioctl").2, 1);
        let vmm = row.phases.iter().find(|phase| phase.name == "VMM").unwrap();
        assert!(vmm.instructions.all > 50);
    }
}

#[test]
fn two_kernels_differ_where_they_are_known_to() {
    let (a, b) = (recording("6.1"), recording("6.12"));
    let table = PhaseTable::default();
    let diff = diff_paths(&a, &b, &table).unwrap();
    assert_eq!(diff.verdict, Verdict::Different);
    assert!(
        diff.notes
            .iter()
            .any(|note| note.starts_with("kernel: 6.1.0"))
    );
    let cpuid = diff.rows.iter().find(|row| row.name == "cpuid").unwrap();
    assert_eq!(cpuid.unexplained, 0);
    assert_eq!(cpuid.seeds.len(), 2);
    let functions = cpuid.functions.iter();
    let mut pmu = functions.filter(|f| f.name == "kvm_pmu_trigger_event");
    assert_eq!(pmu.next().map(|f| f.total), Some((225, 27)));
    // HLT's is not among them: its path holds what surrounds it too.
    let names: Vec<&str> = diff.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["cpuid", "inl_from_qemu"]);
    let left_out = "left out: hlt_pending is measured less what surrounds its operation";
    assert!(diff.notes.iter().any(|note| note.starts_with(left_out)));
    for recording in [&a, &b] {
        let diff = diff_paths(recording, recording, &table).unwrap();
        assert_eq!(diff.verdict, Verdict::Same);
        assert!(diff.rows.iter().all(|row| !row.paths_differ()));
    }
}

#[test]
fn a_rows_value_is_what_is_measured() {
    // Total, less what it subtracts: what the guest times, and what its clock does not have.
    for kernel in ["6.1", "6.12"] {
        for row in rows(kernel) {
            let told = format!("{kernel} {} seed {:?}", row.row, row.seed);
            assert_eq!(row.value().all, row.guest_timed + row.intercepted, "{told}");
            assert_eq!(row.variants[0].total, row.value().all, "{told}");
            if row.row == "hlt_pending" {
                assert!(row.baseline_exits > 0 && row.intercepted == 1, "{told}");
                assert!(
                    (2_000..5_000).contains(&row.guest_timed),
                    "{told}: {}",
                    row.guest_timed
                );
            }
        }
    }
}
