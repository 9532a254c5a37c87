//! What a row is about notifications: a guest tells a device, a device tells a guest. What the VMM has to do
//! for it is its [`Kick`].

use super::bus::Address;
use crate::layout::{mmio, port};

/// Ticks between addresses of the rows about many ioeventfds.
pub(crate) const MANY_STEP: u32 = 4;
/// Word for the way of notifying of the check whose consumer never runs.
pub(crate) const LOST: &str = "lost";

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
