//! How the running kernel was configured.
//!
//! Looked for in `/boot/config-$(uname -r)`, `/lib/modules/$(uname -r)/config` and
//! `/proc/config.gz` (`CONFIG_IKCONFIG_PROC`), in this order.

use std::collections::BTreeMap;
use std::io::Read;

use crate::reading::root::{Root, Unknown};

/// The most that `/proc/config.gz` may unpack to, in bytes; ten times what any kernel has.
const UNPACKED_LIMIT_BYTES: u64 = 4 << 20;

/// The options that are recorded, those that begin so: what is on an exit's path, what slows it,
/// what observes it.
const RECORDED: &[&str] = &[
    "BPF_JIT",
    "BPF_KPROBE_OVERRIDE",
    "BPF_SYSCALL",
    "CALL_DEPTH_TRACKING",
    "CC_VERSION_TEXT",
    "CFI",
    "CONTEXT_TRACKING",
    "CPU_IBPB_ENTRY",
    "CPU_IBRS_ENTRY",
    "CPU_MITIGATIONS",
    "CPU_SRSO",
    "CPU_UNRET_ENTRY",
    "DEBUG_INFO_BTF",
    "DYNAMIC_FTRACE",
    "FTRACE",
    "FUNCTION_GRAPH_TRACER",
    "FUNCTION_TRACER",
    "GCOV_KERNEL",
    "HARDENED_USERCOPY",
    "HIGH_RES_TIMERS",
    "HWLAT_TRACER",
    "HZ",
    "INIT_ON_",
    "IRQ_TIME_ACCOUNTING",
    "KALLSYMS",
    "KASAN",
    "KCOV",
    "KCSAN",
    "KFENCE",
    "KMSAN",
    "KPROBE",
    "KVM",
    "LIVEPATCH",
    "LOCKDEP",
    "LOCK_STAT",
    "LTO",
    "MITIGATION",
    "NO_HZ",
    "PARAVIRT",
    "PREEMPT",
    "PROVE_",
    "RANDOMIZE_",
    "RCU_NOCB",
    "RETHUNK",
    "RETPOLINE",
    "SCHED_CORE",
    "SLS",
    "SPECULATION_MITIGATIONS",
    "STACKPROTECTOR",
    "TICK_CPU_ACCOUNTING",
    "TRANSPARENT_HUGEPAGE",
    "UBSAN",
    "UNWINDER_",
    "UPROBE",
    "VIRT_CPU_ACCOUNTING",
    "X86_CPUID",
    "X86_KERNEL_IBT",
    "X86_MSR",
];

/// The options of a kernel, without the `CONFIG_`; an option that is not set has the value `n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelConfig {
    /// The file it was read from.
    pub(crate) path: String,
    options: BTreeMap<String, String>,
}

impl KernelConfig {
    pub(crate) fn read(root: &Root, release: &Result<String, Unknown>) -> Result<Self, Unknown> {
        if let Ok(release) = release {
            for path in [
                format!("/boot/config-{release}"),
                format!("/lib/modules/{release}/config"),
            ] {
                match root.text(&path) {
                    Ok(text) => return Self::parse(path, &text),
                    Err(Unknown::Absent { .. }) => {}
                    Err(unknown) => return Err(unknown),
                }
            }
        }
        let path = "/proc/config.gz";
        let packed = root
            .bytes(path)
            .map_err(|unknown| match (unknown, release) {
                (Unknown::Absent { .. }, Ok(release)) => Unknown::NotHere(format!(
                    "there is no /boot/config-{release}, /lib/modules/{release}/config or {path}"
                )),
                (unknown, _) => unknown,
            })?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .take(UNPACKED_LIMIT_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| Unknown::Failed {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        Self::parse(path.to_owned(), &text)
    }

    fn parse(path: String, text: &str) -> Result<Self, Unknown> {
        let options: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| {
                if let Some(set) = line.strip_prefix("CONFIG_") {
                    let (name, value) = set.split_once('=')?;
                    return Some((name.to_owned(), value.trim_matches('"').to_owned()));
                }
                let unset = line
                    .strip_prefix("# CONFIG_")?
                    .strip_suffix(" is not set")?;
                Some((unset.to_owned(), "n".to_owned()))
            })
            .collect();
        if options.is_empty() {
            return Err(Unknown::malformed(&path, text));
        }
        Ok(KernelConfig { path, options })
    }

    /// Whether an option is built in or a module. An option that the file does not mention is off:
    /// what it depends on is.
    pub(crate) fn is_on(&self, option: &str) -> bool {
        self.options
            .get(option)
            .is_some_and(|value| value == "y" || value == "m")
    }

    /// The options that matter to exits, see [`RECORDED`], and every `DEBUG_` one that is on.
    pub(crate) fn recorded(&self) -> BTreeMap<&str, &str> {
        self.options
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, value)| {
                RECORDED.iter().any(|prefix| name.starts_with(prefix))
                    || (name.starts_with("DEBUG_") && *value != "n")
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::testing::{Tree, intel_laptop_on_battery};

    fn read(tree: &Tree) -> Result<KernelConfig, Unknown> {
        KernelConfig::read(&tree.root(), &Ok("6.1.0-18-amd64".to_owned()))
    }

    #[test]
    fn from_boot() {
        let config = read(&intel_laptop_on_battery()).unwrap();
        assert_eq!(config.path, "/boot/config-6.1.0-18-amd64");
        assert!(config.is_on("KVM_INTEL") && config.is_on("PREEMPT_DYNAMIC"));
        assert!(!config.is_on("KASAN") && !config.is_on("NEVER_HEARD_OF"));
        let recorded = config.recorded();
        assert_eq!(recorded["KASAN"], "n");
        assert_eq!(recorded["HZ"], "250");
        assert_eq!(recorded["DEBUG_LIST"], "y");
        assert_eq!(
            recorded["CC_VERSION_TEXT"],
            "gcc-12 (Debian 12.2.0-14) 12.2.0"
        );
        for absent in ["EXT4_FS", "HAVE_KVM", "DEBUG_PREEMPT"] {
            assert!(!recorded.contains_key(absent), "{absent}");
        }
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn from_proc() {
        let tree = Tree::new().bytes("/proc/config.gz", 0, &packed(b"CONFIG_KVM=y\n"));
        assert!(read(&tree).unwrap().is_on("KVM"));
    }

    #[test]
    fn nothing_nonsense_and_a_bomb() {
        let error = read(&Tree::new()).unwrap_err();
        assert!(
            error.to_string().contains("/boot/config-6.1.0-18-amd64"),
            "{error}"
        );
        let tree = Tree::new().file("/proc/config.gz", "CONFIG_KVM=y");
        assert!(matches!(read(&tree), Err(Unknown::Failed { .. })));
        let tree = Tree::new().file("/boot/config-6.1.0-18-amd64", "version https://git-lfs");
        assert!(matches!(read(&tree), Err(Unknown::Malformed { .. })));
        let tree = Tree::new().bytes("/proc/config.gz", 0, &packed(&vec![b'\n'; 5 << 20]));
        assert!(matches!(read(&tree), Err(Unknown::Malformed { .. })));
    }
}
