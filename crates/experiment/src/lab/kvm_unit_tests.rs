//! kvm-unit-tests' vmexit and exitpath's image under the same QEMU in the same lab: a condition each.

use std::path::{Path, PathBuf};

use exitpath_exits::{Row, bare};
use exitpath_lab::bzimage::file_sha256;
use exitpath_lab::initramfs::Initramfs;
use exitpath_recording::{
    Condition, Difference, Environment, Machine, Outcome, Recording, Run, counter, fact, kind,
};
use exitpath_runner::work::VmmJob;

use super::boots::{self, Booted};
use super::session::IMAGE;
use super::{AMD, Prepared, foreign};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::host::add_vmm;
use crate::image_contents;
use crate::plan::Plan;
use crate::pool::run_all;
use crate::record::{About, Batch, recording, unix_seconds, version};
use crate::vmm::Vmm;

/// What its condition is called, and the program in the guest.
pub const NAME: &str = "kvm-unit-tests vmexit";
/// The test in the lab.
const VMEXIT: &str = "/vmm/vmexit.flat";
/// Seconds of the lab's time for one row of theirs: its rounds double until one takes 2^30 ticks
/// or more, so that all together take less than 2^32, which is 4.3 seconds.
const SECONDS: u64 = 20;
/// Devices that vmexit's rows make use of; both run with them, as KVM's search among its devices
/// takes longer for each.
const DEVICES: [&str; 4] = ["-device", "pc-testdev", "-device", "pci-testdev"];

/// How a figure of vmexit is read from what it printed of a row: in ticks, or why there is none.
pub type ReadFigure = fn(&str, &str) -> Result<u64, String>;

/// The test's file in a checkout that has been built.
///
/// # Errors
/// [`Error::NoVmexit`].
pub fn find(dir: &Path) -> Result<PathBuf> {
    let no = |what: String| Err(Error::NoVmexit(what));
    let file = dir.join("x86/vmexit.flat");
    if !file.exists() {
        let dir = dir.display();
        return no(if file.with_extension("c").is_file() {
            format!(
                "{} is not built: run `./configure && make x86/vmexit.flat` in {dir}",
                file.display()
            )
        } else {
            format!("{dir} is no checkout of kvm-unit-tests: it has no x86/vmexit.c")
        });
    }
    let is_elf = std::fs::read(&file).map(|bytes| bytes.starts_with(b"\x7fELF"));
    match is_elf {
        Ok(true) => Ok(file),
        Ok(false) => no(format!(
            "{} is no ELF file: build it again (`make x86/vmexit.flat`)",
            file.display()
        )),
        Err(error) => no(format!("cannot read {}: {error}", file.display())),
    }
}

/// The VMM of this name, which has to be QEMU.
///
/// # Errors
/// [`Error::NotQemu`], and as [`Vmm::find`].
pub fn find_qemu(named: &str) -> Result<Vmm> {
    match Vmm::find(named)? {
        Vmm::Command(_) => Err(Error::NotQemu(named.to_owned())),
        qemu => Ok(qemu),
    }
}

/// Measures the plan's rows with both programs, a boot for each row, so that what one leaves running does not
/// disturb the next one.
///
/// # Errors
/// Where a boot, or one of the two programs in it, does not bring out what it should.
pub fn record(
    plan: &Plan,
    test: &Path,
    vmm: &Vmm,
    (prepared, seed): (&Prepared, u64),
    read: ReadFigure,
    control: &Control,
) -> Result<Recording> {
    let image = image_contents(&plan.sampling, true);
    let mut files = Initramfs::new();
    files.file_from(VMEXIT, test)?;
    let ready = vmm.add_to(&mut files)?.and(&DEVICES);
    let ours = vmm.name();
    let begun_unix_seconds = unix_seconds();
    let rows = &plan.rows;
    let boot = |row: &&'static Row| {
        let row = *row;
        let mut files = files.clone();
        files.file(IMAGE, 0o644, bare::elf(&[row], &image))?;
        let text = image.most_text(&[row]);
        let start =
            |kernel: &str, more: &[&str]| ready.start(row.name, kernel, more, SECONDS, text);
        let job = VmmJob {
            starts: vec![start(VMEXIT, &["-append", row.name]), start(IMAGE, &[])],
            names: false,
        };
        let lab = prepared.lab(seed, 1);
        boots::foreign(lab, files, &job, None, control, |printed| {
            let [theirs, own] = printed else {
                return Err(Error::Report {
                    why: "it lacks a VMM".to_owned(),
                });
            };
            let ticks = read(&theirs.text, row.name).map_err(|what| Error::Vmexit {
                row: row.name,
                what,
                how: foreign::how_it_ended(theirs),
            })?;
            let mut runs = foreign::runs(own, &[row])?;
            if let Some(run) = runs.iter().find(|run| run.outcome != Outcome::Done) {
                return Err(boots::not_done(run));
            }
            for run in &mut runs {
                run.condition.clone_from(&ours);
            }
            runs.extend(runs.first().map(|run| theirs_beside(run, ticks)));
            Ok(runs)
        })
    };
    let what = format!(
        "{0} rows of both programs, {0} boots of the lab",
        rows.len()
    );
    let steps = 2 * rows.len() as u64;
    let booted = control.during(steps, &what, || run_all(rows, control, boot))?;

    let first = booted.first().ok_or(Error::Interrupted)?;
    let warnings = prepared.without_effect(&first.says);
    let differs = ready.differs();
    let mut facts = first.facts.clone();
    add_vmm(&mut facts, &differs);
    for (name, value) in [
        (fact::MODULES, serde_json::json!(first.says.modules)),
        (fact::WITHOUT_EFFECT, warnings.clone().into()),
        (fact::KERNEL_ORIGIN, prepared.kernel.origin.clone().into()),
        (fact::VMM_ADDRESSES_RANDOMISED, false.into()),
    ]
    .into_iter()
    .chain(prepared.cpu_facts())
    {
        facts.insert(name.to_owned(), value);
    }
    let about = About {
        begun_unix_seconds,
        machine: Machine::Lab,
        environment: Environment {
            arch: std::env::consts::ARCH.to_owned(),
            machine_kind: kind::SVM.to_owned(),
            kernel: first.hello.release.clone(),
            cmdline: first.hello.cmdline.clone(),
            cpu: prepared.cpu().asked.clone(),
            cpus: 1,
            qemu: Some(prepared.qemu().version.clone()),
            seeds: vec![seed],
            tsc_khz: None,
            exitpath: version(Machine::Lab),
            facts,
        },
        conditions: conditions(ours, differs, file_sha256(test)?),
        replication: 1,
        amd: AMD,
        warnings,
    };
    let batch = |booted: Booted| Batch {
        runs: booted
            .runs
            .into_iter()
            .map(|run| Run {
                seed: Some(seed),
                ..run
            })
            .collect(),
        trace: None,
    };
    let mut batches: Vec<Batch> = booted.into_iter().map(batch).collect();
    crate::record::number(&mut batches);
    let runs = batches.into_iter().flat_map(|batch| batch.runs).collect();
    Ok(recording(plan, about, runs, None))
}

/// Ours first, as the table has it.
fn conditions(ours: String, differs: Vec<Difference>, sha256: String) -> Vec<Condition> {
    let mut theirs = differs.clone();
    theirs.push(Difference::Guest {
        name: NAME.to_owned(),
        sha256: Some(sha256),
    });
    let condition = |name, differs| Condition {
        name,
        differs,
        ..Condition::base()
    };
    vec![condition(ours, differs), condition(NAME.to_owned(), theirs)]
}

/// What vmexit said of the row of this run: one figure and no samples.
fn theirs_beside(run: &Run, ticks: u64) -> Run {
    let ticks = i64::try_from(ticks).unwrap_or(i64::MAX);
    Run {
        condition: NAME.to_owned(),
        notes: Vec::new(),
        counters: [(counter::VMEXIT_TICKS.to_owned(), ticks)].into(),
        samples: Vec::new(),
        batches: Vec::new(),
        ..run.clone()
    }
}
