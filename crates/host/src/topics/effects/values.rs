//! Values of parameters, compared as the kernel reads them (`kernel/params.c`, `lib/kstrtox.c`).

use crate::reading::cmdline::Word;

/// A module's parameter that does not have the value it was to get.
pub(super) fn differs(word: &Word, is_kvm: bool, module: &str, said: &str) -> Option<String> {
    let asked = word.value.as_deref().unwrap_or("1");
    let is_plain = |text: &str| {
        text.split(',')
            .all(|part| number(part).is_some() || truth(part).is_some())
    };
    // Modules other than KVM's may show a word in another spelling than they take it in.
    let compares = is_kvm || is_plain(asked) && is_plain(said);
    if !compares {
        return None;
    }
    (!same_value(asked, said))
        .then(|| format!("{word} did not come about: module {module} says '{said}'"))
}

/// Whether a module that was given `asked` may say `said` of it.
fn same_value(asked: &str, said: &str) -> bool {
    // What to make of it is left to the module.
    if asked == said || asked == "auto" {
        return true;
    }
    if asked.contains(',') || said.contains(',') {
        // An array may show elements that were not set.
        let (asked, said) = (asked.split(','), said.split(','));
        return asked.clone().count() <= said.clone().count()
            && asked.zip(said).all(|(asked, said)| same_value(asked, said));
    }
    match (number(asked), number(said)) {
        (Some(asked), Some(said)) => return asked == said,
        // A switch that has further values than on and off, such as kvm.nx_huge_pages.
        (None, _) if asked == "force" => return truth(said) == Some(true),
        _ => {}
    }
    match (truth(asked), truth(said)) {
        (Some(asked), Some(said)) => asked == said,
        _ => false,
    }
}

/// An integer as `kstrtoint` with base 0 reads it.
fn number(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let value = match lower.strip_prefix("0x") {
        Some(hex) => i128::from(u64::from_str_radix(hex, 16).ok()?),
        None if lower.len() > 1 && lower.starts_with('0') => {
            i128::from(u64::from_str_radix(&lower, 8).ok()?)
        }
        None => i128::from(lower.parse::<u64>().ok()?),
    };
    Some(if negative { -value } else { value })
}

/// A switch as `kstrtobool` reads it.
fn truth(text: &str) -> Option<bool> {
    let mut signs = text.chars().map(|sign| sign.to_ascii_lowercase());
    match (signs.next()?, signs.next()) {
        ('y' | 't' | '1', _) | ('o', Some('n')) => Some(true),
        ('n' | 'f' | '0', _) | ('o', Some('f')) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_several_spellings() {
        for (asked, said) in [
            ("1", "Y"),
            ("on", "Y"),
            ("off", "N"),
            ("false", "0"),
            ("0x10", "16"),
            ("010", "8"),
            ("-1", "-1"),
            ("1,0x2", "1,2"),
            ("auto", "Y"),
            ("force", "Y"),
            ("cond", "cond"),
        ] {
            assert!(same_value(asked, said), "{asked} {said}");
        }
        for (asked, said) in [
            ("1", "N"),
            ("2", "1"),
            ("cond", "never"),
            ("1,2", "1"),
            ("", "1"),
        ] {
            assert!(!same_value(asked, said), "{asked} {said}");
        }
    }
}
