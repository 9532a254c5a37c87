//! Which CPUs to bind vCPUs to.

use crate::reading::root::Root;

/// Orders the allowed CPUs for the threads of vCPUs: isolated ones first, CPU 0 (where most
/// interrupts and housekeeping go) last, and the second on another core than the first. Also
/// gives whether the first two are threads of one core all the same, for want of another.
///
/// Isolated CPUs are those of `/sys/devices/system/cpu/isolated`; threads of one core those of
/// `topology/thread_siblings_list`. What cannot be read counts as not isolated and not shared.
pub fn choose_cpus(root: &Root, allowed: &[usize]) -> (Vec<usize>, bool) {
    let list = |path: &str| {
        root.text(path)
            .map(|text| cpu_list(&text))
            .unwrap_or_default()
    };
    let isolated = list("/sys/devices/system/cpu/isolated");
    let mut cpus = allowed.to_vec();
    cpus.sort_by_key(|cpu| (!isolated.contains(cpu), *cpu == 0, *cpu));
    let Some(&first) = cpus.first() else {
        return (cpus, false);
    };
    let siblings = list(&format!(
        "/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list"
    ));
    let other = cpus.iter().skip(1).position(|cpu| !siblings.contains(cpu));
    if let Some(other) = other {
        let cpu = cpus.remove(1 + other);
        cpus.insert(1, cpu);
    }
    let shared = other.is_none() && cpus.len() > 1;
    (cpus, shared)
}

/// The kernel's notation for sets of CPUs, `0-3,8`; what is malformed is left out.
fn cpu_list(text: &str) -> Vec<usize> {
    text.trim()
        .split(',')
        .filter_map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
        })
        .flat_map(|range: std::ops::RangeInclusive<usize>| range.take(8192))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = dir.path().join("sys/devices/system/cpu").join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        let root = Root::at(dir.path());
        (dir, root)
    }

    #[test]
    fn two_cores_are_better_than_two_threads() {
        let (_dir, root) = machine(&[
            ("isolated", "\n"),
            ("cpu1/topology/thread_siblings_list", "0-1\n"),
            ("cpu2/topology/thread_siblings_list", "2-3\n"),
        ]);
        assert_eq!(choose_cpus(&root, &[0, 1, 2, 3]), (vec![1, 2, 3, 0], false));
        assert_eq!(choose_cpus(&root, &[0, 1]), (vec![1, 0], true));
    }

    #[test]
    fn isolated_cpus_come_first_and_nothing_readable_is_no_error() {
        let (_dir, root) = machine(&[
            ("isolated", "4-5\n"),
            ("cpu4/topology/thread_siblings_list", "4,12\n"),
        ]);
        assert_eq!(choose_cpus(&root, &[0, 1, 4, 5]).0, [4, 5, 1, 0]);
        let (_dir, root) = machine(&[("isolated", "x-y,,9-")]);
        assert_eq!(choose_cpus(&root, &[0, 1]), (vec![1, 0], false));
        assert_eq!(choose_cpus(&root, &[]), (vec![], false));
    }
}
