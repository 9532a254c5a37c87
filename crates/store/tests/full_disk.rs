//! A recording that does not fit leaves nothing behind, and one that is cut off by a kill is
//! never taken for a whole one.
//!
//! The writer runs in a child process: with a limit on file sizes, which any user may set, and on
//! a small tmpfs in a mount namespace of its own, where the system lets us have one.

mod common;

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use common::by_hand::small;
use common::{FILES, names};
use exitpath_recording::{Recording, Sample};
use exitpath_store::{Error, read, write};
use exitpath_testing::{Need, skipped};
use tempfile::tempdir;

/// Tells the child in which folder to write [`RECORDING`], and which file is to be the large one.
const FOLDER: &str = "EXITPATH_TEST_FOLDER";
const LARGE: &str = "EXITPATH_TEST_LARGE";

/// The recording in that folder, unless [`NAME`] says otherwise.
const RECORDING: &str = "above/recording";
const NAME: &str = "EXITPATH_TEST_NAME";

/// A recording of which one file is larger than 128 KiB, and the others smaller than 16 KiB.
fn large(file: &str) -> Recording {
    let mut recording = small();
    let text = "ticks ".repeat(30_000);
    match file {
        "runs.parquet" => recording.runs[0].notes.push(text),
        "counters.parquet" => _ = recording.runs[0].counters.insert(text, 1),
        "manifest.json" => recording.manifest.warnings.push(text),
        _ => {
            let ticks = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            recording.runs[0].samples = (0..20_000)
                .map(|i| Sample {
                    empty: ticks(i),
                    op: ticks(!i),
                })
                .collect();
        }
    }
    recording
}

#[test]
#[ignore = "the other tests run it in a child process"]
fn child() {
    let (Ok(folder), Ok(file)) = (env::var(FOLDER), env::var(LARGE)) else {
        return;
    };
    let folder = Path::new(&folder);
    let dir = folder.join(env::var(NAME).as_deref().unwrap_or(RECORDING));
    let result = write(&dir, &large(&file));
    // Looked at from here, because nobody else sees the folder if it is in a namespace.
    let left = names(folder);
    match result {
        Ok(()) => {
            assert_eq!(read(&dir).unwrap(), large(&file));
            eprintln!("child: wrote, left {left:?}");
        }
        Err(error) => {
            assert!(
                matches!(error, Error::Write { .. } | Error::InUse { .. }),
                "{error}"
            );
            eprintln!("child: failed, left {left:?}: {error}");
        }
    }
}

/// Runs [`child`] for a folder and a large file from a shell script to which it is "$@".
fn run_child(shell: &[&str], script: &str, folder: &Path, file: &str) -> Output {
    let (program, arguments) = shell.split_first().unwrap();
    Command::new(program)
        .current_dir(folder)
        .args(arguments)
        .args(["sh", "-c", script, "sh"])
        .arg(env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(LARGE, file)
        .output()
        .unwrap()
}

/// The line in which the child says how it went, if it lived to say it.
fn report(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| Some(line.split_once("child: ")?.1.to_owned()))
}

#[test]
fn a_file_that_cannot_grow_leaves_nothing() {
    for file in [
        "runs.parquet",
        "counters.parquet",
        "samples.parquet",
        "manifest.json",
    ] {
        let folder = tempdir().unwrap();
        // 64 KiB or 32, depending on the shell. Without the trap the signal kills; with it, and
        // in any process that ignores the signal, the write fails with EFBIG.
        let script = r#"trap "" XFSZ; ulimit -f 64 && exec "$@""#;
        let output = run_child(&["env"], script, folder.path(), file);
        let report = report(&output).unwrap_or_else(|| panic!("no report: {output:?}"));
        let path = folder.path().join(RECORDING).join(file);
        let expected = format!("failed, left []: cannot write {}: ", path.display());
        assert!(report.starts_with(&expected), "{report}");
        assert!(report.contains("; raise the limit"), "{report}");
        assert!(
            names(folder.path()).is_empty(),
            "{file}: {:?}",
            names(folder.path())
        );
    }
}

#[test]
fn a_kill_halfway_leaves_nothing_that_could_be_taken_for_a_recording() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join(RECORDING);
    let script = r#"ulimit -c 0; ulimit -f 64 && exec "$@""#;
    let output = run_child(&["env"], script, folder.path(), "samples.parquet");
    if output.status.signal().is_none() {
        let why = "SIGXFSZ is ignored here, so the limit on file sizes does not kill";
        return skipped(Need::Root, why);
    }
    assert!(matches!(read(&dir), Err(Error::NoSuchFolder { .. })));
    let above = dir.parent().unwrap();
    let [temporary] = names(above).try_into().unwrap();
    assert!(temporary.starts_with(".exitpath-"), "{temporary}");
    assert!(above.join(&temporary).join("samples.parquet").exists());
    assert!(matches!(
        read(&above.join(temporary)),
        Err(Error::NotARecording { .. })
    ));
    write(&dir, &small()).unwrap();
    assert_eq!(read(&dir).unwrap(), small());
}

#[test]
fn folders_that_cannot_be_replaced_are_left_as_they_are() {
    let check = |shell: &[&str], script: &str, name: &str, what: &str| {
        let folder = tempdir().unwrap();
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        let script = format!("export {NAME}={name}; {script}");
        let output = run_child(shell, &script, folder.path(), "runs.parquet");
        let report = report(&output).unwrap_or_else(|| panic!("no report: {output:?}"));
        assert!(report.contains(what), "{report}");
        let advice = format!("for instance --out {}", path.join("recording").display());
        assert!(report.ends_with(&advice), "{report}");
    };
    check(&["env"], r#"exec "$@""#, ".", "the current folder");
    let Some(namespace) = namespace() else {
        return skipped(Need::Namespaces, NO_NAMESPACE);
    };
    for mount in [
        "mount -t tmpfs tmpfs mounted",
        "mount --bind mounted mounted",
    ] {
        let script = format!(r#"{mount} && exec "$@""#);
        check(namespace, &script, "mounted", "a mount point");
    }
}

/// Why [`namespace`] is `None`.
const NO_NAMESPACE: &str = "no mount namespace to be had here (unshare --user --mount)";

/// How to have a mount namespace of one's own here, if there is a way.
fn namespace() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [
        &["unshare", "--user", "--map-root-user", "--mount"],
        &["unshare", "--mount"],
    ];
    ways.into_iter().find(|way| {
        let folder = tempdir().unwrap();
        let mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs"];
        let mut probe = Command::new(way[0]);
        probe.args(&way[1..]).args(mount).arg(folder.path());
        probe.output().is_ok_and(|output| output.status.success())
    })
}

#[test]
fn a_full_disk_leaves_nothing() {
    let Some(namespace) = namespace() else {
        return skipped(Need::Namespaces, NO_NAMESPACE);
    };
    let folder = tempdir().unwrap();
    let (mut failed, mut wrote) = (Vec::new(), 0);
    // From a disk too small for the first table to one with room for everything.
    for kib in [4, 8, 12, 16, 20, 24, 64, 128, 256, 1024] {
        let script = r#"mount -t tmpfs -o size=SIZEk tmpfs "$EXITPATH_TEST_FOLDER" && exec "$@""#;
        let script = script.replace("SIZE", &kib.to_string());
        for file in ["runs.parquet", "samples.parquet", "manifest.json"] {
            let output = run_child(namespace, &script, folder.path(), file);
            let report = report(&output).unwrap_or_else(|| panic!("no report: {output:?}"));
            if let Some(error) = report.strip_prefix("failed, left []: ") {
                assert!(error.contains("free some space"), "{kib} KiB: {report}");
                let name = error
                    .split_once(": ")
                    .unwrap()
                    .0
                    .rsplit_once('/')
                    .unwrap()
                    .1;
                failed.push(name.to_owned());
            } else {
                assert_eq!(report, r#"wrote, left ["above"]"#, "{kib} KiB");
                wrote = kib;
            }
        }
    }
    assert_eq!(wrote, 1024, "the largest disk should have had room");
    failed.sort();
    failed.dedup();
    let mut files = FILES.map(String::from);
    files.sort();
    assert_eq!(
        failed, files,
        "each file should once have been the one that found no room"
    );
}
