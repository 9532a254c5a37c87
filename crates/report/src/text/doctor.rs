//! What a machine can be trusted for.

use std::fmt::Write;

use exitpath_host::{Examination, Level};

use crate::layout::Text;

/// The findings, the worst first; those that are as they should be are counted, unless `all` are wanted.
pub fn doctor(examination: &Examination, all: bool) -> Text {
    let mut findings: Vec<_> = examination.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let mut text = Text::new();
    let mut good = 0;
    for finding in findings {
        if finding.level == Level::Good && !all {
            good += 1;
            continue;
        }
        let level = match finding.level {
            Level::Good => "good",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Bad => "bad",
        };
        let _ = writeln!(text, "{level:8}{}: {}", finding.subject, finding.says);
        if let Some(advice) = &finding.advice {
            let _ = writeln!(text, "        → {advice}");
        }
    }
    if good > 0 {
        let _ = writeln!(
            text,
            "{good} findings are as they should be (--all shows them)"
        );
    }
    text
}
