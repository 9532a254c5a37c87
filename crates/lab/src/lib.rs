//! Boots a kernel under QEMU and brings results out
