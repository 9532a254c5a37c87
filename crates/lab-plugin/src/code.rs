//! Machine code that the plugin looks at.

/// VMRUN.
pub const VMRUN: [u8; 3] = [0x0f, 0x01, 0xd8];

/// What is known of RAX behind an instruction of a block of code, where a plugin sees registers as
/// QEMU's translated code last put them into memory: `known` says whether that was RAX's value
/// before the instruction.
///
/// Translated code keeps registers in memory up to date at the beginning of a block and wherever an
/// exception may have to find them there, as on each access to the guest's memory.
pub fn rax_stays_known(known: bool, code: &[u8]) -> bool {
    loads_another(code) || (known && keeps_rax(code))
}

/// Whether an instruction loads a 64-bit register other than RAX from memory by MOV.
fn loads_another(code: &[u8]) -> bool {
    let &[rex, 0x8b, operand, ..] = code else {
        return false;
    };
    // REX with W, of which R is the register's uppermost bit.
    rex & 0xf8 == 0x48 && operand >> 6 != 3 && (rex & 4 != 0 || operand >> 3 & 7 != 0)
}

/// Whether an instruction is one of those that stand before VMRUN in kernels and certainly leave RAX
/// as it was: NOPs, STI, VERR, VERW and LFENCE.
fn keeps_rax(code: &[u8]) -> bool {
    // Prefixes that compilers and alternatives make NOPs longer with.
    let first = code
        .iter()
        .position(|byte| ![0x2e, 0x3e, 0x66].contains(byte));
    match &code[first.unwrap_or(code.len())..] {
        [0x90 | 0xfb] | [0x0f, 0x1f, ..] | [0x0f, 0xae, 0xe8] => true,
        [0x0f, 0x00, operand, ..] => matches!(operand >> 3 & 7, 4 | 5),
        _ => false,
    }
}

/// The operand of an instruction in memory: a sum that makes an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand {
    /// Number of the register that is its base.
    pub base: Option<u8>,
    /// Number of the register that is its index, and the number of bits that this is shifted by.
    pub index: Option<(u8, u8)>,
    /// Displacement; of the next instruction's address where `of_next`.
    pub displacement: i64,
    /// Whether the address of the next instruction is a part of the sum.
    pub of_next: bool,
    /// Bytes of an address: 2, 4 or 8.
    pub size: u8,
    /// The segment.
    pub segment: Segment,
}

/// A segment that an operand is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// ES.
    Es,
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// An instruction's prefixes, and what is behind them.
struct Split<'a> {
    segment: Option<Segment>,
    address_size: bool,
    rex: u8,
    rest: &'a [u8],
}

/// Takes prefixes off. One of REX counts only right before the opcode, and in 64-bit code.
fn split(code: &[u8], long: bool) -> Split<'_> {
    let mut split = Split {
        segment: None,
        address_size: false,
        rex: 0,
        rest: code,
    };
    while let [first, rest @ ..] = split.rest {
        match first {
            // In 64-bit code these four are nothing.
            0x26 | 0x2e | 0x36 | 0x3e if long => {}
            0x26 => split.segment = Some(Segment::Es),
            0x2e => split.segment = Some(Segment::Cs),
            0x36 => split.segment = Some(Segment::Ss),
            0x3e => split.segment = Some(Segment::Ds),
            0x64 => split.segment = Some(Segment::Fs),
            0x65 => split.segment = Some(Segment::Gs),
            0x67 => split.address_size = true,
            0x66 | 0xf0 | 0xf2 | 0xf3 => {}
            0x40..=0x4f if long => {
                split.rex = *first;
                split.rest = rest;
                if matches!(rest.first(), Some(0x0f)) {
                    break;
                }
                // Another prefix behind it makes it void.
                split.rex = 0;
                continue;
            }
            _ => break,
        }
        split.rest = rest;
    }
    split
}

/// A MOV to or from a control or debug register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemMove {
    /// Number of the general-purpose register.
    pub general: u8,
    /// Number of the other one.
    pub system: u8,
    /// Whether that is written.
    pub writes: bool,
}

/// What an instruction moves to or from CRn or DRn; `None` for others.
pub fn system_move(code: &[u8]) -> Option<SystemMove> {
    // Outside 64-bit code these bytes are INC and DEC, none of which is before a MOV of one instruction.
    let split = split(code, true);
    let &[0x0f, opcode @ 0x20..=0x23, operand] = split.rest else {
        return None;
    };
    let system = operand >> 3 & 7 | (split.rex & 4) << 1;
    // AMD's way to name CR8 outside 64-bit code.
    let locked = code.contains(&0xf0) && opcode & 1 == 0 && system == 0;
    Some(SystemMove {
        // The CPU takes no notice of the mode: it is always a register.
        general: operand & 7 | (split.rex & 1) << 3,
        system: if locked { 8 } else { system },
        writes: opcode & 2 != 0,
    })
}

/// The operand of INVLPG; `None` for other instructions. `long` says that code is 64-bit, `wide` that it is 32-bit
/// rather than 16-bit.
pub fn operand_of_invlpg(code: &[u8], long: bool, wide: bool) -> Option<Operand> {
    let split = split(code, long);
    let [0x0f, 0x01, mode, rest @ ..] = split.rest else {
        return None;
    };
    if mode >> 3 & 7 != 7 || mode >> 6 == 3 {
        return None;
    }
    let size = match (long, wide, split.address_size) {
        (true, _, false) => 8,
        (true, _, true) | (false, true, false) | (false, false, true) => 4,
        (false, ..) => 2,
    };
    let mut operand = match size {
        2 => short_operand(*mode, rest)?,
        _ => long_operand(*mode, rest, split.rex, long)?,
    };
    operand.size = size;
    if let Some(segment) = split.segment {
        operand.segment = segment;
    }
    Some(operand)
}

/// An operand by ModRM and SIB.
fn long_operand(mode: u8, rest: &[u8], rex: u8, long: bool) -> Option<Operand> {
    let (rex_x, rex_b) = (rex >> 1 & 1, rex & 1);
    let (kind, low) = (mode >> 6, mode & 7);
    let mut operand = Operand {
        base: Some(low | rex_b << 3),
        index: None,
        displacement: 0,
        of_next: false,
        size: 0,
        segment: Segment::Ds,
    };
    let mut rest = rest;
    if low == 4 {
        let [sib, behind @ ..] = rest else {
            return None;
        };
        rest = behind;
        let index = sib >> 3 & 7 | rex_x << 3;
        operand.index = (index != 4).then_some((index, sib >> 6));
        operand.base = Some(sib & 7 | rex_b << 3);
        if sib & 7 == 5 && kind == 0 {
            operand.base = None;
            operand.displacement = word(rest)?;
        }
    } else if low == 5 && kind == 0 {
        operand.base = None;
        operand.of_next = long;
        operand.displacement = word(rest)?;
    }
    match kind {
        1 => operand.displacement = i64::from(*rest.first()? as i8),
        2 => operand.displacement = word(rest)?,
        _ => {}
    }
    if matches!(operand.base, Some(4 | 5)) {
        operand.segment = Segment::Ss;
    }
    Some(operand)
}

/// An operand of 16-bit addresses.
fn short_operand(mode: u8, rest: &[u8]) -> Option<Operand> {
    const BX: u8 = 3;
    const BP: u8 = 5;
    const SI: u8 = 6;
    const DI: u8 = 7;
    let (kind, low) = (mode >> 6, mode & 7);
    let (base, index) = match low {
        0 => (Some(BX), Some(SI)),
        1 => (Some(BX), Some(DI)),
        2 => (Some(BP), Some(SI)),
        3 => (Some(BP), Some(DI)),
        4 => (Some(SI), None),
        5 => (Some(DI), None),
        6 if kind == 0 => (None, None),
        6 => (Some(BP), None),
        _ => (Some(BX), None),
    };
    let short = || {
        Some(i64::from(i16::from_le_bytes([
            *rest.first()?,
            *rest.get(1)?,
        ])))
    };
    Some(Operand {
        base,
        index: index.map(|index| (index, 0)),
        displacement: match kind {
            0 if low != 6 => 0,
            1 => i64::from(*rest.first()? as i8),
            _ => short()?,
        },
        of_next: false,
        size: 0,
        segment: if base == Some(BP) {
            Segment::Ss
        } else {
            Segment::Ds
        },
    })
}

/// A displacement of 32 bits.
fn word(rest: &[u8]) -> Option<i64> {
    let bytes: [u8; 4] = rest.get(..4)?.try_into().ok()?;
    Some(i32::from_le_bytes(bytes).into())
}

impl Operand {
    /// Its linear address, of registers by number, segment bases, and the next instruction's address.
    pub fn address(
        self,
        register: impl Fn(u8) -> u64,
        base: impl Fn(Segment) -> u64,
        next: u64,
    ) -> u64 {
        let mut offset = self.displacement as u64;
        if let Some(base) = self.base {
            offset = offset.wrapping_add(register(base));
        }
        if let Some((index, shift)) = self.index {
            offset = offset.wrapping_add(register(index) << shift);
        }
        if self.of_next {
            offset = offset.wrapping_add(next);
        }
        match self.size {
            2 => base(self.segment).wrapping_add(offset & 0xffff) & 0xffff_ffff,
            4 => base(self.segment).wrapping_add(offset & 0xffff_ffff),
            _ => base(self.segment).wrapping_add(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_write_rax_is_told_apart() {
        let keep: [&[u8]; 8] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0xfb],
            // verw 0x12345678(%rip)
            &[0x0f, 0x00, 0x2d, 0x78, 0x56, 0x34, 0x12],
            &[0x0f, 0x00, 0x25, 0x78, 0x56, 0x34, 0x12],
            &[0x0f, 0xae, 0xe8],
        ];
        for code in keep {
            assert!(keeps_rax(code), "{code:x?}");
        }
        let other: [&[u8]; 7] = [
            &[],
            &[0x66],
            &[0x58],
            // str (%rax) and str %eax
            &[0x0f, 0x00, 0x08],
            &[0x0f, 0x00, 0xc8],
            // xchg %rax,%r8
            &[0x49, 0x90],
            &VMRUN,
        ];
        for code in other {
            assert!(!keeps_rax(code), "{code:x?}");
        }
    }

    #[test]
    fn rax_is_known_behind_a_load_until_something_may_write_it() {
        let after =
            |known, block: &[&[u8]]| block.iter().fold(known, |k, code| rax_stays_known(k, code));
        // mov 8(%rax),%rax; mov 0x160(%rdi),%rdi; mov 0x1a0(%rdi),%r15; mov (%rdi),%r8
        let rax: &[u8] = &[0x48, 0x8b, 0x40, 0x08];
        let rdi: &[u8] = &[0x48, 0x8b, 0xbf, 0x60, 0x01, 0, 0];
        let r15: &[u8] = &[0x4c, 0x8b, 0xbf, 0xa0, 0x01, 0, 0];
        let r8: &[u8] = &[0x4c, 0x8b, 0x07];
        let verw: &[u8] = &[0x0f, 0x00, 0x2d, 0x37, 0xee, 0x8a, 0xc1];
        let nop: &[u8] = &[0x66, 0x90];
        // mov %rcx,%rdi is no load, nor is 8b with 32 bits one of these.
        let copy: &[u8] = &[0x48, 0x8b, 0xf9];
        let short: &[u8] = &[0x8b, 0xbf, 0x60, 0x01, 0, 0];
        assert!(after(false, &[rax, rdi, nop, verw]));
        assert!(after(false, &[rax, r15]) && after(false, &[rax, r8]));
        assert!(after(true, &[nop, verw]));
        for block in [
            &[rdi, rax][..],
            &[rax, nop, verw],
            &[rax, copy],
            &[rax, short],
        ] {
            assert!(!after(true, block), "{block:x?}");
        }
        assert!(!after(false, &[nop]) && !after(true, &[&[0x58]]));
    }

    #[test]
    fn operands_are_those_of_a_disassembler() {
        use iced_x86::{Decoder, DecoderOptions, Mnemonic, Register};

        let segment = |register| match register {
            Register::ES => Segment::Es,
            Register::CS => Segment::Cs,
            Register::SS => Segment::Ss,
            Register::FS => Segment::Fs,
            Register::GS => Segment::Gs,
            _ => Segment::Ds,
        };
        let (mut invlpg, mut moves) = (0, 0);
        // Prefixes in all pairs, each with all bytes behind the opcode.
        let prefixes: Vec<Vec<u8>> = {
            let one: Vec<Vec<u8>> = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3]
                .into_iter()
                .chain(0x40..=0x4f)
                .map(|prefix| vec![prefix])
                .collect();
            let two = one
                .iter()
                .flat_map(|a| one.iter().map(|b| [&a[..], b].concat()));
            one.iter().cloned().chain(two).chain([vec![]]).collect()
        };
        let tail = [0x12, 0x34, 0x56, 0xf8, 0x9a];
        for bits in [16, 32, 64] {
            for prefix in &prefixes {
                for opcode in [0x01, 0x20, 0x21, 0x22, 0x23] {
                    let sibs: &[u8] = if opcode == 1 {
                        &[0x25, 0x64, 0xdd]
                    } else {
                        &[0]
                    };
                    for (mode, &sib) in (0..=255).flat_map(|m| sibs.iter().map(move |s| (m, s))) {
                        let code = [prefix, &[0x0f, opcode, mode, sib][..], &tail].concat();
                        let mut decoder = Decoder::new(bits, &code, DecoderOptions::AMD);
                        let decoded = decoder.decode();
                        let (long, wide) = (bits == 64, bits == 32);
                        let code = &code[..decoded.len()];
                        if decoded.mnemonic() == Mnemonic::Invlpg {
                            let ours = operand_of_invlpg(code, long, wide);
                            let register = |register: u8| 0x1_0000_1001 * (u64::from(register) + 1);
                            let base = |segment| match segment {
                                Segment::Fs => 0x1_0000_0000,
                                Segment::Gs => 0x2_0000_0000,
                                _ if long => 0,
                                segment => 0x10_0000 * (segment as u64 + 1),
                            };
                            let ours =
                                ours.map(|o| o.address(register, base, decoded.len() as u64));
                            let theirs = decoded.virtual_address(0, 0, |which, _, _| {
                                Some(match which.is_segment_register() {
                                    true => base(segment(which)),
                                    false => {
                                        let value = register(which.number() as u8);
                                        value & (u64::MAX >> (64 - 8 * which.size()))
                                    }
                                })
                            });
                            let mask = if long { u64::MAX } else { 0xffff_ffff };
                            assert_eq!(
                                ours.map(|a| a & mask),
                                theirs.map(|a| a & mask),
                                "{code:x?} {bits}"
                            );
                            invlpg += 1;
                        } else if decoded.mnemonic() == Mnemonic::Mov && !decoded.is_invalid() {
                            let of = |at| {
                                let register = decoded.op_register(at);
                                register.is_gpr().then_some(register.number() as u8)
                            };
                            let long_or_plain =
                                long || prefix.iter().all(|p| !(0x40..=0x4f).contains(p));
                            if long_or_plain {
                                let ours = system_move(code).expect("a move");
                                assert_eq!(Some(ours.general), of(0).or(of(1)), "{code:x?} {bits}");
                                let other = if ours.writes { 0 } else { 1 };
                                let other = decoded.op_register(other);
                                assert!(other.is_cr() || other.is_dr(), "{code:x?} {bits}");
                                assert_eq!(
                                    usize::from(ours.system),
                                    other.number(),
                                    "{code:x?} {bits}"
                                );
                                moves += 1;
                            }
                        }
                    }
                }
            }
        }
        assert!(invlpg > 10_000 && moves > 100_000, "{invlpg} {moves}");
    }
}
