//! The control group this process runs in: a CPU quota stops it in the middle of a measurement.
//!
//! Sources: `cpu.max` of cgroup v2 (`Documentation/admin-guide/cgroup-v2.rst`),
//! `cpu.cfs_quota_us` of v1 (`Documentation/scheduler/sched-bwc.rst`).

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

/// Quotas apply at every level; this many are looked at.
const DEPTH_LIMIT: usize = 32;

/// How much CPU time is given in each period.
#[derive(Debug, Clone, PartialEq)]
struct Quota {
    group: String,
    quota_us: u64,
    period_us: u64,
}

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[(
        "cpu-quota",
        "a control group's limit on this process's CPU time",
    )],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    match quotas(machine.root) {
        Err(unknown) => {
            let _ = out.record::<()>("cgroup.cpu_quota", Err(unknown.clone()));
            out.find_unknown("cpu-quota", "cgroup", &unknown);
        }
        Ok(quotas) => {
            let tightest = quotas.iter().min_by(|a, b| a.cpus().total_cmp(&b.cpus()));
            let Some(tightest) = tightest else {
                out.fact("cgroup.cpu_quota", "none");
                let says = "no CPU quota on this process";
                return out.find(Finding::new("cpu-quota", "cgroup", Level::Good, says));
            };
            out.fact(
                "cgroup.cpu_quota",
                json!({"quota_us": tightest.quota_us, "period_us": tightest.period_us, "group": tightest.group}),
            );
            let says = format!(
                "this process may use {:.2} CPUs: after {} µs in {} µs it is stopped until the next period (cgroup {})",
                tightest.cpus(),
                tightest.quota_us,
                tightest.period_us,
                tightest.group
            );
            out.find(
                Finding::new("cpu-quota", "cgroup", Level::Warning, says).advice(
                    "measure outside the container or its limit: sudo systemd-run --scope -p CPUQuota= exitpath measure",
                ),
            );
        }
    }
}

impl Quota {
    fn cpus(&self) -> f64 {
        self.quota_us as f64 / self.period_us.max(1) as f64
    }
}

/// All quotas that apply to this process.
fn quotas(root: &Root) -> Result<Vec<Quota>, Unknown> {
    let membership = root.text("/proc/self/cgroup")?;
    let mut quotas = Vec::new();
    let mut answered = false;
    // `hierarchy:controllers:path`, see cgroups(7).
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Unknown::malformed("/proc/self/cgroup", line));
        };
        let mounts: &[&str] = match controllers {
            "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
            list if list.split(',').any(|name| name == "cpu") => {
                &["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"]
            }
            _ => continue,
        };
        answered |= mounts.iter().any(|mount| root.has_folder(mount));
        for mount in mounts {
            for group in groups(path) {
                if let Some(quota) = quota(root, mount, group)? {
                    quotas.push(quota);
                }
            }
        }
    }
    if answered {
        Ok(quotas)
    } else {
        Err(Unknown::NotHere(
            "no cgroup file system is mounted at /sys/fs/cgroup".to_owned(),
        ))
    }
}

/// The group and all above it, up to the root: `/a/b`, `/a`, and the empty string.
fn groups(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_end_matches('/');
    std::iter::successors(Some(path), |group| Some(&group[..group.rfind('/')?])).take(DEPTH_LIMIT)
}

fn quota(root: &Root, mount: &str, group: &str) -> Result<Option<Quota>, Unknown> {
    let named = |quota_us, period_us| {
        let group = if group.is_empty() { "/" } else { group };
        Quota {
            group: group.to_owned(),
            quota_us,
            period_us,
        }
    };
    let path = format!("{mount}{group}/cpu.max");
    match root.text(&path) {
        Ok(text) => {
            let (quota, period) = text.split_once(' ').unwrap_or((text.as_str(), "100000"));
            if quota == "max" {
                return Ok(None);
            }
            return match (quota.parse(), period.parse()) {
                (Ok(quota_us), Ok(period_us)) => Ok(Some(named(quota_us, period_us))),
                _ => Err(Unknown::malformed(&path, &text)),
            };
        }
        Err(unknown) if unknown.is_absent() => {}
        Err(unknown) => return Err(unknown),
    }
    // No quota is -1.
    match root.number::<i64>(&format!("{mount}{group}/cpu.cfs_quota_us")) {
        Ok(quota_us) => match u64::try_from(quota_us) {
            Ok(quota_us) => {
                let period_us = root.number(&format!("{mount}{group}/cpu.cfs_period_us"))?;
                Ok(Some(named(quota_us, period_us)))
            }
            Err(_) => Ok(None),
        },
        Err(unknown) if unknown.is_absent() => Ok(None),
        Err(unknown) => Err(unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, sandbox, vm_guest};

    #[test]
    fn a_pod_with_half_a_cpu() {
        let finding = vm_guest().topic(&TOPIC).get("cpu-quota", "cgroup").clone();
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.says.contains("0.50 CPUs") && finding.says.contains("/kubepods/pod1"));
        let out = vm_guest()
            .file("/sys/fs/cgroup/kubepods/pod1/cpu.max", "max 100000")
            .topic(&TOPIC);
        assert_eq!(out.get("cpu-quota", "cgroup").level, Level::Good);
    }

    #[test]
    fn a_quota_above_counts_too() {
        let out = vm_guest()
            .file("/sys/fs/cgroup/kubepods/cpu.max", "10000 100000")
            .topic(&TOPIC);
        assert_eq!(out.facts["cgroup.cpu_quota"]["group"], json!("/kubepods"));
    }

    #[test]
    fn version_one() {
        assert_eq!(
            sandbox().topic(&TOPIC).facts["cgroup.cpu_quota"],
            json!("none")
        );
        let out = sandbox()
            .file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000")
            .topic(&TOPIC);
        assert!(out.get("cpu-quota", "cgroup").says.contains("1.50 CPUs"));
    }

    #[test]
    fn nothing_mounted_and_nonsense() {
        for text in ["0::/", "nonsense", ""] {
            let out = Tree::new().file("/proc/self/cgroup", text).topic(&TOPIC);
            assert_eq!(out.get("cpu-quota", "cgroup").level, Level::Note, "{text}");
        }
        let out = vm_guest()
            .file("/sys/fs/cgroup/kubepods/cpu.max", "much")
            .topic(&TOPIC);
        assert!(out.get("cpu-quota", "cgroup").says.contains("much"));
    }

    #[test]
    fn groups_up_to_the_root() {
        assert_eq!(groups("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", ""]);
        assert_eq!(groups("/").collect::<Vec<_>>(), [""]);
        assert_eq!(groups("").collect::<Vec<_>>(), [""]);
    }
}
