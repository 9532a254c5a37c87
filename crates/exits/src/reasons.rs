//! Exit reasons: why a guest leaves for its hypervisor, by number and in the words of those who
//! meet them in traces and bug reports.
//!
//! Numbers are those of AMD's manual (volume 2, appendix C) and Intel's (volume 3, appendix C);
//! constants and tracepoints' strings those of the kernel's `asm/svm.h` and `asm/vmx.h`, which
//! `perf kvm stat` prints, too. trace-cmd prints the constants less their first word.

/// Whose reason it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// AMD's SVM.
    Svm,
    /// Intel's VMX.
    Vmx,
}

impl Vendor {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Vendor::Svm => "SVM",
            Vendor::Vmx => "VMX",
        }
    }
}

/// An exit reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Whose it is.
    pub vendor: Vendor,
    /// The exit code (SVM) or the basic exit reason (VMX).
    pub code: u32,
    /// The kernel's constant; formed like one where the kernel has none.
    pub constant: &'static str,
    /// The kernel's tracepoints' word for it; formed like one where they have none.
    pub word: &'static str,
}

const SVM_PREFIX: &str = "SVM_EXIT_";
const VMX_PREFIX: &str = "EXIT_REASON_";
/// Code of an exit because the VMCB is not consistent: -1, of 32 or 64 bits.
const SVM_INVALID: u32 = u32::MAX;

const fn svm(code: u32, constant: &'static str, word: &'static str) -> Reason {
    Reason {
        vendor: Vendor::Svm,
        code,
        constant,
        word,
    }
}

const fn vmx(code: u32, constant: &'static str) -> Reason {
    Reason {
        vendor: Vendor::Vmx,
        code,
        constant,
        // VMX's words are the constants less their beginning.
        word: constant.split_at(VMX_PREFIX.len()).1,
    }
}

/// SVM's, by code.
#[rustfmt::skip]
pub const SVM: &[Reason] = &[
    svm(0x0, "SVM_EXIT_READ_CR0", "read_cr0"),
    svm(0x2, "SVM_EXIT_READ_CR2", "read_cr2"),
    svm(0x3, "SVM_EXIT_READ_CR3", "read_cr3"),
    svm(0x4, "SVM_EXIT_READ_CR4", "read_cr4"),
    svm(0x8, "SVM_EXIT_READ_CR8", "read_cr8"),
    svm(0x10, "SVM_EXIT_WRITE_CR0", "write_cr0"),
    svm(0x12, "SVM_EXIT_WRITE_CR2", "write_cr2"),
    svm(0x13, "SVM_EXIT_WRITE_CR3", "write_cr3"),
    svm(0x14, "SVM_EXIT_WRITE_CR4", "write_cr4"),
    svm(0x18, "SVM_EXIT_WRITE_CR8", "write_cr8"),
    svm(0x20, "SVM_EXIT_READ_DR0", "read_dr0"),
    svm(0x21, "SVM_EXIT_READ_DR1", "read_dr1"),
    svm(0x22, "SVM_EXIT_READ_DR2", "read_dr2"),
    svm(0x23, "SVM_EXIT_READ_DR3", "read_dr3"),
    svm(0x24, "SVM_EXIT_READ_DR4", "read_dr4"),
    svm(0x25, "SVM_EXIT_READ_DR5", "read_dr5"),
    svm(0x26, "SVM_EXIT_READ_DR6", "read_dr6"),
    svm(0x27, "SVM_EXIT_READ_DR7", "read_dr7"),
    svm(0x30, "SVM_EXIT_WRITE_DR0", "write_dr0"),
    svm(0x31, "SVM_EXIT_WRITE_DR1", "write_dr1"),
    svm(0x32, "SVM_EXIT_WRITE_DR2", "write_dr2"),
    svm(0x33, "SVM_EXIT_WRITE_DR3", "write_dr3"),
    svm(0x34, "SVM_EXIT_WRITE_DR4", "write_dr4"),
    svm(0x35, "SVM_EXIT_WRITE_DR5", "write_dr5"),
    svm(0x36, "SVM_EXIT_WRITE_DR6", "write_dr6"),
    svm(0x37, "SVM_EXIT_WRITE_DR7", "write_dr7"),
    svm(0x40, "SVM_EXIT_EXCP_DE", "DE excp"),
    svm(0x41, "SVM_EXIT_EXCP_DB", "DB excp"),
    svm(0x43, "SVM_EXIT_EXCP_BP", "BP excp"),
    svm(0x44, "SVM_EXIT_EXCP_OF", "OF excp"),
    svm(0x45, "SVM_EXIT_EXCP_BR", "BR excp"),
    svm(0x46, "SVM_EXIT_EXCP_UD", "UD excp"),
    svm(0x47, "SVM_EXIT_EXCP_NM", "NM excp"),
    svm(0x48, "SVM_EXIT_EXCP_DF", "DF excp"),
    svm(0x4a, "SVM_EXIT_EXCP_TS", "TS excp"),
    svm(0x4b, "SVM_EXIT_EXCP_NP", "NP excp"),
    svm(0x4c, "SVM_EXIT_EXCP_SS", "SS excp"),
    svm(0x4d, "SVM_EXIT_EXCP_GP", "GP excp"),
    svm(0x4e, "SVM_EXIT_EXCP_PF", "PF excp"),
    svm(0x50, "SVM_EXIT_EXCP_MF", "MF excp"),
    svm(0x51, "SVM_EXIT_EXCP_AC", "AC excp"),
    svm(0x52, "SVM_EXIT_EXCP_MC", "MC excp"),
    svm(0x53, "SVM_EXIT_EXCP_XF", "XF excp"),
    svm(0x60, "SVM_EXIT_INTR", "interrupt"),
    svm(0x61, "SVM_EXIT_NMI", "nmi"),
    svm(0x62, "SVM_EXIT_SMI", "smi"),
    svm(0x63, "SVM_EXIT_INIT", "init"),
    svm(0x64, "SVM_EXIT_VINTR", "vintr"),
    svm(0x65, "SVM_EXIT_CR0_SEL_WRITE", "cr0_sel_write"),
    svm(0x66, "SVM_EXIT_IDTR_READ", "read_idtr"),
    svm(0x67, "SVM_EXIT_GDTR_READ", "read_gdtr"),
    svm(0x68, "SVM_EXIT_LDTR_READ", "read_ldtr"),
    svm(0x69, "SVM_EXIT_TR_READ", "read_rt"),
    svm(0x6a, "SVM_EXIT_IDTR_WRITE", "write_idtr"),
    svm(0x6b, "SVM_EXIT_GDTR_WRITE", "write_gdtr"),
    svm(0x6c, "SVM_EXIT_LDTR_WRITE", "write_ldtr"),
    svm(0x6d, "SVM_EXIT_TR_WRITE", "write_rt"),
    svm(0x6e, "SVM_EXIT_RDTSC", "rdtsc"),
    svm(0x6f, "SVM_EXIT_RDPMC", "rdpmc"),
    svm(0x70, "SVM_EXIT_PUSHF", "pushf"),
    svm(0x71, "SVM_EXIT_POPF", "popf"),
    svm(0x72, "SVM_EXIT_CPUID", "cpuid"),
    svm(0x73, "SVM_EXIT_RSM", "rsm"),
    svm(0x74, "SVM_EXIT_IRET", "iret"),
    svm(0x75, "SVM_EXIT_SWINT", "swint"),
    svm(0x76, "SVM_EXIT_INVD", "invd"),
    svm(0x77, "SVM_EXIT_PAUSE", "pause"),
    svm(0x78, "SVM_EXIT_HLT", "hlt"),
    svm(0x79, "SVM_EXIT_INVLPG", "invlpg"),
    svm(0x7a, "SVM_EXIT_INVLPGA", "invlpga"),
    svm(0x7b, "SVM_EXIT_IOIO", "io"),
    svm(0x7c, "SVM_EXIT_MSR", "msr"),
    svm(0x7d, "SVM_EXIT_TASK_SWITCH", "task_switch"),
    svm(0x7e, "SVM_EXIT_FERR_FREEZE", "ferr_freeze"),
    svm(0x7f, "SVM_EXIT_SHUTDOWN", "shutdown"),
    svm(0x80, "SVM_EXIT_VMRUN", "vmrun"),
    svm(0x81, "SVM_EXIT_VMMCALL", "hypercall"),
    svm(0x82, "SVM_EXIT_VMLOAD", "vmload"),
    svm(0x83, "SVM_EXIT_VMSAVE", "vmsave"),
    svm(0x84, "SVM_EXIT_STGI", "stgi"),
    svm(0x85, "SVM_EXIT_CLGI", "clgi"),
    svm(0x86, "SVM_EXIT_SKINIT", "skinit"),
    svm(0x87, "SVM_EXIT_RDTSCP", "rdtscp"),
    svm(0x88, "SVM_EXIT_ICEBP", "icebp"),
    svm(0x89, "SVM_EXIT_WBINVD", "wbinvd"),
    svm(0x8a, "SVM_EXIT_MONITOR", "monitor"),
    svm(0x8b, "SVM_EXIT_MWAIT", "mwait"),
    svm(0x8c, "SVM_EXIT_MWAIT_COND", "mwait_cond"),
    svm(0x8d, "SVM_EXIT_XSETBV", "xsetbv"),
    svm(0x8e, "SVM_EXIT_RDPRU", "rdpru"),
    svm(0x8f, "SVM_EXIT_EFER_WRITE_TRAP", "write_efer_trap"),
    svm(0x90, "SVM_EXIT_CR0_WRITE_TRAP", "write_cr0_trap"),
    svm(0x91, "SVM_EXIT_CR1_WRITE_TRAP", "cr1_write_trap"),
    svm(0x92, "SVM_EXIT_CR2_WRITE_TRAP", "cr2_write_trap"),
    svm(0x93, "SVM_EXIT_CR3_WRITE_TRAP", "cr3_write_trap"),
    svm(0x94, "SVM_EXIT_CR4_WRITE_TRAP", "write_cr4_trap"),
    svm(0x95, "SVM_EXIT_CR5_WRITE_TRAP", "cr5_write_trap"),
    svm(0x96, "SVM_EXIT_CR6_WRITE_TRAP", "cr6_write_trap"),
    svm(0x97, "SVM_EXIT_CR7_WRITE_TRAP", "cr7_write_trap"),
    svm(0x98, "SVM_EXIT_CR8_WRITE_TRAP", "write_cr8_trap"),
    svm(0x99, "SVM_EXIT_CR9_WRITE_TRAP", "cr9_write_trap"),
    svm(0x9a, "SVM_EXIT_CR10_WRITE_TRAP", "cr10_write_trap"),
    svm(0x9b, "SVM_EXIT_CR11_WRITE_TRAP", "cr11_write_trap"),
    svm(0x9c, "SVM_EXIT_CR12_WRITE_TRAP", "cr12_write_trap"),
    svm(0x9d, "SVM_EXIT_CR13_WRITE_TRAP", "cr13_write_trap"),
    svm(0x9e, "SVM_EXIT_CR14_WRITE_TRAP", "cr14_write_trap"),
    svm(0x9f, "SVM_EXIT_CR15_WRITE_TRAP", "cr15_write_trap"),
    svm(0xa0, "SVM_EXIT_INVLPGB", "invlpgb"),
    svm(0xa1, "SVM_EXIT_INVLPGB_ILLEGAL", "invlpgb_illegal"),
    svm(0xa2, "SVM_EXIT_INVPCID", "invpcid"),
    svm(0xa3, "SVM_EXIT_MCOMMIT", "mcommit"),
    svm(0xa4, "SVM_EXIT_TLBSYNC", "tlbsync"),
    svm(0xa5, "SVM_EXIT_BUS_LOCK", "buslock"),
    svm(0xa6, "SVM_EXIT_IDLE_HLT", "idle-halt"),
    svm(0x400, "SVM_EXIT_NPF", "npf"),
    svm(0x401, "SVM_EXIT_AVIC_INCOMPLETE_IPI", "avic_incomplete_ipi"),
    svm(0x402, "SVM_EXIT_AVIC_UNACCELERATED_ACCESS", "avic_unaccelerated_access"),
    svm(0x403, "SVM_EXIT_VMGEXIT", "vmgexit"),
    svm(0x80000001, "SVM_VMGEXIT_MMIO_READ", "vmgexit_mmio_read"),
    svm(0x80000002, "SVM_VMGEXIT_MMIO_WRITE", "vmgexit_mmio_write"),
    svm(0x80000003, "SVM_VMGEXIT_NMI_COMPLETE", "vmgexit_nmi_complete"),
    svm(0x80000004, "SVM_VMGEXIT_AP_HLT_LOOP", "vmgexit_ap_hlt_loop"),
    svm(0x80000005, "SVM_VMGEXIT_AP_JUMP_TABLE", "vmgexit_ap_jump_table"),
    svm(0x80000010, "SVM_VMGEXIT_PSC", "vmgexit_page_state_change"),
    svm(0x80000011, "SVM_VMGEXIT_GUEST_REQUEST", "vmgexit_guest_request"),
    svm(0x80000012, "SVM_VMGEXIT_EXT_GUEST_REQUEST", "vmgexit_ext_guest_request"),
    svm(0x80000013, "SVM_VMGEXIT_AP_CREATION", "vmgexit_ap_creation"),
    svm(0x8000fffd, "SVM_VMGEXIT_HV_FEATURES", "vmgexit_hypervisor_feature"),
    svm(0x8000fffe, "SVM_VMGEXIT_TERM_REQUEST", "vmgexit_term_request"),
    svm(0x8000ffff, "SVM_VMGEXIT_UNSUPPORTED_EVENT", "vmgexit_unsupported_event"),
    svm(SVM_INVALID, "SVM_EXIT_ERR", "invalid_guest_state"),
];

/// VMX's basic exit reasons, by number.
#[rustfmt::skip]
pub const VMX: &[Reason] = &[
    vmx(0, "EXIT_REASON_EXCEPTION_NMI"),
    vmx(1, "EXIT_REASON_EXTERNAL_INTERRUPT"),
    vmx(2, "EXIT_REASON_TRIPLE_FAULT"),
    vmx(3, "EXIT_REASON_INIT_SIGNAL"),
    vmx(4, "EXIT_REASON_SIPI_SIGNAL"),
    vmx(5, "EXIT_REASON_IO_SMI"),
    vmx(6, "EXIT_REASON_OTHER_SMI"),
    vmx(7, "EXIT_REASON_INTERRUPT_WINDOW"),
    vmx(8, "EXIT_REASON_NMI_WINDOW"),
    vmx(9, "EXIT_REASON_TASK_SWITCH"),
    vmx(10, "EXIT_REASON_CPUID"),
    vmx(11, "EXIT_REASON_GETSEC"),
    vmx(12, "EXIT_REASON_HLT"),
    vmx(13, "EXIT_REASON_INVD"),
    vmx(14, "EXIT_REASON_INVLPG"),
    vmx(15, "EXIT_REASON_RDPMC"),
    vmx(16, "EXIT_REASON_RDTSC"),
    vmx(17, "EXIT_REASON_RSM"),
    vmx(18, "EXIT_REASON_VMCALL"),
    vmx(19, "EXIT_REASON_VMCLEAR"),
    vmx(20, "EXIT_REASON_VMLAUNCH"),
    vmx(21, "EXIT_REASON_VMPTRLD"),
    vmx(22, "EXIT_REASON_VMPTRST"),
    vmx(23, "EXIT_REASON_VMREAD"),
    vmx(24, "EXIT_REASON_VMRESUME"),
    vmx(25, "EXIT_REASON_VMWRITE"),
    vmx(26, "EXIT_REASON_VMOFF"),
    vmx(27, "EXIT_REASON_VMON"),
    vmx(28, "EXIT_REASON_CR_ACCESS"),
    vmx(29, "EXIT_REASON_DR_ACCESS"),
    vmx(30, "EXIT_REASON_IO_INSTRUCTION"),
    vmx(31, "EXIT_REASON_MSR_READ"),
    vmx(32, "EXIT_REASON_MSR_WRITE"),
    vmx(33, "EXIT_REASON_INVALID_STATE"),
    vmx(34, "EXIT_REASON_MSR_LOAD_FAIL"),
    vmx(36, "EXIT_REASON_MWAIT_INSTRUCTION"),
    vmx(37, "EXIT_REASON_MONITOR_TRAP_FLAG"),
    vmx(39, "EXIT_REASON_MONITOR_INSTRUCTION"),
    vmx(40, "EXIT_REASON_PAUSE_INSTRUCTION"),
    vmx(41, "EXIT_REASON_MCE_DURING_VMENTRY"),
    vmx(43, "EXIT_REASON_TPR_BELOW_THRESHOLD"),
    vmx(44, "EXIT_REASON_APIC_ACCESS"),
    vmx(45, "EXIT_REASON_EOI_INDUCED"),
    vmx(46, "EXIT_REASON_GDTR_IDTR"),
    vmx(47, "EXIT_REASON_LDTR_TR"),
    vmx(48, "EXIT_REASON_EPT_VIOLATION"),
    vmx(49, "EXIT_REASON_EPT_MISCONFIG"),
    vmx(50, "EXIT_REASON_INVEPT"),
    vmx(51, "EXIT_REASON_RDTSCP"),
    vmx(52, "EXIT_REASON_PREEMPTION_TIMER"),
    vmx(53, "EXIT_REASON_INVVPID"),
    vmx(54, "EXIT_REASON_WBINVD"),
    vmx(55, "EXIT_REASON_XSETBV"),
    vmx(56, "EXIT_REASON_APIC_WRITE"),
    vmx(57, "EXIT_REASON_RDRAND"),
    vmx(58, "EXIT_REASON_INVPCID"),
    vmx(59, "EXIT_REASON_VMFUNC"),
    vmx(60, "EXIT_REASON_ENCLS"),
    vmx(61, "EXIT_REASON_RDSEED"),
    vmx(62, "EXIT_REASON_PML_FULL"),
    vmx(63, "EXIT_REASON_XSAVES"),
    vmx(64, "EXIT_REASON_XRSTORS"),
    vmx(65, "EXIT_REASON_PCONFIG"),
    vmx(66, "EXIT_REASON_SPP_EVENT"),
    vmx(67, "EXIT_REASON_UMWAIT"),
    vmx(68, "EXIT_REASON_TPAUSE"),
    vmx(69, "EXIT_REASON_LOADIWKEY"),
    vmx(70, "EXIT_REASON_ENCLV"),
    vmx(72, "EXIT_REASON_ENQCMD"),
    vmx(73, "EXIT_REASON_ENQCMDS"),
    vmx(74, "EXIT_REASON_BUS_LOCK"),
    vmx(75, "EXIT_REASON_NOTIFY"),
    vmx(76, "EXIT_REASON_SEAMCALL"),
    vmx(77, "EXIT_REASON_TDCALL"),
    vmx(78, "EXIT_REASON_RDMSRLIST"),
    vmx(79, "EXIT_REASON_WRMSRLIST"),
    vmx(80, "EXIT_REASON_URDMSR"),
    vmx(81, "EXIT_REASON_UWRMSR"),
    vmx(84, "EXIT_REASON_MSR_READ_IMM"),
    vmx(85, "EXIT_REASON_MSR_WRITE_IMM"),
];

/// SVM's reason of this EXITCODE.
pub fn of_svm(code: u64) -> Option<&'static Reason> {
    // An invalid VMCB's code is negative, of which some write 32 bits and some 64.
    let code = match code {
        u64::MAX => SVM_INVALID,
        code => u32::try_from(code).ok()?,
    };
    SVM.iter().find(|reason| reason.code == code)
}

/// VMX's reason of this exit reason field, whose upper half has flags.
pub fn of_vmx(reason: u32) -> Option<&'static Reason> {
    VMX.iter().find(|known| known.code == reason & 0xffff)
}

/// The reasons that somebody may mean by a word: a constant or a tracepoint's string, with or
/// without its beginning, in capitals or not. SVM's come first.
pub fn named(word: &str) -> Vec<&'static Reason> {
    let word = plain(word);
    let both = SVM.iter().chain(VMX);
    both.filter(|reason| plain(reason.constant) == word || plain(reason.word) == word)
        .collect()
}

/// A spelling without what spellings differ in.
fn plain(word: &str) -> String {
    let word = word.trim().to_uppercase().replace(['-', ' '], "_");
    // AMD's manual says VMEXIT_MSR, trace-cmd EXIT_MSR.
    let beginnings = [
        SVM_PREFIX,
        VMX_PREFIX,
        "VMX_EXIT_",
        "VMEXIT_",
        "EXIT_",
        "SVM_",
    ];
    let rest = beginnings
        .iter()
        .find_map(|beginning| word.strip_prefix(beginning));
    rest.map_or_else(|| word.clone(), str::to_owned)
}

/// What SVM says beside the exit code, in words, where it says something of use.
pub fn detail(code: u64, info1: u64, info2: u64) -> Option<String> {
    match code {
        // IOIO, MSR and nested page fault: AMD's manual, volume 2, 15.10.2, 15.11 and 15.25.6.
        0x7b => {
            let way = if info1 & 1 == 0 { "out" } else { "in" };
            let bytes = info1 >> 4 & 7;
            let port = info1 >> 16 & 0xffff;
            Some(format!(
                "{way} {port:#x}, {bytes} byte{}",
                if bytes == 1 { "" } else { "s" }
            ))
        }
        0x7c => Some(if info1 & 1 == 0 { "read" } else { "write" }.to_owned()),
        0x400 => {
            let what = match (info1 & 1 << 4 != 0, info1 & 1 << 1 != 0) {
                (true, _) => "fetch",
                (_, true) => "write",
                _ => "read",
            };
            Some(format!("{what} of {info2:#x}"))
        }
        _ => None,
    }
}

/// The exit reasons that a row makes, in the tracepoints' words, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reasons {
    /// On SVM: measured in the lab where the row exits there, or else as KVM has it.
    pub svm: &'static [&'static str],
    /// On VMX, as KVM has it.
    pub vmx: &'static [&'static str],
    /// In place of some of these where the CPU virtualises the guest's APIC (AVIC, APICv).
    pub virtual_apic: &'static [&'static str],
}

impl Reasons {
    /// None.
    pub const NONE: Reasons = Reasons::new(&[], &[]);

    /// On SVM and on VMX.
    pub const fn new(svm: &'static [&'static str], vmx: &'static [&'static str]) -> Reasons {
        Reasons {
            svm,
            vmx,
            virtual_apic: &[],
        }
    }

    /// Whether this one is among them.
    pub fn has(&self, reason: &Reason) -> bool {
        let of_vendor = match reason.vendor {
            Vendor::Svm => self.svm,
            Vendor::Vmx => self.vmx,
        };
        of_vendor
            .iter()
            .chain(self.virtual_apic)
            .any(|word| *word == reason.word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_in_order() {
        for table in [SVM, VMX] {
            assert!(table.windows(2).all(|two| two[0].code < two[1].code));
            for (i, reason) in table.iter().enumerate() {
                let same = |other: &Reason| {
                    plain(other.constant) == plain(reason.constant)
                        || plain(other.word) == plain(reason.word)
                };
                assert!(!table[..i].iter().any(same), "{reason:?}");
            }
        }
        // A row's words of both vendors stand in one list where an APIC is virtual.
        for reason in SVM {
            assert!(
                !VMX.iter().any(|other| other.word == reason.word),
                "{reason:?}"
            );
        }
    }

    #[test]
    fn every_spelling_is_understood() {
        let words = |word: &str| -> Vec<&str> {
            let reasons = named(word).into_iter();
            reasons.map(|reason| reason.constant).collect()
        };
        for msr in [
            "SVM_EXIT_MSR",
            "msr",
            "MSR",
            "EXIT_MSR",
            "VMEXIT_MSR",
            " Msr ",
        ] {
            assert_eq!(words(msr), ["SVM_EXIT_MSR"], "{msr}");
        }
        for write in [
            "MSR_WRITE",
            "EXIT_REASON_MSR_WRITE",
            "msr-write",
            "msr write",
        ] {
            assert_eq!(words(write), ["EXIT_REASON_MSR_WRITE"], "{write}");
        }
        for io in ["io", "IOIO", "SVM_EXIT_IOIO"] {
            assert_eq!(words(io), ["SVM_EXIT_IOIO"], "{io}");
        }
        assert_eq!(words("hlt"), ["SVM_EXIT_HLT", "EXIT_REASON_HLT"]);
        assert_eq!(words("UD excp"), ["SVM_EXIT_EXCP_UD"]);
        assert_eq!(words("EXIT_EXCP_UD"), ["SVM_EXIT_EXCP_UD"]);
        assert_eq!(words("interrupt"), ["SVM_EXIT_INTR"]);
        assert_eq!(words("EPT_VIOLATION"), ["EXIT_REASON_EPT_VIOLATION"]);
        assert!(words("cpiud").is_empty() && words("").is_empty());
    }

    #[test]
    fn numbers_are_those_of_the_manuals() {
        let svm = |code| of_svm(code).map(|reason| reason.word);
        assert_eq!(svm(0x7c), Some("msr"));
        assert_eq!(svm(0x64), Some("vintr"));
        assert_eq!(svm(0x46), Some("UD excp"));
        assert_eq!(svm(0x400), Some("npf"));
        for invalid in [u64::MAX, u32::MAX.into()] {
            assert_eq!(svm(invalid), Some("invalid_guest_state"));
        }
        assert_eq!(svm(0x1_0000_0078), None);
        assert_eq!(svm(0x3ff), None);
        // A failed entry sets bit 31.
        assert_eq!(
            of_vmx(0x8000_0021).map(|reason| reason.word),
            Some("INVALID_STATE")
        );
        assert_eq!(of_vmx(56).map(|reason| reason.word), Some("APIC_WRITE"));
        assert_eq!(of_vmx(35), None);
    }

    #[test]
    fn what_the_cpu_says_beside_the_code_is_told() {
        let told = |code, info1, info2| detail(code, info1, info2);
        assert_eq!(
            told(0x7b, 0xc004_0010, 0).as_deref(),
            Some("out 0xc004, 1 byte")
        );
        assert_eq!(
            told(0x7b, 0x1234_0041, 0).as_deref(),
            Some("in 0x1234, 4 bytes")
        );
        assert_eq!(told(0x7c, 1, 0).as_deref(), Some("write"));
        assert_eq!(
            told(0x400, 6, 0xd000_0204).as_deref(),
            Some("write of 0xd0000204")
        );
        assert_eq!(
            told(0x400, 4, 0xd000_0100).as_deref(),
            Some("read of 0xd0000100")
        );
        assert_eq!(told(0x78, 0, 0), None);
    }
}
