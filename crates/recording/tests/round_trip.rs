//! What is written is what is read, to the last bit, and a folder is never taken by surprise.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use common::{FILES, names, recordings, small};
use exitpath_recording::{Batch, Error, Recording, Sample, check_writable, read, write};
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
    write(&a, &small()).unwrap();
    write(&b, &small()).unwrap();
    for name in FILES {
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
    let dir = folder.path().join("recording");
    write(&dir, &small()).unwrap();
    let mut files = FILES.map(String::from);
    files.sort();
    assert_eq!(names(&dir), files);
    // As permissive as any folder made here, whatever the umask is.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&dir), mode(&other));
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
