//! The committed BPF object is what its source says.

use std::path::Path;
use std::process::Command;

use exitpath_testing::{Need, skipped};

#[test]
fn the_object_is_its_sources() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if Command::new("clang-14").arg("--version").output().is_err() {
        return skipped(Need::Tools, "clang-14, of Debian 12, is not installed");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let built = Command::new(here.join("../../tools/build-bpf"))
        .arg(folder.path())
        .output()
        .expect("a script");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let built = std::fs::read(folder.path().join("exits.bpf.o")).expect("the object");
    let committed = std::fs::read(here.join("bpf/exits.bpf.o")).expect("the committed object");
    assert!(
        built == committed,
        "exits.bpf.o is not what exits.bpf.c says: run tools/build-bpf"
    );
}
