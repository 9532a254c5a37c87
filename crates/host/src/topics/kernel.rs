//! The running kernel: version, command line, configuration, what makes it other than a
//! production kernel.
//!
//! Sources: `/proc/sys/kernel/{osrelease,tainted}` (`Documentation/admin-guide/sysctl/kernel.rst`,
//! `tainted-kernels.rst`); `/proc/version`; `/proc/cmdline`; see [`crate::reading::kconfig`] for options.

use exitpath_recording::fact;
use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::parse::and_list;
use crate::topic::Topic;

/// Options that multiply the cost of kernel code.
const HEAVY: &[&str] = &[
    "KASAN",
    "KMSAN",
    "KCSAN",
    "PROVE_LOCKING",
    "LOCKDEP",
    "LOCK_STAT",
    "KCOV",
    "GCOV_KERNEL",
];

/// Options that add checks to the path of an exit or to the locks on it.
const LIGHT: &[&str] = &[
    "DEBUG_ATOMIC_SLEEP",
    "DEBUG_ENTRY",
    "DEBUG_IRQFLAGS",
    "DEBUG_KMEMLEAK",
    "DEBUG_LOCK_ALLOC",
    "DEBUG_MUTEXES",
    "DEBUG_OBJECTS",
    "DEBUG_PREEMPT",
    "DEBUG_RT_MUTEXES",
    "DEBUG_RWSEMS",
    "DEBUG_SPINLOCK",
    "DEBUG_VM",
    "KVM_PROVE_MMU",
];

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        ("kernel-release", "which kernel runs"),
        ("kernel-config", "debugging options that weigh on exits"),
        ("kernel-preemption", "the kernel's preemption model"),
        ("kernel-taint", "a tainted kernel"),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let release = out.record(fact::KERNEL_RELEASE, machine.release.clone());
    let _ = out.record("kernel.version", machine.root.text("/proc/version"));
    let _ = out.record(fact::KERNEL_CMDLINE, machine.cmdline.clone());
    match release {
        Ok(release) => {
            out.find(Finding::new(
                "kernel-release",
                "kernel",
                Level::Good,
                format!("Linux {release}"),
            ));
        }
        Err(unknown) => out.find_unknown("kernel-release", "kernel", &unknown),
    }
    configuration(machine, out);
    preemption(machine, out);
    taint(machine, out);
}

fn configuration(machine: &Machine<'_>, out: &mut Examination) {
    let config = match &machine.config {
        Ok(config) => config,
        Err(unknown) => {
            let _ = out.record::<()>("kernel.config", Err(unknown.clone()));
            let says = format!("unknown: {unknown}");
            out.find(
                Finding::new("kernel-config", "kernel", Level::Note, says)
                    .advice("put the kernel's .config at /boot/config-$(uname -r), so that debugging options are recognised"),
            );
            return;
        }
    };
    out.fact("kernel.config_path", config.path.as_str());
    out.fact("kernel.config", json!(config.recorded()));
    let on = |options: &[&'static str]| -> Vec<&'static str> {
        options
            .iter()
            .copied()
            .filter(|option| config.is_on(option))
            .collect()
    };
    let (heavy, light) = (on(HEAVY), on(LIGHT));
    let advice = "measure with the kernel that is used in production";
    let finding = |level, says: String| Finding::new("kernel-config", "kernel", level, says);
    out.find(match (heavy.is_empty(), light.is_empty()) {
        (false, _) => finding(
            Level::Bad,
            format!(
                "a debugging kernel ({}): its exits cost a multiple of a production kernel's",
                and_list(&heavy)
            ),
        )
        .advice(advice),
        (true, false) => finding(
            Level::Warning,
            format!(
                "debugging options on the path of an exit are on: {}",
                and_list(&light)
            ),
        )
        .advice(advice),
        (true, true) => finding(
            Level::Good,
            format!("no debugging option that weighs on exits ({})", config.path),
        ),
    });
}

/// The preemption model decides how many checks an exit makes on its way.
fn preemption(machine: &Machine<'_>, out: &mut Examination) {
    // `none voluntary (full)`, the chosen one in parentheses; kernel/sched/debug.c.
    let model = machine.root.text("/sys/kernel/debug/sched/preempt");
    let chosen = model.ok().and_then(|text| {
        let (_, rest) = text.split_once('(')?;
        Some(rest.split_once(')')?.0.to_owned())
    });
    // Without PREEMPT_DYNAMIC the kernel ignores the parameter.
    let fixed = machine
        .config
        .as_ref()
        .is_ok_and(|config| !config.is_on("PREEMPT_DYNAMIC"));
    let asked = machine
        .parameter("preempt")
        .filter(|_| !fixed)
        .map(str::to_owned);
    let configured = || {
        let config = machine.config.as_ref().ok()?;
        let model = [
            "PREEMPT_RT",
            "PREEMPT_LAZY",
            "PREEMPT_VOLUNTARY",
            "PREEMPT_NONE",
            "PREEMPT",
        ]
        .into_iter()
        .find(|option| config.is_on(option))?;
        Some(
            model
                .trim_start_matches("PREEMPT_")
                .replace("PREEMPT", "full")
                .to_lowercase(),
        )
    };
    let answer = chosen.or(asked).or_else(configured).ok_or_else(|| {
        crate::reading::root::Unknown::NotHere(
            "neither /sys/kernel/debug/sched/preempt, nor the command line, nor a configuration says it"
                .to_owned(),
        )
    });
    let real_time = machine
        .root
        .text("/sys/kernel/realtime")
        .is_ok_and(|text| text == "1")
        || machine
            .config
            .as_ref()
            .is_ok_and(|config| config.is_on("PREEMPT_RT"));
    match out.record(fact::KERNEL_PREEMPTION, answer) {
        _ if real_time => out.find(Finding::new(
            "kernel-preemption",
            "kernel",
            Level::Note,
            "a PREEMPT_RT kernel: spin locks on the path may sleep, and exits take longer than with others",
        )),
        Ok(model) => {
            let says = format!("preemption model {model}");
            out.find(Finding::new("kernel-preemption", "kernel", Level::Good, says));
        }
        Err(unknown) => out.find_unknown("kernel-preemption", "kernel", &unknown),
    }
}

fn taint(machine: &Machine<'_>, out: &mut Examination) {
    match out.record(
        "kernel.tainted",
        machine.root.number::<u64>("/proc/sys/kernel/tainted"),
    ) {
        Ok(0) => {}
        Ok(bits) => {
            let reasons: Vec<&str> = TAINTS
                .iter()
                .filter(|(bit, _)| bits >> bit & 1 == 1)
                .map(|(_, reason)| *reason)
                .collect();
            let reasons = if reasons.is_empty() {
                vec!["for other reasons"]
            } else {
                reasons
            };
            let says = format!("the kernel is tainted ({bits}): {}", and_list(&reasons));
            out.find(Finding::new("kernel-taint", "kernel", Level::Note, says));
        }
        Err(unknown) => out.find_unknown("kernel-taint", "kernel", &unknown),
    }
}

/// Bits of `/proc/sys/kernel/tainted` (`Documentation/admin-guide/tainted-kernels.rst`).
const TAINTS: &[(u32, &str)] = &[
    (0, "a proprietary module"),
    (1, "a module loaded by force"),
    (4, "a machine check"),
    (7, "an oops before"),
    (9, "a warning before"),
    (12, "a module from outside the tree"),
    (13, "an unsigned module"),
    (14, "a soft lockup"),
    (15, "a live patch"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, vm_guest};

    #[test]
    fn a_distribution_s_kernel() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        assert_eq!(out.facts["kernel.release"], json!("6.1.0-18-amd64"));
        assert_eq!(out.facts["kernel.config"]["RETPOLINE"], json!("y"));
        assert_eq!(out.facts["kernel.preemption"], json!("voluntary"));
        assert_eq!(out.worst(), Level::Good);
    }

    #[test]
    fn preemption_by_debugfs_first_then_by_command_line() {
        let tree = intel_laptop_on_battery().file("/proc/cmdline", "preempt=none");
        assert_eq!(tree.topic(&TOPIC).facts["kernel.preemption"], json!("none"));
        let tree = tree.file(
            "/sys/kernel/debug/sched/preempt",
            "none voluntary (full) \n",
        );
        assert_eq!(tree.topic(&TOPIC).facts["kernel.preemption"], json!("full"));
    }

    #[test]
    fn debugging_kernels() {
        let with = |options: &str| {
            amd_server()
                .file("/boot/config-6.12.9", options)
                .topic(&TOPIC)
        };
        let out = with("CONFIG_KASAN=y\nCONFIG_DEBUG_PREEMPT=y\n");
        assert_eq!(out.get("kernel-config", "kernel").level, Level::Bad);
        let out = with("CONFIG_DEBUG_PREEMPT=y\nCONFIG_PREEMPT=y\n");
        assert_eq!(out.get("kernel-config", "kernel").level, Level::Warning);
        assert_eq!(out.facts["kernel.preemption"], json!("full"));
        let out = with("CONFIG_PREEMPT_RT=y\n");
        assert_eq!(out.get("kernel-preemption", "kernel").level, Level::Note);
    }

    #[test]
    fn taint_is_spelled_out() {
        let says = amd_server()
            .topic(&TOPIC)
            .get("kernel-taint", "kernel")
            .says
            .clone();
        assert!(
            says.ends_with("a proprietary module and a module from outside the tree"),
            "{says}"
        );
    }

    #[test]
    fn without_a_configuration() {
        let out = vm_guest().topic(&TOPIC);
        let finding = out.get("kernel-config", "kernel");
        assert!(
            finding
                .says
                .starts_with("unknown: there is no /boot/config-6.8.0-aws"),
            "{}",
            finding.says
        );
        let out = Tree::new().topic(&TOPIC);
        assert!(out.unknown_facts().count() >= 5);
    }
}
