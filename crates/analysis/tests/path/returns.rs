//! Calls, returns, and the jumps that stand for them.

use exitpath_analysis::path::Entered;

use crate::build::*;

#[test]
fn calls_nest_and_are_counted() {
    let mut made = Made::new();
    let (outer, inner) = (made.kernel("outer"), made.kernel("inner"));
    let once = [nops(inner, 3), vec![ret(inner + 3)]].concat();
    let body = [
        vec![nop(outer), call(outer + 1, inner)],
        once.clone(),
        vec![call(outer + 1 + CALL, inner)],
        once,
        vec![ret(outer + 1 + 2 * CALL)],
    ]
    .concat();
    made.round(made.calling(outer, body), 1);
    let row = made.row();
    assert_eq!(row.residual, 0);
    assert_eq!(counts(&row, "outer"), (4, 12, 1));
    assert_eq!(counts(&row, "inner"), (8, 8, 2));
    assert_eq!(
        place(&row, "inner"),
        "vmm/entry_SYSCALL_64/kvm_vcpu_ioctl/svm_vcpu_run/outer/inner"
    );
    // Its call, its jump to VMRUN, and VMRUN.
    assert_eq!(counts(&row, "svm_vcpu_run"), (3, row.total.all, 0));
    assert_eq!(node(&row, "svm_vcpu_run").entered, Entered::Before);
    assert_eq!(counts(&row, "vmm"), (0, row.total.all, 0));
}

#[test]
fn recursion_is_counted_once() {
    let mut made = Made::new();
    let f = made.kernel("f");
    let begin = [nop(f), branch(f + 1, f + 20)];
    let deeper = [begin.to_vec(), vec![call(f + 7, f)]].concat();
    let back = ret(f + 7 + CALL);
    let body = [
        deeper.clone(),
        deeper,
        begin.to_vec(),
        vec![ret(f + 20), back.clone(), back],
    ]
    .concat();
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "f"), (11, 11, 3));
}

#[test]
fn a_tail_call_belongs_to_its_callers_call() {
    let mut made = Made::new();
    let (foo, bar) = (made.kernel("foo"), made.kernel("bar"));
    let body = vec![nop(foo), jump(foo + 1, bar), nop(bar), ret(bar + 1)];
    made.round(made.calling(foo, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "foo"), (2, 4, 1));
    assert_eq!(counts(&row, "bar"), (2, 2, 1));
    assert_eq!(node(&row, "bar").entered, Entered::TailCall);
    assert!(place(&row, "bar").ends_with("svm_vcpu_run/foo/bar"));
    // What comes then is the caller's again.
    assert_eq!(counts(&row, "svm_vcpu_run").0, 3);
}

#[test]
fn running_on_into_another_function_is_a_tail_call() {
    let mut made = Made::new();
    let entry = made.kernel("entry");
    made.inside(entry + 2, 0x100, "entry_label");
    let body = vec![nop(entry), nop(entry + 1), nop(entry + 2), ret(entry + 3)];
    made.round(made.calling(entry, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "entry"), (2, 4, 1));
    assert_eq!(node(&row, "entry_label").entered, Entered::TailCall);
}

#[test]
fn loops_between_functions_that_jump_do_not_nest() {
    let mut made = Made::new();
    let (foo, bar) = (made.kernel("foo"), made.kernel("bar"));
    let begin = [nop(foo), branch(foo + 1, foo + 20)];
    let turn = [
        begin.to_vec(),
        vec![jump(foo + 7, bar), nop(bar), jump(bar + 1, foo)],
    ]
    .concat();
    let body = [
        turn.clone(),
        turn.clone(),
        turn,
        begin.to_vec(),
        vec![ret(foo + 20)],
    ]
    .concat();
    made.round(made.calling(foo, body), 1);
    let row = made.row();
    assert_eq!(
        place(&row, "bar"),
        "vmm/entry_SYSCALL_64/kvm_vcpu_ioctl/svm_vcpu_run/foo/bar"
    );
    assert_eq!(counts(&row, "bar"), (6, 6, 3));
    assert_eq!(counts(&row, "foo").2, 1);
}

#[test]
fn what_is_cold_is_part_of_its_function() {
    let mut made = Made::new();
    let (foo, cold) = (made.kernel("foo"), made.kernel("foo.cold"));
    let body = vec![
        branch(foo, cold),
        nop(cold),
        jump(cold + 1, foo + 6),
        ret(foo + 6),
    ];
    made.round(made.calling(foo, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "foo"), (4, 4, 1));
    assert!(row.functions.iter().all(|f| f.name != "foo.cold"));
}

/// `call 1f; …; 1: mov %rax,(%rsp); ret`
fn retpoline(thunk: u64) -> Vec<Executed> {
    vec![
        call(thunk, thunk + 8),
        op(thunk + 8, &[0x48, 0x89, 0x04, 0x24]),
        ret(thunk + 12),
    ]
}

#[test]
fn a_retpoline_hands_its_call_on() {
    let mut made = Made::new();
    let (caller, thunk) = (
        made.kernel("caller"),
        made.kernel("__x86_indirect_thunk_rax"),
    );
    let target = made.kernel("target");
    let body = [
        vec![call(caller, thunk)],
        retpoline(thunk),
        vec![nop(target), ret(target + 1), ret(caller + CALL)],
    ]
    .concat();
    made.round(made.calling(caller, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "__x86_indirect_thunk_rax"), (3, 3, 1));
    assert_eq!(counts(&row, "target"), (2, 2, 1));
    assert_eq!(counts(&row, "caller"), (2, 7, 1));
    assert_eq!(node(&row, "target").entered, Entered::Call);
    assert!(place(&row, "target").ends_with("svm_vcpu_run/caller/target"));
}

#[test]
fn a_retpoline_is_one_by_what_it_does() {
    let mut made = Made::new();
    // Another name for the same address.
    let thunk = made.kernel("__softirqentry_text_end");
    let (caller, target) = (made.kernel("caller"), made.kernel("target"));
    // Jumped to, in place of a call at the end.
    let body = [
        vec![jump(caller, thunk)],
        retpoline(thunk),
        vec![nop(target), ret(target + 1)],
    ]
    .concat();
    made.round(made.calling(caller, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "caller"), (1, 6, 1));
    assert_eq!(node(&row, "target").entered, Entered::TailCall);
    assert!(place(&row, "target").ends_with("svm_vcpu_run/caller/target"));
}

#[test]
fn a_retpoline_may_return_through_a_return_thunk() {
    let mut made = Made::new();
    let (caller, thunk) = (
        made.kernel("caller"),
        made.kernel("__x86_indirect_thunk_rax"),
    );
    let (return_thunk, safe) = (
        made.kernel("srso_alias_return_thunk"),
        made.kernel("srso_alias_safe_ret"),
    );
    let target = made.kernel("target");
    let body = vec![
        call(caller, thunk),
        call(thunk, thunk + 8),
        op(thunk + 8, &[0x48, 0x89, 0x04, 0x24]),
        jump(thunk + 12, return_thunk),
        call(return_thunk, safe),
        op(safe, &[0x48, 0x8d, 0x64, 0x24, 0x08]),
        ret(safe + 5),
        nop(target),
        ret(target + 1),
        ret(caller + CALL),
    ];
    made.round(made.calling(caller, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "__x86_indirect_thunk_rax"), (3, 6, 1));
    assert_eq!(counts(&row, "target"), (2, 2, 1));
    assert!(place(&row, "target").ends_with("svm_vcpu_run/caller/target"));
    assert_eq!(counts(&row, "caller"), (2, 10, 1));
}

#[test]
fn return_thunks_count_for_who_returns() {
    let mut made = Made::new();
    let (f, thunk) = (made.kernel("f"), made.kernel("srso_return_thunk"));
    let safe = made.kernel("srso_safe_ret");
    let body = vec![
        nop(f),
        jump(f + 1, thunk),
        call(thunk, safe),
        // lea 8(%rsp),%rsp: the thunk's own return address goes.
        op(safe, &[0x48, 0x8d, 0x64, 0x24, 0x08]),
        ret(safe + 5),
    ];
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "f"), (2, 5, 1));
    assert_eq!(counts(&row, "svm_vcpu_run").0, 3);
    assert_eq!(row.residual, 0);
}

#[test]
fn static_calls_are_handed_on() {
    let mut made = Made::new();
    let (caller, trampoline) = (made.kernel("caller"), made.kernel("__SCT__kvm_x86_run"));
    let target = made.kernel("target");
    let body = vec![
        call(caller, trampoline),
        jump(trampoline, target),
        ret(target),
        ret(caller + CALL),
    ];
    made.round(made.calling(caller, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "__SCT__kvm_x86_run"), (1, 1, 1));
    assert!(place(&row, "target").ends_with("svm_vcpu_run/caller/target"));
}

#[test]
fn indirect_calls_and_jumps_are_followed() {
    let mut made = Made::new();
    let (caller, called) = (made.kernel("caller"), made.kernel("called"));
    let jumped = made.kernel("jumped");
    let body = vec![
        op(caller, CALL_RAX),
        op(called, JUMP_RAX),
        ret(jumped),
        ret(caller + 2),
    ];
    made.round(made.calling(caller, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "called"), (1, 2, 1));
    assert!(place(&row, "jumped").ends_with("caller/called/jumped"));
}

#[test]
fn stuffing_the_return_stack_leaves_nothing() {
    let mut made = Made::new();
    let f = made.kernel("f");
    // call 1f; int3; 1: call 2f; int3; 2: add $16,%rsp; ret
    let body = vec![
        call(f, f + 6),
        call(f + 6, f + 12),
        op(f + 12, &[0x48, 0x83, 0xc4, 0x10]),
        ret(f + 16),
    ];
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!(counts(&row, "f"), (4, 4, 1));
    assert_eq!(counts(&row, "svm_vcpu_run").0, 3);
}

#[test]
fn a_return_to_nobody_begins_anew() {
    let mut made = Made::new();
    let (f, unknown) = (made.kernel("f"), made.kernel("unknown"));
    let body = vec![ret(f), nop(unknown + 8), jump(unknown + 9, made.run + 1)];
    let handled = [vec![call(made.resume(), f)], body].concat();
    made.round(made.cpuid(handled), 1);
    made.round(made.cpuid(vec![jump(made.resume(), made.run + 1)]), 1);
    let row = made.row();
    assert_eq!(row.rounds_with_residual, 0);
    assert_eq!(row.rounds, 2);
}

#[test]
fn code_without_a_name_is_shown_by_its_address() {
    let mut made = Made::new();
    let (first, second) = (made.unnamed(), made.unnamed());
    let far = first + 0x800;
    let body = vec![
        nop(first),
        call(first + 1, second),
        nop(second),
        ret(second + 1),
        jump(first + 1 + CALL, far),
        nop(far),
        ret(far + 1),
    ];
    made.round(made.calling(first, body), 1);
    let row = made.row();
    let name = |address: u64| format!("{address:#x}");
    assert_eq!(counts(&row, &name(first)), (3, 7, 1));
    assert_eq!(counts(&row, &name(second)), (2, 2, 1));
    assert_eq!(counts(&row, &name(far)), (2, 2, 1));
    assert_eq!(function(&row, &name(first)).module, "");
}

#[test]
fn a_user_exit_goes_through_the_vmm() {
    let mut made = Made::new();
    let resume = made.resume();
    let handled = vec![
        ret(resume),
        ret(made.ioctl + 1 + CALL),
        nop(made.entry + 1 + CALL),
        op(made.entry + 2 + CALL, SYSRETQ),
        nop(made.vmm + 3),
        op(made.vmm + 4, SYSCALL),
        nop(made.entry),
        call(made.entry + 1, made.ioctl),
        nop(made.ioctl),
        call(made.ioctl + 1, made.run),
        nop(made.run),
    ];
    made.round(made.cpuid(handled), 1);
    let row = made.row();
    assert_eq!(row.residual, 0);
    assert_eq!(counts(&row, "vmm"), (2, row.total.all, 0));
    // Two of the way out, entered before, and two of the way in.
    assert_eq!(counts(&row, "entry_SYSCALL_64").2, 1);
    let entries: Vec<Entered> = row
        .tree
        .iter()
        .filter(|node| node.name == "entry_SYSCALL_64")
        .map(|node| node.entered)
        .collect();
    assert_eq!(entries, [Entered::Before, Entered::SystemCall]);
    assert_eq!(counts(&row, "svm_vcpu_run").2, 1);
    assert_eq!(row.exits, 1);
}

#[test]
fn rounds_after_a_user_exit_are_like_those_before() {
    let mut made = Made::new();
    let out_and_in = |made: &Made, vmm: u64| {
        made.cpuid(vec![
            ret(made.resume()),
            ret(made.ioctl + 1 + CALL),
            op(made.entry + 1 + CALL, SYSRETQ),
            op(vmm, SYSCALL),
            nop(made.entry),
            call(made.entry + 1, made.ioctl),
            nop(made.ioctl),
            call(made.ioctl + 1, made.run),
            nop(made.run),
        ])
    };
    for _ in 0..20 {
        made.round(out_and_in(&made, made.vmm + 3), 1);
    }
    let row = made.row();
    assert_eq!(row.variants.len(), 1);
    assert_eq!(row.variants[0].rounds, 20);
}
