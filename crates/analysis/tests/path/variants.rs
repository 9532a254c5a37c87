//! Which paths a row takes.

use exitpath_analysis::path::{PathError, PhaseTable, trace_rows};
use exitpath_recording::{Exit, Part, Recording};

use crate::build::*;

#[test]
fn the_usual_path_is_told_and_the_others_by_what_they_have() {
    let mut made = Made::new();
    let f = made.kernel("f");
    let (entry, handler) = (
        made.kernel("asm_sysvec_apic_timer_interrupt"),
        made.kernel("timer"),
    );
    let usual = made.calling(f, vec![nop(f), ret(f + 1)]);
    let tick = vec![
        nop(f),
        call(entry, handler),
        ret(handler),
        op(entry + CALL, IRETQ),
        ret(f + 1),
    ];
    let ticked = made.calling(f, tick);
    for round in 0..2000 {
        let operation = if round % 154 == 1 { &ticked } else { &usual };
        made.round(operation.clone(), 1);
    }
    let row = made.row();
    assert_eq!(row.rounds_with_residual, 0);
    let told: Vec<(usize, u64, &str)> = row
        .variants
        .iter()
        .map(|variant| (variant.rounds, variant.total, variant.differs_by.as_str()))
        .collect();
    assert_eq!(told, [(1987, 6, ""), (13, 9, "+ timer interrupt")]);
    assert_eq!(row.total.all, 6);
}

/// Three rounds of the same instructions, whose exits have these codes.
fn with_reasons(reasons: [&[u64]; 3]) -> Recording {
    let mut made = Made::new();
    let f = made.kernel("f");
    for _ in reasons {
        made.round(made.calling(f, vec![nop(f), ret(f + 1)]), 1);
    }
    let mut recording = made.recording();
    let window = &mut recording.trace.as_mut().unwrap().windows[0];
    let operations = (0..).zip(&window.segments);
    let operations = operations.filter(|(_, segment)| segment.part == Part::Op);
    let exits = operations.zip(reasons).flat_map(|((segment, _), codes)| {
        codes.iter().map(move |&code| Exit {
            segment,
            code,
            info1: u64::from(segment),
            info2: 0,
        })
    });
    window.exits = Some(exits.collect());
    recording
}

#[test]
fn the_same_instructions_for_another_reason_are_another_variant() {
    let recording = with_reasons([&[0x72], &[0x76], &[0x72]]);
    let rows = trace_rows(&recording, &PhaseTable::default()).unwrap();
    let told: Vec<(usize, &str, Vec<u64>)> = rows[0]
        .variants
        .iter()
        .map(|variant| {
            let exits = variant.exit_reasons.as_ref().expect("known").iter();
            let codes = exits.map(|exit| exit.code).collect();
            (variant.rounds, variant.differs_by.as_str(), codes)
        })
        .collect();
    let other = "same calls, other exit reasons: +0";
    assert_eq!(told, [(2, "", vec![0x72]), (1, other, vec![0x76])]);
    // What the CPU says beside the code makes none, and is the told round's.
    let exits = rows[0].exit_reasons.as_ref().expect("known");
    assert_eq!((exits[0].code, exits[0].info1), (0x72, 3));
}

#[test]
fn as_many_reasons_as_exits_or_none_at_all() {
    let recording = with_reasons([&[0x72], &[0x72, 0x72], &[0x72]]);
    let error = trace_rows(&recording, &PhaseTable::default()).unwrap_err();
    let told = PathError::Exits {
        run: 7,
        exits: 1,
        reasons: 2,
    };
    assert_eq!(error, told);
    let mut unknown = with_reasons([&[], &[], &[]]);
    unknown.trace.as_mut().unwrap().windows[0].exits = None;
    let rows = trace_rows(&unknown, &PhaseTable::default()).unwrap();
    assert_eq!(rows[0].exit_reasons, None);
    assert_eq!(rows[0].variants.len(), 1);
}

#[test]
fn where_an_interrupt_comes_makes_no_variant() {
    let mut made = Made::new();
    let (f, g) = (made.kernel("f"), made.kernel("g"));
    let entry = made.kernel("asm_sysvec_apic_timer_interrupt");
    let (timer, more) = (made.kernel("timer"), made.kernel("more"));
    let quiet = [call(f, g), nop(g), ret(g + 1), ret(f + CALL)];
    let tick = [call(entry, timer), ret(timer), op(entry + CALL, IRETQ)];
    // One that finds more to do.
    let long = [
        call(entry, timer),
        call(timer, more),
        ret(more),
        ret(timer + CALL),
        op(entry + CALL, IRETQ),
    ];
    let none = &[][..];
    let interrupts = [(1, &tick[..]), (2, &tick), (3, &long)];
    for (at, interrupt) in [(4, none); 4].into_iter().chain(interrupts) {
        let body = [&quiet[..at], interrupt, &quiet[at..]].concat();
        made.round(made.calling(f, body), 1);
    }
    let row = made.row();
    let told: Vec<(usize, u64, (u64, u64), &str)> = row
        .variants
        .iter()
        .map(|v| (v.rounds, v.total, v.range, v.differs_by.as_str()))
        .collect();
    let ticked = (3, 11, (11, 13), "+ timer interrupt");
    assert_eq!(told, [(4, 8, (8, 8), ""), ticked]);
}

#[test]
fn loops_make_no_variant_and_widen_the_range() {
    let mut made = Made::new();
    let f = made.kernel("f");
    let looping = |made: &Made, turns: usize| {
        made.calling(
            f,
            [vec![op(f, REP_MOVSB); turns], vec![ret(f + 2)]].concat(),
        )
    };
    for turns in [3, 5, 5, 9] {
        made.round(looping(&made, turns), 1);
    }
    let row = made.row();
    assert_eq!(row.variants.len(), 1);
    assert_eq!(row.variants[0].rounds, 4);
    // Five turns: the most frequent path stands for all.
    assert_eq!(row.variants[0].total, 10);
    assert_eq!(row.variants[0].range, (8, 14));
    assert_eq!(row.total.all, 10);
}

/// How the second of two variants differs, by the bodies of a function's call.
fn differs(made: &mut Made, f: u64, usual: Vec<Executed>, other: Vec<Executed>) -> String {
    let (usual, other) = (made.calling(f, usual), made.calling(f, other));
    for operation in [&usual, &usual, &other] {
        made.round(operation.clone(), 1);
    }
    let row = made.row();
    assert_eq!(row.variants.len(), 2);
    row.variants[1].differs_by.clone()
}

#[test]
fn the_outermost_functions_are_named() {
    let mut made = Made::new();
    let (f, load, inner) = (
        made.kernel("f"),
        made.kernel("kvm_mmu_load"),
        made.kernel("inner"),
    );
    let usual = vec![
        nop(f),
        nop(f + 1),
        nop(f + 2),
        nop(f + 3),
        nop(f + 4),
        ret(f + 5),
    ];
    let other = vec![
        call(f, load),
        call(load, inner),
        ret(inner),
        ret(load + CALL),
        ret(f + 5),
    ];
    let words = differs(&mut made, f, usual, other);
    assert_eq!(words, "+ kvm_mmu_load (+3)");
}

#[test]
fn what_is_gone_is_named_too() {
    let mut made = Made::new();
    let (f, g, h) = (made.kernel("f"), made.kernel("g"), made.kernel("h"));
    let usual = vec![call(f, g), nop(g), ret(g + 1), ret(f + CALL)];
    let h_once = [nop(h), ret(h + 1)];
    let other = [
        vec![call(f, h)],
        h_once.to_vec(),
        vec![call(f + CALL, h)],
        h_once.to_vec(),
        vec![ret(f + 2 * CALL)],
    ]
    .concat();
    let words = differs(&mut made, f, usual, other);
    assert_eq!(words, "+ 2 x h (+4), - g (-2)");
}

#[test]
fn the_same_calls_in_another_order_are_said_to_be() {
    let mut made = Made::new();
    let (f, g, h) = (made.kernel("f"), made.kernel("g"), made.kernel("h"));
    let usual = vec![
        call(f, g),
        ret(g),
        call(f + CALL, h),
        ret(h),
        ret(f + 2 * CALL),
    ];
    let other = vec![
        call(f, h),
        ret(h),
        call(f + CALL, g),
        ret(g),
        nop(f + 2 * CALL),
        ret(f + 2 * CALL + 1),
    ];
    let words = differs(&mut made, f, usual, other);
    assert_eq!(words, "same calls, other order/loops: +1");
}

#[test]
fn interrupts_are_named_by_what_they_are() {
    for (entry, words) in [
        ("asm_sysvec_reschedule_ipi", "+ reschedule interrupt"),
        ("asm_exc_page_fault", "+ page fault (asm_exc_page_fault)"),
        (
            "asm_sysvec_call_function_single",
            "+ function call interrupt",
        ),
        ("irq_entries_start", "+ device interrupt"),
        (
            "asm_sysvec_thermal",
            "+ thermal interrupt (asm_sysvec_thermal)",
        ),
    ] {
        let mut made = Made::new();
        let (f, entry) = (made.kernel("f"), made.kernel(entry));
        let usual = vec![nop(f), ret(f + 1)];
        let other = vec![nop(f), nop(entry), op(entry + 1, IRETQ), ret(f + 1)];
        assert_eq!(differs(&mut made, f, usual, other), words);
    }
}

#[test]
fn a_row_without_rounds_is_empty() {
    let row = Made::new().row();
    assert_eq!((row.rounds, row.total.all, row.variants.len()), (0, 0, 0));
    assert!(row.functions.is_empty() && row.tree.is_empty());
}
