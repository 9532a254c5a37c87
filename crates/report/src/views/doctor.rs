//! What a machine can be trusted for.

use exitpath_host::{Examination, Level};

use crate::document::Document;

/// The findings, the worst first; those that are as they should be are counted, unless `all` are wanted.
pub fn doctor(examination: &Examination, all: bool) -> Document {
    let mut findings: Vec<_> = examination.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let mut text = Document::new();
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
        text.lines(&format!("{level:8}{}: {}\n", finding.subject, finding.says));
        if let Some(advice) = &finding.advice {
            text.lines(&format!("        → {advice}\n"));
        }
    }
    if good > 0 {
        text.lines(&format!(
            "{good} findings are as they should be (--all shows them)\n"
        ));
    }
    text
}
