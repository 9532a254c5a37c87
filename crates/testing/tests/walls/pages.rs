//! Files that the documentation names are there: who follows a page must not end up nowhere.

use std::fs;
use std::path::PathBuf;

/// The pages of the repository, those of its root and of `docs`.
fn pages() -> Vec<PathBuf> {
    let root = crate::workspace();
    let folders = [root.clone(), root.join("docs")];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// Paths below `crates` that a text names, with that folder or from a crate's on.
fn named(text: &str) -> Vec<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let words = text.split(|c: char| !is_path(c));
    let paths = words.filter_map(|word| {
        let word = word.trim_matches('.');
        let word = word.strip_prefix("/").unwrap_or(word);
        match word.strip_prefix("crates/") {
            Some(path) => Some(path),
            None => word.contains("/src/").then_some(word),
        }
    });
    paths
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn files_that_pages_name_are_there() {
    let root = crate::workspace();
    let (mut seen, mut gone) = (0, Vec::new());
    for page in pages() {
        for path in named(&fs::read_to_string(&page).unwrap()) {
            seen += 1;
            if !root.join("crates").join(&path).exists() {
                gone.push(format!("{}: there is no {path}", page.display()));
            }
        }
    }
    assert!(gone.is_empty(), "{}", gone.join("\n"));
    assert!(
        seen > 20,
        "the pages name {seen} files only: is this still looking at them?"
    );
}

#[test]
fn paths_are_found_in_prose() {
    assert_eq!(
        named(
            "In `lab/src/boot.rs`, and [that](../crates/store/src/lib.rs). Not a/b.rs or https://example.org/x"
        ),
        ["lab/src/boot.rs", "store/src/lib.rs"]
    );
}
