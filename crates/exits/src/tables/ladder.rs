//! The ladder of `exitpath userspace`: one user exit, with layers of a VMM's user-space path switched on. Adding
//! a rung is an entry here; one with a layer of its own also needs that in `row/rung.rs` and in the VMM.

use super::exits::IO;
use crate::arch::guest;
use crate::layout::port;
use crate::row::kick::{Consumer, Placement};
use crate::row::rung::{
    ALL_ON, BARE, Call, Dispatch, Extra, Layers, Lock, Mirror, Registers, Rung, Signal, Thread,
};
use crate::row::{Address, Group, Ioeventfd, Need, Row, row};

/// Most samples of a rung each exit of which waits for RCU, some milliseconds.
pub const WAITING_SAMPLES: u32 = 20;
/// Name of the rung without layers.
pub const BARE_RUNG: &str = "bare";
/// Name of the rung with all of them.
pub const ALL_ON_RUNG: &str = "all_on";
/// The rungs of which [`ALL_ON`] is made: one for each of its layers.
pub const PARTS: [&str; 6] = [
    "kvm_ioctls",
    "signal_mask",
    "regs_sregs_xsave",
    "mirror_fields",
    "tree_by_path",
    "lock_global",
];
/// Objects of the tree: as many as QEMU 7.2's machine `pc` has with its default devices (`info
/// qom-tree`). The text of the rungs says it, too.
pub const TREE_OBJECTS: usize = 274;
/// Rounds of the device's work in the rows about several vCPUs and a lock.
pub const LOCKED_WORK: u32 = 100;
/// How many times as many samples these rows take as others: a phase has to be longer than the time slices
/// of vCPUs that share a CPU.
pub const LOCKED_SAMPLES: u32 = 16;

/// A port write that this VMM answers, with these layers.
const fn user(
    name: &'static str,
    operation: &'static str,
    layers: Layers,
    reference: &'static str,
) -> Row {
    let needs: &[Need] = match layers.registers {
        Registers::SyncOut | Registers::SyncBoth => &[Need::SyncRegs],
        _ => &[],
    };
    Row {
        needs,
        rung: Some(Rung {
            layers,
            reference: Some(reference),
        }),
        ..row(Group::Rung, name, guest::pio_user_write::program, operation)
            .userspace()
            .reasons(IO)
    }
}

/// A port write to an ioeventfd.
const KICKED: Row = row(
    Group::Rung,
    "light_kick",
    guest::pci_io_wildcard_eventfd::program,
    "port write to an ioeventfd that nobody waits for",
)
.eventfds(&[Ioeventfd {
    at: Address::Pio(port::TESTDEV_WILDCARD),
    length: 1,
    datamatch: None,
}])
.reasons(IO);

/// Port writes of several vCPUs at once, each to a device of its own.
const fn locked(name: &'static str, lock: Lock, vcpus: u8) -> Row {
    Row {
        vcpus,
        // What the other vCPUs exit for goes by time.
        exits: if vcpus > 1 { (0.0, 1e9) } else { (1.0, 1.0) },
        // The first vCPU's.
        userspace_exits: (1.0, 1.0),
        rung: Some(Rung {
            layers: Layers {
                lock,
                work: LOCKED_WORK,
                ..BARE
            },
            reference: None,
        }),
        ..row(
            Group::Rung,
            name,
            guest::locked_write::program,
            "port write, while the other vCPUs do the same to other devices",
        )
        .reasons(IO)
    }
}

/// The rungs, in the order tables show them; those of several vCPUs last.
#[rustfmt::skip]
pub const RUNGS: &[Row] = &[
    Row { rung: Some(Rung { layers: BARE, reference: None }),
        ..row(Group::Rung, "floor", guest::outl_to_kernel::program, "port write that the kernel answers: no exit to user space").reasons(IO) },
    user(BARE_RUNG, "port write that user space answers; KVM_RUN by SYSCALL, nothing else", BARE, "floor"),
    user("syscall", "with a further system call (getppid)", Layers { extra: Extra::Syscall, ..BARE }, BARE_RUNG),
    user("refused_ioctl", "with an ioctl that KVM refuses at once", Layers { extra: Extra::RefusedIoctl, ..BARE }, BARE_RUNG),
    user("immediate_exit", "with a further KVM_RUN that does not enter the guest", Layers { extra: Extra::ImmediateExit, ..BARE }, BARE_RUNG),
    user("libc", "KVM_RUN by libc's ioctl", Layers { call: Call::Libc, ..BARE }, BARE_RUNG),
    user("kvm_ioctls", "KVM_RUN by kvm-ioctls", Layers { call: Call::KvmIoctls, ..BARE }, BARE_RUNG),
    user("signal_mask", "with KVM_SET_SIGNAL_MASK", Layers { signal: Signal::Mask, ..BARE }, BARE_RUNG),
    user("signal_immediate_exit", "with immediate_exit in place of the signal mask, which a signal's handler sets", Layers { signal: Signal::ImmediateExit, ..BARE }, BARE_RUNG),
    user("regs", "with KVM_GET_REGS and KVM_SET_REGS", Layers { registers: Registers::General, ..BARE }, BARE_RUNG),
    user("regs_sregs", "also KVM_GET_SREGS and KVM_SET_SREGS", Layers { registers: Registers::Special, ..BARE }, BARE_RUNG),
    user("regs_sregs_xsave", "also KVM_GET_XSAVE and KVM_SET_XSAVE", Layers { registers: Registers::Full, ..BARE }, BARE_RUNG),
    user("sync_out", "general registers by kvm_run, on the way out", Layers { registers: Registers::SyncOut, ..BARE }, BARE_RUNG),
    user("sync_in", "and on the way in", Layers { registers: Registers::SyncBoth, ..BARE }, "sync_out"),
    user("mirror_fields", "and a copy of them, field by field, both ways", Layers { registers: Registers::SyncBoth, mirror: Mirror::Fields, ..BARE }, "sync_in"),
    user("mirror_block", "and a copy of them, as one block, both ways", Layers { registers: Registers::SyncBoth, mirror: Mirror::Block, ..BARE }, "sync_in"),
    user("accessor", "and one of them read in place", Layers { registers: Registers::SyncBoth, mirror: Mirror::Accessor, ..BARE }, "sync_in"),
    user("interval_map", "device found in a map of 64 port ranges", Layers { dispatch: Dispatch::IntervalMap, ..BARE }, BARE_RUNG),
    user("tree_by_path", "device found by its path in a tree of 274 objects", Layers { dispatch: Dispatch::TreeByPath, ..BARE }, BARE_RUNG),
    user("tree_by_type", "device found by its type among all 274 objects", Layers { dispatch: Dispatch::TreeByType, ..BARE }, BARE_RUNG),
    user("tree_once", "device of the tree, found once", Layers { dispatch: Dispatch::TreeOnce, ..BARE }, BARE_RUNG),
    user("lock_global", "with one lock around the device model, uncontended", Layers { lock: Lock::Global, ..BARE }, BARE_RUNG),
    user("lock_device", "with one lock for each device, uncontended", Layers { lock: Lock::PerDevice, ..BARE }, BARE_RUNG),
    user("affinity", "its thread told to stay on its CPU", Layers { thread: Thread::Told, ..BARE }, BARE_RUNG),
    Row { cpus: 2, rung: Some(Rung { layers: Layers { thread: Thread::Told, ..BARE }, reference: None }),
        ..user("affinity_of_two", "the same on a machine of two CPUs or more", BARE, BARE_RUNG) },
    Row { cpus: 2, ..user("moved", "its thread moved to another CPU", Layers { thread: Thread::Moved, ..BARE }, "affinity_of_two") },
    user("handed_over", "KVM_RUN called by another thread than exits are handled by, always the same one", Layers { thread: Thread::HandedOver { callers: 1 }, ..BARE }, BARE_RUNG),
    Row { max_samples: WAITING_SAMPLES,
        ..user("other_thread", "KVM_RUN called by another thread than last time: by two such threads in turn", Layers { thread: Thread::HandedOver { callers: 2 }, ..BARE }, "handed_over") },
    Row { rung: Some(Rung { layers: BARE, reference: None }), ..KICKED },
    Row { name: "preempted", operation: "port write to an ioeventfd whose reader takes the CPU over", exits: (1.0, 3.0),
        consumer: Some(Consumer::at(Placement::SameCpu)),
        rung: Some(Rung { layers: Layers { thread: Thread::Preempted, ..BARE }, reference: Some("light_kick") }), ..KICKED },
    user(ALL_ON_RUNG, "kvm-ioctls, signal mask, all registers, their mirror, tree by path, global lock", ALL_ON, BARE_RUNG),
    user("all_but_call", "all but kvm-ioctls", Layers { call: Call::Syscall, ..ALL_ON }, ALL_ON_RUNG),
    user("all_but_signal", "all but the signal mask", Layers { signal: Signal::None, ..ALL_ON }, ALL_ON_RUNG),
    user("all_but_registers", "all but the registers (the mirror is still copied)", Layers { registers: Registers::None, ..ALL_ON }, ALL_ON_RUNG),
    user("all_but_mirror", "all but the mirror", Layers { mirror: Mirror::None, ..ALL_ON }, ALL_ON_RUNG),
    user("all_but_tree", "all but the tree", Layers { dispatch: Dispatch::Direct, ..ALL_ON }, ALL_ON_RUNG),
    user("all_but_lock", "all but the lock", Layers { lock: Lock::None, ..ALL_ON }, ALL_ON_RUNG),
    locked("locking_none_1", Lock::None, 1),
    locked("locking_none_2", Lock::None, 2),
    locked("locking_none_4", Lock::None, 4),
    locked("locking_none_8", Lock::None, 8),
    locked("locking_global_1", Lock::Global, 1),
    locked("locking_global_2", Lock::Global, 2),
    locked("locking_global_4", Lock::Global, 4),
    locked("locking_global_8", Lock::Global, 8),
    locked("locking_device_1", Lock::PerDevice, 1),
    locked("locking_device_2", Lock::PerDevice, 2),
    locked("locking_device_4", Lock::PerDevice, 4),
    locked("locking_device_8", Lock::PerDevice, 8),
];

/// Whether a row is about several vCPUs and a lock rather than about one layer.
pub fn is_locking(row: &Row) -> bool {
    row.rung.is_some_and(|rung| rung.layers.work > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_differs_from_its_reference() {
        for row in RUNGS {
            let rung = row.rung.expect("every rung has layers");
            let Some(reference) = rung.reference else {
                continue;
            };
            let reference = RUNGS.iter().find(|row| row.name == reference);
            let reference = reference.expect("the reference is a rung");
            let layers = reference.rung.expect("every rung has layers").layers;
            assert!(
                layers != rung.layers || reference.name == "floor",
                "{} is like {}",
                row.name,
                reference.name
            );
        }
    }

    #[test]
    fn all_on_is_made_of_its_parts() {
        let mut names = Vec::new();
        for part in PARTS {
            let row = RUNGS.iter().find(|row| row.name == part).expect("a rung");
            names.extend(row.rung.expect("layers").layers.names());
        }
        for layer in ALL_ON.names() {
            assert!(names.contains(&layer), "{layer}");
        }
    }
}
