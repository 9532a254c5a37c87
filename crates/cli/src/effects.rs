//! Which option of which command has an effect when. What cannot have one is refused by name.
//!
//! [`rules`] is the one place that says so: a test walks through all options of all commands, so that
//! a new one cannot be forgotten. [`check`] is asked before any command runs, and its answer, [`Place`],
//! is the only way to choose where to measure.

use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, ValueEnum};

use crate::commands::{KickTable, PluginUse};
use crate::options::On;
use crate::recording;
use exitpath_recording::Machine;

/// When an option has an effect.
#[derive(Debug, Clone, Copy)]
enum When {
    /// Only where it is measured there. In the lab: the option implies the lab.
    In(On),
    /// Only with at least one of these options.
    With(&'static [&'static str]),
    /// Only without this option.
    Without(&'static str),
    /// Not now, for this reason.
    Never(&'static str),
}

use When::{In, Never, With, Without};

/// Where a command is to measure, as far as its command line says so.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Place {
    /// What was asked for, by `--on` or by an option of the lab.
    pub on: Option<Machine>,
    /// The options given that have an effect on a host only, as they are written.
    pub on_host: Vec<String>,
}

/// What was given to a command on its command line.
pub(super) struct Given<'a> {
    /// Its name, with the name of the command that it belongs to: `lab run`.
    name: String,
    command: &'a Command,
    matches: Option<&'a ArgMatches>,
}

impl Given<'_> {
    /// Whether an option was given. Its default is not enough.
    fn has(&self, option: &str) -> bool {
        let known = self
            .command
            .get_arguments()
            .any(|arg| arg.get_id() == option);
        let source = self.matches.filter(|_| known);
        source.and_then(|matches| matches.value_source(option)) == Some(ValueSource::CommandLine)
    }

    fn has_any(&self, options: &[&str]) -> bool {
        options.iter().any(|option| self.has(option))
    }

    /// The values given of an option.
    fn values<T: Clone + Send + Sync + 'static>(&self, option: &str) -> Vec<T> {
        let matches = self.matches.filter(|_| self.has(option));
        let values = matches.and_then(|matches| matches.get_many::<T>(option));
        values.into_iter().flatten().cloned().collect()
    }

    /// An option as the user writes it.
    fn written(&self, option: &str) -> String {
        let arg = self
            .command
            .get_arguments()
            .find(|arg| arg.get_id() == option);
        arg.map_or_else(|| option.to_owned(), written)
    }
}

fn written(arg: &Arg) -> String {
    match (arg.get_long(), arg.get_value_names()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some([name, ..])) => name.to_string(),
        (None, _) => arg.get_id().to_string(),
    }
}

/// Options that print something and end the command, whatever else was asked.
const ALONE: [&str; 2] = ["list", "list_phases"];
/// Ways to show a path that take the place of the usual one.
const OTHER_VIEWS: [&str; 4] = ["json", "tree", "annotate", "folded"];

/// When an option of a command has an effect; `None` for one that is not known here.
fn rules(given: &Given<'_>, option: &str) -> Option<Vec<When>> {
    let always = Vec::new;
    let name = given.name.as_str();
    let rules = match (name, option) {
        // Where to measure, and what becomes of the result.
        ("measure" | "userspace" | "kick" | "primitives", "on" | "json" | "out" | "samples") => {
            always()
        }
        ("measure" | "userspace" | "kick" | "primitives", "runs") => vec![In(On::Host)],
        ("measure", "order_seed" | "watchdog") => match given.has("vmm") {
            // The image has its own order there, and the boot's limit is all there is.
            true => vec![In(On::Host), Without("kvm_unit_tests")],
            false => vec![Without("kvm_unit_tests")],
        },
        ("userspace" | "kick" | "primitives", "order_seed" | "watchdog" | "primitives") => always(),
        ("measure" | "userspace" | "image" | "trace" | "gate", "rows" | "rungs")
        | ("measure" | "userspace" | "kick" | "primitives", "list")
        | ("measure", "vmm")
        | ("kick", "tables" | "check")
        | ("image", "output" | "samples" | "no_multiboot") => always(),
        ("measure", "kvm_unit_tests") => vec![In(On::Lab)],
        ("measure" | "userspace" | "kick" | "primitives", lab) if is_of_lab(lab) => {
            vec![In(On::Lab)]
        }
        ("kick", "eventfds") => of_table(given, KickTable::Scaling),
        ("kick", "disks") => of_table(given, KickTable::Disks),

        ("ablate", "on" | "list_knobs") => always(),
        ("ablate", "runs") => vec![In(On::Host), Without("list_knobs")],
        ("ablate", "function" | "boot") => vec![In(On::Lab), Without("list_knobs")],
        ("ablate", "rows" | "out" | "json" | "svg" | "samples" | "knob" | "markdown") => {
            vec![Without("list_knobs")]
        }
        ("ablate", lab) if is_of_lab(lab) => vec![In(On::Lab), Without("list_knobs")],
        ("trace", "recording" | "list_phases" | "json" | "tree" | "annotate" | "folded") => {
            always()
        }
        ("trace", "flamegraph" | "perfetto") => always(),
        ("trace", "rounds" | "out" | "without" | "vmm" | "watchdog" | "plugin" | "vmlinux") => {
            vec![Without("recording")]
        }
        ("trace", lab) if is_of_lab(lab) => vec![Without("recording")],
        ("trace", "min") => vec![With(&["tree"])],
        ("trace", "all") => {
            let mut rules: Vec<When> = OTHER_VIEWS.map(Without).to_vec();
            rules.push(Without("without"));
            rules
        }
        ("trace", "phases") => match given.has_any(&["tree", "folded"]) {
            true => vec![With(&["annotate", "perfetto"])],
            false => vec![Without("without")],
        },

        ("diff", "names" | "kernel" | "cmdline" | "json" | "markdown" | "gate" | "phases") => {
            always()
        }
        ("diff", "all") => vec![Without("json")],
        ("diff", "modules") => vec![With(&["kernel"])],
        ("diff", "rounds") => vec![With(&["kernel", "cmdline"])],
        ("diff", lab) if is_of_lab(lab) => vec![With(&["kernel", "cmdline"])],

        ("gate", "base" | "max_growth" | "max_class_growth" | "rounds" | "out") => always(),
        ("gate", "base_modules") => match given.values::<String>("base").first() {
            Some(base) if recording::is_one(Path::new(base)) => {
                vec![Never("next to a --base that is a recording")]
            }
            _ => always(),
        },
        ("gate", lab) if is_of_lab(lab) => always(),

        ("attach", "pid" | "all" | "duration" | "keep" | "json" | "command") => always(),
        ("doctor" | "show", "json") | ("show", "recording") => always(),
        ("doctor", "all") => vec![Without("json")],
        ("lab kernels", "version" | "debug") | ("lab qemu", "fetch") | ("lab cache", "clear") => {
            always()
        }
        ("lab run" | "lab shell", "fresh") => vec![Never("here: such a lab is booted each time")],
        ("lab run" | "lab shell", "cpus" | "memory" | "command") => always(),
        ("lab run" | "lab shell", lab) if is_of_lab(lab) => always(),
        _ => return None,
    };
    Some(rules)
}

/// What the lab is made of.
fn is_of_lab(option: &str) -> bool {
    [
        "kernel", "modules", "cmdline", "qemu", "cpu", "bare_svm", "seeds", "timeout", "fresh",
    ]
    .contains(&option)
}

/// Of an option for one table of `exitpath kick`.
fn of_table(given: &Given<'_>, table: KickTable) -> Vec<When> {
    let tables: Vec<KickTable> = given.values("tables");
    let all = tables.is_empty() && !given.has("check");
    match table {
        _ if all || tables.contains(&table) => Vec::new(),
        KickTable::Scaling => vec![Never("without the table `scaling`")],
        _ => vec![Never("without the table `disks`")],
    }
}

/// Refuses options that can have no effect, whatever the machine; and says where to measure.
pub(super) fn check(command: &Command, matches: &ArgMatches) -> Result<Place, String> {
    let (mut command, mut matches, mut name) = (command, matches, String::new());
    while let Some((sub, of_sub)) = matches.subcommand() {
        let Some(known) = command.find_subcommand(sub) else {
            break;
        };
        name = format!("{name} {sub}").trim_start().to_owned();
        (command, matches) = (known, of_sub);
    }
    let matches = Some(matches);
    judge(&Given {
        name,
        command,
        matches,
    })
}

fn judge(given: &Given<'_>) -> Result<Place, String> {
    let ids: Vec<&str> = given
        .command
        .get_arguments()
        .map(|arg| arg.get_id().as_str())
        .filter(|option| given.has(option))
        .collect();
    if let Some(alone) = ids.iter().find(|option| ALONE.contains(option))
        && let Some(other) = ids.iter().find(|option| *option != alone)
    {
        let [alone, other] = [alone, other].map(|option| given.written(option));
        return Err(format!(
            "{other} has no effect with {alone}, which only prints a list: leave one of them out"
        ));
    }
    let asked = given.values::<On>("on").first().copied();
    let mut place = Place {
        on: asked.map(On::into),
        on_host: Vec::new(),
    };
    let mut in_lab = None;
    for option in ids {
        let written = given.written(option);
        for rule in rules(given, option).unwrap_or_default() {
            match rule {
                In(On::Lab) if asked == Some(On::Host) => {
                    return Err(format!(
                        "{written} has an effect in the lab only: leave it out, or leave out --on host"
                    ));
                }
                In(On::Lab) => in_lab = in_lab.or(Some(written.clone())),
                In(On::Host) if asked == Some(On::Lab) => {
                    return Err(format!(
                        "{written} has an effect on a host only: leave it out, or leave out --on lab"
                    ));
                }
                In(On::Host) => place.on_host.push(written.clone()),
                With(others) if !given.has_any(others) => {
                    let others: Vec<String> =
                        others.iter().map(|other| given.written(other)).collect();
                    return Err(format!(
                        "{written} has no effect without {}: leave it out",
                        others.join(" or ")
                    ));
                }
                Without(other) if given.has(other) => {
                    let other = given.written(other);
                    return Err(format!(
                        "{written} has no effect with {other}: leave one of them out"
                    ));
                }
                Never(when) => return Err(format!("{written} has no effect {when}: leave it out")),
                With(_) | Without(_) => {}
            }
        }
    }
    if let (Some(of_lab), Some(of_host)) = (&in_lab, place.on_host.first()) {
        return Err(format!(
            "{of_host} has an effect on a host only, and {of_lab} in the lab only: leave one of them out"
        ));
    }
    if in_lab.is_some() {
        place.on = Some(On::Lab.into());
    }
    values(given)?;
    Ok(place)
}

/// Refuses values of which a part would have no effect.
fn values(given: &Given<'_>) -> Result<(), String> {
    let seeds: Vec<u64> = given.values("seeds");
    for (at, seed) in seeds.iter().enumerate() {
        if seeds[..at].contains(seed) {
            return Err(format!(
                "--seed has {seed} twice, and the same seed gives the same figures: leave one out"
            ));
        }
    }
    let booted_once = match given.name.starts_with("lab ") {
        true => Some("a lab is booted once"),
        false => given
            .has("kvm_unit_tests")
            .then_some("each row is booted once here"),
    };
    if let (Some(why), true) = (booted_once, seeds.len() > 1) {
        return Err(format!("{why}, with one --seed: give one"));
    }
    let without: Vec<String> = given.values("without");
    let function = |text: &String| text.split('=').next().unwrap_or_default().to_owned();
    for (at, text) in without.iter().enumerate() {
        let name = function(text);
        if without[..at].iter().any(|other| function(other) == name) {
            return Err(format!("--without has {name} twice: leave one out"));
        }
    }
    // Where nothing is recorded, nothing can be shown.
    let plugin = given.values::<PluginUse>("plugin").first().copied();
    if let Some(plugin @ (PluginUse::Absent | PluginUse::Idles)) = plugin {
        let views = [
            "min",
            "flamegraph",
            "perfetto",
            "all",
            "phases",
            "without",
            "vmlinux",
        ];
        let shown = OTHER_VIEWS
            .iter()
            .chain(&views)
            .find(|view| given.has(view));
        if let Some(view) = shown {
            let plugin = plugin.to_possible_value();
            let plugin = plugin.as_ref().map_or("", |value| value.get_name());
            let view = given.written(view);
            return Err(format!(
                "{view} has no effect with --plugin {plugin}: leave one of them out"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
