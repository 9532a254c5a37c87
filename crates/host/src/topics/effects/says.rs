//! What a kernel says of itself, held against what it was told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::reading::cmdline::{OF_EVERY_MODULE, Word, normal, words};
use crate::reading::root::Root;
use crate::topics::effects::mitigation::{VULNERABILITIES, mitigation};
use crate::topics::effects::values::differs;

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
            vulnerabilities: texts(root, VULNERABILITIES),
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
    pub(super) fn judged(
        &self,
        asked: &str,
        knows: impl Fn(&Word) -> bool,
    ) -> Vec<(String, String)> {
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
                // No module shows them.
                Some(_) if OF_EVERY_MODULE.contains(&parameter.as_str()) => None,
                Some(parameters) => match parameters.get(&parameter) {
                    Some(said) => differs(word, is_kvm(&module), &module, said),
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

pub(super) fn is_kvm(module: &str) -> bool {
    module == "kvm" || module.starts_with("kvm_")
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
