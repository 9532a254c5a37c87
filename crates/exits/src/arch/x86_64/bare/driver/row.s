# One row: what the CPU must have, the commands its program gets, and what is told of it.

# One row. rbx: its record; rbp: its number.
.Lxb_row:
    call .Lxb_renew
    call .Lxb_line
    lea rsi, [rip + .Lxb_begins]
    call .Lxb_text
    mov rax, rbp
    call .Lxb_number
    call .Lxb_space
    mov rsi, qword ptr [rbx + {NAME}]
    mov rcx, qword ptr [rbx + {NAME} + 8]
    call .Lxb_bytes
    call .Lxb_end_line
    call .Lxb_has_needs
    jne .Lxb_lacking

    # The control block empty; the program, from its pristine copy; its handler's gate.
    mov edi, {CONTROL}
    mov ecx, 512
    xor eax, eax
    rep stosq
    lea r12, [rbx + {INTEL}]
    lea rax, [rbx + {AMD}]
    cmp dword ptr [rip + .Lxb_amd], 0
    cmovne r12, rax
    mov rdi, qword ptr [rbx + {ADDRESS}]
    mov rsi, qword ptr [r12]
    mov rcx, qword ptr [r12 + 8]
    rep movsb
    mov rax, qword ptr [r12 + 16]
    mov qword ptr [{GATE}], rax
    mov rax, qword ptr [r12 + 24]
    mov qword ptr [{GATE} + 8], rax
    lea rdi, [rip + .Lxb_registers]
    mov ecx, 15
    xor eax, eax
    rep stosq
    mov rax, qword ptr [rbx + {ADDRESS}]
    mov qword ptr [rip + .Lxb_rip], rax
    mov qword ptr [rip + .Lxb_flags], 2
    mov qword ptr [rip + .Lxb_rsp], {PROGRAM_STACK}
    mov qword ptr [rip + .Lxb_gave_up], rsp

    # The protocol, as runner/src/session.rs follows it.
    call .Lxb_resume
    nop dword ptr [rax + rax + {ARM}]
    # Pages of results: a page holds 256 samples, or 128 repetitions of batches.
    mov rsi, qword ptr [rbx + {SAMPLES}]
    add rsi, 255
    shr rsi, 8
    mov rax, qword ptr [rbx + {BATCHES}]
    add rax, 127
    shr rax, 7
    cmp rsi, rax
    cmovb rsi, rax
    mov eax, 1
    cmp rsi, rax
    cmovb rsi, rax
    mov edi, {TOUCH}
    xor edx, edx
    call .Lxb_go
    mov edi, {BASELINE}
    mov esi, 1
    xor edx, edx
    call .Lxb_go
    mov rsi, qword ptr [{WARM_UP}]
    test rsi, rsi
    jz 2f
    mov edi, {PAIRS}
    xor edx, edx
    call .Lxb_go
2:
    mov edi, {BASELINE}
    mov rsi, qword ptr [{BASELINES}]
    xor edx, edx
    call .Lxb_go
    mov edi, {BASELINE}
    mov rsi, qword ptr [{BASELINES}]
    xor edx, edx
    call .Lxb_go
    # The port of the diagnostics' display, which nobody reads: whoever records from here on sees
    # the VMM enter the guest before the first sample.
    nop dword ptr [rax + rax + {START}]
    in al, 0x80
    mov edi, {PAIRS}
    mov rsi, qword ptr [rbx + {SAMPLES}]
    xor edx, edx
    call .Lxb_go
    nop dword ptr [rax + rax + {STOP}]
    mov esi, {RESULTS}
    mov rdi, qword ptr [{BUFFER}]
    mov rcx, qword ptr [rbx + {SAMPLES}]
    add rcx, rcx
    rep movsq
    mov rsi, qword ptr [rbx + {BATCHES}]
    test rsi, rsi
    jz 3f
    mov rdx, qword ptr [rbx + {BATCH_LENGTH}]
    mov edi, {BATCH_COMMAND}
    call .Lxb_go
3:
    mov ecx, dword ptr [rbx + {CLEARED}]
    test ecx, ecx
    jz 4f
    xor eax, eax
    xor edx, edx
    wrmsr
4:
    call .Lxb_renew
    call .Lxb_tell_samples
    call .Lxb_tell_batches
    lea r12, [rip + .Lxb_done]
.Lxb_end_row:
    call .Lxb_line
    lea rsi, [rip + .Lxb_ends]
    call .Lxb_text
    mov rax, rbp
    call .Lxb_number
    mov rsi, r12
    call .Lxb_text
    jmp .Lxb_end_line

# The CPU lacks what [r13] names.
.Lxb_lacking:
    call .Lxb_line
    lea rsi, [rip + .Lxb_lacks]
    call .Lxb_text
    call .Lxb_space
    mov rsi, qword ptr [r13]
    mov rcx, qword ptr [r13 + 8]
    call .Lxb_bytes
    call .Lxb_end_line
    lea r12, [rip + .Lxb_lacking_end]
    jmp .Lxb_end_row

# The program took an exception (al = FAULT), or says what it never should.
.Lxb_went_wrong:
    mov rsp, qword ptr [rip + .Lxb_gave_up]
    mov r14d, eax
    call .Lxb_renew
    call .Lxb_line
    lea rsi, [rip + .Lxb_fault]
    call .Lxb_text
    mov rax, r14
    call .Lxb_number
    call .Lxb_exception
    mov rax, qword ptr [{PROGRESS}]
    call .Lxb_number
    call .Lxb_end_line
    lea r12, [rip + .Lxb_fault_end]
    jmp .Lxb_end_row

# The samples: `empty,operation`, and `*n` where n in a row are the same.
.Lxb_tell_samples:
    mov r12, qword ptr [{BUFFER}]
    mov r13, qword ptr [rbx + {SAMPLES}]
.Lxb_sample_line:
    test r13, r13
    jz 9f
    call .Lxb_line
    lea rsi, [rip + .Lxb_samples]
    call .Lxb_text
    mov r14d, 16
2:
    mov rax, qword ptr [r12]
    call .Lxb_number
    mov al, 44
    call .Lxb_put
    mov rax, qword ptr [r12 + 8]
    call .Lxb_digits
    mov r15d, 1
3:
    dec r13
    jz 4f
    mov rax, qword ptr [r12 + 16]
    cmp rax, qword ptr [r12]
    jne 4f
    mov rax, qword ptr [r12 + 24]
    cmp rax, qword ptr [r12 + 8]
    jne 4f
    add r12, 16
    inc r15
    jmp 3b
4:
    add r12, 16
    cmp r15, 1
    je 5f
    mov al, 42
    call .Lxb_put
    mov rax, r15
    call .Lxb_digits
5:
    test r13, r13
    jz 6f
    dec r14
    jnz 2b
6:
    call .Lxb_end_line
    jmp .Lxb_sample_line
9:
    ret

# The batches, a line each.
.Lxb_tell_batches:
    mov r12d, {RESULTS}
    mov r13, qword ptr [rbx + {BATCHES}]
2:
    test r13, r13
    jz 9f
    call .Lxb_line
    lea rsi, [rip + .Lxb_batch]
    call .Lxb_text
    mov rax, qword ptr [rbx + {BATCH_LENGTH}]
    call .Lxb_number
    mov r14d, 4
3:
    mov rax, qword ptr [r12]
    call .Lxb_number
    add r12, 8
    dec r14
    jnz 3b
    call .Lxb_end_line
    dec r13
    jmp 2b
9:
    ret

# Zero flag set: the CPU has all the row needs. Otherwise r13 points to what it lacks.
.Lxb_has_needs:
    mov r13, qword ptr [rbx + {NEEDS}]
    mov r14, qword ptr [rbx + {NEEDS} + 8]
2:
    test r14, r14
    jz 9f
    # Two places where CPUID may say it; a mask of 0 in both: nobody can tell beforehand.
    mov eax, dword ptr [r13 + 28]
    or eax, dword ptr [r13 + 44]
    jz 5f
    lea r15, [r13 + 16]
    call 6f
    jne 5f
    lea r15, [r13 + 32]
    call 6f
    jne 5f
    or r14, r14
    jmp 9f
5:
    add r13, {NEED_SIZE}
    dec r14
    jmp 2b
9:
    ret
    # Of [r15] leaf, index, register, mask: zero flag clear where a bit is set. rbx is kept.
6:
    push rbx
    mov eax, dword ptr [r15]
    and eax, 0x80000000
    xor ecx, ecx
    cpuid
    cmp eax, dword ptr [r15]
    jb 7f
    mov eax, dword ptr [r15]
    mov ecx, dword ptr [r15 + 4]
    cpuid
    push rdx
    push rcx
    push rbx
    push rax
    mov ecx, dword ptr [r15 + 8]
    mov eax, dword ptr [rsp + rcx * 8]
    lea rsp, [rsp + 32]
    pop rbx
    test eax, dword ptr [r15 + 12]
    ret
7:
    pop rbx
    xor eax, eax
    ret

# What a row may have left behind: control registers, debug registers, the APIC.
.Lxb_renew:
    mov eax, 0x80050033
    mov cr0, rax
    mov eax, 0x6a0
    mov cr4, rax
    mov eax, 0x400
    mov dr7, rax
    xor eax, eax
    mov cr8, rax
    cld
    push rbx
    mov eax, 1
    xor ecx, ecx
    cpuid
    mov r15d, edx
    pop rbx
    test r15d, 0x200
    jz 4f
    # An APIC in x2APIC mode goes back by way of being off; in xAPIC mode it is left on.
    mov ecx, 0x1b
    rdmsr
    test eax, 0x400
    jz 3f
    and eax, 0xfffff3ff
    wrmsr
    or eax, 0x800
    wrmsr
3:
    mov edi, {APIC}
    mov dword ptr [rdi + 0xb0], 0
    mov dword ptr [rdi + 0xb0], 0
    mov dword ptr [rdi + 0xf0], 0xff
4:
    ret
