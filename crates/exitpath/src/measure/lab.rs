//! Measuring in the lab.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_exits::Row;
use exitpath_recording::Recording;

use crate::cli::Measure;
use crate::failure::Failure;
use crate::in_lab::vmm::{self, UnderVmm, Vmm};
use crate::in_lab::{self, LabMeasurement};
use crate::lab::Prepared;

/// Bracketed samples in a run unless the user says otherwise. The same path takes the same number
/// of instructions every time; this many show which other paths there are.
const SAMPLES: u32 = 250;

pub(super) fn measure(
    args: &Measure,
    rows: &[&'static Row],
    interrupted: &Arc<AtomicBool>,
) -> Result<Recording, Failure> {
    let vmm = args.vmm.as_deref().map(Vmm::find).transpose()?;
    let prepared = Prepared::new(&args.lab, interrupted)?;
    let samples = args.sampling.samples.unwrap_or(SAMPLES);
    if let Some(vmm) = vmm {
        let under = UnderVmm {
            command: "measure",
            rows,
            image: super::image_plan(samples, true),
            seeds: args.lab.emulator.seeds(&[1, 2, 3]),
            plugin: None,
            vmlinux: None,
        };
        return vmm::record(&under, &vmm, &args.lab, &prepared, interrupted);
    }
    let plan = LabMeasurement {
        command: "measure",
        rows,
        settings: super::settings(&args.sampling, samples, vec![0], true),
        order_seed: args.sampling.order_seed.unwrap_or(1),
        seeds: args.lab.emulator.seeds(&[1, 2, 3]),
        plugin: None,
        patches: None,
        vmlinux: None,
        traced: false,
    };
    in_lab::record(&plan, &args.lab, &prepared, interrupted)
}
