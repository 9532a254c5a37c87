//! Classes of instructions that cost more than others, or cannot be costed as others are.
//!
//! An instruction may be in several classes. The definitions are those of the manuals: Intel's
//! Software Developer's Manual (SDM) and AMD's Architecture Programmer's Manual (APM).

use iced_x86::{Code, FlowControl, Instruction, Mnemonic as M, OpKind, Register};

/// A class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// What belongs to it, and where that is written.
    pub about: &'static str,
}

/// All classes, in the order they are listed in.
pub const CLASSES: [Class; 26] = [
    Class {
        name: "serialising",
        about: "complete everything before them first: CPUID, IRET, RSM, SERIALIZE, WRMSR, WBINVD, WBNOINVD, \
                INVD, INVLPG, MOV to CR but CR8, MOV to DR, LGDT, LIDT, LLDT, LTR (Intel SDM vol. 3 \
                \"Serializing Instructions\" and AMD APM vol. 2 \"Serializing Instructions\"); SWAPGS, \
                MFENCE, INVLPGA and TLBSYNC on AMD only, LMSW, INVEPT and INVVPID on Intel only. WRMSR to some \
                registers does not serialise. INVPCID is in the decoder's list of them",
    },
    Class {
        name: "msr-access",
        about: "RDMSR, WRMSR, WRMSRNS, RDMSRLIST, WRMSRLIST (Intel SDM vol. 2)",
    },
    Class {
        name: "locked",
        about: "a LOCK prefix, or what locks without one: XCHG with memory (Intel SDM vol. 3 \"Bus \
                Locking\", AMD APM vol. 3 \"Lock Prefix\"), CMPccXADD, AADD, AAND, AOR, AXOR (Intel SDM vol. 2)",
    },
    Class {
        name: "fence",
        about: "LFENCE, MFENCE, SFENCE, PCOMMIT (Intel SDM vol. 2), MCOMMIT (AMD APM vol. 3)",
    },
    Class {
        name: "interrupt-flag",
        about: "CLI, STI and POPF, which sets the interrupt flag too (Intel SDM vol. 3 \"Masking Maskable \
                Hardware Interrupts\"); CLUI, STUI",
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
        about: "loads of segment registers and bases, LGDT, LIDT, LLDT, LTR, LKGS, WRFSBASE, WRGSBASE \
                (Intel SDM vol. 3 \"System Instruction Summary\")",
    },
    Class {
        name: "segment-read",
        about: "stores of segment registers, bases and tables, and looks at descriptors: SGDT, SIDT, SLDT, STR, \
                RDFSBASE, RDGSBASE, LAR, LSL, VERR (Intel SDM vol. 3 \"System Instruction Summary\")",
    },
    Class {
        name: "buffer-clear",
        about: "VERW, with which kernels overwrite the CPU's buffers (Intel \"Microarchitectural Data Sampling\", AMD \
                \"Transient Scheduler Attacks\")",
    },
    Class {
        name: "ring-change",
        about: "SYSCALL, SYSRET, SYSENTER, SYSEXIT, IRET, UIRET, ERETS, ERETU, far RET, INT, UD, SWAPGS (AMD APM vol. 2 \
                \"System Management Instructions\", Intel SDM vol. 2)",
    },
    Class {
        name: "user-access",
        about: "STAC, CLAC, RDPKRU, WRPKRU (Intel SDM vol. 2)",
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
        about: "VMRUN, VMLOAD, VMSAVE, VMMCALL, VMGEXIT, CLGI, STGI, SKINIT, INVLPGA (AMD APM vol. 2 \"Secure \
                Virtual Machine\"), SEV-SNP's, VMX's and TDX's (Intel SDM vol. 3 \"VMX Instruction Reference\")",
    },
    Class {
        name: "tlb-flush",
        about: "INVLPG, INVLPGA, INVLPGB, TLBSYNC, INVPCID, INVEPT, INVVPID (AMD APM vol. 3, Intel SDM vol. 2). MOV to \
                CR3 is a control register's",
    },
    Class {
        name: "cache-flush",
        about: "WBINVD, WBNOINVD, INVD, CLFLUSH, CLFLUSHOPT, CLWB, CLDEMOTE (Intel SDM vol. 2)",
    },
    Class {
        name: "timestamp",
        about: "RDTSC, RDTSCP (Intel SDM vol. 3 \"Time-Stamp Counter\")",
    },
    Class {
        name: "counter-read",
        about: "RDPMC (Intel SDM vol. 2), RDPRU (AMD APM vol. 3)",
    },
    Class {
        name: "pause",
        about: "PAUSE, TPAUSE (Intel SDM vol. 2)",
    },
    Class {
        name: "halt",
        about: "HLT, MWAIT, MWAITX, UMWAIT, and MONITOR, MONITORX, UMONITOR, which arm them (AMD APM vol. 3)",
    },
    Class {
        name: "divide",
        about: "DIV, IDIV (Intel SDM vol. 2)",
    },
    Class {
        name: "random",
        about: "RDRAND, RDSEED (Intel SDM vol. 1 \"Random Number Generator Instructions\")",
    },
    Class {
        name: "other-system",
        about: "what else only an operating system uses, or waits for another unit: shadow stacks, enclaves, GETSEC, \
                memory encryption, ENQCMD, transactions, SENDUIPI, HRESET (Intel SDM vol. 2)",
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
const SEGMENT_READ: u32 = 1 << 9;
const BUFFER_CLEAR: u32 = 1 << 10;
const RING_CHANGE: u32 = 1 << 11;
const USER_ACCESS: u32 = 1 << 12;
const XSAVE: u32 = 1 << 13;
const STRING_MOVE: u32 = 1 << 14;
const PORT_IO: u32 = 1 << 15;
const VM: u32 = 1 << 16;
const TLB_FLUSH: u32 = 1 << 17;
const CACHE_FLUSH: u32 = 1 << 18;
const TIMESTAMP: u32 = 1 << 19;
const COUNTER_READ: u32 = 1 << 20;
const PAUSE: u32 = 1 << 21;
const HALT: u32 = 1 << 22;
const DIVIDE: u32 = 1 << 23;
const RANDOM: u32 = 1 << 24;
const OTHER_SYSTEM: u32 = 1 << 25;

/// The classes an instruction is in: bit i stands for [`CLASSES`]`[i]`.
pub(in crate::path) fn classify(instruction: &Instruction) -> u32 {
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
        M::Cpuid | M::Rsm | M::Serialize => SERIALISING,
        M::Wbinvd | M::Wbnoinvd | M::Invd => SERIALISING | CACHE_FLUSH,
        M::Clflush | M::Clflushopt | M::Clwb | M::Cldemote => CACHE_FLUSH,
        M::Invlpg | M::Invpcid | M::Tlbsync => SERIALISING | TLB_FLUSH,
        M::Invlpgb => TLB_FLUSH,
        M::Invlpga | M::Invept | M::Invvpid => SERIALISING | TLB_FLUSH | VM,
        M::Wrmsr => SERIALISING | MSR,
        M::Rdmsr | M::Wrmsrns | M::Rdmsrlist | M::Wrmsrlist => MSR,
        M::Mfence => SERIALISING | FENCE,
        M::Lfence | M::Sfence | M::Mcommit | M::Pcommit => FENCE,
        M::Cli | M::Sti | M::Popf | M::Popfd | M::Popfq | M::Clui | M::Stui => INTERRUPT_FLAG,
        M::Ret => RETURN,
        M::Lgdt | M::Lidt | M::Lldt | M::Ltr => SERIALISING | SEGMENT_LOAD,
        M::Wrfsbase | M::Wrgsbase | M::Lkgs | M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => {
            SEGMENT_LOAD
        }
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Rdfsbase | M::Rdgsbase => SEGMENT_READ,
        M::Lar | M::Lsl | M::Verr => SEGMENT_READ,
        M::Verw => BUFFER_CLEAR,
        M::Lmsw => SERIALISING | CONTROL_REGISTER,
        M::Clts | M::Smsw => CONTROL_REGISTER,
        M::Mov | M::Pop | M::Push => register_move(instruction),
        M::Swapgs => SERIALISING | RING_CHANGE,
        M::Iret | M::Iretd | M::Iretq => SERIALISING | RING_CHANGE,
        M::Syscall | M::Sysret | M::Sysretq | M::Sysenter | M::Sysexit | M::Sysexitq => RING_CHANGE,
        M::Int | M::Int1 | M::Int3 | M::Into | M::Ud0 | M::Ud1 | M::Ud2 => RING_CHANGE,
        M::Retf | M::Uiret | M::Erets | M::Eretu => RING_CHANGE,
        M::Stac | M::Clac | M::Rdpkru | M::Wrpkru => USER_ACCESS,
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
        M::Vmptrst | M::Vmclear | M::Vmxon | M::Vmxoff | M::Vmfunc | M::Vmgexit => VM,
        M::Psmash | M::Pvalidate | M::Rmpadjust | M::Rmpquery | M::Rmpupdate => VM,
        M::Seamcall | M::Seamops | M::Seamret | M::Tdcall => VM,
        M::Rdtsc | M::Rdtscp => TIMESTAMP,
        M::Rdpmc | M::Rdpru => COUNTER_READ,
        M::Pause | M::Tpause => PAUSE,
        M::Hlt | M::Mwait | M::Mwaitx | M::Umwait => HALT,
        M::Monitor | M::Monitorx | M::Umonitor => HALT,
        M::Div | M::Idiv => DIVIDE,
        M::Rdrand | M::Rdseed => RANDOM,
        M::Clrssbsy | M::Setssbsy | M::Wrussd | M::Wrussq | M::Wrssd | M::Wrssq => OTHER_SYSTEM,
        M::Rstorssp | M::Saveprevssp | M::Incsspd | M::Incsspq => OTHER_SYSTEM,
        M::Encls | M::Enclu | M::Enclv | M::Getsec | M::Getsecq => OTHER_SYSTEM,
        M::Pconfig | M::Pbndkb | M::Loadiwkey | M::Enqcmd | M::Enqcmds => OTHER_SYSTEM,
        M::Xbegin | M::Xend | M::Xabort | M::Xresldtrk | M::Xsusldtrk => OTHER_SYSTEM,
        M::Senduipi | M::Hreset | M::Ptwrite | M::Rdudbg | M::Wrudbg | M::Undoc => OTHER_SYSTEM,
        M::Aadd | M::Aand | M::Aor | M::Axor => LOCKED,
        M::Cmpbexadd | M::Cmpbxadd | M::Cmplexadd | M::Cmplxadd | M::Cmpnbexadd => LOCKED,
        M::Cmpnbxadd | M::Cmpnlexadd | M::Cmpnlxadd | M::Cmpnoxadd | M::Cmpnpxadd => LOCKED,
        M::Cmpnsxadd | M::Cmpnzxadd | M::Cmpoxadd | M::Cmppxadd => LOCKED,
        M::Cmpsxadd | M::Cmpzxadd => LOCKED,
        _ => 0,
    }
}

/// MOV, POP and PUSH, which are in a class only with special registers.
fn register_move(instruction: &Instruction) -> u32 {
    match instruction.code() {
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 | Code::Mov_Sreg_r64m16 => SEGMENT_LOAD,
        Code::Popw_DS | Code::Popw_ES | Code::Popw_SS | Code::Popd_DS | Code::Popd_ES => {
            SEGMENT_LOAD
        }
        Code::Popd_SS | Code::Popw_FS | Code::Popd_FS | Code::Popq_FS => SEGMENT_LOAD,
        Code::Popw_GS | Code::Popd_GS | Code::Popq_GS | Code::Popw_CS => SEGMENT_LOAD,
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg => SEGMENT_READ,
        Code::Pushq_FS | Code::Pushq_GS | Code::Pushw_FS | Code::Pushw_GS => SEGMENT_READ,
        Code::Mov_r32_cr | Code::Mov_r64_cr | Code::Mov_r32_dr | Code::Mov_r64_dr => {
            CONTROL_REGISTER
        }
        Code::Mov_cr_r32 | Code::Mov_cr_r64 if instruction.op0_register() == Register::CR8 => {
            CONTROL_REGISTER
        }
        Code::Mov_cr_r32 | Code::Mov_cr_r64 | Code::Mov_dr_r32 | Code::Mov_dr_r64 => {
            CONTROL_REGISTER | SERIALISING
        }
        Code::Mov_r32_tr | Code::Mov_tr_r32 => CONTROL_REGISTER,
        _ => 0,
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
            (&[0x0f, 0x00, 0x2d, 1, 2, 3, 4], &["buffer-clear"]),
            (&[0x0f, 0x00, 0xe0], &["segment-read"]),
            (&[0x8c, 0xd8], &["segment-read"]),
            (&[0x0f, 0xa0], &["segment-read"]),
            (&[0x0f, 0xa1], &["segment-load"]),
            (&[0x50], &[]),
            (&[0x58], &[]),
            (&[0x0f, 0x01, 0xca], &["user-access"]),
            (&[0x48, 0xf7, 0xf1], &["divide"]),
            (&[0x0f, 0x01, 0x38], &["serialising", "tlb-flush"]),
            (&[0x0f, 0x09], &["serialising", "cache-flush"]),
            (&[0x0f, 0x33], &["counter-read"]),
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

    /// All codes of instructions that 64-bit code may have, of the list that the decoder comes with.
    fn codes() -> impl Iterator<Item = Code> {
        Code::values().filter(|code| code.op_code().is_instruction() && code.op_code().mode64())
    }

    fn of(code: Code) -> u32 {
        let mut instruction = Instruction::default();
        instruction.set_code(code);
        classify(&instruction)
    }

    #[test]
    fn no_instruction_of_the_systems_is_without_a_class() {
        for code in codes() {
            let about = code.op_code();
            let of_system = about.is_privileged()
                || about.must_be_cpl0()
                || about.is_input_output()
                || about.is_save_restore();
            let serialises = about.is_serializing_intel() || about.is_serializing_amd();
            let set = of(code);
            assert!(set != 0 || !(of_system || serialises), "{code:?}");
            assert_eq!(set & SERIALISING != 0, serialises, "{code:?}");
        }
    }

    /// What is in no class although it is neither arithmetic, nor a move, nor a direct branch: named, so
    /// that what a later decoder knows has to be decided upon.
    const PLAIN: &[M] = &[
        M::Bndcl,
        M::Bndcn,
        M::Bndcu,
        M::Bndldx,
        M::Bndmk,
        M::Bndmov,
        M::Bndstx,
        M::Clzero,
        M::Endbr32,
        M::Endbr64,
        M::Llwpcb,
        M::Lwpins,
        M::Lwpval,
        M::Movdir64b,
        M::Movdiri,
        M::Nop,
        M::Prefetch,
        M::Prefetchit0,
        M::Prefetchit1,
        M::Prefetchw,
        M::Prefetchwt1,
        M::Rdpid,
        M::Rdsspd,
        M::Rdsspq,
        M::Reservednop,
        M::Slwpcb,
        M::Testui,
        M::Wait,
        M::Xtest,
    ];

    #[test]
    fn every_other_instruction_is_known_to_be_plain() {
        // Arithmetic, moves, stack, flags and direct branches of the base instruction set.
        let base = "aaa adc adcx add adox and bsf bsr bswap bt btc btr bts call cbw cdq cdqe clc cld cmc cmp cmpsb \
                    cmpsd cmpsq cmpsw cmpxchg cmpxchg16b cmpxchg8b cqo cwd cwde dec enter imul inc jmp jrcxz jecxz \
                    lahf lea leave lodsb lodsd lodsq lodsw loop loope loopne lzcnt mov movbe movsb movsd movsq movsw \
                    movsx movsxd movzx mul neg not or pop popcnt push pushf pushfq rcl rcr rol ror sahf sal sar \
                    sbb scasb scasd scasq scasw shl shld shr shrd stc std stosb stosd stosq stosw sub test xadd xchg xlatb xor";
        let base: Vec<&str> = base.split_whitespace().collect();
        let base = |name: &str| {
            let conditional = ["cmov", "set", "j"]
                .iter()
                .any(|start| name.starts_with(start));
            base.contains(&name) || conditional
        };
        for code in codes().filter(|&code| of(code) == 0) {
            let mnemonic = code.mnemonic();
            let name = format!("{mnemonic:?}").to_lowercase();
            // Vectors, floating point and what else computes in registers of its own.
            let computes = code.cpuid_features().iter().any(|feature| {
                let feature = format!("{feature:?}");
                let units = [
                    "AVX", "SSE", "MMX", "FPU", "D3NOW", "FMA", "XOP", "F16C", "AES", "SHA",
                    "GFNI", "BMI", "TBM", "PCLMUL", "AMX", "PADLOCK", "KNC", "CYRIX", "SM3", "SM4",
                    "KL",
                ];
                units.iter().any(|unit| feature.contains(unit))
            });
            assert!(
                base(&name) || computes || PLAIN.contains(&mnemonic),
                "{code:?}: {name}"
            );
        }
    }

    #[test]
    fn classes_have_names_of_their_own() {
        assert_eq!(OTHER_SYSTEM, 1 << (CLASSES.len() - 1));
        let names: std::collections::BTreeSet<&str> = CLASSES.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), CLASSES.len());
    }
}
