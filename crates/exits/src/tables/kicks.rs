//! The table of kicks: [`KICKS`] are the kicks, the completions and the disks, [`SCALING`] one kick with more and
//! more ioeventfds registered. Adding one is an entry here, and its text in `arch/x86_64/kick_guest.rs` if it
//! needs one of its own.

use super::exits::{self, IO};
use crate::arch::kick_guest;
use crate::arch::program::Program;
use crate::layout::{DATAMATCH, mmio, port};
use crate::reasons::Reasons;
use crate::row::kick::{
    Consumer, Disks, Handler, IoThreads, Kick, LOST, MANY_STEP, Many, Part, Placement, Spread,
};
use crate::row::{Address, Group, Ioeventfd, Need, Row, row};

pub use crate::layout::delay::SLEEP_TICKS;
pub use crate::layout::disk::REQUESTS;

/// Most ioeventfds of a row.
pub const MOST_EVENTFDS: u32 = 4096;

const KICK: Kick = Kick {
    part: Part::Cost,
    how: "",
    at: Address::Pio(port::CONTROL),
    value: port::KICKED as u16,
    handler: Handler::Nothing,
    many: None,
    disks: None,
};

/// An ioeventfd for writes of this length and value.
const fn eventfd(at: Address, length: u8, datamatch: Option<u8>) -> Ioeventfd {
    Ioeventfd {
        at,
        length,
        datamatch,
    }
}

const PIO: Address = Address::Pio(port::TESTDEV_WILDCARD);
const PIO_MATCH: Address = Address::Pio(port::TESTDEV_DATAMATCH);
const MMIO: Address = Address::Mmio(mmio::TESTDEV_WILDCARD);
const MMIO_MATCH: Address = Address::Mmio(mmio::TESTDEV_DATAMATCH);

const WILDCARD_PIO: &[Ioeventfd] = &[eventfd(PIO, 2, None)];
const MATCH_PIO: &[Ioeventfd] = &[eventfd(PIO_MATCH, 2, Some(DATAMATCH))];
const WILDCARD_MMIO: &[Ioeventfd] = &[eventfd(MMIO, 2, None)];
const MATCH_MMIO: &[Ioeventfd] = &[eventfd(MMIO_MATCH, 2, Some(DATAMATCH))];
const ANY_MMIO: &[Ioeventfd] = &[eventfd(MMIO, 0, None)];

/// A port write, and the write that tells the APIC of the end of its interrupt.
const ANSWERED: Reasons = Reasons::new(&["io", "msr"], &["IO_INSTRUCTION", "MSR_WRITE"]);

const fn of_write(at: Address) -> Reasons {
    match at {
        Address::Pio(_) => IO,
        Address::Mmio(_) => exits::MMIO,
    }
}

/// A kick to an ioeventfd, as a row about its cost (`waited`: to a waiting consumer) or about its
/// consumer's waking up.
const fn to_eventfd(
    name: &'static str,
    how: &'static str,
    part: Part,
    ioeventfds: &'static [Ioeventfd],
) -> Row {
    let at = ioeventfds[0].at;
    let (code, operation): (fn() -> Program, _) = match (part, at) {
        (Part::Waited, Address::Pio(_)) => (
            kick_guest::kick_pio_waited::program as fn() -> Program,
            "2-byte port write to an ioeventfd that a thread waits for",
        ),
        (Part::Waited, Address::Mmio(_)) => (
            kick_guest::kick_mmio_waited::program as fn() -> Program,
            "2-byte MMIO write to an ioeventfd that a thread waits for",
        ),
        (Part::Wakeup, Address::Pio(_)) => (
            kick_guest::kick_pio_wakeup::program as fn() -> Program,
            "2-byte port write to an ioeventfd, until the thread that waits for it runs",
        ),
        (Part::Wakeup, Address::Mmio(_)) => (
            kick_guest::kick_mmio_wakeup::program as fn() -> Program,
            "2-byte MMIO write to an ioeventfd, until the thread that waits for it runs",
        ),
        (_, Address::Pio(_)) => (
            kick_guest::kick_pio::program as fn() -> Program,
            "2-byte port write to an ioeventfd that nobody waits for",
        ),
        (_, Address::Mmio(_)) => (
            kick_guest::kick_mmio::program as fn() -> Program,
            "2-byte MMIO write to an ioeventfd that nobody waits for",
        ),
    };
    let consumer = match part {
        Part::Waited | Part::Wakeup => Some(Consumer::at(Placement::Beside)),
        _ => None,
    };
    Row {
        consumer,
        // A vCPU that spins may be made to pause.
        exits: if matches!(part, Part::Wakeup) {
            (1.0, 1e3)
        } else {
            (1.0, 1.0)
        },
        kick: Some(Kick {
            part,
            how,
            at,
            value: DATAMATCH as u16,
            ..KICK
        }),
        ..row(Group::Kick, name, code, operation)
    }
    .eventfds(ioeventfds)
    .reasons(of_write(at))
}

/// A kick that the VMM answers.
const fn to_vmm(name: &'static str, how: &'static str, part: Part, mmio: bool) -> Row {
    let wakes = matches!(part, Part::Wakeup);
    let (code, operation): (fn() -> Program, _) = match (wakes, mmio) {
        (false, false) => (
            kick_guest::kick_pio::program as fn() -> Program,
            "2-byte port write that user space answers",
        ),
        (false, true) => (
            kick_guest::kick_mmio::program as fn() -> Program,
            "2-byte MMIO write that user space answers",
        ),
        (true, false) => (
            kick_guest::kick_pio_wakeup::program as fn() -> Program,
            "2-byte port write that user space answers, until its handler runs",
        ),
        (true, true) => (
            kick_guest::kick_mmio_wakeup::program as fn() -> Program,
            "2-byte MMIO write that user space answers, until its handler runs",
        ),
    };
    let at = if mmio {
        Address::Mmio(crate::layout::mmio::KICKED)
    } else {
        KICK.at
    };
    Row {
        kick: Some(Kick {
            part,
            how,
            at,
            handler: if wakes {
                Handler::Stamp
            } else {
                Handler::Nothing
            },
            ..KICK
        }),
        ..row(Group::Kick, name, code, operation)
    }
    .userspace()
    .reasons(of_write(at))
}

/// An interrupt as the answer to a port write.
const fn completion(
    name: &'static str,
    how: &'static str,
    operation: &'static str,
    handler: Handler,
) -> Row {
    let code = match handler {
        Handler::Interrupt => kick_guest::completion_without_apic::program as fn() -> Program,
        _ => kick_guest::completion::program as fn() -> Program,
    };
    let needs: &'static [Need] = match handler {
        Handler::Interrupt => &[],
        _ => &[Need::X2apic],
    };
    Row {
        exits: (1.0, 8.0),
        irqfd: matches!(handler, Handler::Irqfd),
        kick: Some(Kick {
            part: Part::Completion,
            how,
            handler,
            ..KICK
        }),
        ..row(Group::Kick, name, code, operation)
    }
    .userspace()
    .needs(needs)
    .reasons(match handler {
        // No APIC, so no write that tells it of the interrupt's end. Behind the entry that injects the
        // interrupt KVM wants the guest back at once: an IPI to its own CPU, or VMX's timer.
        Handler::Interrupt => Reasons::new(
            &["io", "interrupt"],
            &["IO_INSTRUCTION", "PREEMPTION_TIMER", "EXTERNAL_INTERRUPT"],
        ),
        _ => ANSWERED,
    })
    // An irqfd here is an ioeventfd's eventfd; nobody kicks that one.
    .eventfds(WILDCARD_PIO)
}

/// So many disks.
const fn disks(name: &'static str, count: u32, iothreads: IoThreads) -> Row {
    let code = match count {
        1 => kick_guest::disks_1::program as fn() -> Program,
        2 => kick_guest::disks_2::program as fn() -> Program,
        4 => kick_guest::disks_4::program as fn() -> Program,
        _ => kick_guest::disks_8::program as fn() -> Program,
    };
    Row {
        // Each request is a kick.
        exits: ((REQUESTS * count as u64) as f64, 1e9),
        interrupts: true,
        max_samples: 20,
        cpus: 1,
        kick: Some(Kick {
            part: Part::Disks,
            how: match iothreads {
                IoThreads::Shared => "shared",
                IoThreads::Each => "each",
            },
            at: Address::Pio(port::DOORBELL),
            value: 0,
            disks: Some(Disks {
                count,
                iothreads,
                completes: u64::MAX,
            }),
            ..KICK
        }),
        ..row(
            Group::Kick,
            name,
            code,
            "64 reads of 4 KiB on each disk, at most 8 under way on each, one kick each",
        )
        .reasons(ANSWERED)
    }
}

const STALLED: Row = disks("disk_stalled", 1, IoThreads::Each);

/// The kicks, completions and disks, in the order tables show them.
#[rustfmt::skip]
pub const KICKS: &[Row] = &[
    to_vmm("kick_pio_user", "PIO, user exit", Part::Cost, false),
    to_vmm("kick_mmio_user", "MMIO, user exit", Part::Cost, true),
    to_eventfd("kick_pio_wildcard", "PIO, ioeventfd wildcard", Part::Cost, WILDCARD_PIO),
    to_eventfd("kick_pio_datamatch", "PIO, ioeventfd datamatch", Part::Cost, MATCH_PIO),
    to_eventfd("kick_mmio_wildcard", "MMIO, ioeventfd wildcard", Part::Cost, WILDCARD_MMIO),
    to_eventfd("kick_mmio_datamatch", "MMIO, ioeventfd datamatch", Part::Cost, MATCH_MMIO),
    to_eventfd("kick_mmio_any", "MMIO, ioeventfd of length 0", Part::Cost, ANY_MMIO),

    to_eventfd("waited_pio_wildcard", "PIO, ioeventfd wildcard", Part::Waited, WILDCARD_PIO),
    to_eventfd("waited_pio_datamatch", "PIO, ioeventfd datamatch", Part::Waited, MATCH_PIO),
    to_eventfd("waited_mmio_wildcard", "MMIO, ioeventfd wildcard", Part::Waited, WILDCARD_MMIO),
    to_eventfd("waited_mmio_datamatch", "MMIO, ioeventfd datamatch", Part::Waited, MATCH_MMIO),
    to_eventfd("waited_mmio_any", "MMIO, ioeventfd of length 0", Part::Waited, ANY_MMIO),

    to_vmm("wakeup_pio_user", "PIO, user exit", Part::Wakeup, false),
    to_vmm("wakeup_mmio_user", "MMIO, user exit", Part::Wakeup, true),
    to_eventfd("wakeup_pio_wildcard", "PIO, ioeventfd wildcard", Part::Wakeup, WILDCARD_PIO),
    to_eventfd("wakeup_pio_datamatch", "PIO, ioeventfd datamatch", Part::Wakeup, MATCH_PIO),
    to_eventfd("wakeup_mmio_wildcard", "MMIO, ioeventfd wildcard", Part::Wakeup, WILDCARD_MMIO),
    to_eventfd("wakeup_mmio_datamatch", "MMIO, ioeventfd datamatch", Part::Wakeup, MATCH_MMIO),
    to_eventfd("wakeup_mmio_any", "MMIO, ioeventfd of length 0", Part::Wakeup, ANY_MMIO),

    Row { kick: Some(Kick { part: Part::Completion, how: "none", ..KICK }),
        ..row(Group::Kick, "complete_none", kick_guest::kick_pio::program, "port write that user space answers: nothing to wait for").userspace().reasons(IO) },
    Row { userspace_exits: (0.0, 0.0), irqfd: true,
        kick: Some(Kick { part: Part::Completion, how: "ioeventfd that is an irqfd", at: PIO, value: DATAMATCH as u16, ..KICK }),
        ..completion("complete_loopback", "", "port write to an ioeventfd that is an irqfd, until its interrupt is handled", Handler::Nothing) },
    completion("complete_irqfd", "irqfd", "port write on which user space signals an irqfd, until its interrupt is handled", Handler::Irqfd),
    completion("complete_irq_line", "KVM_IRQ_LINE", "port write on which user space raises and lowers a pin of the I/O APIC, until its interrupt is handled", Handler::IrqLine),
    completion("complete_signal_msi", "KVM_SIGNAL_MSI", "port write on which user space sends a message, until its interrupt is handled", Handler::SignalMsi),
    completion("complete_interrupt", "KVM_INTERRUPT", "port write on which user space injects an interrupt (no interrupt controllers in the kernel), until it is handled", Handler::Interrupt),

    disks("disks_1_shared", 1, IoThreads::Shared),
    disks("disks_2_shared", 2, IoThreads::Shared),
    disks("disks_4_shared", 4, IoThreads::Shared),
    disks("disks_8_shared", 8, IoThreads::Shared),
    disks("disks_1_each", 1, IoThreads::Each),
    disks("disks_2_each", 2, IoThreads::Each),
    disks("disks_4_each", 4, IoThreads::Each),
    disks("disks_8_each", 8, IoThreads::Each),

    // Three that go wrong on purpose.
    Row { consumer: Some(Consumer { placement: Placement::Beside, takes: 0 }),
        kick: Some(Kick { part: Part::Check, how: LOST, at: PIO, ..KICK }),
        ..to_eventfd("kick_lost", "", Part::Wakeup, WILDCARD_PIO) },
    Row { consumer: Some(Consumer { placement: Placement::Beside, takes: 40 }),
        kick: Some(Kick { part: Part::Check, how: "behind", at: PIO, ..KICK }),
        ..to_eventfd("kick_behind", "", Part::Cost, WILDCARD_PIO) },
    Row { kick: Some(Kick { part: Part::Check, how: "stalled", at: Address::Pio(port::DOORBELL), value: 0,
            disks: Some(Disks { count: 1, iothreads: IoThreads::Each, completes: 100 }), ..KICK }), ..STALLED },
];

macro_rules! scaling {
    ($($count:literal)+) => {
        /// One kick with more and more ioeventfds registered, in the order tables show them.
        pub const SCALING: &[Row] = &[
            $(many(concat!("ioeventfds_pio_", $count), Spread::Pio, $count),)+
            $(many(concat!("ioeventfds_mmio_", $count), Spread::Mmio, $count),)+
            $(many(concat!("ioeventfds_datamatch_", $count), Spread::Datamatch, $count),)+
        ];
    };
}

const fn many(name: &'static str, spread: Spread, count: u32) -> Row {
    let (how, code, operation): (_, fn() -> Program, _) = match spread {
        Spread::Pio => (
            "PIO, an address each",
            kick_guest::kick_pio::program as fn() -> Program,
            "2-byte port write to the last of many ioeventfds, each at a port of its own",
        ),
        Spread::Mmio => (
            "MMIO, an address each",
            kick_guest::kick_mmio::program as fn() -> Program,
            "2-byte MMIO write to the last of many ioeventfds, each at an address of its own",
        ),
        Spread::Datamatch => (
            "PIO, one address, a value each",
            kick_guest::kick_pio::program as fn() -> Program,
            "2-byte port write to the last of many ioeventfds at one port, each for a value of its own",
        ),
    };
    let last = count - 1;
    let (at, value) = match spread {
        Spread::Pio => (Address::Pio(port::MANY + (last * MANY_STEP) as u16), 0),
        Spread::Mmio => (Address::Mmio(mmio::MANY + (last * MANY_STEP) as u64), 0),
        Spread::Datamatch => (Address::Pio(port::MANY), last as u16),
    };
    Row {
        kick: Some(Kick {
            part: Part::Scaling,
            how,
            at,
            value,
            many: Some(Many { spread, count }),
            ..KICK
        }),
        ..row(Group::Kick, name, code, operation)
    }
    .reasons(of_write(at))
}

scaling! { 1 2 4 8 16 32 64 128 256 512 1024 2048 4096 }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::disk;

    #[test]
    fn the_last_of_many_is_kicked_and_no_two_are_the_same() {
        for row in SCALING {
            let kick = row.kick.expect("a kick");
            let many = kick.many.expect("many");
            assert_eq!(
                row.name.rsplit('_').next(),
                Some(many.count.to_string().as_str())
            );
            let (at, datamatch) = many.ioeventfd(many.count - 1);
            assert_eq!(
                (at, datamatch.unwrap_or(0)),
                (kick.at, u64::from(kick.value)),
                "{}",
                row.name
            );
            let mut all: Vec<_> = (0..many.count)
                .map(|index| match many.ioeventfd(index) {
                    (Address::Pio(port), value) => (u64::from(port), value),
                    (Address::Mmio(at), value) => (at, value),
                })
                .collect();
            all.dedup();
            assert_eq!(all.len() as u32, many.count, "{}", row.name);
        }
    }

    #[test]
    fn no_address_of_many_belongs_to_anything_else() {
        let last = (MOST_EVENTFDS - 1) * MANY_STEP;
        let ports = u32::from(port::MANY)..=u32::from(port::MANY) + last;
        for other in [
            port::CONTROL,
            port::TESTDEV_PLAIN,
            port::LOCKED,
            port::DOORBELL,
            port::ELCR,
        ] {
            assert!(!ports.contains(&u32::from(other)));
        }
        assert!(mmio::MANY + u64::from(last) < crate::layout::APIC);
        const { assert!(mmio::MANY > mmio::KICKED) };
    }

    #[test]
    fn disks_fit_where_they_are_put() {
        use crate::layout::{SCRATCH, SCRATCH_SIZE};
        const { assert!(disk::DEPTH.is_power_of_two() && disk::BLOCKS.is_power_of_two()) };
        const { assert!(disk::RING + disk::DEPTH * disk::ENTRY_SIZE <= disk::QUEUE_SIZE) };
        const { assert!(disk::DEPTH * disk::REQUEST <= disk::BUFFERS_SIZE) };
        let most = u64::from(disk::MOST);
        assert!(disk::QUEUES + most * disk::QUEUE_SIZE <= disk::BUFFERS);
        assert!(disk::BUFFERS + most * disk::BUFFERS_SIZE <= SCRATCH + SCRATCH_SIZE);
        // A whole number of requests fills the ring anew: verification looks at all of it.
        const { assert!(REQUESTS >= disk::DEPTH) };
    }

    #[test]
    fn rows_of_one_part_have_ways_of_their_own() {
        for (i, row) in KICKS.iter().enumerate() {
            let kick = row.kick.expect("a kick");
            assert!(kick.disks.is_none_or(|disks| disks.count <= disk::MOST));
            for other in &KICKS[..i] {
                let other = other.kick.expect("a kick");
                let same = kick.disks.is_none() && (kick.part, kick.how) == (other.part, other.how);
                assert!(!same, "{}", row.name);
            }
        }
    }
}
