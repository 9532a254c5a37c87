//! What a kernel says on its console when it cannot go on.

/// Why a kernel does no more of what it was booted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) kind: Kind,
    /// The kernel's words, and the function it was in where it says so.
    pub(crate) said: String,
    /// Whether all of it is there. The function comes after the first words.
    pub(crate) whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A fault of its own, which ended the task that it hit, or the kernel.
    Oops,
    /// It panicked and does not restart.
    Halted,
    /// A task has waited for minutes for what other tasks should do.
    Blocked,
    /// A CPU has not left the kernel for tens of seconds.
    Stuck,
}

impl Kind {
    /// In words that follow "the lab".
    pub(crate) fn words(self) -> &'static str {
        match self {
            Kind::Oops => "ended: its kernel oopsed",
            Kind::Halted => "ended: its kernel panicked and does not restart",
            Kind::Blocked => "does nothing any more: a task waits for what never comes",
            Kind::Stuck => "does nothing else any more: a CPU does not leave the kernel",
        }
    }
}

/// The first complaint on a console, an oops before all others: what follows it is its consequence.
pub(crate) fn first(console: &str) -> Option<Complaint> {
    let lines: Vec<&str> = console.lines().map(message).collect();
    let complaint = |(at, line): (usize, &&str)| {
        let kind = kind(line)?;
        Some(complain(kind, &lines, at))
    };
    let mut all = lines.iter().enumerate().filter_map(complaint);
    let first = all.next()?;
    match first.kind {
        Kind::Oops => Some(first),
        _ => Some(all.find(|other| other.kind == Kind::Oops).unwrap_or(first)),
    }
}

/// A line without the time before it.
fn message(line: &str) -> &str {
    let line = line.trim();
    let stamped = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    stamped.map_or(line, |(_, message)| message.trim_start())
}

fn kind(line: &str) -> Option<Kind> {
    if is_oops(line) {
        Some(Kind::Oops)
    } else if line.starts_with("---[ end Kernel panic") {
        Some(Kind::Halted)
    } else if line.starts_with("INFO: task ") && line.contains(" blocked for more than ") {
        Some(Kind::Blocked)
    } else if line.contains("BUG: soft lockup - CPU#") {
        Some(Kind::Stuck)
    } else {
        None
    }
}

/// The line that counts oopses: `Oops: 0002 [#1] PREEMPT SMP NOPTI`, with another word before the
/// error code where it was another exception (`__die_header` in arch/x86/kernel/dumpstack.c).
/// Warnings have none.
fn is_oops(line: &str) -> bool {
    let Some((before, after)) = line.split_once(" [#") else {
        return false;
    };
    let code = before.rsplit(' ').next().unwrap_or("");
    let count = after.split(']').next().unwrap_or("");
    code.len() == 4
        && code.bytes().all(|byte| byte.is_ascii_hexdigit())
        && before.contains(": ")
        && !count.is_empty()
        && count.bytes().all(|byte| byte.is_ascii_digit())
}

fn complain(kind: Kind, lines: &[&str], at: usize) -> Complaint {
    let after = &lines[at + 1..];
    let (words, function, whole) = match kind {
        // "BUG: kernel NULL pointer dereference, address: …" or "kernel BUG at file:line!" comes before
        // it where there is more to be said than the exception.
        Kind::Oops => {
            let before = lines[at.saturating_sub(6)..at].iter().rev();
            let reason = before
                .copied()
                .find(|line| line.starts_with("BUG: ") || line.starts_with("kernel BUG at "));
            let ended = after
                .iter()
                .any(|line| line.starts_with("---[ end trace") || line.starts_with("Kernel panic"));
            let rip = after.iter().find_map(|line| line.strip_prefix("RIP: "));
            let function = rip.and_then(|rip| function_of(rip.rsplit(':').next()?));
            (reason.unwrap_or(lines[at]), function, ended)
        }
        Kind::Halted => {
            let panic = lines[..at].iter().rev().copied();
            let panic = panic.clone().find(|line| line.starts_with("Kernel panic"));
            (panic.unwrap_or(lines[at]), None, true)
        }
        // A kernel that is told to be quiet says no more than that.
        Kind::Blocked | Kind::Stuck => (lines[at], None, true),
    };
    let said = match function {
        Some(function) => format!("{words}, in {function}"),
        None => words.to_owned(),
    };
    Complaint { kind, said, whole }
}

/// The function of `name+0x12/0x34`.
fn function_of(place: &str) -> Option<&str> {
    let (name, offset) = place.trim().split_once("+0x")?;
    let is_place = offset.contains("/0x") && !name.is_empty() && !name.contains(' ');
    is_place.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.1, of which `__srcu_read_lock` was patched out.
    const OOPS: &str = "\
[    2.465664] BUG: unable to handle page fault for address: ffff888040125d50\r
[    2.465673] #PF: supervisor read access in kernel mode\r
[    2.465681] #PF: error_code(0x0000) - not-present page\r
[    2.465690] PGD 4401067 P4D 4401067 PUD 0 \r
[    2.465704] Oops: 0000 [#1] PREEMPT SMP NOPTI\r
[    2.465714] CPU: 0 PID: 82 Comm: init Tainted: G        W          6.1.0-56-amd64 #1\r
[    2.465739] RIP: 0010:__srcu_read_unlock+0x15/0x20\r
[    2.465882]  <TASK>\r
[    2.465887]  kvm_arch_vcpu_ioctl_run+0x789/0x1750 [kvm]\r
[    2.466833] RIP: 0033:0x112131b\r
[    2.466934]  </TASK>\r
[    2.466940] ---[ end trace 0000000000000000 ]---\r
";

    fn of(console: &str) -> (Kind, String) {
        let found = first(console).expect("a complaint");
        assert!(found.whole, "{found:?}");
        (found.kind, found.said)
    }

    #[test]
    fn an_oops_is_told_with_its_reason_and_function() {
        let said =
            "BUG: unable to handle page fault for address: ffff888040125d50, in __srcu_read_unlock";
        assert_eq!(of(OOPS), (Kind::Oops, said.to_owned()));
        // Not before all of it is there.
        let cut = OOPS.find("[    2.465714]").expect("its line");
        assert_eq!(
            first(&OOPS[..cut]).map(|found| (found.kind, found.whole)),
            Some((Kind::Oops, false))
        );
        // What follows is its consequence.
        let then = "[ 9.0] INFO: task init:1 blocked for more than 120 seconds.\n";
        assert_eq!(of(&format!("{OOPS}{then}")).0, Kind::Oops);
        assert_eq!(of(&format!("{then}{OOPS}")).0, Kind::Oops);
    }

    #[test]
    fn other_exceptions_are_oopses_too() {
        for (lines, said) in [
            (
                "[ 1.0] kernel BUG at mm/slub.c:379!\n[ 1.0] invalid opcode: 0000 [#1] PREEMPT SMP\n\
                 [ 1.0] RIP: 0010:kfree+0x1/0x2\n",
                "kernel BUG at mm/slub.c:379!, in kfree",
            ),
            (
                "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] \
                 SMP\nRIP: 0010:f.part.0+0x10/0x20 [kvm]\n",
                "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] \
                 SMP, in f.part.0",
            ),
            ("int3: 0000 [#2] SMP\n", "int3: 0000 [#2] SMP"),
        ] {
            let console = format!("{lines}---[ end trace 0 ]---\n");
            assert_eq!(of(&console), (Kind::Oops, said.to_owned()));
        }
    }

    #[test]
    fn a_kernel_that_does_not_go_on_says_so_in_other_words() {
        let panic = "[ 1.5] Kernel panic - not syncing: VFS: Unable to mount root fs on \
                     unknown-block(0,0)\n[ 1.6] Call Trace:\n[ 1.7] ---[ end Kernel panic - not \
                     syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---\n";
        let said = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)";
        assert_eq!(of(panic), (Kind::Halted, said.to_owned()));
        // As its first line only, it is about to restart.
        assert_eq!(first(panic.lines().next().expect("a line")), None);
        let blocked = "[  242.724961] INFO: task init:82 blocked for more than 120 seconds.";
        assert_eq!(of(blocked).0, Kind::Blocked);
        let stuck = "[ 48.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [init:80]";
        assert_eq!(of(stuck).0, Kind::Stuck);
    }

    #[test]
    fn warnings_and_programs_faults_are_no_complaints() {
        for line in [
            "WARNING: CPU: 0 PID: 80 at arch/x86/kvm/x86.c:10876 f+0x1/0x2 [kvm]",
            "---[ end trace 0000000000000000 ]---",
            "traps: vmm[90] general protection fault ip:401000 sp:7ffc error:0 in vmm[400000+1000]",
            "BUG: scheduling while atomic: init/80/0x00000002",
            "kvm [80]: vcpu0, guest rIP: 0x401000 disabled perfctr wrmsr: 0xc0010004 data 0xffff",
            "vmm: 0000 [#x] and 12 [#1]",
        ] {
            assert_eq!(first(&format!("[    1.000000] {line}\n")), None, "{line}");
        }
    }
}
