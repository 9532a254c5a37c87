//! `/dev/kvm`: whether it is there and may be opened, and what to do where not.

use crate::finding::{Examination, Finding, Level, unknown_value};
use crate::machine::Machine;
use crate::reading::root::{Root, Unknown};
use crate::topics::arch::x86_64::kvm::why_absent;
use crate::topics::kvm::permission::to_open_kvm;

pub(super) fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let finding = |level, says: &str| Finding::new("kvm-device", "/dev/kvm", level, says);
    match machine.root.openable("/dev/kvm") {
        Ok(()) => {
            out.fact("kvm.device", "usable");
            out.find(finding(Level::Good, "can be opened"));
        }
        Err(Unknown::Absent { .. }) => {
            out.fact("kvm.device", "absent");
            out.find(finding(Level::Bad, "is absent").advice(why_absent(machine)));
        }
        Err(Unknown::NoPermission { .. }) => {
            out.fact("kvm.device", "no-permission");
            out.find(
                finding(Level::Bad, "is there, but this user may not open it")
                    .advice(to_open_kvm(machine.root)),
            );
        }
        Err(unknown) => {
            out.fact("kvm.device", unknown_value(&unknown));
            out.find(
                finding(Level::Bad, &format!("cannot be opened: {unknown}")).advice(
                    "see that it is a character device with a module behind it (ls -l /dev/kvm; lsmod | grep kvm); containers are given it with --device /dev/kvm",
                ),
            );
        }
    }
}

/// One line on what to do where there is no `/dev/kvm`: by what this machine's CPU has.
pub fn to_have_kvm(root: &Root) -> String {
    why_absent(&Machine::read(root, None)).to_owned()
}
