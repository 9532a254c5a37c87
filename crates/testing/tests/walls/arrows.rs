//! Which crate depends on which: ARCHITECTURE.md's section "Arrows" says it, and says no more than there is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// From a crate to those that it depends on. Names are without `exitpath-`.
type Arrows = BTreeMap<String, BTreeSet<String>>;

const SECTION: &str = "Arrows";
const NOTHING: &str = "nothing";

#[test]
fn arrows_are_those_of_the_page() {
    let page = crate::read(&crate::workspace().join("ARCHITECTURE.md"));
    let metadata = crate::cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let wrong = differences(&of_page(&page).unwrap(), &of_cargo(&metadata));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn short(package: &str) -> &str {
    package.strip_prefix("exitpath-").unwrap_or(package)
}

/// Normal dependencies between the packages of `cargo metadata --no-deps`: not those of tests and build scripts.
fn of_cargo(metadata: &str) -> Arrows {
    let metadata: Value = serde_json::from_str(metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let own: BTreeSet<String> = packages.iter().map(name).collect();
    let arrows = packages.iter().map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap();
        let normal = dependencies.iter().filter(|one| one["kind"].is_null());
        let to = normal.map(name).filter(|to| own.contains(to));
        let to = to.map(|to| short(&to).to_owned()).collect();
        (short(&name(package)).to_owned(), to)
    });
    arrows.collect()
}

/// The lines of the code block in that section: `crate → crate, crate`, or `crate → nothing`.
fn of_page(page: &str) -> Result<Arrows, String> {
    let is_heading = |line: &str| line.starts_with('#');
    let is_section = |line: &str| is_heading(line) && line.trim_matches(['#', ' ']) == SECTION;
    let mut lines = page.lines().skip_while(|line| !is_section(line));
    lines.next().ok_or(format!("no section \"{SECTION}\""))?;
    let mut arrows = Arrows::new();
    let mut fences = 0;
    for line in lines.take_while(|line| !is_heading(line)) {
        if line.starts_with("```") {
            fences += 1;
        }
        let is_code = fences == 1 && !line.starts_with("```");
        if !is_code || line.trim().is_empty() {
            continue;
        }
        let (from, to) = line
            .split_once('→')
            .ok_or_else(|| format!("\"{line}\" is no line like \"crate → crate, crate\""))?;
        let to = to.split(',').map(|name| name.trim().to_owned());
        let to = to.filter(|name| name != NOTHING).collect();
        if arrows.insert(from.trim().to_owned(), to).is_some() {
            return Err(format!("{} has two lines", from.trim()));
        }
    }
    match fences {
        2 => Ok(arrows),
        _ => Err(format!("\"{SECTION}\" does not have one block of code")),
    }
}

fn differences(page: &Arrows, code: &Arrows) -> Vec<String> {
    let mut wrong = Vec::new();
    let names: BTreeSet<&String> = page.keys().chain(code.keys()).collect();
    for name in names {
        let (said, is) = match (page.get(name), code.get(name)) {
            (Some(said), Some(is)) => (said, is),
            (None, _) => {
                wrong.push(format!(
                    "ARCHITECTURE.md, \"Arrows\": crate {name} has no line"
                ));
                continue;
            }
            (_, None) => {
                wrong.push(format!(
                    "ARCHITECTURE.md, \"Arrows\": there is no crate {name}"
                ));
                continue;
            }
        };
        for to in is.difference(said) {
            wrong.push(format!(
                "{name} → {to} is in Cargo.toml and not in ARCHITECTURE.md, \"Arrows\": is it wanted?"
            ));
        }
        for to in said.difference(is) {
            wrong.push(format!(
                "{name} → {to} is in ARCHITECTURE.md, \"Arrows\", and not in Cargo.toml"
            ));
        }
    }
    wrong
}

const PAGE: &str = "# A\n## Data\n```\nx → y\n```\n### Arrows\nWords.\n\n```\na → nothing\nb → a\nc → a, b\n```\n## Z\n```\nz → a\n```\n";

#[test]
fn a_page_is_read() {
    let arrows = of_page(PAGE).unwrap();
    let to = |from: &str| Vec::from_iter(arrows[from].iter().map(String::as_str));
    assert_eq!(Vec::from_iter(arrows.keys()), ["a", "b", "c"]);
    assert_eq!((to("a"), to("c")), (vec![], vec!["a", "b"]));
    for bad in [
        "## Data\n",
        "## Arrows\nno block",
        "## Arrows\n```\nb: a\n```",
        "## Arrows\n```\na → b\na → c\n```",
    ] {
        assert!(of_page(bad).is_err(), "{bad}");
    }
}

#[test]
fn cargo_is_read() {
    let metadata = r#"{"packages": [
        {"name": "exitpath-a", "dependencies": [{"name": "serde", "kind": null}]},
        {"name": "exitpath", "dependencies": [
            {"name": "exitpath-a", "kind": null}, {"name": "exitpath-t", "kind": "dev"}]},
        {"name": "exitpath-t", "dependencies": []}]}"#;
    let arrows = of_cargo(metadata);
    let shown = format!("{arrows:?}");
    assert_eq!(shown, r#"{"a": {}, "exitpath": {"a"}, "t": {}}"#);
}

#[test]
fn what_differs_is_told() {
    let page = of_page(PAGE).unwrap();
    assert_eq!(differences(&page, &page), [""; 0]);
    let code = PAGE.replace("b → a", "b → c").replace("a → nothing\n", "");
    let code = of_page(&format!("{}\n", code.replace("c → a, b", "c → b"))).unwrap();
    let told = differences(&page, &code).join("\n");
    for line in [
        "there is no crate a",
        "b → c is in Cargo.toml and not",
        "b → a is in ARCHITECTURE.md, \"Arrows\", and not",
        "c → a is in ARCHITECTURE.md",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert!(differences(&code, &page)[0].contains("crate a has no line"));
}
