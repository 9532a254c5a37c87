//! Settings are put back. In a process of their own: tests beside them look which descriptors are open.

use std::fs;
use std::path::{Path, PathBuf};

use exitpath_experiment::host::journal::{Journal, replay};

fn settings(dir: &Path) -> [PathBuf; 2] {
    let (plain, chosen) = (dir.join("plain"), dir.join("chosen"));
    fs::write(&plain, "200000\n").expect("a file");
    fs::write(&chosen, "always [madvise] never\n").expect("a file");
    [plain, chosen]
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("a file").trim().to_owned()
}

#[test]
fn settings_are_put_back_when_told_and_when_it_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let [plain, chosen] = settings(dir.path());
    let mut journal = Journal::new(&dir.path().join("state")).expect("a journal");
    journal.set(&plain, "0").expect("set");
    journal.set(&plain, "5").expect("set");
    assert_eq!(text(&plain), "5");
    journal.restore().expect("restored");
    assert_eq!(text(&plain), "200000");
    journal.set(&chosen, "never").expect("set");
    drop(journal);
    assert_eq!(text(&chosen), "madvise");
    let left = fs::read_dir(dir.path().join("state"))
        .expect("a folder")
        .count();
    assert_eq!(left, 0);
}

#[test]
fn what_a_killed_one_left_is_put_back_and_what_a_living_one_holds_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = dir.path().join("state");
    let [plain, _] = settings(dir.path());
    let mut journal = Journal::new(&state).expect("a journal");
    journal.set(&plain, "0").expect("set");
    assert!(replay(&state).is_empty());
    assert_eq!(text(&plain), "0");
    // As if it had been killed: the lock goes, and nothing else is done.
    let path = state.join(format!("journal-{}", std::process::id()));
    let copy = fs::read(&path).expect("the journal");
    drop(journal);
    fs::write(&plain, "0").expect("a file");
    fs::write(&path, copy).expect("the journal");
    let said = replay(&state);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("200000 again"), "{said:?}");
    assert_eq!(text(&plain), "200000");
    assert!(replay(&state).is_empty());
}

#[test]
fn what_does_not_take_is_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut journal = Journal::new(dir.path()).expect("a journal");
    let nowhere = journal.set(&dir.path().join("nowhere"), "0");
    assert!(nowhere.is_err());
}
