//! What an examination consists of.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::reading::root::Unknown;

/// The longest a line of a finding may be, in characters; longer ones are cut.
const LINE_LIMIT_CHARS: usize = 400;

/// How much a finding weighs for someone who wants to measure exits here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be for measuring.
    Good,
    /// Good to know, or not known; figures stand.
    Note,
    /// Figures are noisier, or others than elsewhere, because of this.
    Warning,
    /// Figures measured here do not mean what they say, or nothing can be measured.
    Bad,
}

/// One thing found about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable, kebab-case; all of them are in [`findings`](crate::findings).
    pub id: &'static str,
    /// What it is about: a file, a module's parameter, a CPU feature. With `id`, unique.
    pub subject: String,
    /// How much it weighs.
    pub level: Level,
    /// What was found, one line.
    pub says: String,
    /// What to do about it, one line, with a command where there is one.
    pub advice: Option<String>,
}

impl Finding {
    pub(crate) fn new(
        id: &'static str,
        subject: impl AsRef<str>,
        level: Level,
        says: impl AsRef<str>,
    ) -> Self {
        Finding {
            id,
            subject: one_line(subject.as_ref()),
            level,
            says: one_line(says.as_ref()),
            advice: None,
        }
    }

    pub(crate) fn advice(mut self, advice: impl AsRef<str>) -> Self {
        self.advice = Some(one_line(advice.as_ref()));
        self
    }
}

/// Everything found out about one machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Examination {
    /// `topic.name` → value; units are in the name. A fact that is not known has the value
    /// `{"unknown": "reason"}`, see [`unknown_reason`].
    pub facts: BTreeMap<String, Value>,
    /// In the order in which a person wants to read them.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// The weightiest level there is, [`Level::Good`] if nothing was found.
    pub fn worst(&self) -> Level {
        self.findings
            .iter()
            .map(|finding| finding.level)
            .max()
            .unwrap_or(Level::Good)
    }

    /// The facts that could not be found out, each with the reason.
    pub fn unknown_facts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.facts
            .iter()
            .filter_map(|(key, value)| Some((key.as_str(), unknown_reason(value)?)))
    }

    pub(crate) fn fact(&mut self, key: &str, value: impl Into<Value>) {
        self.facts.insert(key.to_owned(), value.into());
    }

    /// Writes the fact down, known or not, and passes on the answer.
    pub(crate) fn record<T: Serialize>(
        &mut self,
        key: &str,
        answer: Result<T, Unknown>,
    ) -> Result<T, Unknown> {
        let value = match &answer {
            Ok(known) => json!(known),
            Err(unknown) => unknown_value(unknown),
        };
        self.facts.insert(key.to_owned(), value);
        answer
    }

    pub(crate) fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// A finding that says that something is not known, and why.
    pub(crate) fn find_unknown(&mut self, id: &'static str, subject: &str, unknown: &Unknown) {
        self.find(Finding::new(
            id,
            subject,
            Level::Note,
            format!("unknown: {unknown}"),
        ));
    }
}

/// The value of a fact that is not known.
pub(crate) fn unknown_value(unknown: &Unknown) -> Value {
    json!({ "unknown": unknown.to_string() })
}

/// Why this fact is not known; `None` if it is.
pub fn unknown_reason(value: &Value) -> Option<&str> {
    let object = value.as_object()?;
    if object.len() == 1 {
        object.get("unknown")?.as_str()
    } else {
        None
    }
}

/// No line breaks, no terminal control sequences, not endless.
fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if let Some((end, _)) = line.char_indices().nth(LINE_LIMIT_CHARS) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_written_in_lower_case() {
        assert!(Level::Good < Level::Note && Level::Note < Level::Warning);
        assert!(Level::Warning < Level::Bad);
        assert_eq!(json!(Level::Warning), json!("warning"));
    }

    #[test]
    fn a_finding_is_one_line_whatever_a_file_said() {
        let finding = Finding::new("x", "a\nb", Level::Note, "\x1b[2J".repeat(1000)).advice("c\rd");
        assert_eq!(finding.subject, "a b");
        assert_eq!(finding.advice.as_deref(), Some("c d"));
        assert!(finding.says.chars().count() <= LINE_LIMIT_CHARS + 1);
        assert!(!finding.says.contains('\x1b'));
    }

    #[test]
    fn unknown_facts_are_kept_with_their_reason() {
        let mut out = Examination::default();
        let absent = Unknown::Absent {
            path: "/x".to_owned(),
        };
        assert_eq!(out.record::<u8>("a.b", Err(absent.clone())), Err(absent));
        assert_eq!(out.record("a.c", Ok(3)), Ok(3));
        assert_eq!(
            out.unknown_facts().collect::<Vec<_>>(),
            [("a.b", "/x is absent")]
        );
        assert_eq!(out.facts["a.c"], json!(3));
    }

    #[test]
    fn the_worst_level_wins() {
        let mut out = Examination::default();
        assert_eq!(out.worst(), Level::Good);
        out.find(Finding::new("x", "", Level::Warning, ""));
        out.find(Finding::new("y", "", Level::Note, ""));
        assert_eq!(out.worst(), Level::Warning);
    }
}
