//! What is said of a row is said of its own runs: the rows beside it do not change it.

use std::path::Path;

use exitpath_analysis::kick::kicks;
use exitpath_analysis::table::summarise;
use exitpath_recording::Recording;
use proptest::prelude::*;

/// The recordings that are checked in.
fn recordings() -> Vec<(String, Recording)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings");
    let folders = std::fs::read_dir(folder).expect("the recordings");
    let mut found: Vec<_> = folders
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .map(|path| {
            let recording = exitpath_store::read(&path).expect("a recording");
            (path.display().to_string(), recording)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() >= 6, "{}", found.len());
    found
}

/// The same with these rows only, in this order.
fn of_rows(recording: &Recording, rows: &[usize]) -> Recording {
    let mut some = recording.clone();
    let all = &recording.manifest.rows;
    some.manifest.rows = rows.iter().map(|&at| all[at].clone()).collect();
    let names: Vec<&str> = rows.iter().map(|&at| all[at].name.as_str()).collect();
    some.runs.retain(|run| names.contains(&run.row.as_str()));
    some
}

#[test]
fn a_row_alone_is_what_it_is_in_company() {
    for (name, recording) in recordings() {
        let in_company = summarise(&recording);
        let lines = kicks(&recording);
        for (at, expected) in in_company.iter().enumerate() {
            let alone = of_rows(&recording, &[at]);
            assert_eq!(summarise(&alone), std::slice::from_ref(expected), "{name}");
            // A line of `kick` as well, but for those beside it.
            let row = &expected.row.name;
            let line = |kicks: &exitpath_analysis::kick::Kicks| {
                let mut lines = kicks.lines();
                lines.find(|line| line.summary.row.name == *row).cloned()
            };
            if let Some(alone) = line(&kicks(&alone)) {
                assert_eq!(Some(alone), line(&lines), "{name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rows_in_any_company_are_what_they_are(picks in prop::collection::vec(any::<prop::sample::Index>(), 1..6)) {
        for (name, recording) in recordings() {
            let all = summarise(&recording);
            let mut rows: Vec<usize> = picks.iter().map(|pick| pick.index(all.len())).collect();
            rows.sort_unstable();
            rows.dedup();
            rows.reverse();
            let expected: Vec<_> = rows.iter().map(|&at| all[at].clone()).collect();
            prop_assert_eq!(summarise(&of_rows(&recording, &rows)), expected, "{}", name);
        }
    }
}
