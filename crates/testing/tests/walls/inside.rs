//! What the program inside a lab is made of.

use std::collections::BTreeSet;

/// Packages that must not get into it: they make it large, and it reads no command line, writes no Parquet,
/// loads no BPF, unpacks nothing and shows no progress.
const NOT_INSIDE: &[&str] = &["clap", "parquet", "aya", "tar", "indicatif"];

#[test]
fn the_program_inside_a_lab_is_small() {
    let arguments = [
        "tree",
        "-p",
        "exitpath-inside",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--locked",
    ];
    let tree = crate::cargo(&arguments);
    let wrong = unwanted(&tree);
    assert!(
        wrong.is_empty(),
        "exitpath-inside depends on {wrong:?} (cargo tree -p exitpath-inside -e normal -i NAME says by which way)"
    );
}

/// Of the lines `name vVERSION …` those whose package must not be there, or a part of it (`clap_builder`).
fn unwanted(tree: &str) -> BTreeSet<&str> {
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let is_unwanted = |name: &&str| {
        let whole = name.split(['-', '_']).next();
        whole.is_some_and(|whole| NOT_INSIDE.contains(&whole))
    };
    names.filter(is_unwanted).collect()
}

#[test]
fn packages_are_told_by_their_names() {
    let tree = "exitpath-inside v0.1.0 (/x)\nclap_builder v4.0.0\nstart v1.0.0\nclap_builder v4.0.0 (*)\naya-obj v1\n\n";
    assert_eq!(Vec::from_iter(unwanted(tree)), ["aya-obj", "clap_builder"]);
    assert!(unwanted("exitpath-inside v0.1.0\ntarget-lexicon v1\n").is_empty());
}
