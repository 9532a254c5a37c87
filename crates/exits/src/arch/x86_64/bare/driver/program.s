# From the driver into a program and back.

# Lets the program execute one command: rdi what, rsi how often, rdx operations of a batch.
# Comes back when it is ready again, and does not where it went wrong.
.Lxb_go:
    mov qword ptr [{COMMAND}], rdi
    mov qword ptr [{COUNT}], rsi
    mov qword ptr [{BATCH}], rdx
.Lxb_resume:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov qword ptr [rip + .Lxb_driver_rsp], rsp
    mov dword ptr [rip + .Lxb_in_program], 1
    push 0x10
    push qword ptr [rip + .Lxb_rsp]
    push qword ptr [rip + .Lxb_flags]
    push 0x08
    push qword ptr [rip + .Lxb_rip]
    mov rax, qword ptr [rip + .Lxb_registers]
    mov rbx, qword ptr [rip + .Lxb_registers + 8]
    mov rcx, qword ptr [rip + .Lxb_registers + 16]
    mov rdx, qword ptr [rip + .Lxb_registers + 24]
    mov rsi, qword ptr [rip + .Lxb_registers + 32]
    mov rdi, qword ptr [rip + .Lxb_registers + 40]
    mov rbp, qword ptr [rip + .Lxb_registers + 48]
    mov r8, qword ptr [rip + .Lxb_registers + 56]
    mov r9, qword ptr [rip + .Lxb_registers + 64]
    mov r10, qword ptr [rip + .Lxb_registers + 72]
    mov r11, qword ptr [rip + .Lxb_registers + 80]
    mov r12, qword ptr [rip + .Lxb_registers + 88]
    mov r13, qword ptr [rip + .Lxb_registers + 96]
    mov r14, qword ptr [rip + .Lxb_registers + 104]
    mov r15, qword ptr [rip + .Lxb_registers + 112]
    iretq

# Where #UD leads: in the program's place and on its stack. A real one goes to its stub.
    .balign 16
exitpath_bare_handler:
    push rax
    mov rax, qword ptr [rsp + 8]
    cmp word ptr [rax], {CALL}
    pop rax
    jne .Lxb_undefined
    add qword ptr [rsp], 2
    mov qword ptr [rip + .Lxb_registers], rax
    mov qword ptr [rip + .Lxb_registers + 8], rbx
    mov qword ptr [rip + .Lxb_registers + 16], rcx
    mov qword ptr [rip + .Lxb_registers + 24], rdx
    mov qword ptr [rip + .Lxb_registers + 32], rsi
    mov qword ptr [rip + .Lxb_registers + 40], rdi
    mov qword ptr [rip + .Lxb_registers + 48], rbp
    mov qword ptr [rip + .Lxb_registers + 56], r8
    mov qword ptr [rip + .Lxb_registers + 64], r9
    mov qword ptr [rip + .Lxb_registers + 72], r10
    mov qword ptr [rip + .Lxb_registers + 80], r11
    mov qword ptr [rip + .Lxb_registers + 88], r12
    mov qword ptr [rip + .Lxb_registers + 96], r13
    mov qword ptr [rip + .Lxb_registers + 104], r14
    mov qword ptr [rip + .Lxb_registers + 112], r15
    cld
    cmp dword ptr [rip + .Lxb_in_program], 0
    je .Lxb_broken
    mov dword ptr [rip + .Lxb_in_program], 0
    pop qword ptr [rip + .Lxb_rip]
    pop rcx
    pop qword ptr [rip + .Lxb_flags]
    pop qword ptr [rip + .Lxb_rsp]
    mov rsp, qword ptr [rip + .Lxb_driver_rsp]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    movzx eax, al
    cmp eax, {READY}
    jne .Lxb_went_wrong
    ret

.Lxb_undefined:
    push {UNDEFINED_STUB}
    ret

# What a stub has left of an exception, as numbers of a line.
.Lxb_exception:
    mov rax, qword ptr [{FAULT}]
    call .Lxb_number
    mov rax, qword ptr [{FAULT_CODE}]
    call .Lxb_number
    mov rax, qword ptr [{FAULT_RIP}]
    call .Lxb_number
    mov rax, qword ptr [{FAULT_CR2}]
    jmp .Lxb_number

# An exception in the driver itself.
.Lxb_broken:
    mov rsp, qword ptr [{STACK_TOP}]
    call .Lxb_line
    lea rsi, [rip + .Lxb_broke]
    call .Lxb_text
    call .Lxb_exception
    call .Lxb_end_line
    jmp .Lxb_leave
