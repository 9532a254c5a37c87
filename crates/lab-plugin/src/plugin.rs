//! What QEMU calls: installation, translation of blocks, execution of instructions.
//!
//! QEMU runs the lab's CPUs in turn in one thread, so the lock is never waited for. In this mode
//! QEMU 10.0 tells callbacks the index of the CPU that translated the code, not of the one that
//! executes it: which one that is, [`Machine::current`] says.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::assists::Features;
use crate::code::{VMRUN, rax_stays_known};
use crate::machine::Machine;
use crate::qemu::{self, Block, Id, Info};
use crate::recorder::Recorder;
use crate::stream::{LONGEST, Marker, Unread};
use crate::vmcb::{Entered, Note, Vmcb};

/// Marks the data of a callback whose instruction has no id.
const NAMELESS: usize = 1 << 32;
/// Marks the data of a VMRUN's callback at which registers cannot be read.
const UNREADABLE: usize = 1 << 33;
/// Most distinct instructions of guests that are told apart.
const MOST_NOTES: usize = 1 << 21;

/// What is known of a CPU.
#[derive(Default)]
struct Cpu {
    /// While it runs a guest: what was changed when it entered.
    entered: Option<Entered>,
}

/// Of each CPU the guest's instruction that began last; null where none has since it entered. Apart from the rest, for
/// this is written at each instruction of a guest, and a lock would take longer than all else there.
static LAST: [AtomicPtr<Instruction>; MOST_CPUS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; MOST_CPUS];
/// CPUs of a machine that features can be supplied to.
const MOST_CPUS: usize = 8;

/// A guest's instruction, for as long as QEMU runs: translated code refers to it.
struct Instruction {
    note: Note,
    /// Its id where all code is instrumented.
    id: Option<u32>,
}

struct Plugin {
    id: Id,
    features: Features,
    /// What looks into the machine, where that is possible.
    machine: Result<Machine, Unread>,
    cpus: Vec<Cpu>,
    /// Where guests exit to, behind each VMRUN: the address, and where the machine's memory with it lies in QEMU's own.
    exits: HashMap<u64, usize>,
    /// Guests' instructions, by address, place in QEMU's memory and code.
    notes: HashMap<(u64, usize, [u8; 16]), &'static Instruction>,
    recorder: Option<Recorder>,
    complained: bool,
}

static PLUGIN: Mutex<Option<Plugin>> = Mutex::new(None);

fn plugin() -> MutexGuard<'static, Option<Plugin>> {
    // A panic ends QEMU, so there is no poison to heed.
    PLUGIN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// QEMU loads the plugin. Arguments:
///
/// - `fd=N`: instructions are recorded, to this descriptor; `idle=on` makes that deaf to markers
/// - `nrip-save=on`, `decodeassists=on`, `flushbyasid=on`: these features of SVM are supplied
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
    let cpus = usize::try_from(cpus).unwrap_or(1).max(1);
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: argv holds argc C strings.
    let arguments = (0..count).map(|at| unsafe { CStr::from_ptr(*argv.add(at)) });
    let (mut fd, mut idle, mut features) = (None, false, Features::default());
    for argument in arguments.filter_map(|argument| argument.to_str().ok()) {
        match argument.split_once('=') {
            Some(("fd", number)) => fd = number.parse().ok(),
            Some(("idle", value)) => idle = value == "on",
            Some((name, value)) => match features.by_name(name) {
                Some(feature) => *feature = value == "on",
                None => return refuse("there is an argument that it does not know"),
            },
            None => return refuse("there is an argument without a value"),
        }
    }
    if features.any() && cpus > MOST_CPUS {
        return refuse("features can be supplied to 8 CPUs at most");
    }
    let machine = Machine::find(cpus).ok_or(Unread::Symbols);
    if features.any() && machine.is_err() {
        return refuse(Unread::Symbols.why());
    }
    let mut recorder = None;
    if let Some(fd) = fd {
        // SAFETY: the descriptor was opened for this plugin by whoever started QEMU.
        let out = unsafe { File::from_raw_fd(fd) };
        recorder = Recorder::new(out, idle);
        if recorder.is_none() {
            return refuse("the descriptor fd=N cannot be written to");
        }
    }
    *plugin() = Some(Plugin {
        id,
        features,
        machine,
        cpus: (0..cpus).map(|_| Cpu::default()).collect(),
        exits: HashMap::new(),
        notes: HashMap::new(),
        recorder,
        complained: false,
    });
    // SAFETY: the id is this plugin's.
    unsafe { qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, translate) };
    0
}

fn refuse(why: &str) -> c_int {
    eprintln!("exitpath's plugin: {why}");
    -1
}

impl Plugin {
    /// Says what went wrong, once. Whoever started QEMU ends it then.
    fn complain(&mut self, what: &str) {
        if !self.complained {
            self.complained = true;
            eprintln!("exitpath's plugin: {what}");
        }
    }

    /// Index of the CPU that executes; `told` is what QEMU said.
    #[inline]
    fn current(&self, told: c_uint) -> usize {
        let current = self.machine.ok().and_then(Machine::current);
        current.unwrap_or(told as usize).min(self.cpus.len() - 1)
    }

    fn is_armed(&self) -> bool {
        self.recorder.as_ref().is_some_and(Recorder::is_armed)
    }

    /// An instruction is about to be executed.
    #[inline]
    fn executed(&mut self, cpu: usize, data: usize) {
        if let Some(recorder) = &mut self.recorder {
            recorder.executed(cpu, (data & NAMELESS == 0).then_some(data as u32));
        }
    }

    /// Whether a block begins where a guest exits to.
    ///
    /// # Safety
    /// The block must be one that is being translated.
    unsafe fn begins_behind_vmrun(&self, block: *const Block) -> bool {
        // SAFETY: as the caller promises; a block has an instruction.
        unsafe {
            let first = qemu::qemu_plugin_tb_get_insn(block, 0);
            let memory = qemu::qemu_plugin_insn_haddr(first) as usize;
            self.exits.get(&qemu::qemu_plugin_insn_vaddr(first)) == Some(&memory)
        }
    }

    /// The guest's instruction that this is, kept for as long as QEMU runs.
    fn note(&mut self, note: Note, id: Option<u32>) -> Option<&'static Instruction> {
        let key = (note.address, note.memory as usize, note.code);
        if let Some(known) = self.notes.get(&key) {
            return Some(known);
        }
        if self.notes.len() >= MOST_NOTES {
            self.complain("guests have executed more instructions than can be told apart");
            return None;
        }
        let new: &'static Instruction = Box::leak(Box::new(Instruction { note, id }));
        self.notes.insert(key, new);
        Some(new)
    }

    /// A VMRUN is about to be executed.
    fn enter(&mut self, cpu: usize, readable: bool) {
        // A guest's VMRUN exits: its host is the guest.
        if self.cpus[cpu].entered.is_some() {
            return;
        }
        let mut entered = Entered::default();
        if let (true, Ok(machine)) = (self.features.any(), self.machine) {
            match Vmcb::in_rax(machine, cpu) {
                Ok(vmcb) if readable => entered = vmcb.enter(self.features),
                _ if readable => self.complain("RAX at VMRUN is the address of no VMCB"),
                _ => self.complain(
                    "this QEMU shows its plugins registers as they were when a block of code began, and this \
                     kernel's VMRUN is too far behind that; QEMU 10 has no such limit (`exitpath lab qemu`)",
                ),
            }
        }
        LAST[cpu].store(std::ptr::null_mut(), Relaxed);
        self.cpus[cpu].entered = Some(entered);
    }

    /// A guest has exited, and its host's first instruction is about to be executed.
    fn leave(&mut self, cpu: usize) {
        let Some(entered) = self.cpus[cpu].entered.take() else {
            return;
        };
        // The CPU has put back what its host had in RAX at VMRUN, and no code has run since.
        let vmcb = self.machine.and_then(|machine| Vmcb::in_rax(machine, cpu));
        if self.features.any() {
            // SAFETY: what is there is an instruction that is kept for as long as QEMU runs.
            let last = unsafe { LAST[cpu].load(Relaxed).as_ref() };
            let last = last.map(|last| &last.note);
            let supplied = match vmcb {
                Ok(vmcb) => vmcb.leave(self.features, &entered, last, cpu),
                Err(why) => Err(why.why().to_owned()),
            };
            if let Err(what) = supplied {
                self.complain(&what);
            }
        }
        if let Some(recorder) = self
            .recorder
            .as_mut()
            .filter(|recorder| recorder.is_recording())
        {
            recorder.exited(cpu, vmcb.map(Vmcb::exit));
        }
    }
}

/// A block is being translated: its markers, each VMRUN and what is behind it, and guests' instructions get a
/// callback, and once armed, every instruction.
extern "C" fn translate(_: Id, block: *mut Block) {
    let mut plugin = plugin();
    let Some(plugin) = plugin.as_mut() else {
        return;
    };
    let armed = plugin.is_armed();
    let supplies = plugin.features.any();
    // SAFETY: the block and its instructions are valid until this function returns.
    let leaves = !plugin.exits.is_empty() && unsafe { plugin.begins_behind_vmrun(block) };
    // Guests' code is translated for guests alone, and when they come to it.
    let guest = supplies && !leaves && plugin.cpus[plugin.current(0)].entered.is_some();
    // SAFETY: the block and its instructions are valid until this function returns.
    unsafe {
        for index in 0..qemu::qemu_plugin_tb_n_insns(block) {
            let instruction = qemu::qemu_plugin_tb_get_insn(block, index);
            let size = qemu::qemu_plugin_insn_size(instruction);
            let first = index == 0 && leaves;
            let marker = size == Marker::Arm.bytes().len() && plugin.recorder.is_some();
            if !(armed || guest || first || marker || (supplies && size <= VMRUN.len())) {
                continue;
            }
            let mut code = [0; 16];
            let length = qemu::machine_code(instruction, &mut code);
            let address = qemu::qemu_plugin_insn_vaddr(instruction);
            let memory = qemu::qemu_plugin_insn_haddr(instruction);
            let found = Marker::find(&code[..length.min(LONGEST)]);
            let id = match &mut plugin.recorder {
                Some(recorder) if armed && found.is_none() => {
                    recorder.identify(address, code, length)
                }
                _ => None,
            };
            let data = id.map_or(NAMELESS, |id| id as usize);
            let mut registers = qemu::NO_REGISTERS;
            let (callback, data): (qemu::ExecuteCallback, usize) = match found {
                // Markers are not part of what is recorded.
                Some(marker) => (mark, marker as usize),
                None if !guest && code[..length] == VMRUN => {
                    let behind = (memory as usize).wrapping_add(length);
                    plugin
                        .exits
                        .insert(address.wrapping_add(length as u64), behind);
                    registers = qemu::READS_REGISTERS;
                    (
                        enter,
                        data | if rax_is_known(block, index) {
                            0
                        } else {
                            UNREADABLE
                        },
                    )
                }
                None if first => {
                    registers = qemu::READS_REGISTERS;
                    (leave, data)
                }
                None if guest => {
                    let note = Note {
                        address,
                        code,
                        length: length as u8,
                        memory: memory.cast(),
                    };
                    match plugin.note(note, id) {
                        Some(kept) => {
                            let callback = match plugin.cpus.len() {
                                _ if armed => inside_recorded,
                                1 => inside_of_one,
                                _ => inside,
                            };
                            (callback, std::ptr::from_ref(kept) as usize)
                        }
                        None => continue,
                    }
                }
                None if armed => (execute, data),
                None => continue,
            };
            let data = data as *mut c_void;
            qemu::qemu_plugin_register_vcpu_insn_exec_cb(instruction, callback, registers, data);
        }
    }
}

/// Whether RAX can be read before this instruction of a block.
///
/// # Safety
/// The block must be one that is being translated.
unsafe fn rax_is_known(block: *const Block, before: usize) -> bool {
    qemu::HEEDS_REGISTERS
        || (0..before).fold(true, |known, index| {
            let mut code = [0; 16];
            // SAFETY: as the caller promises.
            let length = unsafe {
                qemu::machine_code(qemu::qemu_plugin_tb_get_insn(block, index), &mut code)
            };
            rax_stays_known(known, &code[..length])
        })
}

/// An instruction of the host is about to be executed.
extern "C" fn execute(cpu: c_uint, data: *mut c_void) {
    if let Some(plugin) = plugin().as_mut() {
        plugin.executed(plugin.current(cpu), data as usize);
    }
}

/// An instruction of a guest is about to be executed, on a machine of one CPU.
extern "C" fn inside_of_one(_: c_uint, data: *mut c_void) {
    LAST[0].store(data.cast(), Relaxed);
}

/// An instruction of a guest is about to be executed.
extern "C" fn inside(cpu: c_uint, data: *mut c_void) {
    if let Some(plugin) = plugin().as_mut() {
        LAST[plugin.current(cpu)].store(data.cast(), Relaxed);
    }
}

/// An instruction of a guest is about to be executed, and may be recorded.
extern "C" fn inside_recorded(cpu: c_uint, data: *mut c_void) {
    // SAFETY: the data of this callback is an instruction that is kept for as long as QEMU runs.
    let instruction: &'static Instruction = unsafe { &*data.cast() };
    if let Some(plugin) = plugin().as_mut() {
        let cpu = plugin.current(cpu);
        LAST[cpu].store(data.cast(), Relaxed);
        if let Some(recorder) = &mut plugin.recorder {
            recorder.executed(cpu, instruction.id);
        }
    }
}

/// A VMRUN is about to be executed.
extern "C" fn enter(cpu: c_uint, data: *mut c_void) {
    if let Some(plugin) = plugin().as_mut() {
        let (cpu, data) = (plugin.current(cpu), data as usize);
        plugin.executed(cpu, data);
        plugin.enter(cpu, data & UNREADABLE == 0);
    }
}

/// What is behind a VMRUN is about to be executed: its guest has exited.
extern "C" fn leave(cpu: c_uint, data: *mut c_void) {
    if let Some(plugin) = plugin().as_mut() {
        let cpu = plugin.current(cpu);
        plugin.leave(cpu);
        plugin.executed(cpu, data as usize);
    }
}

/// A marker is about to be executed.
extern "C" fn mark(_: c_uint, data: *mut c_void) {
    let mut plugin = plugin();
    let Some(plugin) = plugin.as_mut() else {
        return;
    };
    let marker = Marker::ALL.into_iter().nth(data as usize);
    if let (Some(marker), Some(recorder)) = (marker, &mut plugin.recorder)
        && recorder.mark(marker)
    {
        // Instructions have ids from now on.
        plugin.notes.clear();
        // All translated code goes, and `rearm` is called when it is gone.
        // SAFETY: the id is this plugin's.
        unsafe { qemu::qemu_plugin_reset(plugin.id, rearm) };
    }
}

extern "C" fn rearm(id: Id) {
    // SAFETY: the id is this plugin's.
    unsafe { qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, translate) };
}
