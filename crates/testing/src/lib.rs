//! How a test says that it leaves something out because this machine does not have what it needs.
//!
//! A test that skips passes, and Cargo shows nothing of a test that passes. So what is skipped is
//! also appended to the file that `EXITPATH_SKIP_LOG` names, one line each; `tools/test` counts
//! those tests apart from the ones that passed. Where a machine is known to have something,
//! `EXITPATH_REQUIRE=lab,qemu10,kvm` makes a failure of every skip for want of it.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;

/// Lists, separated by commas, what this machine is known to have: names of [`Need`]s.
pub const REQUIRE: &str = "EXITPATH_REQUIRE";
/// Names the file that has a line for each skip.
pub const SKIP_LOG: &str = "EXITPATH_SKIP_LOG";

/// What a machine may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `lab`: a QEMU and a Debian kernel to boot in it.
    Lab,
    /// `qemu10`: QEMU 10 or later, which boots two CPUs under counted time.
    Qemu10,
    /// `kvm`: a /dev/kvm that can be opened.
    Kvm,
    /// `tools`: programs that come with Debian packages, such as compilers and compressors.
    Tools,
    /// `namespaces`: user and mount namespaces for ordinary users.
    Namespaces,
    /// `root`: to be root, or whatever else the user would have to be allowed.
    Root,
    /// `other_kernel`: a second kernel in the Debian archive that this machine's apt knows.
    OtherKernel,
    /// `io_uring`: a kernel that lets this process have a ring.
    IoUring,
    /// `build`: a build of another kind: optimised, or with debug information.
    Build,
}

impl Need {
    const ALL: [Need; 9] = [
        Need::Lab,
        Need::Qemu10,
        Need::Kvm,
        Need::Tools,
        Need::Namespaces,
        Need::Root,
        Need::OtherKernel,
        Need::IoUring,
        Need::Build,
    ];

    /// As `EXITPATH_REQUIRE` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Need::Lab => "lab",
            Need::Qemu10 => "qemu10",
            Need::Kvm => "kvm",
            Need::Tools => "tools",
            Need::Namespaces => "namespaces",
            Need::Root => "root",
            Need::OtherKernel => "other_kernel",
            Need::IoUring => "io_uring",
            Need::Build => "build",
        }
    }

    fn named(name: &str) -> Result<Need, String> {
        let found = Need::ALL.into_iter().find(|need| need.name() == name);
        found.ok_or_else(|| {
            let names = Need::ALL.map(Need::name).join(", ");
            format!("{REQUIRE}: nothing is called '{name}': use some of {names}")
        })
    }
}

/// Says that the running test leaves something out, and why.
///
/// # Panics
/// Where `EXITPATH_REQUIRE` has the need, or has a name that is none; where the log cannot be written.
#[track_caller]
pub fn skipped(need: Need, why: impl Display) {
    // A message may be of several lines, and the log has one for each skip.
    let why = why.to_string();
    let why: Vec<&str> = why.lines().map(str::trim).collect();
    let why = why.join("; ");
    let required = std::env::var(REQUIRE).unwrap_or_default();
    match requires(&required, need) {
        Ok(false) => {}
        Ok(true) => panic!("{REQUIRE} has {}, but: {why}", need.name()),
        Err(unknown) => panic!("{unknown}"),
    }
    // Cargo names the package, and the test harness its threads after their tests.
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a thread of a test");
    let line = format!(
        "skipped: {package} {test}: {why} [needs: {}]\n",
        need.name()
    );
    eprint!("{line}");
    if let Some(path) = std::env::var_os(SKIP_LOG) {
        let log = File::options().append(true).create(true).open(&path);
        log.and_then(|mut log| log.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

/// Whether a list of needs has this one.
fn requires(list: &str, need: Need) -> Result<bool, String> {
    let names = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let needs: Vec<Need> = names.map(Need::named).collect::<Result<_, _>>()?;
    Ok(needs.contains(&need))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_required_by_its_name() {
        assert_eq!(requires("", Need::Kvm), Ok(false));
        assert_eq!(requires("lab,qemu10", Need::Kvm), Ok(false));
        assert_eq!(requires("lab, kvm,", Need::Kvm), Ok(true));
        for need in Need::ALL {
            assert_eq!(Need::named(need.name()), Ok(need));
        }
        // One that is misspelt would require nothing and never be missed.
        let error = requires("lab,kmv", Need::Lab).unwrap_err();
        assert!(error.contains("'kmv'") && error.contains("kvm"), "{error}");
    }
}
