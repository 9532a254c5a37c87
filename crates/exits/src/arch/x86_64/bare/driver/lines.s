# What is said on COM1, and the driver's data.

# Lines. Each has a number and ends with the FNV-1a hash (32 bits) of what stands before.
.Lxb_line:
    mov dword ptr [rip + .Lxb_hash], 0x811c9dc5
    lea rsi, [rip + .Lxb_mark]
    call .Lxb_text
    mov rax, qword ptr [rip + .Lxb_lines]
    inc qword ptr [rip + .Lxb_lines]
    jmp .Lxb_digits

.Lxb_end_line:
    mov eax, dword ptr [rip + .Lxb_hash]
    push rax
    lea rsi, [rip + .Lxb_sum]
    call .Lxb_text
    pop rax
    push rbx
    mov ebx, eax
    mov ecx, 8
2:
    rol ebx, 4
    mov eax, ebx
    and eax, 15
    add al, 48
    cmp al, 57
    jbe 3f
    add al, 39
3:
    call .Lxb_put
    dec ecx
    jnz 2b
    pop rbx
    mov al, 10
    jmp .Lxb_put

# A space and rax as a decimal number; without the space.
.Lxb_number:
    push rax
    call .Lxb_space
    pop rax
.Lxb_digits:
    push rbx
    mov ebx, 10
    xor ecx, ecx
2:
    xor edx, edx
    div rbx
    push rdx
    inc ecx
    test rax, rax
    jnz 2b
3:
    pop rax
    add al, 48
    call .Lxb_put
    dec ecx
    jnz 3b
    pop rbx
    ret

.Lxb_space:
    mov al, 32
    jmp .Lxb_put

# The text at rsi, up to its zero.
.Lxb_text:
    lodsb
    test al, al
    jz 2f
    call .Lxb_put
    jmp .Lxb_text
2:
    ret

# rcx bytes at rsi.
.Lxb_bytes:
    test rcx, rcx
    jz 2f
    lodsb
    call .Lxb_put
    dec rcx
    jmp .Lxb_bytes
2:
    ret

# The character al, when the UART has room; without a UART it is lost after a while. Keeps all
# registers but rax and rdx.
.Lxb_put:
    push rcx
    mov cl, al
    movzx eax, al
    xor eax, dword ptr [rip + .Lxb_hash]
    imul eax, eax, 0x01000193
    mov dword ptr [rip + .Lxb_hash], eax
    sub dword ptr [rip + .Lxb_room], 1
    jns 4f
    mov ah, cl
    mov ecx, dword ptr [rip + .Lxb_patience]
    mov edx, 0x3fd
2:
    in al, dx
    test al, 0x20
    jnz 3f
    dec ecx
    jns 2b
    # Nobody takes anything: do not wait so long for each of the others.
    mov dword ptr [rip + .Lxb_patience], 0
3:
    mov cl, ah
    mov eax, dword ptr [rip + .Lxb_burst]
    dec eax
    mov dword ptr [rip + .Lxb_room], eax
4:
    mov al, cl
    mov edx, 0x3f8
    out dx, al
    pop rcx
    ret

.Lxb_mark: .asciz "xp1 "
.Lxb_boot: .asciz " boot"
.Lxb_begins: .asciz " row"
.Lxb_lacks: .asciz " lacks"
.Lxb_samples: .asciz " samples"
.Lxb_batch: .asciz " batch"
.Lxb_fault: .asciz " fault"
.Lxb_broke: .asciz " broken"
.Lxb_ends: .asciz " end"
.Lxb_done: .asciz " done"
.Lxb_lacking_end: .asciz " lacking"
.Lxb_fault_end: .asciz " fault"
.Lxb_bye: .asciz " bye"
.Lxb_sum: .asciz " #"

    .balign 16
.Lxb_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
.Lxb_gdtr: .word 23
    .quad 0
    .balign 16
.Lxb_registers: .skip 120, 0
.Lxb_rip: .quad 0
.Lxb_flags: .quad 0
.Lxb_rsp: .quad 0
.Lxb_driver_rsp: .quad 0
.Lxb_gave_up: .quad 0
.Lxb_lines: .quad 0
.Lxb_vendor: .skip 12, 0
.Lxb_amd: .long 0
.Lxb_in_program: .long 0
.Lxb_hash: .long 0
.Lxb_room: .long 0
.Lxb_burst: .long 1
.Lxb_patience: .long 1000000
    .balign 16
exitpath_bare_end:
    .popsection
