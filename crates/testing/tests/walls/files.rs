//! How long a file may be, and where `unsafe` may stand.

use crate::tokens::tokens;

const LINES: usize = 600;

/// Files that are longer, and why. One that no longer is has to leave this list.
const LONGER: &[(&str, &str)] = &[];

/// Crates whose compiler refuses `unsafe`.
const PURE: &[&str] = &[
    "analysis",
    "cli",
    "exitpath",
    "experiment",
    "host",
    "names",
    "protocol",
    "recording",
    "report",
    "store",
    "testing",
];

#[test]
fn no_file_is_too_long() {
    let files = crate::sources(&crate::workspace());
    let lengths = files.iter().map(|path| {
        let lines = crate::read(path).lines().count();
        (crate::shown(path), lines)
    });
    let wrong = too_long(lengths, LONGER);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn too_long(files: impl Iterator<Item = (String, usize)>, longer: &[(&str, &str)]) -> Vec<String> {
    let long: Vec<(String, usize)> = files.filter(|(_, lines)| *lines > LINES).collect();
    let is_allowed = |name: &str| longer.iter().any(|(allowed, _)| *allowed == name);
    let is_long = |name: &str| long.iter().any(|(long, _)| long == name);
    let wrong = long.iter().filter(|(name, _)| !is_allowed(name));
    let wrong = wrong.map(|(name, lines)| {
        format!("{name} has {lines} lines, more than {LINES}: divide it by its reasons to change")
    });
    let stale = longer.iter().filter(|(name, _)| !is_long(name));
    let stale = stale.map(|(name, _)| format!("{name} is not too long: take it from LONGER"));
    wrong.chain(stale).collect()
}

#[test]
fn pure_crates_have_no_unsafe() {
    for name in PURE {
        let source = crate::workspace().join(format!("crates/{name}/src"));
        let roots = ["lib.rs", "main.rs"].map(|root| source.join(root));
        let root = roots.iter().find(|root| root.is_file());
        let root = root.unwrap_or_else(|| panic!("PURE names {name}, which is no crate"));
        assert!(
            crate::read(root).contains("#![forbid(unsafe_code)]"),
            "{}: a pure crate begins with #![forbid(unsafe_code)]",
            crate::shown(root)
        );
    }
}

/// `exits` reads its own code, between two labels of its assembly, and does nothing else unsafe.
#[test]
fn exits_is_unsafe_only_to_read_its_own_code() {
    for path in crate::sources(&crate::workspace().join("crates/exits/src")) {
        let other = other_unsafe(&crate::read(&path));
        let name = crate::shown(&path);
        assert!(
            other.is_empty(),
            "{name}: unsafe for something else than reading its own code: {other:?}"
        );
    }
}

/// What follows each `unsafe` that neither declares labels (`unsafe extern "C" {`) nor makes a slice of what is
/// between them (`unsafe { std::slice::from_raw_parts(start, …`).
fn other_unsafe(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let places = (0..tokens.len()).filter(|at| tokens[*at] == "unsafe");
    let follows = places.map(|at| {
        let behind = tokens[at + 1..].iter().take(8);
        behind.cloned().collect::<Vec<_>>().join(" ")
    });
    let own = ["extern ", "{ std :: slice :: from_raw_parts ( start"];
    follows
        .filter(|text| !own.iter().any(|own| text.starts_with(own)))
        .collect()
}

#[test]
fn long_files_are_told_with_their_length() {
    let files = || [("a", 600), ("b", 601)].map(|(name, n)| (name.to_owned(), n));
    let told = |longer| too_long(files().into_iter(), longer);
    assert_eq!(told(&[]).len(), 1);
    assert!(told(&[])[0].starts_with("b has 601 lines"));
    assert_eq!(told(&[("b", "why")]), [""; 0]);
    assert!(told(&[("a", "why"), ("b", "why")])[0].starts_with("a is not too long"));
}

#[test]
fn other_unsafe_code_is_told() {
    let own = r#"unsafe extern "C" { static A: u8; }
        // unsafe { a() }
        fn code() -> &'static [u8] { unsafe { std::slice::from_raw_parts(start, 3) } }"#;
    assert_eq!(other_unsafe(own), [""; 0]);
    assert_eq!(other_unsafe("fn f() { unsafe { *pointer } }").len(), 1);
    assert_eq!(other_unsafe("unsafe fn f() {}").len(), 1);
    assert_eq!(other_unsafe("unsafe impl Send for A {}").len(), 1);
}
