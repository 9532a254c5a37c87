//! Disks behind a queue in guest memory, served by I/O threads with io_uring.
//!
//! A kick's eventfd is read through the ring as well, so that one thread waits for any number of
//! disks in one place. Each read goes from the disk's file, which is one in memory and holds a
//! pattern, straight into the guest's buffer. What is done is made known in the order asked for.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use exitpath_exits::kicks::{Disks, IoThreads};
use exitpath_exits::layout::disk::{
    AVAILABLE, BLOCKS, BUFFERS, BUFFERS_SIZE, DEPTH, ENTRY_SIZE, QUEUE_SIZE, QUEUES, REQUEST, RING,
    USED,
};
use io_uring::{IoUring, opcode, types};
use vmm_sys_util::eventfd::EventFd;

use crate::consumer::Seat;
use crate::notify::eventfd;
use crate::{Error, Memory, Vm};

/// Entries of a thread's ring: all requests of all disks, a doorbell each, and the order to stop.
const ENTRIES: u32 = 128;
/// Marks a doorbell's completion; the disk is in the low half.
const DOORBELL: u64 = 1 << 32;
/// Marks the completion of the order to stop.
const STOP: u64 = 2 << 32;

/// What an I/O thread has done for a disk.
#[derive(Debug, Default)]
struct Progress {
    wakeups: AtomicU64,
    completed: AtomicU64,
}

/// What became of a disk's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Requests that the guest made.
    pub requested: u64,
    /// Requests that were completed.
    pub completed: u64,
    /// Times the doorbell was answered; fewer than requests where several came at once.
    pub wakeups: u64,
}

/// The disks of a VM and the threads that serve them.
#[derive(Debug)]
pub struct Bank {
    memory: Memory,
    progress: Arc<Vec<Progress>>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    stop: EventFd,
    result: mpsc::Receiver<Result<(), Error>>,
}

/// One disk as its thread sees it.
struct Disk {
    index: usize,
    doorbell: EventFd,
    file: File,
    /// Where the kernel puts the doorbell's count.
    count: Box<u64>,
    /// Requests taken from the ring.
    taken: u64,
    /// Requests done, in their order.
    used: u64,
    /// Which places of the ring are done but not yet made known.
    done: [bool; DEPTH as usize],
}

impl Bank {
    /// Makes the disks and starts their threads, the i-th on the i-th seat, going round.
    ///
    /// # Errors
    /// [`Error::IoUring`] where the kernel refuses a ring, [`Error::System`] for files and seats.
    pub fn start(vm: &Vm, disks: Disks, seats: &[Seat]) -> Result<Bank, Error> {
        let progress = Arc::new((0..disks.count).map(|_| Progress::default()).collect());
        let mut bank = Bank {
            memory: vm.memory().clone(),
            progress,
            threads: Vec::new(),
        };
        let mut groups: Vec<Vec<Disk>> = Vec::new();
        for index in 0..disks.count as usize {
            let disk = Disk::new(index, vm.eventfd(index)?)?;
            match (disks.iothreads, groups.last_mut()) {
                (IoThreads::Shared, Some(group)) => group.push(disk),
                _ => groups.push(vec![disk]),
            }
        }
        for (i, group) in groups.into_iter().enumerate() {
            let seat = seats.get(i % seats.len().max(1)).copied();
            bank.spawn(group, seat.unwrap_or_default(), disks.completes)?;
        }
        Ok(bank)
    }

    fn spawn(&mut self, group: Vec<Disk>, seat: Seat, most: u64) -> Result<(), Error> {
        let stop = eventfd(0)?;
        let stopped = stop.try_clone().map_err(|_| Error::NoFilesLeft)?;
        let (memory, progress) = (self.memory.clone(), self.progress.clone());
        let (tell, ready) = mpsc::channel();
        let (done, result) = mpsc::channel();
        std::thread::spawn(move || {
            let ring = seat
                .take()
                .and_then(|()| IoUring::new(ENTRIES).map_err(|source| Error::IoUring { source }));
            let ring = match ring {
                Ok(ring) => {
                    let _ = tell.send(Ok(()));
                    ring
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            let mut server = Server {
                ring,
                disks: group,
                memory,
                progress,
                stop: stopped,
                stop_count: Box::new(0),
                most,
                under_way: 0,
            };
            let served = server.serve();
            server.settle();
            let _ = done.send(served);
        });
        ready
            .recv()
            .expect("the thread tells whether it has a ring before anything else")?;
        self.threads.push(Thread { stop, result });
        Ok(())
    }

    /// What became of each disk's requests so far.
    pub fn accounts(&self) -> Vec<Account> {
        (0..)
            .zip(self.progress.iter())
            .map(|(index, progress)| Account {
                requested: self.memory.load(QUEUES + index * QUEUE_SIZE + AVAILABLE),
                completed: progress.completed.load(Ordering::Acquire),
                wakeups: progress.wakeups.load(Ordering::Acquire),
            })
            .collect()
    }

    /// Ends the threads, each within `patience`.
    ///
    /// # Errors
    /// The first thread's that failed, or that one did not end.
    pub fn stop(&mut self, patience: Duration) -> Result<(), Error> {
        let mut failed = Ok(());
        for thread in &self.threads {
            let _ = thread.stop.write(1);
        }
        for thread in self.threads.drain(..) {
            let ended = match thread.result.recv_timeout(patience) {
                Ok(ended) => ended,
                Err(RecvTimeoutError::Timeout) => Err(Error::Unexpected {
                    reason: format!("an I/O thread did not end within {patience:?}"),
                }),
                Err(RecvTimeoutError::Disconnected) => Err(Error::Unexpected {
                    reason: "an I/O thread panicked: report this as a bug of exitpath".to_owned(),
                }),
            };
            failed = failed.and(ended);
        }
        failed
    }

    /// Whether the last requests' data are in the guest's buffers, byte for byte; else which are
    /// not, in words.
    ///
    /// # Errors
    /// The first difference, for a reader.
    pub fn verify(&self) -> Result<(), String> {
        for (index, account) in (0..).zip(self.accounts()) {
            let last = account.completed;
            for request in last.saturating_sub(DEPTH)..last {
                let place = request % DEPTH;
                let at = BUFFERS + index * BUFFERS_SIZE + place * REQUEST;
                let block = request.wrapping_mul(5) % BLOCKS;
                if self.memory.bytes(at, REQUEST as usize) != pattern(index, block) {
                    return Err(format!(
                        "disk {index}: request {request} did not bring the file's block {block}"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        // Nothing may outlive a run, however it ended; whoever wants to know has asked before.
        let _ = self.stop(Duration::from_secs(3));
    }
}

/// What a disk's file holds in one block: no word of it occurs anywhere else.
fn pattern(disk: u64, block: u64) -> Vec<u8> {
    (0..REQUEST / 8)
        .flat_map(|word| ((disk + 1) << 48 | (block + 1) << 32 | word).to_le_bytes())
        .collect()
}

impl Disk {
    fn new(index: usize, doorbell: EventFd) -> Result<Disk, Error> {
        // SAFETY: a NUL-terminated name and no further pointers.
        let fd = unsafe { libc::memfd_create(c"exitpath-disk".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os("memfd_create"));
        }
        // SAFETY: the descriptor is open and nobody else's.
        let mut file = unsafe { File::from_raw_fd(fd) };
        for block in 0..BLOCKS {
            file.write_all(&pattern(index as u64, block))
                .map_err(|source| Error::System {
                    operation: "writing a disk's file in memory",
                    source,
                })?;
        }
        Ok(Disk {
            index,
            doorbell,
            file,
            count: Box::new(0),
            taken: 0,
            used: 0,
            done: [false; DEPTH as usize],
        })
    }

    fn queue(&self) -> u64 {
        QUEUES + self.index as u64 * QUEUE_SIZE
    }
}

/// An I/O thread at work.
struct Server {
    ring: IoUring,
    disks: Vec<Disk>,
    memory: Memory,
    progress: Arc<Vec<Progress>>,
    stop: EventFd,
    stop_count: Box<u64>,
    most: u64,
    /// Reads into guest memory that are not back yet.
    under_way: usize,
}

impl Server {
    fn serve(&mut self) -> Result<(), Error> {
        let stop = (self.stop.as_raw_fd(), &raw mut *self.stop_count);
        self.read_eventfd(stop, STOP)?;
        for i in 0..self.disks.len() {
            self.listen(i)?;
        }
        let mut completions = Vec::new();
        let mut stopping = false;
        while !(stopping && self.under_way == 0) {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::IoUring { source }),
            }
            completions.extend(self.ring.completion().map(|c| (c.user_data(), c.result())));
            for (what, result) in completions.drain(..) {
                if what == STOP {
                    stopping = true;
                    continue;
                }
                if what & DOORBELL == 0 {
                    self.under_way -= 1;
                }
                if result < 0 {
                    let source = std::io::Error::from_raw_os_error(-result);
                    return Err(Error::IoUring { source });
                }
                let i = (what & 0xffff) as usize;
                if what & DOORBELL != 0 {
                    self.take(i)?;
                    self.listen(i)?;
                } else {
                    self.complete(i, what >> 40, result as u64)?;
                }
            }
        }
        Ok(())
    }

    /// Waits for the reads that are under way where `serve` ended early. They are of files in memory.
    fn settle(&mut self) {
        while self.under_way > 0 {
            if self.ring.submit_and_wait(1).is_err() {
                // Nobody knows where they are: keep what they write to for good.
                std::mem::forget(self.memory.clone());
                return;
            }
            let back = self.ring.completion().map(|c| c.user_data());
            let reads = back.filter(|what| what & (DOORBELL | STOP) == 0).count();
            self.under_way -= reads.min(self.under_way);
        }
    }

    /// Reads a doorbell, sometime.
    fn listen(&mut self, i: usize) -> Result<(), Error> {
        let disk = &mut self.disks[i];
        let into = (disk.doorbell.as_raw_fd(), &raw mut *disk.count);
        self.read_eventfd(into, DOORBELL | i as u64)
    }

    fn read_eventfd(&mut self, (fd, into): (RawFd, *mut u64), tag: u64) -> Result<(), Error> {
        let read = opcode::Read::new(types::Fd(fd), into.cast(), 8)
            .build()
            .user_data(tag);
        self.push(&read)
    }

    /// Begins the requests that a disk's guest has made available.
    fn take(&mut self, i: usize) -> Result<(), Error> {
        let disk = &self.disks[i];
        let (queue, fd, first) = (disk.queue(), disk.file.as_raw_fd(), disk.taken);
        let progress = &self.progress[disk.index];
        progress.wakeups.fetch_add(1, Ordering::Relaxed);
        let available = self.memory.load(queue + AVAILABLE);
        if available.wrapping_sub(disk.used) > DEPTH {
            return Err(Error::Unexpected {
                reason: format!(
                    "the guest has {} requests under way on disk {}, and its ring has {DEPTH} places",
                    available.wrapping_sub(disk.used),
                    disk.index
                ),
            });
        }
        for request in first..available.min(self.most) {
            let place = request % DEPTH;
            let entry = queue + RING + place * ENTRY_SIZE;
            let [from, length, to] = [0, 8, 16].map(|offset| self.memory.load(entry + offset));
            let fits = length == REQUEST && from <= (BLOCKS - 1) * REQUEST;
            let buffer = self.memory.host(to, length).filter(|_| fits);
            let Some(buffer) = buffer else {
                return Err(Error::Unexpected {
                    reason: format!(
                        "the guest asked disk {i} for {length} bytes at {from}, to {to:#x}"
                    ),
                });
            };
            let read = opcode::Read::new(types::Fd(fd), buffer, length as u32)
                .offset(from)
                .build()
                .user_data(place << 40 | i as u64);
            self.push(&read)?;
            self.under_way += 1;
            self.disks[i].taken = request + 1;
        }
        Ok(())
    }

    /// Makes known what is done, up to the first request that is not.
    fn complete(&mut self, i: usize, place: u64, bytes: u64) -> Result<(), Error> {
        let disk = &mut self.disks[i];
        if bytes != REQUEST {
            return Err(Error::Unexpected {
                reason: format!("a read of disk {i} brought {bytes} of {REQUEST} bytes"),
            });
        }
        disk.done[(place % DEPTH) as usize] = true;
        let before = disk.used;
        while disk.used < disk.taken && disk.done[(disk.used % DEPTH) as usize] {
            disk.done[(disk.used % DEPTH) as usize] = false;
            disk.used += 1;
        }
        if disk.used != before {
            // Counted first: the guest may end on what it is told.
            let progress = &self.progress[disk.index];
            progress.completed.store(disk.used, Ordering::Release);
            self.memory.store(disk.queue() + USED, disk.used);
        }
        Ok(())
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) -> Result<(), Error> {
        // SAFETY: what the kernel writes to is guest memory, checked against its slot and kept by
        // `self.memory`, or a word on the heap that belongs to `self`. Neither goes before
        // all reads into guest memory are back (`serve`, `settle`); reads of eventfds wait for a poll and are done by
        // this very thread, in `submit_and_wait` or not at all.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(|_| Error::Unexpected {
            reason: "an I/O thread's ring is full".to_owned(),
        })
    }
}
