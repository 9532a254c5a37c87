//! What is written is what is read, to the last bit, and a folder is never taken by surprise.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use common::arbitrary::recordings;
use common::by_hand::{small, traced};
use common::{FILES, TRACED_FILES, names};
use exitpath_recording::{
    Batch, Block, Condition, Part, Recording, Sample, Segment, Symbol, Trace,
};
use exitpath_store::{Error, check_writable, file_names, from_files, read, write};
use proptest::prelude::*;
use tempfile::tempdir;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_recording_is_read_as_it_was_written(recording in recordings()) {
        let folder = tempdir().unwrap();
        let dir = folder.path().join("recording");
        write(&dir, &recording).unwrap();
        prop_assert_eq!(read(&dir).unwrap(), recording);
        prop_assert_eq!(names(folder.path()), ["recording"]);
    }
}

/// Whoever carries files from one place to another knows their names by this list alone.
#[test]
fn a_recording_is_whole_by_the_files_that_are_named() {
    let folder = tempdir().unwrap();
    for recording in [small(), traced()] {
        let dir = folder.path().join(recording.runs.len().to_string());
        let dir = dir.with_extension(recording.trace.is_some().to_string());
        write(&dir, &recording).unwrap();
        let files = file_names().filter_map(|name| {
            let bytes = fs::read(dir.join(name)).ok()?;
            Some((name.to_owned(), bytes))
        });
        let files: BTreeMap<String, Vec<u8>> = files.collect();
        assert_eq!(files.len(), names(&dir).len());
        assert_eq!(from_files(&dir, &files).unwrap(), recording);
    }
}

#[test]
fn tables_longer_than_a_row_group_are_read_as_written() {
    let mut recording = small();
    let ticks = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (i % 64);
    let length = (1 << 20) + 4321;
    recording.runs[0].samples = (0..length)
        .map(|i| Sample {
            empty: ticks(i),
            op: ticks(i + 1),
        })
        .collect();
    recording.runs[2].batches = (0..1000)
        .map(|i| Batch {
            n: i,
            empty_n: 1,
            empty_2n: 2,
            op_n: ticks(i),
            op_2n: !i,
        })
        .collect();
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    write(&dir, &recording).unwrap();
    assert!(read(&dir).unwrap() == recording);
}

#[test]
fn a_path_and_a_window_longer_than_a_row_group_are_read_as_written() {
    let mut recording = traced();
    let trace = recording.trace.as_mut().unwrap();
    let block = |i: u32| Block {
        cpu: i % 2,
        first: i % 3,
        count: 1 + i % 2,
    };
    let length = (1 << 20) + 4321;
    trace.paths[1].blocks = (0..length).map(block).collect();
    let segments = trace.windows[0].segments.clone();
    let segments = segments.into_iter().cycle().take(length as usize);
    trace.windows[0].segments = segments.collect();
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    write(&dir, &recording).unwrap();
    assert!(read(&dir).unwrap() == recording);
}

#[test]
fn a_recording_without_runs_or_rows_is_one() {
    let mut recording = small();
    recording.runs.clear();
    recording.manifest.rows.clear();
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    write(&dir, &recording).unwrap();
    assert_eq!(read(&dir).unwrap(), recording);
}

#[test]
fn the_same_recording_makes_the_same_bytes() {
    let folder = tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    write(&a, &traced()).unwrap();
    write(&b, &traced()).unwrap();
    for name in TRACED_FILES {
        assert_eq!(
            fs::read(a.join(name)).unwrap(),
            fs::read(b.join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_recording_is_exactly_its_files_and_readable_by_others() {
    let folder = tempdir().unwrap();
    let [without, with] = ["without", "with"].map(|name| folder.path().join(name));
    write(&without, &small()).unwrap();
    let mut files = FILES.map(String::from);
    files.sort();
    assert_eq!(names(&without), files);
    write(&with, &traced()).unwrap();
    let mut files = TRACED_FILES.map(String::from);
    files.sort();
    assert_eq!(names(&with), files);
    // As permissive as any folder made here, whatever the umask is.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&without), mode(&other));
}

/// The format version a recording says it has.
fn version(dir: &Path) -> u64 {
    let manifest = fs::read(dir.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest["version"].as_u64().unwrap()
}

#[test]
fn a_recording_has_the_groups_that_there_is_something_of() {
    let folder = tempdir().unwrap();
    let empty = Recording {
        trace: Some(Trace::default()),
        ..small()
    };
    let mut without_reasons = traced();
    let windows = without_reasons.trace.iter_mut();
    let windows = windows.flat_map(|trace| &mut trace.windows);
    windows.for_each(|window| window.exits = None);
    for (name, recording, groups) in [
        ("without", small(), &["runs"][..]),
        ("with", traced(), &["runs", "trace", "exits"]),
        ("without-reasons", without_reasons, &["runs", "trace"]),
        ("empty", empty, &["runs", "trace"]),
    ] {
        let dir = folder.path().join(name);
        write(&dir, &recording).unwrap();
        let manifest = fs::read(dir.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let of_file = manifest["groups"].as_array().unwrap().iter();
        let of_file: Vec<_> = of_file
            .map(|group| group["name"].as_str().unwrap())
            .collect();
        assert_eq!(of_file, groups, "{name}");
        assert_eq!(version(&dir), 4, "{name}");
        assert_eq!(read(&dir).unwrap(), recording, "{name}");
    }
}

#[test]
fn recordings_of_older_versions_are_read_and_written_as_the_newest() {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings");
    for (name, of_then, kind, traced) in [
        ("lab-6.1-qemu7.2", 1, "svm", false),
        ("host-in-lab-6.1-qemu7.2", 1, "host", false),
        ("kick-6.1-qemu7.2", 1, "svm", false),
        ("userspace-6.1-qemu7.2", 2, "svm", true),
        ("trace-6.1-qemu7.2", 2, "svm", true),
        ("trace-6.12-qemu7.2", 2, "svm", true),
    ] {
        let old = made.join(name);
        assert_eq!(version(&old), of_then, "{name}");
        let recording = read(&old).unwrap();
        assert_eq!(recording.trace.is_some(), traced, "{name}");
        assert!(recording.runs.iter().any(|run| !run.samples.is_empty()));
        let manifest = &recording.manifest;
        assert_eq!(manifest.conditions, [Condition::base()], "{name}");
        assert!(recording.runs.iter().all(|run| run.condition == "base"));
        assert_eq!(manifest.environment.arch, "x86_64", "{name}");
        assert_eq!(manifest.environment.machine_kind, kind, "{name}");
        assert_eq!(manifest.warnings, read(&old).unwrap().manifest.warnings);
        let folder = tempdir().unwrap();
        let new = folder.path().join(name);
        write(&new, &recording).unwrap();
        assert_eq!(version(&new), 4, "{name}");
        assert!(read(&new).unwrap() == recording, "{name}");
    }
}

#[test]
fn missing_folders_above_are_made() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("2026/january/cpuid");
    check_writable(&dir).unwrap();
    assert!(names(folder.path()).is_empty());
    write(&dir, &small()).unwrap();
    assert_eq!(read(&dir).unwrap(), small());
}

#[test]
fn an_empty_folder_is_used_and_keeps_its_permissions() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("mine");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let link = folder.path().join("link");
    symlink(&dir, &link).unwrap();
    check_writable(&link).unwrap();
    write(&link, &small()).unwrap();
    assert_eq!(read(&dir).unwrap(), small());
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o7777,
        0o700
    );
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    write(&dir, &small()).unwrap();
    let mut other = small();
    other.runs.clear();
    let file = dir.join("manifest.json");
    for taken in [&dir, &file] {
        for error in [write(taken, &other), check_writable(taken)].map(Result::unwrap_err) {
            assert!(matches!(error, Error::Exists { .. }), "{error}");
            assert!(
                error.to_string().ends_with("choose another --out"),
                "{error}"
            );
        }
    }
    assert_eq!(read(&dir).unwrap(), small());
    assert_eq!(names(folder.path()), ["recording"]);
}

#[test]
fn paths_that_cannot_be_folders_are_refused() {
    for path in ["", "/", "/dev/null", "/dev/null/recording"] {
        let error = write(Path::new(path), &small()).unwrap_err();
        let advice = ["choose another --out", "that has only folders above it"];
        assert!(
            advice.iter().any(|it| error.to_string().ends_with(it)),
            "{error}"
        );
        assert!(check_writable(Path::new(path)).is_err());
    }
}

#[test]
fn recordings_that_contradict_themselves_are_not_written() {
    let spoil: [fn(&mut Recording); 5] = [
        |it| it.runs[1].id = it.runs[0].id,
        |it| it.runs[1].row = "unheard of".into(),
        |it| it.manifest.rows[1].name = it.manifest.rows[0].name.clone(),
        |it| it.manifest.rows[0].exits.max = f64::INFINITY,
        |it| it.manifest.rows[0].exits.min = f64::NAN,
    ];
    let folder = tempdir().unwrap();
    for spoil in spoil {
        let mut recording = small();
        spoil(&mut recording);
        let error = write(&folder.path().join("recording"), &recording).unwrap_err();
        assert!(matches!(error, Error::Unstorable { .. }), "{error}");
    }
    assert!(names(folder.path()).is_empty());
}

/// A trace that is refused if this is done to it, and what is said then.
type Spoil = (fn(&mut Trace), &'static str);

/// What must not be said of the trace of [`traced`].
const SPOIL: [Spoil; 24] = [
    (
        |it| it.instructions[1].bytes.clear(),
        "instruction 1 has 0 bytes",
    ),
    (
        |it| it.instructions[3].bytes.push(0),
        "instruction 3 has 16 bytes",
    ),
    (|it| it.paths[2].blocks.clear(), "path 2 has no blocks"),
    (|it| it.paths[1].blocks[1].count = 0, "block 1 of path 1"),
    (|it| it.paths[1].blocks[1].count = 3, "block 1 of path 1"),
    (
        |it| it.paths[1].blocks[1].count = u32::MAX,
        "block 1 of path 1",
    ),
    (|it| it.paths[0].blocks[0].first = 4, "block 0 of path 0"),
    (
        |it| it.paths[0].blocks[0].first = u32::MAX,
        "block 0 of path 0",
    ),
    (|it| it.instructions.truncate(3), "block 1 of path 1"),
    (|it| it.windows[0].run = 9, "a window of run 9"),
    (|it| it.windows[0].run = 0, "run 0 has two windows"),
    (
        |it| it.windows[1].segments.clear(),
        "the window of run 0 has no segments",
    ),
    (
        |it| it.windows[0].segments[3].path = 3,
        "segment 3 of run 2 takes path 3 of 3",
    ),
    (|it| it.paths.truncate(1), "segment 0 of run 2 takes path 2"),
    (|it| it.symbols.swap(0, 2), "before the one above it"),
    (|it| it.symbols.swap(0, 1), "before the one above it"),
    (|it| it.symbols[0].size = 3, "before the one above it"),
    (|it| it.symbols[1].address = 0x1001, "before the one above"),
    (|it| it.symbols[4].size = 4097, "beyond the last address"),
    (
        |it| it.symbols[4].condition = Some("none".to_owned()),
        "the condition none, which is not there",
    ),
    (|it| it.symbols[4].size = u64::MAX, "beyond the last"),
    (|it| it.locations.swap(0, 1), "depth 0 is double or out"),
    (|it| it.locations[1].depth = 0, "depth 0 is double or out"),
    (
        |it| it.locations[2].instruction = 4,
        "a location of instruction 4 of 4",
    ),
];

#[test]
fn traces_that_contradict_themselves_are_not_written() {
    let folder = tempdir().unwrap();
    for (spoil, said) in SPOIL {
        let mut recording = traced();
        spoil(recording.trace.as_mut().unwrap());
        let error = write(&folder.path().join("recording"), &recording).unwrap_err();
        assert!(matches!(error, Error::Unstorable { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn traces_at_the_limit_of_what_holds_are_written() {
    let enough: [fn(&mut Trace); 6] = [
        |it| it.locations.clear(),
        // The same path twice, and one that no window has.
        |it| it.paths.push(it.paths[0].clone()),
        |it| it.windows.truncate(1),
        // Nothing lies in a symbol without a size, so it overlaps with none.
        |it| {
            it.symbols.insert(
                0,
                Symbol {
                    size: 0,
                    ..it.symbols[0].clone()
                },
            )
        },
        |it| {
            it.symbols[4] = Symbol {
                address: u64::MAX,
                size: 1,
                ..it.symbols[4].clone()
            }
        },
        |it| {
            it.windows[0].segments = vec![
                Segment {
                    path: 2,
                    part: Part::Op
                };
                3
            ];
            // They say in which segment they are.
            it.windows[0].exits = Some(Vec::new());
        },
    ];
    for enough in enough {
        let mut recording = traced();
        enough(recording.trace.as_mut().unwrap());
        let folder = tempdir().unwrap();
        let dir = folder.path().join("recording");
        write(&dir, &recording).unwrap();
        assert_eq!(read(&dir).unwrap(), recording);
    }
}
