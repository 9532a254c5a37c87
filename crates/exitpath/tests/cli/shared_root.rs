//! Commands in the lab with this machine's files: what they find there, and what comes out.

use std::fs;
use std::path::Path;

use crate::bad_input::in_namespace;
use crate::common::{Said, exitpath, installed_qemu};

#[test]
fn files_in_tmp_are_there_and_recordings_come_out() {
    if installed_qemu().is_none() {
        return;
    }
    let dir = tempfile::tempdir_in("/tmp").expect("a folder");
    let script = "#!/bin/sh\n\
                  pwd; cat file; echo changed > file; cat file; touch new\n\
                  exitpath measure --on host --runs 2 --samples 20 cpuid --out a --json > a.json\n\
                  exitpath measure --on host --runs 2 --samples 20 empty > /dev/null\n\
                  exit 7\n";
    fs::write(dir.path().join("script"), script).expect("a script");
    fs::write(dir.path().join("file"), "as it was\n").expect("a file");
    // As two boots are the same, so is the name that a recording would have got.
    let data = dir.path().join("data");
    let run = || {
        let mut command = exitpath(&["lab", "run", "--seed", "1", "--", "sh", "./script"]);
        command.current_dir(&dir).env("XDG_DATA_HOME", &data);
        Said::of(&mut command)
    };
    let said = run();
    assert_eq!(said.status, Some(7), "{}", said.stderr);
    let place = dir.path().display();
    assert_eq!(said.stdout, format!("{place}\nas it was\nchanged\n"));
    let file = fs::read_to_string(dir.path().join("file")).expect("the file");
    assert_eq!(file, "as it was\n", "changes stay in the lab");
    assert!(!dir.path().join("new").exists() && !dir.path().join("a.json").exists());

    let shown = |path: &Path| {
        let said = Said::of(exitpath(&["show", "--json"]).arg(path));
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        said.json()
    };
    let table = shown(&dir.path().join("a"));
    assert_eq!(table["rows"][0]["name"], "cpuid");
    assert_eq!(table["rows"][0]["exits_per_op"].as_f64(), Some(1.0));
    let of_data = || -> Vec<_> {
        let entries = fs::read_dir(data.join("exitpath")).expect("a folder");
        entries.flatten().map(|entry| entry.path()).collect()
    };
    let first = of_data();
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(shown(&first[0])["rows"][0]["name"], "empty");

    // The second one takes nothing's place: the folder that was named is taken, and a new one is not.
    let said = run();
    assert_eq!(said.status, Some(7), "{}", said.stderr);
    assert!(
        said.stderr.contains("not an empty folder"),
        "{}",
        said.stderr
    );
    assert_eq!(of_data().len(), 2);
}

#[test]
fn what_the_lab_has_of_its_own_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
    let path = file.path().to_str().expect("a plain path");
    let says = ["/dev of its own", path];
    let run = |args: &[&str]| Said::of(exitpath(&["lab", "run", "--"]).args(args));
    run(&[path]).fails(2, &says);
    run(&["cat", path]).fails(2, &says);
    run(&["dd", &format!("if={path}")]).fails(2, &says);
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let mut command = exitpath(&["lab", "run", "--", "true"]);
    let place = folder.path().to_str().expect("a plain path");
    Said::of(command.current_dir(&folder)).fails(2, &["/dev of its own", place]);
    let vmm = format!("sh {path} {{image}}");
    let measure = ["measure", "cpuid", "--on", "lab", "--vmm", &vmm];
    Said::of(&mut exitpath(&measure)).fails(2, &says);
}

#[test]
fn what_stands_in_the_programs_place_is_no_hindrance() {
    if installed_qemu().is_none() {
        return;
    }
    let prepare = "mount -t tmpfs none /usr/local/bin && \
                   ln -s /nonexistent/nowhere /usr/local/bin/exitpath";
    let args = ["lab", "run", "--seed", "1", "--", "exitpath", "--version"];
    if let Some(said) = in_namespace(prepare, &args) {
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        let outside = Said::of(&mut exitpath(&["--version"]));
        assert_eq!(said.stdout, outside.stdout);
    }
}
