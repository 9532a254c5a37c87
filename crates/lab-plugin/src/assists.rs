//! What a CPU of AMD's leaves in the VMCB at #VMEXIT beyond what QEMU's emulation does: next RIP and decode assists.
//!
//! Source of codes and fields: AMD64 Architecture Programmer's Manual, volume 2, sections 15.7.1 (state saved on exit),
//! 15.20 (event injection) and 15.33 (decode assists), appendices B and C.

use crate::code::{Operand, operand_of_invlpg, system_move};

/// Features of SVM that the plugin supplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// NRIPS: the address behind the instruction that exited.
    pub next_rip: bool,
    /// Decode assists: register numbers, the address of INVLPG, bytes of the instruction.
    pub decode: bool,
    /// Flush by ASID: two more ways to ask for a flush of the TLB.
    pub flush_by_asid: bool,
}

impl Features {
    /// Each with the name by which QEMU's `-cpu` and the plugin's arguments have it.
    pub const NAMES: [&'static str; 3] = ["nrip-save", "decodeassists", "flushbyasid"];

    /// The feature of this name.
    pub fn by_name(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "nrip-save" => Some(&mut self.next_rip),
            "decodeassists" => Some(&mut self.decode),
            "flushbyasid" => Some(&mut self.flush_by_asid),
            _ => None,
        }
    }

    /// Whether there is any.
    pub fn any(self) -> bool {
        self.next_rip || self.decode || self.flush_by_asid
    }
}

/// An exit as QEMU left it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exit {
    /// EXITCODE.
    pub code: u64,
    /// EXITINFO1.
    pub info: u64,
    /// The guest's RIP.
    pub rip: u64,
    /// Base of its code segment.
    pub code_base: u64,
    /// Whether it ran 64-bit code.
    pub long: bool,
    /// Whether it ran 32-bit code.
    pub wide: bool,
}

/// The guest's instruction that began last.
#[derive(Debug, Clone, Copy)]
pub struct Last<'a> {
    /// Its linear address.
    pub address: u64,
    /// Its machine code.
    pub code: &'a [u8],
}

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Values {
    /// To the field for next RIP.
    pub next_rip: Option<u64>,
    /// To EXITCODE: QEMU 10 says of every MOV from a control register that it was from CR0.
    pub code: Option<u64>,
    /// To EXITINFO1.
    pub info: Option<u64>,
    /// How many bytes of the instruction are to be had: to the field for them go so many, and this number.
    pub bytes: Option<usize>,
}

/// Bit of EXITINFO1: the instruction was a MOV to or from CRn.
const IS_MOV_CR: u64 = 1 << 63;
/// Bit of EXITINFO1 of a fault: it was the instruction's own fetch.
const OF_FETCH: u64 = 1 << 4;
/// Exit code of a nested page fault.
const NPF: u64 = 0x400;
/// Exit code of an intercepted page fault.
const PF: u64 = 0x4e;
/// Exit code of INVLPG.
const INVLPG: u64 = 0x79;
/// Exit code of a MOV to CR0 that changes more than TS and MP.
const CR0_SELECTIVE: u64 = 0x65;
/// Most bytes of an instruction that the VMCB holds.
pub const MOST_BYTES: usize = 15;

/// Whether a CPU saves next RIP at exits with this code: those of intercepted instructions, and the exceptions of
/// INT3 and INTO.
pub fn saves_next_rip(code: u64, instruction: &[u8]) -> bool {
    match code {
        // CR0 to CR15 and DR0 to DR15, read and write.
        0x00..=0x3f => true,
        0x43 => instruction == [0xcc],
        0x44 => instruction == [0xce],
        // Selective CR0, descriptor tables, RDTSC to RDPRU; of these a task switch, FERR_FREEZE and shutdown are none.
        0x65..=0x7c | 0x80..=0x8e => true,
        // INVLPGB, INVPCID, MCOMMIT, TLBSYNC.
        0xa0 | 0xa2..=0xa4 => true,
        _ => false,
    }
}

/// What such a CPU leaves at this exit, or why that cannot be told. `address` makes a linear address of INVLPG's
/// operand.
///
/// # Errors
/// What does not fit together, in words.
pub fn values(
    features: Features,
    exit: Exit,
    last: Option<Last<'_>>,
    address: impl FnOnce(Operand) -> u64,
) -> Result<Values, &'static str> {
    let mut values = Values {
        next_rip: features.next_rip.then_some(0),
        ..Values::default()
    };
    let last_of_all = last;
    let last = last.filter(|last| is_at(exit, last.address));
    let instruction = last.map_or(&[][..], |last| last.code);
    if saves_next_rip(exit.code, last_of_all.map_or(&[][..], |last| last.code)) {
        let last = last.ok_or("an instruction exited, and not the one that began last")?;
        let next = exit.rip.wrapping_add(last.code.len() as u64);
        if features.next_rip {
            values.next_rip = Some(if exit.long { next } else { next & 0xffff_ffff });
        }
    }
    if !features.decode {
        return Ok(values);
    }
    match exit.code {
        0x00..=0x1f | CR0_SELECTIVE => {
            let moved = system_move(instruction);
            // LMSW, SMSW and CLTS come with the bit clear.
            values.info = Some(moved.map_or(0, |moved| IS_MOV_CR | u64::from(moved.general)));
            if let Some(moved) = moved.filter(|_| exit.code != CR0_SELECTIVE) {
                let code = u64::from(moved.system) | u64::from(moved.writes) << 4;
                values.code = (code != exit.code).then_some(code);
            }
        }
        0x20..=0x3f => {
            let moved = system_move(instruction).ok_or("MOV DRn exited, and is none")?;
            values.info = Some(moved.general.into());
        }
        INVLPG => {
            let operand = operand_of_invlpg(instruction, exit.long, exit.wide);
            values.info = Some(address(operand.ok_or("INVLPG exited, and is none")?));
        }
        NPF | PF if exit.info & OF_FETCH != 0 => values.bytes = Some(0),
        // An event's delivery faults without an instruction that began.
        NPF | PF => values.bytes = Some(last.map_or(0, |_| MOST_BYTES)),
        _ => {}
    }
    Ok(values)
}

/// Whether the guest's RIP is this linear address.
fn is_at(exit: Exit, address: u64) -> bool {
    match exit.long {
        true => exit.rip == address,
        false => exit.code_base.wrapping_add(exit.rip) as u32 == address as u32,
    }
}

/// Whether an event to inject is a software interrupt, or the exception of INT3 or INTO: a CPU with NRIPS has it return to
/// next RIP, where QEMU has it return to RIP.
pub fn returns_to_next_rip(event: u32) -> bool {
    let (vector, kind) = (event & 0xff, event >> 8 & 7);
    event >> 31 == 1 && (kind == 4 || (kind == 3 && matches!(vector, 3 | 4)))
}

/// What QEMU is to be asked for where this is how the TLB is to be flushed: it knows nothing, and everything.
pub fn flush_known_to_qemu(tlb_control: u8) -> Option<u8> {
    match tlb_control {
        // This guest's entries, and those of them that are not global.
        3 | 7 => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Features = Features {
        next_rip: true,
        decode: true,
        flush_by_asid: true,
    };

    fn at(code: u64, info: u64) -> Exit {
        Exit {
            code,
            info,
            rip: 0x1000,
            code_base: 0,
            long: true,
            wide: false,
        }
    }

    fn of(exit: Exit, code: &[u8]) -> Result<Values, &'static str> {
        let last = Last {
            address: 0x1000,
            code,
        };
        values(ALL, exit, Some(last), |_| 0xabcd)
    }

    #[test]
    fn next_rip_is_behind_the_instruction_with_its_prefixes() {
        for (exit, code) in [
            (0x72, &[0x0f, 0xa2][..]),
            (0x72, &[0x48, 0x0f, 0xa2]),
            (0x7b, &[0x66, 0xed]),
            (0x7c, &[0x0f, 0x32]),
            (0x81, &[0x0f, 0x01, 0xd9]),
            (0x78, &[0xf4]),
            (0x77, &[0xf3, 0x90]),
            (0x43, &[0xcc]),
        ] {
            let values = of(at(exit, 0), code).expect("an instruction");
            assert_eq!(
                values.next_rip,
                Some(0x1000 + code.len() as u64),
                "{exit:x}"
            );
        }
    }

    #[test]
    fn other_exits_have_no_next_rip() {
        // Interrupt, NMI, interrupt window, task switch, shutdown, nested page fault, #UD, #DB by a breakpoint.
        for exit in [0x60, 0x61, 0x64, 0x7d, 0x7f, 0x400, 0x46, 0x41] {
            let values = of(at(exit, 0), &[0x0f, 0xa2]).expect("no instruction");
            assert_eq!(values.next_rip, Some(0), "{exit:x}");
        }
        // #BP of something else than INT3.
        assert_eq!(of(at(0x43, 0), &[0x90]).expect("none").next_rip, Some(0));
    }

    #[test]
    fn an_instruction_elsewhere_than_at_rip_is_not_taken_for_the_one_that_exited() {
        let last = Last {
            address: 0x2000,
            code: &[0x0f, 0xa2],
        };
        assert!(values(ALL, at(0x72, 0), Some(last), |_| 0).is_err());
        assert!(values(ALL, at(0x72, 0), None, |_| 0).is_err());
        // A fault whose instruction is not known has no bytes.
        let fault = values(ALL, at(0x400, 0), Some(last), |_| 0).expect("a fault");
        assert_eq!(fault.bytes, Some(0));
    }

    #[test]
    fn segments_count_where_code_is_not_64_bit() {
        let exit = Exit {
            code: 0x72,
            rip: 0xfff0,
            code_base: 0xffff_0000,
            ..Exit::default()
        };
        let last = Last {
            address: 0xffff_fff0,
            code: &[0x0f, 0xa2],
        };
        let values = values(ALL, exit, Some(last), |_| 0).expect("an instruction");
        assert_eq!(values.next_rip, Some(0xfff2));
    }

    #[test]
    fn registers_and_addresses_go_to_exitinfo1() {
        let info = |exit, code: &[u8]| of(at(exit, 0), code).expect("a value").info;
        // mov %r9,%cr4; mov %cr8,%rax; mov %rbx,%cr0 by the selective intercept.
        assert_eq!(info(0x14, &[0x41, 0x0f, 0x22, 0xe1]), Some(1 << 63 | 9));
        assert_eq!(info(0x08, &[0x44, 0x0f, 0x20, 0xc0]), Some(1 << 63));
        assert_eq!(info(0x65, &[0x0f, 0x22, 0xc3]), Some(1 << 63 | 3));
        // lmsw %ax and clts: the kernel is to decode them.
        assert_eq!(info(0x65, &[0x0f, 0x01, 0xf0]), Some(0));
        assert_eq!(info(0x10, &[0x0f, 0x06]), Some(0));
        // mov %db7,%r15
        assert_eq!(info(0x27, &[0x41, 0x0f, 0x21, 0xff]), Some(15));
        assert_eq!(info(0x79, &[0x0f, 0x01, 0x38]), Some(0xabcd));
        // mov %cr4,%rcx, of which QEMU 10 says that it is mov %cr0; the selective intercept has a code of its own.
        let code = |exit, code: &[u8]| of(at(exit, 0), code).expect("a value").code;
        assert_eq!(code(0x00, &[0x0f, 0x20, 0xe1]), Some(4));
        assert_eq!(code(0x04, &[0x0f, 0x20, 0xe1]), None);
        assert_eq!(code(0x14, &[0x41, 0x0f, 0x22, 0xe1]), None);
        assert_eq!(code(0x65, &[0x0f, 0x22, 0xc3]), None);
        assert_eq!(info(0x72, &[0x0f, 0xa2]), None);
        assert!(of(at(0x27, 0), &[0x90]).is_err());
        assert!(of(at(0x79, 0), &[0x90]).is_err());
    }

    #[test]
    fn a_fetch_that_faults_has_no_bytes() {
        assert_eq!(
            of(at(0x400, 4), &[0x8b, 0x07]).expect("a fault").bytes,
            Some(15)
        );
        assert_eq!(
            of(at(0x400, 0x14), &[0x90]).expect("a fault").bytes,
            Some(0)
        );
        assert_eq!(of(at(0x72, 0), &[0x0f, 0xa2]).expect("none").bytes, None);
    }

    #[test]
    fn what_is_not_supplied_is_not_touched() {
        let last = Last {
            address: 0x1000,
            code: &[0x0f, 0x22, 0xc3],
        };
        let none = values(Features::default(), at(0x10, 0), Some(last), |_| 0);
        assert_eq!(none, Ok(Values::default()));
        let next = Features {
            next_rip: true,
            ..Features::default()
        };
        let only = values(next, at(0x10, 0), Some(last), |_| 0).expect("an instruction");
        assert_eq!(
            (only.next_rip, only.info, only.bytes),
            (Some(0x1003), None, None)
        );
    }

    #[test]
    fn software_events_return_to_next_rip() {
        // INT 0x80 again; #BP; the same without the bit that makes it valid; an interrupt; #PF.
        for (event, returns) in [
            (0x8000_0480, true),
            (0x8000_0303, true),
            (0x8000_0304, true),
            (0x0000_0303, false),
            (0x8000_0020, false),
            (0x8000_0b0e, false),
            (0x8000_0202, false),
        ] {
            assert_eq!(returns_to_next_rip(event), returns, "{event:x}");
        }
        assert_eq!(
            [0, 1, 3, 7].map(flush_known_to_qemu),
            [None, None, Some(1), Some(1)]
        );
    }

    #[test]
    fn features_have_qemus_names() {
        let mut features = Features::default();
        for name in Features::NAMES {
            *features.by_name(name).expect("a feature") = true;
        }
        assert_eq!(features, ALL);
        assert!(features.by_name("svm").is_none());
    }
}
