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

    /// The known releases nearest to this one: the newest of the same series (6.1), else
    /// the first of each series. `releases` are in the order of preference.
    pub(crate) fn nearest(&self, releases: &[&str]) -> Vec<String> {
        const AT_MOST: usize = 4;
        let mine = series(&self.start);
        let mut near: Vec<&str> = releases
            .iter()
            .copied()
            .filter(|release| series(release) == mine)
            .collect();
        if near.is_empty() {
            near = releases.to_vec();
            // Stable: the first of a series stays its first.
            near.sort_by(|a, b| {
                let (a, b) = (series(a), series(b));
                compare_numbers(b.0, a.0).then_with(|| compare_numbers(b.1, a.1))
            });
            near.dedup_by_key(|release| series(release));
        }
        near.into_iter().take(AT_MOST).map(str::to_owned).collect()
    }
}

/// The first two numbers: `6.1` of `6.1.0-56-amd64`.
fn series(release: &str) -> (&str, &str) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    )
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
        ];
        let nearest = |spec: &str| Spec::parse(spec).nearest(&known);
        assert_eq!(nearest("6.1.0-99"), ["6.1.0-56-amd64", "6.1.0-55-amd64"]);
        assert_eq!(nearest("6.3"), ["6.12.95-amd64", "6.1.0-56-amd64"]);
        assert_eq!(nearest("nonsense").len(), 2);
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
