//! Tables that do not belong together, or say what cannot be.

use std::fs;
use std::path::PathBuf;

use exitpath_recording::{Condition, Exit, Trace};
use exitpath_store::{Error, write};
use tempfile::{TempDir, tempdir};

use crate::common::by_hand::{small, traced};
use crate::{error, forge, rewrite_manifest, written};

#[test]
fn tables_that_do_not_belong_together_are_inconsistent() {
    let mut other = traced();
    other.runs[2].id = 9;
    other.trace.as_mut().unwrap().windows[0].run = 9;
    let folder = tempdir().unwrap();
    let other_dir = folder.path().join("other");
    write(&other_dir, &other).unwrap();
    for name in [
        "counters.parquet",
        "samples.parquet",
        "batches.parquet",
        "windows.parquet",
    ] {
        let (_folder, dir) = written();
        forge(&dir, name, &fs::read(other_dir.join(name)).unwrap());
        let stray = error(&dir);
        assert!(matches!(stray, Error::Inconsistent { .. }), "{stray}");
        assert!(stray.to_string().contains("run 9"), "{stray}");
        assert!(stray.to_string().contains(name), "{stray}");
    }

    let (_folder, dir) = written();
    forge(
        &dir,
        "samples.parquet",
        &fs::read(other_dir.join("batches.parquet")).unwrap(),
    );
    let columns = error(&dir);
    assert!(columns.to_string().contains("its columns"), "{columns}");

    for (rows, said) in [
        (2, "not the 2 rows"),
        (4, "1 rows fewer"),
        (u64::MAX, "more than"),
    ] {
        let (_folder, dir) = written();
        rewrite_manifest(&dir, "\"rows\": 3,", &format!("\"rows\": {rows},"));
        let miscounted = error(&dir);
        assert!(
            matches!(miscounted, Error::Inconsistent { .. }),
            "{miscounted}"
        );
        assert!(miscounted.to_string().contains(said), "{miscounted}");
    }

    let (_folder, dir) = written();
    rewrite_manifest(&dir, "counters.parquet", "contours.parquet");
    assert!(matches!(error(&dir), Error::Inconsistent { .. }));
}

/// The traced recording with one table as it would be had this been done to the trace.
fn with_table_of(name: &str, change: fn(&mut Trace)) -> (TempDir, PathBuf) {
    let mut other = traced();
    change(other.trace.as_mut().unwrap());
    let folder = tempdir().unwrap();
    let other_dir = folder.path().join("other");
    write(&other_dir, &other).unwrap();
    let written = fs::read(other_dir.join("manifest.json")).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
    let (folder, dir) = self::written();
    forge(&dir, name, &fs::read(other_dir.join(name)).unwrap());
    let rows = |manifest: &serde_json::Value| {
        let groups = manifest["groups"].as_array().unwrap().iter();
        let mut tables = groups.flat_map(|group| group["tables"].as_array().unwrap());
        let entry = tables.find(|entry| entry["name"] == name).unwrap();
        format!(
            "\"name\": \"{name}\",\n          \"rows\": {},",
            entry["rows"]
        )
    };
    let manifest = fs::read(dir.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    rewrite_manifest(&dir, &rows(&manifest), &rows(&written));
    (folder, dir)
}

#[test]
fn traces_whose_tables_do_not_belong_together_are_inconsistent() {
    type Case = (&'static str, fn(&mut Trace), &'static str, &'static str);
    // Which table is another one's, how that differs, which table is then wrong, and why.
    let cases: [Case; 5] = [
        (
            "instructions.parquet",
            |it| {
                it.instructions.truncate(3);
                it.paths.iter_mut().for_each(|path| path.blocks.truncate(1));
                it.paths[2].blocks[0].count = 1;
                it.locations.clear();
            },
            "paths.parquet",
            "block 1 of path 1 is 2 instructions from 2 of 3",
        ),
        (
            "paths.parquet",
            |it| {
                it.paths.truncate(2);
                it.windows.truncate(1);
                it.windows[0].segments.truncate(2);
                it.windows[0].exits.as_mut().unwrap().truncate(1);
                it.windows[0].segments[0].path = 0;
            },
            "windows.parquet",
            "segment 0 of run 2 takes path 2 of 2",
        ),
        (
            "windows.parquet",
            |it| {
                it.paths.push(it.paths[0].clone());
                it.windows[1].segments[0].path = 3;
            },
            "windows.parquet",
            "segment 0 of run 0 takes path 3 of 3",
        ),
        (
            "exits.parquet",
            |it| {
                let window = &mut it.windows[0];
                window.segments.push(window.segments[0]);
                let exits = window.exits.as_mut().unwrap();
                exits.push(Exit {
                    segment: 5,
                    ..exits[0]
                });
            },
            "exits.parquet",
            "exit 3 of run 2 is in segment 5 of 5",
        ),
        (
            "locations.parquet",
            |it| {
                it.instructions.push(it.instructions[0].clone());
                it.locations[2].instruction = 4;
            },
            "locations.parquet",
            "a location of instruction 4 of 4",
        ),
    ];
    for (name, change, wrong, said) in cases {
        let (_folder, dir) = with_table_of(name, change);
        let error = error(&dir);
        assert!(matches!(error, Error::Inconsistent { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(wrong) && text.contains(said), "{text}");
    }
}

#[test]
fn traces_that_say_what_cannot_be_are_inconsistent() {
    // Values stand in a table's dictionary as they are: here the sizes of `main` and `_stext`.
    let sizes = |it: u64| [it.to_le_bytes(), 16_u64.to_le_bytes()].concat();
    let cases: [(&str, Vec<u8>, Vec<u8>, &str); 3] = [
        (
            "symbols.parquet",
            b"kernel".to_vec(),
            b"kernal".to_vec(),
            "the space of a symbol \"kernal\"",
        ),
        (
            "symbols.parquet",
            sizes(32),
            sizes(u64::MAX),
            "reaches beyond the last address",
        ),
        (
            "windows.parquet",
            b"between".to_vec(),
            b"betwixt".to_vec(),
            "the part of a sample \"betwixt\"",
        ),
    ];
    for (name, from, to, said) in cases {
        let (_folder, dir) = written();
        let mut bytes = fs::read(dir.join(name)).unwrap();
        let at = bytes.windows(from.len()).position(|it| it == from);
        let at = at.unwrap_or_else(|| panic!("no {from:?} in {name}"));
        bytes[at..at + to.len()].copy_from_slice(&to);
        forge(&dir, name, &bytes);
        let error = error(&dir);
        let newer = matches!(error, Error::NewerValue { .. });
        assert!(
            newer || matches!(error, Error::Inconsistent { .. }),
            "{error}"
        );
        // What is no number may be a word that came later.
        assert_eq!(newer, said.ends_with('"'), "{error}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(said), "{text}");
    }
}

#[test]
fn runs_are_of_conditions_that_the_manifest_describes() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    let base = Condition::base;
    let unnamed = Condition {
        name: String::new(),
        ..base()
    };
    for conditions in [vec![], vec![base(), base()], vec![base(), unnamed]] {
        let mut recording = small();
        recording.manifest.conditions = conditions;
        let refused = write(&dir, &recording).unwrap_err();
        assert!(matches!(refused, Error::Unstorable { .. }), "{refused}");
    }
    let mut recording = small();
    recording.runs[0].condition = "another".into();
    let refused = write(&dir, &recording).unwrap_err().to_string();
    assert!(refused.contains("condition \"another\""), "{refused}");
}
