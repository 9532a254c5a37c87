//! A thread that waits for an ioeventfd, as a device's thread does, and says when it ran.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use exitpath_exits::layout::word;
use vmm_sys_util::eventfd::EventFd;

use crate::arch::clock;
use crate::ioeventfds::another;
use crate::{Error, Memory, kick};

/// Where a consumer's thread runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadPlacement {
    /// The CPU it is bound to; `None`: any.
    pub cpu: Option<usize>,
    /// Whether it takes its CPU over when it is woken (SCHED_FIFO).
    pub sched_fifo: bool,
}

/// What a consumer has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Times it was woken.
    pub wakeups: u64,
    /// Kicks it has taken; more than `wakeups` where it fell behind.
    pub kicks: u64,
}

/// Times the calling thread has gone to sleep (getrusage(2), voluntary context switches).
fn sleeps() -> Option<u64> {
    // SAFETY: all zeroes is a valid structure, and the call only writes into it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    (result == 0).then(|| u64::try_from(usage.ru_nvcsw).unwrap_or(0))
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    wakeups: AtomicU64,
    kicks: AtomicU64,
}

/// A thread that blocks in `read` of an eventfd. Each time it runs it puts the clock and the number
/// of kicks taken into the guest's control block.
#[derive(Debug)]
pub struct Consumer {
    eventfd: EventFd,
    shared: Arc<Shared>,
    /// Told at the thread's end: how often it has slept.
    done: mpsc::Receiver<Option<u64>>,
}

impl Consumer {
    /// Starts the thread; it waits when this returns. It takes no more than `most` kicks.
    ///
    /// # Errors
    /// [`Error::System`] where the thread cannot be put on its placement.
    pub fn start(
        eventfd: EventFd,
        memory: Memory,
        placement: ThreadPlacement,
        most: u64,
    ) -> Result<Consumer, Error> {
        let shared = Arc::new(Shared::default());
        let (finished, done) = mpsc::channel();
        let (tell, seated) = mpsc::channel();
        let of_thread = another(&eventfd)?;
        let state = shared.clone();
        std::thread::spawn(move || {
            let sat = placement.take();
            let go_on = sat.is_ok();
            let _ = tell.send(sat);
            let before = sleeps();
            if go_on {
                consume(&of_thread, &memory, &state, most);
            }
            let slept = sleeps().zip(before).map(|(after, before)| after - before);
            let _ = finished.send(slept);
        });
        seated
            .recv()
            .expect("the thread tells how it sits before anything else")?;
        Ok(Consumer {
            eventfd,
            shared,
            done,
        })
    }

    /// What it has done so far.
    pub fn taken(&self) -> Taken {
        Taken {
            wakeups: self.shared.wakeups.load(Ordering::Acquire),
            kicks: self.shared.kicks.load(Ordering::Acquire),
        }
    }

    /// Waits until it has taken so many kicks, at most so long. Gives what it has taken.
    pub fn wait_for(&self, kicks: u64, patience: Duration) -> Taken {
        let step = Duration::from_millis(2);
        let mut waited = Duration::ZERO;
        while self.taken().kicks < kicks && waited < patience {
            std::thread::sleep(step);
            waited += step;
        }
        self.taken()
    }

    /// Ends the thread, and says how often it has slept, where that is known.
    ///
    /// # Errors
    /// [`Error::Unexpected`] where it does not end within `patience`.
    pub fn stop(self, patience: Duration) -> Result<Option<u64>, Error> {
        self.ask_to_stop();
        match self.done.recv_timeout(patience) {
            Ok(slept) => Ok(slept),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Error::Unexpected {
                reason: "the consumer's thread did not end: it may still take CPU time".to_owned(),
            }),
        }
    }

    fn ask_to_stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.eventfd.write(1);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Nothing may outlive a run, however it ended.
        self.ask_to_stop();
    }
}

impl ThreadPlacement {
    /// Puts the calling thread there.
    ///
    /// # Errors
    /// [`Error::NoSchedFifo`] where the thread may not have SCHED_FIFO, [`Error::System`] where the kernel
    /// refuses the CPU.
    pub fn take(self) -> Result<(), Error> {
        if let Some(cpu) = self.cpu {
            kick::pin(cpu)?;
        }
        if self.sched_fifo {
            let priority = libc::sched_param { sched_priority: 1 };
            // SAFETY: the structure is valid and outlives the call, which is about this thread.
            if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) } != 0 {
                return Err(Error::NoSchedFifo {
                    source: std::io::Error::last_os_error(),
                });
            }
        }
        Ok(())
    }
}

/// Takes kicks until told to stop.
fn consume(eventfd: &EventFd, memory: &Memory, shared: &Shared, most: u64) {
    let mut kicks = 0u64;
    loop {
        if kicks >= most {
            // Beyond that it sleeps, for what may happen then to be seen.
            while !shared.stop.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(2));
            }
            return;
        }
        let mut value = 0u64;
        // SAFETY: the buffer is eight bytes that live longer than the call, and the descriptor is
        // open.
        let got = unsafe { libc::read(eventfd.as_raw_fd(), (&raw mut value).cast(), 8) };
        let now = clock();
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        if got != 8 {
            continue;
        }
        kicks += value;
        memory.set_word(word::STAMP, now);
        memory.set_word(word::SEQUENCE, kicks);
        shared.wakeups.fetch_add(1, Ordering::Release);
        shared.kicks.store(kicks, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use exitpath_exits::{Image, find};

    use super::*;
    use crate::ioeventfds::eventfd;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_consumer_counts_kicks_says_so_to_the_guest_and_takes_no_more_than_it_may() {
        let program = find("empty").expect("a row").program(true);
        let memory = Memory::new(&Image::new(&program), false).expect("memory");
        let kicked = eventfd(0).expect("one more");
        let taking = another(&kicked).expect("one more");
        let consumer = Consumer::start(taking, memory.clone(), ThreadPlacement::default(), 5)
            .expect("a thread");
        // One kick, then three at once: one wake-up takes them all.
        kicked.write(1).expect("it counts");
        assert_eq!(
            consumer.wait_for(1, PATIENCE),
            Taken {
                wakeups: 1,
                kicks: 1
            }
        );
        let first = memory.word(word::STAMP);
        assert!(first > 0);
        kicked.write(3).expect("it counts");
        assert_eq!(
            consumer.wait_for(4, PATIENCE),
            Taken {
                wakeups: 2,
                kicks: 4
            }
        );
        assert_eq!(memory.word(word::SEQUENCE), 4);
        assert!(memory.word(word::STAMP) > first);
        kicked.write(1).expect("it counts");
        assert_eq!(consumer.wait_for(5, PATIENCE).kicks, 5);
        // It takes no sixth one, which stays where it is.
        kicked.write(1).expect("it counts");
        assert_eq!(consumer.wait_for(6, Duration::from_millis(20)).kicks, 5);
        assert_eq!(kicked.read().expect("it is left"), 1);
        assert!(consumer.stop(PATIENCE).is_ok());
    }
}
