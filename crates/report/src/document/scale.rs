//! From ticks to what is shown.

use exitpath_recording::{Machine, Manifest};

use super::{Cell, Unit};

/// How ticks are shown: as nanoseconds on a host, as instructions in the lab.
pub(crate) struct Scale {
    pub(crate) lab: bool,
    /// Of it in a tick; `None` where a host's TSC frequency is not known.
    pub(crate) factor: Option<f64>,
}

impl Scale {
    pub(crate) fn of(manifest: &Manifest) -> Scale {
        let lab = manifest.machine == Machine::Lab;
        Scale {
            lab,
            factor: if lab {
                Some(1.0)
            } else {
                manifest.environment.nanoseconds_per_tick()
            },
        }
    }

    pub(crate) fn unit(&self) -> Unit {
        match self.lab {
            true => Unit::Instructions,
            false => Unit::Nanoseconds,
        }
    }

    pub(crate) fn value(&self, ticks: f64) -> Cell {
        Cell::known(self.factor, |factor| Cell::Rounded(ticks * factor))
    }
}
