//! How this user may get to open a device, by who owns it: advice that can work on this machine.

use crate::reading::root::{Owner, Root};

/// Bits of a mode that let a group, or an owner, read and write.
const GROUP: u32 = 0o060;
const USER: u32 = 0o600;

/// Who asks, as `/proc/self/status` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asking {
    uid: u32,
    /// Effective and supplementary ones.
    groups: Vec<u32>,
    /// Whether ids are the machine's own, not those of a user namespace.
    own_ids: bool,
}

/// One line on what to do where `/dev/kvm` is there and may not be opened.
pub fn to_open_kvm(root: &Root) -> String {
    to_open(root, "/dev/kvm")
}

fn to_open(root: &Root, path: &str) -> String {
    let groups = root.text("/etc/group").unwrap_or_default();
    match (root.owner(path), asking(root)) {
        (Ok(owner), Some(asking)) => advice(path, owner, &groups, &asking),
        _ => {
            format!("see who may (ls -l {path}), and ask the machine's administrator to be let in")
        }
    }
}

fn asking(root: &Root) -> Option<Asking> {
    let status = root.text("/proc/self/status").ok()?;
    let ids = |field: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().map(|id| id.parse().ok()).collect()
    };
    let [_, uid, ..] = ids("Uid:")?[..] else {
        return None;
    };
    let [_, gid, ..] = ids("Gid:")?[..] else {
        return None;
    };
    let mut groups = ids("Groups:").unwrap_or_default();
    groups.push(gid);
    // A kernel without user namespaces has no such file.
    let map = root.text("/proc/self/uid_map");
    let is_whole = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    Some(Asking {
        uid,
        groups,
        own_ids: map.map_or(true, is_whole),
    })
}

/// `groups` is the text of `/etc/group`.
fn advice(path: &str, owner: Owner, groups: &str, asking: &Asking) -> String {
    let Owner { uid, gid, mode } = owner;
    let lets_group = mode & GROUP == GROUP;
    let name = group_name(groups, gid);
    if !asking.own_ids {
        return format!(
            "this process has a user namespace of its own, in which it may not: let the device in when \
             the container is started, by a user who may open it (--device {path}, and with podman \
             --group-add keep-groups)"
        );
    }
    // Its bits would let this user in: something else does not.
    let by_bits = asking.uid == 0
        || (asking.uid == uid && mode & USER == USER)
        || (asking.uid != uid && lets_group && asking.groups.contains(&gid));
    if by_bits {
        return format!(
            "its mode lets this user in, and something else does not: in a container, start it with \
             --device {path}; else see the security module's log (dmesg)"
        );
    }
    match name {
        // Group root is no group to join.
        Some(name) if lets_group && gid != 0 && asking.uid != uid => {
            let command = format!("sudo usermod -aG {name} $USER");
            format!(
                "it belongs to group {name}: {command}, then log in again (if that was done: log in again)"
            )
        }
        None if lets_group && gid != 0 && asking.uid != uid => format!(
            "it belongs to group {gid}, which has no name here: in a container, start it with --group-add \
             {gid}; else sudo groupadd -g {gid} kvm && sudo usermod -aG kvm $USER, then log in again"
        ),
        _ => {
            let group = name.map_or_else(|| gid.to_string(), str::to_owned);
            format!(
                "only its owner may (user {uid}, group {group}, mode {:o}): sudo chown $USER {path} && \
                 sudo chmod u+rw {path}, which holds until the next boot",
                mode & 0o777
            )
        }
    }
}

fn group_name(groups: &str, gid: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(gid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    const GROUPS: &str = "root:x:0:\nkvm:x:104:qemu\n\n:x:5:\nnonsense\nusers:x:100:\n";

    fn asks(uid: u32, groups: &[u32]) -> Asking {
        Asking {
            uid,
            groups: groups.to_vec(),
            own_ids: true,
        }
    }

    fn of(uid: u32, gid: u32, mode: u32, asking: &Asking) -> String {
        advice("/dev/kvm", Owner { uid, gid, mode }, GROUPS, asking)
    }

    #[test]
    fn a_group_is_joined_only_where_it_owns_the_device_and_may_open_it() {
        let user = asks(1000, &[1000]);
        let said = of(0, 104, 0o20660, &user);
        assert!(said.contains("usermod -aG kvm $USER"), "{said}");
        let said = of(0, 100, 0o20660, &user);
        assert!(said.contains("usermod -aG users $USER"), "{said}");
        // The owner and his group alone, no group but root's, a group that may not.
        for (gid, mode) in [(0, 0o20600), (0, 0o20660), (104, 0o20600), (104, 0o20640)] {
            let said = of(0, gid, mode, &user);
            assert!(!said.contains("usermod"), "{gid} {mode:o}: {said}");
            assert!(
                said.contains("chown $USER /dev/kvm"),
                "{gid} {mode:o}: {said}"
            );
        }
        let said = of(0, 993, 0o20660, &user);
        assert!(said.contains("--group-add 993"), "{said}");
    }

    #[test]
    fn where_the_mode_would_let_the_user_in_it_is_something_else() {
        for said in [
            of(0, 0, 0o20600, &asks(0, &[0])),
            of(0, 104, 0o20660, &asks(1000, &[1000, 104])),
            of(1000, 104, 0o20600, &asks(1000, &[1000])),
        ] {
            assert!(
                said.contains("--device /dev/kvm") && !said.contains("usermod"),
                "{said}"
            );
        }
        let inside = Asking {
            own_ids: false,
            ..asks(0, &[0])
        };
        let said = of(65534, 65534, 0o20660, &inside);
        assert!(said.contains("user namespace"), "{said}");
        assert!(
            !said.contains("usermod") && !said.contains("sudo"),
            "{said}"
        );
    }

    #[test]
    fn who_asks_is_read_from_the_machine() {
        let status =
            "Name:\tx\nUid:\t1000\t1001\t1000\t1000\nGid:\t100\t101\t100\t100\nGroups:\t4 27 \n";
        let tree = Tree::new()
            .file("/proc/self/status", status)
            .file("/proc/self/uid_map", "         0          0 4294967295\n");
        let expected = asks(1001, &[4, 27, 101]);
        assert_eq!(asking(&tree.root()), Some(expected));
        assert_eq!(
            asking(&Tree::new().file("/proc/self/status", "Uid:\tx").root()),
            None
        );
        let said = to_open_kvm(&Tree::new().root());
        assert!(said.contains("ls -l /dev/kvm"), "{said}");
    }
}
