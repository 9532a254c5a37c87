//! `exitpath attach` on the real thing: in a lab, whose KVM runs exitpath's own virtual machines.

use serde_json::Value;

use crate::common::{Said, exitpath, linux_6_1, program, qemus};

/// Iterations of `measure` with so many samples: those before the first one, the samples, and batches of 16 and of 32.
const fn operations(samples: u64) -> u64 {
    64 + samples + 8 * (16 + 32)
}

/// Runs a script in a lab, in which `$exitpath` is the program.
fn in_lab(kernel: &str, script: &str) -> Option<String> {
    let (_, qemu) = qemus().pop()?;
    let script = format!("exitpath='{}'; {script}", program().display());
    let said = Said::of(
        exitpath(&["lab", "run", "--kernel", kernel, "--seed", "1", "--qemu"])
            .arg(qemu)
            .args(["--", "bash", "-c", &script]),
    );
    assert_eq!(said.status, Some(0), "{}{}", said.stdout, said.stderr);
    Some(said.stdout)
}

/// The reasons of all vCPUs of all VMs of this name.
fn reasons<'a>(seen: &'a Value, name: &str) -> Vec<&'a Value> {
    let vms = seen["vms"].as_array().into_iter().flatten();
    let vcpus = vms.flat_map(|vm| vm["vcpus"].as_array().into_iter().flatten());
    let all = vcpus.flat_map(|vcpu| vcpu["reasons"].as_array().into_iter().flatten());
    all.filter(|reason| reason["reason"] == name).collect()
}

fn total(seen: &Value, name: &str, what: &str) -> u64 {
    let all = reasons(seen, name);
    all.iter().filter_map(|reason| reason[what].as_u64()).sum()
}

/// Documents that a script printed, one behind the other.
fn documents(text: &str) -> Vec<Value> {
    let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    stream.map(|value| value.expect("JSON")).collect()
}

/// Each exit is counted by its reason, and its time told: the parts are there, the quantiles are what the path's instructions are, and
/// time in user space ends earlier where it is looked at exactly. When it is killed, nothing stays attached.
#[test]
fn exits_are_counted_and_timed_and_nothing_stays() {
    if !linux_6_1() {
        return;
    }
    // What is recorded there comes out, into a folder of this test's.
    let folder = tempfile::tempdir().expect("a folder");
    let script = "measure() { \"$exitpath\" measure \"$@\" --on host --runs 1 --samples 50 --json --out $out/$RANDOM$RANDOM 2> /dev/null; }; \
         attach() { \"$exitpath\" attach --json \"$@\" 2> /dev/null; }; \
         what=\"measure cpuid pio_user_write --on host --runs 1 --samples 50 --json\"; \
         attach -- \"$exitpath\" $what --out $out/usual; \
         attach --keep exact -- \"$exitpath\" $what --out $out/exact; \
         attach --keep light -- \"$exitpath\" $what --out $out/light; \
         measure cpuid; \
         \"$exitpath\" attach --all --for 60s > /dev/null 2>&1 & sleep 1; measure cpuid; kill -9 $!; wait $! 2> /dev/null; measure cpuid";
    let script = format!("out='{}'; {script}", folder.path().display());
    let Some(said) = in_lab("6.1", &script) else {
        return;
    };
    let found = documents(&said);
    let [usual, exact, light, before, during, after] = found.as_slice() else {
        panic!("{said}");
    };
    for seen in [usual, exact, light] {
        assert_eq!(total(seen, "cpuid", "count"), operations(50), "{seen}");
        assert!(total(seen, "io", "count") > operations(50), "{seen}");
        assert_eq!(total(seen, "cpuid", "through_userspace"), 0, "{seen}");
        for (what, lost) in seen["lost"].as_object().expect("an object") {
            assert!(lost == 0 || what == "uncertain", "{what}: {lost}");
        }
    }
    let (cpuid, io) = (reasons(usual, "cpuid"), total(usual, "io", "count"));
    // An instruction is a nanosecond there. Without the program it is 1,411 from the guest to the guest, of which KVM's clock sees a part.
    let median = cpuid[0]["kernel"]["p50"].as_f64().expect("a median");
    let sum = cpuid[0]["kernel"]["sum_ns"].as_u64().expect("a sum") as f64;
    assert!((500.0..1_411.0).contains(&median), "{median}");
    let mean = sum / operations(50) as f64;
    assert!(
        (mean - median).abs() <= 0.05 * median,
        "{mean} and {median}"
    );
    assert!(cpuid[0]["userspace"]["p50"].is_null(), "{cpuid:?}");
    // All of its port writes went through user space. Where one was preempted on the way back, nobody knows.
    let uncertain = usual["lost"]["uncertain"].as_u64().expect("a number");
    assert!(uncertain < 10, "{usual}");
    let through = total(usual, "io", "through_userspace");
    assert!(
        (io - uncertain..=io).contains(&through),
        "{through} of {io}"
    );
    assert_eq!(
        total(exact, "io", "through_userspace"),
        total(exact, "io", "count")
    );
    let in_user_space = |seen: &Value| {
        let io = reasons(seen, "io");
        let medians = io.iter().filter_map(|io| io["userspace"]["p50"].as_f64());
        medians.fold(f64::INFINITY, f64::min)
    };
    let (usual, exact) = (in_user_space(usual), in_user_space(exact));
    assert!(
        exact > 100.0 && exact + 300.0 < usual,
        "{exact} and {usual}"
    );
    let cpuid = |table: &Value| table["rows"][0]["median"].as_f64().expect("a median");
    assert!(cpuid(during) > cpuid(before) + 100.0, "it was not attached");
    assert_eq!(cpuid(after), cpuid(before), "something is still attached");
}

#[test]
fn what_cannot_be_attached_to_is_refused() {
    Said::of(&mut exitpath(&["attach"])).fails(2, &["--all"]);
    Said::of(&mut exitpath(&["attach", "--pid", "4294967295"]))
        .fails(2, &["no process 4294967295"]);
    Said::of(&mut exitpath(&["attach", "--pid", "1", "--all"])).fails(2, &[]);
    for time in ["3", "0s", "5x", "s", "25h", "-1s", "99999999999999999999s"] {
        Said::of(&mut exitpath(&["attach", "--all", "--for", time])).fails(2, &[]);
    }
    let own = std::process::id().to_string();
    Said::of(&mut exitpath(&["attach", "--pid", &own, "--for", "1s"])).fails(3, &[&own, "no vCPU"]);
}

/// Who may not is told in one line what is missing, and a machine that lacks it likewise.
#[test]
fn who_may_not_attach_is_told_so() {
    let script = "mkdir /run/home; chmod 777 /run/home; cd /; \
         setpriv --reuid 65534 --regid 65534 --clear-groups \"$exitpath\" attach --all --for 1s > /dev/null 2> /run/said; echo $?; cat /run/said; \
         setpriv --bounding-set -all --inh-caps -all \"$exitpath\" attach --all --for 1s > /dev/null 2> /run/said; echo $?; cat /run/said";
    let Some(said) = in_lab("6.1", script) else {
        return;
    };
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for refused in lines.chunks(2) {
        assert_eq!(refused[0], "3", "{said}");
        assert!(refused[1].contains("CAP_BPF"), "{said}");
    }
}
