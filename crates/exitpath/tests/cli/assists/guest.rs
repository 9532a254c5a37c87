//! Guests of one instruction each, and the state that they end in.

use std::fmt::Write;

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_HW_BP, KVM_MAX_CPUID_ENTRIES, kvm_guest_debug,
    kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::cases::{Case, Mode};

/// Bytes of guest memory.
const MEMORY: usize = 64 << 20;
const GDT: u64 = 0x1000;
pub(super) const PML4: u64 = 0x2000;
/// Page tables of the first GiB and of the one with MMIO, in pages of 2 MiB.
const PDPT: u64 = 0x3000;
const PD: u64 = 0x4000;
const PD_MMIO: u64 = 0x5000;
/// Where exceptions go: an instruction that halts for each vector.
const STUBS: u64 = 0x6000;
const IDT: u64 = 0x7000;
/// Page table of what cases map anew.
const PT: u64 = 0x9000;
/// What cases map anew, by PT.
pub(super) const REMAPPED: u64 = 0xa0_0000;
/// The entry for it.
pub(super) const REMAPPED_ENTRY: u64 = PT;
/// Frames that it is mapped to, one behind the other, each with its number in its first word.
pub(super) const FRAMES: u64 = 0xb0_0000;
pub(super) const FRAME_COUNT: u64 = 32;
/// Where nothing is that KVM knows.
pub(super) const MMIO: u64 = 0xd000_0000;
pub(super) const CODE: u64 = 0x40_0000;
pub(super) const STACK: u64 = 0x60_0000;
/// Regions of 2 MiB that nothing has touched yet, for IDTs.
pub(super) const UNTOUCHED: u64 = 0x100_0000;
const REGION: u64 = 0x20_0000;
pub(super) const INTERRUPT_HANDLER: u64 = 0x50_0000;
/// Exits that a case may take.
const MOST_EXITS: usize = 64;

struct Memory(*mut u8);

impl Memory {
    fn new() -> Memory {
        let (read_write, private) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping of anonymous memory, checked for failure below.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), MEMORY, read_write, private, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "no memory for a guest");
        Memory(at.cast())
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).expect("an address");
        assert!(at + bytes.len() <= MEMORY, "outside guest memory");
        // SAFETY: the mapping has these bytes, and no vCPU runs meanwhile.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.add(at), bytes.len()) };
    }

    fn word(&self, at: u64, word: u64) {
        self.write(at, &word.to_le_bytes());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`.
        unsafe { libc::munmap(self.0.cast(), MEMORY) };
    }
}

/// A VM with a vCPU, tables and handlers.
struct Machine {
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: Memory,
    /// Untouched regions used so far.
    touched: u64,
}

fn gate(handler: u64) -> [u8; 16] {
    let low = handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&(handler >> 32).to_le_bytes());
    bytes
}

impl Machine {
    fn new(kvm: &Kvm) -> Machine {
        let vm = kvm.create_vm().expect("a VM");
        let memory = Memory::new();
        let region = kvm_userspace_memory_region {
            memory_size: MEMORY as u64,
            userspace_addr: memory.0 as u64,
            ..kvm_userspace_memory_region::default()
        };
        // SAFETY: the mapping outlives the VM, which is dropped before it.
        unsafe { vm.set_user_memory_region(region) }.expect("memory");
        let vcpu = vm.create_vcpu(0).expect("a vCPU");
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .expect("CPUID");
        vcpu.set_cpuid2(&cpuid).expect("CPUID");
        memory.word(PML4, PDPT | 7);
        memory.word(PDPT, PD | 7);
        memory.word(PDPT + 3 * 8, PD_MMIO | 7);
        for entry in 0..512 {
            memory.word(PD + 8 * entry, (entry * REGION) | 0x87);
            memory.word(PD_MMIO + 8 * entry, 3 << 30 | (entry * REGION) | 0x97);
        }
        memory.word(PD + 8 * (REMAPPED / REGION), PT | 7);
        for entry in 0..512 {
            memory.word(PT + 8 * entry, (REMAPPED + entry * 0x1000) | 7);
        }
        for frame in 0..FRAME_COUNT {
            memory.word(FRAMES + 0x1000 * frame, 0x1000 + frame);
        }
        memory.word(REMAPPED_ENTRY, FRAMES | 7);
        for (at, descriptor) in [(1, 0x00af_9b00_0000_ffff), (2, 0x00cf_9300_0000_ffff)] {
            memory.word(GDT + 8 * at, descriptor);
        }
        for vector in 0..32 {
            memory.write(IDT + 16 * vector, &gate(STUBS + 4 * vector));
        }
        memory.write(STUBS, &[0xf4; 128]);
        // pop rax; hlt: the address that an interrupt returns to.
        memory.write(INTERRUPT_HANDLER, &[0x58, 0xf4]);
        Machine {
            vcpu,
            _vm: vm,
            memory,
            touched: 0,
        }
    }

    fn set_up(&mut self, case: &Case) {
        let mut state = self.vcpu.get_sregs().expect("registers");
        let segment = |selector: u16, code: bool| kvm_segment {
            base: if case.mode == Mode::Real && code {
                0x1_0000
            } else {
                0
            },
            limit: if case.mode == Mode::Real {
                0xffff
            } else {
                0xffff_ffff
            },
            selector,
            type_: if code { 11 } else { 3 },
            present: 1,
            s: 1,
            db: u8::from(case.mode == Mode::Protected || (case.mode == Mode::Long && !code)),
            l: u8::from(case.mode == Mode::Long && code),
            g: u8::from(case.mode != Mode::Real),
            ..kvm_segment::default()
        };
        let selector = if case.mode == Mode::Real { 0x1000 } else { 8 };
        state.cs = segment(selector, true);
        for data in [
            &mut state.ds,
            &mut state.es,
            &mut state.ss,
            &mut state.fs,
            &mut state.gs,
        ] {
            *data = segment(if case.mode == Mode::Real { 0 } else { 16 }, false);
        }
        state.fs.base = case.fs_base;
        (state.gdt.base, state.gdt.limit) = (GDT, 0x17);
        (state.idt.base, state.idt.limit) = (IDT, 32 * 16 - 1);
        if let Some(vector) = case.interrupt {
            // A table that no guest has read yet: KVM gets to see a fault in the midst of the event.
            let idt = UNTOUCHED + REGION * self.touched;
            self.touched += 1;
            self.memory
                .write(idt + 16 * u64::from(vector), &gate(INTERRUPT_HANDLER));
            (state.idt.base, state.idt.limit) = (idt, 0xfff);
        }
        (state.cr0, state.cr4, state.efer) = match case.mode {
            Mode::Long => (0x8005_0033, 0x6a0, 0x500),
            Mode::Protected => (0x31, 0x600, 0),
            Mode::Real => (0x30, 0, 0),
        };
        (state.cr2, state.cr3, state.cr8) = (0, PML4, 0);
        self.vcpu.set_sregs(&state).expect("registers");
        let mut registers = self.vcpu.get_regs().expect("registers");
        for number in 0..16 {
            let value = 0x0101_0101 * (number + 1);
            *register(&mut registers, number as usize) = value;
        }
        registers.rsp = STACK;
        if case.mode == Mode::Real {
            registers.rsp = 0x8000;
        }
        for &(number, value) in &case.registers {
            *register(&mut registers, number) = value;
        }
        registers.rflags = 2;
        let linear = if case.mode == Mode::Real {
            0x1_0000
        } else {
            CODE
        } + case.offset;
        registers.rip = if case.mode == Mode::Real {
            case.offset
        } else {
            linear
        };
        let mut code = case.code.clone();
        code.extend([0xf4; 16]);
        self.memory.write(linear, &code);
        self.vcpu.set_regs(&registers).expect("registers");
        let mut debug = self.vcpu.get_debug_regs().expect("debug registers");
        (debug.db, debug.dr6, debug.dr7) = ([0x11, 0x22, 0x33, 0x44], 0xffff_0ff0, 0x400);
        self.vcpu.set_debug_regs(&debug).expect("debug registers");
        let mut guest_debug = kvm_guest_debug::default();
        if case.debug {
            guest_debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
            guest_debug.arch.debugreg[7] = 0x400;
        }
        self.vcpu
            .set_guest_debug(&guest_debug)
            .expect("guest debugging");
    }

    /// Runs a case to its end. Whether the machine can be used for another one.
    fn run(&mut self, case: &Case, line: &mut String) -> bool {
        self.set_up(case);
        let mut goes_on = true;
        for _ in 0..MOST_EXITS {
            match self.vcpu.run() {
                Ok(VcpuExit::Hlt) => break,
                Ok(VcpuExit::IoIn(port, data)) => {
                    data.fill(0x5a);
                    let _ = write!(line, " in {port:x}/{}", data.len());
                }
                Ok(VcpuExit::IoOut(port, data)) => {
                    let _ = write!(line, " out {port:x} {data:x?}");
                }
                Ok(VcpuExit::MmioRead(address, data)) => {
                    for (at, byte) in data.iter_mut().enumerate() {
                        *byte = 0x81 + at as u8;
                    }
                    let _ = write!(line, " read {address:x}/{}", data.len());
                }
                Ok(VcpuExit::MmioWrite(address, data)) => {
                    let _ = write!(line, " write {address:x} {data:x?}");
                }
                Ok(other) => {
                    goes_on = matches!(other, VcpuExit::SetTpr);
                    let _ = write!(line, " {other:?}");
                    if !goes_on {
                        break;
                    }
                }
                Err(error) => {
                    let _ = write!(line, " {error}");
                    goes_on = false;
                    break;
                }
            }
        }
        let registers = self.vcpu.get_regs().expect("registers");
        let state = self.vcpu.get_sregs().expect("registers");
        let debug = self.vcpu.get_debug_regs().expect("debug registers");
        let mut all = registers;
        let general: Vec<u64> = (0..16).map(|number| *register(&mut all, number)).collect();
        let _ = write!(
            line,
            " rip {:x} flags {:x} registers {general:x?} cr {:x} {:x} {:x} {:x} {:x} efer {:x} dr {:x?} {:x} {:x}",
            registers.rip,
            registers.rflags,
            state.cr0,
            state.cr2,
            state.cr3,
            state.cr4,
            state.cr8,
            state.efer,
            debug.db,
            debug.dr6,
            debug.dr7
        );
        if let Some((expected, stale)) = case.expected {
            let _ = match registers.rax {
                rax if rax == expected => write!(line, " as expected"),
                rax if Some(rax) == stale => write!(line, " stale"),
                _ => write!(line, " not what was expected, {expected:x}"),
            };
        }
        goes_on
    }
}

/// A general-purpose register by the number that instructions have for it.
fn register(registers: &mut kvm_bindings::kvm_regs, number: usize) -> &mut u64 {
    match number {
        0 => &mut registers.rax,
        1 => &mut registers.rcx,
        2 => &mut registers.rdx,
        3 => &mut registers.rbx,
        4 => &mut registers.rsp,
        5 => &mut registers.rbp,
        6 => &mut registers.rsi,
        7 => &mut registers.rdi,
        8 => &mut registers.r8,
        9 => &mut registers.r9,
        10 => &mut registers.r10,
        11 => &mut registers.r11,
        12 => &mut registers.r12,
        13 => &mut registers.r13,
        14 => &mut registers.r14,
        _ => &mut registers.r15,
    }
}

/// A timer whose signal ends a guest that does not end by itself.
struct Watch(libc::timer_t);

impl Watch {
    fn new() -> Watch {
        extern "C" fn nothing(_: libc::c_int) {}
        // SAFETY: a handler that does nothing, without SA_RESTART, so that KVM_RUN ends; a timer that signals this thread.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGALRM;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer = std::ptr::null_mut();
            let made = libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer);
            assert_eq!(made, 0, "a timer");
            Watch(timer)
        }
    }

    /// A second from now.
    fn wind(&self) {
        // SAFETY: a timer that exists, and a whole value.
        unsafe {
            let mut value: libc::itimerspec = std::mem::zeroed();
            value.it_value.tv_sec = 1;
            libc::timer_settime(self.0, 0, &raw const value, std::ptr::null_mut());
        }
    }
}

/// Runs the cases and prints a line for each.
pub(super) fn run(cases: &[Case], mut each: impl FnMut(&str)) {
    let kvm = Kvm::new().expect("KVM");
    let mut machine = Machine::new(&kvm);
    let watch = Watch::new();
    for case in cases {
        watch.wind();
        if machine.touched >= 20 {
            machine = Machine::new(&kvm);
        }
        let mut line = format!("{:?} {:02x?}", case.mode, case.code);
        if !machine.run(case, &mut line) {
            machine = Machine::new(&kvm);
        }
        each(&line);
    }
}
