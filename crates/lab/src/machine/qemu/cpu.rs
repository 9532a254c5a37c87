//! Which CPU a lab has: the model that was asked for, with the features of it that QEMU does not emulate and the plugin
//! supplies.
//!
//! QEMU masks what its emulation does not do. `x-force-features` has it mask nothing, so that each of the features
//! that it would mask is said here: on, where the plugin supplies it or its registers can be written without an effect; off
//! otherwise. Which these are, a QEMU of this CPU says that is started and never runs.

use std::fmt;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use exitpath_lab_plugin::assists::Features;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::descriptors::sockets;
use crate::error::{Error, Result};
use crate::hex::hex;
use crate::machine::qemu::child::{self, Guard};
use crate::machine::qemu::monitor::Monitor;
use crate::machine::qemu::plugin;
use crate::machine::qemu::program::Qemu;

/// Features whose MSRs QEMU takes and gives no effect: those of speculation, which it does not have.
const WITHOUT_EFFECT: [&str; 7] = [
    "ibrs",
    "ibpb",
    "stibp",
    "amd-stibp",
    "ssbd",
    "amd-ssbd",
    "spec-ctrl",
];
/// The family from which AMD's CPUs have decode assists, flush by ASID and an invariant TSC (Bulldozer), of which QEMU's
/// models say nothing.
const WITH_ASSISTS: u64 = 0x15;
/// An invariant TSC: that of a lab is one, as it counts instructions whatever a CPU does, and QEMU masks it all the same.
/// Without it a kernel with several CPUs takes their clocks for apart, and its time from a slower one.
const INVARIANT_TSC: &str = "invtsc";

/// How long an answer may take. QEMU gives it at once; a busy machine may not give QEMU its time.
const MOST_WAITED: Duration = Duration::from_secs(60);

/// A lab's CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// As it was asked for.
    pub asked: String,
    /// QEMU's `-cpu`.
    pub argument: String,
    /// Names of features that it has beyond what QEMU emulates: those of SVM that the plugin supplies, and an invariant TSC.
    pub supplied: Vec<String>,
    /// Names of features whose MSRs can be written, without an effect.
    pub without_effect: Vec<String>,
}

impl Cpu {
    /// As QEMU emulates it, with nothing supplied.
    pub fn bare(asked: &str) -> Cpu {
        Cpu {
            asked: asked.to_owned(),
            argument: asked.to_owned(),
            supplied: Vec::new(),
            without_effect: Vec::new(),
        }
    }

    /// With all that can be supplied; where this QEMU cannot do with the plugin, why, and as QEMU emulates it.
    ///
    /// # Errors
    /// [`Error::CpuModel`] if QEMU has no such CPU.
    pub fn find(qemu: &Qemu, asked: &str, cache: &Cache) -> Result<(Cpu, Option<String>)> {
        let Ok(object) = plugin::bytes(qemu) else {
            let why = format!("exitpath has no plugin for QEMU {}", qemu.version);
            return Ok((Cpu::bare(asked), Some(why)));
        };
        let what = format!(
            "CPU {asked} of {} by plugin {}",
            qemu.version,
            hex(&Sha256::digest(object))
        );
        let asks = || Told::ask(qemu, asked);
        let known = cache.memo(&qemu.path, &what, || {
            Ok(serde_json::to_string(&asks()?).expect("plain data always serialises"))
        });
        let told = known.and_then(|known| serde_json::from_str(&known).or_else(|_| asks()));
        match told {
            Ok(told) => Ok((told.cpu(asked), None)),
            Err(Error::PluginRefused { said, .. }) => Ok((Cpu::bare(asked), Some(said))),
            Err(error) => Err(error),
        }
    }

    /// Features of SVM that the plugin supplies.
    pub fn features(&self) -> Features {
        let mut features = Features::default();
        for name in &self.supplied {
            if let Some(feature) = features.by_name(name) {
                *feature = true;
            }
        }
        features
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let as_it_is = if self.supplied.is_empty() {
            " as emulated"
        } else {
            ""
        };
        write!(f, "{}{as_it_is}", self.asked)
    }
}

/// What a QEMU says of a CPU.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    /// Features of the model that it masks.
    masked: Vec<String>,
    /// Whether there are SVM and nested paging, of AMD's.
    svm: bool,
    family: u64,
}

impl Told {
    /// Of this QEMU, with the plugin.
    ///
    /// # Errors
    /// [`Error::CpuModel`] if it has no such CPU, [`Error::PluginRefused`] if it has and does not load the plugin.
    fn ask(qemu: &Qemu, asked: &str) -> Result<Told> {
        tell(qemu, asked, true).map_err(|with| match tell(qemu, asked, false) {
            Ok(_) => Error::PluginRefused {
                qemu: qemu.version.clone(),
                said: with,
            },
            Err(said) => Error::CpuModel {
                asked: asked.to_owned(),
                said,
            },
        })
    }

    /// The CPU that this makes. What was asked for by name stays as it was asked for.
    fn cpu(&self, asked: &str) -> Cpu {
        let mut cpu = Cpu::bare(asked);
        if !self.svm {
            return cpu;
        }
        let named = |name: &str| {
            let mut parts = asked.split(',').skip(1);
            parts.any(|part| part.trim_start_matches(['+', '-']).split('=').next() == Some(name))
        };
        for name in Features::NAMES.into_iter().chain([INVARIANT_TSC]) {
            let masked = self.masked.iter().any(|masked| masked == name);
            let real = name != "nrip-save" && self.family >= WITH_ASSISTS && !named(name);
            if masked || real {
                cpu.supplied.push(name.to_owned());
            }
        }
        for name in &self.masked {
            if WITHOUT_EFFECT.contains(&name.as_str()) {
                cpu.without_effect.push(name.clone());
            }
        }
        if cpu.supplied.is_empty() && cpu.without_effect.is_empty() {
            return cpu;
        }
        let on = cpu.supplied.iter().chain(&cpu.without_effect);
        let on = on.map(|name| format!(",+{name}"));
        let is_on =
            |name: &&String| cpu.supplied.contains(name) || cpu.without_effect.contains(name);
        let off = self.masked.iter().filter(|name| !is_on(name));
        let off = off.map(|name| format!(",-{name}"));
        let said: String = on.chain(off).collect();
        cpu.argument = format!("{asked},x-force-features=on{said}");
        cpu
    }
}

/// Asks a QEMU what it makes of a CPU, with the plugin or without it. The error is what it says instead.
fn tell(qemu: &Qemu, asked: &str, with_plugin: bool) -> Result<Told, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let (ours, theirs) = sockets().map_err(|error| failed(&error))?;
    let mut command = qemu.command();
    let mut given = vec![theirs.as_raw_fd()];
    let object = match with_plugin {
        true => Some(plugin::object(qemu).map_err(|error| failed(&error))?),
        false => None,
    };
    if let Some(object) = &object {
        given.push(object.as_raw_fd());
        let features = Features::NAMES.map(|name| format!(",{name}=on")).concat();
        let fd = object.as_raw_fd();
        command
            .arg("-plugin")
            .arg(format!("/dev/fd/{fd}{features}"));
    }
    command
        .args(["-M", "pc", "-nodefaults", "-no-user-config", "-S"])
        .args([
            "-accel",
            "tcg,thread=single",
            "-display",
            "none",
            "-m",
            "64",
        ])
        .args(["-cpu", asked])
        .args([
            "-chardev",
            &format!("socket,id=monitor,fd={}", theirs.as_raw_fd()),
        ])
        .args(["-mon", "chardev=monitor,mode=control"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    child::tie(&mut command, given, false);
    let mut child = Guard(command.spawn().map_err(|error| failed(&error))?);
    drop(theirs);
    let answers = ask(ours);
    let _ = child.0.kill();
    answers.map_err(|error| {
        let mut said = String::new();
        if let Some(stderr) = &mut child.0.stderr {
            let _ = stderr.read_to_string(&mut said);
        }
        let lines = said.lines().filter(|line| !line.contains("warning:"));
        let said: Vec<&str> = lines.collect();
        match said.is_empty() {
            true => error,
            false => said.join(" | "),
        }
    })
}

fn ask(monitor: UnixStream) -> Result<Told, String> {
    let mut monitor = Monitor::new(monitor);
    let until = Instant::now() + MOST_WAITED;
    let mut patience = || match Instant::now() < until {
        true => Ok(()),
        false => Err("it does not answer".to_owned()),
    };
    let told = told(&mut monitor, &mut patience);
    // A script that stands for QEMU is all that can be killed, and QEMU would go on behind it.
    let _ = monitor.execute("quit", json!({}), &mut patience);
    told
}

fn told(
    monitor: &mut Monitor,
    patience: &mut impl FnMut() -> Result<(), String>,
) -> Result<Told, String> {
    monitor.execute("qmp_capabilities", json!({}), patience)?;
    let cpus = monitor.execute("query-cpus-fast", json!({}), patience)?;
    let path = cpus[0]["qom-path"].clone();
    let mut property = |name: &str| {
        let arguments = json!({ "path": path, "property": name });
        monitor.execute("qom-get", arguments, patience)
    };
    let masked = property("unavailable-features")?;
    let names = masked.as_array().map_or(&[][..], Vec::as_slice);
    let is_on = |value: Value| value.as_bool().unwrap_or(false);
    Ok(Told {
        masked: names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        svm: is_on(property("svm")?)
            && is_on(property("npt")?)
            && property("vendor")?.as_str() == Some("AuthenticAMD"),
        family: property("family")?.as_u64().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(masked: &[&str], family: u64) -> Told {
        Told {
            masked: masked.iter().map(|&name| name.to_owned()).collect(),
            svm: true,
            family,
        }
    }

    const ALL: [&str; 4] = ["nrip-save", "decodeassists", "flushbyasid", "invtsc"];

    #[test]
    fn masked_features_are_supplied_taken_or_left_off() {
        let cpu = told(&["pcid", "nrip-save", "ibpb", "xsaves"], 25).cpu("EPYC-Milan");
        assert_eq!(cpu.asked, "EPYC-Milan");
        assert_eq!(
            cpu.argument,
            "EPYC-Milan,x-force-features=on,+nrip-save,+decodeassists,+flushbyasid,+invtsc,+ibpb,-pcid,-xsaves"
        );
        assert_eq!(cpu.supplied, ALL);
        assert!(cpu.features().next_rip && cpu.features().decode);
    }

    #[test]
    fn what_a_model_does_not_promise_is_not_supplied() {
        // K10 has next RIP only; a model without masks is as QEMU has it; so is a CPU without SVM.
        let old = told(&["nrip-save", "xop"], 16).cpu("k10");
        assert_eq!(old.supplied, ["nrip-save"]);
        assert_eq!(told(&[], 6).cpu("max"), Cpu::bare("max"));
        let other = Told {
            svm: false,
            ..told(&["pcid"], 6)
        };
        assert_eq!(other.cpu("Skylake-Client"), Cpu::bare("Skylake-Client"));
    }

    #[test]
    fn what_was_asked_for_by_name_stays() {
        let asked = "EPYC,-nrip-save,decodeassists=off,+foo";
        let cpu = told(&["foo", "ibpb"], 23).cpu(asked);
        assert_eq!(cpu.supplied, ["flushbyasid", "invtsc"]);
        assert_eq!(
            cpu.argument,
            "EPYC,-nrip-save,decodeassists=off,+foo,x-force-features=on,+flushbyasid,+invtsc,+ibpb,-foo"
        );
        let masked = ["ibpb", "nrip-save", "decodeassists"];
        let cpu = told(&masked, 23).cpu("EPYC,decodeassists=on");
        assert_eq!(cpu.supplied, ALL);
    }
}
