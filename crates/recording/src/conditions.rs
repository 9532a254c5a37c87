//! What a recording of several conditions says of one of them.

use std::collections::BTreeMap;

use crate::model::{Condition, Difference, Environment, Manifest, Recording, Run};
use crate::names::fact;
use crate::trace::{Symbol, Trace, Window};

impl Manifest {
    /// In words, what is done to the kernel under its only condition, whichever kernel that is; nothing where it
    /// is as it is, or there are several conditions.
    pub fn done_to_the_kernel(&self) -> Vec<String> {
        let differs = match self.conditions.as_slice() {
            [condition] => condition.differs.as_slice(),
            _ => &[],
        };
        let mut done = Vec::new();
        let mut without = Vec::new();
        for difference in differs {
            match difference {
                Difference::Patch { function, .. } => without.push(function.as_str()),
                Difference::Off { knob, .. } => without.push(knob.as_str()),
                Difference::On { knob, .. } => done.push(format!("{knob} on")),
                Difference::Tracer(tracer) => done.push(format!("{tracer} traced")),
                Difference::Delay { ticks: 1 } => {
                    done.push("a delay of 1 tick after each exit".to_owned());
                }
                Difference::Delay { ticks } => {
                    done.push(format!("a delay of {ticks} ticks after each exit"));
                }
                Difference::Parameter {
                    module,
                    name,
                    value,
                } => done.push(format!("{module}.{name}={value}")),
                Difference::Kernel(_)
                | Difference::Cmdline(_)
                | Difference::Vmm { .. }
                | Difference::Layers(_)
                | Difference::Guest { .. } => {}
            }
        }
        if !without.is_empty() {
            done.insert(0, format!("without {}", without.join(", ")));
        }
        done
    }

    /// The warnings that concern one of its conditions.
    pub fn warnings_under(&self, condition: &Condition) -> Vec<String> {
        let is_of_others = |warning: &String| {
            let mut others = self.conditions.iter();
            others.any(|other| other.warnings.contains(warning))
        };
        let warnings = self.warnings.iter();
        let concern = warnings
            .filter(|&warning| condition.warnings.contains(warning) || !is_of_others(warning));
        concern.cloned().collect()
    }

    /// The condition of that name.
    pub fn condition(&self, name: &str) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.name == name)
    }

    /// The environment as it is under one of the conditions.
    pub fn environment_under(&self, condition: &Condition) -> Environment {
        let mut environment = self.environment.clone();
        for differs in &condition.differs {
            match differs {
                Difference::Kernel(release) => environment.kernel.clone_from(release),
                Difference::Cmdline(cmdline) => environment.cmdline.clone_from(cmdline),
                Difference::Vmm { command, version } => {
                    let facts = &mut environment.facts;
                    facts.insert(fact::VMM_COMMAND.to_owned(), command.as_str().into());
                    let version = version.as_deref().map(Into::into);
                    set(facts, fact::VMM_VERSION, version);
                }
                _ => {}
            }
        }
        for (name, value) in &condition.facts {
            let value = Some(value.clone()).filter(|value| !value.is_null());
            set(&mut environment.facts, name, value);
        }
        environment
    }
}

fn set(
    facts: &mut BTreeMap<String, serde_json::Value>,
    name: &str,
    value: Option<serde_json::Value>,
) {
    match value {
        Some(value) => drop(facts.insert(name.to_owned(), value)),
        None => drop(facts.remove(name)),
    }
}

impl Recording {
    /// As much of it as was measured under one condition, as a recording of that alone; `None` where there
    /// is no such condition. What it was called there it is still called.
    pub fn under(&self, name: &str) -> Option<Recording> {
        let condition = self.manifest.condition(name)?;
        let runs: Vec<Run> = self
            .runs
            .iter()
            .filter(|run| run.condition == name)
            .cloned()
            .collect();
        let trace = self.trace.as_ref().map(|trace| {
            let has = |window: &&Window| runs.iter().any(|run| run.id == window.run);
            let named = |symbol: &&Symbol| symbol.condition.as_ref().is_none_or(|of| of == name);
            // Ids stay what they are, so that instructions and paths of other conditions stay, too.
            Trace {
                windows: trace.windows.iter().filter(has).cloned().collect(),
                symbols: trace.symbols.iter().filter(named).cloned().collect(),
                ..trace.clone()
            }
        });
        let rows = self.manifest.rows.iter();
        let rows = rows.filter(|row| runs.iter().any(|run| run.row == row.name));
        Some(Recording {
            manifest: Manifest {
                environment: self.manifest.environment_under(condition),
                conditions: vec![condition.clone()],
                rows: rows.cloned().collect(),
                warnings: self.manifest.warnings_under(condition),
                ..self.manifest.clone()
            },
            runs,
            trace: trace.filter(|trace| !trace.windows.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Bounds, Machine, Outcome, Plan, RowInfo};
    use crate::trace::Space;

    fn condition(name: &str, differs: Vec<Difference>) -> Condition {
        Condition {
            name: name.to_owned(),
            differs,
            ..Condition::base()
        }
    }

    fn run(id: u32, row: &str, condition: &str) -> Run {
        Run {
            id,
            row: row.to_owned(),
            condition: condition.to_owned(),
            block: 0,
            seed: Some(1),
            cpus: 1,
            outcome: Outcome::Done,
            notes: Vec::new(),
            ops: 0,
            userspace_exits: 0,
            counters: BTreeMap::new(),
            samples: Vec::new(),
            batches: Vec::new(),
        }
    }

    fn row(name: &str) -> RowInfo {
        let any = Bounds { min: 0.0, max: 0.0 };
        RowInfo {
            name: name.to_owned(),
            operation: String::new(),
            reference: false,
            halts: false,
            interrupts: false,
            vcpus: 1,
            delay_ticks: 0,
            exits: any,
            userspace_exits: any,
            parameters: BTreeMap::new(),
            rung: None,
            kick: None,
        }
    }

    /// Two rows under A, one of them under B too, which has another kernel and VMM.
    fn recording() -> Recording {
        let vmm = Difference::Vmm {
            command: "qemu -M pc".to_owned(),
            version: None,
        };
        let other = [Difference::Kernel("6.12".to_owned()), vmm];
        let facts = [
            ("kernel.preemption", json!("full")),
            ("lab.modules", json!(null)),
        ];
        let facts = facts.map(|(name, fact)| (name.to_owned(), fact));
        let b = Condition {
            facts: facts.into(),
            warnings: vec!["of b".to_owned()],
            ..condition("B", other.to_vec())
        };
        let of_all = [
            ("kernel.preemption", json!("none")),
            ("lab.modules", json!({"kvm": {}})),
            (fact::VMM_VERSION, json!("of A's")),
            ("untouched", json!(1)),
        ];
        let window = |run| Window {
            run,
            ..Window::default()
        };
        let symbol = |condition: Option<&str>| Symbol {
            space: Space::Kernel,
            address: 0,
            size: 1,
            name: condition.unwrap_or("all").to_owned(),
            module: "kvm".to_owned(),
            condition: condition.map(str::to_owned),
        };
        Recording {
            manifest: Manifest {
                command: "diff".to_owned(),
                begun_unix_seconds: 0,
                machine: Machine::Lab,
                environment: Environment {
                    arch: "x86_64".to_owned(),
                    machine_kind: "svm".to_owned(),
                    kernel: "6.1".to_owned(),
                    cmdline: "quiet".to_owned(),
                    cpu: String::new(),
                    cpus: 1,
                    qemu: None,
                    seeds: vec![1],
                    tsc_khz: None,
                    exitpath: String::new(),
                    facts: of_all.map(|(name, fact)| (name.to_owned(), fact)).into(),
                },
                plan: Plan {
                    runs: 1,
                    samples: 1,
                    batches: 1,
                    batch_length: 1,
                    order_seed: 0,
                },
                conditions: vec![condition("A", Vec::new()), b],
                rows: vec![row("cpuid"), row("hlt")],
                warnings: vec!["of both".to_owned(), "of b".to_owned()],
            },
            runs: vec![
                run(0, "cpuid", "A"),
                run(1, "cpuid", "B"),
                run(2, "hlt", "A"),
            ],
            trace: Some(Trace {
                windows: vec![window(0), window(1), window(2)],
                symbols: [None, Some("A"), Some("B")].map(symbol).into(),
                ..Trace::default()
            }),
        }
    }

    #[test]
    fn a_condition_has_the_environment_that_it_says_and_the_rest_of_the_first() {
        let recording = recording();
        let under = |name: &str| recording.under(name).expect("it is there").manifest;
        assert_eq!(under("A").environment, recording.manifest.environment);
        let b = under("B").environment;
        assert_eq!((b.kernel.as_str(), b.cmdline.as_str()), ("6.12", "quiet"));
        let facts: Vec<(&str, String)> = b
            .facts
            .iter()
            .map(|(name, fact)| (name.as_str(), fact.to_string()))
            .collect();
        // Null takes a fact away, and a VMM that says no version has not the other one's.
        let expected = [
            ("kernel.preemption", "\"full\""),
            ("untouched", "1"),
            ("vmm.command", "\"qemu -M pc\""),
        ];
        assert_eq!(facts, expected.map(|(name, fact)| (name, fact.to_owned())));
    }

    #[test]
    fn names_of_addresses_are_those_of_the_condition_and_of_all() {
        let names = |condition: &str| -> Vec<String> {
            let trace = recording().under(condition).and_then(|under| under.trace);
            let symbols = trace.expect("it has windows").symbols.into_iter();
            symbols.map(|symbol| symbol.name).collect()
        };
        assert_eq!(
            (names("A"), names("B")),
            (
                vec!["all".into(), "A".into()],
                vec!["all".into(), "B".into()]
            )
        );
    }

    #[test]
    fn runs_windows_rows_and_warnings_are_those_of_the_condition() {
        let recording = recording();
        let told = |name: &str| {
            let Recording {
                manifest,
                runs,
                trace,
            } = recording.under(name).expect("it is there");
            let ids: Vec<u32> = runs.iter().map(|run| run.id).collect();
            let windows: Vec<u32> = trace
                .iter()
                .flat_map(|trace| &trace.windows)
                .map(|window| window.run)
                .collect();
            let rows: Vec<String> = manifest.rows.into_iter().map(|row| row.name).collect();
            (ids, windows, rows.join(" "), manifest.warnings.join(", "))
        };
        let words = |text: &str| text.to_owned();
        assert_eq!(
            told("A"),
            (vec![0, 2], vec![0, 2], words("cpuid hlt"), words("of both"))
        );
        assert_eq!(
            told("B"),
            (vec![1], vec![1], words("cpuid"), words("of both, of b"))
        );
        assert_eq!(recording.under("C"), None);
    }
}
