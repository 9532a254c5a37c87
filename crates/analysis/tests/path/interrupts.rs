//! Interrupts, exceptions, and instructions begun twice.

use exitpath_analysis::path::Entered;

use crate::build::*;

/// A timer interrupt's instructions, back to wherever it came.
fn tick(entry: u64, handler: u64) -> Vec<Executed> {
    vec![
        nop(entry),
        call(entry + 1, handler),
        nop(handler),
        ret(handler + 1),
        op(entry + 1 + CALL, IRETQ),
    ]
}

#[test]
fn an_interrupt_nests_in_what_it_interrupts() {
    let mut made = Made::new();
    let (f, entry) = (
        made.kernel("f"),
        made.kernel("asm_sysvec_apic_timer_interrupt"),
    );
    let handler = made.kernel("sysvec_apic_timer_interrupt");
    let body = [
        vec![nop(f)],
        tick(entry, handler),
        vec![nop(f + 1), ret(f + 2)],
    ]
    .concat();
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!(row.residual, 0);
    assert_eq!(row.intercepted, 1);
    assert_eq!(counts(&row, "f"), (3, 8, 1));
    assert_eq!(counts(&row, "asm_sysvec_apic_timer_interrupt"), (3, 5, 1));
    let entered = node(&row, "asm_sysvec_apic_timer_interrupt");
    assert_eq!(entered.entered, Entered::Interrupt);
    assert_eq!(entered.phase, "host interrupts");
    let phase = row.phases.iter().find(|p| p.name == "host interrupts");
    assert_eq!(phase.unwrap().instructions.all, 5);
}

#[test]
fn an_interrupt_may_come_before_a_calls_target() {
    let mut made = Made::new();
    let (f, g) = (made.kernel("f"), made.kernel("g"));
    let (entry, handler) = (made.kernel("asm_sysvec_x"), made.kernel("sysvec_x"));
    let body = [
        vec![call(f, g)],
        tick(entry, handler),
        vec![nop(g)],
        vec![op(g + 1, CALL_RAX)],
        tick(entry, handler),
        vec![ret(f + 0x100)],
        vec![ret(g + 3)],
        tick(entry, handler),
        vec![ret(f + CALL)],
    ]
    .concat();
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!(row.residual, 0);
    assert_eq!(counts(&row, "asm_sysvec_x").2, 3);
    assert_eq!(counts(&row, "g").2, 1);
    // Called by `g` in its middle.
    assert_eq!(counts(&row, "f").2, 2);
}

#[test]
fn an_instruction_that_faults_is_begun_twice() {
    let mut made = Made::new();
    let (f, entry) = (made.kernel("f"), made.kernel("asm_exc_page_fault"));
    let handler = made.kernel("exc_page_fault");
    let body = [
        vec![op(f, LOAD)],
        tick(entry, handler),
        vec![op(f, LOAD), ret(f + 2)],
    ]
    .concat();
    made.round(made.calling(f, body), 2);
    let row = made.row();
    assert_eq!((row.residual, row.intercepted), (0, 2));
    assert_eq!(counts(&row, "f"), (3, 8, 1));
}

#[test]
fn a_fault_that_is_fixed_up_was_begun_once() {
    let mut made = Made::new();
    let (f, entry) = (made.kernel("f"), made.kernel("asm_exc_page_fault"));
    let handler = made.kernel("exc_page_fault");
    let body = [
        vec![op(f, LOAD)],
        tick(entry, handler),
        vec![nop(f + 0x80), ret(f + 0x81)],
    ]
    .concat();
    made.round(made.calling(f, body), 2);
    let row = made.row();
    assert_eq!((row.residual, row.intercepted), (0, 2));
}

#[test]
fn a_fault_in_user_space_comes_back_to_it() {
    let mut made = Made::new();
    let (entry, handler) = (
        made.kernel("asm_exc_page_fault"),
        made.kernel("exc_page_fault"),
    );
    let user = made.user("touch");
    let handled = [
        vec![
            ret(made.resume()),
            ret(made.ioctl + 1 + CALL),
            op(made.entry + 1 + CALL, SYSRETQ),
            call(made.vmm + 3, user),
            op(user, LOAD),
        ],
        tick(entry, handler),
        vec![
            op(user, LOAD),
            ret(user + 2),
            op(made.vmm + 3 + CALL, SYSCALL),
            nop(made.entry),
            call(made.entry + 1, made.ioctl),
            nop(made.ioctl),
            call(made.ioctl + 1, made.run),
            nop(made.run),
        ],
    ]
    .concat();
    made.round(made.cpuid(handled), 2);
    let row = made.row();
    assert_eq!((row.residual, row.intercepted), (0, 2));
    assert_eq!(counts(&row, "touch"), (3, 8, 1));
    assert_eq!(
        place(&row, "asm_exc_page_fault"),
        "vmm/touch/asm_exc_page_fault"
    );
}

#[test]
fn repetitions_are_not_faults() {
    let mut made = Made::new();
    let f = made.kernel("f");
    let (entry, handler) = (made.kernel("asm_sysvec_x"), made.kernel("sysvec_x"));
    let repeat = vec![op(f, REP_MOVSB); 4];
    let body = [
        repeat.clone(),
        tick(entry, handler),
        repeat,
        vec![ret(f + 2)],
    ]
    .concat();
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!((row.residual, row.intercepted), (0, 1));
    assert_eq!(counts(&row, "f").0, 9);
    let class = row
        .classes
        .iter()
        .find(|c| c.class == "string-move")
        .unwrap();
    assert_eq!(class.count.all, 8);
    assert_eq!(class.functions, [("f".to_owned(), 8)]);
}

#[test]
fn a_repetition_that_faults_was_begun_in_vain() {
    let mut made = Made::new();
    let f = made.kernel("f");
    let (entry, handler) = (
        made.kernel("asm_exc_page_fault"),
        made.kernel("exc_page_fault"),
    );
    let repeat = vec![op(f, REP_MOVSB); 2];
    let body = [
        repeat.clone(),
        tick(entry, handler),
        repeat,
        vec![ret(f + 2)],
    ]
    .concat();
    made.round(made.calling(f, body), 2);
    assert_eq!(made.row().residual, 0);
}

#[test]
fn device_interrupts_enter_by_stubs() {
    let mut made = Made::new();
    let (f, stubs) = (made.kernel("f"), made.kernel("irq_entries_start"));
    let (entry, handler) = (
        made.kernel("asm_common_interrupt"),
        made.kernel("common_interrupt"),
    );
    let body = [
        vec![nop(f), nop(stubs + 0x40), jump(stubs + 0x41, entry)],
        tick(entry, handler),
        vec![ret(f + 1)],
    ]
    .concat();
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!(row.residual, 0);
    assert!(
        place(&row, "common_interrupt")
            .ends_with("f/irq_entries_start/asm_common_interrupt/common_interrupt")
    );
    assert_eq!(counts(&row, "f").2, 1);
}

#[test]
fn interrupts_nest_in_each_other() {
    let mut made = Made::new();
    let f = made.kernel("f");
    let (entry, handler) = (made.kernel("asm_sysvec_x"), made.kernel("sysvec_x"));
    let (fault, fault_handler) = (
        made.kernel("asm_exc_page_fault"),
        made.kernel("exc_page_fault"),
    );
    let body = [
        vec![
            nop(f),
            nop(entry),
            call(entry + 1, handler),
            op(handler, LOAD),
        ],
        tick(fault, fault_handler),
        vec![
            op(handler, LOAD),
            ret(handler + 2),
            op(entry + 1 + CALL, IRETQ),
            ret(f + 1),
        ],
    ]
    .concat();
    made.round(made.calling(f, body), 2);
    let row = made.row();
    assert_eq!(row.residual, 0);
    assert!(
        place(&row, "exc_page_fault")
            .ends_with("f/asm_sysvec_x/sysvec_x/asm_exc_page_fault/exc_page_fault")
    );
}

#[test]
fn iret_to_serialise_is_no_return() {
    let mut made = Made::new();
    let f = made.kernel("f");
    let body = vec![nop(f), op(f + 1, IRETQ), nop(f + 3), ret(f + 4)];
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "f"), (4, 4, 1));
}

#[test]
fn what_an_interrupt_enters_may_have_no_name() {
    let mut made = Made::new();
    let (f, entry) = (made.kernel("f"), made.unnamed());
    let body = vec![
        nop(f),
        nop(entry),
        op(entry + 1, IRETQ),
        nop(f + 1),
        ret(f + 2),
    ];
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!(row.residual, 0);
    let name = format!("{entry:#x}");
    assert_eq!(node(&row, &name).entered, Entered::Interrupt);
    assert_eq!(node(&row, &name).phase, "host interrupts");
    assert_eq!(counts(&row, "f"), (3, 5, 1));
}
