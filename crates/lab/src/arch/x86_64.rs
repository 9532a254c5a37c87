//! x86-64 with SVM, as QEMU emulates it.

/// The architecture, as recordings name it (`uname -m`).
pub const NAME: &str = "x86_64";
/// KVM's module for a CPU with SVM. Those that it depends on come with it.
pub const KVM_MODULE: &str = "kvm_amd";
/// Modules of a lab that shares this machine's root file system.
pub(crate) const SHARED_ROOT_MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// The modules that an exit passes through, below a release's `kernel` or a tree that was built.
pub(crate) const TRACED_MODULES: [&str; 4] = [
    "arch/x86/kvm/kvm.ko",
    "arch/x86/kvm/kvm-amd.ko",
    "virt/lib/irqbypass.ko",
    "drivers/crypto/ccp/ccp.ko",
];

/// VMRUN: the instruction behind which a CPU is in its guest.
const VMRUN: [u8; 3] = [0x0f, 0x01, 0xd8];
/// RDTSC: how the guest reads its clock.
const RDTSC: [u8; 2] = [0x0f, 0x31];
/// Guests execute below this address, and user space of the lab above it.
const GUEST_END: u64 = exitpath_exits::layout::CODE_END;

/// Whether this instruction enters the guest.
pub(crate) fn enters_guest(instruction: &[u8]) -> bool {
    instruction == VMRUN
}

/// Whether this instruction of a guest reads the clock.
pub(crate) fn reads_clock(instruction: &[u8]) -> bool {
    instruction == RDTSC
}

/// Whether a CPU that was in its guest is still there, at the next instruction it executes: the host goes
/// on in the kernel, at addresses whose highest bit is set.
pub(crate) fn stays_in_guest(address: u64) -> bool {
    address >> 63 == 0
}

/// Whether a CPU of which nothing is known is in its guest, by where it goes on.
pub(crate) fn may_be_guest(address: u64) -> bool {
    address < GUEST_END
}
