//! `exitpath lab`: kernels, a shell, any command; and the lab that `measure` boots.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exitpath_lab::Error as LabError;
use exitpath_lab::boot::{Lab, Sink};
use exitpath_lab::cache::Cache;
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::job::Job;
use exitpath_lab::kernels::{Kernel, Kernels};
use exitpath_lab::qemu::Qemu;

use crate::cli::{Emulator, LabCommand, LabOptions, LabRun};
use crate::failure::Failure;
use crate::{interrupt, output};

/// Status of a program that SIGPIPE ended, as shells give it.
const BROKEN_PIPE: u8 = 141;
/// Memory of a lab that measures, in MiB.
pub(crate) const MEMORY_MIB: u32 = 1024;

pub(crate) fn run(command: LabCommand) -> Result<(), Failure> {
    match command {
        LabCommand::Kernels { version, debug } => kernels(version.as_deref(), debug),
        LabCommand::Qemu => {
            let qemu = Qemu::fetch(&cache()?)?;
            output::print(&format!("{} ({})", qemu.path.display(), qemu.version))
        }
        LabCommand::Shell { lab } => {
            let shell = ["bash", "sh"].map(|shell| format!("/bin/{shell}"));
            let shell = shell.into_iter().find(|shell| Path::new(shell).exists());
            let shell = shell.unwrap_or_else(|| "/bin/sh".to_owned());
            inside(&lab, vec![shell], true)
        }
        LabCommand::Run { lab, command } => inside(&lab, command, false),
    }
}

fn cache() -> Result<Cache, Failure> {
    Ok(Cache::open()?.with_progress(output::remark))
}

/// The QEMU that a lab with these options has.
pub(crate) fn qemu(options: &Emulator) -> Result<Qemu, Failure> {
    Ok(Qemu::find(options.qemu.as_deref(), &cache()?)?)
}

fn kernels(version: Option<&str>, debug: bool) -> Result<(), Failure> {
    let kernels = Kernels::new(cache()?);
    if debug {
        let kernel = kernels.resolve(version, None)?;
        let files = kernels.fetch_debug_files(&kernel)?;
        return output::print(&files.vmlinux.display().to_string());
    }
    if let Some(version) = version {
        let kernel = kernels.resolve(Some(version), None)?;
        return output::print(&format!("{} ({})", kernel.bzimage.display(), kernel.origin));
    }
    let listing = kernels.list()?;
    if let Some(note) = &listing.note {
        output::remark(note);
    }
    let lines: Vec<String> = listing
        .kernels
        .iter()
        .map(|kernel| {
            let cached = if kernel.cached { "  in the cache" } else { "" };
            format!(
                "{:<34} {:<26} {}{cached}",
                kernel.release, kernel.version, kernel.suite
            )
        })
        .collect();
    output::print(&lines.join("\n"))
}

/// A lab's parts that are the same for all of its boots.
pub(crate) struct Prepared {
    lab: Lab,
    pub(crate) kernel: Kernel,
}

impl Prepared {
    /// Finds QEMU and the kernel, fetching it if need be.
    pub(crate) fn new(
        options: &LabOptions,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Prepared, Failure> {
        let prepared = Prepared::find(options, interrupted);
        // Ctrl-C ends apt too, which then complains of something else.
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        prepared
    }

    fn find(options: &LabOptions, interrupted: &Arc<AtomicBool>) -> Result<Prepared, Failure> {
        let cache = cache()?;
        let qemu = Qemu::find(options.emulator.qemu.as_deref(), &cache)?;
        let spec = options.kernel.as_deref();
        let given = [spec.map(Path::new), options.modules.as_deref()];
        let kernel = Kernels::new(cache.clone())
            .resolve(spec, options.modules.as_deref())
            .map_err(|error| match error {
                // What the user named and cannot be opened is not this machine's fault.
                LabError::Io { ref path, .. } if given.contains(&Some(path)) => {
                    Failure::Usage(error.to_string())
                }
                error => error.into(),
            })?;
        let lab = Lab {
            qemu,
            kernel: kernel.boot_file(&cache)?,
            modules: kernel.modules.clone(),
            cpu: options.emulator.cpu().to_owned(),
            cpus: 1,
            memory_mib: MEMORY_MIB,
            cmdline: options.cmdline.clone(),
            seed: 1,
            plugin: None,
            patches: None,
            limit: options.emulator.timeout.map(Duration::from_secs),
            interrupted: interrupted.clone(),
        };
        Ok(Prepared { lab, kernel })
    }

    /// Finds the modules that a boot would need: for who wants to know before anything else boots.
    pub(crate) fn check_modules(&self) -> Result<(), Failure> {
        match &self.lab.modules {
            Some(dir) => Ok(exitpath_lab::modules::load_order(dir, &["kvm_amd"]).map(drop)?),
            None => Ok(()),
        }
    }

    pub(crate) fn qemu(&self) -> &Qemu {
        &self.lab.qemu
    }

    /// Whether the kernel is entered as a vmlinux rather than through its own decompressor.
    pub(crate) fn enters_vmlinux(&self) -> bool {
        self.lab.kernel.is_vmlinux
    }

    /// A lab with this seed and this many CPUs.
    pub(crate) fn lab(&self, seed: u64, cpus: u32) -> Lab {
        Lab {
            seed,
            cpus,
            ..self.lab.clone()
        }
    }
}

/// Passes on what the command prints. When nobody reads any more, the lab is not needed.
struct PassOn {
    interrupted: Arc<AtomicBool>,
    unread: bool,
}

impl Sink for PassOn {
    fn stdout(&mut self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        if stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .is_err()
        {
            self.unread = true;
            self.interrupted.store(true, Ordering::Relaxed);
        }
    }

    fn stderr(&mut self, bytes: &[u8]) {
        let _ = std::io::stderr().write_all(bytes);
    }
}

/// Runs a command in the host's root file system inside the lab.
fn inside(options: &LabRun, argv: Vec<String>, terminal: bool) -> Result<(), Failure> {
    let interrupted = interrupt::flag();
    let prepared = Prepared::new(&options.lab, &interrupted)?;
    let seed = options.lab.emulator.seeds(&[1])[0];
    let mut lab = prepared.lab(seed, options.cpus);
    if options.cpus > 1 && !lab.qemu.boots_two_cpus() {
        return Err(Failure::Cannot(format!(
            "QEMU {} does not boot {} CPUs under counted time: use QEMU 10 (`make qemu10`, or \
             --qemu PATH)",
            lab.qemu.version, options.cpus
        )));
    }
    lab.memory_mib = options.memory;
    let mut env = vec![(
        "PATH".to_owned(),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    )];
    for name in ["TERM", "HOME", "LANG"] {
        env.extend(std::env::var(name).map(|value| (name.to_owned(), value)));
    }
    let job = Job {
        argv,
        env,
        cwd: std::env::current_dir()
            .map_or_else(|_| "/".to_owned(), |dir| dir.display().to_string()),
        modules: Vec::new(),
        output: None,
        share_root: true,
        fixed_addresses: false,
        terminal,
    };
    let mut sink = PassOn {
        interrupted,
        unread: false,
    };
    let outcome = lab.run(Initramfs::new(), job, &mut sink);
    if sink.unread {
        return Err(Failure::Status(BROKEN_PIPE));
    }
    match u8::try_from(outcome?.status) {
        Ok(0) => Ok(()),
        Ok(status) => Err(Failure::Status(status)),
        Err(_) => Err(Failure::Status(u8::MAX)),
    }
}
