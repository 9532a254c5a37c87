//! A skip, as `cargo test` and `tools/test` meet it: in a process of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use exitpath_testing::{Need, REQUIRE, SKIP_LOG, skipped};

#[test]
#[ignore = "the other tests run it in a process of its own"]
fn child() {
    skipped(Need::Kvm, "no /dev/kvm\nto be had");
    skipped(Need::Tools, "no xz");
}

fn run_child(log: &Path, required: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--include-ignored"]);
    command.env(SKIP_LOG, log).env(REQUIRE, required);
    command.output().unwrap()
}

#[test]
fn a_skip_passes_and_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let output = run_child(&log, "lab,qemu10");
    assert!(output.status.success(), "{output:?}");
    let package = env!("CARGO_PKG_NAME");
    let expected = format!(
        "skipped: {package} child: no /dev/kvm; to be had [needs: kvm]\n\
         skipped: {package} child: no xz [needs: tools]\n"
    );
    assert_eq!(fs::read_to_string(&log).unwrap(), expected);
}

#[test]
fn a_skip_for_want_of_what_is_required_fails() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_child(&dir.path().join("log"), "lab,kvm");
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("EXITPATH_REQUIRE has kvm, but: no /dev/kvm"),
        "{said}"
    );
    let output = run_child(&dir.path().join("log"), "kmv");
    assert!(!output.status.success(), "a name that is none: {output:?}");
}

/// What `tools/test` prints last of what Cargo and the skips' log say.
#[test]
fn a_test_that_skips_is_counted_once_and_not_as_passed() {
    let dir = tempfile::tempdir().unwrap();
    let sum_up = |cargo: &str, skips: &str| {
        let [output, log] = ["output", "log"].map(|name| dir.path().join(name));
        fs::write(&output, cargo).unwrap();
        fs::write(&log, skips).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/sum-up-tests");
        let summed = Command::new(script).args([output, log]).output().unwrap();
        assert!(summed.status.success(), "{summed:?}");
        String::from_utf8(summed.stdout).unwrap()
    };
    let cargo = "test a::one ... ok\ntest a::two ... FAILED\ntest child ... ignored, why\n\
                 test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n\
                 test a::one ... ok\ntest three ... ok\n\
                 test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
    assert_eq!(sum_up(cargo, ""), "3 passed, 1 failed, 0 skipped\n");
    // Two lines of one test, the same name in two packages, and one that failed after a skip.
    let skips = "skipped: p a::one: no xz [needs: tools]\nskipped: p a::one: no zstd [needs: tools]\n\
                 skipped: q a::one: no QEMU: none [needs: lab]\n\
                 skipped: p a::two: no /dev/kvm [needs: kvm]\n";
    let said = sum_up(cargo, skips);
    assert!(
        said.ends_with("\n1 passed, 1 failed, 2 skipped\n"),
        "{said}"
    );
    assert_eq!(said.matches("skipped: ").count(), 4, "{said}");
    assert_eq!(
        sum_up("error: could not compile\n", ""),
        "0 passed, 0 failed, 0 skipped\n"
    );
}
