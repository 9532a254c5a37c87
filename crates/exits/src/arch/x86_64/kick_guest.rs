//! The guest programs of the rows about kicks.
//!
//! Where they write and what is in the control block, so that one program serves many rows. Those
//! that wait for their consumer store how long it took in place of the bracket's length: the
//! consumer's clock is the guest's (see [`Kick`](super::Kick)).

/// Waits until the consumer has taken all kicks: the next one would meet it awake. Each operation
/// until now was one.
macro_rules! wait_until_taken {
    () => {
        "4:\nmov rbx, qword ptr [{PROGRESS}]\ncmp qword ptr [{SEQUENCE}], rbx\njae 5f\n\
         cmp qword ptr [{YIELD}], 0\nje 4b\npause\njmp 4b\n5:\n"
    };
}

/// Gives a consumer time to fall asleep again.
macro_rules! let_it_sleep {
    () => {
        concat!(
            clock!(),
            "lea rbx, [rax + {SPIN}]\n2:\n",
            "cmp qword ptr [{YIELD}], 0\nje 3f\npause\n3:\n",
            clock!(),
            "cmp rax, rbx\njb 2b"
        )
    };
}

/// Spins at label 2 until the consumer has taken another kick than rbx says.
macro_rules! wait_for_consumer {
    () => {
        "\n2:\ncmp rbx, qword ptr [{SEQUENCE}]\njne 3f\n\
         cmp qword ptr [{YIELD}], 0\nje 2b\npause\njmp 2b\n3:"
    };
}

/// Puts the time until the consumer ran where the frame has put the bracket's length.
macro_rules! store_wakeup {
    () => {
        "mov rax, qword ptr [{STAMP}]\nsub rax, r8\nmov qword ptr [r10 + 8], rax"
    };
}

macro_rules! load_port {
    () => {
        "mov rdx, qword ptr [{KICK_AT}]\nmov rax, qword ptr [{KICK_VALUE}]"
    };
}

macro_rules! load_address {
    () => {
        "mov rdi, qword ptr [{KICK_AT}]\nmov rax, qword ptr [{KICK_VALUE}]"
    };
}

guest_program! { kick_pio, setup: load_port!(), op: "out dx, ax",
    consts: { KICK_AT = CONTROL + word::KICK_AT, KICK_VALUE = CONTROL + word::KICK_VALUE },
}
guest_program! { kick_mmio, setup: load_address!(), op: "mov word ptr [rdi], ax",
    consts: { KICK_AT = CONTROL + word::KICK_AT, KICK_VALUE = CONTROL + word::KICK_VALUE },
}
guest_program! { kick_pio_waited,
    before: concat!(wait_until_taken!(), let_it_sleep!()), setup: load_port!(), op: "out dx, ax",
    consts: {
        KICK_AT = CONTROL + word::KICK_AT,
        KICK_VALUE = CONTROL + word::KICK_VALUE,
        SEQUENCE = CONTROL + word::SEQUENCE,
        YIELD = CONTROL + word::YIELD,
        SPIN = crate::layout::delay::SLEEP_TICKS,
    },
}
guest_program! { kick_mmio_waited,
    before: concat!(wait_until_taken!(), let_it_sleep!()),
    setup: load_address!(), op: "mov word ptr [rdi], ax",
    consts: {
        KICK_AT = CONTROL + word::KICK_AT,
        KICK_VALUE = CONTROL + word::KICK_VALUE,
        SEQUENCE = CONTROL + word::SEQUENCE,
        YIELD = CONTROL + word::YIELD,
        SPIN = crate::layout::delay::SLEEP_TICKS,
    },
}
guest_program! { kick_pio_wakeup,
    before: let_it_sleep!(),
    setup: concat!(load_port!(), "\nmov rbx, qword ptr [{SEQUENCE}]"),
    op: concat!("out dx, ax", wait_for_consumer!()),
    after: store_wakeup!(),
    consts: {
        KICK_AT = CONTROL + word::KICK_AT,
        KICK_VALUE = CONTROL + word::KICK_VALUE,
        SEQUENCE = CONTROL + word::SEQUENCE,
        STAMP = CONTROL + word::STAMP,
        YIELD = CONTROL + word::YIELD,
        SPIN = crate::layout::delay::SLEEP_TICKS,
    },
}
guest_program! { kick_mmio_wakeup,
    before: let_it_sleep!(),
    setup: concat!(load_address!(), "\nmov rbx, qword ptr [{SEQUENCE}]"),
    op: concat!("mov word ptr [rdi], ax", wait_for_consumer!()),
    after: store_wakeup!(),
    consts: {
        KICK_AT = CONTROL + word::KICK_AT,
        KICK_VALUE = CONTROL + word::KICK_VALUE,
        SEQUENCE = CONTROL + word::SEQUENCE,
        STAMP = CONTROL + word::STAMP,
        YIELD = CONTROL + word::YIELD,
        SPIN = crate::layout::delay::SLEEP_TICKS,
    },
}
guest_program! { completion,
    prepare: concat!(x2apic_on!(), "sti"),
    setup: concat!(load_port!(), "\nmov rbx, qword ptr [{INTERRUPTS}]"),
    op: "out dx, ax\n2:\ncmp rbx, qword ptr [{INTERRUPTS}]\nje 2b",
    consts: { KICK_AT = CONTROL + word::KICK_AT, KICK_VALUE = CONTROL + word::KICK_VALUE },
}
// Without an interrupt controller in the kernel there is none to be told of the interrupt's end.
guest_program! { completion_without_apic,
    prepare: "sti",
    setup: concat!(load_port!(), "\nmov rbx, qword ptr [{INTERRUPTS}]"),
    op: "out dx, ax\n2:\ncmp rbx, qword ptr [{INTERRUPTS}]\nje 2b",
    eoi: "nop",
    consts: { KICK_AT = CONTROL + word::KICK_AT, KICK_VALUE = CONTROL + word::KICK_VALUE },
}

/// One operation: on each of so many disks [`REQUESTS`](crate::layout::disk::REQUESTS) requests, as many under
/// way as its ring has places, each with a kick of its own. rbx counts what is not done yet.
macro_rules! disks_program {
    ($name:ident, $disks:literal) => {
        guest_program! { $name,
            op: concat!(
                // The queues one after the other: rdi, port edx, esi left.
                "mov edi, {QUEUES}\nmov esi, ", $disks, "\n",
                "2:\nmov qword ptr [rdi + {LEFT}], {REQUESTS}\nadd rdi, {QUEUE_SIZE}\ndec esi\njnz 2b\n",
                "mov ebx, {REQUESTS} * ", $disks, "\n",
                "3:\nmov edi, {QUEUES}\nmov edx, {DOORBELL}\nmov esi, ", $disks, "\n",
                // What is done since the last look.
                "4:\nmov rax, qword ptr [rdi + {USED}]\nsub rax, qword ptr [rdi + {REAPED}]\n",
                "add qword ptr [rdi + {REAPED}], rax\nsub rbx, rax\n",
                // A request, if there is one to make and a place for it.
                "5:\ncmp qword ptr [rdi + {LEFT}], 0\nje 7f\n",
                "mov rax, qword ptr [rdi + {AVAILABLE}]\n",
                "mov rcx, rax\nsub rcx, qword ptr [rdi + {REAPED}]\ncmp rcx, {DEPTH}\njae 7f\n",
                // Its place in the ring is rcx, its entry at rdi + rbp.
                "mov ecx, eax\nand ecx, {DEPTH} - 1\n",
                "mov ebp, ecx\nshl ebp, 5\n",
                // Every fifth block of the file.
                "lea eax, [rax + rax * 4]\nand eax, {BLOCKS} - 1\nshl eax, 12\n",
                "mov qword ptr [rdi + rbp + {RING}], rax\n",
                "mov qword ptr [rdi + rbp + {RING} + 8], {REQUEST}\n",
                "mov eax, edi\nsub eax, {QUEUES}\nshl eax, 4\nshl ecx, 12\n",
                "lea eax, [rax + rcx + {BUFFERS}]\n",
                "mov qword ptr [rdi + rbp + {RING} + 16], rax\n",
                "inc qword ptr [rdi + {AVAILABLE}]\ndec qword ptr [rdi + {LEFT}]\n",
                "out dx, ax\njmp 5b\n",
                "7:\nadd rdi, {QUEUE_SIZE}\nadd edx, 4\ndec esi\njnz 4b\n",
                "test rbx, rbx\njz 9f\n",
                "cmp qword ptr [{YIELD}], 0\nje 3b\npause\njmp 3b\n",
                "9:",
            ),
            consts: {
                QUEUES = crate::layout::disk::QUEUES,
                QUEUE_SIZE = crate::layout::disk::QUEUE_SIZE,
                BUFFERS = crate::layout::disk::BUFFERS,
                AVAILABLE = crate::layout::disk::AVAILABLE,
                REAPED = crate::layout::disk::REAPED,
                LEFT = crate::layout::disk::LEFT,
                USED = crate::layout::disk::USED,
                RING = crate::layout::disk::RING,
                DEPTH = crate::layout::disk::DEPTH,
                BLOCKS = crate::layout::disk::BLOCKS,
                REQUEST = crate::layout::disk::REQUEST,
                REQUESTS = crate::layout::disk::REQUESTS,
                DOORBELL = port::DOORBELL,
                YIELD = CONTROL + word::YIELD,
            },
        }
    };
}

disks_program! { disks_1, 1 }
disks_program! { disks_2, 2 }
disks_program! { disks_4, 4 }
disks_program! { disks_8, 8 }
