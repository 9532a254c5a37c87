//! The notifications of `exitpath kick`: a guest tells a device, a device tells a guest.
//!
//! [`KICKS`] are the kicks, the completions and the disks, [`SCALING`] one kick with more and more
//! ioeventfds registered. What a row is part of, and what the VMM has to do for it, is its [`Kick`].

mod guest;

use crate::catalogue::{self, Address, Group, IO, Ioeventfd, Need, Row, row};
use crate::layout::{DATAMATCH, mmio, port};
use crate::reasons::Reasons;

/// Wait before each operation that has a consumer, in ticks, so that it sleeps.
pub const SLEEP_TICKS: u64 = 20_000;
/// Requests that one operation of the rows about disks makes on each disk.
pub const REQUESTS: u64 = 64;
/// Ticks between addresses of the rows about many ioeventfds.
const MANY_STEP: u32 = 4;
/// Most ioeventfds of a row.
pub const MOST_EVENTFDS: u32 = 4096;

/// Where the thread runs that waits for an ioeventfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On another CPU than the vCPU; where there is no other, as [`Placement::SameCpu`].
    Beside,
    /// On the vCPU's CPU, with SCHED_FIFO, so that it takes the CPU over when it is woken.
    SameCpu,
}

/// A thread that waits in `read` for the first ioeventfd's eventfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumer {
    /// Where it runs.
    pub placement: Placement,
    /// Kicks after which it takes no more, for the check that this is noticed; 0 takes none.
    pub takes: u64,
}

impl Consumer {
    /// One that takes every kick.
    pub const fn at(placement: Placement) -> Consumer {
        Consumer {
            placement,
            takes: u64::MAX,
        }
    }
}

/// What the VMM does when the guest writes [`port::KICKED`] to the control port (or to
/// [`mmio::KICKED`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// Nothing: back to the guest.
    Nothing,
    /// It reads the clock, as a consumer would.
    Stamp,
    /// It signals the first ioeventfd's eventfd, which is an irqfd.
    Irqfd,
    /// `KVM_IRQ_LINE`, up and down, of a pin of the I/O APIC in the kernel.
    IrqLine,
    /// `KVM_SIGNAL_MSI`.
    SignalMsi,
    /// `KVM_INTERRUPT`, in a VM without interrupt controllers in the kernel.
    Interrupt,
}

/// Which of `exitpath kick`'s tables a row is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What a kick costs the guest, nobody waiting.
    Cost,
    /// What it costs while a consumer waits.
    Waited,
    /// From the kick until the consumer runs.
    Wakeup,
    /// What it costs with so many ioeventfds.
    Scaling,
    /// Requests to disks.
    Disks,
    /// From the device to the guest.
    Completion,
    /// Only there to go wrong.
    Check,
}

/// Where many ioeventfds are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Each at a port of its own.
    Pio,
    /// Each at an address of its own.
    Mmio,
    /// All at one port, each for a value of its own.
    Datamatch,
}

/// Many ioeventfds, of which the last is kicked: it has the highest address or value and was
/// registered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Many {
    /// Where they are.
    pub spread: Spread,
    /// How many.
    pub count: u32,
}

impl Many {
    /// Address and value to match of the ioeventfd at this position, from 0; all are for writes of
    /// two bytes.
    pub fn ioeventfd(self, index: u32) -> (Address, Option<u64>) {
        let offset = index * MANY_STEP;
        match self.spread {
            Spread::Pio => (Address::Pio(port::MANY + offset as u16), None),
            Spread::Mmio => (Address::Mmio(mmio::MANY + u64::from(offset)), None),
            Spread::Datamatch => (Address::Pio(port::MANY), Some(u64::from(index))),
        }
    }
}

/// How many I/O threads serve several disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoThreads {
    /// One for all.
    Shared,
    /// One for each.
    Each,
}

/// Disks, each with a queue ([`disk`]) and an ioeventfd at a port of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disks {
    /// How many.
    pub count: u32,
    /// Who serves them.
    pub iothreads: IoThreads,
    /// Requests after which an I/O thread completes no more, for the check that this is noticed.
    pub completes: u64,
}

/// A row's part in `exitpath kick`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kick {
    /// The table.
    pub part: Part,
    /// The way of notifying, in the table's words.
    pub how: &'static str,
    /// Where the guest writes.
    pub at: Address,
    /// What.
    pub value: u16,
    /// What the VMM does with a kick that reaches it.
    pub handler: Handler,
    /// Ioeventfds besides the row's own.
    pub many: Option<Many>,
    /// Disks.
    pub disks: Option<Disks>,
}

impl Kick {
    /// Whether an operation ends only when its consumer has run.
    pub fn waits_in_operation(&self) -> bool {
        self.part == Part::Wakeup || (self.part == Part::Check && self.how == LOST)
    }

    /// Whether the guest takes a time from the host's clock, so that its own has to be the same.
    pub fn shares_clock(&self) -> bool {
        self.part == Part::Wakeup
    }

    /// Whether a run makes sense of operations in batches: not where each must be waited for.
    pub fn has_batches(&self) -> bool {
        matches!(self.part, Part::Cost | Part::Scaling | Part::Completion)
    }
}

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
        Address::Mmio(_) => catalogue::MMIO,
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
    let (code, operation): (fn() -> crate::Program, _) = match (part, at) {
        (Part::Waited, Address::Pio(_)) => (
            guest::kick_pio_waited::program as fn() -> crate::Program,
            "2-byte port write to an ioeventfd that a thread waits for",
        ),
        (Part::Waited, Address::Mmio(_)) => (
            guest::kick_mmio_waited::program as fn() -> crate::Program,
            "2-byte MMIO write to an ioeventfd that a thread waits for",
        ),
        (Part::Wakeup, Address::Pio(_)) => (
            guest::kick_pio_wakeup::program as fn() -> crate::Program,
            "2-byte port write to an ioeventfd, until the thread that waits for it runs",
        ),
        (Part::Wakeup, Address::Mmio(_)) => (
            guest::kick_mmio_wakeup::program as fn() -> crate::Program,
            "2-byte MMIO write to an ioeventfd, until the thread that waits for it runs",
        ),
        (_, Address::Pio(_)) => (
            guest::kick_pio::program as fn() -> crate::Program,
            "2-byte port write to an ioeventfd that nobody waits for",
        ),
        (_, Address::Mmio(_)) => (
            guest::kick_mmio::program as fn() -> crate::Program,
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
    let (code, operation): (fn() -> crate::Program, _) = match (wakes, mmio) {
        (false, false) => (
            guest::kick_pio::program as fn() -> crate::Program,
            "2-byte port write that user space answers",
        ),
        (false, true) => (
            guest::kick_mmio::program as fn() -> crate::Program,
            "2-byte MMIO write that user space answers",
        ),
        (true, false) => (
            guest::kick_pio_wakeup::program as fn() -> crate::Program,
            "2-byte port write that user space answers, until its handler runs",
        ),
        (true, true) => (
            guest::kick_mmio_wakeup::program as fn() -> crate::Program,
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
        Handler::Interrupt => guest::completion_without_apic::program as fn() -> crate::Program,
        _ => guest::completion::program as fn() -> crate::Program,
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
        1 => guest::disks_1::program as fn() -> crate::Program,
        2 => guest::disks_2::program as fn() -> crate::Program,
        4 => guest::disks_4::program as fn() -> crate::Program,
        _ => guest::disks_8::program as fn() -> crate::Program,
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

/// The check whose consumer never runs.
const LOST: &str = "lost";

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
        ..row(Group::Kick, "complete_none", guest::kick_pio::program, "port write that user space answers: nothing to wait for").userspace().reasons(IO) },
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
    let (how, code, operation): (_, fn() -> crate::Program, _) = match spread {
        Spread::Pio => (
            "PIO, an address each",
            guest::kick_pio::program as fn() -> crate::Program,
            "2-byte port write to the last of many ioeventfds, each at a port of its own",
        ),
        Spread::Mmio => (
            "MMIO, an address each",
            guest::kick_mmio::program as fn() -> crate::Program,
            "2-byte MMIO write to the last of many ioeventfds, each at an address of its own",
        ),
        Spread::Datamatch => (
            "PIO, one address, a value each",
            guest::kick_pio::program as fn() -> crate::Program,
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
