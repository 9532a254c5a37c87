//! Classes of instructions that cost more than others, or cannot be costed as others are.
//!
//! An instruction may be in several classes. The definitions are those of the manuals: Intel's
//! Software Developer's Manual (SDM) and AMD's Architecture Programmer's Manual (APM).

use iced_x86::{FlowControl, Instruction, Mnemonic as M, OpKind, Register};

/// A class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// What belongs to it, and where that is written.
    pub about: &'static str,
}

/// All classes, in the order they are listed in.
pub const CLASSES: [Class; 17] = [
    Class {
        name: "serialising",
        about: "complete everything before them first: CPUID, IRET, RSM, SERIALIZE, WRMSR, WBINVD, \
                INVD, INVLPG(A), MOV to CR but CR8, MOV to DR, LGDT, LIDT, LLDT, LTR (Intel SDM vol. 3 \
                \"Serializing Instructions\" and AMD APM vol. 2 \"Serializing Instructions\"); SWAPGS and \
                MFENCE on AMD only, INVPCID on Intel only. WRMSR to some registers does not serialise",
    },
    Class {
        name: "msr-access",
        about: "RDMSR, WRMSR, WRMSRNS, RDMSRLIST, WRMSRLIST (Intel SDM vol. 2)",
    },
    Class {
        name: "locked",
        about: "a LOCK prefix, or XCHG with memory, which locks without one (Intel SDM vol. 3 \"Bus \
                Locking\", AMD APM vol. 3 \"Lock Prefix\")",
    },
    Class {
        name: "fence",
        about: "LFENCE, MFENCE, SFENCE (Intel SDM vol. 2, AMD APM vol. 3)",
    },
    Class {
        name: "interrupt-flag",
        about: "CLI, STI and POPF, which sets the interrupt flag too (Intel SDM vol. 3 \"Masking Maskable \
                Hardware Interrupts\")",
    },
    Class {
        name: "indirect-branch",
        about: "JMP and CALL through a register or memory. Returns are a class of their own: they have \
                their own predictor, and retpolines turn these into those (AMD APM vol. 1 \"Control \
                Transfers\", AMD \"Software Techniques for Managing Speculation\")",
    },
    Class {
        name: "return",
        about: "near RET (Intel SDM vol. 1 \"Calling Procedures Using CALL and RET\")",
    },
    Class {
        name: "control-register",
        about: "MOV to and from CR and DR, CLTS, LMSW, SMSW (Intel SDM vol. 3 \"System Instruction \
                Summary\")",
    },
    Class {
        name: "segment-load",
        about: "loads of segment registers and bases, LGDT, LIDT, LLDT, LTR, WRFSBASE, WRGSBASE, VERW \
                (Intel SDM vol. 3 \"System Instruction Summary\")",
    },
    Class {
        name: "ring-change",
        about: "SYSCALL, SYSRET, SYSENTER, SYSEXIT, IRET, INT, SWAPGS (AMD APM vol. 2 \"System Management \
                Instructions\")",
    },
    Class {
        name: "xsave",
        about: "XSAVE*, XRSTOR*, FXSAVE, FXRSTOR, XGETBV, XSETBV (Intel SDM vol. 1 \"Managing State Using \
                the XSAVE Feature Set\")",
    },
    Class {
        name: "string-move",
        about: "MOVS and STOS with a REP prefix, each repetition counted (Intel SDM vol. 1 \"Fast-String \
                Operation\")",
    },
    Class {
        name: "port-io",
        about: "IN, OUT, INS, OUTS (Intel SDM vol. 1 \"Input/Output\")",
    },
    Class {
        name: "vm",
        about: "VMRUN, VMLOAD, VMSAVE, VMMCALL, CLGI, STGI, SKINIT, INVLPGA (AMD APM vol. 2 \"Secure \
                Virtual Machine\") and VMX's (Intel SDM vol. 3 \"VMX Instruction Reference\")",
    },
    Class {
        name: "timestamp",
        about: "RDTSC, RDTSCP (Intel SDM vol. 3 \"Time-Stamp Counter\")",
    },
    Class {
        name: "pause",
        about: "PAUSE, TPAUSE (Intel SDM vol. 2)",
    },
    Class {
        name: "halt",
        about: "HLT, MWAIT, MWAITX (AMD APM vol. 3)",
    },
];

const SERIALISING: u32 = 1 << 0;
const MSR: u32 = 1 << 1;
const LOCKED: u32 = 1 << 2;
const FENCE: u32 = 1 << 3;
const INTERRUPT_FLAG: u32 = 1 << 4;
const INDIRECT_BRANCH: u32 = 1 << 5;
const RETURN: u32 = 1 << 6;
const CONTROL_REGISTER: u32 = 1 << 7;
const SEGMENT_LOAD: u32 = 1 << 8;
const RING_CHANGE: u32 = 1 << 9;
const XSAVE: u32 = 1 << 10;
const STRING_MOVE: u32 = 1 << 11;
const PORT_IO: u32 = 1 << 12;
const VM: u32 = 1 << 13;
const TIMESTAMP: u32 = 1 << 14;
const PAUSE: u32 = 1 << 15;
const HALT: u32 = 1 << 16;

/// The classes an instruction is in: bit i stands for [`CLASSES`]`[i]`.
pub(super) fn classify(instruction: &Instruction) -> u32 {
    let mut set = by_mnemonic(instruction);
    let to_memory = instruction.op0_kind() == OpKind::Memory
        || (instruction.op_count() > 1 && instruction.op1_kind() == OpKind::Memory);
    if instruction.has_lock_prefix() || (instruction.mnemonic() == M::Xchg && to_memory) {
        set |= LOCKED;
    }
    if matches!(
        instruction.flow_control(),
        FlowControl::IndirectBranch | FlowControl::IndirectCall
    ) {
        set |= INDIRECT_BRANCH;
    }
    set
}

fn by_mnemonic(instruction: &Instruction) -> u32 {
    match instruction.mnemonic() {
        M::Cpuid | M::Rsm | M::Serialize | M::Wbinvd | M::Invd | M::Invlpg => SERIALISING,
        M::Invpcid => SERIALISING,
        M::Invlpga => SERIALISING | VM,
        M::Wrmsr => SERIALISING | MSR,
        M::Rdmsr | M::Wrmsrns | M::Rdmsrlist | M::Wrmsrlist => MSR,
        M::Mfence => SERIALISING | FENCE,
        M::Lfence | M::Sfence => FENCE,
        M::Cli | M::Sti | M::Popf | M::Popfd | M::Popfq => INTERRUPT_FLAG,
        M::Ret => RETURN,
        M::Lgdt | M::Lidt | M::Lldt | M::Ltr => SERIALISING | SEGMENT_LOAD,
        M::Wrfsbase | M::Wrgsbase | M::Verw | M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => {
            SEGMENT_LOAD
        }
        M::Clts | M::Lmsw | M::Smsw => CONTROL_REGISTER,
        M::Mov | M::Pop => register_move(instruction),
        M::Swapgs => SERIALISING | RING_CHANGE,
        M::Iret | M::Iretd | M::Iretq => SERIALISING | RING_CHANGE,
        M::Syscall | M::Sysret | M::Sysretq | M::Sysenter | M::Sysexit | M::Sysexitq => RING_CHANGE,
        M::Int | M::Int1 | M::Int3 | M::Into => RING_CHANGE,
        M::Xsave | M::Xsave64 | M::Xsavec | M::Xsavec64 | M::Xsaveopt | M::Xsaveopt64 => XSAVE,
        M::Xsaves | M::Xsaves64 | M::Xrstor | M::Xrstor64 | M::Xrstors | M::Xrstors64 => XSAVE,
        M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64 | M::Xgetbv | M::Xsetbv => XSAVE,
        M::Movsb | M::Movsw | M::Movsd | M::Movsq | M::Stosb | M::Stosw | M::Stosd | M::Stosq
            if instruction.has_rep_prefix() || instruction.has_repne_prefix() =>
        {
            STRING_MOVE
        }
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => PORT_IO,
        M::Vmrun | M::Vmload | M::Vmsave | M::Vmmcall | M::Clgi | M::Stgi | M::Skinit => VM,
        M::Vmcall | M::Vmlaunch | M::Vmresume | M::Vmread | M::Vmwrite | M::Vmptrld => VM,
        M::Vmptrst | M::Vmclear | M::Vmxon | M::Vmxoff | M::Invept | M::Invvpid | M::Vmfunc => VM,
        M::Rdtsc | M::Rdtscp => TIMESTAMP,
        M::Pause | M::Tpause => PAUSE,
        M::Hlt | M::Mwait | M::Mwaitx => HALT,
        _ => 0,
    }
}

/// MOV and POP, which are in a class only with special registers.
fn register_move(instruction: &Instruction) -> u32 {
    let written = instruction.op0_register();
    let read = instruction.op1_register();
    if written.is_segment_register() {
        SEGMENT_LOAD
    } else if written == Register::CR8 || read.is_cr() || read.is_dr() {
        CONTROL_REGISTER
    } else if written.is_cr() || written.is_dr() {
        CONTROL_REGISTER | SERIALISING
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    fn classes(bytes: &[u8]) -> Vec<&'static str> {
        let set = classify(&Decoder::new(64, bytes, DecoderOptions::NONE).decode());
        let named = CLASSES.iter().enumerate();
        named
            .filter(|(bit, _)| set & (1 << bit) != 0)
            .map(|(_, class)| class.name)
            .collect()
    }

    #[test]
    fn each_class_has_its_instructions() {
        for (bytes, expected) in [
            (&[0x0f, 0xa2][..], &["serialising"][..]),
            (&[0x0f, 0x30], &["serialising", "msr-access"]),
            (&[0x0f, 0x32], &["msr-access"]),
            (&[0xf0, 0xff, 0x00], &["locked"]),
            (&[0x87, 0x07], &["locked"]),
            (&[0x87, 0xc8], &[]),
            (&[0x0f, 0xae, 0xe8], &["fence"]),
            (&[0x0f, 0xae, 0xf0], &["serialising", "fence"]),
            (&[0xfa], &["interrupt-flag"]),
            (&[0x9d], &["interrupt-flag"]),
            (&[0xff, 0xe0], &["indirect-branch"]),
            (&[0xff, 0xd0], &["indirect-branch"]),
            (&[0xc3], &["return"]),
            (&[0x0f, 0x22, 0xd8], &["serialising", "control-register"]),
            (&[0x0f, 0x20, 0xd8], &["control-register"]),
            (&[0x44, 0x0f, 0x22, 0xc0], &["control-register"]),
            (&[0x0f, 0x23, 0xf8], &["serialising", "control-register"]),
            (&[0x8e, 0xd8], &["segment-load"]),
            (&[0x0f, 0x01, 0x10], &["serialising", "segment-load"]),
            (&[0x0f, 0x05], &["ring-change"]),
            (&[0x48, 0x0f, 0x07], &["ring-change"]),
            (&[0x48, 0xcf], &["serialising", "ring-change"]),
            (&[0x0f, 0xae, 0x20], &["xsave"]),
            (&[0x0f, 0x01, 0xd1], &["xsave"]),
            (&[0xf3, 0xa4], &["string-move"]),
            (&[0xa4], &[]),
            (&[0xec], &["port-io"]),
            (&[0x0f, 0x01, 0xd8], &["vm"]),
            (&[0x0f, 0x01, 0xdc], &["vm"]),
            (&[0x0f, 0x31], &["timestamp"]),
            (&[0xf3, 0x90], &["pause"]),
            (&[0xf4], &["halt"]),
            (&[0x48, 0x89, 0xe5], &[]),
        ] {
            assert_eq!(classes(bytes), expected, "{bytes:x?}");
        }
    }
}
