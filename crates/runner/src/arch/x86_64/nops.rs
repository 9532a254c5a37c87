//! NOPs on the bare CPU, for comparison with a guest's.

/// NOPs in the row `nop_1000`, and in [`native_ticks_per_nop`].
pub(crate) const NOPS: f64 = 1000.0;

/// A thousand NOPs between two clock reads in this process, the shortest of 200.
pub(crate) fn native_ticks_per_nop() -> f64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    let mut shortest = u64::MAX;
    for _ in 0..200 {
        // SAFETY: lfence, rdtsc and NOP are available on every x86-64 CPU and touch no memory.
        let ticks = unsafe {
            _mm_lfence();
            let start = _rdtsc();
            _mm_lfence();
            std::arch::asm!(".rept 1000", "nop", ".endr", options(nomem, nostack));
            _mm_lfence();
            _rdtsc().wrapping_sub(start)
        };
        shortest = shortest.min(ticks);
    }
    shortest as f64 / NOPS
}
