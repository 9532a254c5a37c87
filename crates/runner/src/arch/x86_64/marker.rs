//! What tells the lab's plugin, if there is one, when to record. To any CPU they are NOPs.

use exitpath_lab_plugin::stream::Marker;

/// Executes a marker.
macro_rules! marker {
    ($marker:expr) => {
        // SAFETY: a NOP. It is said to touch memory, so that it stays where it stands.
        unsafe {
            std::arch::asm!(
                "nop dword ptr [rax + rax + {}]",
                const $marker.displacement(),
                options(nostack, preserves_flags),
            );
        }
    };
}

/// From here on all code is instrumented. A function of its own, because its address is also where
/// the lab's machine can be stopped when everything is loaded; `exitpath_protocol::READY_SYMBOL` is its name.
// SAFETY: no other symbol of the program has this name.
#[unsafe(export_name = "exitpath_arm")]
#[inline(never)]
pub(crate) extern "C" fn arm() {
    marker!(Marker::Arm);
}

/// Nothing: where the lab's machine can be stopped for the kernel's code to be changed.
/// `exitpath_protocol::STEP_SYMBOL` is its name.
// SAFETY: no other symbol of the program has this name.
#[unsafe(export_name = "exitpath_step")]
#[inline(never)]
pub(crate) extern "C" fn step() {
    // Not empty, so that it is no other empty function.
    std::hint::black_box(0);
}

/// The counted samples begin.
pub(crate) fn start() {
    marker!(Marker::Start);
}

/// They have ended.
pub(crate) fn stop() {
    marker!(Marker::Stop);
}
