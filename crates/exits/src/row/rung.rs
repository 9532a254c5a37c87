//! What the VMM does on each exit, as plain data: the `vmm` crate does it. What a layer costs is a rung's value
//! less that of its reference, which differs in that layer only.

/// How the VMM calls `KVM_RUN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// By the SYSCALL instruction, in line.
    Syscall,
    /// By libc's `ioctl`.
    Libc,
    /// By kvm-ioctls' `VcpuFd::run`, which sorts exits into an enum.
    KvmIoctls,
}

/// A further call on each exit, to see what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// None.
    None,
    /// `getppid`: into the kernel and back.
    Syscall,
    /// An ioctl on the vCPU that KVM refuses by its type, before it takes the vCPU's mutex.
    RefusedIoctl,
    /// `KVM_RUN` with `immediate_exit` set: the ioctl, vcpu_load and vcpu_put, and no guest entry.
    ImmediateExit,
}

/// How a signal can interrupt `KVM_RUN` without being lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Not at all: who sends it repeats it.
    None,
    /// `KVM_SET_SIGNAL_MASK`: blocked outside of `KVM_RUN`.
    Mask,
    /// `immediate_exit`: a request is looked for before `KVM_RUN` and made known to KVM.
    ImmediateExit,
}

/// Which registers the VMM fetches after an exit and puts back before the next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registers {
    /// None.
    None,
    /// `KVM_GET_REGS` and `KVM_SET_REGS`.
    General,
    /// Also `KVM_GET_SREGS` and `KVM_SET_SREGS`.
    Special,
    /// Also `KVM_GET_XSAVE` and `KVM_SET_XSAVE`.
    Full,
    /// General registers by `kvm_run` on the way out (`kvm_valid_regs`).
    SyncOut,
    /// The same, and by `kvm_run` on the way in (`kvm_dirty_regs`).
    SyncBoth,
}

/// What the VMM does with registers it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirror {
    /// Nothing.
    None,
    /// Copies them to a structure of its own in another order and back, field by field.
    Fields,
    /// Copies them to a structure of its own and back, as one block.
    Block,
    /// Reads the one it needs where KVM has put it.
    Accessor,
}

/// How the device behind the port is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    /// The port is compared with the device's.
    Direct,
    /// A sorted map of port ranges.
    IntervalMap,
    /// An object of a tree, found by its path on each exit, its type checked.
    TreeByPath,
    /// An object of a tree, found by its type among all objects on each exit.
    TreeByType,
    /// An object of a tree, found once.
    TreeOnce,
}

/// What keeps vCPUs apart in the device model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Nothing.
    None,
    /// One lock, from the return of `KVM_RUN` to the next call.
    Global,
    /// One lock for each device, around its own work.
    PerDevice,
}

impl Lock {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Lock::None => "none",
            Lock::Global => "global",
            Lock::PerDevice => "device",
        }
    }
}

/// What becomes of the vCPU's thread on each exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// Nothing.
    Still,
    /// It is told to run on the CPU it runs on (`sched_setaffinity`).
    Told,
    /// It is told to run on another CPU.
    Moved,
    /// The eventfd that KVM signals wakes a thread of higher priority on the same CPU, while KVM
    /// handles the exit.
    Preempted,
    /// It handles exits only: other threads on its CPU call `KVM_RUN` for it, each in its turn.
    HandedOver {
        /// How many such threads.
        callers: usize,
    },
}

/// What the VMM does on each exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    /// How it calls `KVM_RUN`.
    pub call: Call,
    /// What else it calls.
    pub extra: Extra,
    /// How it can be interrupted.
    pub signal: Signal,
    /// Which registers it synchronises.
    pub registers: Registers,
    /// What it does with them.
    pub mirror: Mirror,
    /// How it finds the device.
    pub dispatch: Dispatch,
    /// What it locks.
    pub lock: Lock,
    /// What becomes of its thread.
    pub thread: Thread,
    /// Rounds of work the device does, some ten instructions each.
    pub work: u32,
}

/// Nothing but what an exit needs.
pub const BARE: Layers = Layers {
    call: Call::Syscall,
    extra: Extra::None,
    signal: Signal::None,
    registers: Registers::None,
    mirror: Mirror::None,
    dispatch: Dispatch::Direct,
    lock: Lock::None,
    thread: Thread::Still,
    work: 0,
};

/// One layer of each kind, as VMMs have had them for every exit. (A device found by its type would
/// be nearly all of the sum.)
pub const ALL_ON: Layers = Layers {
    call: Call::KvmIoctls,
    signal: Signal::Mask,
    registers: Registers::Full,
    mirror: Mirror::Fields,
    dispatch: Dispatch::TreeByPath,
    lock: Lock::Global,
    ..BARE
};

/// A row's place on the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// What the VMM does.
    pub layers: Layers,
    /// The rung it is compared with; `None` where it stands for itself.
    pub reference: Option<&'static str>,
}

impl Layers {
    /// What is not as in [`BARE`], one word each.
    pub fn names(&self) -> Vec<&'static str> {
        let call = match self.call {
            Call::Syscall => None,
            Call::Libc => Some("libc"),
            Call::KvmIoctls => Some("kvm-ioctls"),
        };
        let extra = match self.extra {
            Extra::None => None,
            Extra::Syscall => Some("getppid"),
            Extra::RefusedIoctl => Some("refused-ioctl"),
            Extra::ImmediateExit => Some("kvm-run-immediate-exit"),
        };
        let signal = match self.signal {
            Signal::None => None,
            Signal::Mask => Some("signal-mask"),
            Signal::ImmediateExit => Some("immediate-exit"),
        };
        let registers = match self.registers {
            Registers::None => None,
            Registers::General => Some("regs"),
            Registers::Special => Some("regs+sregs"),
            Registers::Full => Some("regs+sregs+xsave"),
            Registers::SyncOut => Some("sync-regs-out"),
            Registers::SyncBoth => Some("sync-regs"),
        };
        let mirror = match self.mirror {
            Mirror::None => None,
            Mirror::Fields => Some("mirror-by-field"),
            Mirror::Block => Some("mirror-as-block"),
            Mirror::Accessor => Some("accessor"),
        };
        let dispatch = match self.dispatch {
            Dispatch::Direct => None,
            Dispatch::IntervalMap => Some("interval-map"),
            Dispatch::TreeByPath => Some("tree-by-path"),
            Dispatch::TreeByType => Some("tree-by-type"),
            Dispatch::TreeOnce => Some("tree-once"),
        };
        let lock = match self.lock {
            Lock::None => None,
            Lock::Global => Some("global-lock"),
            Lock::PerDevice => Some("device-lock"),
        };
        let thread = match self.thread {
            Thread::Still => None,
            Thread::Told => Some("affinity-same"),
            Thread::Moved => Some("affinity-other"),
            Thread::Preempted => Some("preempted"),
            Thread::HandedOver { callers: 1 } => Some("caller-thread"),
            Thread::HandedOver { .. } => Some("caller-threads-in-turn"),
        };
        [
            call, extra, signal, registers, mirror, dispatch, lock, thread,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
