//! The guest programs of primitives: what the way of an exit is made of, executed by a guest's kernel mode (CPL 0)
//! without an exit. Their words are in the scratch memory's first two pages, which are always mapped.

// r12 points behind those pages; a word for each thing, a cache line apart.

guest_program! { irq_disable_enable, op: "cli\nsti", after: "cli" }
guest_program! { irq_save_restore, op: "pushfq\npop rax\ncli\npush rax\npopfq" }
guest_program! { cli, op: "cli" }
guest_program! { sti, op: "sti", after: "cli" }
guest_program! { pushf_popf, op: "pushfq\npopfq" }
guest_program! { test_and_clear_bit, op: "btr dword ptr [r12 - 0x800], 3" }
guest_program! { locked_test_and_clear_bit, op: "lock btr dword ptr [r12 - 0x800], 3" }
guest_program! { locked_increment, op: "lock inc dword ptr [r12 - 0x7c0]" }
guest_program! { locked_exchange_add, setup: "mov eax, 1", op: "lock xadd dword ptr [r12 - 0x7c0], eax" }
guest_program! { locked_compare_exchange,
    setup: "mov eax, dword ptr [r12 - 0x780]\nmov ecx, eax", op: "lock cmpxchg dword ptr [r12 - 0x780], ecx",
}
guest_program! { exchange, setup: "mov eax, 1", op: "xchg dword ptr [r12 - 0x780], eax" }
guest_program! { full_barrier, op: "lock add dword ptr [rsp - 4], 0" }
guest_program! { mfence, op: "mfence" }
guest_program! { lfence, op: "lfence" }
guest_program! { sfence, op: "sfence" }
guest_program! { no_request, op: "cmp dword ptr [r12 - 0x740], 0\njne 2f\n2:" }
// Each request is asked for by itself, as KVM does once any is there.
guest_program! { request_chain,
    op: "mov rax, qword ptr [r12 - 0x740]\n.irp bit, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24\n\
         bt rax, \\bit\njc 2f\n.endr\n2:",
}
// This CPU's counter of one of two indices, and a full barrier, as srcu_read_lock and srcu_read_unlock do.
guest_program! { srcu_lock_unlock,
    op: "mov eax, dword ptr [r12 - 0x700]\nand eax, 1\ninc qword ptr [r12 + rax * 8 - 0x6c0]\nlock add dword ptr [rsp - 4], 0\n\
         lock add dword ptr [rsp - 4], 0\ninc qword ptr [r12 + rax * 8 - 0x680]",
}
guest_program! { rdmsr, setup: "mov ecx, 0xc0000102", op: "rdmsr" }
guest_program! { wrmsr, setup: "mov ecx, 0xc0000102\nxor eax, eax\nxor edx, edx", op: "wrmsr" }
guest_program! { swapgs, op: "swapgs" }
/// Lets the guest use the extended states that there are of x87 (1), SSE (2) and AVX (4), as EAX then says.
macro_rules! states {
    () => {
        "mov rax, cr4\nor eax, 0x40600\nmov cr4, rax\nmov eax, 0xd\nxor ecx, ecx\ncpuid\nand eax, 7\nxor edx, edx\nxor ecx, ecx\nxsetbv"
    };
}
guest_program! { xsave_x87, prepare: states!(), setup: "mov eax, 1\nxor edx, edx", op: "xsave64 [r12 - 0x1000]" }
guest_program! { xsave_sse, prepare: states!(), setup: "mov eax, 2\nxor edx, edx", op: "xsave64 [r12 - 0x1000]" }
guest_program! { xsave_avx, prepare: states!(), setup: "mov eax, 4\nxor edx, edx", op: "xsave64 [r12 - 0x1000]" }
guest_program! { xrstor_x87, prepare: concat!(states!(), "\nmov eax, 7\nxor edx, edx\nmov r12d, {SCRATCH} + 0x2000\nxsave64 [r12 - 0x1000]"),
    setup: "mov eax, 1\nxor edx, edx", op: "xrstor64 [r12 - 0x1000]",
}
guest_program! { xrstor_sse, prepare: concat!(states!(), "\nmov eax, 7\nxor edx, edx\nmov r12d, {SCRATCH} + 0x2000\nxsave64 [r12 - 0x1000]"),
    setup: "mov eax, 2\nxor edx, edx", op: "xrstor64 [r12 - 0x1000]",
}
guest_program! { xrstor_avx, prepare: concat!(states!(), "\nmov eax, 7\nxor edx, edx\nmov r12d, {SCRATCH} + 0x2000\nxsave64 [r12 - 0x1000]"),
    setup: "mov eax, 4\nxor edx, edx", op: "xrstor64 [r12 - 0x1000]",
}
guest_program! { call_direct, op: "call 4f\njmp 5f\n4: ret\n5:" }
guest_program! { call_indirect, setup: "lea rax, [rip + 4f]", op: "call rax\njmp 5f\n4: ret\n5:" }
// The callee is reached by a return to its address, and speculation is caught in a loop.
guest_program! { call_retpoline, setup: "lea rax, [rip + 4f]",
    op: "call 6f\njmp 5f\n6: call 7f\n8: pause\nlfence\njmp 8b\n7: mov qword ptr [rsp], rax\nret\n4: ret\n5:",
}
