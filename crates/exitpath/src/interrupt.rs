//! Ctrl-C and termination: a flag that long work looks at, so that everything ends in order.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The flag that SIGINT, SIGTERM and SIGHUP set. A second signal ends the process at once.
pub(crate) fn flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ] {
        // In this order: the first signal finds the flag unset and only sets it. Registration
        // fails only for signals that cannot be caught, and these can.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone());
        let _ = signal_hook::flag::register(signal, flag.clone());
    }
    flag
}
