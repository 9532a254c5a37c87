//! The one pool of threads: as many items at a time as this machine has CPUs, results in the items' order.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;

use crate::control::Control;
use crate::error::{Error, Result};

/// Most items at a time, whatever the machine has: each boot takes a gigabyte.
const MOST_AT_A_TIME: usize = 8;
const LOCK: &str = "nobody panics while holding a lock";

/// How many of so many items are worked on at a time.
pub(crate) fn at_a_time(items: usize) -> usize {
    let cpus = thread::available_parallelism().map_or(1, |n| n.get());
    cpus.min(MOST_AT_A_TIME).min(items)
}

/// Works on all items. The first that fails ends the others, by the control's flag.
///
/// # Errors
/// What made the others stop, rather than that they were stopped.
pub(crate) fn run_all<T: Sync, R: Send>(
    items: &[T],
    control: &Control,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..items.len()).collect());
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..at_a_time(items.len()) {
            scope.spawn(|| {
                while let Some(at) = { queue.lock().expect(LOCK).pop_front() } {
                    match work(&items[at]) {
                        Ok(result) => done.lock().expect(LOCK).push((at, result)),
                        Err(error) => {
                            queue.lock().expect(LOCK).clear();
                            let mut failed = failed.lock().expect(LOCK);
                            if failed.as_ref().is_none_or(Error::is_interruption) {
                                *failed = Some(error);
                            }
                            // The others' results will not be used: let them end now.
                            control.interrupted.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().expect(LOCK) {
        // Who asked may go on without what failed. A user who interrupted just now has the failure's word in place of the interruption's.
        if !error.is_interruption() {
            control.interrupted.store(false, Ordering::Relaxed);
        }
        return Err(error);
    }
    let mut done = done.into_inner().expect(LOCK);
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::control::Silent;

    fn control() -> Control {
        Control::new(Arc::new(AtomicBool::new(false)), Arc::new(Silent))
    }

    #[test]
    fn results_are_in_the_items_order() {
        let items: Vec<u64> = (0..50).collect();
        let doubled = run_all(&items, &control(), |item| {
            thread::sleep(std::time::Duration::from_millis(50 - item));
            Ok(2 * item)
        });
        let expected: Vec<u64> = items.iter().map(|item| 2 * item).collect();
        assert_eq!(doubled.expect("none failed"), expected);
    }

    #[test]
    fn what_failed_is_told_and_not_that_the_others_were_stopped() {
        let control = control();
        let stopped: Result<Vec<()>> = run_all(&[1, 0, 2, 3], &control, |item| match item {
            1 => Err(Error::NoHome),
            _ => loop {
                control.check()?;
                thread::sleep(std::time::Duration::from_millis(1));
            },
        });
        assert!(matches!(stopped, Err(Error::NoHome)), "{stopped:?}");
        assert!(
            !control.interrupted.load(Ordering::Relaxed),
            "more can be done"
        );
    }
}
