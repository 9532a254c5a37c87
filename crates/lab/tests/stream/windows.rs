//! From the stream to segments and paths.

use exitpath_lab::windows::{Collector, Expected, merge};
use exitpath_lab_plugin::stream::Unread;
use exitpath_recording::{Exit, Part, Trace};

use crate::Stream;

const RDTSC: &[u8] = &[0x0f, 0x31];
const VMRUN: &[u8] = &[0x0f, 0x01, 0xd8];
const NOP: &[u8] = &[0x90];
const KERNEL: u64 = 0xffff_ffff_8100_0000;
const CLOCKS: [u64; 4] = [0x1_0000, 0x1_0010, 0x1_0020, 0x1_0030];

/// A machine that has a VMM at 0x40_0000, a kernel, and a guest with four clock reads.
struct Machine {
    stream: Stream,
    vmm: u32,
    vmrun: u32,
    after: u32,
    clocks: [u32; 4],
    guest: u32,
    exiting: u32,
    handler: u32,
}

impl Machine {
    fn new() -> Machine {
        let mut stream = Stream::new();
        let vmm = stream.define(0x40_0000, NOP);
        let vmrun = stream.define(KERNEL, VMRUN);
        let after = stream.define(KERNEL + 3, NOP);
        let clocks = CLOCKS.map(|at| stream.define(at, RDTSC));
        let guest = stream.define(0x1_0040, NOP);
        let exiting = stream.define(0x1_0028, &[0x0f, 0xa2]);
        let handler = stream.define(KERNEL + 0x100, NOP);
        Machine {
            stream,
            vmm,
            vmrun,
            after,
            clocks,
            guest,
            exiting,
            handler,
        }
    }

    /// One sample whose exit takes `work` instructions in the host.
    fn sample(&mut self, work: usize) {
        self.sample_for(Ok([0x72, work as u64, 0]), work);
    }

    /// The same, for this reason.
    fn sample_for(&mut self, reason: Result<[u64; 3], Unread>, work: usize) {
        let [c0, c1, c2, c3] = self.clocks;
        let run = &mut self.stream;
        run.execute(0, [self.guest, c0, self.guest, c1, self.guest, c2]);
        run.execute(0, [self.exiting]);
        run.exit(reason);
        run.execute(0, [self.after]);
        run.execute(0, std::iter::repeat_n(self.handler, work));
        run.execute(0, [self.vmrun, c3]);
    }
}

fn expected(samples: u32) -> Expected {
    Expected {
        run: 5,
        clocks: CLOCKS,
        samples,
    }
}

fn collect(stream: &[u8], expected: Vec<Expected>) -> Result<Trace, String> {
    let mut collector = Collector::new(expected);
    for piece in stream.chunks(11) {
        collector.push(piece)?;
    }
    collector.finish(&[5])
}

/// Three samples, the second one longer.
fn window(machine: &mut Machine) {
    machine.stream.start();
    machine.stream.execute(0, [machine.vmm, machine.vmrun]);
    for work in [3, 4, 3] {
        machine.sample(work);
    }
    machine
        .stream
        .execute(0, [machine.guest, machine.after, machine.vmm]);
    machine.stream.stop();
}

#[test]
fn a_window_is_cut_at_the_clock_reads_and_equal_segments_share_a_path() {
    let mut machine = Machine::new();
    window(&mut machine);
    let trace = collect(&machine.stream.bytes, vec![expected(3)]).expect("whole");
    let segments = &trace.windows[0].segments;
    assert_eq!(trace.windows[0].run, 5);
    assert_eq!(segments.len(), 13);
    let parts: Vec<Part> = segments.iter().map(|segment| segment.part).collect();
    let cycle = [Part::Between, Part::Empty, Part::Between, Part::Op];
    assert_eq!(parts[..12], [cycle, cycle, cycle].concat());
    assert_eq!(parts[12], Part::Between);
    let length = |at: usize| -> u32 {
        let path = &trace.paths[segments[at].path as usize];
        path.blocks.iter().map(|block| block.count).sum()
    };
    // Exiting instruction, the one behind VMRUN, the work, VMRUN, the clock.
    assert_eq!([length(3), length(7), length(11)], [7, 8, 7]);
    assert_eq!(segments[3].path, segments[11].path);
    assert_ne!(segments[3].path, segments[7].path);
    assert_eq!([length(0), length(1), length(12)], [4, 2, 3]);
}

#[test]
fn exits_are_in_the_segments_they_are_made_in_and_make_no_other_path() {
    let mut machine = Machine::new();
    machine.stream.start();
    machine.stream.execute(0, [machine.vmm, machine.vmrun]);
    machine.sample_for(Ok([0x72, 1, 2]), 3);
    machine.sample_for(Ok([0x7c, 1, 2]), 3);
    machine.stream.execute(0, [machine.guest]);
    machine.stream.exit(Ok([u64::MAX, 0, 0]));
    machine.stream.execute(0, [machine.after, machine.vmm]);
    machine.stream.stop();
    let trace = collect(&machine.stream.bytes, vec![expected(2)]).expect("whole");
    let exit = |segment, code, info1, info2| Exit {
        segment,
        code,
        info1,
        info2,
    };
    let exits = [
        exit(3, 0x72, 1, 2),
        exit(7, 0x7c, 1, 2),
        exit(8, u64::MAX, 0, 0),
    ];
    assert_eq!(trace.windows[0].exits.as_deref(), Some(&exits[..]));
    let segments = &trace.windows[0].segments;
    assert_eq!(segments[3].path, segments[7].path);
    // They go with their windows.
    let merged = merge(vec![trace.clone(), trace]);
    for window in &merged.windows {
        assert_eq!(window.exits.as_deref(), Some(&exits[..]));
    }
}

#[test]
fn one_exit_that_cannot_be_read_makes_all_unknown_and_says_why() {
    let mut machine = Machine::new();
    machine.stream.start();
    machine.stream.execute(0, [machine.vmm, machine.vmrun]);
    machine.sample_for(Ok([0x72, 0, 0]), 3);
    machine.sample_for(Err(Unread::Address), 3);
    machine.stream.execute(0, [machine.guest, machine.after]);
    machine.stream.stop();
    let mut collector = Collector::new(vec![expected(2)]);
    collector.push(&machine.stream.bytes).expect("whole");
    assert_eq!(collector.unread(), Some(Unread::Address.why()));
    let unknown = collector.finish(&[5]).expect("whole");
    assert_eq!(unknown.windows[0].exits, None);
    // So are those of other boots beside it.
    let mut machine = Machine::new();
    window(&mut machine);
    let known = collect(&machine.stream.bytes, vec![expected(3)]).expect("whole");
    assert!(known.knows_exits());
    let merged = merge(vec![known, unknown]);
    assert!(merged.windows.iter().all(|window| window.exits.is_none()));
}

#[test]
fn an_exit_outside_a_window_or_unread_for_no_known_reason_is_refused() {
    let mut stream = Stream::new();
    stream.exit(Ok([0x72, 0, 0]));
    let error = collect(&stream.bytes, vec![expected(1)]).expect_err("refused");
    assert!(error.contains("an exit outside a window"), "{error}");
    let mut stream = Stream::new();
    stream.start();
    stream.bytes.extend([7, 4]);
    let error = collect(&stream.bytes, vec![expected(1)]).expect_err("refused");
    assert!(error.contains("an exit unread for reason 4"), "{error}");
}

#[test]
fn nothing_half_made_is_taken_for_whole() {
    let mut machine = Machine::new();
    window(&mut machine);
    let bytes = &machine.stream.bytes;
    for cut in 0..bytes.len() {
        let error = collect(&bytes[..cut], vec![expected(3)]).expect_err("cut short");
        assert!(!error.is_empty());
    }
    for (wrong, what) in [
        (vec![expected(2)], "13 segments where the guest makes 9"),
        (vec![], "no guest read its clock"),
    ] {
        let error = collect(bytes, wrong).expect_err("another plan");
        assert!(error.contains(what), "{error}");
    }
    let mut collector = Collector::new(vec![expected(3)]);
    collector.push(bytes).expect("a whole stream");
    let error = collector
        .finish(&[5, 6])
        .expect_err("a run without a window");
    assert!(error.contains("window 1 of 2"), "{error}");
    let mut collector = Collector::new(vec![expected(3)]);
    collector.push(bytes).expect("a whole stream");
    let error = collector.finish(&[6]).expect_err("another run");
    assert!(error.contains("other runs"), "{error}");
    let nothing = collect(&Stream::new().bytes, vec![expected(1)]).expect_err("nothing");
    assert!(nothing.contains("never armed"), "{nothing}");
}

#[test]
fn a_guest_that_reads_its_clock_out_of_turn_is_refused() {
    let mut machine = Machine::new();
    machine.stream.start();
    let ids = [machine.vmrun, machine.clocks[0], machine.clocks[2]];
    machine.stream.execute(0, ids);
    machine.stream.stop();
    let error = collect(&machine.stream.bytes, vec![expected(1)]).expect_err("refused");
    assert!(error.contains("clock read 2"), "{error}");
}

#[test]
fn user_space_at_the_guests_addresses_is_no_guest() {
    let mut machine = Machine::new();
    machine.stream.start();
    // From the kernel to user space: no VMRUN, so no clock read of the guest.
    machine
        .stream
        .execute(0, [machine.handler, machine.clocks[0]]);
    machine.stream.stop();
    let error = collect(&machine.stream.bytes, vec![expected(0)]).expect_err("no guest");
    assert!(error.contains("no guest read its clock"), "{error}");
}

#[test]
fn another_cpu_may_have_been_in_its_guest_all_along() {
    let mut machine = Machine::new();
    machine.stream.start();
    machine.stream.execute(1, [machine.guest, machine.guest]);
    machine
        .stream
        .execute(0, [machine.vmm, machine.vmrun, machine.clocks[0]]);
    machine.stream.execute(1, [machine.guest, machine.after]);
    machine
        .stream
        .execute(0, machine.clocks[1..].iter().copied());
    machine.stream.stop();
    let trace = collect(&machine.stream.bytes, vec![expected(1)]).expect("whole");
    let empty = &trace.paths[trace.windows[0].segments[1].path as usize];
    let cpus: Vec<u32> = empty.blocks.iter().map(|block| block.cpu).collect();
    assert_eq!(cpus, [1, 1, 0]);
}

#[test]
fn merged_traces_do_not_depend_on_the_order_of_definitions() {
    let mut first = Machine::new();
    window(&mut first);
    // The same machine, whose code was translated in another order, with something never run.
    let mut second = Machine::new();
    second.stream = Stream::new();
    second.handler = second.stream.define(KERNEL + 0x100, NOP);
    second.stream.define(KERNEL + 0x200, NOP);
    second.exiting = second.stream.define(0x1_0028, &[0x0f, 0xa2]);
    second.guest = second.stream.define(0x1_0040, NOP);
    let mut clocks: Vec<u32> = CLOCKS
        .iter()
        .rev()
        .map(|&at| second.stream.define(at, RDTSC))
        .collect();
    clocks.reverse();
    second.clocks = clocks.try_into().expect("four");
    second.after = second.stream.define(KERNEL + 3, NOP);
    second.vmrun = second.stream.define(KERNEL, VMRUN);
    second.vmm = second.stream.define(0x40_0000, NOP);
    window(&mut second);
    let traces = [first, second]
        .map(|machine| collect(&machine.stream.bytes, vec![expected(3)]).expect("whole"));
    let [one, other] = traces.clone().map(|trace| merge(vec![trace]));
    assert_eq!(one, other);
    let both = merge(traces.to_vec());
    assert_eq!(both.paths, one.paths);
    assert_eq!(both.windows, [one.windows.clone(), one.windows].concat());
    assert!(both.instructions.is_sorted());
    assert!(
        !both
            .instructions
            .iter()
            .any(|i| i.address == KERNEL + 0x200)
    );
}
