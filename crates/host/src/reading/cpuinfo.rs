//! `/proc/cpuinfo`.

use std::collections::BTreeSet;

use crate::reading::root::{Root, Unknown};

pub(crate) const CPUINFO: &str = "/proc/cpuinfo";

/// Who made the CPU, as far as it decides which counters and modules there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vendor {
    Intel,
    /// AMD, and Hygon, whose CPUs use the same module.
    Amd,
    Other,
}

/// What `/proc/cpuinfo` says. Fields that differ between CPUs are sets.
#[derive(Debug, Clone)]
pub(crate) struct CpuInfo {
    pub(crate) vendor: Vendor,
    pub(crate) vendor_id: Option<String>,
    pub(crate) model_names: BTreeSet<String>,
    pub(crate) family: Option<u32>,
    pub(crate) model: Option<u32>,
    pub(crate) stepping: Option<u32>,
    pub(crate) microcodes: BTreeSet<String>,
    /// The flags of the first CPU; empty where the architecture has none.
    pub(crate) flags: BTreeSet<String>,
    /// The `vmx flags` of the first CPU, Intel only.
    pub(crate) vmx_flags: Vec<String>,
    pub(crate) bugs: Vec<String>,
    pub(crate) number: u64,
}

impl CpuInfo {
    pub(crate) fn read(root: &Root) -> Result<Self, Unknown> {
        Self::parse(&root.text(CPUINFO)?)
    }

    fn parse(text: &str) -> Result<Self, Unknown> {
        let fields = || {
            text.lines().filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.trim(), value.trim()))
            })
        };
        let first = |wanted: &str| fields().find(|(name, _)| *name == wanted).map(|(_, v)| v);
        let all = |wanted: &str| -> BTreeSet<String> {
            fields()
                .filter(|(name, _)| *name == wanted)
                .map(|(_, v)| v.to_owned())
                .collect()
        };
        let words = |wanted: &str| -> Vec<String> {
            first(wanted)
                .unwrap_or("")
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let number = fields().filter(|(name, _)| *name == "processor").count() as u64;
        if number == 0 {
            return Err(Unknown::malformed(CPUINFO, text));
        }
        let vendor_id = first("vendor_id").map(str::to_owned);
        let vendor = match vendor_id.as_deref() {
            Some("GenuineIntel") => Vendor::Intel,
            Some("AuthenticAMD" | "HygonGenuine") => Vendor::Amd,
            _ => Vendor::Other,
        };
        Ok(CpuInfo {
            vendor,
            vendor_id,
            model_names: all("model name"),
            family: first("cpu family").and_then(|n| n.parse().ok()),
            model: first("model").and_then(|n| n.parse().ok()),
            stepping: first("stepping").and_then(|n| n.parse().ok()),
            microcodes: all("microcode"),
            flags: words("flags").into_iter().collect(),
            vmx_flags: words("vmx flags"),
            bugs: words("bugs"),
            number,
        })
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }
}
