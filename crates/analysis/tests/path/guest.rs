//! The guest: what it runs, and what its clock does not have.

use exitpath_analysis::path::{Entered, Incomparable, PhaseTable, diff_paths, trace_rows};
use exitpath_recording::Space;

use crate::build::*;

/// An exit without anything but the way back in.
fn straight_back(made: &Made) -> Vec<Executed> {
    vec![jump(made.resume(), made.run + 1)]
}

#[test]
fn a_row_without_exits_is_its_instructions() {
    let mut made = Made::new();
    made.round(nops(OPERATION, 10), 0);
    let row = made.row();
    assert_eq!((row.total.all, row.guest_timed, row.exits), (10, 10, 0));
    assert_eq!((row.intercepted, row.residual), (0, 0));
    assert_eq!(counts(&row, "operation"), (10, 10, 1));
    assert_eq!(function(&row, "operation").module, "guest");
    assert_eq!(function(&row, "operation").space, Space::Guest);
    assert_eq!(node(&row, "guest").own.all, 10);
    assert_eq!(row.phases.len(), 1);
    assert_eq!(row.phases[0].name, "guest");
}

#[test]
fn the_bracket_is_not_of_the_round() {
    let mut made = Made::new();
    made.round(nops(OPERATION, 3), 0);
    let row = made.row();
    assert!(row.functions.iter().all(|f| f.name != "bracket"));
    assert_eq!(row.instructions.len(), 3);
}

#[test]
fn an_intercepted_instruction_is_not_of_the_guests_time() {
    let mut made = Made::new();
    made.round(made.cpuid(straight_back(&made)), 1);
    let row = made.row();
    // CPUID, the jump, VMRUN.
    assert_eq!((row.total.all, row.guest_timed, row.exits), (3, 2, 1));
    assert_eq!((row.intercepted, row.residual), (1, 0));
    let guest: Vec<Entered> = row
        .tree
        .iter()
        .filter(|node| node.name == "guest")
        .map(|node| node.entered)
        .collect();
    assert_eq!(guest, [Entered::Before, Entered::Vmrun]);
    assert!(place(&row, "svm_vcpu_run").ends_with("kvm_vcpu_ioctl/svm_vcpu_run"));
}

/// A round of one guest instruction and an exit whose path calls a handler.
fn exit(bytes: &[u8], handler: Option<&str>, uncompleted: u64) -> (i64, u64) {
    let mut made = Made::new();
    let body = match handler {
        Some(name) => {
            let handler = made.kernel(name);
            made.calling(handler, vec![nop(handler), ret(handler + 1)])
        }
        None => made.cpuid(straight_back(&made)),
    };
    let operation = [vec![op(OPERATION, bytes)], body[1..].to_vec()].concat();
    made.round(operation, uncompleted);
    let row = made.row();
    (row.residual, row.intercepted)
}

#[test]
fn which_instruction_was_intercepted_is_told_by_it_and_by_the_handler() {
    // Never intercepted.
    assert_eq!(exit(STI, Some("intr_interception"), 0), (0, 0));
    assert_eq!(exit(&[0x48, 0x01, 0xc3], None, 0), (0, 0));
    // Always intercepted, whatever is seen of the handler.
    assert_eq!(exit(CPUID, None, 1), (0, 1));
    assert_eq!(exit(&[0xec], Some("io_interception"), 1), (0, 1));
    // It may have been, unless the exit was for something else.
    assert_eq!(exit(WRMSR, Some("msr_interception"), 1), (0, 1));
    assert_eq!(exit(WRMSR, Some("intr_interception"), 0), (0, 0));
    assert_eq!(
        exit(WRMSR, Some("interrupt_window_interception"), 0),
        (0, 0)
    );
    // Memory: a nested page fault or not.
    assert_eq!(exit(LOAD, Some("npf_interception"), 1), (0, 1));
    assert_eq!(exit(LOAD, Some("kvm_mmu_page_fault"), 1), (0, 1));
    assert_eq!(exit(LOAD, Some("intr_interception"), 0), (0, 0));
    assert_eq!(exit(LOAD, None, 0), (0, 0));
    // A page fault of the next instruction's fetch.
    assert_eq!(exit(STI, Some("npf_interception"), 0), (0, 0));
    // An exception.
    assert_eq!(exit(&[0x0f, 0x0b], Some("ud_interception"), 1), (0, 1));
}

#[test]
fn an_interrupts_exit_may_have_no_handler() {
    // Its handler is one instruction, and compilers put it where it would be called.
    for (bytes, handler, uncompleted) in [
        (WRMSR, None, 0),
        (WRMSR, Some("any_handler"), 1),
        (&[0xf3, 0x90], None, 0),
        (&[0xf3, 0x90], Some("pause_interception"), 1),
        (CPUID, None, 1),
    ] {
        let mut made = Made::new();
        let (exit, invoke) = (
            made.kernel("svm_handle_exit"),
            made.kernel("svm_invoke_exit_handler"),
        );
        let called = handler.map_or(Vec::new(), |name| {
            let handler = made.kernel(name);
            vec![call(invoke, handler), nop(handler), ret(handler + 1)]
        });
        let end = invoke + called.len().min(1) as u64 * CALL;
        let body = [vec![jump(exit, invoke)], called, vec![ret(end)]].concat();
        let body = made.calling(exit, body);
        let operation = [vec![op(OPERATION, bytes)], body[1..].to_vec()].concat();
        made.round(operation, uncompleted);
        let row = made.row();
        assert_eq!(
            (row.residual, row.intercepted),
            (0, uncompleted),
            "{bytes:x?} {handler:?}"
        );
    }
}

#[test]
fn an_exit_may_come_before_any_instruction() {
    let mut made = Made::new();
    let vmrun = op(made.run + 1, VMRUN);
    let back = straight_back(&made);
    // Back in, and out again at once: an interrupt; CPUID was intercepted once.
    let handled = [back.clone(), vec![vmrun], back].concat();
    made.round(made.cpuid(handled), 1);
    let row = made.row();
    assert_eq!((row.residual, row.intercepted, row.exits), (0, 1, 2));
}

#[test]
fn the_guests_handler_is_a_function_of_its_own() {
    let mut made = Made::new();
    let back = straight_back(&made);
    let vmrun = op(made.run + 1, VMRUN);
    let handler = vec![nop(HANDLER), op(HANDLER + 1, IRETQ)];
    let operation = [
        vec![op(OPERATION, STI), nop(OPERATION + 1)],
        back,
        vec![vmrun],
        handler,
        vec![nop(OPERATION + 2)],
    ]
    .concat();
    made.round(operation, 0);
    let row = made.row();
    assert_eq!((row.residual, row.intercepted), (0, 0));
    assert_eq!(counts(&row, "operation"), (3, 3, 1));
    assert_eq!(counts(&row, "interrupt handler"), (2, 2, 1));
}

#[test]
fn what_surrounds_the_operation_is_subtracted() {
    let mut made = Made::new();
    let back = straight_back(&made);
    let exit = made.cpuid(back);
    made.round_with(exit.clone(), [exit, nops(OPERATION + 2, 5)].concat(), 1, 1);
    let row = made.row();
    // Executed: an exit and five NOPs. The row's value: the NOPs, as by the guest's clock.
    assert_eq!(
        (row.total.all, row.baseline.all, row.baseline_exits),
        (8, 3, 1)
    );
    assert_eq!((row.value().all, row.value().lean), (5, 5));
    assert_eq!((row.guest_timed, row.intercepted), (5, 0));
    assert_eq!((row.variants[0].total, row.variants[0].range), (5, (5, 5)));
    assert_eq!((row.residual, row.rounds_with_empty_residual), (0, 0));
    // Its functions are those of both, and are not compared.
    let recording = made.recording();
    let phases = PhaseTable::default();
    let error = diff_paths(&recording, &recording, &phases).unwrap_err();
    assert_eq!(error, Incomparable::Surrounded("row".to_owned()));
    // A baseline that makes no exit is as exact.
    let mut made = Made::new();
    let exit = made.cpuid(straight_back(&made));
    made.round_with(
        nops(OPERATION + 2, 2),
        [exit, nops(OPERATION + 2, 2)].concat(),
        0,
        1,
    );
    let row = made.row();
    assert_eq!(
        (row.value().all, row.guest_timed, row.intercepted),
        (3, 2, 1)
    );
}

#[test]
fn the_rows_own_delay_is_subtracted() {
    let mut made = Made::new();
    let exit = made.cpuid(straight_back(&made));
    made.round([exit, nops(OPERATION + 2, 40)].concat(), 1);
    let mut recording = made.recording();
    recording.manifest.rows[0].delay_ticks = 40;
    let row = trace_rows(&recording, &PhaseTable::default())
        .unwrap()
        .remove(0);
    hangs_together(&row);
    assert_eq!((row.total.all, row.delay, row.value().all), (43, 40, 3));
    assert_eq!((row.guest_timed, row.intercepted, row.residual), (2, 1, 0));
    assert_eq!(row.variants[0].total, 3);
    let diff = diff_paths(&recording, &recording, &PhaseTable::default()).unwrap();
    assert_eq!((diff.rows[0].a, diff.rows[0].b), (2, 2));
}

#[test]
fn what_is_not_explained_is_counted() {
    let mut made = Made::new();
    for _ in 0..5 {
        made.round(made.cpuid(straight_back(&made)), 1);
    }
    made.clock(1, |sample| sample.op -= 3);
    made.clock(2, |sample| sample.empty += 1);
    let row = made.row();
    assert_eq!(
        (row.rounds_with_residual, row.rounds_with_empty_residual),
        (1, 1)
    );
    // The usual round is the one that is told.
    assert_eq!(row.residual, 0);
    let mut made = Made::new();
    made.round(made.cpuid(straight_back(&made)), 3);
    assert_eq!(made.row().residual, 2);
}

#[test]
fn guest_and_user_space_may_share_addresses() {
    let mut made = Made::new();
    // What the VMM runs at the address of the guest's operation is the VMM's.
    let handled = vec![
        ret(made.resume()),
        ret(made.ioctl + 1 + CALL),
        op(made.entry + 1 + CALL, SYSRETQ),
        call(made.vmm + 3, OPERATION),
        nop(OPERATION),
        ret(OPERATION + 1),
        op(made.vmm + 3 + CALL, SYSCALL),
        nop(made.entry),
        call(made.entry + 1, made.ioctl),
        nop(made.ioctl),
        call(made.ioctl + 1, made.run),
        nop(made.run),
    ];
    made.round([vec![nop(OPERATION)], made.cpuid(handled)].concat(), 1);
    let row = made.row();
    assert_eq!(row.residual, 0);
    assert_eq!(counts(&row, "operation"), (2, 2, 1));
    let name = format!("{OPERATION:#x}");
    assert_eq!(function(&row, &name).space, Space::User);
    assert_eq!(counts(&row, &name), (2, 2, 1));
    let shared: Vec<Space> = row
        .instructions
        .iter()
        .filter(|executed| executed.address == OPERATION)
        .map(|executed| executed.space)
        .collect();
    assert_eq!(shared, [Space::Guest, Space::Guest, Space::User]);
}

#[test]
fn the_clock_goes_on_while_the_cpu_is_halted() {
    const HLT: &[u8] = &[0xf4];
    let idle = |instruction: &[u8], more: u64| {
        let mut made = Made::new();
        let f = made.kernel("native_safe_halt");
        let body = vec![op(f, instruction), ret(f + 1)];
        made.round(made.calling(f, body), 1);
        made.clock(0, |sample| sample.op += more);
        let row = made.row();
        (row.residual, row.halts(), row.idle())
    };
    assert_eq!(idle(HLT, 4_000_000), (-4_000_000, 1, 4_000_000));
    assert_eq!(idle(HLT, 0), (0, 1, 0));
    // What is not explained of a round without a halt stays so.
    assert_eq!(idle(STI, 4_000_000), (-4_000_000, 0, 0));
}
