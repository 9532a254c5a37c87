//! KVM's two buses: an address on one of them, and an ioeventfd there.

/// An address on one of KVM's two buses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// A port.
    Pio(u16),
    /// A guest physical address.
    Mmio(u64),
}

/// An ioeventfd that KVM answers instead of user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ioeventfd {
    /// Port or guest physical address.
    pub at: Address,
    /// Bytes of the write it answers; 0 for any length, which by MMIO is KVM's fast path on Intel
    /// (no decode) and what QEMU registers for kvm-unit-tests' pci-mem wildcard.
    pub length: u8,
    /// The only value it answers, or any.
    pub datamatch: Option<u8>,
}
