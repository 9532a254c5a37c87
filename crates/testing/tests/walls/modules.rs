//! Which file of a crate knows which other one.
//!
//! The rules, simple on purpose:
//!
//! - A module is a file. Inline modules are part of theirs; what is there for tests alone (`#[cfg(test)]`, and
//!   the files of such modules) is left out.
//! - A path that begins with `crate`, `super`, `self` or the name of a module that the file declares makes an
//!   arrow to the file that defines what it names. Imports and re-exports on the way are followed.
//! - A glob import (`use super::*`) stands for those names of the module that the file also writes.
//! - `mod x;` and `pub use x::Y;` make no arrow: a parent may show what its children have.
//! - Methods, and what a macro makes of its names, are not seen.

use std::collections::{BTreeMap, BTreeSet};

use crate::tokens::tokens;

/// A module's place in its crate; empty for the crate's root.
type Place = Vec<String>;

/// From a file to those that it knows; files by their places, `a::b`.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// A path as it is written, from the crate's root on.
type Path = Vec<String>;

/// One import: the name that it makes, and what that stands for.
#[derive(Debug, PartialEq)]
struct Import {
    /// `*` for all names.
    name: String,
    path: Path,
    is_public: bool,
}

#[derive(Debug, Default)]
struct Module {
    defines: BTreeSet<String>,
    children: BTreeSet<String>,
    /// Children that are there for tests alone.
    of_tests: BTreeSet<String>,
    imports: Vec<Import>,
    /// Paths in code.
    paths: Vec<Path>,
    /// All names that it writes.
    words: BTreeSet<String>,
}

/// The graph of a crate from the texts of its files, each with its path below `src/`.
pub(crate) fn graph(files: &[(String, String)]) -> Graph {
    let mut modules: BTreeMap<Place, Module> = BTreeMap::new();
    for (name, text) in files {
        let place = place_of(name);
        modules.insert(place.clone(), Reader::read(text, &place));
    }
    let of_tests: Vec<Place> = modules
        .iter()
        .flat_map(|(place, module)| {
            module
                .of_tests
                .iter()
                .map(move |child| joined(place, child))
        })
        .collect();
    modules.retain(|place, _| !of_tests.iter().any(|test| place.starts_with(test)));

    let mut graph = Graph::new();
    for (place, module) in &modules {
        let mut known = BTreeSet::new();
        let own = module.imports.iter().filter(|import| !import.is_public);
        for import in own {
            if import.name == "*" {
                known.extend(by_glob(&modules, &import.path, module));
            } else {
                known.extend(file_of(&modules, &import.path, 0));
            }
        }
        known.extend(
            module
                .paths
                .iter()
                .filter_map(|path| file_of(&modules, path, 0)),
        );
        known.remove(place);
        graph.insert(shown(place), known.iter().map(shown).collect());
    }
    graph
}

fn shown(place: &Place) -> String {
    match place.is_empty() {
        true => "(root)".to_owned(),
        false => place.join("::"),
    }
}

fn joined(place: &Place, name: &str) -> Place {
    place.iter().cloned().chain([name.to_owned()]).collect()
}

/// `lib.rs` and `main.rs` are the root, `a/mod.rs` and `a.rs` are `a`.
fn place_of(file: &str) -> Place {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut place: Place = stem.split('/').map(str::to_owned).collect();
    let last = place.last().map(String::as_str);
    if last == Some("mod") || place.len() == 1 && matches!(last, Some("lib" | "main")) {
        place.pop();
    }
    place
}

/// The file that defines what a path names: that of the longest module in it, or that which a name of this
/// module stands for.
fn file_of(modules: &BTreeMap<Place, Module>, path: &Path, depth: usize) -> Option<Place> {
    const IMPORTS_ON_THE_WAY: usize = 8;
    let lengths = (0..=path.len()).rev();
    let length = lengths
        .into_iter()
        .find(|n| modules.contains_key(&path[..*n]))?;
    let (place, rest) = path.split_at(length);
    let module = &modules[place];
    let here = Some(place.to_vec());
    let Some(name) = rest.first() else {
        return here;
    };
    if module.defines.contains(name) || depth == IMPORTS_ON_THE_WAY {
        return here;
    }
    if let Some(import) = module.imports.iter().find(|import| import.name == *name) {
        let through = import.path.iter().chain(&rest[1..]).cloned().collect();
        return file_of(modules, &through, depth + 1);
    }
    let globs = module.imports.iter().filter(|import| import.name == "*");
    for glob in globs {
        let through: Path = glob.path.iter().chain(rest).cloned().collect();
        let found = file_of(modules, &through, depth + 1);
        if let Some(found) = found.filter(|found| modules[found].defines.contains(name)) {
            return Some(found);
        }
    }
    // It may be what a macro makes. Names of other crates begin no path that is looked at.
    here
}

fn by_glob(modules: &BTreeMap<Place, Module>, path: &Path, by: &Module) -> BTreeSet<Place> {
    let Some(of) = modules.get(path) else {
        // The variants of an enum.
        return file_of(modules, path, 0).into_iter().collect();
    };
    let imported = of.imports.iter().map(|import| &import.name);
    let names = of.defines.iter().chain(imported).chain(&of.children);
    let written = names.filter(|name| by.words.contains(*name));
    let through = written.filter_map(|name| file_of(modules, &joined(path, name), 0));
    through.collect()
}

/// Reads one file.
struct Reader<'t> {
    tokens: &'t [String],
    place: &'t Place,
    module: Module,
}

impl Reader<'_> {
    fn read(text: &str, place: &Place) -> Module {
        let tokens = tokens(text);
        let mut reader = Reader {
            tokens: &tokens,
            place,
            module: Module::default(),
        };
        reader.declarations();
        reader.items();
        reader.module
    }

    fn at(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", String::as_str)
    }

    fn is(&self, at: usize, expected: &[&str]) -> bool {
        (at..)
            .zip(expected)
            .all(|(at, expected)| self.at(at) == *expected)
    }

    /// `#[cfg(test)]`, and conditions that begin with it or ask for it among others.
    fn is_for_tests(&self, at: usize) -> bool {
        self.is(at, &["#", "[", "cfg", "(", "test"])
            || self.is(at, &["#", "[", "cfg", "(", "all", "(", "test"])
    }

    /// Behind the item with this attribute: behind its `;`, or its block.
    fn behind_item(&self, mut at: usize) -> usize {
        let mut depth = 0;
        while at < self.tokens.len() {
            match self.at(at) {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            // It was the last field of a type, or the last variant.
            if depth < 0 {
                return at;
            }
            at += 1;
            let last = self.at(at - 1);
            if depth == 0 && (last == ";" || last == "}" && !self.is(at, &[";"])) {
                break;
            }
        }
        at
    }

    /// `mod x;` everywhere, before paths are looked at.
    fn declarations(&mut self) {
        for at in 0..self.tokens.len() {
            if self.at(at) == "mod" && self.at(at + 2) == ";" {
                self.module.children.insert(self.at(at + 1).to_owned());
            }
        }
    }

    fn items(&mut self) {
        let mut at = 0;
        let mut depth = 0;
        // Depths of braces at which inline modules began.
        let mut inline: Vec<usize> = Vec::new();
        while at < self.tokens.len() {
            if self.is_for_tests(at) {
                let end = self.behind_item(at);
                let named = (at..end).find(|at| self.at(*at) == "mod");
                if let Some(named) = named.filter(|named| self.at(named + 2) == ";") {
                    self.module.of_tests.insert(self.at(named + 1).to_owned());
                }
                at = end;
                continue;
            }
            let token = self.at(at).to_owned();
            match token.as_str() {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    inline.pop_if(|began| *began == depth);
                }
                "mod" if self.at(at + 2) == "{" => {
                    inline.push(depth);
                    self.define(at);
                }
                // Not the `use<…>` of a bound.
                "use" if self.at(at + 1) != "<" => {
                    let is_public = at > 0 && matches!(self.at(at - 1), "pub" | ")");
                    at = self.import(at + 1, &Vec::new(), is_public, inline.len());
                    continue;
                }
                "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static"
                | "macro_rules"
                    if depth == 0 =>
                {
                    self.define(at)
                }
                _ => {}
            }
            if is_name(&token) {
                let is_first = at == 0 || !["::", "."].contains(&self.at(at - 1));
                if is_first && self.at(at + 1) == "::" {
                    self.path(at, inline.len());
                }
                self.module.words.insert(token);
            }
            at += 1;
        }
    }

    /// The name of what stands at the file's own level.
    fn define(&mut self, at: usize) {
        let skipped = ["mut", "!", "fn", "unsafe", "extern", "async"];
        let mut names = self.tokens[at + 1..].iter();
        let name = names.find(|name| !skipped.contains(&name.as_str()));
        self.module.defines.extend(name.cloned());
    }

    fn path(&mut self, at: usize, inline: usize) {
        let mut written = vec![self.at(at).to_owned()];
        let mut at = at + 1;
        while self.at(at) == "::" && is_name(self.at(at + 1)) {
            written.push(self.at(at + 1).to_owned());
            at += 2;
        }
        let path = self.absolute(&written, inline);
        self.module.paths.extend(path);
    }

    /// From the root on; `None` for what is in another crate or in the file itself.
    fn absolute(&self, written: &[String], inline: usize) -> Option<Path> {
        let mut place = self.place.clone();
        let (first, rest) = written.split_first()?;
        match first.as_str() {
            "crate" => return Some(rest.to_vec()),
            child if self.module.children.contains(child) && inline == 0 => {}
            "self" => return (inline == 0).then(|| [place, rest.to_vec()].concat()),
            "super" => {
                let up = written.iter().take_while(|name| *name == "super").count();
                // Inline modules are in the file.
                for _ in 0..up.checked_sub(inline)? {
                    place.pop();
                }
                return Some([place, written[up..].to_vec()].concat());
            }
            _ => return None,
        }
        Some([place, written.to_vec()].concat())
    }

    /// The tree of an import from here on, behind `before`; returns what is behind it.
    fn import(&mut self, at: usize, before: &[String], is_public: bool, inline: usize) -> usize {
        let mut written = before.to_vec();
        let mut at = at;
        loop {
            match self.at(at) {
                "{" => {
                    at += 1;
                    while !matches!(self.at(at), "}" | "") {
                        at = self.import(at, &written, is_public, inline);
                        at += usize::from(self.at(at) == ",");
                    }
                    at += 1;
                    return at + usize::from(self.at(at) == ";");
                }
                "::" => at += 1,
                name if name == "*" || is_name(name) => {
                    written.push(name.to_owned());
                    at += 1;
                    if self.at(at) != "::" {
                        break;
                    }
                }
                _ => break,
            }
        }
        // `a::{self, b}`: the module itself.
        if written.len() > 1 && written.last().is_some_and(|name| name == "self") {
            written.pop();
        }
        let mut name = written.last().cloned().unwrap_or_default();
        if self.at(at) == "as" {
            name = self.at(at + 1).to_owned();
            at += 2;
        }
        if let Some(mut path) = self.absolute(&written, inline) {
            if path.last().is_some_and(|last| last == "*") {
                path.pop();
            }
            self.module.imports.push(Import {
                name,
                path,
                is_public,
            });
        }
        at + usize::from(before.is_empty() && self.at(at) == ";")
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|sign: char| sign.is_alphabetic() || sign == '_')
}

/// The graph of made-up files.
#[cfg(test)]
fn of(files: &[(&str, &str)]) -> String {
    let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    let graph = graph(&files.iter().map(own).collect::<Vec<_>>());
    let known = graph.iter().filter(|(_, known)| !known.is_empty());
    let lines = known.map(|(file, known)| {
        let known = known.iter().map(String::as_str).collect::<Vec<_>>();
        format!("{file} → {}", known.join(", "))
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[test]
fn paths_in_imports_and_in_code() {
    let root = ("lib.rs", "mod a; pub mod b; mod c;");
    let b = ("b/mod.rs", "pub fn f() {} pub struct S;");
    let c = ("c.rs", "pub fn g() {}");
    assert_eq!(
        of(&[root, b, c, ("a.rs", "use crate::{b::{S, f as h}, c};")]),
        "a → b, c"
    );
    assert_eq!(
        of(&[root, b, c, ("a.rs", "fn x() { super::b::f() }")]),
        "a → b"
    );
    assert_eq!(
        of(&[
            root,
            b,
            c,
            (
                "a.rs",
                "// crate::b\nuse std::b::f; fn x() { \"crate::c\"; b::f() }"
            )
        ]),
        ""
    );
    assert_eq!(
        of(&[
            root,
            b,
            c,
            ("a.rs", "macro_rules! m { () => { $crate::c::g() } }")
        ]),
        "a → c"
    );
}

#[test]
fn a_parent_may_show_what_its_children_have() {
    let a = ("a.rs", "use crate::b::S;");
    let child = ("b/s.rs", "pub struct S;");
    let shows = (
        "b/mod.rs",
        "mod s; pub use s::S; pub(crate) use self::s::S as T;",
    );
    // To where it is defined, and not by way of the parent.
    assert_eq!(of(&[a, child, shows]), "a → b::s");
    let uses = ("b/mod.rs", "mod s; pub use s::S; fn f() { s::new() }");
    assert_eq!(of(&[a, child, uses]), "a → b::s; b → b::s");
    let knows = ("b/s.rs", "pub struct S; fn f(x: super::U) {}");
    let defines = ("b/mod.rs", "mod s; pub use s::*; struct U;");
    assert_eq!(of(&[a, knows, defines]), "a → b::s; b::s → b");
}

#[test]
fn globs_stand_for_the_names_that_are_written() {
    let parent = (
        "p/mod.rs",
        "mod x; mod y; mod z; pub use y::Y; use crate::q::Q; struct P;",
    );
    let rest = [
        ("p/y.rs", "pub struct Y;"),
        ("p/z.rs", "pub struct Z;"),
        ("q.rs", "pub struct Q;"),
    ];
    let with = |x: &'static str| of(&[&[parent, ("p/x.rs", x)][..], &rest].concat());
    assert_eq!(with("use super::*; fn f(y: Y) {}"), "p → q; p::x → p::y");
    assert_eq!(
        with("use super::*; fn f(p: P, q: Q) {}"),
        "p → q; p::x → p, q"
    );
    assert_eq!(with("use super::*;"), "p → q");
}

#[test]
fn tests_and_inline_modules() {
    let root = (
        "lib.rs",
        "mod a; mod b; #[cfg(test)] mod testing; #[cfg(test)] mod tests { use crate::a; }",
    );
    let b = ("b.rs", "pub fn f() {}");
    let testing = ("testing.rs", "use crate::a::A;");
    let with = |a: &'static str| of(&[root, b, testing, ("a.rs", a)]);
    assert_eq!(with("#[cfg(test)] mod tests { use crate::b::f; }"), "");
    assert_eq!(with("#[cfg(test)] use crate::b::f; fn x() {}"), "");
    assert_eq!(
        with("mod inner { use super::x; fn f() { super::super::b::f() } } fn x() {}"),
        "a → b"
    );
    assert_eq!(
        with("fn x() {} #[cfg(test)] mod t { fn f() {} } use crate::b;"),
        "a → b"
    );
}
