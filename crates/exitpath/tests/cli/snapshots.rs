//! Labs that are restored instead of booted: the same figures, whatever became of the snapshots.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use exitpath_lab::cache::Cache;

use crate::common::{Said, exitpath, installed_qemu, qemus};

/// What a command records: each table's bytes. What it said besides comes with them.
#[track_caller]
fn recorded(command: &mut Command) -> (BTreeMap<String, Vec<u8>>, Said) {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("recording");
    let said = Said::of(command.arg("--out").arg(&out));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let entries = fs::read_dir(&out).expect("a recording");
    let tables = entries.filter_map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name()?.to_str()?.to_owned();
        let is_table = name.ends_with(".parquet");
        is_table.then(|| (name, fs::read(&path).expect("a table")))
    });
    let tables: BTreeMap<_, _> = tables.collect();
    assert!(tables.len() > 2, "{:?}", tables.keys());
    (tables, said)
}

/// The names of the tables that are not the same bytes.
fn differing(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names = a.keys().chain(b.keys());
    let differs = names.filter(|name| a.get(*name) != b.get(*name));
    differs.cloned().collect()
}

/// Its vCPU halts on a CPU of its own. How long that idles, QEMU's threads say among themselves, whether the lab was booted or restored.
const IDLES: &str = "ipi_halt";

/// All rows of one seed after another, measured, and some traced: after a boot and after a restore.
#[test]
fn what_is_recorded_after_a_restore_is_what_is_recorded_after_a_boot() {
    let rows = exitpath_exits::ROWS.iter().map(|row| row.name);
    let mut all = vec!["measure", "--on", "lab", "--samples", "20"];
    all.extend(rows.filter(|row| *row != IDLES));
    let rows = ["trace", "cpuid", "inl_from_qemu", "--rounds", "50"];
    for (_, qemu) in qemus() {
        for (what, seeds) in [(&all[..], "1,2,3"), (&rows[..], "1,2")] {
            let record = |fresh: &[&str]| {
                let mut command = exitpath(what);
                command.args(["--seed", seeds]).args(fresh);
                recorded(command.arg("--qemu").arg(&qemu)).0
            };
            let booted = record(&["--fresh"]);
            for _ in 0..2 {
                assert_eq!(differing(&booted, &record(&[])), [""; 0], "{what:?}");
            }
        }
    }
}

/// A cache of its own with the kernels of the usual one.
fn cache() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let usual = Cache::open().expect("a cache");
    for entry in fs::read_dir(usual.root()).expect("a cache") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        if !["snapshots", "memos", "unfinished"]
            .map(Some)
            .contains(&name.to_str())
        {
            symlink(&path, dir.path().join(name)).expect("a symlink");
        }
    }
    dir
}

fn snapshots(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("snapshots")).expect("snapshots");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "snapshot"))
        .collect()
}

/// Changes a byte in the middle of what a file has.
fn damage(path: &Path) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("a snapshot");
    let middle = file.metadata().expect("a file").size() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("read");
    file.write_all_at(&[!byte[0]], middle).expect("written");
}

#[test]
fn labs_come_up_whatever_became_of_their_snapshots() {
    let Some(qemu) = installed_qemu() else { return };
    let cache = cache();
    let command = |args: &[&str]| {
        let mut command = exitpath(args);
        command.env("EXITPATH_CACHE", cache.path());
        command
    };
    let measure = || {
        let mut command = command(&[
            "measure",
            "empty",
            "cpuid",
            "--samples",
            "20",
            "--seed",
            "1",
        ]);
        command.arg("--qemu").arg(&qemu);
        command
    };

    let folder = cache.path().join("snapshots");
    fs::write(&folder, "in the way").expect("written");
    let (figures, said) = recorded(&mut measure());
    let told = said
        .stderr
        .matches("no snapshot of them can be kept")
        .count();
    assert_eq!(told, 1, "{}", said.stderr);
    fs::remove_file(&folder).expect("removed");

    let same = |told: usize| {
        let (again, said) = recorded(&mut measure());
        assert_eq!(differing(&figures, &again), [""; 0]);
        let damaged = said.stderr.matches("cannot be used").count();
        assert_eq!(damaged, told, "{}", said.stderr);
    };
    same(0);
    let listed = Said::of(&mut command(&["lab", "cache"]));
    assert!(listed.stdout.contains("2 snapshots"), "{}", listed.stdout);
    assert!(
        listed.stdout.contains("seed 1, ready\n"),
        "{}",
        listed.stdout
    );
    same(0);

    let both = snapshots(cache.path());
    assert_eq!(both.len(), 2);
    both.iter().for_each(|path| damage(path));
    same(2);
    same(0);
    for path in snapshots(cache.path()) {
        File::options()
            .write(true)
            .open(path)
            .expect("open")
            .set_len(100)
            .expect("cut");
    }
    same(2);

    // Two at once, one of which boots; and one whose snapshots go while it runs.
    let at_once = [&["--fresh"][..], &[]].map(|fresh| {
        let (mut command, figures) = (measure(), figures.clone());
        command.args(fresh);
        std::thread::spawn(move || differing(&figures, &recorded(&mut command).0))
    });
    let cleared = Said::of(&mut command(&["lab", "cache", "--clear"]));
    assert_eq!(cleared.status, Some(0), "{}", cleared.stderr);
    for figures in at_once {
        assert_eq!(figures.join().expect("measured"), [""; 0]);
    }
    let cleared = Said::of(&mut command(&["lab", "cache", "--clear"]));
    assert!(cleared.stdout.contains("removed"), "{}", cleared.stdout);
    let listed = Said::of(&mut command(&["lab", "cache"]));
    assert!(
        listed.stdout.starts_with("0 snapshots"),
        "{}",
        listed.stdout
    );
}
