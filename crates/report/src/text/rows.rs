//! The rows there are.

use std::fmt::Write;

use exitpath_exits::Row;
use exitpath_exits::reasons::Reasons;

use crate::layout::Text;

/// One line for each of these: what one operation is, and why the guest exits on SVM and on VMX.
pub fn rows<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Text {
    let mut text = Text::new();
    for row in rows {
        let Reasons {
            svm,
            vmx,
            virtual_apic,
        } = row.reasons;
        let _ = write!(text, "{:<30}{}", row.name, row.operation);
        if !svm.is_empty() {
            let _ = write!(text, "  [SVM: {}; VMX: {}", svm.join(" "), vmx.join(" "));
            if !virtual_apic.is_empty() {
                let _ = write!(text, "; virtual APIC: {}", virtual_apic.join(" "));
            }
            text.push(']');
        }
        text.push('\n');
    }
    text
}
