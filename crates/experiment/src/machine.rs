//! Where to measure: on this machine's KVM, or in the lab.

use exitpath_host::{GuestOutcome, Root};

use crate::error::{Error, Result};
use crate::guest;

pub use exitpath_recording::Machine;

/// Where a command is to measure, as far as its command line says so.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Place {
    /// What was asked for, by `--on` or by an option of the lab.
    pub on: Option<Machine>,
    /// The options given that have an effect on a host only, as they are written.
    pub on_host: Vec<String>,
}

impl Place {
    /// Refuses the options of the host where the lab is taken although nobody asked for it.
    ///
    /// # Errors
    /// [`Error::HostOnly`].
    pub fn lab_because(&self, why: &str) -> Result<()> {
        match self.on_host.first() {
            None => Ok(()),
            Some(option) => Err(Error::HostOnly {
                option: option.clone(),
                why: why.to_owned(),
            }),
        }
    }
}

/// Host where guests really run on the CPU, else lab; and the reason where nobody asked.
///
/// # Errors
/// [`Error::NoHostKvm`] where the host was asked for and cannot, [`Error::HostOnly`].
pub fn choose_machine(place: &Place) -> Result<(Machine, GuestOutcome, Option<String>)> {
    let on = place.on;
    if on == Some(Machine::Lab) {
        return Ok((Machine::Lab, GuestOutcome::NoDevice, None));
    }
    let guest = guest::check();
    let why = match &guest {
        GuestOutcome::OnCpu { .. } => return Ok((Machine::Host, guest, None)),
        GuestOutcome::Interpreted {
            ticks_per_iteration,
            ..
        } => format!(
            "guests do not run on this machine's CPU (an instruction takes \
             {ticks_per_iteration:.0} ticks: something interprets them)"
        ),
        GuestOutcome::NoDevice => "this machine has no /dev/kvm".to_owned(),
        GuestOutcome::NoPermission => "no permission to open /dev/kvm".to_owned(),
        GuestOutcome::Failed { reason } => format!("this machine's KVM does not work: {reason}"),
    };
    match (on, &guest) {
        (Some(Machine::Host), GuestOutcome::Interpreted { .. } | GuestOutcome::Failed { .. }) => {
            Ok((
                Machine::Host,
                guest,
                Some(format!("{why}; times are no exit times")),
            ))
        }
        (Some(Machine::Host), GuestOutcome::NoPermission) => Err(Error::NoHostKvm {
            why,
            advice: exitpath_host::to_open_kvm(&Root::default()),
        }),
        (Some(Machine::Host), _) => Err(Error::NoHostKvm {
            why,
            advice: exitpath_host::to_have_kvm(&Root::default()),
        }),
        _ => {
            place.lab_because(&why)?;
            let why = format!("{why}: measured in the lab, in instructions");
            Ok((Machine::Lab, guest, Some(why)))
        }
    }
}
