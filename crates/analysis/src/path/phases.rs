//! What functions are for: a table of phases.
//!
//! An instruction counts for the phase of its function or, where the table does not know that,
//! of the nearest caller that it knows. So `memcpy` is part of whatever copies.
//!
//! The table is text, a line for a phase, which may have several:
//!
//! ```text
//! # everything behind a hash is a comment
//! exit handler: svm_handle_exit *_interception
//! libc: exitpath:mem* libc.so.6:*
//! ```
//!
//! A pattern is a function's name in which `*` stands for any text and `?` for any character. In
//! front of it may stand the module and a colon, itself a pattern; `kernel`, `user` and `guest`
//! stand for all modules there. Of several patterns that match, the last one holds.
//!
//! Three things cannot be said by a function's name alone:
//!
//! - `function@exited` holds only from the end of guest mode until a function of the phase
//!   [`HANDLER`] is called: `vcpu_enter_guest` leads into the guest and back out of it.
//! - `@interrupt` stands for whatever an interrupt or exception enters that no pattern names. It
//!   does not inherit from what it interrupts.
//! - `@unknown` stands for what nothing else knows.

use exitpath_recording::Space;

/// The phase whose functions end the time `@exited` stands for.
pub const HANDLER: &str = "exit handler";

/// The table that comes with exitpath.
const BUILT_IN: &str = super::arch::PHASES;

/// The name for what nothing knows, if the table does not say one.
const UNKNOWN: &str = "other";

/// Which function is for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseTable {
    names: Vec<String>,
    rules: Vec<Rule>,
    interrupt: Option<usize>,
    unknown: Option<usize>,
}

/// A line of a table that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the table of phases: {what}")]
pub struct PhaseError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    phase: usize,
    place: Place,
    function: String,
    exited: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Anywhere,
    Space(Space),
    Module(String),
}

impl Default for PhaseTable {
    /// The table that comes with exitpath.
    fn default() -> PhaseTable {
        // A test holds that it parses; if it did not, everything would be unknown.
        PhaseTable::parse(BUILT_IN).unwrap_or(PhaseTable {
            names: Vec::new(),
            rules: Vec::new(),
            interrupt: None,
            unknown: None,
        })
    }
}

impl PhaseTable {
    /// The text of the table that comes with exitpath, to begin one's own from.
    #[must_use]
    pub fn built_in() -> &'static str {
        BUILT_IN
    }

    /// Reads a table.
    ///
    /// # Errors
    ///
    /// The first line that is no `phase: patterns`.
    pub fn parse(text: &str) -> Result<PhaseTable, PhaseError> {
        let empty = PhaseTable {
            names: Vec::new(),
            rules: Vec::new(),
            interrupt: None,
            unknown: None,
        };
        empty.and(text)
    }

    /// This table and then another one, whose lines override.
    ///
    /// # Errors
    ///
    /// As [`PhaseTable::parse`].
    pub fn and(mut self, text: &str) -> Result<PhaseTable, PhaseError> {
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            self.add(line).map_err(|what| PhaseError {
                line: number + 1,
                what,
            })?;
        }
        Ok(self)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let (name, patterns) = line
            .split_once(':')
            .ok_or("write a phase, a colon, and patterns")?;
        let name = name.trim();
        if name.is_empty() {
            return Err("name the phase before the colon".to_owned());
        }
        let phase = self.phase(name);
        for pattern in patterns.split_whitespace() {
            match pattern {
                "@interrupt" => self.interrupt = Some(phase),
                "@unknown" => self.unknown = Some(phase),
                _ => self.rules.push(Rule::parse(phase, pattern)?),
            }
        }
        Ok(())
    }

    fn phase(&mut self, name: &str) -> usize {
        let known = self.names.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// The phases in the order of the table, and last the one for what nobody knows.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let known = self.names.iter().map(String::as_str);
        match self.unknown {
            Some(_) => known.collect(),
            None => known.chain([UNKNOWN]).collect(),
        }
    }

    /// Number of phases, the unknown one included.
    pub(super) fn len(&self) -> usize {
        self.names.len() + usize::from(self.unknown.is_none())
    }

    /// Position of the phase for what nobody knows.
    pub(super) fn unknown(&self) -> usize {
        self.unknown.unwrap_or(self.names.len())
    }

    /// Position of the phase of what interrupts enter.
    pub(super) fn interrupt(&self) -> usize {
        self.interrupt.unwrap_or(self.unknown())
    }

    /// Position of the phase of a function, if the table knows it.
    pub(super) fn of(&self, name: &str, module: &str, space: Space, exited: bool) -> Option<usize> {
        let mut rules = self.rules.iter().rev();
        rules
            .find(|rule| rule.holds(name, module, space, exited))
            .map(|rule| rule.phase)
    }

    /// Whether a phase is the one of exit handlers.
    pub(super) fn is_handler(&self, phase: usize) -> bool {
        self.names.get(phase).is_some_and(|name| name == HANDLER)
    }
}

impl Rule {
    fn parse(phase: usize, pattern: &str) -> Result<Rule, String> {
        let (name, exited) = match pattern.rsplit_once('@') {
            Some((name, "exited")) => (name, true),
            Some((_, other)) if pattern.starts_with('@') || !other.contains(['.', '_']) => {
                return Err(format!(
                    "`{pattern}` is not known; there are function@exited, @interrupt and @unknown"
                ));
            }
            _ => (pattern, false),
        };
        let (place, function) = match single_colon(name) {
            None => (Place::Anywhere, name),
            Some(at) => (Place::parse(&name[..at]), &name[at + 1..]),
        };
        if function.is_empty() {
            return Err(format!("`{pattern}` names no function; `*` is any"));
        }
        Ok(Rule {
            phase,
            place,
            function: function.to_owned(),
            exited,
        })
    }

    fn holds(&self, name: &str, module: &str, space: Space, exited: bool) -> bool {
        let here = match &self.place {
            Place::Anywhere => true,
            Place::Space(of) => *of == space,
            Place::Module(pattern) => matches(pattern, module),
        };
        here && (exited || !self.exited) && matches(&self.function, name)
    }
}

impl Place {
    fn parse(text: &str) -> Place {
        match text {
            "" | "*" => Place::Anywhere,
            "kernel" => Place::Space(Space::Kernel),
            "user" => Place::Space(Space::User),
            "guest" => Place::Space(Space::Guest),
            module => Place::Module(module.to_owned()),
        }
    }
}

/// Where a module's colon is: the first that is not one of Rust's two.
fn single_colon(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let colon = |at: usize| bytes.get(at) == Some(&b':');
    (0..bytes.len()).find(|&at| colon(at) && !colon(at + 1) && !(at > 0 && colon(at - 1)))
}

/// Whether a pattern with `*` and `?` matches the whole of a text.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|&c| c == b'?' || c == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(table: &PhaseTable, name: &str, module: &str, space: Space) -> Option<String> {
        let phase = table.of(name, module, space, false)?;
        Some(table.names()[phase].to_owned())
    }

    #[test]
    fn the_built_in_table_parses() {
        PhaseTable::parse(BUILT_IN).unwrap();
    }

    #[test]
    fn later_lines_override_earlier_ones() {
        let table = PhaseTable::parse("a: foo* # all of them\nb: foobar").unwrap();
        assert_eq!(phase(&table, "foo", "kvm", Space::Kernel).unwrap(), "a");
        assert_eq!(phase(&table, "foobar", "kvm", Space::Kernel).unwrap(), "b");
        assert_eq!(phase(&table, "bar", "kvm", Space::Kernel), None);
        let table = table.and("c: kvm:foobar").unwrap();
        assert_eq!(phase(&table, "foobar", "kvm", Space::Kernel).unwrap(), "c");
        assert_eq!(phase(&table, "foobar", "x", Space::Kernel).unwrap(), "b");
        assert_eq!(table.names(), ["a", "b", "c", "other"]);
    }

    #[test]
    fn spaces_stand_for_all_their_modules() {
        let table = PhaseTable::parse("vmm: user:*\ncode: guest:*").unwrap();
        assert_eq!(phase(&table, "x", "any", Space::User).unwrap(), "vmm");
        assert_eq!(phase(&table, "x", "", Space::Guest).unwrap(), "code");
        assert_eq!(phase(&table, "x", "user", Space::Kernel), None);
    }

    #[test]
    fn rust_paths_are_not_modules() {
        let table = PhaseTable::parse("a: vmm::run*\nb: exitpath:vmm::run2").unwrap();
        assert_eq!(
            phase(&table, "vmm::run1", "exitpath", Space::User).unwrap(),
            "a"
        );
        assert_eq!(
            phase(&table, "vmm::run2", "exitpath", Space::User).unwrap(),
            "b"
        );
    }

    #[test]
    fn a_phase_may_hold_only_behind_an_exit() {
        let table = PhaseTable::parse("before: run\nafter: run@exited").unwrap();
        assert_eq!(table.of("run", "kvm", Space::Kernel, false), Some(0));
        assert_eq!(table.of("run", "kvm", Space::Kernel, true), Some(1));
    }

    #[test]
    fn what_a_line_lacks_is_said() {
        assert_eq!(
            PhaseTable::parse("a: b\n\nc d").unwrap_err().to_string(),
            "line 3 of the table of phases: write a phase, a colon, and patterns"
        );
        for wrong in [": x", "a: kvm:", "a: f@entered", "a: @x"] {
            assert!(PhaseTable::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*_interception", "cr_interception", true),
            ("svm", "svm_x", false),
            ("*a*a*a", "aaaa", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
