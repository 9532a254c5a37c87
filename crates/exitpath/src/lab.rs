//! `exitpath lab`: kernels, a shell, any command; and the lab that `measure` boots.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exitpath_host::KernelSays;
use exitpath_lab::Error as LabError;
use exitpath_lab::boot::{Kept, Lab, Sink};
use exitpath_lab::cache::Cache;
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::job::{Job, PROGRAMS, RECORDINGS};
use exitpath_lab::kernels::{Kernel, Kernels};
use exitpath_lab::parameters::Known;
use exitpath_lab::qemu::Qemu;
use exitpath_lab::vmm_files;

use crate::cli::{Emulator, LabCommand, LabOptions, LabRun};
use crate::failure::Failure;
use crate::{interrupt, output};

/// Status of a program that SIGPIPE ended, as shells give it.
const BROKEN_PIPE: u8 = 141;
/// Status of a command whose recording did not come out, as of one that this machine cannot do.
const CANNOT: u8 = 3;
/// Memory of a lab that measures, in MiB.
pub(crate) const MEMORY_MIB: u32 = 1024;

pub(crate) fn run(command: LabCommand) -> Result<(), Failure> {
    match command {
        LabCommand::Kernels { version, debug } => kernels(version.as_deref(), debug),
        LabCommand::Qemu { fetch } => show_qemu(fetch),
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

/// Says which QEMU the lab uses. Only where it is asked to, it fetches one: that changes figures.
fn show_qemu(fetch: bool) -> Result<(), Failure> {
    let cache = cache()?;
    let qemu = if fetch {
        Qemu::fetch(&cache)?
    } else {
        Qemu::find(None, &cache)?
    };
    if !qemu.boots_two_cpus() {
        output::remark(exitpath_report::text::NEWER_QEMU);
    }
    output::print(&format!("{} ({})", qemu.path.display(), qemu.version))
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

/// Finds a kernel, fetching it if need be.
fn resolve(cache: &Cache, spec: Option<&str>, modules: Option<&Path>) -> Result<Kernel, Failure> {
    let kernel = Kernels::new(cache.clone()).resolve(spec, modules);
    kernel.map_err(|error| of_the_user(error, &[spec.map(Path::new), modules]))
}

/// What the user named and cannot be opened is not this machine's fault.
fn of_the_user(error: LabError, given: &[Option<&Path>]) -> Failure {
    match error {
        LabError::Io { ref path, .. } if given.contains(&Some(path)) => {
            Failure::Usage(error.to_string())
        }
        error => error.into(),
    }
}

/// Which of these folders of modules each of these kernels gets: the one whose release it has, and
/// where several fit, the one in its position.
pub(crate) fn assign_modules(
    kernels: &[String],
    folders: &[PathBuf],
) -> Result<Vec<Option<PathBuf>>, Failure> {
    if folders.is_empty() {
        return Ok(vec![None; kernels.len()]);
    }
    let cache = cache()?;
    let mut releases = Vec::new();
    for kernel in kernels {
        releases.push(resolve(&cache, Some(kernel), None)?.release);
    }
    let mut fits = Vec::new();
    for folder in folders {
        let mut of_folder = Vec::new();
        let mut refused = None;
        for (at, release) in releases.iter().enumerate() {
            match Kernels::modules_for(folder, release.as_deref()) {
                Ok(_) => of_folder.push(at),
                Err(LabError::OtherModules { dir, of, .. }) => refused = Some((dir, of)),
                Err(error) => return Err(of_the_user(error, &[Some(folder)])),
            }
        }
        if let (Some((dir, of)), true) = (refused, of_folder.is_empty()) {
            let known: Vec<&str> = releases.iter().flatten().map(String::as_str).collect();
            return Err(LabError::OtherModules {
                dir,
                of,
                release: known.join(" or "),
            }
            .into());
        }
        fits.push(of_folder);
    }
    let assigned = assign(&fits, kernels.len()).map_err(|at| {
        Failure::Usage(format!(
            "--modules {}: the kernel of this release has a folder of modules already; give one for \
             each kernel",
            folders[at].display()
        ))
    })?;
    let folder = |at: Option<usize>| at.map(|at| folders[at].clone());
    Ok(assigned.into_iter().map(folder).collect())
}

/// Which of the folders each of so many kernels gets, of the kernels that each folder fits: its own
/// position's where there is a choice. The error is a folder that is left over.
fn assign(fits: &[Vec<usize>], kernels: usize) -> Result<Vec<Option<usize>>, usize> {
    let mut assigned = vec![None; kernels];
    // Those that have no choice first.
    let mut order: Vec<usize> = (0..fits.len()).collect();
    order.sort_by_key(|&at| fits[at].len());
    for at in order {
        let free = |kernel: &&usize| assigned[**kernel].is_none();
        let own = fits[at]
            .iter()
            .find(|kernel| **kernel == at && free(kernel));
        let other = || fits[at].iter().find(free);
        let &kernel = own.or_else(other).ok_or(at)?;
        assigned[kernel] = Some(at);
    }
    Ok(assigned)
}

/// A lab's parts that are the same for all of its boots.
pub(crate) struct Prepared {
    lab: Lab,
    pub(crate) kernel: Kernel,
    /// What tells which parameters there are.
    known: Known,
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
        let kernel = resolve(
            &cache,
            options.kernel.as_deref(),
            options.modules.as_deref(),
        )?;
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
            silence: None,
            interrupted: interrupted.clone(),
        };
        // A name that nobody knows would change nothing, and nothing would say so.
        let known = Known::read(&lab.cmdline, &lab.kernel, lab.modules.as_deref())?;
        known.check(&lab.cmdline)?;
        Ok(Prepared { lab, kernel, known })
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

    /// What of the user's command line did not come about, by what the kernel says: a line for each.
    pub(crate) fn without_effect(&self, says: &KernelSays) -> Vec<String> {
        says.without_effect(&self.lab.cmdline, |word| self.known.may_know(word))
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
struct PassOn<'a> {
    prepared: &'a Prepared,
    interrupted: Arc<AtomicBool>,
    unread: bool,
}

impl Sink for PassOn<'_> {
    fn says(&mut self, says: &KernelSays) {
        for warning in self.prepared.without_effect(says) {
            output::remark(&format!("warning: {warning}"));
        }
    }

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

/// Writes the recordings that were made inside to where they were there. The lab is not trusted: what
/// comes out has to be a recording, and takes nothing's place.
fn bring_out(kept: Vec<Kept>) -> Result<(), Failure> {
    let names: Vec<&str> = exitpath_store::file_names().collect();
    let mut folders: BTreeMap<PathBuf, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for file in kept {
        if names.contains(&file.name.as_str()) {
            let files = folders.entry(file.folder).or_default();
            files.insert(file.name, file.bytes);
        }
    }
    let mut failed = Ok(());
    for (folder, files) in folders {
        let written = exitpath_store::from_files(&folder, &files)
            .and_then(|recording| exitpath_store::write(&folder, &recording));
        if let Err(error) = written {
            let what = format!(
                "the recording {} was made in the lab and is gone with it: {error}",
                folder.display()
            );
            output::remark(&what);
            failed = Err(Failure::Status(CANNOT));
        }
    }
    failed
}

/// Where this runs inside a lab, has it bring this recording out. Elsewhere nothing happens.
pub(crate) fn keep(dir: &Path) {
    let list = std::fs::OpenOptions::new().append(true).open(RECORDINGS);
    if let (Ok(mut list), Ok(dir)) = (list, dir.canonicalize()) {
        let _ = list.write_all(format!("{}\n", dir.display()).as_bytes());
    }
}

/// Refuses what the command names and the lab cannot have.
fn check_places(cwd: &Path, argv: &[String]) -> Result<(), Failure> {
    let Some((program, arguments)) = argv.split_first() else {
        return Ok(());
    };
    vmm_files::check_folder(cwd)?;
    if program.contains('/') {
        vmm_files::check_program(&cwd.join(program))?;
    }
    for argument in arguments {
        for part in argument.split(['=', ',']) {
            if Path::new(part).is_absolute() {
                vmm_files::check_file(Path::new(part))?;
            }
        }
    }
    Ok(())
}

/// Runs a command in the host's root file system inside the lab.
fn inside(options: &LabRun, argv: Vec<String>, terminal: bool) -> Result<(), Failure> {
    let cwd = std::env::current_dir().map_err(|error| {
        Failure::Usage(format!(
            "the current folder, in which the command would begin, is gone ({error}): change to \
             another"
        ))
    })?;
    check_places(&cwd, &argv)?;
    let interrupted = interrupt::flag();
    let prepared = Prepared::new(&options.lab, &interrupted)?;
    let seed = options.lab.emulator.seeds(&[1])[0];
    let mut lab = prepared.lab(seed, options.cpus);
    if options.cpus > 1 && !lab.qemu.boots_two_cpus() {
        return Err(Failure::Cannot(format!(
            "QEMU {} does not boot {} CPUs under counted time: use QEMU 10 (`exitpath lab qemu --fetch`, or \
             --qemu PATH)",
            lab.qemu.version, options.cpus
        )));
    }
    lab.memory_mib = options.memory;
    let mut env = vec![(
        "PATH".to_owned(),
        format!("{PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    )];
    for name in ["TERM", "HOME", "LANG", "XDG_DATA_HOME"] {
        env.extend(std::env::var(name).map(|value| (name.to_owned(), value)));
    }
    let job = Job {
        argv,
        env,
        cwd: cwd.display().to_string(),
        modules: Vec::new(),
        output: None,
        share_root: true,
        fixed_addresses: false,
        terminal,
    };
    let mut sink = PassOn {
        prepared: &prepared,
        interrupted,
        unread: false,
    };
    let outcome = lab.run(Initramfs::new(), job, &mut sink);
    if sink.unread {
        return Err(Failure::Status(BROKEN_PIPE));
    }
    // A recording that was named is there, whatever else the command did.
    let outcome = outcome?;
    let brought = bring_out(outcome.kept);
    match u8::try_from(outcome.status) {
        Ok(0) => brought,
        Ok(status) => Err(Failure::Status(status)),
        Err(_) => Err(Failure::Status(u8::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::assign;

    #[test]
    fn folders_of_modules_go_to_the_kernels_they_fit() {
        // In the other order than the kernels.
        assert_eq!(assign(&[vec![1], vec![0]], 2), Ok(vec![Some(1), Some(0)]));
        // One folder for one of two kernels, whichever it is.
        assert_eq!(assign(&[vec![1]], 2), Ok(vec![None, Some(0)]));
        // Two builds of one release: in their order.
        let both = vec![0, 1];
        assert_eq!(
            assign(&[both.clone(), both.clone()], 2),
            Ok(vec![Some(0), Some(1)])
        );
        assert_eq!(
            assign(&[both.clone(), vec![0]], 2),
            Ok(vec![Some(1), Some(0)])
        );
        // Two folders of one kernel's.
        assert_eq!(assign(&[vec![0], vec![0]], 2), Err(1));
    }
}
