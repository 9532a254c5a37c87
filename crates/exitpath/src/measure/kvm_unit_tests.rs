//! `exitpath measure --kvm-unit-tests DIR`: kvm-unit-tests' vmexit and this program's image under the
//! same QEMU in the same lab, side by side.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::qemu::Qemu;
use exitpath_lab::vmm_files;

use crate::cli::Measure;
use crate::failure::Failure;
use crate::in_lab::foreign::{self, Start, VmmPlan};
use crate::lab::Prepared;
use crate::output;

/// Rows compared unless the user names others.
const ROWS: [&str; 4] = [
    "cpuid",
    "inl_from_kernel",
    "outl_to_kernel",
    "inl_from_qemu",
];
/// The test in the lab.
const VMEXIT: &str = "/vmm/vmexit.flat";
/// Seconds of the lab's time for one row of theirs: its rounds double until one takes 2^30 ticks,
/// so that all together take less than 2^32, which is 4.3 seconds.
const SECONDS: u64 = 20;

/// The test's file in a checkout that has been built.
fn find(dir: &Path) -> Result<PathBuf, Failure> {
    let file = dir.join("x86/vmexit.flat");
    if file.is_file() {
        return Ok(file);
    }
    Err(Failure::Usage(format!("no {}", file.display())))
}

pub(super) fn run(
    args: &Measure,
    dir: &Path,
    interrupted: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let vmexit = find(dir)?;
    let mut prepared = Prepared::new(&args.lab, interrupted)?;
    let qemu = match std::env::var("VQ") {
        Ok(p) => Qemu::at(Path::new(&p))?,
        _ => Qemu::at(Path::new("/usr/bin/qemu-system-x86_64"))?,
    };
    let mut files = Initramfs::new();
    let vmm = vmm_files::add_qemu(&mut files, &qemu)?;
    files.file_from(VMEXIT, &vmexit)?;
    let starts = ROWS.iter().map(|row| {
        let mut argv = vec![vmm.program.display().to_string()];
        argv.extend(vmm.arguments.clone());
        argv.extend(
            "-nodefaults -no-user-config -display none -no-reboot -machine pc,accel=kvm -m 128 -smp 1 -device pc-testdev -device pci-testdev -device isa-debug-exit,iobase=0xf4,iosize=4 -serial stdio -kernel"
                .split(' ').map(str::to_owned));
        argv.extend([VMEXIT.to_owned(), "-append".to_owned(), row.to_string()]);
        Start { title: row.to_string(), argv, environment: vmm.environment.clone(), seconds: SECONDS }
    }).collect();
    let plan = VmmPlan {
        starts,
        names: false,
    };
    let lab = prepared.lab(args.lab.emulator.seeds(&[1])[0], 1);
    let bar = output::progress(4);
    let began = std::time::Instant::now();
    let booted = foreign::boot(lab, files, &plan, None, &bar)?;
    for p in &booted.report.printed {
        output::print(&format!("{}\n{}\n{:?}\n", p.text, p.errors, p.ended))?;
    }
    output::print(&format!("{:?}", began.elapsed()))?;
    Ok(())
}
