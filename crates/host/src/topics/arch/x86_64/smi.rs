//! System-management interrupts: the firmware takes the CPU away, and nothing in the kernel sees
//! it.
//!
//! Source: `MSR_SMI_COUNT`, 0x34, bits 31:0 (Intel SDM volume 4; turbostat(8) reads it too), through
//! `/dev/cpu/*/msr` (msr(4)). AMD has no such register, only a performance event (`ls_smi_rx`).

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::cpuinfo::Vendor;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

const MSR_SMI_COUNT: u64 = 0x34;

/// Vendor, family, model and features of the boot CPU, in one line of a file that is cheap to read
/// (`cpu:type:x86,ven0000fam0006mod008E:feature:,0000,…`, arch/x86/kernel/cpu/match.c).
const MODALIAS: &str = "/sys/devices/system/cpu/modalias";

/// In it: the vendor Intel (`X86_VENDOR_INTEL`), and the feature `X86_FEATURE_HYPERVISOR`, 4*32+31.
const INTEL: &str = "ven0000";
const HYPERVISOR: &str = ",009F";

/// How many system-management interrupts a CPU has taken since its reset.
///
/// A virtual machine may well read zero there: its own SMIs, and not those of the machine below.
/// That is no answer.
pub(crate) fn smi_count(root: &Root, cpu: u32) -> Result<u64, Unknown> {
    match root.text(MODALIAS) {
        Ok(alias) if alias.contains(HYPERVISOR) => return Err(hidden()),
        Ok(alias) if !alias.contains(INTEL) => return Err(not_intel()),
        _ => {}
    }
    let value = root.bytes_at::<8>(&format!("/dev/cpu/{cpu}/msr"), MSR_SMI_COUNT)?;
    Ok(u64::from_le_bytes(value) & u64::from(u32::MAX))
}

fn hidden() -> Unknown {
    Unknown::NotHere("a virtual machine does not see the SMIs of the machine below it".to_owned())
}

fn not_intel() -> Unknown {
    Unknown::NotHere("only Intel CPUs count SMIs in a register".to_owned())
}

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[("smi", "whether system-management interrupts are counted")],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let vendor = machine.cpu.as_ref().map(|cpu| cpu.vendor);
    let answer = match vendor {
        _ if machine.seems_virtual() => Err(hidden()),
        Ok(Vendor::Intel) => smi_count(machine.root, 0),
        Ok(_) => Err(not_intel()),
        Err(unknown) => Err(unknown.clone()),
    };
    match out.record("smi.count", answer) {
        Ok(count) => out.find(Finding::new(
            "smi",
            "smi",
            Level::Good,
            format!(
                "SMIs are counted, a run with one can be told ({count} on CPU 0 since its reset)"
            ),
        )),
        Err(unknown) => {
            let finding = Finding::new("smi", "smi", Level::Note, format!("unknown: {unknown}"));
            out.find(match (&unknown, vendor) {
                (Unknown::Absent { .. }, Ok(Vendor::Intel)) => {
                    finding.advice("sudo modprobe msr, and measure as root")
                }
                (Unknown::NoPermission { .. }, _) => finding.advice("measure as root"),
                (_, Ok(Vendor::Amd)) if !machine.seems_virtual() => {
                    finding.advice("count them with: sudo perf stat -a -e ls_smi_rx sleep 10")
                }
                _ => finding,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, vm_guest};

    #[test]
    fn counted_on_intel() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        assert_eq!(out.facts["smi.count"], json!(77));
        let tree = Tree::new().bytes("/dev/cpu/3/msr", 0x34, &[1, 0, 0, 0, 9, 9, 9, 9]);
        assert_eq!(smi_count(&tree.root(), 3), Ok(1));
    }

    #[test]
    fn the_register_is_not_believed_where_it_means_nothing() {
        let with = |alias: &str| {
            let tree = Tree::new()
                .bytes("/dev/cpu/0/msr", 0x34, &[0; 8])
                .file(MODALIAS, alias);
            smi_count(&tree.root(), 0)
        };
        assert_eq!(
            with("cpu:type:x86,ven0000fam0006mod008E:feature:,0000,0001,00A0"),
            Ok(0)
        );
        assert_eq!(
            with("cpu:type:x86,ven0000fam0006mod0055:feature:,0000,009F"),
            Err(hidden())
        );
        assert_eq!(
            with("cpu:type:x86,ven0002fam0019mod0011:feature:,0000"),
            Err(not_intel())
        );
    }

    #[test]
    fn not_counted_elsewhere_and_why() {
        let advice = |tree: Tree| tree.topic(&TOPIC).get("smi", "smi").advice.clone();
        assert!(
            advice(intel_laptop_on_battery().without("/dev/cpu"))
                .unwrap()
                .contains("modprobe msr")
        );
        assert!(advice(amd_server()).unwrap().contains("ls_smi_rx"));
        assert_eq!(advice(vm_guest()), None);
        assert_eq!(
            Tree::new().topic(&TOPIC).get("smi", "smi").level,
            Level::Note
        );
    }
}
