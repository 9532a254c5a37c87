//! No files of a crate that know each other in a circle, but where they are one thought.

use std::collections::BTreeSet;

use crate::modules::{Graph, graph};

/// Circles that there may be, crate, files and why these are one thought. One that is gone has to leave this list.
const ALLOWED: &[(&str, &[&str], &str)] = &[
    (
        "analysis",
        &["path::threads", "path::walk"],
        "a change of threads is a part of the walk: methods of one type, in two files for their length",
    ),
    (
        "vmm",
        &["layers", "vcpu"],
        "a rung's loop is a vCPU's loop around KVM_RUN: the vCPU has it in place of the usual one, and it runs the vCPU",
    ),
];

#[test]
fn no_files_know_each_other_in_a_circle() {
    let folder = crate::workspace().join("crates");
    let mut crates: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| folder.join(name).join("src").is_dir())
        .collect();
    crates.sort();
    let mut wrong: Vec<String> = Vec::new();
    for name in &crates {
        let source = folder.join(name).join("src");
        let files = crate::sources(&source).into_iter().map(|path| {
            let below = path.strip_prefix(&source).unwrap();
            (below.display().to_string(), crate::read(&path))
        });
        let graph = graph(&files.collect::<Vec<_>>());
        wrong.extend(judged(name, &graph, ALLOWED));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with a crate's circles, a line each.
fn judged(name: &str, graph: &Graph, allowed: &[(&str, &[&str], &str)]) -> Vec<String> {
    let circles = circles(graph);
    let allowed = allowed.iter().filter(|(of, ..)| *of == name);
    let allowed: Vec<BTreeSet<&str>> = allowed
        .map(|(_, files, _)| files.iter().copied().collect())
        .collect();
    let wrong = circles.iter().filter(|circle| !allowed.contains(circle));
    let wrong = wrong.map(|circle| {
        let arrows = circle.iter().map(|file| {
            let within = graph[*file].iter().map(String::as_str);
            let within: Vec<&str> = within.filter(|to| circle.contains(to)).collect();
            format!("{file} → {}", within.join(", "))
        });
        let arrows: Vec<String> = arrows.collect();
        format!(
            "{name} has a circle of {} files: {}",
            circle.len(),
            arrows.join("; ")
        )
    });
    let gone = allowed.iter().filter(|files| !circles.contains(files));
    let gone = gone.map(|files| format!("{name}: {files:?} is no circle: take it from ALLOWED"));
    wrong.chain(gone).collect()
}

/// Files that reach each other, more than one; small graphs, so by all that each file reaches.
fn circles(graph: &Graph) -> Vec<BTreeSet<&str>> {
    let reached = |from: &str| {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> = graph[from].iter().map(String::as_str).collect();
        while let Some(file) = next.pop() {
            if reached.insert(file) {
                next.extend(graph[file].iter().map(String::as_str));
            }
        }
        reached
    };
    let all: Vec<(&str, BTreeSet<&str>)> = graph
        .keys()
        .map(|file| (file.as_str(), reached(file)))
        .collect();
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for (file, reaches) in &all {
        let back = all
            .iter()
            .filter(|(other, of_other)| reaches.contains(other) && of_other.contains(file));
        let circle: BTreeSet<&str> = back.map(|(other, _)| *other).collect();
        if circle.len() > 1 && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

fn made_up(arrows: &[(&str, &[&str])]) -> Graph {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let arrows = arrows
        .iter()
        .map(|(from, to)| ((*from).to_owned(), own(to)));
    arrows.collect()
}

#[test]
fn circles_are_found() {
    let line = made_up(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
    assert!(circles(&line).is_empty());
    let two = made_up(&[
        ("a", &["b"]),
        ("b", &["c"]),
        ("c", &["a", "d"]),
        ("d", &["e"]),
        ("e", &["d"]),
    ]);
    assert_eq!(
        circles(&two),
        [BTreeSet::from(["a", "b", "c"]), BTreeSet::from(["d", "e"])]
    );
}

#[test]
fn a_circle_is_wrong_unless_it_is_allowed_and_there() {
    let graph = made_up(&[("a", &["b", "x"]), ("b", &["a"]), ("x", &[])]);
    let told = judged("c", &graph, &[]);
    assert_eq!(told, ["c has a circle of 2 files: a → b; b → a"]);
    assert_eq!(
        judged("c", &graph, &[("c", &["b", "a"], "one thought")]),
        [""; 0]
    );
    assert_eq!(
        judged("c", &graph, &[("d", &["b", "a"], "another crate's")]).len(),
        1
    );
    let none = made_up(&[("a", &["b"]), ("b", &[])]);
    let told = judged("c", &none, &[("c", &["b", "a"], "gone")]);
    assert!(
        told[0].ends_with("is no circle: take it from ALLOWED"),
        "{told:?}"
    );
}
