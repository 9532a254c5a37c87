//! Which of several names of one address is shown.

use std::cmp::Ordering;

/// Beginnings of names that a compiler or build adds in front of the function they belong to.
const ADDED: [&str; 3] = ["__pfx_", "__cfi_", "__UNIQUE_ID_"];

/// Orders two names of one address, the better one first: a function's own name before those
/// that were made from it, global (exported) before local, then the one with fewer leading
/// underscores (`ioctl` before `__ioctl` and `__GI_ioctl`, `memcpy` before `__memcpy`), the
/// shorter one (`__x64_sys_getpid` before `__ia32_sys_getpid`), and the alphabet.
///
/// A weak name counts as a global one: the kernel's `memcpy` and libc's `ioctl` are weak.
pub(crate) fn compare(a: (&str, bool), b: (&str, bool)) -> Ordering {
    let key = |(name, global): (&str, bool)| {
        let added = ADDED.iter().any(|start| name.starts_with(start));
        // `f.cold`, `f.part.0`: a piece of f. Rust's names have dots only within angle brackets
        // and C++'s none.
        let piece = name.contains('.') && !name.contains(['<', ':']);
        let underscores = name.len() - name.trim_start_matches('_').len();
        (added, piece, !global, underscores, name.len())
    };
    key(a).cmp(&key(b)).then_with(|| a.0.cmp(b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(names: &[(&'a str, bool)]) -> &'a str {
        let mut all = names.to_vec();
        all.sort_by(|a, b| compare(*a, *b));
        let first = all[0].0;
        all.reverse();
        all.sort_by(|a, b| compare(*a, *b));
        assert_eq!(all[0].0, first);
        first
    }

    #[test]
    fn the_public_name_wins() {
        let (global, local) = (true, false);
        assert_eq!(
            best(&[
                ("__ioctl", global),
                ("ioctl", global),
                ("__GI_ioctl", local)
            ]),
            "ioctl"
        );
        assert_eq!(best(&[("__memcpy", global), ("memcpy", global)]), "memcpy");
        assert_eq!(best(&[("aa", local), ("zzz", global)]), "zzz");
        assert_eq!(
            best(&[("f.cold", global), ("longer_name", local)]),
            "longer_name"
        );
        assert_eq!(
            best(&[
                ("__do_sys_getppid", local),
                ("__ia32_sys_getppid", global),
                ("__x64_sys_getppid", global)
            ]),
            "__x64_sys_getppid"
        );
        assert_eq!(
            best(&[("__UNIQUE_ID_nop381", global), ("em_imul", local)]),
            "em_imul"
        );
        assert_eq!(best(&[("__pfx_mce_start", global), ("zzz", local)]), "zzz");
    }
}
