//! Primitives: what an exit's way is made of, each timed in a guest's kernel mode without an exit.

use crate::arch::primitive_guest as guest;
use crate::row::{Group, Need, Row, row};

use Group::Primitive;

/// A primitive: what it is used for on an exit's way, and what of that way is one of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The row.
    pub row: &'static str,
    /// What it is used for.
    pub what: &'static str,
    /// What is counted.
    pub counted: Counted,
}

/// What of a way is one of a primitive each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It cannot be told.
    Nothing,
    /// Instructions whose text in AT&T syntax begins like one of these, and like none of those.
    Texts(&'static [&'static str], &'static [&'static str]),
    /// Calls of functions whose names begin so, jumps at the end of another function among them.
    Calls(&'static str),
    /// Instructions that call a function by its address, but for functions whose names begin so.
    CallsBut(&'static str),
}

use Counted::{Calls, CallsBut, Nothing, Texts};

const fn used(row: &'static str, what: &'static str, counted: Counted) -> Use {
    Use { row, what, counted }
}

/// What names of retpolines begin with.
const RETPOLINE: &str = "__x86_indirect_thunk_";

/// How the kernel's smp_mb begins on x86-64.
const BARRIER: &[&str] = &["lock addl $0,-4(%rsp)", "lock addl $0,-0x4(%rsp)"];

/// What each is used for, in the rows' order. A kernel that runs on one CPU has taken LOCK prefixes out of itself; where an instruction
/// would make no sense without one, it counts all the same.
#[rustfmt::skip]
pub const USES: &[Use] = &[
    used("irq_disable_enable", "interrupts are kept away from entry and exit: local_irq_disable, local_irq_enable", Nothing),
    used("irq_save_restore", "the same where they may be off already: local_irq_save, local_irq_restore", Nothing),
    used("cli", "local_irq_disable by itself", Texts(&["cli"], &[])),
    used("sti", "local_irq_enable by itself", Texts(&["sti"], &[])),
    used("pushf_popf", "flags saved and restored", Texts(&["popf"], &[])),
    used("test_and_clear_bit", "a request of this vCPU's own is taken", Texts(&["btr", "btc", "bts"], &[])),
    used("locked_test_and_clear_bit", "a request is taken that others may make: kvm_check_request", Texts(&["lock btr", "lock and", "lock bts"], &[])),
    used("locked_increment", "a reference or counter that others count too", Texts(&["lock inc", "lock dec", "lock add", "lock sub"], BARRIER)),
    used("locked_exchange_add", "the same where the old value is needed", Texts(&["lock xadd", "xadd"], &[])),
    used("locked_compare_exchange", "a lock or mutex is taken", Texts(&["lock cmpxchg", "cmpxchg"], &[])),
    used("exchange", "a value is swapped with a barrier: vcpu->mode", Texts(&["xchg"], &["xchg %ax,%ax"])),
    used("full_barrier", "smp_mb: what was written is seen before what is read next", Texts(BARRIER, &[])),
    used("mfence", "the same by its own instruction", Texts(&["mfence"], &[])),
    used("lfence", "no speculation beyond it", Texts(&["lfence"], &[])),
    used("sfence", "stores are ordered", Texts(&["sfence"], &[])),
    used("no_request", "kvm_request_pending: none is", Nothing),
    used("request_chain", "each of 25 requests is asked for by itself", Nothing),
    used("srcu_lock_unlock", "memory slots are protected: srcu_read_lock, srcu_read_unlock", Calls("__srcu_read_lock")),
    used("rdmsr", "an MSR that is switched is read", Texts(&["rdmsr"], &[])),
    used("wrmsr", "an MSR that is switched is written", Texts(&["wrmsr"], &[])),
    used("swapgs", "kernel entry and exit", Texts(&["swapgs"], &[])),
    used("xsave_x87", "FPU state is saved: x87", Nothing),
    used("xsave_sse", "FPU state is saved: SSE", Nothing),
    used("xsave_avx", "FPU state is saved: AVX", Texts(&["xsave"], &[])),
    used("xrstor_x87", "FPU state is loaded: x87", Nothing),
    used("xrstor_sse", "FPU state is loaded: SSE", Nothing),
    used("xrstor_avx", "FPU state is loaded: AVX", Texts(&["xrstor"], &[])),
    used("call_direct", "a call whose target is known, or a static call", CallsBut(RETPOLINE)),
    used("call_indirect", "a call through a pointer", Texts(&["call *"], &[])),
    used("call_retpoline", "a call through a pointer where the branch predictor is not trusted", Calls(RETPOLINE)),
    used("rdtsc", "a clock is read", Texts(&["rdtsc"], &[])),
    used("mov_from_cr8", "the task priority is read", Nothing),
    used("mov_to_cr8", "the task priority is written", Nothing),
];

/// What a primitive is used for.
pub fn what(row: &str) -> &'static str {
    let used = USES.iter().find(|used| used.row == row);
    used.map_or("", |used| used.what)
}

/// A primitive that no CPU exits for.
const fn primitive(
    name: &'static str,
    code: fn() -> crate::arch::program::Program,
    operation: &'static str,
) -> Row {
    row(Primitive, name, code, operation).exits(0.0, 0.0)
}

/// All primitives but those that are rows of the table of exits.
#[rustfmt::skip]
pub const PRIMITIVES: &[Row] = &[
    primitive("irq_disable_enable", guest::irq_disable_enable::program, "CLI and STI"),
    primitive("irq_save_restore", guest::irq_save_restore::program, "flags pushed, CLI, flags popped"),
    primitive("cli", guest::cli::program, "CLI"),
    primitive("sti", guest::sti::program, "STI"),
    primitive("pushf_popf", guest::pushf_popf::program, "PUSHF and POPF"),
    primitive("test_and_clear_bit", guest::test_and_clear_bit::program, "BTR in memory"),
    primitive("locked_test_and_clear_bit", guest::locked_test_and_clear_bit::program, "LOCK BTR in memory"),
    primitive("locked_increment", guest::locked_increment::program, "LOCK INC"),
    primitive("locked_exchange_add", guest::locked_exchange_add::program, "LOCK XADD"),
    primitive("locked_compare_exchange", guest::locked_compare_exchange::program, "LOCK CMPXCHG that finds what it expects"),
    primitive("exchange", guest::exchange::program, "XCHG with memory"),
    primitive("full_barrier", guest::full_barrier::program, "LOCK ADD of 0 below the stack"),
    primitive("mfence", guest::mfence::program, "MFENCE"),
    primitive("lfence", guest::lfence::program, "LFENCE"),
    primitive("sfence", guest::sfence::program, "SFENCE"),
    primitive("no_request", guest::no_request::program, "a word compared with 0, and a jump not taken"),
    primitive("request_chain", guest::request_chain::program, "25 bits tested, and no jump taken"),
    primitive("srcu_lock_unlock", guest::srcu_lock_unlock::program, "two counters, two full barriers"),
    primitive("rdmsr", guest::rdmsr::program, "RDMSR of KERNEL_GS_BASE"),
    primitive("wrmsr", guest::wrmsr::program, "WRMSR of KERNEL_GS_BASE"),
    primitive("swapgs", guest::swapgs::program, "SWAPGS"),
    primitive("xsave_x87", guest::xsave_x87::program, "XSAVE64 of x87").needs(&[Need::Xsave]),
    primitive("xsave_sse", guest::xsave_sse::program, "XSAVE64 of SSE").needs(&[Need::Xsave]),
    primitive("xsave_avx", guest::xsave_avx::program, "XSAVE64 of AVX, of nothing where there is none").needs(&[Need::Xsave]),
    primitive("xrstor_x87", guest::xrstor_x87::program, "XRSTOR64 of x87").needs(&[Need::Xsave]),
    primitive("xrstor_sse", guest::xrstor_sse::program, "XRSTOR64 of SSE").needs(&[Need::Xsave]),
    primitive("xrstor_avx", guest::xrstor_avx::program, "XRSTOR64 of AVX, of nothing where there is none").needs(&[Need::Xsave]),
    primitive("call_direct", guest::call_direct::program, "CALL, RET, and a jump over it"),
    primitive("call_indirect", guest::call_indirect::program, "CALL by a register, RET, and a jump over it"),
    primitive("call_retpoline", guest::call_retpoline::program, "the same by a retpoline"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_primitive_says_what_it_is_used_for() {
        for row in PRIMITIVES {
            assert!(USES.iter().any(|used| used.row == row.name), "{}", row.name);
        }
        for used in USES {
            assert!(crate::find(used.row).is_some(), "{}", used.row);
        }
    }
}
