//! The one error type of this crate. Every message says what to do next.

use std::io;
use std::path::{Path, PathBuf};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What every "cannot fetch a kernel" message ends in.
const BY_PATH: &str = "or name a kernel by its path: a .deb, a bzImage or a vmlinux";

/// What went wrong in the lab, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why the operating system refused.
        source: io::Error,
    },

    /// No plugin for this version of QEMU.
    #[error(
        "exitpath has no plugin for QEMU {qemu}: use QEMU 7.2 to 8.2, or 9.1 and later (--qemu PATH)"
    )]
    NoPlugin {
        /// Its version.
        qemu: String,
    },

    /// QEMU has no such CPU.
    #[error(
        "QEMU has no CPU '{asked}': {said}; `qemu-system-x86_64 -cpu help` lists models (--cpu MODEL)"
    )]
    CpuModel {
        /// As it was asked for.
        asked: String,
        /// What QEMU says.
        said: String,
    },

    /// The plugin could not do what it was loaded for.
    #[error(
        "the lab's CPU went wrong: {said}; `--bare-svm` does without what exitpath supplies. Report this as a bug"
    )]
    Assists {
        /// What the plugin said.
        said: String,
    },

    /// QEMU did not load the plugin.
    #[error(
        "QEMU {qemu} did not load exitpath's plugin: {said}; it needs a QEMU built with plugins, as Debian's is (--qemu PATH)"
    )]
    PluginRefused {
        /// Its version.
        qemu: String,
        /// What it said.
        said: String,
    },

    /// The kernel could not be patched.
    #[error("the lab's kernel could not be patched: {why}")]
    Patch {
        /// What went wrong.
        why: String,
    },

    /// What the plugin sent is not the whole record of what happened.
    #[error(
        "the record of instructions is not whole: {what}; trace again, and if that does not help, report this as a bug"
    )]
    Stream {
        /// What is wrong with it.
        what: String,
    },

    /// There is no place for downloaded and unpacked files.
    #[error(
        "no cache folder: neither XDG_CACHE_HOME nor HOME is an absolute path; \
         set EXITPATH_CACHE to a folder with 1 GB to spare"
    )]
    NoCacheFolder,

    /// A program that this needs is not installed.
    #[error("{tool} is not installed: {advice}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// How to get it, or how to do without.
        advice: &'static str,
    },

    /// The machine's apt knows no Debian archive.
    #[error("apt has no Debian archive configured under {}: add one, {BY_PATH}", etc.display())]
    NoArchive {
        /// The folder with `sources.list` and `sources.list.d`.
        etc: PathBuf,
    },

    /// An apt program failed, most often for want of a network.
    #[error("{command} failed: {said}; check the network and apt's sources, {BY_PATH}")]
    Apt {
        /// The command: "apt-get update".
        command: String,
        /// The first complaint it printed.
        said: String,
    },

    /// No kernel of that version is in the archive or in the cache.
    #[error(
        "no kernel matches '{spec}'{}; `exitpath lab kernels` lists them",
        nearest_hint(nearest)
    )]
    UnknownKernel {
        /// What was asked for.
        spec: String,
        /// Known names near to it, nearest first.
        nearest: Vec<String>,
    },

    /// The archive does not have the debug symbols of a kernel.
    #[error(
        "Debian's archive has no {package} {version}{}; use a kernel that it has debug symbols \
         of, or name a vmlinux with debug information by its path",
        offered_hint(offered)
    )]
    NoDebugPackage {
        /// The package.
        package: String,
        /// The version, which is the kernel's.
        version: String,
        /// The versions there are.
        offered: Vec<String>,
    },

    /// Debug symbols can be fetched only for kernels that were.
    #[error(
        "the kernel {origin} is not from Debian's archive, which so has no debug symbols for it: \
         build it with CONFIG_DEBUG_INFO and name its vmlinux by its path"
    )]
    NotOfTheArchive {
        /// Where it is from.
        origin: String,
    },

    /// The file is something else than a kernel.
    #[error(
        "{} is not a kernel that can be booted: {why}; \
         give a kernel .deb, an x86 bzImage (vmlinuz) or a vmlinux", path.display()
    )]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What it is, or lacks.
        why: String,
    },

    /// The file is cut short or corrupt.
    #[error("{} is damaged: {why}; fetch or build it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },

    /// The file is fine, but packed in a way this program does not unpack.
    #[error("{} is {how}, which exitpath does not unpack; use gzip, xz, zstd or lz4", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// In what way: "compressed with bzip2".
        how: String,
    },

    /// The kernel neither has the module built in nor as a file.
    #[error(
        "no module '{module}'{} in {}: \
         give the folder of this very kernel's modules, or a kernel with it built in",
        wanted_hint(wanted_by.as_deref()), dir.display()
    )]
    ModuleNotFound {
        /// The module's name.
        module: String,
        /// The module that depends on it, if it was not asked for itself.
        wanted_by: Option<String>,
        /// The folder that was searched.
        dir: PathBuf,
    },

    /// A module has no parameter of a name that the command line gives it.
    #[error(
        "{word}: module {module} of this kernel has no parameter '{parameter}'{}",
        near_hint(near)
    )]
    UnknownParameter {
        /// As it was asked for.
        word: String,
        /// The module.
        module: String,
        /// The parameter.
        parameter: String,
        /// Names of parameters near to it, nearest first.
        near: Vec<String>,
    },

    /// A parameter of a module that there is none of, with a name near to one.
    #[error("{word}: this kernel has no module '{module}'{}", near_hint(near))]
    UnknownModule {
        /// As it was asked for.
        word: String,
        /// The module.
        module: String,
        /// Names of modules near to it.
        near: Vec<String>,
    },

    /// The kernel did not load a module with the parameters that the command line gives it.
    #[error(
        "the lab's kernel refused to load {module} with '{parameters}': a value is invalid; see `modinfo {module}` for what each takes"
    )]
    ParametersRefused {
        /// The module.
        module: String,
        /// Its parameters.
        parameters: String,
    },

    /// A folder of modules of another kernel than the one to boot.
    #[error(
        "the modules in {} are of Linux {}, and the kernel is {release}: \
         give --modules the folder of this kernel's modules", dir.display(), of.join(", ")
    )]
    OtherModules {
        /// The folder.
        dir: PathBuf,
        /// The releases it has modules of.
        of: Vec<String>,
        /// The kernel's release.
        release: String,
    },

    /// A package that is empty and stands for others, which are not to be had.
    #[error(
        "{} is only a part of a kernel: put {} into its folder (apt has them not: {why})",
        path.display(), missing.join(", ")
    )]
    PartsMissing {
        /// The package given.
        path: PathBuf,
        /// The packages that are missing, with their versions.
        missing: Vec<String>,
        /// Why they could not be fetched.
        why: String,
    },

    /// Modules that depend on each other: no kernel can load them.
    #[error("modules depend on each other in a circle ({}): rebuild them", .0.join(" -> "))]
    ModuleCycle(
        /// The circle; its first name is also its last.
        Vec<String>,
    ),

    /// The file is neither an ELF program or library nor a script.
    #[error("{} is not a program the lab can run: {why}", path.display())]
    NotAProgram {
        /// The file.
        path: PathBuf,
        /// What it is, or lacks.
        why: String,
    },

    /// The lab has something else in that place.
    #[error(
        "{} cannot be had in the lab, which has {own} of its own: copy it to another folder",
        path.display()
    )]
    NotInTheLab {
        /// What was named.
        path: PathBuf,
        /// The lab's own.
        own: &'static str,
    },

    /// A shared library is in none of the folders the dynamic linker looks in.
    #[error("{library}, which {} needs, is in none of {}; install the package that has it",
        needed_by.display(), join_paths(searched))]
    LibraryNotFound {
        /// The library's name as the program states it.
        library: String,
        /// The program or library that needs it.
        needed_by: PathBuf,
        /// The folders that were searched.
        searched: Vec<PathBuf>,
    },

    /// Two things want the same place in the initramfs.
    #[error("the initramfs has {is} at /{path}: {wanted} cannot go there; choose another path")]
    Occupied {
        /// The place, without the leading slash.
        path: String,
        /// What is there.
        is: &'static str,
        /// What should have gone there.
        wanted: &'static str,
    },

    /// The program that runs inside a lab is nowhere.
    #[error(
        "exitpath-inside, the program that runs inside a lab, is not there ({}): build exitpath with `make \
         build`, which makes it a part of exitpath, or put it beside exitpath",
        join_paths(searched)
    )]
    NoInside {
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },

    /// The program that runs inside a lab was built from other sources, or in another way.
    #[error(
        "{} was built from other sources, or in another way, than this exitpath: build both with `make build`",
        path.display()
    )]
    OtherInside {
        /// Where it is.
        path: PathBuf,
    },

    /// There is no QEMU to boot the lab with.
    #[error(
        "no qemu-system-x86_64 found: install it (Debian: `apt-get install qemu-system-x86`) \
         or name one with --qemu PATH"
    )]
    NoQemu,

    /// A QEMU was named or found, but it does not run.
    #[error("{} cannot be used as QEMU: {why}; name another with --qemu PATH", path.display())]
    QemuUnusable {
        /// The program.
        path: PathBuf,
        /// What happened when it was run.
        why: String,
    },

    /// The lab ended before it had said everything.
    #[error("the lab {what}{}; nothing of it was kept", console_hint(console))]
    LabDied {
        /// What it did, in words that follow "the lab".
        what: String,
        /// The last of the kernel's console and QEMU's messages.
        console: String,
    },

    /// A machine that had booted does not come up again.
    #[error("a lab that has booted cannot be restored: {why}; --fresh boots it again")]
    Restore {
        /// What went wrong.
        why: String,
    },

    /// The lab's kernel booted, but init could not do its part.
    #[error("the lab's kernel booted, but {stage} failed: {reason}")]
    Init {
        /// What init was about to do.
        stage: String,
        /// What went wrong.
        reason: String,
    },

    /// The lab's kernel has no KVM that works on its CPU.
    #[error(
        "kernel {release} has no KVM for the lab's CPU{}: build CONFIG_KVM and CONFIG_KVM_AMD, \
         as modules (and give --modules DIR) or built in, and use a --cpu with svm",
        refused_hint(refused)
    )]
    NoKvm {
        /// What booted.
        release: String,
        /// Modules it did not take, with its reasons.
        refused: Vec<String>,
    },

    /// The user asked to stop.
    #[error("interrupted: nothing was kept")]
    Interrupted,

    /// A cpio archive cannot hold a file of 4 GiB or more.
    #[error("{path} is {bytes} bytes, more than an initramfs can hold in one file (4 GiB)")]
    TooLarge {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
    },
}

impl Error {
    /// For `map_err`: wraps what the operating system said about `path`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.as_ref().to_owned(),
            source,
        }
    }
}

fn console_hint(console: &str) -> String {
    if console.is_empty() {
        String::new()
    } else {
        format!(" (its console: {console})")
    }
}

fn refused_hint(refused: &[String]) -> String {
    if refused.is_empty() {
        String::new()
    } else {
        format!(" (it refused {})", refused.join(", "))
    }
}

fn nearest_hint(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; the nearest known: {}", names.join(", ")),
    }
}

fn near_hint(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; near it: {}", names.join(", ")),
    }
}

fn offered_hint(offered: &[String]) -> String {
    match offered {
        [] => String::new(),
        versions => format!(" (only {})", versions.join(", ")),
    }
}

fn wanted_hint(by: Option<&str>) -> String {
    by.map(|by| format!(" (needed by '{by}')"))
        .unwrap_or_default()
}

fn join_paths(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}
