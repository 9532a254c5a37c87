//! The VMCB of a guest: what is read from it and written to it at VMRUN and at #VMEXIT.
//!
//! Offsets are those of AMD64 Architecture Programmer's Manual, volume 2, appendix B.

use crate::assists::{self, Exit, Features, Last};
use crate::code::Segment;
use crate::machine::{Machine, gdb};
use crate::stream::Unread;

/// Bytes of a page: a VMCB is one.
const PAGE: u64 = 4096;
/// The word whose bit 0 intercepts VMRUN, without which no CPU takes it.
const INTERCEPTS: u64 = 0x10;
const TLB_CONTROL: u64 = 0x5c;
/// EXITCODE; EXITINFO1 and EXITINFO2 follow.
const EXIT_CODE: u64 = 0x70;
const EXIT_INFO_1: u64 = 0x78;
const EXIT_EVENT: u64 = 0x88;
const INJECTED_EVENT: u64 = 0xa8;
const NEXT_RIP: u64 = 0xc8;
/// Number of bytes of the instruction, and then these.
const FETCHED: u64 = 0xd0;
const STATE: u64 = 0x400;
const CODE_ATTRIBUTES: u64 = STATE + 0x12;
const EFER: u64 = STATE + 0xd0;
const RIP: u64 = STATE + 0x178;
const RSP: u64 = STATE + 0x1d8;
const RAX: u64 = STATE + 0x1f8;

const EFER_LONG_ACTIVE: u64 = 1 << 10;
/// Of a code segment's attributes: 64-bit code, and 32-bit code.
const CODE_LONG: u16 = 1 << 9;
const CODE_WIDE: u16 = 1 << 10;

/// Where a segment's base is.
const fn base_of(segment: Segment) -> u64 {
    let number = match segment {
        Segment::Es => 0,
        Segment::Cs => 1,
        Segment::Ss => 2,
        Segment::Ds => 3,
        Segment::Fs => 4,
        Segment::Gs => 5,
    };
    STATE + 0x10 * number + 8
}

/// A guest's instruction that began, and where the machine's memory with it lies in QEMU's own.
pub(crate) struct Note {
    pub(crate) address: u64,
    pub(crate) code: [u8; 16],
    pub(crate) length: u8,
    /// Null where that is not known.
    pub(crate) memory: *const u8,
}

// SAFETY: QEMU's memory of the machine stays where it is as long as QEMU runs, and the pointer is only read.
unsafe impl Send for Note {}
// SAFETY: the same.
unsafe impl Sync for Note {}

impl Note {
    /// Bytes from the instruction's first one to the end of its page, or else its own.
    fn fetched(&self, most: usize) -> Vec<u8> {
        let to_end = (PAGE - self.address % PAGE) as usize;
        let own = &self.code[..self.length.into()];
        if self.memory.is_null() || to_end < own.len() {
            return own.to_vec();
        }
        // SAFETY: the page has so many bytes behind this one.
        unsafe { std::slice::from_raw_parts(self.memory, most.min(to_end)) }.to_vec()
    }
}

/// What was changed at a VMRUN, to be put back when its guest exits.
#[derive(Default)]
pub(crate) struct Entered {
    /// RIP before it became next RIP for an injected event, and next RIP.
    moved: Option<(u64, u64)>,
    /// How the TLB is to be flushed.
    flush: Option<u8>,
}

#[derive(Clone, Copy)]
pub(crate) struct Vmcb {
    machine: Machine,
    address: u64,
}

impl Vmcb {
    /// The VMCB whose physical address a CPU has in RAX.
    pub(crate) fn in_rax(machine: Machine, cpu: usize) -> Result<Vmcb, Unread> {
        let address = machine.register(cpu, gdb::RAX);
        let vmcb = Vmcb { machine, address };
        if address == 0 || !address.is_multiple_of(PAGE) || vmcb.word(INTERCEPTS) & 1 == 0 {
            return Err(Unread::Address);
        }
        Ok(vmcb)
    }

    /// Exit code, EXITINFO1 and EXITINFO2.
    pub(crate) fn exit(self) -> [u64; 3] {
        [0, 8, 16].map(|offset| self.word(EXIT_CODE + offset))
    }

    /// Before VMRUN: has QEMU do what the features mean for how a guest is entered.
    pub(crate) fn enter(self, features: Features) -> Entered {
        let mut entered = Entered::default();
        if features.next_rip && assists::returns_to_next_rip(self.short(INJECTED_EVENT)) {
            let next = self.word(NEXT_RIP);
            if next != 0 {
                entered.moved = Some((self.word(RIP), next));
                self.set(RIP, next);
            }
        }
        if features.flush_by_asid {
            let [wanted] = self.machine.read(self.address + TLB_CONTROL);
            if let Some(known) = assists::flush_known_to_qemu(wanted) {
                entered.flush = Some(wanted);
                self.machine.write(self.address + TLB_CONTROL, &[known]);
            }
        }
        entered
    }

    /// After #VMEXIT: leaves what the features promise.
    ///
    /// # Errors
    /// What does not fit together, in words.
    pub(crate) fn leave(
        self,
        features: Features,
        entered: &Entered,
        last: Option<&Note>,
        cpu: usize,
    ) -> Result<(), String> {
        if let Some(flush) = entered.flush {
            self.machine.write(self.address + TLB_CONTROL, &[flush]);
        }
        // The event was not delivered, so that the guest is still before its instruction.
        let event = self.short(EXIT_EVENT);
        if let Some((rip, next)) = entered.moved
            && assists::returns_to_next_rip(event)
            && self.word(RIP) == next
        {
            self.set(RIP, rip);
        }
        let attributes = u16::from_le_bytes(self.machine.read(self.address + CODE_ATTRIBUTES));
        let [code, info, _] = self.exit();
        let exit = Exit {
            code,
            info,
            rip: self.word(RIP),
            code_base: self.word(base_of(Segment::Cs)),
            long: self.word(EFER) & EFER_LONG_ACTIVE != 0 && attributes & CODE_LONG != 0,
            wide: attributes & CODE_WIDE != 0,
        };
        let told = last.map(|note| Last {
            address: note.address,
            code: &note.code[..note.length.into()],
        });
        let next = |length: usize| exit.rip.wrapping_add(length as u64);
        let values = assists::values(features, exit, told, |operand| {
            let register = |number: u8| match number {
                0 => self.word(RAX),
                4 => self.word(RSP),
                other => self
                    .machine
                    .register(cpu, gdb::BY_NUMBER[usize::from(other & 15)]),
            };
            let base = |segment| match segment {
                // These two are the guest's still.
                Segment::Fs => self.machine.register(cpu, gdb::FS_BASE),
                Segment::Gs => self.machine.register(cpu, gdb::GS_BASE),
                _ if exit.long => 0,
                segment => self.word(base_of(segment)),
            };
            operand.address(register, base, next(told.map_or(0, |last| last.code.len())))
        });
        let values = values.map_err(|why| {
            format!(
                "{why}: exit code {code:#x} at {:#x} (segment {:#x}), last was {:x?}",
                exit.rip,
                exit.code_base,
                told.map(|last| (last.address, last.code))
            )
        })?;
        if let Some(next_rip) = values.next_rip {
            self.set(NEXT_RIP, next_rip);
        }
        if let Some(code) = values.code {
            self.set(EXIT_CODE, code);
        }
        if let Some(info) = values.info {
            self.set(EXIT_INFO_1, info);
        }
        if let Some(most) = values.bytes {
            let bytes = match last {
                Some(note) if most > 0 => note.fetched(most),
                _ => Vec::new(),
            };
            let mut field = [0; 1 + assists::MOST_BYTES];
            field[0] = bytes.len() as u8;
            field[1..=bytes.len()].copy_from_slice(&bytes);
            self.machine.write(self.address + FETCHED, &field);
        }
        Ok(())
    }

    fn word(self, offset: u64) -> u64 {
        self.machine.word(self.address + offset)
    }

    fn short(self, offset: u64) -> u32 {
        u32::from_le_bytes(self.machine.read(self.address + offset))
    }

    fn set(self, offset: u64, word: u64) {
        self.machine
            .write(self.address + offset, &word.to_le_bytes());
    }
}
