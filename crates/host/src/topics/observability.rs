//! What can be used here to look at exits from the host: BPF, ftrace, perf, and kernel symbols.
//!
//! Sources: `Documentation/admin-guide/sysctl/kernel.rst` (`unprivileged_bpf_disabled`,
//! `perf_event_paranoid`, `kptr_restrict`), `sysctl/net.rst` (`bpf_jit_enable`);
//! `Documentation/bpf/btf.rst`; `Documentation/trace/ftrace.rst`;
//! `Documentation/ABI/testing/sysfs-bus-event_source-devices`; kernel_lockdown(7).
//!
//! This is what the machine permits and offers; whether a probe attaches only the attempt tells.

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::capabilities::Capability;
use crate::reading::parse::{and_list, chosen};
use crate::reading::root::Unknown;
use crate::topic::Topic;

/// How much of `/proc/kallsyms` is enough to see whether it shows addresses, in bytes.
const KALLSYMS_BEGINNING_BYTES: u64 = 1 << 14;

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        ("lockdown", "a kernel locked down for confidentiality"),
        ("observe-bpf", "whether BPF can be used to trace"),
        ("observe-ftrace", "whether tracefs can be read"),
        ("observe-perf", "whether perf may look into the kernel"),
        (
            "hardware-pmu",
            "whether there are hardware performance counters",
        ),
        ("kernel-symbols", "whether the kernel shows its addresses"),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    lockdown(machine, out);
    bpf(machine, out);
    ftrace(machine, out);
    perf(machine, out);
    symbols(machine, out);
}

/// Whether this process has a capability; no if that could not be found out.
fn allowed(machine: &Machine<'_>, capability: Capability) -> bool {
    machine
        .capabilities
        .as_ref()
        .is_ok_and(|capabilities| capabilities.allow(capability))
}

fn lockdown(machine: &Machine<'_>, out: &mut Examination) {
    let mode = machine
        .root
        .text("/sys/kernel/security/lockdown")
        .map(|text| chosen(&text).unwrap_or(&text).to_owned());
    let mode = out.record("observe.lockdown", mode);
    if mode.as_deref() == Ok("confidentiality") {
        out.find(
            Finding::new("lockdown", "kernel", Level::Warning, "the kernel is locked down (confidentiality): BPF, kprobes and perf may not look into it")
                .advice("boot with lockdown=integrity or without"),
        );
    }
}

fn bpf(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    let _ = out.record(
        "observe.unprivileged_bpf_disabled",
        root.number::<u32>("/proc/sys/kernel/unprivileged_bpf_disabled"),
    );
    let _ = out.record(
        "observe.bpf_jit",
        root.number::<u32>("/proc/sys/net/core/bpf_jit_enable"),
    );
    let btf = root.beginning("/sys/kernel/btf/vmlinux", 1).map(|_| true);
    let btf = out.record("observe.btf", btf);
    let attachments = out.record("observe.probes", probes(machine));

    let finding = |level, says: String| Finding::new("observe-bpf", "bpf", level, says);
    let permitted = allowed(machine, Capability::Bpf) && allowed(machine, Capability::Perfmon);
    if machine
        .config
        .as_ref()
        .is_ok_and(|config| !config.is_on("BPF_SYSCALL"))
    {
        return out.find(finding(
            Level::Note,
            "this kernel was built without BPF".to_owned(),
        ));
    }
    if let Err(unknown) = &machine.capabilities {
        return out.find_unknown("observe-bpf", "bpf", unknown);
    }
    if !permitted {
        return out.find(
            finding(
                Level::Note,
                "not for this user: tracing with BPF takes CAP_BPF and CAP_PERFMON".to_owned(),
            )
            .advice("run as root, or: sudo setcap cap_bpf,cap_perfmon+ep $(which exitpath)"),
        );
    }
    let probes = match attachments {
        Ok(probes) if probes.is_empty() => "raw tracepoints only".to_owned(),
        Ok(probes) => format!(
            "raw tracepoints; {} by configuration, an attempt tells",
            and_list(&probes)
        ),
        Err(unknown) => format!("which probes are configured is unknown, {unknown}"),
    };
    out.find(match btf {
        Ok(_) => finding(Level::Good, format!("permitted, with BTF; {probes}")),
        Err(unknown) => finding(
            Level::Note,
            format!("permitted, without the kernel's BTF ({unknown}): programs that use CO-RE will not load; {probes}"),
        )
        .advice("use a kernel with CONFIG_DEBUG_INFO_BTF=y"),
    });
}

/// Kinds of probes that the kernel is configured for.
fn probes(machine: &Machine<'_>) -> Result<Vec<&'static str>, Unknown> {
    let config = machine.config.as_ref().map_err(Clone::clone)?;
    let kinds = [
        ("KPROBES", "kprobes"),
        ("DYNAMIC_FTRACE_WITH_DIRECT_CALLS", "fentry"),
        ("UPROBES", "uprobes"),
    ];
    Ok(kinds
        .iter()
        .filter(|(option, _)| config.is_on(option))
        .map(|(_, kind)| *kind)
        .collect())
}

fn ftrace(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    let finding = |level, says: &str| Finding::new("observe-ftrace", "ftrace", level, says);
    let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let answers: Vec<(&str, Result<String, Unknown>)> = places
        .iter()
        .map(|place| (*place, root.text(&format!("{place}/available_tracers"))))
        .collect();
    let readable = answers
        .iter()
        .find_map(|(place, answer)| Some((*place, answer.as_ref().ok()?)));
    let Some((place, tracers)) = readable else {
        let denied = answers.iter().find_map(|(_, answer)| match answer {
            Err(unknown) if !unknown.is_absent() => Some(unknown.clone()),
            _ => None,
        });
        let folder = root.has_folder(places[0]);
        let (unknown, advice) = match denied {
            Some(unknown) => (unknown, "run as root"),
            None if folder => (
                Unknown::NotHere("tracefs is not mounted".to_owned()),
                "sudo mount -t tracefs tracefs /sys/kernel/tracing",
            ),
            None => (
                Unknown::NotHere("there is no /sys/kernel/tracing".to_owned()),
                "use a kernel with CONFIG_FTRACE=y",
            ),
        };
        let _ = out.record::<()>("observe.tracers", Err(unknown.clone()));
        let says = format!("not usable: {unknown}");
        return out.find(finding(Level::Note, &says).advice(advice));
    };
    out.fact("observe.tracefs", place);
    out.fact(
        "observe.tracers",
        json!(tracers.split_whitespace().collect::<Vec<_>>()),
    );
    let events = root
        .text(&format!("{place}/events/kvm/kvm_exit/format"))
        .map(|_| true);
    let mut says = format!("readable at {place}, tracers {tracers}");
    let level = match out.record("observe.kvm_events", events) {
        Ok(_) => {
            says.push_str(", with KVM's events");
            Level::Good
        }
        Err(unknown) => {
            says.push_str(&format!(", but without KVM's events ({unknown})"));
            Level::Note
        }
    };
    out.find(finding(level, &says));
}

fn perf(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    let folder = "/sys/bus/event_source/devices";
    let paranoid = root.number::<i32>("/proc/sys/kernel/perf_event_paranoid");
    let paranoid = out.record("observe.perf_event_paranoid", paranoid);
    // `cpu` on x86 and others, `cpu_core` and `cpu_atom` on hybrid Intel CPUs, `armv8_*` on arm64.
    let pmus = root.list(folder).map(|names| {
        let hardware =
            |name: &String| name == "cpu" || name.starts_with("cpu_") || name.starts_with("armv8_");
        names.into_iter().filter(hardware).collect::<Vec<_>>()
    });
    let pmus = out.record("observe.hardware_pmus", pmus);

    let hardware = |level, says: String| Finding::new("hardware-pmu", "perf", level, says);
    match &pmus {
        Ok(pmus) if pmus.is_empty() => out.find(
            hardware(Level::Note, "no hardware performance counters: neither cycles nor instructions can be counted here".to_owned())
                .advice(if machine.seems_virtual() {
                    "ask the hypervisor below for a virtual PMU (QEMU: -cpu host,pmu=on), or count instructions in the lab"
                } else {
                    "see dmesg | grep -i 'performance events' for why"
                }),
        ),
        Ok(pmus) => out.find(hardware(Level::Good, format!("hardware performance counters: {}", and_list(pmus)))),
        Err(unknown) => out.find_unknown("hardware-pmu", "perf", unknown),
    }
    let finding = |level, says: String| Finding::new("observe-perf", "perf", level, says);
    match paranoid {
        Err(unknown) if unknown.is_absent() => {
            out.find(finding(Level::Note, format!("this kernel was built without perf events ({unknown})")));
        }
        Err(unknown) => out.find_unknown("observe-perf", "perf", &unknown),
        Ok(level) if allowed(machine, Capability::Perfmon) => {
            out.find(finding(Level::Good, format!("perf may look into the kernel (this process may, whatever perf_event_paranoid={level} says)")));
        }
        Ok(level @ ..=-1) => {
            out.find(finding(Level::Good, format!("perf may look into the kernel and at raw tracepoints (perf_event_paranoid={level})")));
        }
        Ok(level) => out.find(
            finding(Level::Note, format!("perf may not do everything for this user (perf_event_paranoid={level}): no samples of tracepoints{}", match level {
                ..=0 => "",
                1 => ", no CPU-wide events",
                2 => ", no CPU-wide events, nothing of the kernel",
                _ => ", and where the distribution's patch is in nothing at all",
            }))
            .advice("run as root, or: sudo sysctl kernel.perf_event_paranoid=-1"),
        ),
    }
}

fn symbols(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    let restrict = root.number::<u32>("/proc/sys/kernel/kptr_restrict");
    let _ = out.record("observe.kptr_restrict", restrict);
    let path = "/proc/kallsyms";
    // Without permission every address reads as zero. A few are zero with it, too.
    let shown = root
        .beginning(path, KALLSYMS_BEGINNING_BYTES)
        .and_then(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            let mut addresses = text
                .lines()
                .filter_map(|line| u64::from_str_radix(line.split_whitespace().next()?, 16).ok())
                .peekable();
            match addresses.peek() {
                None => Err(Unknown::malformed(path, &text)),
                Some(_) => Ok(addresses.any(|address| address != 0)),
            }
        });
    let finding = |level, says: &str| Finding::new("kernel-symbols", "kallsyms", level, says);
    match out.record("observe.kernel_addresses", shown) {
        Ok(true) => out.find(finding(
            Level::Good,
            "the kernel's functions can be told by address",
        )),
        Ok(false) => {
            let finding = finding(
                Level::Note,
                "the kernel hides its addresses: profiles will have no names",
            );
            out.find(if allowed(machine, Capability::Syslog) {
                finding.advice("sudo sysctl kernel.kptr_restrict=1")
            } else {
                finding.advice(
                    "run as root; if that does not help: sudo sysctl kernel.kptr_restrict=1",
                )
            });
        }
        Err(unknown) => out.find_unknown("kernel-symbols", "kallsyms", &unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, sandbox, vm_guest};

    #[test]
    fn a_laptop_s_ordinary_user() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        assert!(
            out.get("observe-bpf", "bpf")
                .advice
                .as_ref()
                .unwrap()
                .contains("setcap")
        );
        assert_eq!(out.facts["observe.probes"], json!(["kprobes", "fentry"]));
        assert!(
            out.get("observe-ftrace", "ftrace")
                .says
                .ends_with("with KVM's events")
        );
        assert_eq!(out.get("hardware-pmu", "perf").level, Level::Good);
        assert!(
            out.get("observe-perf", "perf")
                .says
                .contains("perf_event_paranoid=3")
        );
        assert_eq!(out.get("kernel-symbols", "kallsyms").level, Level::Good);
    }

    #[test]
    fn root_on_a_server() {
        let out = amd_server().topic(&TOPIC);
        assert_eq!(out.get("observe-perf", "perf").level, Level::Good);
        assert_eq!(out.get("kernel-symbols", "kallsyms").level, Level::Note);
        let out = amd_server()
            .file(
                "/boot/config-6.12.9",
                "CONFIG_BPF_SYSCALL=y\nCONFIG_KPROBES=y\n",
            )
            .topic(&TOPIC);
        let finding = out.get("observe-bpf", "bpf");
        assert!(
            finding.says.contains("without the kernel's BTF"),
            "{}",
            finding.says
        );
        assert!(finding.says.contains("kprobes by configuration"));
        let out = amd_server()
            .file("/boot/config-6.12.9", "# CONFIG_BPF_SYSCALL is not set")
            .topic(&TOPIC);
        assert!(out.get("observe-bpf", "bpf").says.contains("without BPF"));
    }

    #[test]
    fn guests_without_counters_and_tracefs() {
        for tree in [vm_guest(), sandbox()] {
            let out = tree.topic(&TOPIC);
            assert!(
                out.get("hardware-pmu", "perf")
                    .advice
                    .as_ref()
                    .unwrap()
                    .contains("virtual PMU")
            );
            let advice = out.get("observe-ftrace", "ftrace").advice.clone().unwrap();
            assert!(advice.starts_with("sudo mount"), "{advice}");
        }
    }

    #[test]
    fn ftrace_without_kvm_events_at_the_old_place() {
        let out = Tree::new()
            .file("/sys/kernel/debug/tracing/available_tracers", "nop\n")
            .topic(&TOPIC);
        assert!(
            out.get("observe-ftrace", "ftrace")
                .says
                .contains("but without KVM's events")
        );
        let out = Tree::new()
            .folder("/sys/kernel/tracing/available_tracers")
            .topic(&TOPIC);
        assert_eq!(
            out.get("observe-ftrace", "ftrace").advice.as_deref(),
            Some("run as root")
        );
    }

    #[test]
    fn lockdown() {
        let path = "/sys/kernel/security/lockdown";
        let out = amd_server()
            .file(path, "none integrity [confidentiality]\n")
            .topic(&TOPIC);
        assert!(out.has("lockdown"));
        assert!(
            !amd_server()
                .file(path, "[none] integrity")
                .topic(&TOPIC)
                .has("lockdown")
        );
    }

    #[test]
    fn nothing_at_all() {
        let out = Tree::new().topic(&TOPIC);
        assert_eq!(out.worst(), Level::Note);
        assert!(out.unknown_facts().count() >= 8);
        let out = Tree::new()
            .file("/proc/kallsyms", "no such thing")
            .topic(&TOPIC);
        assert!(
            out.get("kernel-symbols", "kallsyms")
                .says
                .starts_with("unknown")
        );
    }
}
