//! Debian's version numbers and kernel releases: their order, and what a user means by one.

use std::cmp::Ordering;
use std::fmt;

/// Which of Debian's configurations for amd64 a kernel was built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavour {
    /// The one a machine gets: `6.1.0-56-amd64`.
    Plain,
    /// Few drivers, for virtual machines: `6.1.0-56-cloud-amd64`.
    Cloud,
    /// `PREEMPT_RT`: `6.1.0-56-rt-amd64`.
    Rt,
}

impl Flavour {
    const ALL: [Flavour; 3] = [Flavour::Cloud, Flavour::Rt, Flavour::Plain];

    fn ending(self) -> &'static str {
        match self {
            Flavour::Plain => "-amd64",
            Flavour::Cloud => "-cloud-amd64",
            Flavour::Rt => "-rt-amd64",
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Flavour::Plain => "plain",
            Flavour::Cloud => "cloud",
            Flavour::Rt => "rt",
        })
    }
}

/// The release and flavour of an image package, by its name. Nothing for packages of
/// debug symbols, unsigned images, and those that only depend on the newest image.
pub(crate) fn image_package(name: &str) -> Option<(&str, Flavour)> {
    let release = name.strip_prefix("linux-image-")?;
    let (base, flavour) = split_flavour(release)?;
    let numbered = base.starts_with(|c: char| c.is_ascii_digit());
    // linux-image-6.12-amd64 is such a dependency; a release candidate has no third number.
    let complete = base.matches('.').count() >= 2 || base.contains("rc");
    (numbered && complete).then_some((release, flavour))
}

fn split_flavour(release: &str) -> Option<(&str, Flavour)> {
    Flavour::ALL
        .into_iter()
        .find_map(|f| Some((release.strip_suffix(f.ending())?, f)))
}

/// What a user means by a kernel's name: a whole release, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    start: String,
    flavour: Option<Flavour>,
}

impl Spec {
    /// Reads `6.1`, `6.1.0-56`, `6.1.0-56-amd64`, `6.12-rt` or a package's name.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.strip_prefix("linux-image-").unwrap_or(text);
        let long = split_flavour(text);
        let short = || {
            let short = [("-cloud", Flavour::Cloud), ("-rt", Flavour::Rt)];
            short
                .into_iter()
                .find_map(|(end, f)| Some((text.strip_suffix(end)?, f)))
        };
        match long.or_else(short) {
            Some((start, flavour)) => Self {
                start: start.into(),
                flavour: Some(flavour),
            },
            None => Self {
                start: text.into(),
                flavour: None,
            },
        }
    }

    /// Whether a release is meant. A number is meant whole: 6.1 is no beginning of 6.12.
    pub(crate) fn matches(&self, release: &str) -> bool {
        let (base, flavour) = split_flavour(release).unwrap_or((release, Flavour::Plain));
        let rest = base
            .strip_prefix(&self.start)
            .filter(|_| !self.start.is_empty());
        let whole = rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
        whole && self.flavour.is_none_or(|wanted| wanted == flavour)
    }

    /// The known releases nearest to this one by their numbers: of the same series (6.1), else the
    /// nearest of each series; of the flavour that is meant before others. `releases` are in the order
    /// of preference, which decides between those that are as near.
    pub(crate) fn nearest(&self, releases: &[&str]) -> Vec<String> {
        const AT_MOST: usize = 4;
        let mine = numbers(&self.start);
        let wanted = self.flavour.unwrap_or(Flavour::Plain);
        let distance = |release: &&str| {
            let (base, flavour) = split_flavour(release).unwrap_or((release, Flavour::Plain));
            (flavour != wanted, apart(&mine, &numbers(base)))
        };
        let series = |release: &str| numbers(release).into_iter().take(2).collect::<Vec<_>>();
        let in_series = |release: &&str| mine.len() > 1 && series(release) == mine[..2];
        let mut near: Vec<&str> = releases.iter().copied().filter(in_series).collect();
        let of_series = !near.is_empty();
        if !of_series {
            near = releases.to_vec();
        }
        // Stable: of those that are as near, the preferred one stays first.
        near.sort_by_cached_key(distance);
        if !of_series {
            let mut seen = Vec::new();
            near.retain(|release| {
                let new = !seen.contains(&series(release));
                seen.push(series(release));
                new
            });
        }
        near.into_iter().take(AT_MOST).map(str::to_owned).collect()
    }
}

/// The numbers that a release begins with: 6, 12, 43 of `6.12.43+deb12-amd64`, 6, 1, 0, 56 of
/// `6.1.0-56-amd64`.
fn numbers(release: &str) -> Vec<u64> {
    let words = release.split(['.', '-']);
    let number = |word: &str| {
        let end = word.find(|c: char| !c.is_ascii_digit());
        word[..end.unwrap_or(word.len())].parse().ok()
    };
    words.map_while(number).collect()
}

/// How far one is from another, to be compared number by number: by how much the first number that
/// differs does, and then how far away from it the further ones lead.
fn apart(from: &[u64], to: &[u64]) -> Vec<u64> {
    let mut side = Ordering::Equal;
    let pairs = from.iter().enumerate().map(|(at, from)| {
        let to = to.get(at).copied().unwrap_or(0);
        match side {
            Ordering::Equal => {
                side = to.cmp(from);
                to.abs_diff(*from)
            }
            Ordering::Greater => to,
            Ordering::Less => u64::MAX - to,
        }
    });
    pairs.collect()
}

/// Compares two versions as Debian does: runs of digits as numbers, letters before other
/// signs, and `~` before everything, even the end. Source: Debian Policy, 5.6.12.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, a) = split_epoch(a);
    let (epoch_b, b) = split_epoch(b);
    let (upstream_a, revision_a) = a.rsplit_once('-').unwrap_or((a, ""));
    let (upstream_b, revision_b) = b.rsplit_once('-').unwrap_or((b, ""));
    compare_numbers(epoch_a, epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

fn split_epoch(version: &str) -> (&str, &str) {
    version.split_once(':').unwrap_or(("", version))
}

fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = split_where(a, |c| c.is_ascii_digit());
        let (text_b, rest_b) = split_where(b, |c| c.is_ascii_digit());
        let (number_a, rest_a) = split_where(rest_a, |c| !c.is_ascii_digit());
        let (number_b, rest_b) = split_where(rest_b, |c| !c.is_ascii_digit());
        let order = compare_text(text_a, text_b).then_with(|| compare_numbers(number_a, number_b));
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

fn split_where(text: &str, is_start: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(is_start).unwrap_or(text.len()))
}

fn compare_text(a: &str, b: &str) -> Ordering {
    /// The end counts 0, between `~` and letters.
    fn weight(sign: Option<char>) -> u32 {
        match sign {
            None => 1,
            Some('~') => 0,
            Some(c) if c.is_ascii_alphabetic() => c.into(),
            Some(c) => u32::from(c) + 256,
        }
    }
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        let (x, y) = (a.next(), b.next());
        let order = weight(x).cmp(&weight(y));
        if order.is_ne() || x.is_none() {
            return order;
        }
    }
}

/// Numbers of any length.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    use exitpath_testing::{Need, skipped};

    #[test]
    fn packages_of_images_are_told_from_others() {
        let image = |name| image_package(name);
        assert_eq!(
            image("linux-image-6.1.0-56-amd64"),
            Some(("6.1.0-56-amd64", Flavour::Plain))
        );
        assert_eq!(
            image("linux-image-6.12.43+deb12-cloud-amd64"),
            Some(("6.12.43+deb12-cloud-amd64", Flavour::Cloud))
        );
        assert_eq!(
            image("linux-image-6.1.0-5-rt-amd64").map(|i| i.1),
            Some(Flavour::Rt)
        );
        for other in [
            "linux-image-amd64",
            "linux-image-rt-amd64",
            "linux-image-6.12-amd64",
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-6.1.0-56-amd64-unsigned",
            "linux-image-amd64-signed-template",
            "linux-headers-6.1.0-56-amd64",
        ] {
            assert_eq!(image(other), None, "{other}");
        }
    }

    #[test]
    fn a_beginning_means_whole_numbers() {
        let matches = |spec: &str, release: &str| Spec::parse(spec).matches(release);
        assert!(matches("6.1", "6.1.0-56-amd64"));
        assert!(!matches("6.1", "6.12.43+deb12-amd64"));
        assert!(matches("6.12", "6.12.43+deb12-amd64"));
        assert!(matches("6.12.43", "6.12.43+deb12-rt-amd64"));
        assert!(!matches("6.12.4", "6.12.43+deb12-amd64"));
        assert!(matches("6.1.0-56-amd64", "6.1.0-56-amd64"));
        assert!(!matches("6.1.0-56-amd64", "6.1.0-56-cloud-amd64"));
        assert!(!matches("6.1.0-5", "6.1.0-56-amd64"));
        assert!(matches(
            "linux-image-6.1.0-56-cloud-amd64",
            "6.1.0-56-cloud-amd64"
        ));
        assert!(matches("6.12-rt", "6.12.43+deb12-rt-amd64"));
        assert!(!matches("", "6.1.0-56-amd64"));
        assert!(!matches("-amd64", "6.1.0-56-amd64"));
    }

    #[test]
    fn the_nearest_are_of_the_same_series_or_one_of_each() {
        let known = [
            "6.12.95-amd64",
            "6.12.43-amd64",
            "6.1.0-56-amd64",
            "6.1.0-55-amd64",
            "6.12.95-rt-amd64",
        ];
        let nearest = |spec: &str| Spec::parse(spec).nearest(&known);
        assert_eq!(nearest("6.1.0-99"), ["6.1.0-56-amd64", "6.1.0-55-amd64"]);
        assert_eq!(nearest("6.3"), ["6.1.0-56-amd64", "6.12.95-amd64"]);
        assert_eq!(
            nearest("6.12.50"),
            ["6.12.43-amd64", "6.12.95-amd64", "6.12.95-rt-amd64"]
        );
        assert_eq!(nearest("6.12.50-rt")[0], "6.12.95-rt-amd64");
        assert_eq!(nearest("nonsense"), ["6.12.95-amd64", "6.1.0-56-amd64"]);
    }

    #[test]
    fn the_nearest_are_near_by_number() {
        // As an archive lists them: newest first.
        let known = [
            "7.3.4+deb13-amd64",
            "7.2.12+deb13-amd64",
            "7.0.4+deb13-amd64",
            "6.19.14+deb13-amd64",
            "6.18.15+deb13-amd64",
            "6.12.117+deb13-amd64",
            "6.12.107+deb13-amd64",
        ];
        let nearest = |spec: &str| Spec::parse(spec).nearest(&known);
        let series = |spec: &str| -> Vec<String> {
            let names = nearest(spec).into_iter();
            names
                .map(|name| name.split('.').take(2).collect::<Vec<_>>().join("."))
                .collect()
        };
        assert_eq!(series("6.1"), ["6.12", "6.18", "6.19", "7.0"]);
        assert_eq!(series("6.20"), ["6.19", "6.18", "6.12", "7.0"]);
        assert_eq!(series("7.9"), ["7.3", "7.2", "7.0", "6.19"]);
        assert_eq!(series("5.10"), ["6.12", "6.18", "6.19", "7.0"]);
        assert_eq!(nearest("6.12.110")[0], "6.12.107+deb13-amd64");
    }

    const ORDERED: [&str; 14] = [
        "6.1~rc7-1~exp1",
        "6.1.0-9-amd64",
        "6.1.0-56-amd64",
        "6.1.176-1",
        "6.1.192-2",
        "6.1.192-2+b1",
        "6.12.43+deb12-amd64",
        "6.12.95~rc1",
        "6.12.95",
        "6.12.95-1~bpo12+1",
        "6.12.95-1",
        "6.12.100-1",
        "1:1.0-1",
        "2:0.9",
    ];

    #[test]
    fn versions_are_ordered() {
        for pair in ORDERED.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
    }

    #[test]
    fn dpkg_orders_them_alike() {
        for (i, a) in ORDERED.iter().enumerate() {
            for b in &ORDERED[i..] {
                let order = if compare(a, b).is_lt() { "lt" } else { "eq" };
                match Command::new("dpkg")
                    .args(["--compare-versions", a, order, b])
                    .status()
                {
                    Ok(status) => assert!(status.success(), "{a} {order} {b}"),
                    Err(e) => return skipped(Need::Tools, format!("dpkg cannot be asked ({e})")),
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_an_order(a in "[0-9a-z.~+-]{0,8}", b in "[0-9a-z.~+-]{0,8}", c in "[0-9a-z.~+-]{0,8}") {
            proptest::prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                proptest::prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
