//! Starting exitpath and reading what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use exitpath_lab::cache::Cache;
use exitpath_lab::kernels::{Kernel, Kernels};
use exitpath_testing::{Need, skipped};
use serde_json::Value;

/// The program under test: the release build where `make test` names it (real labs boot faster
/// with it), else the one cargo built.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("EXITPATH_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_exitpath")),
        PathBuf::from,
    )
}

pub(crate) fn exitpath(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args);
    command
}

/// What a command said, for assertions that show it.
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    pub(crate) fn of(command: &mut Command) -> Said {
        command.output().expect("exitpath can be started").into()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}{}", self.stdout, self.stderr))
    }

    /// Asserts that the command failed with one line that has all of these pieces.
    #[track_caller]
    pub(crate) fn fails(&self, status: i32, pieces: &[&str]) {
        let complaint = self.complaint();
        assert_eq!(self.status, Some(status), "{complaint}\n{}", self.stdout);
        for piece in pieces {
            assert!(complaint.contains(piece), "no '{piece}' in: {complaint}");
        }
    }

    /// The last line on standard error, which is the error. Remarks come before it.
    fn complaint(&self) -> &str {
        self.stderr.lines().last().unwrap_or("")
    }
}

/// A QEMU that is installed, where there is a kernel to boot in it too; says what is skipped where
/// either is missing.
pub(crate) fn installed_qemu() -> Option<PathBuf> {
    kernel().and_then(|_| qemu_in_path())
}

/// The kernel that labs boot where none is named, fetched by whoever asks first; says what is skipped
/// where there is none. Which one it is depends on the machine's Debian.
pub(crate) fn kernel() -> Option<&'static Kernel> {
    static KERNEL: OnceLock<Result<Kernel, String>> = OnceLock::new();
    let find = || Kernels::new(Cache::open()?).resolve(None, None);
    let kernel = KERNEL.get_or_init(|| find().map_err(|error| error.to_string()));
    let why = |why| skipped(Need::Lab, format!("no kernel to be had: {why}"));
    kernel.as_ref().map_err(why).ok()
}

/// Whether Linux 6.1 is to be had, for what is known of it alone; says what is skipped where it is not.
pub(crate) fn linux_6_1() -> bool {
    let fetched = Said::of(&mut exitpath(&["lab", "kernels", "6.1"]));
    if fetched.status != Some(0) {
        let why = format!("no kernel 6.1 to be had: {}", fetched.complaint());
        skipped(Need::OtherKernel, why);
    }
    fetched.status == Some(0)
}

/// A QEMU that is installed; says what is skipped where there is none.
pub(crate) fn qemu_in_path() -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join("qemu-system-x86_64"))
        .find(|path| path.is_file());
    if found.is_none() {
        let why = "no qemu-system-x86_64 in PATH (`make packages` installs it)";
        skipped(Need::Lab, why);
    }
    found
}

/// Every QEMU the lab can use here, with its major version: installed and unpacked ones.
pub(crate) fn qemus() -> Vec<(u32, PathBuf)> {
    let mut found: Vec<PathBuf> = installed_qemu().into_iter().collect();
    let fetched = Said::of(&mut exitpath(&["lab", "qemu", "--fetch"]));
    if fetched.status == Some(0) {
        let path = fetched.stdout.split(" (").next().unwrap_or("");
        found.push(PathBuf::from(path));
    } else {
        skipped(Need::Qemu10, fetched.complaint());
    }
    let mut versions: Vec<(u32, PathBuf)> = found
        .into_iter()
        .map(|path| (major_version(&path), path))
        .collect();
    versions.sort();
    versions.dedup_by_key(|(major, _)| *major);
    versions
}

fn major_version(qemu: &Path) -> u32 {
    let output = Command::new(qemu)
        .arg("--version")
        .output()
        .expect("QEMU can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim_start_matches("QEMU emulator version ")
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap_or_else(|| panic!("no version in: {text}"))
}

/// The row of that name in a JSON table.
#[track_caller]
pub(crate) fn row<'a>(table: &'a Value, name: &str) -> &'a Value {
    table["rows"]
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["name"] == name))
        .unwrap_or_else(|| panic!("no row {name} in {table}"))
}

/// Processes that run a program of this name as a descendant of `ancestor`.
pub(crate) fn descendants(ancestor: u32, name: &str) -> Vec<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')')
            .next()?
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        // The kernel cuts a name to 15 bytes.
        if comm.trim() != &name[..name.len().min(15)] {
            continue;
        }
        let mut at = Some(pid);
        while let Some(process) = at.filter(|&process| process > 1) {
            if process == ancestor {
                found.push(pid);
                break;
            }
            at = parent_of(process);
        }
    }
    found
}
