//! What a machine can be trusted for, as one JSON object.

use exitpath_host::Examination;
use serde_json::json;

/// The object as text: `worst`, the worst level; `findings`; and `facts`, by name.
pub fn doctor(examination: &Examination) -> String {
    super::render(&json!({
        "worst": examination.worst(),
        "findings": examination.findings,
        "facts": examination.facts,
    }))
}
