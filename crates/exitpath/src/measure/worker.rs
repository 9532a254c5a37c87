//! The part of `measure` that runs inside the lab: reads a plan, writes the runs.

use std::collections::BTreeMap;

use exitpath_exits::find;
use exitpath_host::Root;
use exitpath_recording::Run;
use exitpath_runner::{Place, Settings, run_row};
use exitpath_vmm::Kvm;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::output;

/// The hidden command's name.
pub(crate) const NAME: &str = "measure-in-lab";
/// The plan, in the initramfs.
pub(crate) const PLAN_FILE: &str = "/plan.json";
/// The runs, in a tmpfs.
pub(crate) const RESULT_FILE: &str = "/run/runs.json";

/// What one boot measures.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerPlan {
    /// Names of rows in the order to measure them.
    pub(crate) order: Vec<String>,
    /// How much of each.
    pub(crate) settings: Settings,
}

/// What one boot brings out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The runs in the order made.
    pub(crate) runs: Vec<Run>,
    /// What the examination of the lab's machine found.
    pub(crate) facts: BTreeMap<String, serde_json::Value>,
}

pub(crate) fn run() -> Result<(), Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::Usage(format!(
            "{NAME} is for the lab's own use ({PLAN_FILE}: {error})"
        ))
    };
    let plan = std::fs::read(PLAN_FILE).map_err(|error| broken(&error))?;
    let plan: WorkerPlan = serde_json::from_slice(&plan).map_err(|error| broken(&error))?;
    let kvm = Kvm::open()?;
    let mut runs = Vec::new();
    for (id, name) in (0..).zip(&plan.order) {
        output::print(name)?;
        let row = find(name).ok_or_else(|| broken(&format!("no row {name}")))?;
        // Seed and CPUs are known outside.
        let place = Place {
            id,
            block: 0,
            seed: None,
            cpus: 0,
        };
        runs.push(run_row(&kvm, row, &plan.settings, &place)?);
    }
    let facts = exitpath_host::examine(&Root::default(), None).facts;
    let json = serde_json::to_vec(&Report { runs, facts })
        .map_err(|error| Failure::Cannot(error.to_string()))?;
    std::fs::write(RESULT_FILE, json)
        .map_err(|error| Failure::Cannot(format!("cannot write {RESULT_FILE}: {error}")))
}
