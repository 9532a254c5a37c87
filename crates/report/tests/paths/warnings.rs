//! What is wrong with the conditions of a trace stands beside its figures, in every form.

use exitpath_analysis::path::conditions;
use exitpath_analysis::path::diff::{PathDiff, Verdict};
use exitpath_report::views::Functions;
use exitpath_report::{json, views};

use crate::build::{cpuid, manifest};

const WARNING: &str = "vmscape=force did not come about: the kernel says 'Vulnerable' of vmscape";

#[test]
fn a_path_is_shown_with_its_warnings() {
    let mut manifest = manifest();
    manifest.warnings = vec![WARNING.to_owned()];
    let shown = views::path(&manifest, &cpuid(), Functions::default()).to_string();
    assert!(
        shown.contains("\nwarning: vmscape=force did not"),
        "{shown}"
    );
    let shown = views::tree(&manifest, &cpuid(), 0).to_string();
    assert!(
        shown.contains("\nwarning: vmscape=force did not"),
        "{shown}"
    );
    let object = json::path(&manifest, &cpuid(), None).render();
    let object: serde_json::Value = serde_json::from_str(&object).unwrap();
    assert_eq!(object["warnings"], serde_json::json!([WARNING]));
}

#[test]
fn a_difference_is_shown_with_the_warnings_of_both() {
    let (mut a, mut b) = (manifest(), manifest());
    a.warnings = vec!["both".to_owned(), "one".to_owned()];
    b.warnings = vec!["both".to_owned(), WARNING.to_owned()];
    let expected = [
        "a and b: both".to_owned(),
        "a: one".to_owned(),
        format!("b: {WARNING}"),
    ];
    assert_eq!(conditions::warnings(&a, &b), expected);
    let diff = PathDiff {
        verdict: Verdict::Same,
        notes: Vec::new(),
        rows: Vec::new(),
    };
    let shown = views::diff(&a, &b, &diff, Functions::default()).to_string();
    assert!(shown.contains("\nwarning: b: vmscape=force"), "{shown}");
    let shown = views::pull_request(&a, &b, &diff, Functions::default()).markdown();
    assert!(shown.contains("\n- warning: `b: vmscape=force"), "{shown}");
    let object = json::diff(&a, &b, &diff).render();
    let object: serde_json::Value = serde_json::from_str(&object).unwrap();
    assert_eq!(object["warnings"], serde_json::json!(expected));
}

#[test]
fn two_command_lines_that_come_to_one_condition_are_told() {
    let with = |cmdline: &str, vmscape: &str| {
        let mut manifest = manifest();
        let environment = &mut manifest.environment;
        environment.cmdline = cmdline.to_owned();
        let states = serde_json::json!({ "vmscape": vmscape });
        let facts = &mut environment.facts;
        facts.insert("mitigations.vulnerabilities".to_owned(), states);
        manifest
    };
    let plain = with("quiet", "Vulnerable");
    let told = conditions::warnings(&plain, &with("quiet vmscape=force", "Vulnerable"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].ends_with("it says the same of vulnerabilities"),
        "{told:?}"
    );
    // One that shows, none that was asked for, and another kernel.
    let shows = with(
        "quiet vmscape=force",
        "Mitigation: IBPB before exit to userspace",
    );
    let mut other = with("quiet vmscape=force", "Vulnerable");
    other.environment.kernel = "7.3".to_owned();
    for b in [shows, plain.clone(), other] {
        assert!(conditions::warnings(&plain, &b).is_empty());
    }
}
