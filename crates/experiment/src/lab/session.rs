//! Conditions measured in the lab, one after the other or at once, and the one recording of all of them.

use std::path::PathBuf;

use exitpath_exits::bare;
use exitpath_lab::gdb::{Patch, Patches};
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::plugin::Plugin;
use exitpath_lab::windows;
use exitpath_recording::{
    Condition, Difference, Environment, Machine, Recording, Run, Trace, fact, kind,
};
use exitpath_runner::work::VmmJob;

use super::boots::{self, Booted, OwnBoot};
use super::names::{self, UserSpace};
use super::{AMD, Prepared, distinct, foreign};
use crate::control::{Control, number};
use crate::error::{Error, Result};
use crate::host::add_vmm;
use crate::image_contents;
use crate::knobs::Switches;
use crate::plan::Plan;
use crate::pool::{at_a_time, run_all};
use crate::record::{About, Batch, Facts, recording, unix_seconds, version};
use crate::rows::on_two_cpus;
use crate::vmm::{OWN, Ready, Vmm};

/// Seconds of the lab's time that a VMM may take for all rows.
const SECONDS: u64 = 60;
/// The image in the lab.
pub(super) const IMAGE: &str = "/vmm/image.elf";

/// How instructions are recorded.
#[derive(Debug, Clone, Default)]
pub struct Instructions {
    /// What the plugin does; `None`: there is none, and what names addresses is brought out all the same, as
    /// that moves memory.
    pub plugin: Option<Plugin>,
    /// Kernel with debug information, if the user names one.
    pub vmlinux: Option<PathBuf>,
}

/// A condition, and what brings it about.
#[derive(Clone)]
pub struct Setup<'a> {
    /// The condition's name.
    pub name: String,
    /// Emulator, kernel and command line.
    pub prepared: &'a Prepared,
    /// The VMM that rows run under; `None`: exitpath's own.
    pub vmm: Option<&'a Vmm>,
    /// What is overwritten in the kernel before anything is measured.
    pub patches: Vec<Patch>,
    /// What is switched inside.
    pub switches: Switches,
    /// How all that is told.
    pub differs: Vec<Difference>,
}

impl<'a> Setup<'a> {
    /// The lab as it is.
    pub fn base(prepared: &'a Prepared) -> Setup<'a> {
        Setup {
            name: Condition::BASE.to_owned(),
            prepared,
            vmm: None,
            patches: Vec::new(),
            switches: Switches::default(),
            differs: Vec::new(),
        }
    }

    /// Another VMM in it.
    pub fn under(prepared: &'a Prepared, vmm: &'a Vmm) -> Setup<'a> {
        Setup {
            name: vmm.name(),
            vmm: Some(vmm),
            ..Setup::base(prepared)
        }
    }

    /// exitpath's own VMM, beside another one.
    pub fn own(prepared: &'a Prepared) -> Setup<'a> {
        Setup {
            name: OWN.to_owned(),
            ..Setup::base(prepared)
        }
    }

    /// Whether addresses have the same names as in another.
    fn shares_names(&self, other: &Setup<'_>) -> bool {
        std::ptr::eq(self.prepared, other.prepared) && self.vmm == other.vmm
    }
}

/// A boot to be made.
pub(super) struct Boot {
    /// Position of its setup.
    pub(super) setup: usize,
    pub(super) seed: u64,
    pub(super) work: Work,
}

pub(super) enum Work {
    Own(OwnBoot),
    /// A step of a boot in which others were made, too.
    Step(OwnBoot),
    Foreign,
}

impl Boot {
    fn cpus(&self) -> u32 {
        match &self.work {
            Work::Own(own) | Work::Step(own) => own.cpus,
            Work::Foreign => 1,
        }
    }
}

/// Another VMM with its files.
pub(super) struct Started {
    ready: Ready,
    files: Initramfs,
    job: VmmJob,
    image: bare::ImageContents,
}

/// What was measured in the lab so far.
pub struct Session<'a> {
    pub(super) plan: &'a Plan,
    pub(super) seeds: Vec<u64>,
    instructions: Option<Instructions>,
    pub(super) control: &'a Control,
    begun_unix_seconds: u64,
    pub(super) setups: Vec<Setup<'a>>,
    /// For each setup.
    pub(super) started: Vec<Option<Started>>,
    pub(super) done: Vec<(Boot, Booted)>,
}

impl<'a> Session<'a> {
    /// Nothing is measured yet. Each seed is a boot or two for each condition.
    pub fn new(
        plan: &'a Plan,
        seeds: &[u64],
        instructions: Option<Instructions>,
        control: &'a Control,
    ) -> Session<'a> {
        Session {
            plan,
            seeds: distinct(seeds),
            instructions,
            control,
            begun_unix_seconds: unix_seconds(),
            setups: Vec::new(),
            started: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Measures all rows under further conditions, all boots of them in one queue.
    ///
    /// # Errors
    /// Where a boot does not bring out what it should. Nothing of these conditions is kept then.
    pub fn run(&mut self, setups: Vec<Setup<'a>>) -> Result<()> {
        let known = self.setups.len();
        let ran = self.run_further(setups);
        if ran.is_err() {
            self.setups.truncate(known);
            self.started.truncate(known);
        }
        ran
    }

    fn run_further(&mut self, setups: Vec<Setup<'a>>) -> Result<()> {
        let mut boots = Vec::new();
        for setup in setups {
            let at = self.setups.len();
            let two_cpus = setup.prepared.qemu().boots_two_cpus();
            // Rungs are explained as far as they can be.
            let all_traced = self.plugin() == Some(Plugin::Records) && !self.plan.by_layers;
            let mut rows = self.plan.rows.iter().filter(|_| all_traced && !two_cpus);
            if let Some(row) = rows.find(|row| on_two_cpus(row)) {
                return Err(Error::TwoCpusTraced {
                    row: row.name,
                    qemu: setup.prepared.qemu().version.clone(),
                });
            }
            let own = boots::own_boots(self.plan, two_cpus);
            for &seed in &self.seeds {
                let boot = |work| Boot {
                    setup: at,
                    seed,
                    work,
                };
                match setup.vmm {
                    Some(_) => boots.push(boot(Work::Foreign)),
                    None => {
                        let own = own.iter().map(|own| own.switched(&setup.switches));
                        boots.extend(own.map(Work::Own).map(boot));
                    }
                }
            }
            self.started
                .push(setup.vmm.map(|vmm| self.start(vmm)).transpose()?);
            self.setups.push(setup);
        }
        let steps = boots.iter().map(|boot| match &boot.work {
            Work::Own(own) => own.rows.len() as u64,
            Work::Step(_) | Work::Foreign => 1,
        });
        let under = match boots.iter().any(|boot| matches!(boot.work, Work::Foreign)) {
            true => " under a VMM",
            false => "",
        };
        let what = format!(
            "{}{under}, {} of the lab, {} at a time; the first boot of each takes 10 to 30 s on an idle machine",
            number(self.plan.rows.len(), "row"),
            number(boots.len(), "boot"),
            at_a_time(boots.len())
        );
        let booted = self.control.during(steps.sum(), &what, || {
            run_all(&boots, self.control, |boot| self.boot(boot))
        })?;
        self.done.extend(boots.into_iter().zip(booted));
        Ok(())
    }

    /// Makes a VMM ready, with an image of the rows.
    fn start(&self, vmm: &Vmm) -> Result<Started> {
        let rows = &self.plan.rows;
        let image = image_contents(&self.plan.sampling, true);
        let mut files = Initramfs::new();
        let ready = vmm.add_to(&mut files)?;
        files.file(IMAGE, 0o644, bare::elf(&foreign::in_order(rows), &image))?;
        let job = VmmJob {
            starts: vec![ready.start("the VMM", IMAGE, &[], SECONDS, image.most_text(rows))],
            names: self.plugin().is_some(),
        };
        Ok(Started {
            ready,
            files,
            job,
            image,
        })
    }

    fn plugin(&self) -> Option<Plugin> {
        self.instructions.as_ref()?.plugin
    }

    fn boot(&self, boot: &Boot) -> Result<Booted> {
        let setup = &self.setups[boot.setup];
        let mut lab = setup.prepared.lab(boot.seed, boot.cpus());
        if !setup.patches.is_empty() {
            lab.patches = Some(Patches {
                breakpoint: exitpath_lab::ready_address()?,
                steps: vec![setup.patches.clone()],
            });
        }
        match (&boot.work, &self.started[boot.setup]) {
            (Work::Foreign, Some(started)) => {
                lab.plugin = self.plugin();
                let order = foreign::in_order(&self.plan.rows);
                let expected = (lab.plugin == Some(Plugin::Records))
                    .then(|| boots::windows(&order, |row| started.image.samples_of(row)));
                let (files, job) = (started.files.clone(), &started.job);
                boots::foreign(
                    lab,
                    files,
                    job,
                    expected,
                    self.control,
                    |printed| match printed.first() {
                        Some(printed) => foreign::runs(printed, &order),
                        None => Ok(Vec::new()),
                    },
                )
            }
            (Work::Own(own), _) => {
                lab.plugin = self.plugin().filter(|_| own.recordable);
                let kernel = &setup.prepared.kernel;
                // So that the examination inside finds the configuration where it always is.
                let config = kernel.config.as_deref().zip(kernel.release.as_deref());
                let config =
                    config.map(|(file, release)| (format!("/boot/config-{release}"), file));
                let names = self.instructions.is_some();
                boots::own(lab, own, self.plan.order_seed, config, names, self.control)
            }
            (Work::Step(_), _) | (Work::Foreign, None) => Err(Error::Interrupted),
        }
    }

    /// The recording of all that was measured so far.
    ///
    /// # Errors
    /// Where nothing was, or addresses cannot be named.
    pub fn recording(&self) -> Result<Recording> {
        let mut batches: Vec<Batch> = self
            .done
            .iter()
            .map(|(boot, booted)| {
                let condition = &self.setups[boot.setup].name;
                let runs = booted.runs.iter().cloned().map(|run| Run {
                    seed: Some(boot.seed),
                    cpus: boot.cpus(),
                    condition: condition.clone(),
                    ..run
                });
                Batch {
                    runs: runs.collect(),
                    trace: booted.trace.clone(),
                }
            })
            .collect();
        crate::record::number(&mut batches);
        let trace = self.trace(&batches)?;
        let without_effect = self.without_effect();
        let mut warnings: Vec<String> = Vec::new();
        for warning in without_effect.iter().flatten() {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
        let mut facts = self.facts(0, &without_effect)?;
        self.add_boots(&mut facts);
        if let Some(why) = self.done.iter().find_map(|(_, booted)| booted.exits_unread) {
            facts.insert(fact::EXITS_UNREAD.to_owned(), why.into());
        }
        let conditions = self.conditions(&without_effect)?;
        if let Some(first) = conditions.first() {
            add_vmm(&mut facts, &first.differs);
        }
        let (_, first) = self.first(0)?;
        let prepared = self.setups[0].prepared;
        let about = About {
            begun_unix_seconds: self.begun_unix_seconds,
            machine: Machine::Lab,
            environment: Environment {
                arch: std::env::consts::ARCH.to_owned(),
                machine_kind: kind::SVM.to_owned(),
                kernel: first.hello.release.clone(),
                cmdline: first.hello.cmdline.clone(),
                cpu: prepared.cpu().asked.clone(),
                cpus: self
                    .done
                    .iter()
                    .map(|(boot, _)| boot.cpus())
                    .max()
                    .unwrap_or(1),
                qemu: Some(prepared.qemu().version.clone()),
                seeds: self.seeds.clone(),
                tsc_khz: None,
                exitpath: version(Machine::Lab),
                facts,
            },
            conditions,
            replication: self.seeds.len() as u32,
            amd: AMD,
            warnings,
        };
        let runs = batches.into_iter().flat_map(|batch| batch.runs).collect();
        Ok(recording(self.plan, about, runs, trace))
    }

    /// The first boot of a setup.
    fn first(&self, setup: usize) -> Result<(&Boot, &Booted)> {
        let mut of_setup = self.done.iter().filter(|(boot, _)| boot.setup == setup);
        let first = of_setup.next().ok_or(Error::Interrupted)?;
        Ok((&first.0, &first.1))
    }

    /// What of a setup's command line did not come about, in the order of its boots, each once.
    fn without_effect(&self) -> Vec<Vec<String>> {
        let mut of_setups = vec![Vec::new(); self.setups.len()];
        for (boot, booted) in &self.done {
            let prepared = self.setups[boot.setup].prepared;
            for warning in prepared.without_effect(&booted.says) {
                if !of_setups[boot.setup].contains(&warning) {
                    of_setups[boot.setup].push(warning);
                }
            }
        }
        of_setups
    }

    /// What is known of the machine under a setup.
    fn facts(&self, setup: usize, without_effect: &[Vec<String>]) -> Result<Facts> {
        let (boot, first) = self.first(setup)?;
        let Setup { prepared, vmm, .. } = &self.setups[boot.setup];
        let mut facts = first.facts.clone();
        let mut add = |name: &str, value: serde_json::Value| facts.insert(name.to_owned(), value);
        add(fact::MODULES, serde_json::json!(first.says.modules));
        add(fact::WITHOUT_EFFECT, without_effect[setup].clone().into());
        add(fact::KERNEL_ORIGIN, prepared.kernel.origin.clone().into());
        add(fact::ENTERED, prepared.entered().into());
        for (name, value) in prepared.cpu_facts() {
            add(name, value);
        }
        if vmm.is_some() {
            add(fact::VMM_ADDRESSES_RANDOMISED, false.into());
        }
        Ok(facts)
    }

    /// Rows of two vCPUs and of pages differ from the plan's figures.
    fn add_boots(&self, facts: &mut Facts) {
        let of_boot = |(boot, booted): &(Boot, Booted)| {
            let Work::Own(own) = &boot.work else {
                return None;
            };
            let mut told = serde_json::json!({
                "seed": boot.seed,
                "cpus": own.cpus,
                "rows": own.rows.iter().map(|row| row.name).collect::<Vec<_>>(),
                "samples": own.settings.samples,
                "batches": own.settings.batches,
                "batch_length": own.settings.batch_length,
                "begun_ticks": booted.begun_ticks,
            });
            if self.setups.len() > 1 {
                told["condition"] = self.setups[boot.setup].name.as_str().into();
            }
            Some(told)
        };
        let boots: Vec<_> = self.done.iter().filter_map(of_boot).collect();
        if !boots.is_empty() {
            facts.insert(fact::BOOTS.to_owned(), boots.into());
        }
    }

    /// The conditions, with what each differs in from the others.
    fn conditions(&self, without_effect: &[Vec<String>]) -> Result<Vec<Condition>> {
        let (_, base) = self.first(0)?;
        let base_facts = self.facts(0, without_effect)?;
        let mut conditions = Vec::new();
        let mut kernels = Vec::new();
        for (at, setup) in self.setups.iter().enumerate() {
            let (_, first) = self.first(at)?;
            let mut differs = setup.differs.clone();
            if let Some(started) = &self.started[at] {
                differs.extend(started.ready.differs());
            }
            let mut facts = differing(&base_facts, &self.facts(at, without_effect)?);
            if std::ptr::eq(setup.prepared, self.setups[0].prepared) {
                // The rest of one and the same lab is chance.
                let own = [fact::VMM_ADDRESSES_RANDOMISED, fact::WITHOUT_EFFECT];
                facts.retain(|name, _| own.contains(&name.as_str()));
            }
            let origin = &setup.prepared.kernel.origin;
            kernels.push((
                (first.hello.release.clone(), origin.clone()),
                first.hello.cmdline.clone(),
            ));
            conditions.push(Condition {
                name: setup.name.clone(),
                differs,
                facts,
                warnings: without_effect[at]
                    .iter()
                    .filter(|warning| without_effect.iter().any(|of| !of.contains(warning)))
                    .cloned()
                    .collect(),
            });
        }
        // Where kernels or command lines differ, each condition says its own.
        let origin = &self.setups[0].prepared.kernel.origin;
        let of_base = (
            (base.hello.release.clone(), origin.clone()),
            base.hello.cmdline.clone(),
        );
        let kernels_differ = kernels.iter().any(|(kernel, _)| *kernel != of_base.0);
        let cmdlines_differ = kernels.iter().any(|(_, cmdline)| *cmdline != of_base.1);
        for (condition, ((release, _), cmdline)) in conditions.iter_mut().zip(kernels) {
            if kernels_differ {
                condition.differs.push(Difference::Kernel(release));
            }
            if cmdlines_differ {
                condition.differs.push(Difference::Cmdline(cmdline));
            }
        }
        Ok(conditions)
    }

    /// The trace of all boots, with names; `None` where nothing was recorded.
    fn trace(&self, batches: &[Batch]) -> Result<Option<Trace>> {
        let vmlinux = self
            .instructions
            .as_ref()
            .and_then(|i| i.vmlinux.as_deref());
        let mut groups: Vec<usize> = Vec::new();
        for (at, setup) in self.setups.iter().enumerate() {
            if !groups
                .iter()
                .any(|&group| self.setups[group].shares_names(setup))
            {
                groups.push(at);
            }
        }
        let mut named = Vec::new();
        for &group in &groups {
            let own = &self.setups[group];
            let of_group: Vec<(&Boot, &Booted, &Batch)> = std::iter::zip(&self.done, batches)
                .filter(|((boot, _), _)| self.setups[boot.setup].shares_names(own))
                .map(|((boot, booted), batch)| (boot, booted, batch))
                .collect();
            let traces: Vec<Trace> = of_group
                .iter()
                .filter_map(|(_, _, batch)| batch.trace.clone())
                .collect();
            if traces.is_empty() {
                continue;
            }
            let mut trace = windows::merge(traces);
            let kallsyms = of_group
                .iter()
                .find_map(|(_, booted, _)| booted.kallsyms.as_deref());
            let vdsos = of_group
                .iter()
                .filter_map(|(_, booted, _)| booted.vdso.as_ref());
            let user = match own.vmm {
                None => UserSpace::Own(vdsos.collect()),
                // Addresses are not randomised, so that one boot's files stand for all.
                Some(_) => UserSpace::Foreign {
                    maps: of_group
                        .iter()
                        .find_map(|(_, booted, _)| booted.printed.first())
                        .map_or("", |printed| &printed.maps),
                    vdso: vdsos.into_iter().next(),
                },
            };
            let runs: Vec<&Run> = of_group
                .iter()
                .flat_map(|(_, _, batch)| &batch.runs)
                .collect();
            let kallsyms = kallsyms.unwrap_or_default();
            names::add(&mut trace, kallsyms, &user, &runs, self.control)?;
            names::add_lines(&mut trace, &own.prepared.kernel, vmlinux)?;
            let conditions = self.setups.iter().filter(|setup| setup.shares_names(own));
            let conditions: Vec<&str> = conditions.map(|setup| setup.name.as_str()).collect();
            named.push((conditions, trace));
        }
        Ok(names::side_by_side(named))
    }
}

/// Facts that are not as in the base; null for those that are not there.
fn differing(base: &Facts, own: &Facts) -> Facts {
    let gone = base.keys().filter(|name| !own.contains_key(*name));
    let gone = gone.map(|name| (name.clone(), serde_json::Value::Null));
    let others = own
        .iter()
        .filter(|(name, value)| base.get(*name) != Some(value));
    let others = others.map(|(name, value)| (name.clone(), value.clone()));
    gone.chain(others).collect()
}
