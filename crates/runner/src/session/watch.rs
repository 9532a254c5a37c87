//! The threads of a run, and the watchdog over them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use exitpath_vmm::kick::Kickable;

/// How long a kicked thread may take to leave `KVM_RUN` before it is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// A thread that can be kicked and whose result can be waited for with a limit.
pub(super) struct Worker<T> {
    kickable: Kickable,
    result: mpsc::Receiver<T>,
}

impl<T: Send + 'static> Worker<T> {
    pub(super) fn spawn(work: impl FnOnce() -> T + Send + 'static) -> Worker<T> {
        let (tell, kickable) = mpsc::channel();
        let (done, result) = mpsc::channel();
        thread::spawn(move || {
            let _ = tell.send(Kickable::current());
            let _ = done.send(work());
        });
        let kickable = kickable
            .recv()
            .expect("the thread tells who it is before anything else");
        Worker { kickable, result }
    }

    /// Kicks until the thread comes home; `None` when it does not within `patience`.
    pub(super) fn collect(&self, patience: Duration) -> Option<T> {
        let step = Duration::from_millis(10);
        let mut waited = Duration::ZERO;
        while waited < patience {
            self.kickable.kick();
            match self.result.recv_timeout(step) {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Timeout) => waited += step,
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }
}

/// How a watched thread ended.
pub(super) enum ThreadEnd<T> {
    Home(T),
    /// It did not come home and was left behind.
    Lost,
    /// It ended without a result.
    Panicked,
}

/// Waits for a thread as long as there are new signs of progress: as often as `limit` passes, they are to be
/// others than the last time. Else it is told to stop, and kicked.
pub(super) fn watch<T: Send + 'static, S: PartialEq>(
    worker: &Worker<T>,
    signs: impl Fn() -> S,
    limit: Duration,
    stop: &AtomicBool,
) -> ThreadEnd<T> {
    let mut seen = signs();
    loop {
        match worker.result.recv_timeout(limit) {
            Ok(result) => return ThreadEnd::Home(result),
            Err(RecvTimeoutError::Disconnected) => return ThreadEnd::Panicked,
            Err(RecvTimeoutError::Timeout) => {
                let now = signs();
                if now == seen {
                    stop.store(true, Ordering::Relaxed);
                    return worker
                        .collect(PATIENCE)
                        .map_or(ThreadEnd::Lost, ThreadEnd::Home);
                }
                seen = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// A limit that is reached at once.
    const SHORT: Duration = Duration::from_millis(5);
    /// One that is not.
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_thread_that_comes_home_is_not_stopped() {
        let stop = AtomicBool::new(false);
        let worker = Worker::spawn(|| 7);
        let ended = watch(&worker, || 0, LONG, &stop);
        assert!(matches!(ended, ThreadEnd::Home(7)));
        assert!(!stop.load(Ordering::Relaxed));
    }

    #[test]
    fn a_thread_that_panics_is_told_from_one_that_is_lost() {
        let worker = Worker::spawn(|| -> u8 {
            // Without the message of a panic in the test's output.
            std::panic::resume_unwind(Box::new(()))
        });
        let ended = watch(&worker, || 0, LONG, &AtomicBool::new(false));
        assert!(matches!(ended, ThreadEnd::Panicked));
    }

    #[test]
    fn one_that_makes_progress_is_waited_for_and_one_without_is_stopped() {
        exitpath_vmm::kick::install();
        let (stop, progress) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
        let seen = stop.clone();
        let worker = Worker::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            "stopped"
        });
        // Ten times it got further since the last time, then it did not.
        let signs = || progress.fetch_add(1, Ordering::Relaxed).min(10);
        let ended = watch(&worker, signs, SHORT, &stop);
        assert!(matches!(ended, ThreadEnd::Home("stopped")));
        assert_eq!(progress.load(Ordering::Relaxed), 12);
    }

    #[test]
    fn one_that_does_not_come_home_is_given_up() {
        exitpath_vmm::kick::install();
        let (end, ended) = mpsc::channel::<()>();
        let worker = Worker::spawn(move || {
            // Until the test has ended, whatever it is told.
            let _ = ended.recv();
        });
        assert!(worker.collect(Duration::from_millis(30)).is_none());
        drop(end);
        assert!(worker.collect(LONG).is_some());
    }
}
