//! Steal time: how long this machine's CPUs wanted to run and the hypervisor below let others run.
//!
//! Source: `/proc/stat` (`Documentation/filesystems/proc.rst`).

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::root::{Root, Unknown};
use crate::reading::stat::Stat;
use crate::topic::Topic;

/// From this share of all time on, steal is a warning. At 1 % a run of a second contains ten
/// milliseconds that somebody else used.
const WARNING_SHARE: f64 = 0.01;

/// Ticks (1/100 s) that were stolen from all CPUs since boot. Sample it twice to see what a run
/// lost.
pub fn steal_ticks(root: &Root) -> Result<u64, Unknown> {
    Stat::read(root)?.steal()
}

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[("steal", "time stolen by the hypervisor below")],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let stat = Stat::read(machine.root);
    let steal = stat.as_ref().map_err(Clone::clone).and_then(Stat::steal);
    let steal = match out.record("steal.ticks", steal) {
        Ok(steal) => steal,
        Err(unknown) => return out.find_unknown("steal", "steal", &unknown),
    };
    let total = stat.map(|stat| stat.total()).unwrap_or(0);
    let share = steal as f64 / total.max(1) as f64;
    out.fact("steal.share_since_boot", share);
    let finding = |level, says: String| Finding::new("steal", "steal", level, says);
    let percent = share * 100.0;
    out.find(match steal {
        0 if machine.seems_virtual() => finding(
            Level::Note,
            "no steal time since boot; not every hypervisor tells it".to_owned(),
        ),
        0 => finding(Level::Good, "no steal time since boot".to_owned()),
        _ => {
            let level = if share >= WARNING_SHARE { Level::Warning } else { Level::Note };
            finding(
                level,
                format!("{percent:.2} % of all CPU time since boot ({steal} ticks of 10 ms) was stolen by the hypervisor below"),
            )
            .advice("set aside the runs in which steal grows; a machine with CPUs of its own has none")
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, sandbox, vm_guest};

    #[test]
    fn shares() {
        let finding = |tree: Tree| tree.topic(&TOPIC).get("steal", "steal").clone();
        assert_eq!(finding(amd_server()).level, Level::Good);
        let guest = finding(vm_guest());
        assert_eq!(guest.level, Level::Warning);
        assert!(guest.says.starts_with("10.00 %"), "{}", guest.says);
        assert_eq!(finding(sandbox()).level, Level::Note);
        assert_eq!(
            finding(vm_guest().file("/proc/stat", "cpu 1 0 1 1 0 0 0 0")).level,
            Level::Note
        );
        assert!(finding(Tree::new()).says.starts_with("unknown"));
    }

    #[test]
    fn ticks() {
        assert_eq!(steal_ticks(&vm_guest().root()), Ok(1000));
        assert!(steal_ticks(&Tree::new().root()).is_err());
    }
}
