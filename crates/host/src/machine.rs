//! What several topics need, read once.

use crate::calibration::GuestCheck;
use crate::reading::capabilities::Capabilities;
use crate::reading::cpuinfo::CpuInfo;
use crate::reading::kconfig::KernelConfig;
use crate::reading::parse::cpu_list_len;
use crate::reading::root::{Root, Unknown};

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

    /// How many CPUs are in use.
    pub(crate) fn cpu_count(&self) -> Result<u64, Unknown> {
        let path = "/sys/devices/system/cpu/online";
        match self.root.text(path) {
            Ok(list) => match cpu_list_len(&list) {
                Some(0) | None => Err(Unknown::malformed(path, &list)),
                Some(number) => Ok(number),
            },
            Err(unknown) => self.cpu.as_ref().map(|cpu| cpu.number).map_err(|_| unknown),
        }
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
    fn without_flags_nobody_knows_whether_it_is_virtual() {
        let tree = Tree::new().file("/proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\n");
        let root = tree.root();
        let machine = Machine::read(&root, None);
        assert!(machine.is_virtual().is_err());
        assert!(!machine.seems_virtual());
    }
}
