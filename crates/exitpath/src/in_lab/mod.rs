//! Running rows of the catalogue in the lab, traced or not: one boot for each seed, a second one for
//! rows with two vCPUs.

mod boots;
pub(crate) mod foreign;
mod names;
pub(crate) mod vmm;
pub(crate) mod worker;

pub(crate) use boots::{not_done, on_two_cpus};

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_exits::Row;
use exitpath_host::KernelSays;
use exitpath_lab::gdb::Patches;
use exitpath_lab::plugin::Plugin;
use exitpath_lab::windows;
use exitpath_recording::fact::EXITS_UNREAD;
use exitpath_recording::{self as recording, Environment, Machine, Manifest, Recording, Run};
use exitpath_runner::{Settings, row_info};

use crate::cli::LabOptions;
use crate::failure::Failure;
use crate::lab::Prepared;
use crate::{output, provenance};

/// Whether the lab's CPU is one of AMD: it has SVM.
pub(crate) const AMD: bool = true;

/// What is to be done in the lab.
pub(crate) struct LabMeasurement<'a> {
    /// The command that wants it.
    pub(crate) command: &'static str,
    /// The rows.
    pub(crate) rows: &'a [&'static Row],
    /// How much of each, on one CPU.
    pub(crate) settings: Settings,
    /// Seed of the random order of rows.
    pub(crate) order_seed: u64,
    /// Seeds of the lab, one boot each; duplicates are left out.
    pub(crate) seeds: Vec<u64>,
    /// The plugin, where instructions are to be recorded.
    pub(crate) plugin: Option<Plugin>,
    /// What to overwrite in the kernel first.
    pub(crate) patches: Option<Patches>,
    /// Kernel with debug information, if the user names one.
    pub(crate) vmlinux: Option<&'a Path>,
    /// Whether the workers bring out what names addresses. Without a plugin that makes no sense
    /// but for comparing with one.
    pub(crate) traced: bool,
}

/// Boots, and makes one recording of what all boots brought out.
pub(crate) fn record(
    plan: &LabMeasurement<'_>,
    options: &LabOptions,
    prepared: &Prepared,
    interrupted: &Arc<AtomicBool>,
) -> Result<Recording, Failure> {
    let begun_unix_seconds = provenance::unix_seconds();
    let seeds = distinct(&plan.seeds);
    let boots = boots::plan(plan, &seeds, prepared.qemu().boots_two_cpus());
    let what = format!(
        "{}, {} of the lab, {} at a time; a boot takes 10 to 30 s on an idle machine",
        output::number(plan.rows.len(), "row"),
        output::number(boots.len(), "boot"),
        boots::at_a_time(boots.len())
    );
    let steps = boots.iter().map(|boot| boot.rows.len() as u64).sum();
    let bar = output::progress(steps, &what);
    let booted = boots::run_all(plan, prepared, &boots, &bar, interrupted);
    bar.finish_and_clear();
    let booted = booted?;

    let mut runs: Vec<Run> = Vec::new();
    let mut facts = BTreeMap::new();
    let (mut kernel, mut cmdline) = (String::new(), String::new());
    let mut traces = Vec::new();
    let mut kallsyms = None;
    let mut vdsos = Vec::new();
    let mut warnings: Vec<String> = Vec::new();
    let mut begun = Vec::new();
    for (boot, booted) in boots.iter().zip(booted) {
        let without_effect = prepared.without_effect(&booted.says);
        if facts.is_empty() {
            facts = booted.report.facts;
            add_says(&mut facts, booted.says, &without_effect);
        }
        for warning in without_effect {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        (kernel, cmdline) = (booted.hello.release, booted.hello.cmdline);
        if kallsyms.is_none() {
            kallsyms = booted.report.kallsyms;
        }
        vdsos.extend(booted.report.vdso);
        if let Some(why) = booted.exits_unread {
            facts.insert(EXITS_UNREAD.to_owned(), why.into());
        }
        begun.push(booted.report.begun_ticks);
        let first = runs.len() as u32;
        runs.extend((first..).zip(booted.report.runs).map(|(id, run)| Run {
            id,
            seed: Some(boot.seed),
            cpus: boot.cpus,
            ..run
        }));
        traces.extend(booted.trace.map(|mut trace| {
            for window in &mut trace.windows {
                window.run += first;
            }
            trace
        }));
    }
    // Rows of two vCPUs and of pages differ from the plan's figures.
    let boots_made: Vec<_> = boots
        .iter()
        .zip(&begun)
        .map(|(boot, begun)| {
            serde_json::json!({
                "seed": boot.seed,
                "cpus": boot.cpus,
                "rows": boot.rows.iter().map(|row| row.name).collect::<Vec<_>>(),
                "samples": boot.settings.samples,
                "batches": boot.settings.batches,
                "batch_length": boot.settings.batch_length,
                "begun_ticks": begun,
            })
        })
        .collect();
    facts.insert("lab.boots".to_owned(), boots_made.into());
    facts.insert(
        "lab.kernel_origin".to_owned(),
        prepared.kernel.origin.clone().into(),
    );
    let entered = if prepared.enters_vmlinux() {
        "vmlinux by PVH"
    } else {
        "bzImage"
    };
    facts.insert("lab.entered".to_owned(), entered.into());
    let trace = if traces.is_empty() {
        None
    } else {
        let mut trace = windows::merge(traces);
        let kallsyms = kallsyms.as_deref().unwrap_or_default();
        names::add(&mut trace, kallsyms, &vdsos, &runs)?;
        names::add_lines(&mut trace, &prepared.kernel, plan.vmlinux)?;
        Some(trace)
    };

    Ok(Recording {
        manifest: Manifest {
            command: plan.command.to_owned(),
            begun_unix_seconds,
            machine: Machine::Lab,
            environment: Environment {
                arch: "x86_64".to_owned(),
                machine_kind: exitpath_recording::kind::SVM.to_owned(),
                kernel,
                cmdline,
                cpu: options.emulator.cpu().to_owned(),
                cpus: boots.iter().map(|boot| boot.cpus).max().unwrap_or(1),
                qemu: Some(prepared.qemu().version.clone()),
                seeds: seeds.clone(),
                tsc_khz: None,
                exitpath: provenance::version(),
                facts,
            },
            conditions: vec![exitpath_recording::Condition::base()],
            plan: recording::Plan {
                runs: seeds.len() as u32,
                samples: plan.settings.samples,
                batches: plan.settings.batches,
                batch_length: plan.settings.batch_length,
                order_seed: plan.order_seed,
            },
            rows: plan.rows.iter().map(|row| row_info(row, AMD)).collect(),
            warnings,
        },
        runs,
        trace,
    })
}

/// Adds to the facts what the kernel says of its modules, and what of the command line it says did not
/// come about.
fn add_says(
    facts: &mut BTreeMap<String, serde_json::Value>,
    says: KernelSays,
    without_effect: &[String],
) {
    facts.insert("lab.modules".to_owned(), serde_json::json!(says.modules));
    facts.insert("kernel.without_effect".to_owned(), without_effect.into());
}

/// The seeds, each once: a boot with the same seed would say the same.
fn distinct(given: &[u64]) -> Vec<u64> {
    let mut seeds = Vec::new();
    for &seed in given {
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    seeds
}
