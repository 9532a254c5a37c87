//! The rows there are.

use std::fmt::Write;

use exitpath_exits::Row;
use exitpath_exits::reasons::Reasons;

use crate::document::Document;

/// One line for each of these: what one operation is, and why the guest exits on SVM and on VMX.
pub fn rows<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Document {
    let mut text = Document::new();
    for row in rows {
        let Reasons {
            svm,
            vmx,
            virtual_apic,
        } = row.reasons;
        let mut line = format!("{:<30}{}", row.name, row.operation);
        if !svm.is_empty() {
            let _ = write!(line, "  [SVM: {}; VMX: {}", svm.join(" "), vmx.join(" "));
            if !virtual_apic.is_empty() {
                let _ = write!(line, "; virtual APIC: {}", virtual_apic.join(" "));
            }
            line.push(']');
        }
        line.push('\n');
        text.lines(&line);
    }
    text
}
