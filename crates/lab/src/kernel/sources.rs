//! apt's lists of sources: which of them are the Debian archive, and its backports.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What follows a release's name in the names of its suites.
const SUITE_ENDINGS: [&str; 7] = [
    "-security",
    "/updates",
    "-updates",
    "-backports",
    "-backports-sloppy",
    "-proposed-updates",
    "-backports-debug",
];
/// Releases that have no backports, because they are ahead of them.
const NO_BACKPORTS: [&str; 5] = ["sid", "unstable", "testing", "experimental", "rc-buggy"];
/// All that is wanted here is in it.
const COMPONENT: &str = "main";

/// One entry: where to find which suites, and how to trust them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// Everything else, such as `Signed-By`, as deb822 fields, with the lines of the
    /// value as they were.
    options: Vec<(String, String)>,
}

/// Reads `sources.list` and `sources.list.d` in apt's order.
///
/// # Errors
/// [`Error::Io`] if a file is there but cannot be read.
pub(crate) fn read_sources(etc: &Path) -> Result<Vec<Source>> {
    let mut paths = vec![etc.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
        let mut parts: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        paths.extend(parts);
    }
    let mut sources = Vec::new();
    for path in paths {
        let parse: fn(&str) -> Vec<Source> = match path.extension().and_then(OsStr::to_str) {
            Some("list") => parse_list,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        match fs::read(&path) {
            Ok(bytes) => sources.extend(parse(&String::from_utf8_lossy(&bytes))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("read", path)(e)),
        }
    }
    Ok(sources)
}

/// The one-line format: `deb [option=value …] uri suite component …`.
fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_list_line).collect()
}

fn parse_list_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None; // deb-src
    }
    rest = rest.trim_start();
    let mut source = Source::default();
    if let Some(inside) = rest.strip_prefix('[') {
        let (options, after) = inside.split_once(']')?;
        rest = after;
        for (name, value) in options.split_whitespace().filter_map(|o| o.split_once('=')) {
            source
                .options
                .push((field_of_option(name), value.replace(',', " ")));
        }
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.uris.push(words.next()?);
    source.suites.push(words.next()?);
    source.components.extend(words);
    Some(source)
}

/// The deb822 field for a one-line option, by sources.list(5).
fn field_of_option(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "arch" => "Architectures".into(),
        "lang" => "Languages".into(),
        "target" => "Targets".into(),
        other => other.into(),
    }
}

/// The deb822 format: stanzas of fields, a line that begins with a space continues one.
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut stanzas: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = stanzas.last_mut() else {
            continue;
        };
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line.trim_end());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    stanzas.into_iter().filter_map(source_of_stanza).collect()
}

fn source_of_stanza(fields: Vec<(String, String)>) -> Option<Source> {
    let mut source = Source::default();
    let mut binary = false;
    for (name, value) in fields {
        let words = || value.split_whitespace().map(str::to_owned);
        match name.to_ascii_lowercase().as_str() {
            "types" => binary = words().any(|word| word == "deb"),
            "uris" => source.uris = words().collect(),
            "suites" => source.suites = words().collect(),
            "components" => source.components = words().collect(),
            "enabled" if is_no(&value) => return None,
            "enabled" => {}
            _ => source.options.push((name, value)),
        }
    }
    (binary && !source.uris.is_empty() && !source.suites.is_empty()).then_some(source)
}

/// The words apt takes for false.
fn is_no(value: &str) -> bool {
    let no = ["no", "false", "without", "off", "disable", "0"];
    no.iter()
        .any(|word| value.trim().eq_ignore_ascii_case(word))
}

/// The entries of the Debian archive, for amd64's `main` only, and the backports of each
/// release among them from the same place, if there is no entry for those yet.
pub(crate) fn debian_entries(sources: &[Source]) -> Vec<Source> {
    let mut debian: Vec<Source> = sources
        .iter()
        .filter(|source| source.is_debian())
        .map(|source| {
            let mut kept = source.clone();
            kept.uris.retain(|uri| !uri.starts_with("cdrom:"));
            kept.components = vec![COMPONENT.into()];
            kept.options.retain(|(name, _)| {
                let dropped = ["architectures", "languages", "targets", "x-repolib-name"];
                !dropped.contains(
                    &name
                        .trim_end_matches(['+', '-'])
                        .to_ascii_lowercase()
                        .as_str(),
                )
            });
            kept
        })
        .filter(|source| !source.uris.is_empty())
        .collect();

    let mut known: Vec<String> = debian.iter().flat_map(|s| s.suites.clone()).collect();
    for source in debian.clone() {
        let mut backports = Vec::new();
        for release in source
            .suites
            .iter()
            .filter(|suite| base_of(suite) == suite.as_str())
        {
            let suite = format!("{release}-backports");
            if !NO_BACKPORTS.contains(&release.as_str()) && !known.contains(&suite) {
                known.push(suite.clone());
                backports.push(suite);
            }
        }
        if !backports.is_empty() {
            debian.push(Source {
                suites: backports,
                ..source
            });
        }
    }
    debian
}

/// The release a suite belongs to: `bookworm` for `bookworm-security`.
fn base_of(suite: &str) -> &str {
    SUITE_ENDINGS
        .iter()
        .find_map(|ending| suite.strip_suffix(ending))
        .unwrap_or(suite)
}

impl Source {
    /// Other archives use Debian's release names too, so an entry is only taken for the
    /// Debian archive's if it is signed with its keyring or, where no keyring is named,
    /// is at a path that says so, as all mirrors are.
    fn is_debian(&self) -> bool {
        if !self
            .components
            .iter()
            .any(|component| component == COMPONENT)
        {
            return false;
        }
        // bookworm-pgdg and the like.
        if self
            .suites
            .iter()
            .any(|suite| base_of(suite).contains(['-', '/']))
        {
            return false;
        }
        let signed_by = self
            .options
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case("signed-by"));
        match signed_by.map(|(_, value)| value.trim()) {
            Some(value) if value.starts_with('/') => value.contains("debian-archive"),
            _ => self.uris.iter().any(|uri| path_names_debian(uri)),
        }
    }
}

/// Whether a folder in the address is `debian`, `debian-security` or the like.
fn path_names_debian(uri: &str) -> bool {
    let path = uri
        .split_once("://")
        .map_or(uri, |(_, rest)| rest.split_once('/').map_or("", |p| p.1));
    path.split('/').any(|folder| {
        folder == "debian" || folder.starts_with("debian-") || folder.starts_with("debian.")
    })
}

/// The entries in the deb822 format.
pub(crate) fn render(sources: &[Source]) -> String {
    let mut out = String::new();
    for source in sources {
        let _ = writeln!(
            out,
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\nArchitectures: amd64",
            source.uris.join(" "),
            source.suites.join(" "),
            source.components.join(" "),
        );
        for (name, value) in &source.options {
            let _ = writeln!(out, "{name}: {value}");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

    fn rendered(list: &str, deb822: &str) -> String {
        render(&debian_entries(
            &[parse_list(list), parse_deb822(deb822)].concat(),
        ))
    }

    #[test]
    fn backports_come_from_the_same_mirror_with_the_same_key() {
        let text = format!(
            "# comment\nTypes: deb deb-src\n# more\nURIs: http://mirror.example/debian\n\
             Suites: bookworm bookworm-updates\nComponents: main contrib\n\
             Architectures: amd64 i386\nSigned-By: {KEYRING}\n\n\n\
             Types: deb\nURIs: http://mirror.example/debian-security\n\
             Suites: bookworm-security\nComponents: main\nSigned-By: {KEYRING}\n"
        );
        let entry = |uri: &str, suites: &str| {
            format!(
                "Types: deb\nURIs: http://mirror.example/{uri}\nSuites: {suites}\n\
                 Components: main\nArchitectures: amd64\nSigned-By: {KEYRING}\n\n"
            )
        };
        let expected = [
            entry("debian", "bookworm bookworm-updates"),
            entry("debian-security", "bookworm-security"),
            entry("debian", "bookworm-backports"),
        ];
        assert_eq!(rendered("", &text), expected.concat());
    }

    #[test]
    fn the_one_line_format_keeps_its_options() {
        let list = "deb [arch=amd64,i386 signed-by=/k/debian-archive-x.pgp trusted=yes] \
                    https://m.example/x trixie main # why\n\
                    deb-src https://m.example/debian trixie main\n";
        let text = rendered(list, "");
        assert_eq!(
            text.matches("signed-by: /k/debian-archive-x.pgp\ntrusted: yes\n")
                .count(),
            2
        );
        assert!(text.contains("Suites: trixie-backports\n"), "{text}");
        assert_eq!(text.matches("Architectures").count(), 2);
    }

    #[test]
    fn a_key_within_the_entry_is_kept() {
        let text = "Types: deb\nURIs: file:/srv/debian\nSuites: trixie\nComponents: main\n\
                    Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINB\n";
        let text = rendered("", text);
        let key = "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINB\n\n";
        assert_eq!(text.matches(key).count(), 2, "{text}");
    }

    #[test]
    fn other_archives_are_left_alone() {
        let list = "deb https://a.example/linux/debian bookworm stable\n\
                    deb https://b.example bookworm main\n\
                    deb https://c.example/pub bookworm-pgdg main\n\
                    deb [signed-by=/k/d.gpg] https://d.example/stable/debian bookworm main\n\
                    deb https://debian.example/apt bookworm main\n\
                    deb http://archive.example/ubuntu noble main\n\
                    deb https://e.example/ ./\n\
                    deb\n\
                    debris x y main\n";
        let off = "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\n\
                   Components: main\nEnabled: no\n";
        assert_eq!(rendered(list, off), "");
    }

    #[test]
    fn backports_are_added_once_and_only_where_there_are_any() {
        let list = "deb http://m.example/debian bookworm main\n\
                    deb http://n.example/debian/ bookworm main\n\
                    deb http://m.example/debian sid main\n";
        assert_eq!(rendered(list, "").matches("-backports").count(), 1);
        let have = "deb http://m.example/debian bookworm main\n\
                    deb http://b.example/debian bookworm-backports main\n";
        assert_eq!(rendered(have, "").matches("-backports").count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(deb|[:\\[\\]=a-zB# /\n-]){0,200}") {
            let _ = rendered(&text, &text);
        }
    }
}
