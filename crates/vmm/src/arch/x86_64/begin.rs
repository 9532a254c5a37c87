//! How a vCPU begins: in 64-bit mode, flat, with the guest's own tables.

use exitpath_exits::image::{
    CODE_SELECTOR, DATA_SELECTOR, GDT_SIZE, IDT_SIZE, PAGE_TABLE_ROOT, TSS_SELECTOR, stack_top,
};
use exitpath_exits::layout::{GDT, IDT, TSS};
use kvm_bindings::{CpuId, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use crate::Error;

fn segment(selector: u16, type_: u8, code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..Default::default()
    }
}

/// The CPUID of one vCPU: its APIC's id is its number (Intel SDM vol. 2, CPUID, leaves 1, 0BH, 1FH).
pub(crate) fn own_cpuid(cpuid: &CpuId, index: u8) -> CpuId {
    let mut cpuid = cpuid.clone();
    for leaf in cpuid.as_mut_slice() {
        match leaf.function {
            1 => leaf.ebx = (leaf.ebx & 0x00ff_ffff) | u32::from(index) << 24,
            0xb | 0x1f => leaf.edx = u32::from(index),
            _ => {}
        }
    }
    cpuid
}

/// Leaves that a 64-bit guest cannot do without.
const NEEDED_LEAVES: [u32; 5] = [0, 1, 0x8000_0000, 0x8000_0001, 0x8000_0008];
/// XSAVE and OSXSAVE in leaf 1's ECX: they make no sense without leaf 0DH.
const XSAVE: u32 = 0b11 << 26;

/// Of a CPUID what a 64-bit guest cannot do without. Which leaves there are, leaves 0 and 80000000H say as before.
pub(crate) fn trimmed_cpuid(cpuid: &CpuId) -> CpuId {
    let mut cpuid = cpuid.clone();
    cpuid.retain(|leaf| NEEDED_LEAVES.contains(&leaf.function));
    for leaf in cpuid.as_mut_slice() {
        if leaf.function == 1 {
            leaf.ecx &= !XSAVE;
        }
    }
    cpuid
}

/// Puts a vCPU at its program's entry.
pub(crate) fn begin(fd: &VcpuFd, index: u8, entry: u64) -> Result<(), Error> {
    let mut sregs = fd.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
    sregs.cs = segment(CODE_SELECTOR, 11, true);
    let data = segment(DATA_SELECTOR, 3, false);
    (sregs.ds, sregs.es, sregs.fs) = (data, data, data);
    (sregs.gs, sregs.ss) = (data, data);
    sregs.tr = kvm_segment {
        base: TSS,
        limit: 0x67,
        selector: TSS_SELECTOR,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    sregs.gdt.base = GDT;
    sregs.gdt.limit = GDT_SIZE - 1;
    sregs.idt.base = IDT;
    sregs.idt.limit = IDT_SIZE - 1;
    sregs.cr0 = 0x8005_0033; // PG, AM, WP, NE, ET, MP, PE
    sregs.cr3 = PAGE_TABLE_ROOT;
    sregs.cr4 = 0x6a0; // PAE, PGE, OSFXSR, OSXMMEXCPT
    sregs.efer = 0x500; // LMA, LME
    fd.set_sregs(&sregs).map_err(Error::kvm("KVM_SET_SREGS"))?;
    fd.set_regs(&kvm_regs {
        rip: entry,
        rsp: stack_top(u64::from(index)),
        rflags: 2,
        ..Default::default()
    })
    .map_err(Error::kvm("KVM_SET_REGS"))
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_cpuid_entry2;

    use super::*;

    #[test]
    fn each_vcpu_has_its_own_apic_and_all_else_in_common() {
        let leaf = |function| kvm_cpuid_entry2 {
            function,
            eax: 0x1111_1111,
            ebx: 0x2233_4455,
            edx: 0x6666_6666,
            ..Default::default()
        };
        let common = [0, 1, 0xb, 0x1f, 0x8000_0008].map(leaf);
        let common = CpuId::from_entries(&common).expect("five leaves");
        let own = own_cpuid(&common, 3);
        for (own, common) in std::iter::zip(own.as_slice(), common.as_slice()) {
            let expected = match own.function {
                1 => (0x0333_4455, common.edx),
                0xb | 0x1f => (common.ebx, 3),
                _ => (common.ebx, common.edx),
            };
            assert_eq!((own.ebx, own.edx), expected, "{:#x}", own.function);
            assert_eq!(own.eax, common.eax);
        }
    }

    #[test]
    fn a_trimmed_cpuid_has_no_leaf_and_no_feature_that_a_guest_can_do_without() {
        let leaf = |function| kvm_cpuid_entry2 {
            function,
            eax: 0x1111_1111,
            ecx: 0xffff_ffff,
            ..Default::default()
        };
        let all = [0, 1, 7, 0xd, 0x4000_0000, 0x8000_0000, 0x8000_0001].map(leaf);
        let trimmed = trimmed_cpuid(&CpuId::from_entries(&all).expect("seven leaves"));
        let left: Vec<(u32, u32)> = trimmed
            .as_slice()
            .iter()
            .map(|leaf| (leaf.function, leaf.ecx))
            .collect();
        let expected = [
            (0, u32::MAX),
            (1, 0xf3ff_ffff),
            (0x8000_0000, u32::MAX),
            (0x8000_0001, u32::MAX),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn code_is_64_bit_and_data_is_flat() {
        let (code, data) = (
            segment(CODE_SELECTOR, 11, true),
            segment(DATA_SELECTOR, 3, false),
        );
        // L and D may not both be set (AMD APM vol. 2, 4.8.1).
        assert_eq!((code.l, code.db), (1, 0));
        assert_eq!((data.l, data.db), (0, 1));
        for segment in [code, data] {
            assert_eq!(
                (segment.base, segment.limit, segment.present),
                (0, u32::MAX, 1)
            );
        }
    }
}
