//! Recordings of other versions, and with groups and words that are not known.

use std::fs;
use std::path::{Path, PathBuf};

use exitpath_recording::Difference;
use exitpath_store::{Error, read, write};
use tempfile::{TempDir, tempdir};

use crate::common::by_hand::small;
use crate::{edit_manifest, error, rewrite_manifest, written};

#[test]
fn newer_recordings_are_told_apart_whatever_they_hold() {
    let (_folder, dir) = written();
    edit_manifest(&dir, "\"version\": 4", "\"version\": 7");
    let newer = error(&dir);
    assert!(
        matches!(
            newer,
            Error::Newer {
                found: 7,
                supported: 4,
                ..
            }
        ),
        "{newer}"
    );
    assert!(newer.to_string().contains("version 7"), "{newer}");
    assert!(newer.to_string().contains("up to 4"), "{newer}");

    let text = r#"{"format": "exitpath-recording", "version": 5, "groups": "elsewhere"}"#;
    fs::write(dir.join("manifest.json"), text).unwrap();
    assert!(matches!(error(&dir), Error::Newer { found: 5, .. }));
}

/// The recordings of older versions that there are.
fn made(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/recordings")
        .join(name)
}

/// A copy of a recording that is in the repository.
fn copied(name: &str) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    fs::create_dir(&dir).unwrap();
    for entry in fs::read_dir(made(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    (folder, dir)
}

#[test]
fn tables_are_those_of_the_version() {
    // What is called older or newer than it is has not the tables that it should.
    for (name, from, to, said) in [
        ("trace-6.1-qemu7.2", 2, 1, "more tables"),
        ("lab-6.1-qemu7.2", 1, 2, "instructions.parquet"),
        ("trace-6.1-qemu7.2", 2, 3, "exits.parquet"),
    ] {
        let (_folder, dir) = copied(name);
        edit_manifest(
            &dir,
            &format!("\"version\": {from}"),
            &format!("\"version\": {to}"),
        );
        let error = error(&dir);
        assert!(matches!(error, Error::Inconsistent { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    for (from, to) in [
        ("symbols.parquet", "cymbals.parquet"),
        ("\"name\": \"exits\"", "\"name\": \"trace\""),
    ] {
        let (_folder, dir) = written();
        rewrite_manifest(&dir, from, to);
        assert!(matches!(error(&dir), Error::Inconsistent { .. }));
    }
    // One layout is none of the other's.
    let (_folder, dir) = written();
    edit_manifest(&dir, "\"version\": 4", "\"version\": 3");
    assert!(matches!(error(&dir), Error::Altered { .. }));

    for version in ["0", "-1", "1.5", "null", "\"2\""] {
        let (_folder, dir) = written();
        edit_manifest(&dir, "\"version\": 4", &format!("\"version\": {version}"));
        let never = error(&dir);
        assert!(matches!(never, Error::Altered { .. }), "{never}");
    }
}

#[test]
fn a_group_that_is_not_known_is_left_alone_and_said() {
    let (_folder, dir) = written();
    rewrite_manifest(&dir, "\"name\": \"exits\"", "\"name\": \"histograms\"");
    let read = read(&dir).unwrap();
    let [.., said] = read.manifest.warnings.as_slice() else {
        panic!("nothing is said");
    };
    assert!(said.contains("histograms"), "{said}");
    let trace = read.trace.unwrap();
    assert!(!trace.windows.is_empty() && !trace.knows_exits());
}

#[test]
fn a_group_without_the_one_it_needs_is_inconsistent() {
    for (group, said) in [("runs", "no tables of runs"), ("trace", "none of trace")] {
        let (_folder, dir) = written();
        let name = format!("\"name\": \"{group}\"");
        rewrite_manifest(&dir, &name, "\"name\": \"others\"");
        let error = error(&dir);
        assert!(matches!(error, Error::Inconsistent { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn words_that_are_not_known_are_a_newer_exitpaths() {
    for (from, to, said) in [
        ("\"machine\": \"lab\"", "\"machine\": \"moon\"", "`moon`"),
        (
            "\"machine_kind\": \"svm\"",
            "\"machine_kind\": \"vmx\"",
            "`vmx`",
        ),
        (
            "{\n            \"patch\": ",
            "{\n            \"hatch\": ",
            "`hatch`",
        ),
    ] {
        let folder = tempdir().unwrap();
        let dir = folder.path().join("recording");
        let mut recording = small();
        recording.manifest.conditions[0]
            .differs
            .push(Difference::Patch {
                function: "f".into(),
                returns: None,
            });
        write(&dir, &recording).unwrap();
        rewrite_manifest(&dir, from, to);
        let error = error(&dir);
        assert!(matches!(error, Error::NewerValue { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(said) && text.contains("newer exitpath"),
            "{text}"
        );
    }
}
