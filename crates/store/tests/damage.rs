//! Recordings that are not as they were written: an error, never a panic, never other data.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::{FILES, TRACED_FILES, names, small, traced};
use exitpath_recording::{Recording, Trace};
use exitpath_store::{Error, read, write};
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};

/// A folder with the traced recording in it.
fn written() -> (TempDir, PathBuf) {
    // Copied, because every `write` waits for the disk.
    static BYTES: LazyLock<[Vec<u8>; TRACED_FILES.len()]> = LazyLock::new(|| {
        let folder = tempdir().unwrap();
        let dir = folder.path().join("recording");
        write(&dir, &traced()).unwrap();
        TRACED_FILES.map(|name| fs::read(dir.join(name)).unwrap())
    });
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    fs::create_dir(&dir).unwrap();
    for (name, bytes) in TRACED_FILES.iter().zip(&*BYTES) {
        fs::write(dir.join(name), bytes).unwrap();
    }
    (folder, dir)
}

/// What `read` says, seen to be one line that names the folder.
fn error(dir: &Path) -> Error {
    let error = read(dir).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text:?}");
    assert!(text.contains(dir.to_str().unwrap()), "{text:?}");
    assert!(text.contains("; "), "no word on what to do: {text:?}");
    error
}

/// Replaces text in the manifest, leaving its checksums as they were.
fn edit_manifest(dir: &Path, from: &str, to: &str) {
    let path = dir.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "no {from} in {text}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

/// Changes `manifest.json` and its checksums with it, as a newer exitpath would have written it, or one who
/// wants to harm.
fn rewrite_manifest(dir: &Path, from: &str, to: &str) {
    edit_manifest(dir, from, to);
    let path = dir.join("manifest.json");
    let mut text = fs::read_to_string(&path).unwrap();
    for (key, end) in [("groups", "\n  ]"), ("manifest", "\n  }")] {
        let begin = format!("\n  \"{key}\": ");
        let begin = text.find(&begin).unwrap() + begin.len();
        let end = begin + text[begin..].find(end).unwrap() + end.len();
        let sha256 = format!("{:x}", Sha256::digest(&text.as_bytes()[begin..end]));
        let sum = format!("\"{key}_sha256\": \"");
        let at = text.find(&sum).unwrap() + sum.len();
        text.replace_range(at..at + sha256.len(), &sha256);
    }
    fs::write(&path, text).unwrap();
}

/// Puts other bytes in the place of a table and makes the manifest agree with them, as one would
/// who wants to harm.
fn forge(dir: &Path, name: &str, bytes: &[u8]) {
    let manifest = fs::read(dir.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let groups = manifest["groups"].as_array().unwrap().iter();
    let mut tables = groups.flat_map(|group| group["tables"].as_array().unwrap());
    let entry = tables.find(|entry| entry["name"] == name).unwrap();
    let (old_bytes, old_sha256) = (&entry["bytes"], &entry["sha256"]);
    let sha256 = format!("{:x}", Sha256::digest(bytes));
    rewrite_manifest(
        dir,
        &format!("\"bytes\": {old_bytes},\n          \"sha256\": {old_sha256}"),
        &format!(
            "\"bytes\": {},\n          \"sha256\": \"{sha256}\"",
            bytes.len()
        ),
    );
    fs::write(dir.join(name), bytes).unwrap();
}

/// Something done to a file.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Truncate(Index),
    Remove(Index, u8),
    Repeat(Index, u8),
    Insert(Index, Vec<u8>),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => any::<(Index, u8)>().prop_map(|(at, with)| Change::Flip(at, with)),
        4 => any::<(Index, u8)>().prop_map(|(at, with)| Change::Set(at, with)),
        1 => any::<Index>().prop_map(Change::Truncate),
        1 => any::<(Index, u8)>().prop_map(|(at, n)| Change::Remove(at, n)),
        1 => any::<(Index, u8)>().prop_map(|(at, n)| Change::Repeat(at, n)),
        1 => any::<(Index, Vec<u8>)>().prop_map(|(at, with)| Change::Insert(at, with)),
    ];
    proptest::collection::vec(change, 1..4)
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    let (Change::Flip(at, _)
    | Change::Set(at, _)
    | Change::Truncate(at)
    | Change::Remove(at, _)
    | Change::Repeat(at, _)
    | Change::Insert(at, _)) = change;
    if bytes.is_empty() {
        return;
    }
    let at = at.index(bytes.len());
    let up_to = |n: u8| bytes.len().min(at + usize::from(n));
    match change {
        Change::Flip(_, with) => bytes[at] ^= with,
        Change::Set(_, with) => bytes[at] = *with,
        Change::Truncate(_) => bytes.truncate(at),
        Change::Remove(_, n) => _ = bytes.drain(at..up_to(*n)),
        Change::Repeat(_, n) => {
            let part = bytes[at..up_to(*n)].to_vec();
            bytes.splice(at..at, part);
        }
        Change::Insert(_, with) => _ = bytes.splice(at..at, with.iter().copied()),
    }
}

proptest! {
    #[test]
    fn changed_files_are_an_error_or_the_same(file in 0..TRACED_FILES.len(), changes in changes()) {
        let (_folder, dir) = written();
        let path = dir.join(TRACED_FILES[file]);
        let mut bytes = fs::read(&path).unwrap();
        changes.iter().for_each(|it| change(&mut bytes, it));
        fs::write(&path, bytes).unwrap();
        if let Ok(recording) = read(&dir) {
            prop_assert_eq!(recording, traced());
        }
    }

    /// With checksums that agree the data may be other, but there is no panic.
    #[test]
    fn forged_tables_are_no_panic(file in 0..TRACED_FILES.len() - 1, changes in changes()) {
        let (_folder, dir) = written();
        let name = TRACED_FILES[file];
        let mut bytes = fs::read(dir.join(name)).unwrap();
        changes.iter().for_each(|it| change(&mut bytes, it));
        forge(&dir, name, &bytes);
        if let Err(error) = read(&dir) {
            prop_assert!(!error.to_string().contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn no_manifest_is_a_panic(bytes in any::<Vec<u8>>()) {
        let (_folder, dir) = written();
        fs::write(dir.join("manifest.json"), bytes).unwrap();
        error(&dir);
    }
}

/// Whether each of these files, with a bit of any byte flipped, is an error or what it was.
fn flip_each_byte(dir: &Path, files: &[&str], recording: &Recording) {
    for name in files {
        let whole = fs::read(dir.join(name)).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(dir.join(name), &bytes).unwrap();
            if let Ok(read) = read(dir) {
                assert!(read == *recording, "{name}, byte {at}");
                assert_eq!(*name, "manifest.json");
            }
        }
        fs::write(dir.join(name), &whole).unwrap();
    }
    assert_eq!(read(dir).unwrap(), *recording);
}

#[test]
fn any_flipped_byte_is_an_error_or_the_same() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    write(&dir, &small()).unwrap();
    flip_each_byte(&dir, &FILES, &small());
    // The other tables are the same in both.
    let (_folder, dir) = written();
    flip_each_byte(&dir, &TRACED_FILES[4..], &traced());
}

#[test]
fn any_truncated_file_is_an_error() {
    let (_folder, dir) = written();
    for name in TRACED_FILES {
        let whole = fs::read(dir.join(name)).unwrap();
        // Only the manifest has no length said elsewhere; a few of the others' will do.
        let step = if name == "manifest.json" { 1 } else { 7 };
        // The manifest's last byte is a line feed that it can do without.
        for length in (0..whole.len() - 1).step_by(step) {
            fs::write(dir.join(name), &whole[..length]).unwrap();
            let error = error(&dir);
            assert!(matches!(error, Error::Altered { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        fs::write(dir.join(name), &whole).unwrap();
    }
}

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
                exits.push(exitpath_recording::Exit {
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

/// The recordings of older versions that there are.
fn made(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/recordings")
        .join(name)
}

/// A copy of a recording that is in the repository.
fn copied(name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
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
            .push(exitpath_recording::Difference::Patch {
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

#[test]
fn runs_are_of_conditions_that_the_manifest_describes() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    let base = exitpath_recording::Condition::base;
    let unnamed = exitpath_recording::Condition {
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

#[test]
fn files_of_others_in_the_folder_are_left_alone() {
    let (_folder, dir) = written();
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    assert_eq!(read(&dir).unwrap(), traced());
    assert!(names(&dir).contains(&"notes.txt".into()));
}
