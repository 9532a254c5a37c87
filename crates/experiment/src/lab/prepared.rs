//! What a lab is made of, found before anything boots: emulator, kernel, modules.

use std::path::{Path, PathBuf};
use std::time::Duration;

use exitpath_host::KernelSays;
use exitpath_lab::Error as LabError;
use exitpath_lab::boot::Lab;
use exitpath_lab::cache::Cache;
use exitpath_lab::cpu::Cpu;
use exitpath_lab::debug_files::DebugFiles;
use exitpath_lab::kernels::{Kernel, Kernels};
use exitpath_lab::parameters::Known;
use exitpath_lab::qemu::Qemu;
use exitpath_lab::snapshot::Snapshots;

use exitpath_recording::fact;

use crate::control::Control;
use crate::error::{Error, Result};

pub use exitpath_lab::boot::DEFAULT_CPU;

/// Memory of a lab that measures, in MiB.
const MEMORY_MIB: u32 = 1024;

/// What somebody wants a lab to be made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// A version, a bzImage or vmlinux, or a kernel's .deb; `None`: Debian's current one.
    pub kernel: Option<String>,
    /// Folder of the modules of a kernel given as an image.
    pub modules: Option<PathBuf>,
    /// Appended to the kernel's command line.
    pub cmdline: String,
    /// QEMU to use; `None`: the newest there is.
    pub qemu: Option<PathBuf>,
    /// QEMU's CPU model; `None`: [`DEFAULT_CPU`].
    pub cpu: Option<String>,
    /// Whether SVM is to be what QEMU emulates, and nothing is supplied.
    pub bare_svm: bool,
    /// How long a boot may take in real time.
    pub timeout: Option<Duration>,
    /// Whether what was booted before is booted again.
    pub fresh: bool,
}

impl Choice {
    /// The CPU model.
    pub fn cpu(&self) -> &str {
        self.cpu.as_deref().unwrap_or(DEFAULT_CPU)
    }
}

/// The cache of what was downloaded and unpacked, which says when something slow begins.
///
/// # Errors
/// Where there is no folder for it.
pub fn cache(control: &Control) -> Result<Cache> {
    let progress = control.progress.clone();
    Ok(Cache::open()?.with_progress(move |line: &str| progress.remark(line)))
}

/// The QEMU that a lab has: the one named, or the newest there is.
///
/// # Errors
/// Where there is none that can be used.
pub fn find_qemu(named: Option<&Path>, control: &Control) -> Result<Qemu> {
    Ok(Qemu::find(named, &cache(control)?)?)
}

/// Finds a kernel, fetching it if need be.
fn resolve(cache: &Cache, spec: Option<&str>, modules: Option<&Path>) -> Result<Kernel> {
    let kernel = Kernels::new(cache.clone()).resolve(spec, modules);
    kernel.map_err(|error| of_the_user(error, &[spec.map(Path::new), modules]))
}

/// A kernel's files with debug information, fetched if need be.
///
/// # Errors
/// Where there are none, or they cannot be fetched.
pub fn fetch_debug_files(spec: Option<&str>, control: &Control) -> Result<DebugFiles> {
    let kernels = Kernels::new(cache(control)?);
    let kernel = kernels.resolve(spec, None)?;
    Ok(kernels.fetch_debug_files(&kernel)?)
}

/// What the user named and cannot be opened is not this machine's fault.
fn of_the_user(error: LabError, given: &[Option<&Path>]) -> Error {
    match error {
        LabError::Io { ref path, .. } if given.contains(&Some(path)) => Error::OfTheUser(error),
        error => error.into(),
    }
}

/// Which of these folders of modules each of these kernels gets: the one whose release it has, and
/// where several fit, the one in its position.
///
/// # Errors
/// Where a folder fits none, or is left over.
pub fn assign_modules(
    kernels: &[String],
    folders: &[PathBuf],
    control: &Control,
) -> Result<Vec<Option<PathBuf>>> {
    if folders.is_empty() {
        return Ok(vec![None; kernels.len()]);
    }
    let cache = cache(control)?;
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
    let assigned = assign(&fits, kernels.len()).map_err(|at| Error::ModulesTwice {
        folder: folders[at].clone(),
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
pub struct Prepared {
    lab: Lab,
    pub(crate) kernel: Kernel,
    /// What tells which parameters there are.
    known: Known,
}

impl Prepared {
    /// Finds QEMU and the kernel, fetching it if need be.
    ///
    /// # Errors
    /// Where something of it is not there, a parameter of the command line is of nobody, or the user
    /// interrupts.
    pub fn new(choice: &Choice, control: &Control) -> Result<Prepared> {
        let prepared = Prepared::find(choice, control);
        // Ctrl-C ends apt too, which then complains of something else.
        control.check()?;
        prepared
    }

    /// As [`Prepared::new`], and finds the modules that a boot needs: for who wants to know before anything
    /// else boots.
    ///
    /// # Errors
    /// As that, and where a module is missing.
    pub fn with_modules(choice: &Choice, control: &Control) -> Result<Prepared> {
        let prepared = Prepared::new(choice, control)?;
        if let Some(dir) = &prepared.lab.modules {
            exitpath_lab::modules::load_order(dir, &["kvm_amd"])?;
        }
        Ok(prepared)
    }

    fn find(choice: &Choice, control: &Control) -> Result<Prepared> {
        exitpath_lab::inside()?;
        let cache = cache(control)?;
        let qemu = Qemu::find(choice.qemu.as_deref(), &cache)?;
        let kernel = resolve(&cache, choice.kernel.as_deref(), choice.modules.as_deref())?;
        let mut lab = Lab {
            qemu,
            kernel: kernel.boot_file(&cache)?,
            modules: kernel.modules.clone(),
            cpu: Cpu::bare(choice.cpu()),
            cpus: 1,
            memory_mib: MEMORY_MIB,
            cmdline: choice.cmdline.clone(),
            seed: 1,
            plugin: None,
            snapshots: Some(Snapshots::new(&cache, &kernel.origin, choice.fresh)),
            patches: None,
            limit: choice.timeout,
            silence: None,
            interrupted: control.interrupted.clone(),
        };
        // A name that nobody knows would change nothing, and nothing would say so.
        let known = Known::read(&lab.cmdline, &lab.kernel, lab.modules.as_deref())?;
        known.check(&lab.cmdline)?;
        if !choice.bare_svm {
            let (cpu, lacks) = Cpu::find(&lab.qemu, choice.cpu(), &cache)?;
            if let Some(why) = lacks {
                control.progress.remark(&format!(
                    "the lab's CPU is as QEMU emulates it, without next RIP and decode assists: {why}"
                ));
            }
            lab.cpu = cpu;
        }
        Ok(Prepared { lab, kernel, known })
    }

    /// The emulator.
    pub fn qemu(&self) -> &Qemu {
        &self.lab.qemu
    }

    /// The CPU.
    pub(crate) fn cpu(&self) -> &Cpu {
        &self.lab.cpu
    }

    /// What of the CPU is not as QEMU emulates it, as facts.
    pub(crate) fn cpu_facts(&self) -> [(&'static str, serde_json::Value); 2] {
        let cpu = &self.lab.cpu;
        [
            (fact::CPU_SUPPLIED, cpu.supplied.clone().into()),
            (fact::CPU_WITHOUT_EFFECT, cpu.without_effect.clone().into()),
        ]
    }

    /// How the kernel is entered, for a reader.
    pub(crate) fn entered(&self) -> &'static str {
        match self.lab.kernel.is_vmlinux {
            true => "vmlinux by PVH",
            false => "bzImage",
        }
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
