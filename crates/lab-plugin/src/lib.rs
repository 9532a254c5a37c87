//! The QEMU TCG plugin that records every instruction of the lab's machine, and supplies what QEMU's emulation of SVM lacks.
//!
//! Parts: [`stream`], the format in which instructions leave QEMU; [`assists`], what a CPU leaves in the VMCB; [`code`], the machine
//! code that both look at; and, with one of the features `v1` and `v3`, the plugin itself. QEMU refuses a plugin that was not made for its
//! version of the API, so `exitpath-lab`'s build script compiles this source twice into shared
//! objects, one per family, and embeds both; the lab hands QEMU the right one as a file in memory.
//! That is also why this crate has no dependencies, and why it is no cdylib of the workspace's:
//! exitpath itself is linked statically.
//!
//! # What it does
//!
//! Until it is armed, it looks at each block of code once, when QEMU translates it, for a
//! [marker](stream::Marker). The ARM marker makes QEMU translate all code anew, and from then on
//! each instruction calls back before it executes; between the START and the STOP marker each
//! call is written down. Where a guest exits, so is the reason, which the plugin reads where the CPU
//! has put it: in the VMCB, whose address is in RAX behind VMRUN. Nothing of this is visible inside the machine: virtual time counts
//! instructions, and waiting for the reader of the stream is no instruction.
//!
//! What it supplies is visible, and is the same whether or not it records: next RIP and decode assists in the VMCB, before the
//! host's first instruction behind #VMEXIT. For that each instruction of a guest calls back; guests' code is translated for guests alone,
//! so that the rest of the machine is as fast as without.
//!
//! It must not symbolise or analyse: guest mode, for instance, is for the reader to find.

pub mod assists;
pub mod code;
pub mod stream;

#[cfg(any(feature = "v1", feature = "v3"))]
mod machine;
#[cfg(any(feature = "v1", feature = "v3"))]
mod plugin;
#[cfg(any(feature = "v1", feature = "v3"))]
mod qemu;
#[cfg(any(feature = "v1", feature = "v3"))]
mod recorder;
#[cfg(any(feature = "v1", feature = "v3"))]
mod vmcb;
