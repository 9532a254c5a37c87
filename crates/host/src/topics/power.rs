//! Mains or battery. The talk exitpath comes from closes with it: plugging in the mains cable of a
//! laptop changed exit times significantly, at the same clock rate.
//!
//! Sources: `/sys/class/power_supply` (`Documentation/ABI/testing/sysfs-class-power`);
//! `/sys/firmware/acpi/platform_profile` (`Documentation/ABI/testing/sysfs-platform_profile`).

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

const FOLDER: &str = "/sys/class/power_supply";

/// One supply of the whole machine; batteries of mice and the like are left out.
struct Supply {
    name: String,
    /// `Mains`, `USB`, `Battery`, `UPS`, …
    kind: Result<String, Unknown>,
    online: bool,
    discharging: bool,
    percent: Option<u32>,
}

impl Supply {
    fn read(root: &Root, name: String) -> Option<Self> {
        let read = |file: &str| root.text(&format!("{FOLDER}/{name}/{file}"));
        if read("scope").is_ok_and(|scope| scope == "Device") {
            return None;
        }
        Some(Supply {
            kind: read("type"),
            online: read("online").is_ok_and(|online| online != "0"),
            discharging: read("status").is_ok_and(|status| status == "Discharging"),
            percent: read("capacity")
                .ok()
                .and_then(|percent| percent.parse().ok()),
            name,
        })
    }

    fn is_battery(&self) -> bool {
        self.kind.as_deref() == Ok("Battery")
    }

    /// A cable with power in it.
    fn feeds(&self) -> bool {
        let cable = |kind: &String| {
            ["Mains", "UPS", "Wireless"].contains(&kind.as_str()) || kind.starts_with("USB")
        };
        self.online && self.kind.as_ref().is_ok_and(cable)
    }
}

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        ("power-supply", "mains or battery"),
        ("platform-profile", "the firmware's platform profile"),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    supply(machine, out);
    profile(machine, out);
}

fn supply(machine: &Machine<'_>, out: &mut Examination) {
    let finding = |level, says: &str| Finding::new("power-supply", "power", level, says);
    if machine.seems_virtual() {
        let reason = "a virtual machine does not see what feeds the machine below it";
        let _ = out.record::<()>("power.source", Err(Unknown::NotHere(reason.to_owned())));
        return out.find(finding(Level::Note, &format!("unknown: {reason}")));
    }
    let names = match machine.root.list(FOLDER) {
        Ok(names) => names,
        Err(unknown) => {
            let _ = out.record::<()>("power.source", Err(unknown.clone()));
            return out.find_unknown("power-supply", "power", &unknown);
        }
    };
    let supplies: Vec<Supply> = names
        .into_iter()
        .filter_map(|name| Supply::read(machine.root, name))
        .collect();
    let names: Vec<&str> = supplies.iter().map(|supply| supply.name.as_str()).collect();
    out.fact("power.supplies", json!(names));
    if let Some(Err(unknown)) = supplies
        .iter()
        .map(|supply| &supply.kind)
        .find(|k| k.is_err())
    {
        let _ = out.record::<()>("power.supply_type", Err(unknown.clone()));
    }

    let battery = supplies.iter().find(|supply| supply.is_battery());
    let fed = supplies.iter().any(Supply::feeds);
    let drained = supplies
        .iter()
        .any(|supply| supply.is_battery() && supply.discharging);
    if let Some(percent) = battery.and_then(|battery| battery.percent) {
        out.fact("power.battery_percent", percent);
    }
    let (source, finding) = match (battery.is_some(), fed, drained) {
        (false, _, _) => (
            "mains",
            finding(Level::Good, "no battery: the machine runs on mains"),
        ),
        (true, true, false) => ("mains", finding(Level::Good, "on mains")),
        (true, true, true) => (
            "mains-too-weak",
            finding(
                Level::Warning,
                "a supply is plugged in, but the battery is being drained all the same",
            )
            .advice("plug in a stronger supply"),
        ),
        (true, false, true) => (
            "battery",
            finding(
                Level::Warning,
                "on battery: exits take longer than on mains, even at the same clock rate",
            )
            .advice("plug in the mains cable, and measure anew what was measured without it"),
        ),
        (true, false, false) => (
            "unclear",
            finding(
                Level::Note,
                "there is a battery, not being drained, and no supply that says it is plugged in",
            )
            .advice("see that the mains cable is plugged in"),
        ),
    };
    out.fact("power.source", source);
    out.find(finding);
}

fn profile(machine: &Machine<'_>, out: &mut Examination) {
    let profile = machine.root.text("/sys/firmware/acpi/platform_profile");
    let Ok(profile) = out.record("power.platform_profile", profile) else {
        return;
    };
    let level = match profile.as_str() {
        "performance" => Level::Good,
        "low-power" | "cool" | "quiet" => Level::Warning,
        _ => Level::Note,
    };
    let mut finding = Finding::new(
        "platform-profile",
        "power",
        level,
        format!("the firmware's platform profile is {profile}"),
    );
    if level != Level::Good {
        finding = finding.advice("echo performance | sudo tee /sys/firmware/acpi/platform_profile");
    }
    out.find(finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, vm_guest};

    #[test]
    fn a_laptop_unplugged_plugged_and_badly_plugged() {
        let tree = intel_laptop_on_battery();
        let out = tree.topic(&TOPIC);
        let finding = out.get("power-supply", "power");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.advice.as_ref().unwrap().contains("mains cable"));
        assert_eq!(out.facts["power.battery_percent"], json!(63));
        assert_eq!(out.facts["power.supplies"], json!(["AC", "BAT0"]));
        assert_eq!(out.get("platform-profile", "power").level, Level::Warning);

        let tree = tree.file(&format!("{FOLDER}/AC/online"), "1\n");
        assert_eq!(
            tree.topic(&TOPIC).facts["power.source"],
            json!("mains-too-weak")
        );
        let tree = tree.file(&format!("{FOLDER}/BAT0/status"), "Charging\n");
        assert_eq!(
            tree.topic(&TOPIC).get("power-supply", "power").level,
            Level::Good
        );
        let tree = tree.file(&format!("{FOLDER}/AC/type"), "USB_PD\n");
        assert_eq!(tree.topic(&TOPIC).facts["power.source"], json!("mains"));
        let tree = tree.without(&format!("{FOLDER}/AC"));
        assert_eq!(tree.topic(&TOPIC).facts["power.source"], json!("unclear"));
    }

    #[test]
    fn servers_run_on_mains_and_guests_do_not_know() {
        let out = amd_server().topic(&TOPIC);
        assert_eq!(out.get("power-supply", "power").level, Level::Good);
        let out = vm_guest().topic(&TOPIC);
        assert_eq!(out.get("power-supply", "power").level, Level::Note);
        assert!(out.unknown_facts().any(|(key, _)| key == "power.source"));
    }

    #[test]
    fn absent_and_nonsense() {
        let out = Tree::new().topic(&TOPIC);
        assert!(out.get("power-supply", "power").says.starts_with("unknown"));
        let out = Tree::new()
            .file(&format!("{FOLDER}/BAT9/capacity"), "-3 %")
            .topic(&TOPIC);
        assert!(
            out.unknown_facts()
                .any(|(key, _)| key == "power.supply_type")
        );
    }
}
