# Where a VMM enters the image, in one of four ways; the guest is put together, and the rows are run
# one by one until the end.

    .pushsection .text.exitpath_guest, "ax", @progbits
    .balign 64
    .globl exitpath_bare, exitpath_bare_pvh, exitpath_bare_multiboot, exitpath_bare_linux64
    .hidden exitpath_bare, exitpath_bare_pvh, exitpath_bare_multiboot, exitpath_bare_linux64
    .globl exitpath_bare_start_64, exitpath_bare_handler, exitpath_bare_flat_entry, exitpath_bare_end
    .hidden exitpath_bare_start_64, exitpath_bare_handler, exitpath_bare_flat_entry, exitpath_bare_end
exitpath_bare:
    .skip {HEADER_SIZE} + {PARAMETERS_SIZE}, 0

# Entered as a 64-bit Linux (Documentation/arch/x86/boot.rst): paging is on, with tables that
# may lie where ours go. Down to 32 bits without paging, which the other ways begin with.
    .code64
exitpath_bare_linux64:
    cli
    mov esp, dword ptr [{STACK_TOP}]
    lea rax, [rip + .Lxb_gdt]
    mov qword ptr [rip + .Lxb_gdtr + 2], rax
    lgdt [rip + .Lxb_gdtr]
    push 0x08
    lea rax, [rip + 2f]
    push rax
    retfq
    .code32
2:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, 0x21  # NE, PE: paging off
    mov cr0, eax
    mov ecx, 0xc0000080
    xor eax, eax
    xor edx, edx
    wrmsr
    mov ebp, 2
    jmp 3f

exitpath_bare_flat_entry:
    mov ebp, 3
    jmp 3f
exitpath_bare_multiboot:
    mov ebp, 1
    jmp 3f
exitpath_bare_pvh:
    xor ebp, ebp
    # 32-bit protected mode, flat segments, no paging. Tables, stubs and page tables to their
    # places.
3:
    cli
    cld
    mov dword ptr [{ENTERED}], ebp
    mov esp, dword ptr [{STACK_TOP}]
    mov ebx, dword ptr [{SEGMENTS}]
    mov edx, dword ptr [{SEGMENT_COUNT}]
4:
    mov edi, dword ptr [ebx]
    mov esi, dword ptr [ebx + 8]
    mov ecx, dword ptr [ebx + 16]
    rep movsb
    add ebx, 24
    dec edx
    jnz 4b
    xor eax, eax
    mov edi, {TSS}
    mov ecx, 0x1000
    rep stosb
    # Registers as vmm/src/vcpu.rs has them.
    mov eax, 0x6a0
    mov cr4, eax
    mov eax, {PAGE_TABLES}
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, 0x80050033
    mov cr0, eax
    lgdt [{GDTR}]
    push 0x08
    push dword ptr [{START_64}]
    retf

    .code64
exitpath_bare_start_64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rsp, qword ptr [{STACK_TOP}]
    lidt [{IDTR}]
    mov eax, 0x18
    ltr ax
    # The PICs keep their interrupts.
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    # COM1: no interrupts, 115200 8N1, FIFOs where there are any.
    mov edx, 0x3f9
    xor eax, eax
    out dx, al
    mov edx, 0x3fb
    mov al, 0x80
    out dx, al
    mov edx, 0x3f8
    mov al, 1
    out dx, al
    mov edx, 0x3f9
    xor eax, eax
    out dx, al
    mov edx, 0x3fb
    mov al, 3
    out dx, al
    mov edx, 0x3fa
    mov al, 7
    out dx, al
    mov edx, 0x3fc
    mov al, 3
    out dx, al
    mov dword ptr [rip + .Lxb_burst], 1
    mov edx, 0x3fa
    in al, dx
    and al, 0xc0
    cmp al, 0xc0
    jne 2f
    mov dword ptr [rip + .Lxb_burst], 16
2:
    xor eax, eax
    cpuid
    mov dword ptr [rip + .Lxb_vendor], ebx
    mov dword ptr [rip + .Lxb_vendor + 4], edx
    mov dword ptr [rip + .Lxb_vendor + 8], ecx
    xor eax, eax
    cmp ebx, 0x68747541  # "Auth"
    je 3f
    cmp ebx, 0x6f677948  # "Hygo"
    jne 4f
3:
    mov eax, 1
4:
    mov dword ptr [rip + .Lxb_amd], eax

    # What firmware has left on the line is no part of ours.
    mov al, 10
    call .Lxb_put
    call .Lxb_line
    lea rsi, [rip + .Lxb_boot]
    call .Lxb_text
    mov rax, qword ptr [{ENTERED}]
    call .Lxb_number
    mov rax, qword ptr [{ROW_COUNT}]
    call .Lxb_number
    call .Lxb_space
    lea rsi, [rip + .Lxb_vendor]
    mov ecx, 12
    call .Lxb_bytes
    call .Lxb_end_line

    mov rbx, qword ptr [{ROWS}]
    xor ebp, ebp
.Lxb_rows:
    cmp rbp, qword ptr [{ROW_COUNT}]
    jae .Lxb_finished
    call .Lxb_row
    add rbx, {RECORD_SIZE}
    inc rbp
    jmp .Lxb_rows
.Lxb_finished:
    call .Lxb_line
    lea rsi, [rip + .Lxb_bye]
    call .Lxb_text
    mov rax, rbp
    call .Lxb_number
    call .Lxb_end_line

# The end: QEMU's isa-debug-exit, the keyboard controller's reset line, and then nothing.
.Lxb_leave:
    mov edx, 0xf4
    mov eax, {EXIT_VALUE}
    out dx, eax
    mov al, 0xfe
    out 0x64, al
2:
    cli
    hlt
    jmp 2b
