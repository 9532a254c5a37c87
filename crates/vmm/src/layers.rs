//! The run loop with the layers of a rung of the ladder: a port write that this VMM answers, and
//! what VMMs do around it.
//!
//! Each rung has a loop of its own, made from one text: the compiler leaves out of it what the rung
//! does not have, so that a layer that is off costs nothing, and one that is on costs what it does in
//! a VMM that was written with it.

mod callers;
mod model;
mod signal;

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use exitpath_exits::Row;
use exitpath_exits::ladder::{Call, Extra, Layers, Lock, RUNGS, Signal, Thread};
use exitpath_exits::layout::port;
use kvm_bindings::{KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IO_OUT, kvm_run};
use kvm_ioctls::VcpuExit;

use crate::arch::Registers;
use crate::call;
use crate::vcpu::{Stop, Vcpu};
use crate::{Error, kick};
use callers::Callers;
pub use model::Model;

/// What a rung's loop keeps between exits.
#[derive(Debug)]
pub(crate) struct Layered {
    run: Loop,
    model: Arc<Model>,
    registers: Box<Registers>,
    /// CPUs that the thread is moved between, the first one its own.
    cpus: Vec<usize>,
    /// Number of moves.
    moves: usize,
    /// Threads that call `KVM_RUN` in place of this one.
    callers: Option<Callers>,
}

type Loop = fn(&mut Vcpu, &mut Layered) -> Result<Stop, Error>;

/// The layers of a rung; nothing but the bare loop for a row that has none.
const fn layers_of(rung: usize) -> Layers {
    match RUNGS[rung].rung {
        Some(rung) => rung.layers,
        None => exitpath_exits::ladder::BARE,
    }
}

macro_rules! loops {
    ($($rung:literal)*) => {
        [$(run::<$rung>),*]
    };
}

/// The loops, in the order of the rungs. (One too few or too many does not compile.)
static LOOPS: [Loop; RUNGS.len()] = loops!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24
    25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48
);

impl Layered {
    /// The loop of a row of the ladder; `None` for any other row. Sets up of the vCPU what the layers
    /// need, and has to be called on the thread that will run it.
    pub(crate) fn new(
        vcpu: &mut Vcpu,
        row: &Row,
        model: &Arc<Model>,
        cpus: &[usize],
    ) -> Result<Option<Layered>, Error> {
        let Some(position) = RUNGS.iter().position(|rung| rung.name == row.name) else {
            return Ok(None);
        };
        let layers = layers_of(position);
        let run: *mut kvm_run = vcpu.fd.get_kvm_run();
        if layers.extra == Extra::ImmediateExit {
            // SAFETY: the descriptor is this vCPU's and `run` its shared page.
            let result = unsafe { run_without_entry(vcpu.fd.as_raw_fd(), run) };
            if result != -(libc::EINTR as isize) {
                return Err(Error::Unexpected {
                    reason: format!(
                        "KVM_RUN with immediate_exit came back with {result}, not EINTR"
                    ),
                });
            }
        }
        let cpus = if cpus.is_empty() {
            kick::allowed_cpus()?
        } else {
            cpus.to_vec()
        };
        let callers = match layers.thread {
            Thread::HandedOver { callers } => {
                // All on one CPU: a thread that wakes another one there does not move the vCPU.
                kick::pin(cpus[0])?;
                // SAFETY: the descriptor is the vCPU's, which owns `layered` and drops it first.
                Some(unsafe { Callers::start(vcpu.fd.as_raw_fd(), callers)? })
            }
            _ => None,
        };
        let layered = Layered {
            run: LOOPS[position],
            model: model.clone(),
            registers: Registers::new(&vcpu.fd, run, layers.registers)?,
            cpus,
            moves: 0,
            callers,
        };
        match layers.signal {
            Signal::None => {}
            Signal::Mask => signal::mask(&vcpu.fd)?,
            // SAFETY: the vCPU owns `layered`, which forgets it before the page goes.
            Signal::ImmediateExit => unsafe { signal::request_by(run) },
        }
        Ok(Some(layered))
    }

    /// Runs the guest until it writes to the control port or the vCPU is asked to stop.
    pub(crate) fn run(&mut self, vcpu: &mut Vcpu) -> Result<Stop, Error> {
        (self.run)(vcpu, self)
    }

    /// Counters of what its threads have done, by name.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (String, i64)> {
        self.callers.iter().flat_map(Callers::counters)
    }
}

impl Drop for Layered {
    fn drop(&mut self) {
        signal::forget();
    }
}

/// A port write, or why there is none.
enum Exit {
    Write {
        port: u16,
        value: u32,
    },
    Interrupted,
    /// For this reason.
    Other(u32),
    /// With this error.
    Failed(i32),
}

fn run<const RUNG: usize>(vcpu: &mut Vcpu, state: &mut Layered) -> Result<Stop, Error> {
    let layers = const { layers_of(RUNG) };
    let run: *mut kvm_run = vcpu.fd.get_kvm_run();
    let fd = vcpu.fd.as_raw_fd();
    let stop = vcpu.stop.clone();
    let model = &*state.model;
    let mut held: Option<MutexGuard<'_, ()>> = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(Stop::Asked);
        }
        // SAFETY: the descriptor is this vCPU's and `run` its shared page; the buffers are as long
        // as the ioctls want them.
        unsafe {
            state
                .registers
                .put_back(fd, run, layers.registers, layers.mirror)
        };
        if layers.lock == Lock::Global {
            drop(held.take());
        }
        let exit = match layers.call {
            Call::Syscall if matches!(layers.thread, Thread::HandedOver { .. }) => {
                let Some(callers) = &mut state.callers else {
                    unreachable!("a rung with such threads has them");
                };
                let result = callers.run(&stop);
                // SAFETY: `run` is this vCPU's shared page, and the call is over.
                unsafe { exit_of(result, run) }
            }
            // SAFETY: the descriptor is this vCPU's and `run` its shared page.
            Call::Syscall => unsafe { exit_of(call::run(fd), run) },
            // SAFETY: as above.
            Call::Libc => unsafe { exit_of(call::run_by_libc(fd), run) },
            Call::KvmIoctls => match vcpu.fd.run() {
                Ok(VcpuExit::IoOut(port, data)) => Exit::Write {
                    port,
                    value: value(data),
                },
                Ok(VcpuExit::Intr) => Exit::Interrupted,
                Ok(_) => Exit::Other(vcpu.fd.get_kvm_run().exit_reason),
                Err(error) if is_interrupted(error.errno()) => Exit::Interrupted,
                Err(error) => Exit::Failed(error.errno()),
            },
        };
        if layers.lock == Lock::Global {
            held = Some(model.lock());
        }
        // After an interruption, too: the guest may have gone on since the last exit.
        // SAFETY: as for `put_back`.
        unsafe {
            state
                .registers
                .fetch(fd, run, layers.registers, layers.mirror)
        };
        let (port, value) = match exit {
            Exit::Write { port, value } => (port, value),
            Exit::Interrupted => {
                match layers.signal {
                    Signal::None => {}
                    Signal::Mask => signal::take(),
                    // SAFETY: `run` is this vCPU's shared page.
                    Signal::ImmediateExit => unsafe { (*run).immediate_exit = 0 },
                }
                continue;
            }
            Exit::Other(reason) => return Err(unexpected(reason)),
            Exit::Failed(errno) => return Err(failed(errno)),
        };
        vcpu.userspace_exits += 1;
        if port == port::CONTROL {
            return Ok(Stop::Control(value as u8));
        }
        match layers.extra {
            Extra::None => {}
            Extra::Syscall => call::getppid(),
            // SAFETY: the descriptor is this vCPU's.
            Extra::RefusedIoctl => unsafe { call::refused(fd) },
            // SAFETY: the descriptor is this vCPU's and `run` its shared page.
            Extra::ImmediateExit => unsafe {
                run_without_entry(fd, run);
            },
        }
        match layers.thread {
            Thread::Still | Thread::Preempted | Thread::HandedOver { .. } => {}
            Thread::Told => kick::pin(state.cpus[0])?,
            Thread::Moved => {
                state.moves += 1;
                kick::pin(state.cpus[state.moves % state.cpus.len()])?;
            }
        }
        if let Some(device) = model.find(layers.dispatch, port) {
            let _own = (layers.lock == Lock::PerDevice).then(|| device.lock());
            device.write(value, layers.work);
        }
    }
}

/// `KVM_RUN` that comes back before it enters the guest.
///
/// # Safety
/// `fd` is a vCPU's and `run` its shared page.
#[inline(always)]
unsafe fn run_without_entry(fd: i32, run: *mut kvm_run) -> isize {
    // SAFETY: the caller's.
    unsafe {
        (*run).immediate_exit = 1;
        let result = call::run(fd);
        (*run).immediate_exit = 0;
        result
    }
}

fn is_interrupted(errno: i32) -> bool {
    errno == libc::EINTR || errno == libc::EAGAIN
}

/// What `KVM_RUN` came back with.
///
/// # Safety
/// `run` is the shared page of the vCPU that has run.
#[inline(always)]
unsafe fn exit_of(result: isize, run: *mut kvm_run) -> Exit {
    // SAFETY: the caller's; the reason says which member of the union is filled in, and KVM puts
    // the data into the mapping that begins with `run`.
    unsafe {
        if result < 0 {
            return if is_interrupted(-result as i32) {
                Exit::Interrupted
            } else {
                Exit::Failed(-result as i32)
            };
        }
        let io = (*run).__bindgen_anon_1.io;
        match (*run).exit_reason {
            KVM_EXIT_IO if u32::from(io.direction) == KVM_EXIT_IO_OUT => Exit::Write {
                port: io.port,
                value: {
                    let data = run.cast::<u8>().add(io.data_offset as usize);
                    match io.size {
                        1 => u32::from(data.read()),
                        2 => u32::from(data.cast::<u16>().read_unaligned()),
                        _ => data.cast::<u32>().read_unaligned(),
                    }
                },
            },
            KVM_EXIT_INTR => Exit::Interrupted,
            reason => Exit::Other(reason),
        }
    }
}

fn value(data: &[u8]) -> u32 {
    match *data {
        [low] => u32::from(low),
        [low, high] => u32::from(u16::from_le_bytes([low, high])),
        [a, b, c, d, ..] => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

#[cold]
fn failed(errno: i32) -> Error {
    Error::Unexpected {
        reason: format!(
            "KVM_RUN failed: {}",
            std::io::Error::from_raw_os_error(errno)
        ),
    }
}

#[cold]
fn unexpected(reason: u32) -> Error {
    Error::Unexpected {
        reason: format!(
            "KVM_RUN returned with exit reason {reason} (linux/kvm.h) to a loop that knows port \
             writes only"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shared page, with what KVM puts behind its structure.
    #[repr(C)]
    struct Page {
        run: kvm_run,
        data: [u8; 4],
    }

    fn exit(result: isize, reason: u32, direction: u32, size: u8) -> Exit {
        let mut page = Page {
            run: kvm_run::default(),
            data: [0x78, 0x56, 0x34, 0x12],
        };
        page.run.exit_reason = reason;
        let io = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_4 {
            direction: direction as u8,
            size,
            port: 0x510,
            count: 1,
            data_offset: std::mem::offset_of!(Page, data) as u64,
        };
        page.run.__bindgen_anon_1.io = io;
        // SAFETY: a page of our own, with its data where it says.
        unsafe { exit_of(result, (&raw mut page).cast()) }
    }

    #[test]
    fn what_kvm_run_came_back_with_is_told_by_its_page() {
        for (size, expected) in [(1, 0x78), (2, 0x5678), (4, 0x1234_5678)] {
            let exit = exit(0, KVM_EXIT_IO, KVM_EXIT_IO_OUT, size);
            let Exit::Write { port, value } = exit else {
                panic!("a write of {size}");
            };
            assert_eq!((port, value), (0x510, expected));
        }
        // A read is no write; another reason has no port.
        assert!(matches!(
            exit(0, KVM_EXIT_IO, 0, 4),
            Exit::Other(KVM_EXIT_IO)
        ));
        assert!(matches!(exit(0, 6, 1, 4), Exit::Other(6)));
        assert!(matches!(exit(0, KVM_EXIT_INTR, 1, 4), Exit::Interrupted));
        // What the page says is not looked at where the call failed.
        for errno in [libc::EINTR, libc::EAGAIN] {
            let exit = exit(-(errno as isize), KVM_EXIT_IO, KVM_EXIT_IO_OUT, 4);
            assert!(matches!(exit, Exit::Interrupted));
        }
        let failed = exit(-(libc::EFAULT as isize), KVM_EXIT_IO, KVM_EXIT_IO_OUT, 4);
        assert!(matches!(failed, Exit::Failed(libc::EFAULT)));
    }

    #[test]
    fn a_value_is_as_many_bytes_as_were_written() {
        assert_eq!(value(&[]), 0);
        assert_eq!(value(&[0x78]), 0x78);
        assert_eq!(value(&[0x78, 0x56]), 0x5678);
        assert_eq!(value(&[0x78, 0x56, 0x34, 0x12]), 0x1234_5678);
    }
}
