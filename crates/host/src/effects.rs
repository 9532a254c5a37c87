//! Whether what was asked for on a kernel's command line came about.
//!
//! The kernel is held to its own words, and what is said here quotes them: the state of a
//! vulnerability against the option that should have set it, a module's parameter against the value
//! it was to get, parameters that the kernel did not know, complaints in its log. Of a parameter about
//! which the kernel says nothing, nothing is said here either.
//!
//! Sources: `Documentation/admin-guide/kernel-parameters.txt` and `Documentation/admin-guide/hw-vuln/`
//! (the options, their values, and what the files then say); `arch/x86/kernel/cpu/bugs.c` (the words of
//! the files); `kernel/params.c` and `lib/kstrtox.c` (how values are read).

mod setters;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cmdline::{Word, normal, words};
use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::mitigations::{self, works};
use crate::root::Root;
use setters::{SETTERS, SWITCHES};

/// What a running kernel says of itself, for comparing with what it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSays {
    /// `/sys/devices/system/cpu/vulnerabilities`.
    pub vulnerabilities: BTreeMap<String, String>,
    /// Modules that are there, loaded or built in, with the parameters they show.
    pub modules: BTreeMap<String, BTreeMap<String, String>>,
    /// Parameters of the command line that the kernel did not know and handed to its init.
    pub unknown: Vec<String>,
    /// Lines of its log that complain of something unknown, unsupported or ignored.
    pub complaints: Vec<String>,
}

impl KernelSays {
    /// What the kernel under `root` says of its vulnerabilities, of these modules, of KVM's, and of those
    /// that `cmdline` has parameters for.
    pub fn read(root: &Root, cmdline: &str, modules: &[String]) -> KernelSays {
        let mut says = KernelSays {
            vulnerabilities: texts(root, mitigations::FOLDER),
            ..KernelSays::default()
        };
        let asked = words(cmdline);
        let asked = asked.iter().filter_map(Word::of_module);
        let mut names: Vec<String> = asked.map(|(module, _)| module).collect();
        names.extend(modules.iter().map(|name| normal(name)));
        let present = root.list("/sys/module").unwrap_or_default();
        for name in present {
            if is_kvm(&name) || names.contains(&name) {
                let parameters = texts(root, &format!("/sys/module/{name}/parameters"));
                says.modules.insert(name, parameters);
            }
        }
        says
    }

    /// Of what `asked` has, that which did not come about, in words; one line for each.
    ///
    /// `knows` tells of a parameter of a module that is not there whether some other part of the
    /// kernel may know it.
    pub fn without_effect(&self, asked: &str, knows: impl Fn(&Word) -> bool) -> Vec<String> {
        let found = self.judged(asked, knows).into_iter();
        found.map(|(_, line)| line).collect()
    }

    /// The same, each with the parameter it is about.
    fn judged(&self, asked: &str, knows: impl Fn(&Word) -> bool) -> Vec<(String, String)> {
        let asked = words(asked);
        let mut found = Vec::new();
        for (at, word) in asked.iter().enumerate() {
            // The last one counts.
            let again = |other: &Word| normal(&other.name) == normal(&word.name);
            if !asked[at + 1..].iter().any(again) {
                let line = self.judge(word, &knows);
                found.extend(line.map(|line| (word.to_string(), line)));
            }
        }
        found
    }

    fn judge(&self, word: &Word, knows: &impl Fn(&Word) -> bool) -> Option<String> {
        let said = |what: String| Some(format!("{word} had no effect: {what}"));
        // The kernel hands it on without its quotes.
        let bare = match &word.value {
            Some(value) => format!("{}={value}", word.name),
            None => word.name.clone(),
        };
        if self.unknown.contains(&bare) {
            return said("the kernel does not know this parameter".to_owned());
        }
        if let Some(line) = self.complaint(word) {
            return Some(format!("{word}: the kernel's log says \"{line}\""));
        }
        if let Some((module, parameter)) = word.of_module() {
            return match self.modules.get(&module) {
                // Every module takes these, and none shows them.
                Some(_) if ["dyndbg", "async_probe"].contains(&parameter.as_str()) => None,
                Some(parameters) => match parameters.get(&parameter) {
                    Some(said) => differs(word, &module, said),
                    // All of theirs are shown; those of others need not be.
                    None if is_kvm(&module) && !parameters.is_empty() => {
                        Some(format!("{word}: module {module} shows no such parameter"))
                    }
                    None => None,
                },
                None if knows(word) => None,
                None => said(format!("no module {module} is loaded or built in")),
            };
        }
        mitigation(word, &self.vulnerabilities)
    }

    /// The line of the log that complains of this parameter's value.
    fn complaint(&self, word: &Word) -> Option<&String> {
        let name = normal(word.name.rsplit('.').next()?);
        let value = word.value.as_deref().unwrap_or_default();
        self.complaints.iter().find(|line| {
            let quotes = |text: &str| {
                !text.is_empty()
                    && [
                        format!("'{text}'"),
                        format!("`{text}'"),
                        format!("({text})"),
                    ]
                    .iter()
                    .any(|quoted| line.contains(quoted))
            };
            let has = |text: &str| {
                line.split(|sign: char| !(sign.is_ascii_alphanumeric() || "_-.".contains(sign)))
                    .any(|token| normal(token) == normal(text))
            };
            match value {
                "" => quotes(&word.name),
                _ => {
                    has(&name) && (quotes(value) || value.split(',').all(has))
                        || value.len() > 3 && quotes(value)
                }
            }
        })
    }
}

fn is_kvm(module: &str) -> bool {
    module == "kvm" || module.starts_with("kvm_")
}

/// What is on this machine's command line and did not come about. Its log may not be read by everybody,
/// and is left out.
pub(crate) fn examine(machine: &Machine<'_>, out: &mut Examination) {
    // Which other modules there could be is not known here.
    let are_known = machine.root.list("/sys/module").is_ok();
    let other = |word: &Word| {
        let named = word.of_module();
        !are_known || !named.is_some_and(|(module, _)| is_kvm(&module))
    };
    let found = machine
        .cmdline
        .as_ref()
        .map(|cmdline| KernelSays::read(machine.root, cmdline, &[]).judged(cmdline, other));
    let lines = found.clone().map(|found| {
        let lines = found.into_iter().map(|(_, line)| line);
        lines.collect::<Vec<_>>()
    });
    let _ = out.record("kernel.without_effect", lines.map_err(Clone::clone));
    for (word, line) in found.unwrap_or_default() {
        out.find(
            Finding::new("parameter-without-effect", word, Level::Warning, line)
                .advice("leave it off the kernel's command line, or find out why the kernel did not follow it, or what has \
                     changed it since"),
        );
    }
}

/// The files of a folder, each as one line.
fn texts(root: &Root, folder: &str) -> BTreeMap<String, String> {
    let names = root.list(folder).unwrap_or_default();
    names
        .into_iter()
        .filter_map(|name| {
            let text = root.text(&format!("{folder}/{name}")).ok()?;
            Some((name, text))
        })
        .collect()
}

/// A module's parameter that does not have the value it was to get.
fn differs(word: &Word, module: &str, said: &str) -> Option<String> {
    let asked = word.value.as_deref().unwrap_or("1");
    let is_plain = |text: &str| {
        text.split(',')
            .all(|part| number(part).is_some() || truth(part).is_some())
    };
    // Modules other than KVM's may show a word in another spelling than they take it in.
    let compares = is_kvm(module) || is_plain(asked) && is_plain(said);
    if !compares {
        return None;
    }
    (!same_value(asked, said))
        .then(|| format!("{word} did not come about: module {module} says '{said}'"))
}

/// Whether a module that was given `asked` may say `said` of it.
fn same_value(asked: &str, said: &str) -> bool {
    // What to make of it is left to the module.
    if asked == said || asked == "auto" {
        return true;
    }
    if asked.contains(',') || said.contains(',') {
        // An array may show elements that were not set.
        let (asked, said) = (asked.split(','), said.split(','));
        return asked.clone().count() <= said.clone().count()
            && asked.zip(said).all(|(asked, said)| same_value(asked, said));
    }
    match (number(asked), number(said)) {
        (Some(asked), Some(said)) => return asked == said,
        // A switch that has further values than on and off, such as kvm.nx_huge_pages.
        (None, _) if asked == "force" => return truth(said) == Some(true),
        _ => {}
    }
    match (truth(asked), truth(said)) {
        (Some(asked), Some(said)) => asked == said,
        _ => false,
    }
}

/// An integer as `kstrtoint` with base 0 reads it.
fn number(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let value = match lower.strip_prefix("0x") {
        Some(hex) => i128::from(u64::from_str_radix(hex, 16).ok()?),
        None if lower.len() > 1 && lower.starts_with('0') => {
            i128::from(u64::from_str_radix(&lower, 8).ok()?)
        }
        None => i128::from(lower.parse::<u64>().ok()?),
    };
    Some(if negative { -value } else { value })
}

/// A switch as `kstrtobool` reads it.
fn truth(text: &str) -> Option<bool> {
    let mut signs = text.chars().map(|sign| sign.to_ascii_lowercase());
    match (signs.next()?, signs.next()) {
        ('y' | 't' | '1', _) | ('o', Some('n')) => Some(true),
        ('n' | 'f' | '0', _) | ('o', Some('f')) => Some(false),
        _ => None,
    }
}

/// The same of a parameter as it is written.
pub(crate) fn of_mitigation(
    parameter: &str,
    vulnerabilities: &BTreeMap<String, String>,
) -> Option<String> {
    let words = words(parameter);
    words
        .first()
        .and_then(|word| mitigation(word, vulnerabilities))
}

/// A mitigation that is not as an option asks for, by what the vulnerability's file says.
fn mitigation(word: &Word, vulnerabilities: &BTreeMap<String, String>) -> Option<String> {
    let name = normal(&word.name);
    let switch = SWITCHES.iter().find(|(switch, _)| *switch == name);
    let (option, value) = match (switch, &word.value) {
        (Some((_, option)), None) => (*option, "off"),
        (_, Some(value)) => (name.as_str(), value.as_str()),
        _ => return None,
    };
    let setter = SETTERS.iter().find(|setter| setter.option == option)?;
    let state = vulnerabilities.get(setter.file);
    if !setter.all.is_empty() && !setter.all.contains(&value) {
        let all = setter.all.join(", ");
        let now = state.map_or_else(String::new, |state| format!("; the kernel says '{state}'"));
        return Some(format!(
            "{word}: '{value}' is no value of {option} that the kernel's documentation has ({all}){now}"
        ));
    }
    // A kernel without the file may have the option all the same.
    let state = state?;
    let expected = setter.on.iter().find(|(on, _)| *on == value);
    if value != "off" && expected.is_none() {
        return None;
    }
    if state.starts_with("Not affected") {
        return Some(format!(
            "{word} had no effect: the kernel says '{state}' of {} on this CPU",
            setter.file
        ));
    }
    let lower = state.to_lowercase();
    let as_asked = match expected {
        // The half of it that has no switch works all the same.
        None if option == "l1tf" && !lower.contains("vmx:") => return None,
        None if option == "l1tf" => lower.contains("vmx: vulnerable"),
        None => !works(state),
        Some((_, pieces)) => works(state) && pieces.split('|').any(|piece| lower.contains(piece)),
    };
    (!as_asked).then(|| {
        format!(
            "{word} did not come about: the kernel says '{state}' of {}",
            setter.file
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(vulnerabilities: &[(&str, &str)], parameters: &[(&str, &str, &str)]) -> KernelSays {
        let own = |text: &str| text.to_owned();
        let mut says = KernelSays::default();
        for (name, state) in vulnerabilities {
            says.vulnerabilities.insert(own(name), own(state));
        }
        for (module, name, value) in parameters {
            let module = says.modules.entry(own(module)).or_default();
            module.insert(own(name), own(value));
        }
        says
    }

    fn lab() -> KernelSays {
        // EPYC-Milan without IBPB, as QEMU emulates it.
        let vulnerabilities = [
            ("mds", "Not affected"),
            (
                "retbleed",
                "Mitigation: untrained return thunk; SMT disabled",
            ),
            ("spec_rstack_overflow", "Vulnerable: Safe RET, no microcode"),
            ("spec_store_bypass", "Vulnerable"),
            (
                "spectre_v2",
                "Mitigation: Retpolines, STIBP: disabled, RSB filling",
            ),
            (
                "tsa",
                "Vulnerable: Clear CPU buffers attempted, no microcode",
            ),
            ("vmscape", "Vulnerable"),
        ];
        let parameters = [
            ("kvm", "enable_pmu", "N"),
            ("kvm", "halt_poll_ns", "200000"),
            ("kvm_amd", "avic", "N"),
            ("kvm_amd", "npt", "Y"),
            ("irqbypass", "one", "Y"),
        ];
        says(&vulnerabilities, &parameters)
    }

    #[track_caller]
    fn silent(says: &KernelSays, asked: &str) {
        let said = says.without_effect(asked, |_| false);
        assert!(said.is_empty(), "{asked}: {said:?}");
    }

    #[track_caller]
    fn told(says: &KernelSays, asked: &str, pieces: &[&str]) {
        let said = says.without_effect(asked, |_| false);
        assert_eq!(said.len(), 1, "{asked}: {said:?}");
        for piece in pieces {
            assert!(said[0].contains(piece), "no '{piece}' in {}", said[0]);
        }
    }

    #[test]
    fn mitigations_are_held_to_the_kernel_s_words() {
        let lab = lab();
        told(
            &lab,
            "vmscape=force",
            &["did not come about", "'Vulnerable' of vmscape"],
        );
        told(&lab, "retbleed=off", &["untrained return thunk"]);
        told(&lab, "retbleed=ibpb", &["untrained return thunk"]);
        told(&lab, "spec_rstack_overflow=off", &["Safe RET"]);
        told(&lab, "spec_rstack_overflow=ibpb", &["Safe RET"]);
        told(&lab, "spectre_v2=eibrs", &["Retpolines"]);
        told(&lab, "nospectre_v2", &["Retpolines"]);
        told(&lab, "spec_store_bypass_disable=on", &["'Vulnerable'"]);
        told(&lab, "tsa=off", &["Clear CPU buffers"]);
        told(&lab, "mds=off", &["no effect", "Not affected"]);
        told(&lab, "mds=nonsense", &["full, full,nosmt, off"]);
        for fine in [
            "vmscape=off",
            "retbleed=unret",
            "retbleed=auto",
            "spec_rstack_overflow=safe-ret",
            "spectre_v2=retpoline",
            "spectre_v2=on",
            "tsa=on",
            "mitigations=auto",
            "tsa=off tsa=on",
            // Nobody knows of these.
            "gather_data_sampling=off",
            "pti=on",
            "idle=poll",
            "quiet",
        ] {
            silent(&lab, fine);
        }
        let lfence = says(&[("spectre_v2", "Vulnerable: LFENCE")], &[]);
        silent(&lfence, "spectre_v2=retpoline,lfence");
        let ebpf = "Vulnerable: eIBRS with unprivileged eBPF";
        silent(&says(&[("spectre_v2", ebpf)], &[]), "spectre_v2=eibrs");
        let l1tf = |vmx: &str| says(&[("l1tf", &format!("Mitigation: PTE Inversion{vmx}"))], &[]);
        silent(&l1tf("; VMX: vulnerable"), "l1tf=off");
        silent(&l1tf(""), "l1tf=off");
        told(
            &l1tf("; VMX: conditional cache flushes, SMT disabled"),
            "l1tf=off",
            &["conditional"],
        );
        let off = says(
            &[("spectre_v2", "Vulnerable, IBPB: disabled, STIBP: disabled")],
            &[],
        );
        silent(&off, "spectre_v2=off nospectre_v2");
        told(&off, "spectre_v2=on", &["Vulnerable, IBPB: disabled"]);
    }

    #[test]
    fn parameters_of_modules_are_read_back() {
        let lab = lab();
        told(
            &lab,
            "kvm_amd.avic=1",
            &["kvm_amd.avic=1", "module kvm_amd says 'N'"],
        );
        told(&lab, "kvm-amd.avic", &["says 'N'"]);
        told(&lab, "kvm.halt_poll_ns=100000", &["says '200000'"]);
        told(
            &lab,
            "kvm_intel.nested=1",
            &["no effect", "no module kvm_intel"],
        );
        told(&lab, "kvm.enable_pmuu=1", &["kvm shows no such parameter"]);
        for fine in [
            "kvm.enable_pmu=0",
            "kvm.enable-pmu=off",
            "kvm.enable_pmu=1 kvm.enable_pmu=n",
            "kvm_amd.npt kvm_amd.avic=0",
            "kvm.halt_poll_ns=0x30d40",
            // It may be there and show nothing.
            "irqbypass.other=1",
            // What every module takes, and what is no module's.
            "kvm.dyndbg=+p kvm_amd.async_probe",
            "sysctl.vm.nr_hugepages=16",
        ] {
            silent(&lab, fine);
        }
        let others = says(
            &[],
            &[
                ("psmouse", "proto", "ImPS/2"),
                ("pcie_aspm", "policy", "default [performance] powersave"),
                ("snd", "index", "1,0,-1,-1"),
            ],
        );
        silent(
            &others,
            "psmouse.proto=imps pcie_aspm.policy=performance snd.index=1,0",
        );
        told(&others, "snd.index=1,2", &["says '1,0,-1,-1'"]);
        assert!(
            lab.without_effect("cgroup.memory=nokmem", |_| true)
                .is_empty()
        );
    }

    #[test]
    fn values_have_several_spellings() {
        for (asked, said) in [
            ("1", "Y"),
            ("on", "Y"),
            ("off", "N"),
            ("false", "0"),
            ("0x10", "16"),
            ("010", "8"),
            ("-1", "-1"),
            ("1,0x2", "1,2"),
            ("auto", "Y"),
            ("force", "Y"),
            ("cond", "cond"),
        ] {
            assert!(same_value(asked, said), "{asked} {said}");
        }
        for (asked, said) in [
            ("1", "N"),
            ("2", "1"),
            ("cond", "never"),
            ("1,2", "1"),
            ("", "1"),
        ] {
            assert!(!same_value(asked, said), "{asked} {said}");
        }
    }

    #[test]
    fn a_machine_s_own_command_line_is_examined() {
        let tree = crate::testing::amd_server()
            .file(
                "/proc/cmdline",
                "root=/dev/sda1 vmscape=force kvm_amd.avic=1 foo.bar=1 kvm_intel.nested=1 quiet\n",
            )
            .file(
                "/sys/devices/system/cpu/vulnerabilities/vmscape",
                "Vulnerable\n",
            )
            .file("/sys/module/kvm_amd/parameters/avic", "N\n");
        let out = tree.topic(examine);
        let finding = out.get("parameter-without-effect", "vmscape=force");
        assert_eq!(finding.level, Level::Warning);
        let finding = out.get("parameter-without-effect", "kvm_amd.avic=1");
        assert!(
            finding.says.contains("kvm_amd says 'N'"),
            "{}",
            finding.says
        );
        assert_eq!(out.findings.len(), 3);
        let lines = out.facts["kernel.without_effect"].as_array();
        assert_eq!(lines.map(Vec::len), Some(3));
    }

    #[test]
    fn what_the_kernel_complains_of_is_quoted() {
        let mut kernel = KernelSays {
            unknown: vec!["nosuchthing".to_owned(), "a=b c".to_owned()],
            ..KernelSays::default()
        };
        kernel.complaints = [
            "Unsupported mitigations=nonsense, system may still be vulnerable",
            "Spectre V2 : unknown option (rubbish). Switching to AUTO select",
            "kvm: `abc' invalid for parameter `enable_pmu'",
            "pci 0000:00:01.0: unknown header type 7f, ignoring device",
        ]
        .map(str::to_owned)
        .to_vec();
        told(&kernel, "nosuchthing", &["does not know this parameter"]);
        told(&kernel, r#"a="b c""#, &["does not know this parameter"]);
        told(
            &kernel,
            "mitigations=nonsense",
            &["Unsupported mitigations=nonsense"],
        );
        told(&kernel, "spectre_v2=rubbish", &["Switching to AUTO"]);
        told(&kernel, "kvm.enable_pmu=abc", &["invalid for parameter"]);
        silent(&kernel, "pci=noaer mitigations=auto spectre_v2=on quiet");
    }
}
