//! Progress on standard error, and Ctrl-C: what every long command gives the engine.

use std::io::{self, IsTerminal};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use exitpath_experiment::{Control, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::remark;

/// Ends long work in order at SIGINT, SIGTERM and SIGHUP; a second signal ends the process at once.
pub(crate) fn control() -> Control {
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
    Control::new(flag, Arc::new(Bar::default()))
}

/// A progress bar on a terminal; elsewhere one line that says what is begun, so that nobody takes a minute
/// of silence for a hang.
#[derive(Default)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn with(&self, of: impl FnOnce(&ProgressBar)) {
        if let Ok(current) = self.0.lock()
            && let Some(bar) = &*current
        {
            of(bar);
        }
    }
}

impl Progress for Bar {
    fn begin(&self, steps: u64, what: &str) {
        if !io::stderr().is_terminal() {
            remark(what);
            return;
        }
        let bar = ProgressBar::new(steps);
        if let Ok(style) = ProgressStyle::with_template("{elapsed} {wide_bar} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        if let Ok(mut current) = self.0.lock() {
            *current = Some(bar);
        }
    }

    fn at(&self, what: &str) {
        self.with(|bar| bar.set_message(what.to_owned()));
    }

    fn step(&self) {
        self.with(|bar| bar.inc(1));
    }

    fn end(&self) {
        if let Ok(mut current) = self.0.lock()
            && let Some(bar) = current.take()
        {
            bar.finish_and_clear();
        }
    }

    fn remark(&self, text: &str) {
        remark(text);
    }
}
