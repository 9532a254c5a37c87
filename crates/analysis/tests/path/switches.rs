//! Other threads and other CPUs.

use exitpath_analysis::path::Entered;

use crate::build::*;

/// The scheduler's functions.
struct Scheduler {
    schedule: u64,
    inner: u64,
    switch: u64,
    to: u64,
}

impl Scheduler {
    fn new(made: &mut Made) -> Scheduler {
        Scheduler {
            schedule: made.kernel("schedule"),
            inner: made.kernel("__schedule"),
            switch: made.kernel("__switch_to_asm"),
            to: made.kernel("__switch_to"),
        }
    }

    /// From `schedule` to the return on the other thread's stack.
    fn leave(&self) -> Vec<Executed> {
        vec![
            nop(self.schedule),
            call(self.schedule + 1, self.inner),
            nop(self.inner),
            call(self.inner + 1, self.switch),
            nop(self.switch),
            jump(self.switch + 1, self.to),
            nop(self.to),
            ret(self.to + 1),
        ]
    }

    /// From there to the return from `schedule`.
    fn come(&self) -> Vec<Executed> {
        vec![ret(self.inner + 1 + CALL), ret(self.schedule + 1 + CALL)]
    }
}

/// A halt: the VMM's thread leaves for the idle thread, and comes back on a tick.
fn halt(made: &mut Made) -> Vec<Executed> {
    let scheduler = Scheduler::new(made);
    let (block, idle) = (made.kernel("kvm_vcpu_block"), made.kernel("do_idle"));
    let body = [
        vec![nop(block), call(block + 1, scheduler.schedule)],
        scheduler.leave(),
        // The idle thread came here the same way.
        scheduler.come(),
        vec![
            jump(idle + 0x22 + CALL, idle + 0x21),
            nop(idle + 0x21),
            call(idle + 0x22, scheduler.schedule),
        ],
        scheduler.leave(),
        scheduler.come(),
        vec![ret(block + 1 + CALL)],
    ]
    .concat();
    made.calling(block, body)
}

#[test]
fn a_thread_that_comes_back_goes_on_where_it_was() {
    let mut made = Made::new();
    let operation = halt(&mut made);
    for _ in 0..5 {
        made.round(operation.clone(), 1);
    }
    let row = made.row();
    assert_eq!(row.rounds_with_residual, 0);
    // The first round meets the idle thread for the first time.
    assert_eq!(row.variants[0].rounds, 4);
    let (own, total, calls) = counts(&row, "kvm_vcpu_block");
    // Its own three, the scheduler's on the way out and on the way back; nothing of idle.
    assert_eq!((own, total, calls), (3, 13, 1));
    let idle: Vec<Entered> = row
        .tree
        .iter()
        .filter(|node| node.name == "do_idle")
        .map(|node| node.entered)
        .collect();
    assert_eq!(idle, [Entered::Before]);
    assert_eq!(counts(&row, "do_idle"), (3, 13, 0));
    assert_eq!(counts(&row, "svm_vcpu_run").0, 3);
}

#[test]
fn threads_without_end_do_not_pile_up() {
    let mut made = Made::new();
    let scheduler = Scheduler::new(&mut made);
    let block = made.kernel("kvm_vcpu_block");
    let mut body = vec![nop(block), call(block + 1, scheduler.schedule)];
    for thread in 0..100 {
        let other = made.kernel(&format!("thread_{thread}"));
        body.extend(scheduler.leave());
        body.extend([
            ret(scheduler.inner + 1 + CALL),
            ret(scheduler.schedule + 1 + CALL),
            call(other + 0x20, scheduler.schedule),
        ]);
    }
    body.push(jump(scheduler.schedule, made.run + 1));
    let handled = [vec![call(made.resume(), block)], body].concat();
    made.round(made.cpuid(handled), 1);
    made.row();
}

#[test]
fn cpus_have_stacks_of_their_own() {
    let mut made = Made::new();
    let (f, g) = (made.kernel("f"), made.kernel("g"));
    let on_other = |executed: Executed| (1, executed.1, executed.2);
    // The other CPU runs `g`, called by `f`, while this one runs `f`.
    let body = vec![
        nop(f),
        on_other(nop(f)),
        on_other(call(f + 1, g)),
        nop(f + 1),
        on_other(nop(g)),
        ret(f + 2),
        on_other(ret(g + 1)),
        on_other(nop(f + 1 + CALL)),
    ];
    made.round(made.calling(f, body), 1);
    let row = made.row();
    assert_eq!(row.residual, 0);
    assert_eq!(counts(&row, "g"), (2, 2, 1));
    let cpus: Vec<(u32, u64)> = row
        .tree
        .iter()
        .filter(|node| node.name == "f")
        .map(|node| (node.cpu, node.total.all))
        .collect();
    assert_eq!(cpus, [(0, 3), (1, 5)]);
    assert_eq!(place(&row, "g"), "f/g");
}

#[test]
fn the_order_of_cpus_turns_makes_no_variant() {
    let mut made = Made::new();
    let (f, g) = (made.kernel("f"), made.kernel("g"));
    let on_other = |executed: Executed| (1, executed.1, executed.2);
    let here = [nop(f), ret(f + 1)];
    let there = [on_other(nop(g)), on_other(jump(g + 1, g))];
    let first = [here.to_vec(), there.to_vec()].concat();
    let second = [vec![here[0].clone()], there.to_vec(), vec![here[1].clone()]].concat();
    // The other CPU is known before.
    made.round(made.calling(f, first.clone()), 1);
    made.round(made.calling(f, first), 1);
    made.round(made.calling(f, second), 1);
    let row = made.row();
    assert_eq!(
        row.variants.iter().map(|v| v.rounds).collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(row.rounds, 3);
}

#[test]
fn a_cpu_may_be_in_a_guest_when_the_recording_begins() {
    let mut made = Made::new();
    let other = |executed: Executed| (1, executed.1, executed.2);
    let back = vec![
        other(nop(HANDLER)),
        other(nop(HANDLER + 1)),
        other(jump(made.resume(), made.run + 1)),
        other(op(made.run + 1, VMRUN)),
        other(nop(HANDLER + 2)),
    ];
    made.round([nops(OPERATION, 2), back.clone()].concat(), 0);
    made.round([nops(OPERATION, 2), back].concat(), 0);
    let row = made.row();
    assert_eq!(row.rounds_with_residual, 0);
    assert_eq!(row.exits, 1);
}
