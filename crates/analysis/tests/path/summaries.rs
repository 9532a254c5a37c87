//! What is told of a row: skip-emulation, phases, classes, artefacts, steps.

use exitpath_analysis::path::{Count, PhaseTable, Step};

use crate::build::*;

/// An exit whose handler skips the instruction by emulating it: 5 instructions.
fn skipping(made: &mut Made, handler: &str) -> Vec<Executed> {
    let handler = made.kernel(handler);
    let skip = made.kernel("__svm_skip_emulated_instruction");
    let (emulate, inner) = (
        made.kernel("kvm_emulate_instruction"),
        made.kernel("x86_emulate_instruction"),
    );
    let decode = made.kernel("x86_decode_insn");
    let body = vec![
        call(handler, skip),
        call(skip, emulate),
        nop(emulate),
        jump(emulate + 1, inner),
        call(inner, decode),
        ret(decode),
        ret(inner + CALL),
        ret(skip + CALL),
        ret(handler + CALL),
    ];
    made.calling(handler, body)
}

#[test]
fn skip_emulation_is_told_apart() {
    let mut made = Made::new();
    let operation = skipping(&mut made, "svm_handle_exit");
    made.round(operation, 1);
    let row = made.row();
    assert_eq!(row.total.all - row.total.lean, 5);
    let emulate = function(&row, "kvm_emulate_instruction");
    assert_eq!(emulate.total, Count { all: 5, lean: 0 });
    assert_eq!(emulate.calls, Count { all: 1, lean: 0 });
    let handler = function(&row, "svm_handle_exit");
    assert_eq!(handler.total, Count { all: 9, lean: 4 });
    assert_eq!(row.artefacts.len(), 1);
    assert_eq!(row.artefacts[0].instructions, 5);
    assert!(row.artefacts[0].what.contains("NRIPS"));
    let skipped: u64 = row
        .steps
        .iter()
        .filter(|s| s.skipped)
        .map(|s| s.instructions)
        .sum();
    assert_eq!(skipped, 5);
}

#[test]
fn an_interrupt_in_skip_emulation_is_none() {
    let mut made = Made::new();
    let operation = skipping(&mut made, "svm_handle_exit");
    let entry = made.kernel("asm_sysvec_x");
    let at = operation
        .iter()
        .position(|(_, _, bytes)| bytes == &[0xc3])
        .unwrap();
    let tick = vec![nop(entry), op(entry + 1, IRETQ)];
    let operation = [&operation[..at], &tick, &operation[at..]].concat();
    made.round(operation, 1);
    let row = made.row();
    assert_eq!(row.total.all - row.total.lean, 5);
    assert_eq!(
        function(&row, "asm_sysvec_x").own,
        Count { all: 2, lean: 2 }
    );
    // Inclusive counts are of all that runs meanwhile.
    assert_eq!(
        function(&row, "kvm_emulate_instruction").total,
        Count { all: 7, lean: 2 }
    );
}

#[test]
fn other_emulation_is_not_skipped() {
    let mut made = Made::new();
    let (handler, emulate) = (
        made.kernel("cr_interception"),
        made.kernel("kvm_emulate_instruction"),
    );
    let body = vec![jump(handler, emulate), nop(emulate), ret(emulate + 1)];
    made.round(made.calling(handler, body), 1);
    let row = made.row();
    assert_eq!(row.total.all, row.total.lean);
    assert_eq!(row.artefacts.len(), 1);
    assert_eq!(row.artefacts[0].instructions, 2);
    assert!(row.artefacts[0].what.contains("decode assists"));
}

#[test]
fn a_function_nobody_knows_has_its_callers_phase() {
    let mut made = Made::new();
    let (handler, copy) = (made.kernel("handler"), made.kernel("memcpy"));
    let body = vec![
        call(handler, copy),
        nop(copy),
        ret(copy + 1),
        ret(handler + CALL),
    ];
    made.round(made.calling(handler, body), 1);
    let table = PhaseTable::parse("run: svm_vcpu_run\nhandling: handler\ncode: guest:*").unwrap();
    let row = made.row_by(&table);
    let phases: Vec<(&str, u64)> = row
        .phases
        .iter()
        .map(|phase| (phase.name.as_str(), phase.instructions.all))
        .collect();
    assert_eq!(phases, [("run", 3), ("handling", 4), ("code", 1)]);
    assert_eq!(function(&row, "memcpy").phase, "handling");
    assert_eq!(function(&row, "vmm").phase, "other");
    let nothing = PhaseTable::parse("").unwrap();
    let row = made.row_by(&nothing);
    assert_eq!(row.phases.len(), 1);
    assert_eq!(row.phases[0].name, "other");
}

#[test]
fn one_function_may_lead_in_and_out() {
    let mut made = Made::new();
    let (handler, copy) = (made.kernel("svm_handle_exit"), made.kernel("memcpy"));
    let resume = made.resume();
    let handled = vec![
        nop(resume),
        call(resume + 1, copy),
        ret(copy),
        call(resume + 1 + CALL, handler),
        ret(handler),
        call(resume + 1 + 2 * CALL, copy),
        ret(copy),
        jump(resume + 1 + 3 * CALL, made.run + 1),
    ];
    made.round(made.cpuid(handled), 1);
    let table =
        "guest: guest:*\nin: svm_vcpu_run\nout: svm_vcpu_run@exited\nexit handler: svm_handle_exit";
    let row = made.row_by(&PhaseTable::parse(table).unwrap());
    let phases: Vec<(&str, u64)> = row
        .phases
        .iter()
        .map(|phase| (phase.name.as_str(), phase.instructions.all))
        .collect();
    // Out: to the call of the handler, with the first copy. In: the second call on.
    assert_eq!(
        phases,
        [("guest", 1), ("in", 4), ("out", 4), ("exit handler", 1)]
    );
}

#[test]
fn classes_are_counted_by_phase_and_function() {
    let mut made = Made::new();
    let f = made.kernel("f");
    let body = vec![op(f, WRMSR), op(f + 2, WRMSR), op(f + 4, RDTSC), ret(f + 6)];
    made.round(made.calling(f, body), 1);
    let table = PhaseTable::parse("x: f").unwrap();
    let row = made.row_by(&table);
    let class = |name: &str| row.classes.iter().find(|c| c.class == name).unwrap();
    assert_eq!(class("msr-access").count, Count { all: 2, lean: 2 });
    assert_eq!(class("msr-access").phases, [("x".to_owned(), 2)]);
    assert_eq!(class("msr-access").functions, [("f".to_owned(), 2)]);
    // The guest's CPUID too; not the bracket's clock reads.
    assert_eq!(class("serialising").count.all, 3);
    assert_eq!(class("timestamp").count.all, 1);
    assert_eq!(class("vm").count.all, 1);
    assert_eq!(class("port-io").count.all, 0);
    let names: Vec<&str> = row.classes.iter().map(|c| c.class).collect();
    let all = exitpath_analysis::path::classes::CLASSES.map(|class| class.name);
    assert_eq!(names, all);
}

#[test]
fn steps_are_in_the_order_executed() {
    let mut made = Made::new();
    let (outer, inner) = (made.kernel("outer"), made.kernel("inner"));
    let body = vec![
        nop(outer),
        call(outer + 1, inner),
        nop(inner),
        ret(inner + 1),
        ret(outer + 1 + CALL),
    ];
    made.round(made.calling(outer, body), 1);
    let row = made.row();
    let steps: Vec<(&str, u64)> = row
        .steps
        .iter()
        .map(
            |&Step {
                 node, instructions, ..
             }| (row.tree[node].name.as_str(), instructions),
        )
        .collect();
    assert_eq!(
        steps,
        [
            ("guest", 1),
            ("svm_vcpu_run", 1),
            ("outer", 2),
            ("inner", 2),
            ("outer", 1),
            ("svm_vcpu_run", 2),
        ]
    );
}

#[test]
fn every_instruction_is_listed_with_its_text() {
    let mut made = Made::new();
    let f = made.kernel("f");
    let body = [vec![op(f, REP_MOVSB); 3], vec![ret(f + 2)]].concat();
    made.round(made.calling(f, body), 1);
    let row = made.row();
    let repeated = row.instructions.iter().find(|i| i.address == f).unwrap();
    assert_eq!(repeated.times.all, 3);
    assert_eq!(row.functions[repeated.function].name, "f");
    assert_eq!(repeated.text, "rep movsb (%rsi),(%rdi)");
    let vmrun = row.instructions.iter().find(|i| i.address == made.run + 1);
    assert_eq!(vmrun.unwrap().text, "vmrun");
    assert!(row.instructions.is_sorted_by_key(|i| (i.space, i.address)));
}
