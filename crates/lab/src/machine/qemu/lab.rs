//! What a lab is, what it brings out, and who listens to it meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use exitpath_host::KernelSays;
use exitpath_protocol::wire::Hello;

use crate::kernel::kernels::BootFile;
use crate::machine::qemu::cpu::Cpu;
use crate::machine::qemu::gdb::Patches;
use crate::machine::qemu::plugin::Plugin;
use crate::machine::qemu::program::Qemu;
use crate::snapshot::Snapshots;

/// Named CPU model of the lab unless another is chosen: SVM and nested paging, a family the
/// kernel knows.
pub const DEFAULT_CPU: &str = "EPYC-Milan";
/// Seconds of a lab's own clock after which one that has said nothing does nothing any more: a boot
/// takes 4, a row some. An idle lab takes seconds of real time for them.
pub const SILENCE: u64 = 300;

/// Everything that decides what a lab does.
#[derive(Debug, Clone)]
pub struct Lab {
    /// The emulator.
    pub qemu: Qemu,
    /// What it boots.
    pub kernel: BootFile,
    /// The kernel's modules; `None` where it has everything built in.
    pub modules: Option<PathBuf>,
    /// Its CPU.
    pub cpu: Cpu,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Appended to the kernel's command line.
    pub cmdline: String,
    /// QEMU's `-seed`: where the kernel and libc get their randomness from.
    pub seed: u64,
    /// What the plugin does besides supplying features of the CPU, if anything.
    pub plugin: Option<Plugin>,
    /// Where a machine that has booted is kept, to be restored instead of booted again; `None`: it boots, and goes
    /// on at once.
    pub snapshots: Option<Snapshots>,
    /// What to overwrite in the kernel before the job begins, if anything. With [`Lab::snapshots`] only.
    pub patches: Option<Patches>,
    /// Limit on the whole boot in real time; `None` for a shell.
    pub limit: Option<Duration>,
    /// Seconds of the lab's own clock without a word after which it is taken for dead, and
    /// whether its kernel's complaints end it. `None` where a command of the user's runs, which may sleep.
    pub silence: Option<u64>,
    /// Set from outside when the user wants to stop.
    pub interrupted: Arc<AtomicBool>,
}

/// What a lab brought out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What booted.
    pub hello: Hello,
    /// What the kernel says of itself.
    pub says: KernelSays,
    /// The command's exit status.
    pub status: i32,
    /// The job's output file; empty where there was none or the command failed.
    pub output: Vec<u8>,
    /// The last of what the command wrote to standard error, for messages.
    pub stderr: String,
    /// Files of recordings that commands made inside.
    pub kept: Vec<Kept>,
    /// What came of the plan's [`Plan::asides`].
    pub asides: Vec<Vec<u8>>,
}

/// What a job is handed that waits for it once it is ready.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The plan.
    pub bytes: &'a [u8],
    /// Other plans, whose output says what the machine is like: they are carried out once, in machines of their own,
    /// and what came of them is kept by these names.
    pub asides: &'a [(&'static str, &'a [u8])],
}

/// A file that came out of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The folder it was in, the same as outside.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Where a lab's output goes while it runs.
pub trait Sink {
    /// Bytes of the command's standard output.
    fn stdout(&mut self, bytes: &[u8]);
    /// Bytes of the command's standard error.
    fn stderr(&mut self, bytes: &[u8]);
    /// The kernel has booted.
    fn booted(&mut self, _hello: &Hello) {}
    /// What the kernel says of itself.
    fn says(&mut self, _says: &KernelSays) {}
    /// Bytes of the plugin's stream.
    ///
    /// # Errors
    /// What is wrong with them, in words; that ends the lab.
    fn instructions(&mut self, _bytes: &[u8]) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// Throws output away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl Sink for Discard {
    fn stdout(&mut self, _: &[u8]) {}
    fn stderr(&mut self, _: &[u8]) {}
}
