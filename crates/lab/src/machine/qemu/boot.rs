//! Booting a lab and waiting for what it says.

mod process;
mod restored;
mod stopped;
mod wait;
mod watch;

use std::fs::File;
use std::time::Instant;

use exitpath_lab_start::places::{INIT, NOTHING};
use exitpath_protocol::job::{EXITPATH, JOB_FILE, Job, Module};

use crate::arch::x86_64;
use crate::descriptors::sealed_file;
use crate::error::{Error, Result};
use crate::image::initramfs::Initramfs;
use crate::image::inside::inside;
use crate::image::payload::payload;
use crate::image::start;
use crate::kernel::modules::{ModuleFile, Modules};
use crate::kernel::parameters;
use crate::machine::qemu::console::Terminal;
use process::{CMDLINE, Guard, Phase, Work};
use restored::Waits;
use wait::{Wait, outcome};
use watch::Watch;

pub use crate::machine::qemu::lab::{
    DEFAULT_CPU, Discard, Kept, Lab, Outcome, Plan, SILENCE, Sink,
};

/// What was added to a lab's command line, as the kernel said it; `None` where that is none of a lab.
pub fn added_to_cmdline(all: &str) -> Option<&str> {
    all.strip_prefix(CMDLINE).map(str::trim)
}

impl Lab {
    /// Runs `job` with `files` in a machine that has booted, and waits for the end. A job that waits for a plan once
    /// it is ready gets this one.
    ///
    /// With [`Lab::snapshots`] the machine is restored, whether it has just booted or long ago: both are one way, so that
    /// figures cannot differ. `files` must not have anything at `/init` and in `/lab`.
    ///
    /// # Errors
    /// Whatever kept the lab from its last frame: the kernel did not boot, init failed, QEMU
    /// died, time ran out, the user interrupted. Never half a result.
    pub fn run(
        &self,
        files: Initramfs,
        mut job: Job,
        plan: Option<Plan<'_>>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        let modules = self.modules(&job)?;
        job.modules = (modules.iter())
            .map(|(module, parameters)| Module {
                name: module.name.clone(),
                parameters: parameters.clone(),
            })
            .collect();
        let initramfs = start::initramfs(&modules)?;
        let handed = payload(&handed(files, &job)?)?;
        let work = Work {
            job: &job,
            payload: &sealed_file("payload", &handed)?,
            plan: &sealed_file("plan", plan.map_or(NOTHING, |plan| plan.bytes))?,
        };
        match &self.snapshots {
            None => self.whole(&initramfs, &work, sink),
            Some(snapshots) => {
                let asides = plan.map(|plan| plan.asides);
                let waits = asides.map(|asides| Waits {
                    handed: &handed,
                    asides,
                });
                self.restored(snapshots, &initramfs, waits, &work, sink)
            }
        }
    }

    /// Boots, and goes on.
    fn whole(&self, initramfs: &[u8], work: &Work<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
        let began = Instant::now();
        let image = sealed_file("initramfs", initramfs)?;
        let terminal = work.job.terminal.then(Terminal::save).flatten();
        let (ours, theirs) = self.ends(work, &image, None)?;
        let child = Guard {
            child: self.spawn(Phase::Whole, work.job, theirs)?,
            _terminal: terminal,
        };
        let console = File::from(ours.console);
        let watch = Watch::new(child.child.0.id(), self, began, ours.silence, console);
        let wait = Wait::new(watch, sink, &[]);
        outcome(wait, ours.out, ours.stream, child)
    }

    /// The modules that are loaded, in order, with their parameters.
    fn modules(&self, job: &Job) -> Result<Vec<start::Module>> {
        let mut wanted = vec![x86_64::KVM_MODULE];
        if job.share_root {
            wanted.extend(x86_64::SHARED_ROOT_MODULES);
        }
        let Some(dir) = &self.modules else {
            return Ok(Vec::new());
        };
        let order = Modules::index(dir)?.load_order(&wanted)?.into_iter();
        let with_parameters = |module: ModuleFile| {
            let parameters = parameters::of_module(&self.cmdline, &module.name);
            (module, parameters)
        };
        Ok(order.map(with_parameters).collect())
    }
}

/// All that a lab is handed for this job.
fn handed(mut files: Initramfs, job: &Job) -> Result<Initramfs> {
    // A symlink may have led there.
    if let Some((path, own)) = files.hidden() {
        return Err(Error::NotInTheLab { path, own });
    }
    let json = serde_json::to_vec(job).expect("plain data always serialises");
    files.file(JOB_FILE, 0o644, json)?;
    files.file(INIT, 0o755, inside()?)?;
    if job.share_root {
        // Not /proc/self/exe itself: it may be a path that only looks like the running program.
        let this = std::env::current_exe().map_err(Error::io("find", "/proc/self/exe"))?;
        files.file_from(EXITPATH, &this)?;
    }
    Ok(files)
}
