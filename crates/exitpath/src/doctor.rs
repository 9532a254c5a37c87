//! `exitpath doctor`: what this machine can be trusted for.

use exitpath_host::{Examination, GuestCheck, GuestOutcome, Level, Root};
use exitpath_runner::calibrate;
use exitpath_vmm::{Error, Kvm};
use serde_json::json;

use crate::cli::Doctor;
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(args: &Doctor) -> Result<(), Failure> {
    let examination = examine(check_guest());
    if args.json {
        let object = json!({
            "worst": examination.worst(),
            "findings": examination.findings,
            "facts": examination.facts,
        });
        let text = serde_json::to_string_pretty(&object)
            .expect("plain data with string keys always serialises");
        return output::print(&text);
    }
    output::print(&text(&examination, args.all))
}

/// Looks at the machine, knowing what the calibration guest said.
pub(crate) fn examine(guest: GuestOutcome) -> Examination {
    exitpath_host::examine(&Root::default(), Some(&GuestCheck { outcome: guest }))
}

/// What the calibration guest says of this machine's KVM.
pub(crate) fn check_guest() -> GuestOutcome {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(Error::NoDevice) => return GuestOutcome::NoDevice,
        Err(Error::NoPermission) => return GuestOutcome::NoPermission,
        Err(error) => {
            return GuestOutcome::Failed {
                reason: error.to_string(),
            };
        }
    };
    match calibrate(&kvm) {
        Err(error) => GuestOutcome::Failed {
            reason: error.to_string(),
        },
        Ok(found) => {
            let tsc_khz = found.tsc_khz.unwrap_or(0);
            let ticks_per_iteration = found.ticks_per_nop;
            if found.interpreted() {
                GuestOutcome::Interpreted {
                    ticks_per_iteration,
                    tsc_khz,
                }
            } else {
                let rdtsc_exits = found.exits_per_rdtsc.map(|exits| exits > 0.5);
                GuestOutcome::OnCpu {
                    ticks_per_iteration,
                    tsc_khz,
                    rdtsc_exits,
                }
            }
        }
    }
}

fn text(examination: &Examination, all: bool) -> String {
    let mut findings: Vec<_> = examination.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let mut text = String::new();
    let mut good = 0;
    for finding in findings {
        if finding.level == Level::Good && !all {
            good += 1;
            continue;
        }
        let level = match finding.level {
            Level::Good => "good",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Bad => "bad",
        };
        text.push_str(&format!("{level:8}{}: {}\n", finding.subject, finding.says));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("        → {advice}\n"));
        }
    }
    if good > 0 {
        text.push_str(&format!(
            "{good} findings are as they should be (--all shows them)\n"
        ));
    }
    text
}
