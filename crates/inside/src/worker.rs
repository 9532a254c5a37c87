//! The worker: reads a plan, measures the rows, writes the runs.

use exitpath_exits::find;
use exitpath_host::Root;
use exitpath_runner::work::{WorkerJob, WorkerReport};
use exitpath_runner::{Place, run_row, run_steps};
use exitpath_vmm::Kvm;

use crate::error::Error;
use crate::report;

pub(crate) fn run() -> Result<(), Error> {
    exitpath_vmm::files::lift_limit()?;
    let kvm = Kvm::open()?;
    let _steady = exitpath_runner::Steady::new()?;
    exitpath_runner::take_usual_place(&kvm)?;
    let begun_ticks = exitpath_vmm::clock();
    // So far nothing depends on what is planned: here the machine stops, and goes on as often as there are plans.
    let plan: WorkerJob = report::wait_for_plan()?;
    for (file, value) in &plan.set {
        std::fs::write(file, value).map_err(|error| Error::Set {
            file: file.clone(),
            value: value.clone(),
            error,
        })?;
    }
    let mut runs = Vec::new();
    for name in &plan.order {
        report::begun(name)?;
        let row = find(name).ok_or_else(|| Error::Plan(format!("no row {name}")))?;
        // What is left open here is known outside.
        let place = Place {
            id: 0,
            block: 0,
            seed: None,
            cpus: 0,
        };
        match plan.steps {
            0 => runs.push(run_row(&kvm, row, &plan.settings, &place)?),
            steps => {
                let name = name.clone();
                let begun = move |step| drop(report::begun(&format!("{name} {step}")));
                runs.extend(run_steps(&kvm, row, &plan.settings, &place, steps, begun)?);
            }
        }
    }
    let facts = match plan.facts {
        true => exitpath_host::examine(&Root::default(), None).facts,
        false => Default::default(),
    };
    report::write(&WorkerReport {
        runs,
        begun_ticks,
        facts,
        kallsyms: plan.names.then(report::kallsyms).transpose()?,
        vdso: plan.names.then(report::vdso).flatten(),
    })
}
