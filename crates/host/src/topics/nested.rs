//! Whether this machine is itself a guest, and whose.
//!
//! Sources: the `hypervisor` flag of `/proc/cpuinfo` (CPUID 1, ECX bit 31); CPUID leaf 0x40000000
//! through `/dev/cpu/0/cpuid` (cpuid(4)); `/sys/hypervisor/type`
//! (`Documentation/ABI/stable/sysfs-hypervisor-xen`); `/sys/class/dmi/id`.

use crate::calibration::{GuestCheck, GuestOutcome};
use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

const DMI: &str = "/sys/class/dmi/id";

const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";

/// Where hypervisors say their name; `Documentation/virt/kvm/x86/cpuid.rst`.
const HYPERVISOR_LEAF: u64 = 0x4000_0000;

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[("nested", "whether this machine is itself a guest")],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    for name in ["sys_vendor", "product_name", "bios_version"] {
        let _ = out.record(
            &format!("machine.{name}"),
            machine.root.text(&format!("{DMI}/{name}")),
        );
    }
    match out.record("machine.virtual", machine.is_virtual()) {
        Err(unknown) => out.find_unknown("nested", "hypervisor", &unknown),
        Ok(false) => out.find(Finding::new(
            "nested",
            "hypervisor",
            Level::Good,
            "no hypervisor below this machine",
        )),
        Ok(true) => {
            let name = out.record("machine.hypervisor", hypervisor(machine.root));
            let below = name.unwrap_or_else(|_| "a hypervisor of unknown name".to_owned());
            let mut says = format!("this machine is a guest of {below}");
            says.push_str(match machine.guest {
                Some(GuestCheck { outcome: GuestOutcome::OnCpu { .. } }) => {
                    ": its guests are nested, and an exit may take a turn through the hypervisor below"
                }
                _ => ": guests started here are nested, where they can be started at all",
            });
            out.find(
                Finding::new("nested", "hypervisor", Level::Warning, says).advice(
                    "for times without a hypervisor below measure on bare metal; for the path alone: exitpath measure --on lab",
                ),
            );
        }
    }
}

/// The name of the hypervisor below, by the most direct way that is open.
fn hypervisor(root: &Root) -> Result<String, Unknown> {
    let registers = root.bytes_at::<16>("/dev/cpu/0/cpuid", HYPERVISOR_LEAF);
    if let Ok(registers) = registers
        && let Some(name) = signature(&registers[4..])
    {
        return Ok(name);
    }
    if let Ok(kind) = root.text("/sys/hypervisor/type")
        && !kind.is_empty()
    {
        return Ok(kind);
    }
    let vendor = match root.text(&format!("{DMI}/sys_vendor")) {
        Ok(vendor) => vendor,
        // Clocks that only their hypervisor has.
        Err(unknown) => {
            let clocks = root.text(CLOCKS).unwrap_or_default();
            let of = |prefix: &str| {
                clocks
                    .split_whitespace()
                    .any(|clock| clock.starts_with(prefix))
            };
            let by_clock = [("kvm-clock", "KVM"), ("hyperv", "Hyper-V"), ("xen", "Xen")];
            let named = by_clock.iter().find(|(prefix, _)| of(prefix));
            // The reason that a person can do something about goes first.
            let reason = registers
                .err()
                .filter(|why| !why.is_absent())
                .unwrap_or(unknown);
            return named.map(|(_, name)| (*name).to_owned()).ok_or(reason);
        }
    };
    match root.text(&format!("{DMI}/product_name")) {
        Ok(product) if !product.is_empty() => Ok(format!("{vendor} {product}")),
        _ => Ok(vendor),
    }
}

/// The twelve characters in EBX, ECX and EDX.
fn signature(bytes: &[u8]) -> Option<String> {
    let text: String = bytes
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| char::from(*byte))
        .collect();
    let name = match text.as_str() {
        "KVMKVMKVM" => "KVM",
        "Microsoft Hv" => "Hyper-V",
        "VMwareVMware" => "VMware",
        "XenVMMXenVMM" => "Xen",
        "TCGTCGTCGTCG" => "QEMU TCG",
        "bhyve bhyve " => "bhyve",
        other if other.len() >= 4 && other.chars().all(|c| c.is_ascii_graphic() || c == ' ') => {
            other.trim()
        }
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, sandbox, vm_guest};

    #[test]
    fn bare_metal_is_good() {
        for tree in [amd_server(), intel_laptop_on_battery()] {
            let out = tree.topic(&TOPIC);
            assert_eq!(out.get("nested", "hypervisor").level, Level::Good);
            assert_eq!(out.facts["machine.virtual"], json!(false));
        }
    }

    #[test]
    fn the_hypervisor_is_named_from_cpuid_or_from_dmi() {
        assert_eq!(
            sandbox().topic(&TOPIC).facts["machine.hypervisor"],
            json!("KVM")
        );
        let out = vm_guest().topic(&TOPIC);
        assert_eq!(
            out.facts["machine.hypervisor"],
            json!("Amazon EC2 m5.large")
        );
        assert_eq!(out.get("nested", "hypervisor").level, Level::Warning);
    }

    #[test]
    fn a_hypervisor_without_a_name_is_still_one() {
        let tree = vm_guest().without("/sys/class/dmi");
        assert_eq!(tree.topic(&TOPIC).facts["machine.hypervisor"], json!("KVM"));
        let out = tree.without(CLOCKS).topic(&TOPIC);
        assert!(
            out.get("nested", "hypervisor")
                .says
                .contains("unknown name")
        );
        assert!(
            out.unknown_facts()
                .any(|(key, _)| key == "machine.hypervisor")
        );
    }

    #[test]
    fn signatures() {
        assert_eq!(signature(b"Microsoft Hv").as_deref(), Some("Hyper-V"));
        assert_eq!(signature(b"NewNewNewNew").as_deref(), Some("NewNewNewNew"));
        assert_eq!(signature(&[0; 12]), None);
        assert_eq!(signature(&[0xff; 12]), None);
    }

    #[test]
    fn no_cpuinfo() {
        let out = Tree::new().topic(&TOPIC);
        assert_eq!(out.get("nested", "hypervisor").level, Level::Note);
    }
}
