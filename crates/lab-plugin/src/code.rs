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
}
