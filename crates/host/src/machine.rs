//! What several topics need, read once.

use crate::cpu::CpuInfo;
use crate::guest::GuestCheck;
use crate::kconfig::KernelConfig;
use crate::root::{Root, Unknown};

/// A machine under examination.
pub(crate) struct Machine<'a> {
    pub(crate) root: &'a Root,
    pub(crate) guest: Option<&'a GuestCheck>,
    pub(crate) cpu: Result<CpuInfo, Unknown>,
    pub(crate) cmdline: Result<String, Unknown>,
    /// `uname -r`.
    pub(crate) release: Result<String, Unknown>,
    pub(crate) config: Result<KernelConfig, Unknown>,
    pub(crate) capabilities: Result<Capabilities, Unknown>,
}

impl<'a> Machine<'a> {
    pub(crate) fn read(root: &'a Root, guest: Option<&'a GuestCheck>) -> Self {
        let release = root.text("/proc/sys/kernel/osrelease");
        Machine {
            root,
            guest,
            cpu: CpuInfo::read(root),
            cmdline: root.text("/proc/cmdline"),
            config: KernelConfig::read(root, &release),
            release,
            capabilities: Capabilities::read(root),
        }
    }

    /// Whether this machine is itself a virtual machine, by the CPU's `hypervisor` flag
    /// (CPUID 1, ECX bit 31).
    pub(crate) fn is_virtual(&self) -> Result<bool, Unknown> {
        let cpu = self.cpu.as_ref().map_err(Clone::clone)?;
        if cpu.flags.is_empty() {
            let reason = "/proc/cpuinfo has no x86 flags, so no hypervisor flag";
            return Err(Unknown::NotHere(reason.to_owned()));
        }
        Ok(cpu.flags.contains("hypervisor"))
    }

    /// As [`Machine::is_virtual`], and not knowing means no.
    pub(crate) fn seems_virtual(&self) -> bool {
        self.is_virtual() == Ok(true)
    }

    /// What the kernel's command line gives `name`, the last time it does: `name=value` → `value`,
    /// `name` alone → the empty string. Parameters after `--` are for init and do not count.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let cmdline = self.cmdline.as_ref().ok()?;
        cmdline
            .split_whitespace()
            .take_while(|word| *word != "--")
            .filter_map(|word| {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                (key == name).then_some(value)
            })
            .last()
    }

    /// Of the kernel's parameters `names`, those given, as they were written.
    pub(crate) fn parameters(&self, names: &[&str]) -> Vec<String> {
        names
            .iter()
            .filter_map(|name| match self.parameter(name)? {
                "" => Some((*name).to_owned()),
                value => Some(format!("{name}={value}")),
            })
            .collect()
    }
}

/// This process's effective capabilities (`CapEff` in `/proc/self/status`, proc_pid_status(5)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capabilities {
    bits: u64,
    /// Whether they are against the whole machine and not just a user namespace.
    initial_namespace: bool,
}

/// The capabilities that decide who may observe, as numbered in `linux/capability.h`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Capability {
    SysAdmin = 21,
    Syslog = 34,
    Perfmon = 38,
    Bpf = 39,
}

impl Capabilities {
    fn read(root: &Root) -> Result<Self, Unknown> {
        let path = "/proc/self/status";
        let status = root.text(path)?;
        let bits = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .ok_or_else(|| Unknown::malformed(path, &status))?;
        // user_namespaces(7): the initial one maps all 2^32 - 1 ids onto themselves.
        let initial_namespace = root
            .text("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
        Ok(Capabilities {
            bits,
            initial_namespace,
        })
    }

    /// Whether the process has it, or has `CAP_SYS_ADMIN`, which stands for all of these.
    pub(crate) fn allow(self, capability: Capability) -> bool {
        let has = |capability: Capability| self.bits >> (capability as u32) & 1 == 1;
        self.initial_namespace && (has(capability) || has(Capability::SysAdmin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn the_last_parameter_counts_and_init_s_do_not() {
        let tree = Tree::new().file("/proc/cmdline", "a=1 nosmt a=2 b=x=y -- a=3 quiet");
        let root = tree.root();
        let machine = Machine::read(&root, None);
        assert_eq!(machine.parameter("a"), Some("2"));
        assert_eq!(machine.parameter("nosmt"), Some(""));
        assert_eq!(machine.parameter("b"), Some("x=y"));
        assert_eq!(machine.parameter("quiet"), None);
        assert_eq!(machine.parameters(&["nosmt", "c", "a"]), ["nosmt", "a=2"]);
    }

    #[test]
    fn capabilities_count_only_against_the_whole_machine() {
        let bpf_only = format!("Name:\tx\nCapEff:\t{:016x}\n", 1u64 << 39);
        let tree = Tree::new()
            .file("/proc/self/status", &bpf_only)
            .file("/proc/self/uid_map", "         0          0 4294967295\n");
        let capabilities = Capabilities::read(&tree.root()).unwrap();
        assert!(capabilities.allow(Capability::Bpf));
        assert!(!capabilities.allow(Capability::Perfmon));
        let tree = tree.file("/proc/self/uid_map", "0 1000 1\n");
        assert!(
            !Capabilities::read(&tree.root())
                .unwrap()
                .allow(Capability::Bpf)
        );
        let tree = tree.file("/proc/self/status", "CapEff:\txyz\n");
        assert!(Capabilities::read(&tree.root()).is_err());
    }

    #[test]
    fn without_flags_nobody_knows_whether_it_is_virtual() {
        let tree = Tree::new().file("/proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\n");
        let root = tree.root();
        let machine = Machine::read(&root, None);
        assert!(machine.is_virtual().is_err());
        assert!(!machine.seems_virtual());
    }
}
