//! What this process may do.

use crate::reading::root::{Root, Unknown};

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
    pub(crate) fn read(root: &Root) -> Result<Self, Unknown> {
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
}
