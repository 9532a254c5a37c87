//! The small forms that many files under `/proc` and `/sys` share.

/// A switch as module parameters and sysctls write it.
pub(crate) fn switch(text: &str) -> Option<bool> {
    match text.trim() {
        "Y" | "y" | "1" => Some(true),
        "N" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// How many CPUs a list like `0-3,8` names. `None` if it is no list.
pub(crate) fn cpu_list_len(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(0);
    }
    text.split(',').try_fold(0u64, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        let len = u64::from(last.checked_sub(first)?) + 1;
        sum.checked_add(len)
    })
}

/// The choice in brackets of a file like `always [madvise] never`.
pub(crate) fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    let (choice, _) = rest.split_once(']')?;
    Some(choice)
}

/// `some` as English: `a, b and c`.
pub(crate) fn and_list<S: AsRef<str>>(some: &[S]) -> String {
    match some {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

/// `1 CPU`, `2 CPUs`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list_len(""), Some(0));
        assert_eq!(cpu_list_len("\n"), Some(0));
        assert_eq!(cpu_list_len("0"), Some(1));
        assert_eq!(cpu_list_len("0-3,8,10-11\n"), Some(7));
        assert_eq!(cpu_list_len("0-4294967295"), Some(1 << 32));
        for bad in ["3-0", "a", "1,", "-", "1-2-3", "(null)"] {
            assert_eq!(cpu_list_len(bad), None, "{bad}");
        }
    }

    #[test]
    fn choices() {
        assert_eq!(chosen("always [madvise] never"), Some("madvise"));
        assert_eq!(chosen("none"), None);
        assert_eq!(chosen("[none"), None);
        assert_eq!(chosen("]x["), None);
    }

    #[test]
    fn lists_and_counts() {
        assert_eq!(and_list::<&str>(&[]), "");
        assert_eq!(and_list(&["a"]), "a");
        assert_eq!(and_list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(count(1, "CPU"), "1 CPU");
        assert_eq!(count(0, "CPU"), "0 CPUs");
    }

    #[test]
    fn switches() {
        assert_eq!(switch("Y\n"), Some(true));
        assert_eq!(switch("0"), Some(false));
        assert_eq!(switch("auto"), None);
    }
}
