//! Instructions that exit, with prefixes, registers and operands.

use super::guest::{CODE, FRAME_COUNT, FRAMES, MMIO, PML4, REMAPPED, REMAPPED_ENTRY};

/// In which mode of the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Long,
    Protected,
    Real,
}

/// A guest.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) mode: Mode,
    pub(super) code: Vec<u8>,
    /// Registers that are not as in all cases.
    pub(super) registers: Vec<(usize, u64)>,
    pub(super) fs_base: u64,
    /// How far from its page's beginning the code is.
    pub(super) offset: u64,
    /// Whether the VMM debugs the guest, so that KVM emulates accesses to debug registers.
    pub(super) debug: bool,
    /// A vector that the code interrupts itself with.
    pub(super) interrupt: Option<u8>,
    /// What RAX is at the end, and where that is known, what it is if the instruction had no effect.
    pub(super) expected: Option<(u64, Option<u64>)>,
}

fn case(mode: Mode, code: &[u8]) -> Case {
    Case {
        mode,
        code: code.to_vec(),
        registers: Vec::new(),
        fs_base: 0,
        offset: 0,
        debug: false,
        interrupt: None,
        expected: None,
    }
}

const MODES: [Mode; 3] = [Mode::Long, Mode::Protected, Mode::Real];
const CR0: u64 = 0x8005_0033;
const CR4: u64 = 0x6a0;

/// What runs with nested paging.
pub(super) fn all() -> Vec<Case> {
    let mut cases = prefixed();
    cases.extend(control_registers());
    cases.extend(debug_registers());
    cases.extend(msrs());
    cases.extend(mmio());
    cases.extend(interrupts());
    cases
}

/// What runs with shadow paging, where INVLPG exits and page faults do.
pub(super) fn shadow() -> Vec<Case> {
    let mut cases = invlpg();
    cases.extend(mmio());
    // QEMU lets a guest read CR3 as it is, which is KVM's own here.
    cases.extend(
        control_registers()
            .into_iter()
            .filter(|case| !reads(&case.code, 3)),
    );
    cases
}

/// Instructions without operands, with prefixes one by one and in pairs.
fn prefixed() -> Vec<Case> {
    let instructions: [&[u8]; 16] = [
        &[0x0f, 0xa2],       // cpuid
        &[0x0f, 0x01, 0xd9], // vmmcall
        &[0x0f, 0x01, 0xc1], // vmcall
        &[0x0f, 0x09],       // wbinvd
        &[0x0f, 0x08],       // invd
        &[0xed],             // in eax, dx
        &[0xec],             // in al, dx
        &[0xe5, 0x42],       // in eax, 0x42
        &[0xef],             // out dx, eax
        &[0xee],             // out dx, al
        &[0xe6, 0x42],       // out 0x42, al
        &[0x0f, 0x06],       // clts
        &[0x0f, 0x01, 0xe0], // smsw eax
        &[0x0f, 0x01, 0xf0], // lmsw ax
        &[0x0f, 0x33],       // rdpmc
        &[0x0f, 0x01, 0xdd], // clgi
    ];
    let prefixes = [0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x3e, 0x64];
    let mut cases = Vec::new();
    for mode in MODES {
        let rex: &[u8] = match mode {
            Mode::Long => &[0x40, 0x41, 0x44, 0x48, 0x4f],
            _ => &[],
        };
        // Outside 64-bit code there is nowhere for the exceptions to go that these take.
        let takes_exception =
            |code: &[u8]| code == [0x0f, 0x01, 0xc1] || code == [0x0f, 0x01, 0xdd];
        let instructions = instructions
            .iter()
            .filter(|i| mode == Mode::Long || !takes_exception(i));
        for instruction in instructions {
            let mut before: Vec<Vec<u8>> = vec![vec![]];
            before.extend(prefixes.iter().chain(rex).map(|&prefix| vec![prefix]));
            let pairs = prefixes
                .iter()
                .flat_map(|&a| rex.iter().chain(&[0x66]).map(move |&b| vec![a, b]));
            before.extend(pairs);
            for before in before {
                let code = [&before[..], instruction].concat();
                cases.push(Case {
                    registers: vec![(0, 0), (1, 0), (2, 0x42)],
                    ..case(mode, &code)
                });
            }
        }
    }
    cases
}

/// MOV to or from a control or debug register.
fn mov(opcode: u8, number: u8, register: u8) -> Vec<u8> {
    let rex = 0x40 | (number >> 3) << 2 | register >> 3;
    let operand = 0xc0 | (number & 7) << 3 | register & 7;
    match rex {
        0x40 => vec![0x0f, opcode, operand],
        _ => vec![rex, 0x0f, opcode, operand],
    }
}

/// Whether a MOV is from this control register.
fn reads(code: &[u8], number: u8) -> bool {
    (0..16).any(|register| code == mov(0x20, number, register))
}

fn control_registers() -> Vec<Case> {
    let mut cases = Vec::new();
    for register in 0..16 {
        for number in [0, 2, 3, 4, 8] {
            cases.push(case(Mode::Long, &mov(0x20, number, register)));
        }
        let writes = [
            (0, CR0 ^ 0x1_0000),
            (0, CR0 ^ 8),
            (0, CR0 ^ 0x4000_0000),
            // PG without PE faults.
            (0, CR0 & !1),
            (3, 0x2000),
            (4, CR4 ^ 0x80),
            // No such bit.
            (4, CR4 | 1 << 30),
            (8, 5),
        ];
        for (number, value) in writes {
            cases.push(Case {
                registers: vec![(register.into(), value)],
                ..case(Mode::Long, &mov(0x22, number, register))
            });
        }
        // LMSW and SMSW, whose operand KVM finds out by itself.
        let rex = 0x40 | register >> 3;
        for reg in [0xe0, 0xf0] {
            cases.push(Case {
                registers: vec![(register.into(), 0xb)],
                ..case(Mode::Long, &[rex, 0x0f, 0x01, reg | register & 7])
            });
        }
    }
    for register in 0..8 {
        for (number, value) in [(0, 0x1_0031), (4, 0x680)] {
            cases.push(Case {
                registers: vec![(register.into(), value)],
                ..case(Mode::Protected, &mov(0x22, number, register))
            });
            cases.push(case(Mode::Protected, &mov(0x20, number, register)));
        }
    }
    cases
}

fn debug_registers() -> Vec<Case> {
    let mut cases = Vec::new();
    for debug in [false, true] {
        for register in 0..16 {
            for number in [0, 1, 2, 3, 6, 7] {
                let value = match number {
                    6 => 0xffff_0ff0,
                    7 => 0x400,
                    _ => 0x40_0100 + u64::from(number),
                };
                for opcode in [0x21, 0x23] {
                    cases.push(Case {
                        registers: vec![(register.into(), value)],
                        debug,
                        ..case(Mode::Long, &mov(opcode, number, register))
                    });
                }
            }
        }
    }
    cases
}

fn msrs() -> Vec<Case> {
    let mut cases = Vec::new();
    // TSC_ADJUST, SYSENTER_EIP, APIC_BASE, PAT, EFER, KERNEL_GS_BASE, one that there is not.
    for msr in [
        0x3b,
        0x176,
        0x1b,
        0x277,
        0xc000_0080,
        0xc000_0102,
        0x1234_5678,
    ] {
        for prefix in [&[][..], &[0x66], &[0xf3], &[0x48], &[0x66, 0x41]] {
            for opcode in [0x30, 0x32] {
                let code = [prefix, &[0x0f, opcode]].concat();
                let value = match msr {
                    0x277 => (0x0007_0406, 0x0007_0406),
                    0xc000_0080 => (0x500, 0),
                    0x1b => (0xfee0_0900, 0),
                    _ => (0, 0),
                };
                cases.push(Case {
                    registers: vec![(1, msr), (0, value.0), (2, value.1)],
                    ..case(Mode::Long, &code)
                });
            }
        }
    }
    cases
}

/// Accesses to memory that user space answers, in the midst of a page, at its end and across it.
fn mmio() -> Vec<Case> {
    let instructions: [&[u8]; 24] = [
        &[0x8a, 0x07],                   // mov al, [rdi]
        &[0x66, 0x8b, 0x07],             // mov ax, [rdi]
        &[0x8b, 0x07],                   // mov eax, [rdi]
        &[0x48, 0x8b, 0x07],             // mov rax, [rdi]
        &[0x4c, 0x8b, 0x3f],             // mov r15, [rdi]
        &[0x88, 0x07],                   // mov [rdi], al
        &[0x66, 0x89, 0x07],             // mov [rdi], ax
        &[0x89, 0x07],                   // mov [rdi], eax
        &[0x48, 0x89, 0x07],             // mov [rdi], rax
        &[0x44, 0x88, 0x47, 0x10],       // mov [rdi+16], r8b
        &[0x8b, 0x84, 0x0f, 0, 1, 0, 0], // mov eax, [rdi+rcx+256]
        &[0xc6, 0x07, 0x12],             // mov byte [rdi], 0x12
        &[0xc7, 0x07, 1, 2, 3, 4],       // mov dword [rdi], …
        &[0x48, 0xc7, 0x87, 8, 0, 0, 0, 1, 2, 3, 4],
        &[0x0f, 0xb6, 0x07],       // movzx eax, byte [rdi]
        &[0x48, 0x0f, 0xbf, 0x07], // movsx rax, word [rdi]
        &[0x01, 0x07],             // add [rdi], eax
        &[0x03, 0x07],             // add eax, [rdi]
        &[0xf0, 0x48, 0x01, 0x07], // lock add [rdi], rax
        &[0x87, 0x07],             // xchg [rdi], eax
        &[0xaa],                   // stosb
        &[0xff, 0x37],             // push [rdi]
        &[0x39, 0x07],             // cmp [rdi], eax
        &[0x64, 0x67, 0x8b, 0x07], // mov eax, fs:[edi]
    ];
    let mut cases = Vec::new();
    for instruction in instructions {
        let length = instruction.len() as u64;
        for offset in [
            0x100,
            0x1000 - length,
            0x1000 - length.div_ceil(2),
            0x1000 - 14,
        ] {
            cases.push(Case {
                registers: vec![(7, MMIO), (1, 0x20)],
                offset,
                ..case(Mode::Long, instruction)
            });
        }
    }
    cases
}

/// Interrupts that a guest makes itself, whose table is not there yet when they do.
fn interrupts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (vector, code) in [
        (0x80, &[0xcd, 0x80][..]),
        (3, &[0xcc]),
        (3, &[0xcd, 3]),
        (0x21, &[0x66, 0xcd, 0x21]),
    ] {
        for offset in [0, 0x777] {
            cases.push(Case {
                interrupt: Some(vector),
                offset,
                expected: Some((CODE + offset + code.len() as u64, None)),
                ..case(Mode::Long, code)
            });
        }
    }
    cases
}

/// An INVLPG: its code, registers, FS's base, and whether it has the address of the page.
type Invalidation = (Vec<u8>, Vec<(usize, u64)>, u64, bool);

/// INVLPG with all bases and indices: a page is read, mapped anew, invalidated and read again.
fn invlpg() -> Vec<Case> {
    let mut operands: Vec<Invalidation> = Vec::new();
    for base in 0..16u8 {
        let rex = 0x40 | base >> 3;
        let low = base & 7;
        let registers =
            |displacement: u64| vec![(usize::from(base), REMAPPED.wrapping_sub(displacement))];
        let sib: &[u8] = if low == 4 { &[0x24] } else { &[] };
        let code = |mode: u8, rest: &[u8]| {
            [&[rex, 0x0f, 0x01, mode | 7 << 3 | low][..], sib, rest].concat()
        };
        operands.push((code(0x40, &[0x10]), registers(0x10), 0, true));
        operands.push((code(0x80, &[0, 0, 0x10, 0]), registers(0x10_0000), 0, true));
        operands.push((
            code(0x40, &[0xf0]),
            registers(0x10u64.wrapping_neg()),
            0,
            true,
        ));
        if low != 5 {
            operands.push((code(0, &[]), registers(0), 0, true));
            // The same below FS's base, and with an address of 32 bits.
            let fs = [&[0x64][..], &code(0, &[])].concat();
            operands.push((fs, registers(0x1_0000), 0x1_0000, true));
            let short = [&[0x67][..], &code(0, &[])].concat();
            let high = vec![(usize::from(base), REMAPPED | 7 << 40)];
            operands.push((short, high, 0, true));
            // Another page.
            operands.push((
                code(0, &[]),
                registers(0x5000_0000u64.wrapping_neg()),
                0,
                false,
            ));
        }
        for index in (0..16u8).filter(|&index| index != 4 && index != base) {
            let rex = rex | (index >> 3) << 1;
            let scale = index & 3;
            let sib = scale << 6 | (index & 7) << 3 | low;
            let code = vec![rex, 0x0f, 0x01, 0x40 | 7 << 3 | 4, sib, 0x08];
            let registers = vec![
                (usize::from(base), REMAPPED - 8 - (0x100 << scale)),
                (usize::from(index), 0x100),
            ];
            operands.push((code, registers, 0, true));
        }
    }
    let mut cases = Vec::new();
    for (number, (operand, registers, fs_base, invalidates)) in (1..).zip(operands) {
        let frame = |number: u64| number % FRAME_COUNT;
        let (entry, before) = ((FRAMES + 0x1000 * frame(number)) | 7, frame(number - 1));
        let rax = registers
            .iter()
            .find(|(number, _)| *number == 0)
            .map_or(1, |(_, value)| *value);
        let code = [
            // The page is there as the case before left it.
            &[0x48, 0xb8][..],
            &((FRAMES + 0x1000 * before) | 7).to_le_bytes(),
            &[0x48, 0xa3],
            &REMAPPED_ENTRY.to_le_bytes(),
            // mov rax, its value; mov cr3, rax; mov rax, [page]
            &[0x48, 0xb8],
            &PML4.to_le_bytes(),
            &[0x0f, 0x22, 0xd8],
            &[0x48, 0xa1],
            &REMAPPED.to_le_bytes(),
            &[0x48, 0xb8],
            &entry.to_le_bytes(),
            &[0x48, 0xa3],
            &REMAPPED_ENTRY.to_le_bytes(),
            &[0x48, 0xb8],
            &rax.to_le_bytes(),
            &operand,
            &[0x48, 0xa1],
            &REMAPPED.to_le_bytes(),
        ]
        .concat();
        let (fresh, stale) = (0x1000 + frame(number), 0x1000 + before);
        cases.push(Case {
            registers,
            fs_base,
            expected: match invalidates {
                true => Some((fresh, None)),
                false => Some((fresh, Some(stale))),
            },
            ..case(Mode::Long, &code)
        });
    }
    cases
}
