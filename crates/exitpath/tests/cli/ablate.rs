//! `exitpath ablate` and `primitives` on the real thing: a kernel in the lab.

use serde_json::Value;

use crate::common::{Said, exitpath, linux_6_1, qemus};

fn ablated(arguments: &[&str]) -> Option<Value> {
    let (_, qemu) = qemus().pop()?;
    let said = Said::of(
        exitpath(&[
            "ablate", "--json", "--kernel", "6.1", "--seed", "1", "--qemu",
        ])
        .arg(qemu)
        .args(arguments),
    );
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    Some(said.json())
}

fn knob<'a>(ablation: &'a Value, name: &str) -> &'a Value {
    let mut knobs = ablation["knobs"].as_array().into_iter().flatten();
    let found = knobs.find(|knob| knob["name"] == name);
    found.unwrap_or_else(|| panic!("{name} in {ablation}"))
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// What a knob is predicted to save it saves, to the instruction; shares add up to what all save together; and each way there is
/// to take something out works: calls, instructions, a jump, functions without an ftrace NOP.
#[test]
fn what_is_predicted_is_saved() {
    if !linux_6_1() {
        return;
    }
    let names = [
        "time-accounting",
        "interrupt-flag",
        "srcu",
        "tracing",
        "pmu-events",
        "task-register",
        "return-stack",
        "return-thunks",
    ];
    let chosen = names.join(",");
    let Some(cpuid) = ablated(&["cpuid", "--knob", &chosen]) else {
        return;
    };
    let mut shares = 0.0;
    for name in names {
        let knob = knob(&cpuid, name);
        assert_eq!(knob["status"], "measured", "{knob}");
        let first = number(&knob["first"]);
        assert!(first > 0.0, "{knob}");
        assert_eq!(first, number(&knob["predicted"]), "{knob}");
        shares += number(&knob["shapley"]);
    }
    let (full, all_off) = (number(&cpuid["full"]), number(&cpuid["all_off"]));
    // What three knobs and more save together is nobody's, and said.
    let rest = number(&cpuid["rest"]);
    assert!(
        (full - all_off - shares - rest).abs() < 1e-6,
        "{full} {all_off} {shares} {rest}"
    );
    assert!(rest.abs() < 1.0, "{rest}");
    // Of eight knobs a fraction of 64 is measured, with the ends and each by itself, first and last.
    assert_eq!(cpuid["all_combinations"], false);
    let values = cpuid["conditions"].as_array().expect("conditions");
    assert!(
        values.len() >= 64 && values.len() <= 64 + 2 + 16,
        "{}",
        values.len()
    );
    assert!(
        values
            .iter()
            .all(|condition| condition["verdict"] == "clean")
    );
    assert!(number(&cpuid["floor"]["assembly"]) < all_off);
}

/// What cannot be done without is told by name and why, whether the guest's answer is wrong, it makes no exit, or the lab dies; and the
/// others are measured all the same.
#[test]
fn what_is_required_is_not_free() {
    if !linux_6_1() {
        return;
    }
    let functions = "kvm_cpuid,svm_vcpu_run,__srcu_read_lock";
    let Some(cpuid) = ablated(&["cpuid", "--knob", "srcu", "--function", functions]) else {
        return;
    };
    for (name, why) in [
        ("kvm_cpuid", "in RAX"),
        ("svm_vcpu_run", "in RAX"),
        ("__srcu_read_lock", "__srcu_read_unlock"),
    ] {
        let knob = knob(&cpuid, name);
        assert_eq!(knob["status"], "required", "{knob}");
        let notes = knob["notes"].to_string();
        assert!(notes.contains(why), "no '{why}' in {notes}");
        assert!(knob["shapley"].is_null(), "{knob}");
    }
    // One knob is left: it is on or off. And each that is required was off once.
    let conditions = cpuid["conditions"].as_array().expect("conditions");
    assert_eq!(conditions.len(), 2 + 3, "{conditions:?}");
    // Both together are not.
    let srcu = knob(&cpuid, "srcu");
    assert_eq!(srcu["status"], "measured", "{srcu}");
    assert_eq!(srcu["first"], srcu["last"], "{srcu}");
}

/// What a machine switches while it runs and how a VM is made are knobs in the lab, too: what is not on by itself is put on where it is
/// named; a VM that makes no exit saves all of it; and one in which the row cannot run has its reason.
#[test]
fn what_is_switched_inside_is_a_knob() {
    if !linux_6_1() {
        return;
    }
    let knobs = "idle-exits,irqchip,kvm-tracepoints";
    let Some(hlt) = ablated(&["hlt_pending", "--knob", knobs]) else {
        return;
    };
    let irqchip = knob(&hlt, "irqchip");
    assert_eq!(irqchip["status"], "required", "{irqchip}");
    assert!(irqchip["notes"].to_string().contains("#GP"), "{irqchip}");
    let (full, all_off) = (number(&hlt["full"]), number(&hlt["all_off"]));
    let tracepoints = knob(&hlt, "kvm-tracepoints");
    assert_eq!(tracepoints["kind"], "setting", "{tracepoints}");
    assert!(number(&tracepoints["first"]) > 500.0, "{tracepoints}");
    let exits = knob(&hlt, "idle-exits");
    assert_eq!(exits["kind"], "vm", "{exits}");
    assert_eq!(number(&exits["first"]), full, "{exits}");
    assert_eq!(all_off, 0.0, "HLT takes what NOP does");
    // That they are on, somebody reads who reads the recording.
    let made = "the VM is made without it";
    assert!(exits["notes"].to_string().contains(made), "{exits}");
}

#[test]
fn what_is_no_knob_is_refused() {
    let unknown = Said::of(&mut exitpath(&["ablate", "cpuid", "--knob", "turbo"]));
    unknown.fails(2, &["'turbo'", "--list-knobs"]);
    for text in ["f()", "a:b:c", "f=x", "f=-1"] {
        Said::of(&mut exitpath(&["ablate", "cpuid", "--function", text])).fails(2, &[]);
    }
    Said::of(&mut exitpath(&["ablate", "ipi"])).fails(2, &["ipi", "more than one vCPU"]);
    Said::of(&mut exitpath(&["ablate", "nested_page_fault"])).fails(2, &["page of its own"]);
    let listed = Said::of(&mut exitpath(&["ablate", "--list-knobs"]));
    assert!(
        listed.stdout.contains("time-accounting"),
        "{}",
        listed.stdout
    );
}

/// A guest's kernel mode executes each primitive without an exit, and a path says how often it uses them.
#[test]
fn primitives_are_counted_and_so_is_their_use() {
    let Some((_, qemu)) = qemus().pop() else {
        return;
    };
    let said = Said::of(
        exitpath(&[
            "primitives",
            "--json",
            "--on",
            "lab",
            "--seed",
            "1",
            "--qemu",
        ])
        .arg(qemu),
    );
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let table = said.json();
    let rows = table["rows"].as_array().expect("rows");
    assert!(rows.len() > 30, "{}", rows.len());
    let row = |name: &str| {
        let found = rows.iter().find(|row| row["name"] == name);
        found.unwrap_or_else(|| panic!("{name}"))
    };
    for row in rows {
        assert_eq!(row["verdict"], "clean", "{row}");
        assert_eq!(row["exits_per_op"], 0.0, "{row}");
    }
    assert_eq!(row("irq_save_restore")["median"], 5.0);
    assert_eq!(row("request_chain")["median"], 51.0);
    // In on the way out and on the way in again, of a user exit; a CPUID stays in the kernel.
    assert_eq!(row("swapgs")["used"]["pio_user_write"], 2);
    assert_eq!(row("swapgs")["used"]["cpuid"], 0);
    assert!(number(&row("cli")["used"]["cpuid"]) >= 1.0);
    // A system call goes through a pointer, and its calls are of functions: fewer than one in ten instructions.
    let calls = number(&row("call_direct")["used"]["pio_user_write"]);
    assert!((100.0..350.0).contains(&calls), "{calls}");
    assert!(number(&row("call_retpoline")["used"]["pio_user_write"]) >= 1.0);
}

/// What is read of the machine before and after: all files that `ablate --on host` may change.
const SETTINGS: &str = "cat /sys/module/kvm/parameters/halt_poll_ns /proc/sys/kernel/ftrace_enabled \
     /proc/sys/kernel/numa_balancing /proc/sys/kernel/sched_schedstats /sys/kernel/mm/ksm/run \
     /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/tracing/events/kvm/enable 2>&1";

/// A host's settings are as they were, whether it ends by itself, is interrupted, or is killed at any moment: then from the next start of
/// any exitpath on. The host is a lab.
#[test]
fn a_hosts_settings_are_put_back_whatever_ends_it() {
    let Some((_, qemu)) = qemus().pop() else {
        return;
    };
    let exitpath_inside_lab = crate::common::program();
    // What is recorded there comes out, into a folder of this test's.
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().display();
    let ablate = format!(
        "'{}' ablate cpuid --on host --json --samples 20 --out",
        exitpath_inside_lab.display()
    );
    let script = format!(
        "settings() {{ {SETTINGS}; }}; before=$(settings); \
         {ablate} '{out}/whole' --runs 2 > /run/whole.json; echo status $?; \
         [ \"$before\" = \"$(settings)\" ] && echo whole: as before; \
         for after in 0.31 0.43 0.59 0.72 0.97; do \
           {ablate} '{out}/killed' --runs 500 --knob {named} > /dev/null 2>&1 & pid=$!; sleep $after; \
           [ \"$before\" = \"$(settings)\" ] || echo changed; \
           kill -9 $pid; wait $pid; '{program}' --version 2>&1 | grep again; \
           [ \"$before\" = \"$(settings)\" ] && echo killed: as before; \
         done; \
         {ablate} '{out}/interrupted' --runs 500 > /dev/null 2>&1 & pid=$!; sleep 0.6; kill -INT $pid; wait $pid; echo status $?; \
         [ \"$before\" = \"$(settings)\" ] && echo interrupted: as before; cat /run/whole.json",
        program = exitpath_inside_lab.display(),
        named = "halt-polling,kvm-tracepoints,function-tracing,huge-pages",
    );
    let said = Said::of(
        exitpath(&["lab", "run", "--seed", "1", "--qemu"])
            .arg(qemu)
            .args(["--", "bash", "-c", &script]),
    );
    let all = format!("{}{}", said.stdout, said.stderr);
    assert_eq!(said.status, Some(0), "{all}");
    let count = |what: &str| said.stdout.matches(what).count();
    assert_eq!(count("whole: as before"), 1, "{all}");
    assert_eq!(count("killed: as before"), 5, "{all}");
    assert_eq!(count("interrupted: as before"), 1, "{all}");
    // Some were killed while something was off, and it was put back.
    assert!(count("changed") >= 1 && count(" again") >= 1, "{all}");
    assert!(count("status 0") >= 1 && count("status 130") == 1, "{all}");
    // And it measured: a VM without interrupt controllers in the kernel has less to do.
    let json = said.stdout.find("{\n").map(|at| &said.stdout[at..]);
    let json: Value = serde_json::from_str(json.expect("JSON")).expect("JSON");
    let irqchip = knob(&json, "irqchip");
    assert_eq!(irqchip["kind"], "vm");
    assert!(number(&irqchip["shapley"]) > 20.0, "{irqchip}");
    assert_eq!(knob(&json, "halt-polling")["kind"], "setting");
    assert!(dir.path().join("whole/manifest.json").is_file());
}
