//! A parameter value that a person who measures exits has to know of, and what to do about it.

use crate::finding::Level;
use crate::machine::Machine;

/// A parameter value that a person who measures exits has to know of.
pub(crate) struct Rule {
    pub(crate) module: &'static str,
    pub(crate) parameter: &'static str,
    pub(crate) applies: fn(&str) -> bool,
    /// Only where one of these backends is in use; empty: with all of them.
    pub(crate) backends: &'static [&'static str],
    pub(crate) level: Level,
    pub(crate) says: &'static str,
    /// In which case to follow the command in `to`.
    pub(crate) when: &'static str,
    pub(crate) to: To,
}

/// How a parameter is changed.
pub(crate) enum To {
    /// While the module is loaded, by writing this.
    Now(&'static str),
    /// By loading the module with this.
    Load(&'static str),
    /// Not by this machine's user.
    Nothing,
}

impl Rule {
    /// Whether `value` of a parameter of `module` has to be told of, with `backends` in use. An
    /// unused backend that is built in has parameters too; they mean nothing.
    pub(crate) fn matches(&self, module: &str, value: &str, backends: &[&str]) -> bool {
        (module == "kvm" || backends.contains(&module))
            && (self.backends.is_empty()
                || self
                    .backends
                    .iter()
                    .any(|backend| backends.contains(backend)))
            && (self.applies)(value)
    }

    pub(crate) fn advice(&self, machine: &Machine<'_>, backends: &[&str]) -> String {
        let Rule {
            module,
            parameter,
            when,
            ..
        } = self;
        match self.to {
            To::Nothing => (*when).to_owned(),
            To::Now(value) => {
                format!(
                    "{when}: echo {value} | sudo tee /sys/module/{module}/parameters/{parameter}"
                )
            }
            To::Load(value) if !is_loadable(machine, module) => {
                format!("{when}: boot with {module}.{parameter}={value}")
            }
            To::Load(value) => match backends {
                [backend] if *module == "kvm" => format!(
                    "{when}: sudo modprobe -r {backend} kvm && sudo modprobe kvm {parameter}={value} && sudo modprobe {backend}"
                ),
                _ => format!(
                    "{when}: sudo modprobe -r {module} && sudo modprobe {module} {parameter}={value}"
                ),
            },
        }
    }
}

/// Modules that were loaded have an `initstate`, those built into the kernel none.
pub(crate) fn is_loadable(machine: &Machine<'_>, module: &str) -> bool {
    machine
        .root
        .text(&format!("/sys/module/{module}/initstate"))
        .is_ok()
}
