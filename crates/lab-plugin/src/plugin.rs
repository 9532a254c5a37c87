//! What QEMU calls: installation, translation of blocks, execution of instructions.
//!
//! QEMU runs the lab's CPUs in turn in one thread, so the lock is never waited for. In this mode
//! QEMU 10.0 tells callbacks the index of the CPU that translated the code, not of the one that
//! executes it: with more than one CPU the index means nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::code::{VMRUN, rax_stays_known};
use crate::machine::Machine;
use crate::qemu::{self, Block, Id, Info};
use crate::stream::{Encoder, HEADER, LONGEST, Marker, Unread};

/// Bytes of stream that are kept before they are written.
const BUFFER: usize = 1 << 16;
/// Most distinct instructions that are told apart: what a lab executes in a window is some 10,000,
/// and a table of this many takes 200 MB.
const MOST_INSTRUCTIONS: usize = 1 << 22;

/// Marks the data of a callback whose instruction is the kernel's.
const KERNEL: usize = 1 << 32;
/// Marks the data of a VMRUN's callback at which registers cannot be read.
const UNREADABLE: usize = 1 << 33;

/// An instruction's address and machine code, and how much of the latter there is.
type Key = (u64, [u8; 16], u8);

struct Recorder {
    id: Id,
    /// Whether markers are ignored.
    idle: bool,
    /// Whether all code is instrumented, or will be as soon as QEMU comes to it.
    armed: bool,
    /// Whether a window is open.
    recording: bool,
    /// What looks into the machine, where that is possible.
    machine: Result<Machine, Unread>,
    /// While a guest runs: its VMCB.
    entered: Option<Result<u64, Unread>>,
    known: HashMap<Key, u32>,
    encoder: Encoder,
    buffer: Vec<u8>,
    out: File,
    lost: u64,
}

static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);

fn recorder() -> MutexGuard<'static, Option<Recorder>> {
    // A panic ends QEMU, so there is no poison to heed.
    RECORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    fn flush(&mut self) {
        // A full pipe makes this wait, and QEMU with it; virtual time does not pass meanwhile.
        if self.out.write_all(&self.buffer).is_err() {
            self.lost += 1;
        }
        self.buffer.clear();
    }

    /// An instruction is about to be executed.
    #[inline]
    fn executed(&mut self, cpu: c_uint, id: u32) {
        if !self.recording {
            return;
        }
        self.encoder.instruction(cpu, id, &mut self.buffer);
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    /// A guest has exited.
    fn exited(&mut self, vmcb: Result<u64, Unread>) {
        let reason = vmcb.and_then(|vmcb| Ok(self.machine?.exit(vmcb)));
        match reason {
            Ok(reason) => self.encoder.exit(reason, &mut self.buffer),
            Err(why) => self.encoder.unread(why, &mut self.buffer),
        }
    }

    /// The id of an instruction; `None` where it cannot have one.
    fn identify(&mut self, address: u64, code: [u8; 16], length: usize) -> Option<u32> {
        let full = self.known.len() >= MOST_INSTRUCTIONS;
        match self.known.entry((address, code, length as u8)) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(_) if full => None,
            Entry::Vacant(new) => {
                let code = code.get(..length)?;
                let id = self.encoder.define(address, code, &mut self.buffer)?;
                Some(*new.insert(id))
            }
        }
    }
}

/// QEMU loads the plugin: `fd=N` is the descriptor to write to, `idle=on` makes it deaf to markers.
#[unsafe(no_mangle)]
extern "C" fn qemu_plugin_install(
    id: Id,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: QEMU passes a valid structure with a C string in it.
    let (target, system, cpus) = unsafe {
        (
            CStr::from_ptr((*info).target_name),
            (*info).system_emulation,
            (*info).cpus,
        )
    };
    if target != c"x86_64" || !system {
        return refuse("the target is not an x86_64 machine");
    }
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: argv holds argc C strings.
    let arguments = (0..count).map(|at| unsafe { CStr::from_ptr(*argv.add(at)) });
    let (mut fd, mut idle) = (None, false);
    for argument in arguments.filter_map(|argument| argument.to_str().ok()) {
        match argument.split_once('=') {
            Some(("fd", number)) => fd = number.parse().ok(),
            Some(("idle", value)) => idle = value == "on",
            _ => {}
        }
    }
    let Some(fd) = fd else {
        return refuse("there is no argument fd=N");
    };
    // SAFETY: the descriptor was opened for this plugin by whoever started QEMU.
    let out = unsafe { File::from_raw_fd(fd) };
    let mut new = Recorder {
        id,
        idle,
        armed: false,
        recording: false,
        machine: match cpus {
            1 => Machine::find().ok_or(Unread::Symbols),
            _ => Err(Unread::Cpus),
        },
        entered: None,
        known: HashMap::new(),
        encoder: Encoder::default(),
        buffer: HEADER.to_vec(),
        out,
        lost: 0,
    };
    new.flush();
    if new.lost > 0 {
        return refuse("the descriptor fd=N cannot be written to");
    }
    *recorder() = Some(new);
    // SAFETY: the id is this plugin's.
    unsafe { qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, translate) };
    0
}

fn refuse(why: &str) -> c_int {
    eprintln!("exitpath's plugin: {why}");
    -1
}

/// A block is being translated: its markers get a callback, and once armed, every instruction.
extern "C" fn translate(_: Id, block: *mut Block) {
    let mut recorder = recorder();
    let Some(recorder) = recorder.as_mut() else {
        return;
    };
    // SAFETY: the block and its instructions are valid until this function returns.
    unsafe {
        let mut readable = true;
        for index in 0..qemu::qemu_plugin_tb_n_insns(block) {
            let instruction = qemu::qemu_plugin_tb_get_insn(block, index);
            let size = qemu::qemu_plugin_insn_size(instruction);
            if !recorder.armed && size != Marker::Arm.bytes().len() {
                continue;
            }
            let mut code = [0; 16];
            let length = qemu::machine_code(instruction, &mut code);
            let found = Marker::find(&code[..length.min(LONGEST)]);
            let (callback, data): (qemu::ExecuteCallback, usize) = match found {
                // Markers are not part of what is recorded.
                Some(marker) => (mark, marker as usize),
                None if recorder.armed => {
                    let address = qemu::qemu_plugin_insn_vaddr(instruction);
                    match recorder.identify(address, code, length) {
                        Some(id) if code[..length] == VMRUN => {
                            let data = id as usize | if readable { 0 } else { UNREADABLE };
                            (enter, data)
                        }
                        // Guests of the lab live below.
                        Some(id) if address >> 63 == 1 => (execute, id as usize | KERNEL),
                        Some(id) => (execute, id as usize),
                        None => (lose, 0),
                    }
                }
                None => continue,
            };
            readable = qemu::HEEDS_REGISTERS || rax_stays_known(readable, &code[..length]);
            let registers = match found.is_none() && code[..length] == VMRUN {
                true => qemu::READS_REGISTERS,
                false => qemu::NO_REGISTERS,
            };
            let data = data as *mut c_void;
            qemu::qemu_plugin_register_vcpu_insn_exec_cb(instruction, callback, registers, data);
        }
    }
}

/// An instruction is about to be executed.
extern "C" fn execute(cpu: c_uint, data: *mut c_void) {
    if let Some(recorder) = recorder().as_mut() {
        let data = data as usize;
        if data & KERNEL != 0
            && let Some(vmcb) = recorder.entered.take()
            && recorder.recording
        {
            recorder.exited(vmcb);
        }
        recorder.executed(cpu, data as u32);
    }
}

/// A VMRUN is about to be executed.
extern "C" fn enter(cpu: c_uint, data: *mut c_void) {
    if let Some(recorder) = recorder().as_mut() {
        let data = data as usize;
        recorder.executed(cpu, data as u32);
        recorder.entered = Some(match recorder.machine {
            Ok(_) if data & UNREADABLE != 0 => Err(Unread::Register),
            Ok(machine) => machine.vmcb(),
            Err(why) => Err(why),
        });
    }
}

/// An instruction without an id is about to be executed.
extern "C" fn lose(_: c_uint, _: *mut c_void) {
    if let Some(recorder) = recorder().as_mut()
        && recorder.recording
    {
        recorder.lost += 1;
    }
}

/// A marker is about to be executed.
extern "C" fn mark(_: c_uint, data: *mut c_void) {
    let mut recorder = recorder();
    let Some(recorder) = recorder.as_mut() else {
        return;
    };
    let marker = Marker::ALL.into_iter().nth(data as usize);
    match marker {
        Some(Marker::Arm) if !recorder.armed && !recorder.idle => {
            recorder.armed = true;
            // All translated code goes, and `rearm` is called when it is gone.
            // SAFETY: the id is this plugin's.
            unsafe { qemu::qemu_plugin_reset(recorder.id, rearm) };
        }
        Some(Marker::Start) if recorder.armed && !recorder.recording => {
            recorder.recording = true;
            recorder.encoder.start(&mut recorder.buffer);
        }
        Some(Marker::Stop) if recorder.recording => {
            recorder.recording = false;
            let lost = recorder.lost;
            recorder.encoder.stop(lost, &mut recorder.buffer);
            recorder.flush();
        }
        _ => {}
    }
}

extern "C" fn rearm(id: Id) {
    // SAFETY: the id is this plugin's.
    unsafe { qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, translate) };
}
