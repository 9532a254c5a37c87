//! The guest programs of all rows, in the catalogue's order: what is timed, as assembly.

/// Switches the local APIC to x2APIC mode and enables it with spurious vector 0xff.
macro_rules! x2apic_on {
    () => {
        "mov ecx, 0x1b\nrdmsr\nor eax, 0xc00\nwrmsr\n\
         mov ecx, 0x80f\nmov eax, 0x1ff\nxor edx, edx\nwrmsr\n"
    };
}

/// Fixed interrupt of the test vector to itself through the x2APIC's ICR, as kvm-unit-tests'
/// self_ipi rows do it wherever x2APIC is on.
macro_rules! icr_to_self {
    () => {
        "mov ecx, 0x830\nmov eax, 0x44060\nxor edx, edx"
    };
}

/// The same through the SELF IPI register.
macro_rules! self_ipi_msr {
    () => {
        "mov ecx, 0x83f\nmov eax, 0x60\nxor edx, edx"
    };
}

/// Spins at label 2 until the count of handled interrupts is no longer rbx; label 3 is behind it.
macro_rules! wait_for_interrupt {
    () => {
        "2:\ncmp rbx, qword ptr [{INTERRUPTS}]\njne 3f\n\
         cmp qword ptr [{YIELD}], 0\nje 2b\npause\njmp 2b\n3:"
    };
}

/// Counts a secondary vCPU as ready.
macro_rules! ready {
    () => {
        "lock inc qword ptr [{READY_VCPUS}]\n"
    };
}

/// Waits for the secondary vCPU.
macro_rules! wait_ready {
    () => {
        "2:\npause\ncmp qword ptr [{READY_VCPUS}], 0\nje 2b"
    };
}

/// rsi = task priority that holds back the test vector, rdi = none.
macro_rules! priorities {
    () => {
        "mov esi, 0xf\nxor edi, edi"
    };
}

// Reference and checking rows.
guest_program! { empty, op: "" }
guest_program! { nop, op: "nop" }
guest_program! { nop_10, op: ".rept 10\nnop\n.endr" }
guest_program! { nop_100, op: ".rept 100\nnop\n.endr" }
guest_program! { nop_1000, op: ".rept 1000\nnop\n.endr" }
guest_program! { cpuid_twice,
    setup: "xor eax, eax\nxor ecx, ecx",
    op: "cpuid\nxor eax, eax\nxor ecx, ecx\ncpuid",
    baseline: "xor eax, eax\nxor ecx, ecx",
}

// Two that go wrong on purpose: one never ends, one takes an exception.
guest_program! { hang, op: "2:\njmp 2b" }
guest_program! { fault, setup: "xor eax, eax\nxor edx, edx\nxor ecx, ecx", op: "div ecx" }

// kvm-unit-tests' rows.
guest_program! { cpuid, setup: "xor eax, eax\nxor ecx, ecx", op: "cpuid" }
// Hypercall 1, KVM_HC_VAPIC_POLL_IRQ, does nothing and returns 0.
guest_program! { vmcall, setup: "mov eax, 1", op: "vmcall" }
guest_program! { vmmcall, setup: "mov eax, 1", op: "vmmcall" }
guest_program! { wbinvd, op: "wbinvd" }
guest_program! { invd, op: "invd" }
guest_program! { mov_from_cr8, op: "mov rax, cr8" }
guest_program! { mov_to_cr8, setup: "xor eax, eax", op: "mov cr8, rax" }
guest_program! { inl_from_pmtimer,
    setup: "mov edx, {PM_TIMER}", op: "in eax, dx", consts: { PM_TIMER = port::PM_TIMER },
}
guest_program! { inl_from_qemu,
    setup: "mov edx, {USER_READ}", op: "in eax, dx", consts: { USER_READ = port::USER_READ },
}
guest_program! { inl_from_kernel,
    setup: "mov edx, {ELCR}", op: "in al, dx", consts: { ELCR = port::ELCR },
}
guest_program! { outl_to_kernel,
    setup: "mov edx, {ELCR}\nxor eax, eax", op: "out dx, al", consts: { ELCR = port::ELCR },
}
guest_program! { mov_dr, setup: "mov eax, 0x400", op: "mov dr7, rax" }
// A deadline that has passed when it is written: the interrupt comes at once.
guest_program! { tscdeadline_immed,
    prepare: concat!(x2apic_on!(),
        "mov ecx, 0x832\nmov eax, 0x40060\nxor edx, edx\nwrmsr\nmfence\nsti"),
    setup: "mov ecx, 0x6e0\nmov rbx, qword ptr [{INTERRUPTS}]\nrdtsc",
    op: "wrmsr\n2:\ncmp rbx, qword ptr [{INTERRUPTS}]\nje 2b",
}
guest_program! { tscdeadline,
    prepare: concat!(x2apic_on!(),
        "mov ecx, 0x832\nmov eax, 0x40060\nxor edx, edx\nwrmsr\nmfence\nsti"),
    setup: "mov ecx, 0x6e0\nmov rbx, qword ptr [{INTERRUPTS}]\nrdtsc\nadd eax, {DELAY}\nadc edx, 0",
    op: "wrmsr\n2:\ncmp rbx, qword ptr [{INTERRUPTS}]\nje 2b",
    consts: { DELAY = crate::layout::delay::TSCDEADLINE_TICKS },
}
guest_program! { self_ipi_sti_nop,
    prepare: x2apic_on!(), setup: icr_to_self!(), op: "cli\nwrmsr\nsti\nnop",
}
guest_program! { self_ipi_sti_hlt,
    prepare: x2apic_on!(), setup: icr_to_self!(), op: "cli\nwrmsr\nsti\nhlt",
}
guest_program! { self_ipi_tpr,
    prepare: concat!(x2apic_on!(), "sti"), setup: concat!(icr_to_self!(), "\n", priorities!()),
    op: "mov cr8, rsi\nwrmsr\nmov cr8, rdi\nnop",
}
guest_program! { self_ipi_tpr_sti_nop,
    prepare: x2apic_on!(), setup: concat!(icr_to_self!(), "\n", priorities!()),
    op: "cli\nmov cr8, rsi\nwrmsr\nmov cr8, rdi\nsti\nnop",
}
guest_program! { self_ipi_tpr_sti_hlt,
    prepare: x2apic_on!(), setup: concat!(icr_to_self!(), "\n", priorities!()),
    op: "cli\nmov cr8, rsi\nwrmsr\nmov cr8, rdi\nsti\nhlt",
}
guest_program! { x2apic_self_ipi_sti_nop,
    prepare: x2apic_on!(), setup: self_ipi_msr!(), op: "cli\nwrmsr\nsti\nnop",
}
guest_program! { x2apic_self_ipi_sti_hlt,
    prepare: x2apic_on!(), setup: self_ipi_msr!(), op: "cli\nwrmsr\nsti\nhlt",
}
guest_program! { x2apic_self_ipi_tpr,
    prepare: concat!(x2apic_on!(), "sti"), setup: concat!(self_ipi_msr!(), "\n", priorities!()),
    op: "mov cr8, rsi\nwrmsr\nmov cr8, rdi\nnop",
}
guest_program! { x2apic_self_ipi_tpr_sti_nop,
    prepare: x2apic_on!(), setup: concat!(self_ipi_msr!(), "\n", priorities!()),
    op: "cli\nmov cr8, rsi\nwrmsr\nmov cr8, rdi\nsti\nnop",
}
guest_program! { x2apic_self_ipi_tpr_sti_hlt,
    prepare: x2apic_on!(), setup: concat!(self_ipi_msr!(), "\n", priorities!()),
    op: "cli\nmov cr8, rsi\nwrmsr\nmov cr8, rdi\nsti\nhlt",
}
// The other vCPU spins with interrupts enabled and counts its turns; its handler counts
// interrupts. Two turns before each operation, not timed, say that it is out of the last handler
// and runs.
guest_program! { ipi,
    prepare: concat!(x2apic_on!(), wait_ready!()),
    before: "mov rbx, qword ptr [{TURN_1}]\nadd rbx, 2\n\
        2:\ncmp rbx, qword ptr [{TURN_1}]\njbe 3f\n\
        cmp qword ptr [{YIELD}], 0\nje 2b\npause\njmp 2b\n3:",
    setup: "mov ecx, 0x830\nmov eax, 0x4060\nmov edx, 1\nmov rbx, qword ptr [{INTERRUPTS}]",
    op: concat!("wrmsr\n", wait_for_interrupt!()),
    secondary: concat!(x2apic_on!(), ready!(),
        "sti\n2:\ninc qword ptr [{TURN_1}]\n\
        cmp qword ptr [{YIELD}], 0\nje 2b\npause\njmp 2b"),
    consts: {
        READY_VCPUS = CONTROL + word::READY,
        YIELD = CONTROL + word::YIELD,
        TURN_1 = CONTROL + word::TURN_1,
    },
}
// The other vCPU halts; a spin before each operation, not timed, lets it get there.
guest_program! { ipi_halt,
    prepare: concat!(x2apic_on!(), wait_ready!()),
    before: concat!(clock!(), "lea rbx, [rax + {SPIN}]\n2:\n",
        "cmp qword ptr [{YIELD}], 0\nje 3f\npause\n3:\n",
        clock!(), "cmp rax, rbx\njb 2b"),
    setup: "mov ecx, 0x830\nmov eax, 0x4060\nmov edx, 1\nmov rbx, qword ptr [{INTERRUPTS}]",
    op: concat!("wrmsr\n", wait_for_interrupt!()),
    secondary: concat!(x2apic_on!(), ready!(), "2:\nsti\nhlt\njmp 2b"),
    consts: {
        READY_VCPUS = CONTROL + word::READY,
        YIELD = CONTROL + word::YIELD,
        SPIN = crate::layout::delay::IPI_HALT_SPIN_TICKS,
    },
}
// Hand the turn to the other vCPU and wait, pausing, until it comes back.
guest_program! { ple_round_robin,
    prepare: wait_ready!(),
    setup: "mov rbx, qword ptr [{TURN_0}]",
    op: "inc qword ptr [{TURN_1}]\n2:\npause\ncmp rbx, qword ptr [{TURN_0}]\nje 2b",
    secondary: concat!("mov rbx, qword ptr [{TURN_1}]\n", ready!(),
        "2:\npause\nmov rax, qword ptr [{TURN_1}]\ncmp rbx, rax\nje 2b\n\
        mov rbx, rax\ninc qword ptr [{TURN_0}]\njmp 2b"),
    consts: {
        READY_VCPUS = CONTROL + word::READY,
        TURN_0 = CONTROL + word::TURN_0,
        TURN_1 = CONTROL + word::TURN_1,
    },
}
guest_program! { wr_kernel_gs_base,
    setup: "mov ecx, 0xc0000102\nxor eax, eax\nxor edx, edx", op: "wrmsr",
}
guest_program! { wr_tsx_ctrl_msr,
    setup: "mov ecx, 0x122\nxor eax, eax\nxor edx, edx", op: "wrmsr",
}
// Sets and clears IBRS in turn, one write an operation.
guest_program! { wr_ibrs_msr,
    setup: "mov ecx, 0x48\nxor r13d, 1\nmov eax, r13d\nxor edx, edx", op: "wrmsr",
}
guest_program! { wr_ibpb_msr, setup: "mov ecx, 0x49\nmov eax, 1\nxor edx, edx", op: "wrmsr" }
guest_program! { wr_tsc_adjust_msr,
    setup: "mov ecx, 0x3b\nxor eax, eax\nxor edx, edx", op: "wrmsr",
}
guest_program! { rd_tsc_adjust_msr, setup: "mov ecx, 0x3b", op: "rdmsr" }
// Clears and sets the bit in turn, one write an operation.
guest_program! { toggle_cr0_wp,
    prepare: "mov rax, cr0\nmov qword ptr [{STATE}], rax", setup: "xor r13, 0x10000",
    op: "mov cr0, r13",
}
guest_program! { toggle_cr4_pge,
    prepare: "mov rax, cr4\nmov qword ptr [{STATE}], rax", setup: "xor r13, 0x80",
    op: "mov cr4, r13",
}
guest_program! { pci_mem_no_eventfd,
    setup: "mov edi, {AT}\nmov al, {DATA}", op: "mov byte ptr [rdi], al",
    consts: { AT = mmio::TESTDEV_PLAIN, DATA = DATAMATCH },
}
guest_program! { pci_mem_wildcard_eventfd,
    setup: "mov edi, {AT}\nmov al, {DATA}", op: "mov byte ptr [rdi], al",
    consts: { AT = mmio::TESTDEV_WILDCARD, DATA = DATAMATCH },
}
guest_program! { pci_mem_datamatch_eventfd,
    setup: "mov edi, {AT}\nmov al, {DATA}", op: "mov byte ptr [rdi], al",
    consts: { AT = mmio::TESTDEV_DATAMATCH, DATA = DATAMATCH },
}
guest_program! { pci_io_no_eventfd,
    setup: "mov edx, {AT}\nmov al, {DATA}", op: "out dx, al",
    consts: { AT = port::TESTDEV_PLAIN, DATA = DATAMATCH },
}
guest_program! { pci_io_wildcard_eventfd,
    setup: "mov edx, {AT}\nmov al, {DATA}", op: "out dx, al",
    consts: { AT = port::TESTDEV_WILDCARD, DATA = DATAMATCH },
}
guest_program! { pci_io_datamatch_eventfd,
    setup: "mov edx, {AT}\nmov al, {DATA}", op: "out dx, al",
    consts: { AT = port::TESTDEV_DATAMATCH, DATA = DATAMATCH },
}

// Rows of our own.
guest_program! { pio_user_write,
    setup: "mov edx, {USER_WRITE}\nxor eax, eax", op: "out dx, eax",
    consts: { USER_WRITE = port::USER_WRITE },
}
guest_program! { mmio_user_read,
    setup: "mov edi, {AT}", op: "mov eax, dword ptr [rdi]", consts: { AT = mmio::USER },
}
// No hypercall has this number: KVM answers -KVM_ENOSYS.
guest_program! { hypercall_invalid_vmcall, setup: "mov eax, 0x7fff", op: "vmcall" }
guest_program! { hypercall_invalid_vmmcall, setup: "mov eax, 0x7fff", op: "vmmcall" }
// What HLT adds where an interrupt is pending: against the same sequence with a nop.
guest_program! { hlt_pending,
    prepare: x2apic_on!(), setup: self_ipi_msr!(),
    op: "cli\nwrmsr\nsti\nhlt", baseline: "cli\nwrmsr\nsti\nnop",
}
guest_program! { xapic_self_ipi_sti_nop,
    prepare: "mov edi, 0xfee000f0\nmov dword ptr [rdi], 0x1ff",
    setup: "mov edi, 0xfee00300", op: "cli\nmov dword ptr [rdi], 0x44060\nsti\nnop",
    eoi: "mov ecx, 0xfee000b0\nmov dword ptr [rcx], 0",
}
guest_program! { irqfd_loopback,
    prepare: concat!(x2apic_on!(), "sti"),
    setup: "mov edx, {AT}\nmov al, {DATA}\nmov rbx, qword ptr [{INTERRUPTS}]",
    op: "out dx, al\n2:\ncmp rbx, qword ptr [{INTERRUPTS}]\nje 2b",
    consts: { AT = port::TESTDEV_WILDCARD, DATA = DATAMATCH },
}
guest_program! { rdtsc, op: "rdtsc" }
guest_program! { rdtscp, op: "rdtscp" }
guest_program! { xsetbv,
    prepare: "mov rax, cr4\nor eax, 0x40000\nmov cr4, rax",
    setup: "xor ecx, ecx\nmov eax, 3\nxor edx, edx", op: "xsetbv",
}
guest_program! { rdpmc, setup: "xor ecx, ecx", op: "rdpmc" }
guest_program! { nested_page_fault, op: "mov byte ptr [r12], 1", after: "add r12, 0x1000" }
guest_program! { dirty_log_write, op: "mov byte ptr [r12], 1", after: "add r12, 0x1000" }
// Each vCPU writes to a port of its own, which its APIC's number tells. The others do nothing else, and
// count it.
guest_program! { locked_write,
    setup: "mov edx, {FIRST}\nxor eax, eax", op: "out dx, eax",
    secondary: "mov eax, 1\nxor ecx, ecx\ncpuid\nshr ebx, 24\nlea edx, [rbx * 4 + {FIRST}]\nxor eax, eax\n\
        shl ebx, 6\n2:\nout dx, eax\ninc qword ptr [rbx + {WRITES}]\njmp 2b",
    consts: { FIRST = port::LOCKED, WRITES = CONTROL + word::WRITES },
}
