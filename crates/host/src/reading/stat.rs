//! `/proc/stat` (`Documentation/filesystems/proc.rst`, section 1.7).

use std::collections::BTreeMap;

use crate::reading::root::{Root, Unknown};

const STAT: &str = "/proc/stat";

/// Where steal time is among the figures of a `cpu` line: user, nice, system, idle, iowait, irq,
/// softirq, steal, guest, guest_nice.
const STEAL: usize = 7;

/// What is read of `/proc/stat`. Times are in ticks of `USER_HZ`, 1/100 s on every architecture
/// exitpath runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Of all CPUs together.
    all: Vec<u64>,
    cpus: BTreeMap<u32, Vec<u64>>,
    pub(crate) interrupts: Option<u64>,
    pub(crate) context_switches: Option<u64>,
    pub(crate) forks: Option<u64>,
    pub(crate) running: Option<u64>,
}

impl Stat {
    pub(crate) fn read(root: &Root) -> Result<Self, Unknown> {
        let text = root.text(STAT)?;
        let mut stat = Stat::default();
        for line in text.lines() {
            let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            // Of the `intr` line, thousands of figures long, only the sum.
            let first = || {
                rest.split_whitespace()
                    .next()
                    .and_then(|figure| figure.parse().ok())
            };
            match name {
                "intr" => stat.interrupts = first(),
                "ctxt" => stat.context_switches = first(),
                "processes" => stat.forks = first(),
                "procs_running" => stat.running = first(),
                "cpu" => stat.all = figures(rest),
                _ => {
                    if let Some(Ok(cpu)) = name.strip_prefix("cpu").map(str::parse) {
                        stat.cpus.insert(cpu, figures(rest));
                    }
                }
            }
        }
        if stat == Stat::default() {
            return Err(Unknown::malformed(STAT, &text));
        }
        Ok(stat)
    }

    /// Steal ticks of all CPUs.
    pub(crate) fn steal(&self) -> Result<u64, Unknown> {
        steal_of(&self.all, "cpu")
    }

    /// Steal ticks of one CPU.
    pub(crate) fn steal_of_cpu(&self, cpu: u32) -> Result<u64, Unknown> {
        let line = format!("cpu{cpu}");
        steal_of(self.cpus.get(&cpu).map_or(&[], Vec::as_slice), &line)
    }

    /// All ticks of all CPUs since boot, idle ones included. The ticks of guests are in user and
    /// nice already.
    pub(crate) fn total(&self) -> u64 {
        self.all
            .iter()
            .take(STEAL + 1)
            .fold(0, |sum, figure| sum.saturating_add(*figure))
    }
}

/// The figures up to the first that is none.
fn figures(rest: &str) -> Vec<u64> {
    rest.split_whitespace()
        .map_while(|figure| figure.parse().ok())
        .collect()
}

fn steal_of(figures: &[u64], line: &str) -> Result<u64, Unknown> {
    figures
        .get(STEAL)
        .copied()
        .ok_or_else(|| missing(&format!("steal time in its line {line}")))
}

/// A line or figure that is not in `/proc/stat`.
pub(crate) fn missing(what: &str) -> Unknown {
    Unknown::NotHere(format!("{STAT} has no {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, intel_laptop_on_battery, sandbox, vm_guest};

    #[test]
    fn figures_of_a_laptop() {
        let stat = Stat::read(&intel_laptop_on_battery().root()).unwrap();
        assert_eq!(stat.interrupts, Some(123_456));
        assert_eq!(stat.context_switches, Some(654_321));
        assert_eq!(stat.forks, Some(4242));
        assert_eq!(stat.steal(), Ok(0));
        assert_eq!(stat.steal_of_cpu(1), Ok(0));
        assert!(stat.steal_of_cpu(7).is_err());
        assert_eq!(stat.total(), 4000 + 10 + 1000 + 90000 + 100 + 50);
    }

    #[test]
    fn steal_of_a_guest() {
        let stat = Stat::read(&vm_guest().root()).unwrap();
        assert_eq!((stat.steal(), stat.steal_of_cpu(0)), (Ok(1000), Ok(1000)));
    }

    #[test]
    fn old_short_long_and_broken_lines() {
        assert_eq!(Stat::read(&sandbox().root()).unwrap().steal(), Ok(521));
        let read = |text: &str| Stat::read(&Tree::new().file(STAT, text).root());
        assert!(read("").is_err());
        assert!(read("cpu").is_err());
        let stat = read("cpu 1 2 x 4 5 6 7 8\ncpux 1\nintr\nctxt -5\n").unwrap();
        assert!(stat.steal().is_err());
        assert_eq!((stat.interrupts, stat.context_switches), (None, None));
        assert_eq!(
            read(&format!("cpu {0} {0} {0}", u64::MAX)).unwrap().total(),
            u64::MAX
        );
    }
}
