//! The knobs that are known: work on the way of an exit that is optional, or looks so. One entry each.
//!
//! Names are those of KVM's sources from Linux 6.1 on. A place that a kernel's path does not have is none of its knob, and a knob without any is
//! said to be absent, so that an entry may name what differs from kernel to kernel.

use super::knobs::{Knob, Place};

/// Modules of KVM on x86.
const KVM: [&str; 2] = ["kvm", "kvm_amd"];

fn returns(name: &str) -> Place {
    Place::Function {
        name: name.to_owned(),
        returns: None,
    }
}

fn returns_0(name: &str) -> Place {
    Place::Function {
        name: name.to_owned(),
        returns: Some(0),
    }
}

fn call(caller: &str, callee: &str) -> Place {
    Place::Call {
        caller: caller.to_owned(),
        callee: callee.to_owned(),
        returns: None,
    }
}

fn call_0(caller: &str, callee: &str) -> Place {
    Place::Call {
        caller: caller.to_owned(),
        callee: callee.to_owned(),
        returns: Some(0),
    }
}

fn instructions(function: &str, mnemonics: &[&str]) -> Place {
    Place::Instructions {
        function: function.to_owned(),
        mnemonics: mnemonics.iter().map(|&it| it.to_owned()).collect(),
    }
}

fn knob(name: &str, what: &str, places: Vec<Place>) -> Knob {
    Knob {
        name: name.to_owned(),
        what: what.to_owned(),
        places,
    }
}

/// All of them, in the order of the talk's slide where they are on it.
pub fn built_in() -> Vec<Knob> {
    let run = "kvm_arch_vcpu_ioctl_run";
    vec![
        knob(
            "time-accounting",
            "RCU and time accounting are told that a guest runs (the talk's time accounting)",
            vec![
                call("svm_vcpu_enter_exit", "rcu_note_context_switch"),
                call("svm_vcpu_enter_exit", "rcu_virt_note_context_switch"),
                call(run, "rcu_note_context_switch"),
                call(run, "vtime_account_guest_enter"),
                call(run, "vtime_account_guest_exit"),
            ],
        ),
        knob(
            "interrupt-flag",
            "interrupts are disabled and enabled around entry and exit (the talk's interrupt disable and enable)",
            vec![
                instructions(run, &["cli", "sti"]),
                instructions("svm_vcpu_enter_exit", &["cli", "sti"]),
            ],
        ),
        knob(
            "srcu",
            "memory slots are protected by SRCU, lock and unlock together (the talk's srcu)",
            vec![
                call(run, "__srcu_read_unlock"),
                call_0(run, "__srcu_read_lock"),
            ],
        ),
        knob(
            "tracing",
            "what tracepoints, function tracing and static keys leave in KVM while they are off: NOPs (the talk's tracing)",
            vec![Place::PatchedOut {
                modules: KVM.map(str::to_owned).to_vec(),
            }],
        ),
        knob(
            "pmu-events",
            "the guest's PMU is told of an instruction that KVM completes",
            vec![returns("kvm_pmu_trigger_event")],
        ),
        knob(
            "xsave-state",
            "XCR0, XSS and PKRU of guest and host are switched",
            vec![
                returns("kvm_load_guest_xsave_state"),
                returns("kvm_load_host_xsave_state"),
            ],
        ),
        knob(
            "fpu-check",
            "a check that the task's FPU state is in the registers",
            vec![call(run, "fpregs_assert_state_consistent")],
        ),
        knob(
            "lapic-timer",
            "the local APIC's timer is looked at before each entry",
            vec![
                call_0(run, "kvm_cpu_has_pending_timer"),
                call("svm_vcpu_run", "kvm_wait_lapic_expire"),
            ],
        ),
        knob(
            "tpr-sync",
            "the task priority (CR8) is carried between local APIC and VMCB",
            vec![
                call_0("svm_vcpu_run", "kvm_get_cr8"),
                call("svm_vcpu_run", "kvm_set_cr8"),
            ],
        ),
        knob(
            "event-reinjection",
            "events that an exit interrupted are looked for",
            vec![call("svm_vcpu_run", "svm_complete_interrupts")],
        ),
        knob(
            "task-register",
            "the host's task register and its GDT are loaded",
            vec![call("svm_vcpu_run", "native_load_tr_desc")],
        ),
        knob(
            "spec-ctrl",
            "SPEC_CTRL of guest and host are switched, buffers cleared, the branch predictor untrained, the divider's result cleared",
            vec![
                call("svm_vcpu_run", "x86_virt_spec_ctrl"),
                call("svm_vcpu_enter_exit", "amd_clear_divider"),
                call("__svm_vcpu_run", "srso_alias_untrain_ret"),
                call("__svm_vcpu_run", "entry_untrain_ret"),
                instructions("__svm_vcpu_run", &["verw"]),
            ],
        ),
        knob(
            "return-stack",
            "the return stack buffer is filled after each exit",
            vec![Place::ReturnStack {
                function: "__svm_vcpu_run".to_owned(),
            }],
        ),
        knob(
            "register-clearing",
            "registers with the guest's values are cleared after each exit",
            vec![Place::Clearing {
                function: "__svm_vcpu_run".to_owned(),
            }],
        ),
        knob(
            "return-thunks",
            "each return of the kernel goes through a thunk, against speculation",
            vec![
                returns("srso_alias_return_thunk"),
                returns("srso_return_thunk"),
                returns("retbleed_return_thunk"),
            ],
        ),
        knob(
            "exit-irqoff",
            "a call for what has to be done before interrupts are on again: on AMD nothing",
            vec![call(run, "svm_handle_exit_irqoff")],
        ),
        knob(
            "fpu-swap",
            "the VMM's FPU state and the guest's are exchanged around KVM_RUN",
            vec![returns_0("fpu_swap_kvm_fpstate")],
        ),
        knob(
            "signal-mask",
            "the VMM's signal mask is exchanged for KVM_RUN's",
            vec![
                returns("kvm_sigset_activate"),
                returns("kvm_sigset_deactivate"),
            ],
        ),
        knob(
            "vcpu-lock",
            "the vCPU's mutex is taken for KVM_RUN (the talk's lock)",
            vec![
                call_0("kvm_vcpu_ioctl", "mutex_lock_killable"),
                call("kvm_vcpu_ioctl", "mutex_unlock"),
            ],
        ),
        knob(
            "register-sync",
            "registers are copied to and from struct kvm_run where they are asked for (the talk's register sync)",
            vec![returns("store_regs"), returns_0("sync_regs")],
        ),
        knob(
            "slot-lookup",
            "memory slots are looked up by guest frame number",
            vec![
                returns_0("kvm_vcpu_gfn_to_memslot"),
                returns_0("gfn_to_memslot"),
            ],
        ),
        knob(
            "security-hook",
            "a security module is asked about each ioctl",
            vec![call_0("__x64_sys_ioctl", "security_file_ioctl")],
        ),
        knob(
            "vcpu-load",
            "the vCPU is loaded for KVM_RUN and put behind it, with its preempt notifier",
            vec![call(run, "vcpu_load"), call(run, "vcpu_put")],
        ),
        knob(
            "steal-time",
            "a request for steal time is looked for",
            vec![call(run, "record_steal_time")],
        ),
        knob(
            "user-return-msrs",
            "MSRs that only user space needs are set for the guest",
            vec![call_0(
                "svm_prepare_switch_to_guest",
                "kvm_set_user_return_msr",
            )],
        ),
    ]
}
