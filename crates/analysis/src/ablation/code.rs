//! The kernel's code on a path, and how to take instructions out of it.
//!
//! Only what was executed is known, and only that is changed. Instructions that are taken out leave none behind where this can be
//! done: their bytes become prefixes (DS, 0x3e) of the instruction behind them, which mean nothing there in 64-bit
//! mode (AMD's manual, volume 3, 1.2.4). That instruction's end stays where it is, so that what it addresses relative to it stays, too,
//! and so does its beginning, so that jumps to it are as before. An instruction has 15 bytes at most; where there would be more, a
//! jump over them or one NOP is left.

use std::collections::{BTreeMap, BTreeSet};

use exitpath_recording::{Space, Symbol, Trace};
use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind,
};

use crate::path::RowPath;

/// Most bytes of an instruction.
const LONGEST: usize = 15;
/// A segment override that 64-bit mode ignores.
const DS: u8 = 0x3e;
/// VMRUN, which is left without prefixes: whoever watches for it knows it by these bytes.
const VMRUN: [u8; 3] = [0x0f, 0x01, 0xd8];
/// NOPs by their length (AMD's manual, volume 3, NOP).
const NOPS: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
    &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
];

/// Bytes to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The function that they are in.
    pub function: String,
    /// Where they are.
    pub address: u64,
    /// What is there.
    pub old: Vec<u8>,
    /// What is to be there, as much.
    pub new: Vec<u8>,
}

/// An instruction that was executed.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its machine code.
    pub bytes: Vec<u8>,
    /// The function that it is in.
    pub function: String,
    /// That function's module.
    pub module: String,
    pub(super) decoded: Instruction,
    /// How often it ran in a round, by row.
    times: BTreeMap<String, u64>,
}

impl Known {
    /// The function that it calls directly, by its address.
    pub(super) fn calls(&self) -> Option<u64> {
        let decoded = &self.decoded;
        let direct = decoded.flow_control() == FlowControl::Call
            && decoded.op0_kind() == OpKind::NearBranch64;
        direct.then(|| decoded.near_branch_target())
    }

    /// Whether it is what is left of a call or jump that the kernel patched out: a NOP of five bytes.
    pub(super) fn is_patched_out(&self) -> bool {
        self.bytes.len() == 5 && self.decoded.mnemonic() == Mnemonic::Nop
    }

    /// Whether it clears a register.
    pub(super) fn clears(&self) -> bool {
        matches!(
            self.decoded.code(),
            Opcode::Xor_r32_rm32 | Opcode::Xor_rm32_r32
        ) && self.decoded.op0_kind() == OpKind::Register
            && self.decoded.op1_kind() == OpKind::Register
            && self.decoded.op0_register() == self.decoded.op1_register()
    }
}

/// The kernel's code that some rows execute.
#[derive(Debug, Default)]
pub struct Code {
    pub(super) known: BTreeMap<u64, Known>,
    symbols: Vec<Symbol>,
}

impl Code {
    /// Of these rows, which are of this trace.
    pub fn of(trace: &Trace, rows: &[RowPath]) -> Code {
        let mut code = Code::default();
        for row in rows {
            let kernel = row
                .instructions
                .iter()
                .filter(|it| it.space == Space::Kernel);
            for executed in kernel {
                let Some(instruction) = trace.instructions.get(executed.id as usize) else {
                    continue;
                };
                let bytes = &instruction.bytes;
                let mut decoder =
                    Decoder::with_ip(64, bytes, executed.address, DecoderOptions::NONE);
                let function = &row.functions[executed.function];
                let known = code.known.entry(executed.address).or_insert_with(|| Known {
                    bytes: bytes.clone(),
                    function: function.name.clone(),
                    module: function.module.clone(),
                    decoded: decoder.decode(),
                    times: BTreeMap::new(),
                });
                *known.times.entry(row.row.clone()).or_default() += executed.times.all;
            }
        }
        let symbols = trace.symbols.iter();
        code.symbols = symbols
            .filter(|symbol| symbol.space == Space::Kernel)
            .cloned()
            .collect();
        code
    }

    /// The function of this name.
    pub(super) fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.iter().find(|symbol| symbol.name == name)
    }

    /// Instructions of a function that were executed, by their address.
    pub(super) fn function<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (u64, &'a Known)> {
        let known = self.known.iter();
        known
            .filter(move |(_, known)| known.function == name)
            .map(|(at, known)| (*at, known))
    }

    /// How often an instruction runs in a round of a row.
    pub(super) fn times(&self, address: u64, row: &str) -> u64 {
        let known = self.known.get(&address);
        known
            .and_then(|known| known.times.get(row))
            .copied()
            .unwrap_or(0)
    }

    /// Takes instructions out: what to change, and where an instruction is left instead.
    pub(super) fn without(&self, removed: &BTreeSet<u64>) -> (Vec<Change>, Vec<u64>) {
        let (mut changes, mut left) = (Vec::new(), Vec::new());
        let mut removed = removed
            .iter()
            .filter_map(|at| Some((*at, self.known.get(at)?)))
            .peekable();
        while let Some((start, first)) = removed.next() {
            let mut old = first.bytes.clone();
            // What lies side by side goes together.
            while let Some((_, next)) = removed.next_if(|(at, _)| *at == start + old.len() as u64) {
                old.extend(&next.bytes);
            }
            let behind = self.known.get(&(start + old.len() as u64));
            let is_prefix = |behind: &&Known| {
                behind.bytes.len() + old.len() <= LONGEST && behind.bytes != VMRUN
            };
            let new = match behind.filter(is_prefix) {
                Some(_) => vec![DS; old.len()],
                None => {
                    left.push(start);
                    nothing(old.len())
                }
            };
            changes.push(Change {
                function: first.function.clone(),
                address: start,
                old,
                new,
            });
        }
        (changes, left)
    }
}

/// A jump over so many bytes from where it stands; `None` for more than a short one reaches.
pub(super) fn jump_over(length: u64) -> Option<[u8; 2]> {
    let over = u8::try_from(length.checked_sub(2)?).ok()?;
    (over < 0x80).then_some([0xeb, over])
}

/// One instruction that does nothing, of so many bytes or with a jump over the rest of them.
fn nothing(length: usize) -> Vec<u8> {
    if let Some(nop) = length.checked_sub(1).and_then(|at| NOPS.get(at)) {
        return nop.to_vec();
    }
    // JMP rel8, JMP rel32.
    let mut code = match u8::try_from(length - 2) {
        Ok(over) if over < 0x80 => vec![0xeb, over],
        _ => {
            let mut far = vec![0xe9];
            far.extend((length as u32 - 5).to_le_bytes());
            far
        }
    };
    // What is jumped over is never reached: INT3 says so if it is.
    code.resize(length, 0xcc);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn code(instructions: &[&[u8]]) -> (Code, Vec<u64>) {
        let (mut code, mut at, mut addresses) =
            (Code::default(), 0xffff_ffff_8100_0000, Vec::new());
        for bytes in instructions {
            let mut decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
            let known = Known {
                bytes: bytes.to_vec(),
                function: "f".to_owned(),
                module: "kvm".to_owned(),
                decoded: decoder.decode(),
                times: BTreeMap::from([("row".to_owned(), 1)]),
            };
            code.known.insert(at, known);
            addresses.push(at);
            at += bytes.len() as u64;
        }
        (code, addresses)
    }

    /// What a CPU decodes of all of it after the changes.
    fn changed(code: &Code, changes: &[Change]) -> Vec<Instruction> {
        let start = *code.known.keys().next().expect("code");
        let mut bytes: Vec<u8> = code
            .known
            .values()
            .flat_map(|known| known.bytes.clone())
            .collect();
        for change in changes {
            let at = (change.address - start) as usize;
            assert_eq!(bytes[at..at + change.old.len()], change.old);
            bytes[at..at + change.new.len()].copy_from_slice(&change.new);
        }
        let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
        let mut all = Vec::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            let over = match instruction.mnemonic() {
                Mnemonic::Jmp => instruction.near_branch_target() - instruction.next_ip(),
                _ => 0,
            };
            all.push(instruction);
            decoder
                .set_position(decoder.position() + over as usize)
                .expect("inside");
            decoder.set_ip(decoder.ip() + over);
        }
        all
    }

    #[test]
    fn what_is_taken_out_is_a_prefix_of_what_follows() {
        // call; mov rax, [rip + 0x1000]; ret
        let (code, at) = code(&[
            &[0xe8, 0, 0, 0, 0],
            &[0x48, 0x8b, 0x05, 0, 0x10, 0, 0],
            &[0xc3],
        ]);
        let (changes, left) = code.without(&BTreeSet::from([at[0]]));
        assert!(left.is_empty());
        let after = changed(&code, &changes);
        assert_eq!(after.len(), 2);
        // It reads what it read.
        assert_eq!(after[0].mnemonic(), Mnemonic::Mov);
        assert_eq!(after[0].memory_displacement64(), at[2] + 0x1000);
        assert_eq!(after[0].next_ip(), at[2]);
    }

    #[test]
    fn too_much_leaves_one_instruction() {
        let nop = NOPS[4];
        let (code, at) = code(&[nop, nop, nop, &[0xc3]]);
        for (removed, is_left) in [(1, 0), (2, 1), (3, 1)] {
            let removed: BTreeSet<u64> = at[3 - removed..3].iter().copied().collect();
            let (changes, left) = code.without(&removed);
            // Two of them and RET are eleven bytes, three sixteen.
            let is_left = usize::from(removed.len() == 3 && is_left == 1);
            assert_eq!(left.len(), is_left, "{removed:x?}");
            let after = changed(&code, &changes);
            assert_eq!(after.len(), 4 - removed.len() + is_left, "{removed:x?}");
            assert_eq!(after.last().map(Instruction::mnemonic), Some(Mnemonic::Ret));
        }
    }

    #[test]
    fn vmrun_keeps_its_bytes() {
        let (code, at) = code(&[NOPS[6], &VMRUN]);
        let (changes, left) = code.without(&BTreeSet::from([at[0]]));
        assert_eq!((changes[0].new.as_slice(), left), (NOPS[6], vec![at[0]]));
    }

    #[test]
    fn each_length_can_be_nothing() {
        for length in 1..400 {
            let bytes = nothing(length);
            assert_eq!(bytes.len(), length);
            let mut decoder = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE);
            let first = decoder.decode();
            match first.mnemonic() {
                Mnemonic::Nop => assert_eq!(first.len(), length),
                Mnemonic::Jmp => assert_eq!(first.near_branch_target(), length as u64),
                other => panic!("{other:?}"),
            }
        }
    }
}
