//! Rules 5 and 6: N operations made N exits, and who handled them is measured.

use exitpath_analysis::table::HandledBy::{self, Hardware, Kernel, Userspace};
use exitpath_analysis::table::Verdict::{Clean, Usable, Void};
use exitpath_recording::{Bounds, RowInfo, Run};

use crate::build::{
    With, assert_verdict, exactly, in_lab, on_host, quiet_run, reference, row, run,
};

const NET: [u64; 100] = [3_000; 100];

/// 100 operations with so many exits and user space exits.
fn counted(exits: i64, userspace_exits: u64) -> Run {
    Run {
        userspace_exits,
        ..run("x", &NET).seed(1).count("exits", exits)
    }
}

fn bounded(exits: (f64, f64), userspace_exits: f64) -> RowInfo {
    RowInfo {
        exits: Bounds {
            min: exits.0,
            max: exits.1,
        },
        userspace_exits: exactly(userspace_exits),
        ..row("x")
    }
}

#[test]
fn who_handled_is_what_the_counts_say() {
    for (exits, userspace_exits, expected) in [
        (0, 0, Some(Hardware)),
        (9, 0, Some(Hardware)),
        (10, 0, None),
        (50, 0, None),
        (90, 0, None),
        (91, 0, Some(Kernel)),
        (100, 0, Some(Kernel)),
        (400, 0, Some(Kernel)),
        (100, 100, Some(Userspace)),
        (100, 50, None),
        (300, 91, Some(Userspace)),
    ] {
        let summary = in_lab(
            bounded((0.0, 8.0), 0.0),
            vec![counted(exits, userspace_exits)],
        );
        assert_eq!(summary.handled_by, expected, "{exits} {userspace_exits}");
        assert_eq!(summary.exits_per_op, Some(exits as f64 / 100.0));
        assert_eq!(
            summary.userspace_exits_per_op,
            Some(userspace_exits as f64 / 100.0)
        );
    }
}

#[test]
fn an_exit_that_the_hardware_took_is_clean() {
    let summary = in_lab(bounded((0.0, 1.0), 0.0), vec![counted(0, 0)]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.handled_by, Some(Hardware));
}

#[test]
fn a_reference_row_handles_nothing_unless_it_does() {
    let summary = in_lab(reference("nop"), vec![quiet_run("nop", &[1; 100]).seed(1)]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.handled_by, Some(HandledBy::None));

    // cpuid_twice checks the method, and KVM handles two exits in it.
    let twice = RowInfo {
        exits: exactly(2.0),
        ..reference("cpuid_twice")
    };
    let runs = vec![run("cpuid_twice", &NET).seed(1).count("exits", 200)];
    let summary = in_lab(twice, runs);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.handled_by, Some(Kernel));
}

#[test]
fn counts_that_contradict_the_catalogue_void_the_row() {
    let exact = || bounded((1.0, 1.0), 0.0);
    for (row, exits, userspace_exits, note) in [
        (
            exact(),
            200,
            0,
            "100 operations made 2.00 exits each, not 1",
        ),
        (
            exact(),
            103,
            0,
            "100 operations made 1.03 exits each, not 1",
        ),
        (
            exact(),
            100,
            100,
            "100 operations made 1.00 user space exits each, not 0",
        ),
        (
            bounded((1.0, 1.0), 1.0),
            100,
            0,
            "100 operations made 0.00 user space exits each, not 1",
        ),
        (
            bounded((2.0, 8.0), 0.0),
            100,
            0,
            "100 operations made 1.00 exits each, not 2 to 8",
        ),
    ] {
        let summary = in_lab(row, vec![counted(exits, userspace_exits)]);
        assert_verdict(&summary, Void, &[note]);
        assert!(summary.figures.is_some());
    }
}

#[test]
fn a_few_stray_exits_are_no_contradiction() {
    for exits in [98, 100, 102] {
        let summary = in_lab(bounded((1.0, 1.0), 0.0), vec![counted(exits, 0)]);
        assert_verdict(&summary, Clean, &[]);
    }
    // One in a run of 20 is 5 %, and still one.
    for (exits, verdict) in [(20, Clean), (21, Clean), (22, Void)] {
        let runs = vec![run("x", &NET[..20]).seed(1).count("exits", exits)];
        assert_eq!(in_lab(row("x"), runs).verdict, verdict, "{exits} exits");
    }
}

#[test]
fn runs_that_are_off_in_opposite_directions_do_not_cancel() {
    let runs = vec![
        counted(100, 0),
        counted(0, 0).seed(2),
        counted(200, 0).seed(3),
    ];
    let summary = in_lab(bounded((1.0, 1.0), 0.0), runs);
    assert_eq!(summary.exits_per_op, Some(1.0));
    assert_verdict(
        &summary,
        Usable,
        &["in 2 of 3 runs the operations did not make"],
    );
}

#[test]
fn an_exit_that_kvm_asked_for_and_that_was_not_made_is_no_merit_of_the_hardware() {
    const NOT_DELIVERED: &str =
        "KVM asks every CPU for this exit, and the emulated one did not make it";
    let summary = in_lab(row("x"), vec![counted(0, 0)]);
    assert_verdict(
        &summary,
        Void,
        &["100 operations made 0.00 exits each, not 1", NOT_DELIVERED],
    );
    assert_eq!(summary.handled_by, None);
    // Where no CPU needs to make one it is the hardware's.
    let summary = in_lab(bounded((0.0, 1.0), 0.0), vec![counted(0, 0)]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.handled_by, Some(Hardware));
    // Two where one was expected are another matter.
    let summary = in_lab(row("x"), vec![counted(200, 0)]);
    assert_verdict(
        &summary,
        Void,
        &["100 operations made 2.00 exits each, not 1"],
    );
    assert_eq!(summary.handled_by, Some(Kernel));
}

#[test]
fn fewer_exits_than_none_are_a_miscount_and_said_to_be_one() {
    let summary = in_lab(bounded((0.0, 1.0), 0.0), vec![counted(-30, 0)]);
    assert_verdict(
        &summary,
        Void,
        &["KVM counted fewer exits than the protocol makes without the operation"],
    );
}

#[test]
fn exits_that_interrupts_forced_are_taken_off() {
    let summary = in_lab(row("x"), vec![counted(107, 0).count("irq_exits", 7)]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.exits_per_op, Some(1.0));

    // Unless the row is about interrupts.
    let timer = RowInfo {
        interrupts: true,
        ..bounded((0.0, 16.0), 0.0)
    };
    let summary = in_lab(timer, vec![counted(300, 0).count("irq_exits", 100)]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.exits_per_op, Some(3.0));

    // More than there were exits is nonsense.
    let summary = in_lab(
        bounded((0.0, 1.0), 0.0),
        vec![counted(10, 0).count("irq_exits", 30)],
    );
    assert_verdict(
        &summary,
        Void,
        &["KVM counted more exits forced by interrupts"],
    );
    assert_eq!(summary.exits_per_op, Some(0.0));
}

#[test]
fn operations_of_two_kinds_are_told() {
    let summary = in_lab(bounded((0.0, 1.0), 0.0), vec![counted(50, 0)]);
    assert_verdict(
        &summary,
        Usable,
        &["some operations make an exit and others none"],
    );
    assert_eq!(summary.handled_by, None);
}

#[test]
fn without_statistics_exits_are_not_known() {
    let uncounted = || {
        let noisy: Vec<u64> = (0..100).map(|i| 3_000 + i % 7).collect();
        let mut run = run("x", &noisy);
        run.counters.remove("exits");
        run
    };
    let summary = on_host(row("x"), vec![uncounted(), uncounted()]);
    assert_verdict(&summary, Usable, &["this kernel has no KVM statistics"]);
    assert_eq!(summary.exits_per_op, None);
    assert_eq!(summary.handled_by, None);

    // One run without is as bad as all.
    let summary = on_host(row("x"), vec![run("x", &NET), uncounted()]);
    assert_eq!(summary.exits_per_op, None);

    // What the VMM counts is known all the same.
    let to_vmm = || Run {
        userspace_exits: 100,
        ..uncounted()
    };
    let summary = on_host(bounded((1.0, 1.0), 1.0), vec![to_vmm(), to_vmm()]);
    assert_verdict(&summary, Usable, &["this kernel has no KVM statistics"]);
    assert_eq!(summary.handled_by, Some(Userspace));

    let nothing = on_host(reference("x"), vec![uncounted(), uncounted()]);
    assert_eq!(nothing.handled_by, Some(HandledBy::None));
}

#[test]
fn samples_without_counted_operations_are_not_verified() {
    let runs = vec![Run {
        ops: 0,
        ..run("x", &NET).seed(1)
    }];
    let summary = in_lab(row("x"), runs);
    assert_verdict(&summary, Usable, &["no operations were counted"]);
    assert_eq!(summary.handled_by, None);
}
