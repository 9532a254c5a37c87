//! Folders and files that are not there, are no recording, or are more than one.

use std::fs;

use exitpath_store::{Error, read};
use tempfile::tempdir;

use crate::common::by_hand::traced;
use crate::common::{TRACED_FILES, names};
use crate::{edit_manifest, error, written};

#[test]
fn what_is_no_recording_is_told_apart() {
    let folder = tempdir().unwrap();
    let missing = error(&folder.path().join("nowhere"));
    assert!(matches!(missing, Error::NoSuchFolder { .. }), "{missing}");

    let empty = error(folder.path());
    assert!(matches!(empty, Error::NotARecording { .. }), "{empty}");
    assert!(
        empty.to_string().contains("it has no manifest.json"),
        "{empty}"
    );

    let (_folder, dir) = written();
    let file = error(&dir.join("manifest.json"));
    assert!(matches!(file, Error::NotAFolder { .. }), "{file}");

    for other in [
        r#"{"name": "a web page"}"#,
        r#"{"format": 1}"#,
        "[]",
        "null",
    ] {
        fs::write(dir.join("manifest.json"), other).unwrap();
        let other = error(&dir);
        assert!(matches!(other, Error::NotARecording { .. }), "{other}");
    }

    fs::remove_file(dir.join("manifest.json")).unwrap();
    fs::create_dir(dir.join("manifest.json")).unwrap();
    let folder = error(&dir);
    assert!(matches!(folder, Error::Read { .. }), "{folder}");
}

#[test]
fn damage_names_the_file() {
    for name in &TRACED_FILES[..10] {
        let (_folder, dir) = written();
        fs::remove_file(dir.join(name)).unwrap();
        let missing = error(&dir);
        assert!(matches!(missing, Error::Altered { .. }), "{missing}");
        assert!(missing.to_string().contains(name), "{missing}");
        assert!(missing.to_string().contains("missing"), "{missing}");
    }
    let (_folder, dir) = written();
    edit_manifest(&dir, "EPYC-Milan", "EPYC-Genoa");
    let edited = error(&dir);
    assert!(matches!(edited, Error::Altered { .. }), "{edited}");
    assert!(edited.to_string().contains("manifest.json"), "{edited}");
}

#[test]
fn files_of_others_in_the_folder_are_left_alone() {
    let (_folder, dir) = written();
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    assert_eq!(read(&dir).unwrap(), traced());
    assert!(names(&dir).contains(&"notes.txt".into()));
}
