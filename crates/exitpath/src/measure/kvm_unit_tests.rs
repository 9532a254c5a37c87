//! `exitpath measure --kvm-unit-tests DIR`: kvm-unit-tests' vmexit and exitpath's image under the same
//! QEMU in the same lab, side by side.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_analysis::vmexit;
use exitpath_exits::{Row, bare};
use exitpath_lab::bzimage::file_sha256;
use exitpath_lab::initramfs::Initramfs;
use exitpath_recording::{Machine, Manifest, Outcome, Plan, Recording, Run};
use exitpath_runner::row_info;

use super::{BATCH_LENGTH, BATCHES, WARM_UP};
use crate::cli::Measure;
use crate::failure::Failure;
use crate::in_lab::foreign::{self, VmmJob};
use crate::in_lab::vmm::{self, IMAGE, Vmm};
use crate::in_lab::{AMD, not_done};
use crate::lab::Prepared;
use crate::{image, output, provenance, show};

/// The test in the lab.
const VMEXIT: &str = "/vmm/vmexit.flat";
/// Seconds of the lab's time for one row of theirs: its rounds double until one takes 2^30 ticks
/// or more, so that all together take less than 2^32, which is 4.3 seconds.
const SECONDS: u64 = 20;
/// Bracketed samples of ours in a row unless the user says otherwise: enough for the lab's timer to
/// interrupt a hundred of them, as it interrupts theirs.
const SAMPLES: u32 = 65_536;
/// Devices that vmexit's rows make use of; both run with them, as KVM's search among its devices
/// takes longer for each.
const DEVICES: [&str; 4] = ["-device", "pc-testdev", "-device", "pci-testdev"];

pub(super) fn run(
    args: &Measure,
    dir: &Path,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let test = find(dir)?;
    let rows = choose(&args.rows)?;
    let named = args.vmm.as_deref().unwrap_or("qemu");
    let vmm = Vmm::find(named)?;
    if !matches!(vmm, Vmm::Qemu(_)) {
        return Err(Failure::Usage(format!(
            "--vmm {named}: vmexit runs under QEMU, whose test devices it needs; give `qemu` or a \
             QEMU's path"
        )));
    }
    let out = output::folder(args.measuring.out.as_deref(), "measure")?;
    let prepared = Prepared::new(&args.lab, interrupted)?;
    let image = bare::ImageContents {
        samples: args.sampling.samples.unwrap_or(SAMPLES),
        warm_up: WARM_UP,
        batches: BATCHES,
        batch_length: BATCH_LENGTH,
        multiboot: true,
    };
    let mut files = Initramfs::new();
    files.file_from(VMEXIT, &test)?;
    let ready = vmm.add_to(&mut files)?.and(&DEVICES);
    let seed = args.lab.emulator.seeds(&[1])[0];
    let what = format!(
        "{0} rows of both programs, {0} boots of the lab",
        rows.len()
    );
    let bar = output::progress(2 * rows.len() as u64, &what);
    let begun_unix_seconds = provenance::unix_seconds();
    // A boot for each row, so that what one leaves running does not disturb the next one.
    let booted = vmm::boot_all(&rows, interrupted, |&row| {
        let mut files = files.clone();
        files.file(IMAGE, 0o644, bare::elf(&[row], &image))?;
        let text = image.most_text(&[row]);
        let start =
            |kernel: &str, more: &[&str]| ready.start(row.name, kernel, more, SECONDS, text);
        let plan = VmmJob {
            starts: vec![start(VMEXIT, &["-append", row.name]), start(IMAGE, &[])],
            names: false,
        };
        foreign::boot(prepared.lab(seed, 1), files, &plan, None, &bar)
    });
    bar.finish_and_clear();
    let booted = booted?;
    let mut runs = Vec::new();
    let mut ticks = serde_json::Map::new();
    for (id, (row, booted)) in (0..).zip(rows.iter().zip(&booted)) {
        let [theirs, ours] = booted.report.printed.as_slice() else {
            return Err(Failure::Cannot(
                "the lab's result lacks a VMM: report this as a bug".to_owned(),
            ));
        };
        let figure = vmexit::figure(&theirs.text, row.name).map_err(|what| {
            let ended = theirs.how_it_ended();
            Failure::Cannot(format!(
                "kvm-unit-tests' vmexit, {}: {what}{ended}",
                row.name
            ))
        })?;
        let of_row = ours.runs(&[row]).map_err(Failure::Cannot)?;
        ticks.insert(row.name.to_owned(), figure.into());
        runs.extend(of_row.into_iter().map(|run| Run {
            id,
            seed: Some(seed),
            ..run
        }));
    }
    if let Some(run) = runs.iter().find(|run| run.outcome != Outcome::Done) {
        return Err(not_done(run));
    }
    let first = booted.into_iter().next().ok_or(Failure::Interrupted)?;
    let warnings = prepared.without_effect(&first.says);
    let mut environment = vmm::environment(
        &ready,
        first.hello,
        (first.says, &warnings),
        first.report.facts,
        &args.lab,
        &prepared,
        &[seed],
    );
    let facts = &mut environment.facts;
    facts.insert(vmexit::TICKS.to_owned(), ticks.into());
    facts.insert(vmexit::FILE.to_owned(), file_sha256(&test)?.into());
    let mut recording = Recording {
        manifest: Manifest {
            command: "measure".to_owned(),
            begun_unix_seconds,
            machine: Machine::Lab,
            environment,
            conditions: vec![exitpath_recording::Condition::base()],
            plan: Plan {
                runs: 1,
                samples: image.samples,
                batches: image.batches,
                batch_length: image.batch_length,
                order_seed: 0,
            },
            rows: rows.iter().map(|row| row_info(row, AMD)).collect(),
            warnings,
        },
        runs,
        trace: None,
    };
    super::keep(&mut recording, None, &out)?;
    let compared = vmexit::compared(&recording);
    show::beside(&recording, &compared, &out, args.measuring.json)
}

/// The test's file in a checkout that has been built.
fn find(dir: &Path) -> Result<PathBuf, Failure> {
    let usage = |what: String| Err(Failure::Usage(what));
    let file = dir.join("x86/vmexit.flat");
    if !file.exists() {
        let dir = dir.display();
        return usage(if file.with_extension("c").is_file() {
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
        Ok(false) => usage(format!(
            "{} is no ELF file: build it again (`make x86/vmexit.flat`)",
            file.display()
        )),
        Err(error) => usage(format!("cannot read {}: {error}", file.display())),
    }
}

/// The rows of these names, which both programs must have; the usual ones where there are none.
fn choose(names: &[String]) -> Result<Vec<&'static Row>, Failure> {
    let usual: Vec<String> = vmexit::ROWS.iter().map(|row| row.name.to_owned()).collect();
    let rows = image::choose(if names.is_empty() { &usual } else { names })?;
    for row in &rows {
        if !vmexit::ROWS.iter().any(|known| known.name == row.name) {
            return Err(Failure::Usage(format!(
                "{} is not compared: vmexit has no such row, or does something else in it; there are {}",
                row.name,
                usual.join(", ")
            )));
        }
    }
    Ok(rows)
}
