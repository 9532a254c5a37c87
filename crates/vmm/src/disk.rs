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

use crate::consumer::ThreadPlacement;
use crate::ioeventfds::{another, eventfd};
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
pub struct DiskSet {
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

impl DiskSet {
    /// Makes the disks and starts their threads, the i-th on the i-th placement, going round.
    ///
    /// # Errors
    /// [`Error::IoUring`] where the kernel gives nobody a ring, [`Error::NoFilesLeft`], and
    /// [`Error::System`] for files and placements.
    pub fn start(vm: &Vm, disks: Disks, placements: &[ThreadPlacement]) -> Result<DiskSet, Error> {
        let progress = Arc::new((0..disks.count).map(|_| Progress::default()).collect());
        let mut disk_set = DiskSet {
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
            let placement = placements.get(i % placements.len().max(1)).copied();
            disk_set.spawn(group, placement.unwrap_or_default(), disks.completes)?;
        }
        Ok(disk_set)
    }

    fn spawn(
        &mut self,
        group: Vec<Disk>,
        placement: ThreadPlacement,
        most: u64,
    ) -> Result<(), Error> {
        let stop = eventfd(0)?;
        let stopped = another(&stop)?;
        let (memory, progress) = (self.memory.clone(), self.progress.clone());
        let (tell, ready) = mpsc::channel();
        let (done, result) = mpsc::channel();
        std::thread::spawn(move || {
            let ring = placement.take().and_then(|()| ring());
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
                armed: 0,
            };
            let services = server.serve();
            drop(server);
            let _ = done.send(services);
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

impl Drop for DiskSet {
    fn drop(&mut self) {
        // Nothing may outlive a run, however it ended; whoever wants to know has asked before.
        let _ = self.stop(Duration::from_secs(3));
    }
}

/// A ring. That this process may open no more files, or the machine has no memory left, is another matter
/// than a kernel that gives none.
fn ring() -> Result<IoUring, Error> {
    IoUring::new(ENTRIES).map_err(no_ring)
}

fn no_ring(source: std::io::Error) -> Error {
    match source.raw_os_error() {
        // ENOMEM is a locked-memory limit (before 5.12).
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::ENOMEM) => Error::IoUring { source },
        _ => Error::from_files("io_uring_setup", source),
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
    /// Reads of eventfds that are not.
    armed: usize,
}

impl Server {
    fn serve(&mut self) -> Result<(), Error> {
        let stop = (self.stop.as_raw_fd(), &raw mut *self.stop_count);
        self.read_eventfd(stop, STOP)?;
        for i in 0..self.disks.len() {
            self.listen(i)?;
        }
        // One buffer for all: an allocation for each wake-up would be in what disks are measured to do.
        let mut back = Vec::new();
        let mut stopping = false;
        while !(stopping && self.under_way == 0) {
            self.wait(&mut back)?;
            for (what, result) in back.drain(..) {
                if what == STOP {
                    stopping = true;
                    continue;
                }
                if result < 0 {
                    return Err(Error::System {
                        operation: "a read through io_uring",
                        source: std::io::Error::from_raw_os_error(-result),
                    });
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

    /// Submits what was pushed, waits until a read is back, and adds the marks and results of all that are
    /// to `back`. Whatever becomes of these, the kernel writes for them no more.
    fn wait(&mut self, back: &mut Vec<(u64, i32)>) -> Result<(), Error> {
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::System {
                        operation: "io_uring_enter",
                        source,
                    });
                }
            }
        }
        let first = back.len();
        back.extend(self.ring.completion().map(|c| (c.user_data(), c.result())));
        for (what, _) in &back[first..] {
            if what & (DOORBELL | STOP) == 0 {
                self.under_way -= 1;
            } else {
                self.armed -= 1;
            }
        }
        Ok(())
    }

    /// Gets all reads back. Those of files in memory come by themselves; one of an eventfd comes when the
    /// eventfd is written to, which nobody else reads. (A ring that is closed cancels them too, but later, when
    /// nobody knows.)
    fn settle(&mut self) -> Result<(), Error> {
        let doorbells = self.disks.iter().map(|disk| &disk.doorbell);
        for eventfd in doorbells.chain([&self.stop]) {
            let written = eventfd.write(1);
            written.map_err(|_| Error::last_os("write to an eventfd"))?;
        }
        let mut back = Vec::new();
        while self.under_way + self.armed > 0 {
            self.wait(&mut back)?;
        }
        Ok(())
    }

    /// Keeps for good what reads that are not back write to.
    fn give_up(&mut self) {
        std::mem::forget(self.memory.clone());
        std::mem::forget(std::mem::take(&mut self.stop_count));
        for disk in &mut self.disks {
            std::mem::forget(std::mem::take(&mut disk.count));
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
        self.push(&read)?;
        self.armed += 1;
        Ok(())
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
        // `self.memory`, or a word on the heap that belongs to `self`. Neither goes, nor the ring, before every
        // read is back: `drop` waits for them, however `serve` ended, or else leaves both for good.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(|_| Error::Unexpected {
            reason: "an I/O thread's ring is full".to_owned(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.settle().is_err() {
            self.give_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use exitpath_exits::{Image, find};
    use exitpath_testing::{Need, skipped};

    use super::*;

    /// An I/O thread's server of so many disks, which runs on the thread that calls, and its doorbells.
    /// `None` where the kernel gives no ring.
    fn server(disks: usize) -> Option<(Server, Vec<EventFd>)> {
        let ring = match ring() {
            Ok(ring) => ring,
            Err(error) => {
                skipped(Need::IoUring, error);
                return None;
            }
        };
        let program = find("empty").expect("a row").program(true);
        let doorbells: Vec<EventFd> = (0..disks).map(|_| eventfd(0).expect("one more")).collect();
        let disk = |(index, doorbell)| Disk::new(index, another(doorbell).expect("one more"));
        let server = Server {
            ring,
            disks: doorbells
                .iter()
                .enumerate()
                .map(|of| disk(of).expect("a disk"))
                .collect(),
            memory: Memory::new(&Image::new(&program), false).expect("memory"),
            progress: Arc::new((0..disks).map(|_| Progress::default()).collect()),
            stop: eventfd(0).expect("one more"),
            stop_count: Box::new(0),
            most: u64::MAX,
            under_way: 0,
            armed: 0,
        };
        Some((server, doorbells))
    }

    /// Asks a disk for its first blocks, as its guest does, and rings.
    fn ask(server: &Server, doorbell: &EventFd, disk: u64, requests: u64, length: u64) {
        let queue = QUEUES + disk * QUEUE_SIZE;
        for request in 0..requests {
            let entry = queue + RING + request * ENTRY_SIZE;
            let to = BUFFERS + disk * BUFFERS_SIZE + request * REQUEST;
            for (offset, word) in [(0, request * REQUEST), (8, length), (16, to)] {
                server.memory.store(entry + offset, word);
            }
        }
        server.memory.store(queue + AVAILABLE, requests);
        doorbell.write(1).expect("it counts");
    }

    /// Whether a write to the eventfd stays there. One that is being read is taken, in io_uring by the
    /// thread that asked for the read, as soon as it has made the next system call.
    fn is_read_by_nobody(eventfd: &EventFd) -> bool {
        eventfd.write(1).expect("it counts");
        let mut poll = libc::pollfd {
            fd: eventfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid structure, which outlives the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        ready == 1 && eventfd.read().is_ok()
    }

    #[test]
    fn a_server_that_ends_early_gets_all_its_reads_back() {
        let Some((mut server, doorbells)) = server(3) else {
            return;
        };
        // The first disk is asked for what it has, the second for what nobody has, the third for nothing.
        ask(&server, &doorbells[0], 0, DEPTH, REQUEST);
        ask(&server, &doorbells[1], 1, 1, REQUEST + 1);
        let services = server.serve();
        let is_refused =
            matches!(&services, Err(Error::Unexpected { reason }) if reason.contains("disk 1"));
        assert!(is_refused, "{services:?}");
        assert!(server.armed > 0, "the third doorbell and the stop");
        server.settle().expect("they come back");
        assert_eq!((server.under_way, server.armed), (0, 0));
        for doorbell in &doorbells {
            assert!(is_read_by_nobody(doorbell));
        }
    }

    #[test]
    fn what_the_kernel_writes_to_outlives_its_reads() {
        let Some((mut server, doorbells)) = server(2) else {
            return;
        };
        let memory = server.memory.clone();
        ask(&server, &doorbells[0], 0, DEPTH, REQUEST);
        server.stop.write(1).expect("it counts");
        server.serve().expect("all that it was asked for");
        drop(server);
        for doorbell in &doorbells {
            assert!(is_read_by_nobody(doorbell));
        }
        for request in 0..DEPTH {
            let brought = memory.bytes(BUFFERS + request * REQUEST, REQUEST as usize);
            assert_eq!(brought, pattern(0, request), "request {request}");
        }
        assert_eq!(memory.load(QUEUES + USED), DEPTH);
    }

    #[test]
    fn a_refused_ring_is_told_by_what_was_refused() {
        let refused = |errno| no_ring(std::io::Error::from_raw_os_error(errno));
        for errno in [libc::ENOSYS, libc::EPERM, libc::ENOMEM] {
            assert!(matches!(refused(errno), Error::IoUring { .. }), "{errno}");
        }
        assert!(matches!(refused(libc::EMFILE), Error::NoFilesLeft));
        let enfile = refused(libc::ENFILE).to_string();
        assert!(enfile.contains("io_uring_setup failed"), "{enfile}");
    }
}
