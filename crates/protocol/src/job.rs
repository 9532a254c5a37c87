//! What the lab's init is asked to do, as a file that it is handed.

use serde::{Deserialize, Serialize};

/// Where the job lies.
pub const JOB_FILE: &str = "/lab/job.json";
/// Tag of the host's root file system, shared by 9p.
pub const ROOT_TAG: &str = "exitpath-root";

/// Where a shared-root lab is handed exitpath itself.
pub const EXITPATH: &str = "/lab/exitpath";
/// Where a shared-root lab has it, before all others in `PATH`: in its own `/run`, as the
/// host's folders may have a symlink to anywhere in that place.
pub const PROGRAMS: &str = "/run/exitpath/bin";
/// Where a command in a shared-root lab writes the folders of its recordings, one a line, so that they
/// come out when the job is done.
pub const RECORDINGS: &str = "/run/exitpath/recordings";

/// A module that was to be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its parameters as the kernel reads them: `enable_pmu=0 halt_poll_ns=0`.
    pub parameters: String,
}

/// A command for the lab.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The environment, nothing is added.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub cwd: String,
    /// Modules that were loaded before it began, in order.
    pub modules: Vec<Module>,
    /// A file to bring out when the command has succeeded.
    pub output: Option<String>,
    /// Whether to run the command in the host's root file system, under a tmpfs overlay.
    pub share_root: bool,
    /// Whether addresses are not randomised for the command and all that it starts
    /// (`ADDR_NO_RANDOMIZE`), so that a program lies at the same ones in every boot.
    pub fixed_addresses: bool,
    /// Whether the command gets the console as its terminal instead of pipes.
    pub terminal: bool,
}
