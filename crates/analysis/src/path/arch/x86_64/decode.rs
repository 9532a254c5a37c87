//! Machine code, decoded once: where control may go from an instruction, and what the guest's
//! clock makes of it.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction as Iced,
    Mnemonic as M, OpKind, Register,
};

use exitpath_recording::Instruction;

/// Where control may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::path) enum Flow {
    /// To the next instruction only; with a REP prefix, to itself too.
    Next,
    /// To the target or to the next instruction.
    Branch,
    /// To the target.
    Jump,
    /// Anywhere, by a jump.
    IndirectJump,
    /// To the target, by a call.
    Call,
    /// Anywhere, by a call.
    IndirectCall,
    /// Anywhere, by a return.
    Return,
    /// Into the kernel, by a system call.
    SystemCall,
    /// From there into user space.
    SystemReturn,
    /// Back from an interrupt or an exception (IRET).
    InterruptReturn,
    /// Into the guest and, some time later, to the next instruction.
    Vmrun,
}

/// Whether an instruction of the guest that was the last one before an exit has been intercepted,
/// so that it was begun and not completed, and the guest's clock does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::path) enum Interception {
    /// It has: KVM always intercepts it, and it does not run in the guest.
    Always,
    /// It has, unless the exit was one for an interrupt: KVM may intercept it or let it run.
    UnlessInterrupt,
    /// It has, if the exit was one for a fault of a memory access or an exception.
    IfMemoryFault,
    /// It has, if the exit was one for an exception: it does not access memory.
    IfException,
}

/// An instruction, decoded.
#[derive(Debug, Clone, Copy)]
pub(in crate::path) struct Decoded {
    pub(in crate::path) address: u64,
    /// Address behind it.
    pub(in crate::path) next: u64,
    /// Where it goes, of direct branches; else 0.
    pub(in crate::path) target: u64,
    pub(in crate::path) flow: Flow,
    pub(in crate::path) interception: Interception,
    /// Whether it has a REP prefix, so that it is begun anew for each repetition.
    pub(in crate::path) repeats: bool,
    /// Bits of [`super::classes::CLASSES`].
    pub(in crate::path) classes: u32,
}

impl Decoded {
    pub(in crate::path) fn new(instruction: &Instruction) -> Decoded {
        let decoded = decode(instruction);
        let flow = flow(&decoded);
        let target = match flow {
            Flow::Branch | Flow::Jump | Flow::Call => decoded.near_branch_target(),
            _ => 0,
        };
        Decoded {
            address: instruction.address,
            // Not the decoder's length: it has none for what it cannot decode.
            next: instruction
                .address
                .wrapping_add(instruction.bytes.len() as u64),
            target,
            flow,
            interception: interception(&decoded),
            repeats: decoded.is_string_instruction()
                && (decoded.has_rep_prefix() || decoded.has_repne_prefix()),
            classes: super::classes::classify(&decoded),
        }
    }

    /// Whether it runs in the kernel's half of the addresses.
    pub(in crate::path) fn in_kernel(&self) -> bool {
        self.address >> 63 == 1
    }

    /// Whether it may be followed by itself without having been interrupted.
    pub(in crate::path) fn loops(&self) -> bool {
        let jumps = matches!(self.flow, Flow::Branch | Flow::Jump);
        self.repeats || (jumps && self.target == self.address)
    }

    /// Whether a direct step (not a call, a return or an indirect jump) leads to an address.
    pub(in crate::path) fn steps_to(&self, address: u64) -> bool {
        match self.flow {
            Flow::Next => address == self.next || (self.repeats && address == self.address),
            Flow::Branch => address == self.next || address == self.target,
            Flow::Jump => address == self.target,
            Flow::Vmrun => address == self.next,
            _ => false,
        }
    }
}

fn decode(instruction: &Instruction) -> Iced {
    let options = DecoderOptions::NONE;
    Decoder::with_ip(64, &instruction.bytes, instruction.address, options).decode()
}

/// Text of an instruction in AT&T syntax; `(bad)` for what is none, as objdump has it.
pub(in crate::path) fn text(instruction: &Instruction) -> String {
    let decoded = decode(instruction);
    if decoded.is_invalid() {
        return "(bad)".to_owned();
    }
    let mut formatter = GasFormatter::new();
    let options = formatter.options_mut();
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_rip_relative_addresses(true);
    let mut text = String::new();
    formatter.format(&decoded, &mut text);
    text
}

/// What an instruction does, without what linking, loading or another compilation changes of it:
/// no addresses, displacements, numbers, sizes, nor which of the general registers it uses.
pub(in crate::path) fn form(instruction: &Instruction) -> String {
    let decoded = decode(instruction);
    if decoded.is_invalid() {
        return "(bad)".to_owned();
    }
    let mut form = String::new();
    for (has, prefix) in [
        (decoded.has_lock_prefix(), "lock "),
        (decoded.has_rep_prefix(), "rep "),
        (decoded.has_repne_prefix(), "repne "),
    ] {
        if has {
            form.push_str(prefix);
        }
    }
    form.push_str(&format!("{:?}", decoded.mnemonic()).to_lowercase());
    // The operand of a NOP is nothing but length.
    if decoded.mnemonic() == M::Nop {
        return form;
    }
    for operand in 0..decoded.op_count() {
        form.push_str(if operand == 0 { " " } else { ", " });
        form.push_str(kind(&decoded, operand));
    }
    form
}

/// The kind of an operand.
fn kind(instruction: &Iced, operand: u32) -> &'static str {
    match instruction.op_kind(operand) {
        OpKind::Register => {
            let register = instruction.op_register(operand);
            if register.is_gpr() {
                "r"
            } else if register.is_segment_register() {
                "segment"
            } else if register.is_cr() {
                "control"
            } else if register.is_dr() {
                "debug"
            } else {
                "other"
            }
        }
        OpKind::Memory => match instruction.segment_prefix() {
            Register::FS => "fs:m",
            Register::GS => "gs:m",
            _ => "m",
        },
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => "near",
        OpKind::FarBranch16 | OpKind::FarBranch32 => "far",
        OpKind::Immediate8
        | OpKind::Immediate8_2nd
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => "i",
        // Those of string instructions.
        _ => "s",
    }
}

fn flow(instruction: &Iced) -> Flow {
    match instruction.mnemonic() {
        M::Vmrun => return Flow::Vmrun,
        M::Syscall | M::Sysenter => return Flow::SystemCall,
        M::Sysret | M::Sysretq | M::Sysexit | M::Sysexitq => return Flow::SystemReturn,
        M::Iret | M::Iretd | M::Iretq => return Flow::InterruptReturn,
        M::Vmmcall | M::Vmcall | M::Vmlaunch | M::Vmresume => return Flow::Next,
        _ => {}
    }
    let near = matches!(
        instruction.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    );
    match instruction.flow_control() {
        FlowControl::UnconditionalBranch if near => Flow::Jump,
        FlowControl::ConditionalBranch if near => Flow::Branch,
        FlowControl::XbeginXabortXend if near => Flow::Branch,
        FlowControl::Call if near => Flow::Call,
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => Flow::IndirectJump,
        FlowControl::Call | FlowControl::IndirectCall => Flow::IndirectCall,
        FlowControl::Return => Flow::Return,
        // What raises an exception goes nowhere by itself: its handler is entered as any
        // exception's is.
        _ => Flow::Next,
    }
}

/// What KVM's SVM code intercepts: `init_vmcb` in arch/x86/kvm/svm/svm.c.
fn interception(instruction: &Iced) -> Interception {
    match instruction.mnemonic() {
        M::Cpuid | M::Vmmcall | M::Vmcall | M::Hlt | M::Wbinvd | M::Wbnoinvd | M::Invd => {
            Interception::Always
        }
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => {
            Interception::Always
        }
        M::Vmrun | M::Vmload | M::Vmsave | M::Stgi | M::Clgi | M::Skinit | M::Invlpga => {
            Interception::Always
        }
        M::Monitor | M::Mwait | M::Rsm | M::Xsetbv | M::Rdpru => Interception::Always,
        // Which of the registers is told by bitmaps, and PAUSE by a counter.
        M::Rdmsr | M::Wrmsr | M::Rdpmc | M::Pause | M::Invlpg | M::Invpcid => {
            Interception::UnlessInterrupt
        }
        M::Clts | M::Lmsw | M::Smsw => Interception::UnlessInterrupt,
        M::Mov if moves_control_register(instruction) => Interception::UnlessInterrupt,
        _ if accesses_memory(instruction) => Interception::IfMemoryFault,
        _ => Interception::IfException,
    }
}

fn moves_control_register(instruction: &Iced) -> bool {
    let registers = [instruction.op0_register(), instruction.op1_register()];
    registers.iter().any(|r| r.is_cr() || r.is_dr())
}

fn accesses_memory(instruction: &Iced) -> bool {
    if matches!(instruction.mnemonic(), M::Lea | M::Nop) {
        return false;
    }
    let register_or_number = |operand: u32| {
        matches!(
            instruction.op_kind(operand),
            OpKind::Register
                | OpKind::NearBranch16
                | OpKind::NearBranch32
                | OpKind::NearBranch64
                | OpKind::FarBranch16
                | OpKind::FarBranch32
                | OpKind::Immediate8
                | OpKind::Immediate8_2nd
                | OpKind::Immediate16
                | OpKind::Immediate32
                | OpKind::Immediate64
                | OpKind::Immediate8to16
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32to64
        )
    };
    instruction.is_stack_instruction() || !(0..instruction.op_count()).all(register_or_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(bytes: &[u8]) -> Instruction {
        Instruction {
            address: 0x1000,
            bytes: bytes.to_vec(),
        }
    }

    fn decoded(bytes: &[u8]) -> Decoded {
        Decoded::new(&instruction(bytes))
    }

    #[test]
    fn flow_is_told_by_the_bytes() {
        for (bytes, flow) in [
            (&[0x90][..], Flow::Next),
            (&[0xf3, 0xa4], Flow::Next),
            (&[0xeb, 0x00], Flow::Jump),
            (&[0x74, 0x00], Flow::Branch),
            (&[0xe2, 0xfe], Flow::Branch),
            (&[0xe8, 0, 0, 0, 0], Flow::Call),
            (&[0xff, 0xd0], Flow::IndirectCall),
            (&[0xff, 0xe0], Flow::IndirectJump),
            (&[0xc3], Flow::Return),
            (&[0xf3, 0xc3], Flow::Return),
            (&[0x0f, 0x05], Flow::SystemCall),
            (&[0x48, 0x0f, 0x07], Flow::SystemReturn),
            (&[0x48, 0xcf], Flow::InterruptReturn),
            (&[0x0f, 0x01, 0xd8], Flow::Vmrun),
            (&[0x0f, 0x0b], Flow::Next),
            (&[0x06], Flow::Next),
            (&[], Flow::Next),
        ] {
            assert_eq!(decoded(bytes).flow, flow, "{bytes:x?}");
        }
    }

    #[test]
    fn what_may_be_intercepted_is_told_by_the_bytes() {
        for (bytes, interception) in [
            (&[0x0f, 0xa2][..], Interception::Always),
            (&[0xed], Interception::Always),
            (&[0xf4], Interception::Always),
            (&[0x0f, 0x30], Interception::UnlessInterrupt),
            (&[0x0f, 0x22, 0xc0], Interception::UnlessInterrupt),
            (&[0x8a, 0x07], Interception::IfMemoryFault),
            (&[0x50], Interception::IfMemoryFault),
            (&[0xa4], Interception::IfMemoryFault),
            (&[0x90], Interception::IfException),
            (&[0xfb], Interception::IfException),
            (&[0x48, 0x8d, 0x07], Interception::IfException),
            (&[0x48, 0x01, 0xc3], Interception::IfException),
            (&[0xeb, 0x00], Interception::IfException),
        ] {
            assert_eq!(decoded(bytes).interception, interception, "{bytes:x?}");
        }
    }

    #[test]
    fn a_form_has_nothing_that_linking_or_loading_changes() {
        let form = |bytes: &[u8]| form(&instruction(bytes));
        for (bytes, expected) in [
            (&[0x48, 0x89, 0xe5][..], "mov r, r"),
            (&[0x0f, 0x22, 0xd8], "mov control, r"),
            (&[0x8e, 0xd8], "mov segment, r"),
            (&[0xe8, 0xfb, 0, 0, 0], "call near"),
            (&[0xff, 0xd0], "call r"),
            (&[0xeb, 0x10], "jmp near"),
            (&[0x48, 0x8b, 0x05, 0xf9, 0, 0, 0], "mov r, m"),
            (&[0x65, 0x48, 0x8b, 0x00], "mov r, gs:m"),
            (&[0xf0, 0x0f, 0xc1, 0x07], "lock xadd m, r"),
            (&[0xf3, 0xa4], "rep movsb s, s"),
            (&[0x0f, 0x00, 0x2d, 1, 2, 3, 4], "verw m"),
            (&[0x06], "(bad)"),
        ] {
            assert_eq!(form(bytes), expected, "{bytes:x?}");
        }
        // However long a NOP is, and wherever a branch goes.
        let nops = [&[0x90][..], &[0x66, 0x90], &[0x0f, 0x1f, 0x44, 0, 0]];
        assert!(nops.iter().all(|bytes| form(bytes) == "nop"));
        assert_eq!(form(&[0xe9, 1, 0, 0, 0]), form(&[0xeb, 0x70]));
        assert_eq!(
            form(&[0xb8, 1, 0, 0, 0]),
            form(&[0x48, 0xc7, 0xc1, 2, 0, 0, 0])
        );
    }

    #[test]
    fn text_is_as_in_the_kernels_disassemblies() {
        for (bytes, expected) in [
            (&[0x48, 0x89, 0xe5][..], "mov %rsp,%rbp"),
            (&[0xe8, 0xfb, 0, 0, 0], "call 0x1100"),
            (&[0x48, 0x8b, 0x05, 0xf9, 0, 0, 0], "mov 0xf9(%rip),%rax"),
            (&[0x06], "(bad)"),
        ] {
            let text = text(&instruction(bytes));
            assert_eq!(text.replace("callq", "call"), expected);
        }
    }
}
