//! Threads that call `KVM_RUN` in place of the one that handles exits.
//!
//! Each call is handed over and its result handed back by a futex, so that a loop with one such
//! thread and one with two do the same but for whose call the next one is.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use exitpath_recording::counter;

use crate::Error;
use crate::call;
use crate::kick::Kickable;

/// Nothing is asked of the thread.
const IDLE: u32 = 0;
/// It is to call `KVM_RUN`.
const ASKED: u32 = 1;
/// `KVM_RUN` has returned.
const DONE: u32 = 2;
/// It is to end.
const END: u32 = 3;

/// What the two sides of a hand-over share.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Post {
    state: AtomicU32,
    result: AtomicIsize,
    calls: AtomicU64,
}

impl Post {
    /// Changes the state and wakes who waits for that.
    fn set(&self, state: u32) {
        self.state.store(state, Ordering::Release);
        let (wake, one) = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
        // SAFETY: the word outlives the call, and nobody is waked in error: all look again.
        unsafe { libc::syscall(libc::SYS_futex, self.state.as_ptr(), wake, one) };
    }

    /// Sleeps while the state is this one. It may wake early, for a signal for instance.
    fn sleep_while(&self, state: u32) {
        let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let forever = ptr::null::<libc::timespec>();
        // SAFETY: the word outlives the call, which only reads it.
        unsafe { libc::syscall(libc::SYS_futex, self.state.as_ptr(), wait, state, forever) };
    }

    fn state(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
struct Caller {
    post: Arc<Post>,
    kickable: Kickable,
    thread: Option<JoinHandle<()>>,
}

impl Caller {
    /// Starts a thread, on the CPUs that the calling one may use.
    ///
    /// # Safety
    /// `fd` is a vCPU's and stays open until this is dropped.
    unsafe fn start(fd: i32) -> Result<Caller, Error> {
        let post = Arc::new(Post::default());
        let of_thread = post.clone();
        let (tell, told) = mpsc::channel();
        let work = move || {
            let _ = tell.send(Kickable::current());
            // SAFETY: the caller's.
            unsafe { serve(fd, &of_thread) };
        };
        let system = |source| Error::System {
            operation: "starting a thread that calls KVM_RUN",
            source,
        };
        let thread = thread::Builder::new().spawn(work).map_err(system)?;
        let kickable = told
            .recv()
            .expect("the thread tells who it is before anything else");
        Ok(Caller {
            post,
            kickable,
            thread: Some(thread),
        })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.post.set(END);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread does.
///
/// # Safety
/// `fd` is a vCPU's and stays open until END.
unsafe fn serve(fd: i32, post: &Post) {
    loop {
        match post.state() {
            ASKED => {
                // SAFETY: the caller's.
                let result = unsafe { call::run(fd) };
                post.result.store(result, Ordering::Relaxed);
                post.calls.fetch_add(1, Ordering::Relaxed);
                post.set(DONE);
            }
            END => return,
            other => post.sleep_while(other),
        }
    }
}

/// The threads, of which each in turn calls `KVM_RUN`.
#[derive(Debug)]
pub(super) struct Callers {
    callers: Vec<Caller>,
    /// Position of the one that calls next.
    next: usize,
    /// Position of the one that called last.
    last: Option<usize>,
    /// Calls by another thread than the one before.
    changes: u64,
}

impl Callers {
    /// Starts so many threads.
    ///
    /// # Safety
    /// `fd` is a vCPU's and stays open until this is dropped.
    pub(super) unsafe fn start(fd: i32, threads: usize) -> Result<Callers, Error> {
        // SAFETY: the caller's.
        let callers = (0..threads).map(|_| unsafe { Caller::start(fd) });
        Ok(Callers {
            callers: callers.collect::<Result<_, _>>()?,
            next: 0,
            last: None,
            changes: 0,
        })
    }

    /// `KVM_RUN` by the thread whose turn it is; what it returns, errors as negative numbers.
    #[inline(always)]
    pub(super) fn run(&mut self, stop: &AtomicBool) -> isize {
        let turn = self.next;
        self.next = (turn + 1) % self.callers.len();
        self.changes += u64::from(self.last.replace(turn).is_some_and(|last| last != turn));
        let caller = &self.callers[turn];
        caller.post.set(ASKED);
        loop {
            match caller.post.state() {
                DONE => break,
                other => caller.post.sleep_while(other),
            }
            // Who kicks this thread means `KVM_RUN`, and repeats it.
            if stop.load(Ordering::Relaxed) {
                caller.kickable.kick();
            }
        }
        caller.post.state.store(IDLE, Ordering::Relaxed);
        caller.post.result.load(Ordering::Relaxed)
    }

    /// How often each of them has called, and how often another than the one before.
    pub(super) fn counters(&self) -> impl Iterator<Item = (String, i64)> {
        let names = [counter::CALLS_BY_THREAD_1, counter::CALLS_BY_THREAD_2];
        let calls = self.callers.iter().zip(names).map(|(caller, name)| {
            let calls = caller.post.calls.load(Ordering::Relaxed);
            (name.to_owned(), calls as i64)
        });
        let changes = (counter::THREAD_CHANGES.to_owned(), self.changes as i64);
        calls.chain([changes])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// So many calls by so many threads on a descriptor that nobody has: the counters.
    fn counted(threads: usize, calls: usize) -> BTreeMap<String, i64> {
        // SAFETY: no call on it does anything.
        let mut callers = unsafe { Callers::start(-1, threads) }.expect("threads can be started");
        let stop = AtomicBool::new(false);
        for _ in 0..calls {
            assert_eq!(callers.run(&stop), -(libc::EBADF as isize));
        }
        callers.counters().collect()
    }

    #[test]
    fn threads_call_in_turn_and_each_change_is_counted() {
        let of = |counts: &[(&str, i64)]| -> BTreeMap<String, i64> {
            let counts = counts.iter();
            counts
                .map(|&(name, count)| (name.to_owned(), count))
                .collect()
        };
        let first = counter::CALLS_BY_THREAD_1;
        let changes = counter::THREAD_CHANGES;
        assert_eq!(counted(1, 5), of(&[(first, 5), (changes, 0)]));
        let second = (counter::CALLS_BY_THREAD_2, 2);
        assert_eq!(counted(2, 5), of(&[(first, 3), second, (changes, 4)]));
        assert_eq!(
            counted(2, 0),
            of(&[(first, 0), (second.0, 0), (changes, 0)])
        );
    }
}
