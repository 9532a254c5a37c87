//! Whether guests really run on this CPU: what the calibration guest said.

use crate::calibration::GuestOutcome;
use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::topic::Topic;

const FALL_BACK: &str =
    "use the lab, which brings its own CPU and kernel: exitpath measure --on lab";

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        (
            "guest-execution",
            "whether guests run on the CPU, by the calibration guest",
        ),
        (
            "guest-rdtsc",
            "whether reading the TSC in a guest makes an exit, by the calibration guest",
        ),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let finding = |level, says: &str| Finding::new("guest-execution", "kvm", level, says);
    let Some(check) = machine.guest else {
        out.fact("guest.execution", "not-checked");
        out.find(finding(
            Level::Note,
            "not checked: no calibration guest was run, and a module's name does not tell whether guests run on the CPU",
        ));
        return;
    };
    match &check.outcome {
        GuestOutcome::NoDevice => {
            out.fact("guest.execution", "no-device");
            out.find(
                finding(Level::Bad, "no guest can run: there is no /dev/kvm").advice(FALL_BACK),
            );
        }
        GuestOutcome::NoPermission => {
            out.fact("guest.execution", "no-permission");
            out.find(
                finding(
                    Level::Bad,
                    "no guest can run: this user may not open /dev/kvm",
                )
                .advice(FALL_BACK),
            );
        }
        GuestOutcome::Failed { reason } => {
            out.fact("guest.execution", "failed");
            out.fact("guest.failure", reason.as_str());
            let says = format!("the calibration guest failed: {reason}");
            out.find(finding(Level::Bad, &says).advice(FALL_BACK));
        }
        GuestOutcome::OnCpu {
            ticks_per_iteration,
            tsc_khz,
            rdtsc_exits,
        } => {
            out.fact("guest.execution", "on-cpu");
            timing(out, *ticks_per_iteration, *tsc_khz);
            let says = format!(
                "guests run on the CPU: one turn of the calibration loop takes {}",
                turn(*ticks_per_iteration, *tsc_khz)
            );
            out.find(finding(Level::Good, &says));
            rdtsc(*rdtsc_exits, out);
        }
        GuestOutcome::Interpreted {
            ticks_per_iteration,
            tsc_khz,
        } => {
            out.fact("guest.execution", "interpreted");
            timing(out, *ticks_per_iteration, *tsc_khz);
            let says = format!(
                "guest instructions are emulated one by one, one turn of the calibration loop takes {}: only the path above KVM_RUN (ioctl, locks, device model) is real here",
                turn(*ticks_per_iteration, *tsc_khz)
            );
            out.find(finding(Level::Bad, &says).advice(FALL_BACK));
        }
    }
}

fn timing(out: &mut Examination, ticks_per_iteration: f64, tsc_khz: u64) {
    out.fact("guest.ticks_per_iteration", ticks_per_iteration);
    out.fact("guest.tsc_khz", tsc_khz);
}

/// `2.0 TSC ticks (0.8 ns)`.
fn turn(ticks: f64, tsc_khz: u64) -> String {
    if !ticks.is_finite() {
        return "a time that was not understood".to_owned();
    }
    if tsc_khz == 0 {
        return format!("{ticks:.1} TSC ticks (of unknown rate)");
    }
    let nanos = ticks * 1e6 / tsc_khz as f64;
    format!("{ticks:.1} TSC ticks ({nanos:.1} ns)")
}

/// If the guest's time stamps exit themselves, every bracket contains an exit that is not the one
/// measured.
fn rdtsc(exits: Option<bool>, out: &mut Examination) {
    let finding = |level, says| Finding::new("guest-rdtsc", "rdtsc", level, says);
    match exits {
        Some(false) => {
            out.fact("guest.rdtsc_exits", false);
            out.find(finding(
                Level::Good,
                "reading the TSC in a guest makes no exit",
            ));
        }
        Some(true) => {
            out.fact("guest.rdtsc_exits", true);
            out.find(
                finding(
                    Level::Bad,
                    "reading the TSC in a guest makes an exit: every time stamp costs as much as what it is to time",
                )
                .advice("measure where the TSC is neither intercepted by an outer hypervisor nor rejected by the kernel (dmesg | grep -i tsc), or use --on lab"),
            );
        }
        None => {
            out.fact(
                "guest.rdtsc_exits",
                serde_json::json!({"unknown": "the calibration guest could not tell"}),
            );
            out.find(finding(Level::Note, "unknown: the calibration guest could not tell whether reading the TSC makes an exit"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::calibration::GuestCheck;
    use crate::testing::{Tree, amd_server, sandbox};

    fn with(outcome: GuestOutcome) -> Examination {
        amd_server().topic_with(&TOPIC, Some(&GuestCheck { outcome }))
    }

    #[test]
    fn unchecked_is_said_and_no_module_s_name_decides() {
        for tree in [Tree::new(), amd_server(), sandbox()] {
            let out = tree.topic(&TOPIC);
            let finding = out.get("guest-execution", "kvm");
            assert_eq!(finding.level, Level::Note);
            assert!(finding.says.starts_with("not checked"));
            assert_eq!(out.facts["guest.execution"], json!("not-checked"));
        }
    }

    #[test]
    fn on_the_cpu() {
        let out = with(GuestOutcome::OnCpu {
            ticks_per_iteration: 2.0,
            tsc_khz: 2_500_000,
            rdtsc_exits: Some(false),
        });
        let finding = out.get("guest-execution", "kvm");
        assert_eq!(finding.level, Level::Good);
        assert!(
            finding.says.contains("2.0 TSC ticks (0.8 ns)"),
            "{}",
            finding.says
        );
        assert_eq!(out.get("guest-rdtsc", "rdtsc").level, Level::Good);
        assert_eq!(out.worst(), Level::Good);
    }

    #[test]
    fn time_stamps_that_exit_are_bad_even_on_the_cpu() {
        let on_cpu = |rdtsc_exits| GuestOutcome::OnCpu {
            ticks_per_iteration: 1.0,
            tsc_khz: 1,
            rdtsc_exits,
        };
        assert_eq!(
            with(on_cpu(Some(true))).get("guest-rdtsc", "rdtsc").level,
            Level::Bad
        );
        let out = with(on_cpu(None));
        assert_eq!(out.get("guest-rdtsc", "rdtsc").level, Level::Note);
        assert_eq!(out.unknown_facts().count(), 1);
    }

    #[test]
    fn interpreted_absent_forbidden_and_failed_are_bad_and_say_what_to_do() {
        for outcome in [
            GuestOutcome::Interpreted {
                ticks_per_iteration: 4321.0,
                tsc_khz: 2_600_000,
            },
            GuestOutcome::NoDevice,
            GuestOutcome::NoPermission,
            GuestOutcome::Failed {
                reason: "did not end\nwithin 2 s".to_owned(),
            },
        ] {
            let out = with(outcome);
            let finding = out.get("guest-execution", "kvm");
            assert_eq!(finding.level, Level::Bad);
            assert!(finding.advice.is_some());
            assert!(!finding.says.contains('\n'));
        }
    }

    #[test]
    fn odd_figures_do_no_harm() {
        for (ticks, khz) in [
            (f64::NAN, 1),
            (f64::INFINITY, 0),
            (3.0, 0),
            (-1.0, u64::MAX),
        ] {
            let out = with(GuestOutcome::Interpreted {
                ticks_per_iteration: ticks,
                tsc_khz: khz,
            });
            assert_eq!(out.get("guest-execution", "kvm").level, Level::Bad);
        }
    }
}
