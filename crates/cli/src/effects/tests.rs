//! What each command refuses, and what it does not.

use clap::CommandFactory;

use super::*;
use crate::Cli;

/// Commands that do something, with their names as [`Given`] has them.
fn commands() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    for command in Cli::command().get_subcommands() {
        let name = command.get_name().to_owned();
        if command.has_subcommands() {
            let subs = command.get_subcommands();
            found.extend(subs.map(|sub| (format!("{name} {}", sub.get_name()), sub.clone())));
        } else {
            found.push((name, command.clone()));
        }
    }
    found
}

#[test]
fn of_every_option_it_is_known_when_it_has_an_effect() {
    let commands = commands();
    assert!(commands.len() >= 13, "{}", commands.len());
    for (name, command) in commands {
        let options = command.get_arguments().map(|arg| arg.get_id().as_str());
        let given = Given {
            name,
            command: &command,
            matches: None,
        };
        for option in options {
            let rules = rules(&given, option);
            let name = &given.name;
            let rules =
                rules.unwrap_or_else(|| panic!("when does {name} {option} have an effect?"));
            // What a rule names is there to be given.
            for rule in rules {
                let named = match rule {
                    With(others) => others.to_vec(),
                    Without(other) => vec![other],
                    In(_) | Never(_) => continue,
                };
                for other in named {
                    let there = command.get_arguments().any(|arg| arg.get_id() == other);
                    assert!(
                        there,
                        "{name} {option} has a rule on {other}, which {name} lacks"
                    );
                }
            }
        }
    }
}

fn judged(line: &str) -> Result<Option<Machine>, String> {
    let command = Cli::command();
    let words = ["exitpath"].into_iter().chain(line.split_whitespace());
    let matches = command.clone().try_get_matches_from(words);
    let matches = matches.map_err(|error| format!("clap: {error}"))?;
    let place = check(&command, &matches)?;
    Ok(place.on)
}

#[test]
fn each_combination_has_an_effect_or_is_refused_by_name() {
    let (host, lab) = (Ok(Some(Machine::Host)), Ok(Some(Machine::Lab)));
    // A command line, and where it measures or the words of the refusal.
    type Told = Result<Option<Machine>, &'static [&'static str]>;
    let cases: &[(&str, Told)] = &[
        ("measure cpuid", Ok(None)),
        (
            "measure cpuid --runs 3 --samples 9 --order-seed 1 --watchdog 9",
            Ok(None),
        ),
        ("measure cpuid --on host --runs 3", host),
        ("measure cpuid --on lab --seed 1 --kernel 6.12", lab),
        // An option of the lab implies it.
        ("measure cpuid --kernel 6.12", lab),
        ("measure cpuid --kernel k --modules d", lab),
        ("measure cpuid --cmdline x=1", lab),
        ("measure cpuid --qemu /q", lab),
        ("measure cpuid --cpu EPYC", lab),
        ("measure cpuid --seed 1", lab),
        ("measure cpuid --timeout 9", lab),
        ("userspace --seed 1", lab),
        ("kick --kernel 6.12", lab),
        // And is refused next to the host.
        (
            "measure cpuid --on host --kernel 6.12 --seed 3",
            Err(&["--kernel", "--on host"]),
        ),
        ("measure --on host --seed 3", Err(&["--seed", "--on host"])),
        (
            "measure --on host --cmdline x",
            Err(&["--cmdline", "--on host"]),
        ),
        (
            "userspace --on host --qemu /q",
            Err(&["--qemu", "--on host"]),
        ),
        ("kick --on host --cpu EPYC", Err(&["--cpu", "--on host"])),
        (
            "measure --on host --timeout 9",
            Err(&["--timeout", "--on host"]),
        ),
        // The value of a default, given.
        (
            "measure --on host --cmdline=",
            Err(&["--cmdline", "--on host"]),
        ),
        ("measure --on lab --runs 20", Err(&["--runs", "--on lab"])),
        ("userspace --on lab --runs 2", Err(&["--runs", "--on lab"])),
        ("kick --on lab --runs 2", Err(&["--runs", "--on lab"])),
        (
            "measure --runs 3 --kernel 6.12",
            Err(&["--runs", "--kernel"]),
        ),
        ("kick --runs 3 --seed 1", Err(&["--runs", "--seed"])),
        // A real VMM has its own order, and the boot's limit.
        ("measure --vmm qemu --order-seed 1 --watchdog 2", Ok(None)),
        ("measure --vmm qemu --on host --order-seed 1 --runs 2", host),
        (
            "measure --vmm qemu --on lab --order-seed 1",
            Err(&["--order-seed", "--on lab"]),
        ),
        (
            "measure --vmm qemu --seed 1 --watchdog 9",
            Err(&["--watchdog", "--seed"]),
        ),
        ("measure --kvm-unit-tests d --samples 9 --vmm qemu", lab),
        (
            "measure --kvm-unit-tests d --on host",
            Err(&["--kvm-unit-tests", "--on host"]),
        ),
        (
            "measure --kvm-unit-tests d --runs 2",
            Err(&["--kvm-unit-tests", "--runs"]),
        ),
        (
            "measure --kvm-unit-tests d --order-seed 2",
            Err(&["--kvm-unit-tests", "--order-seed"]),
        ),
        (
            "measure --kvm-unit-tests d --watchdog 2",
            Err(&["--kvm-unit-tests", "--watchdog"]),
        ),
        (
            "measure --kvm-unit-tests d --seed 1,2",
            Err(&["one --seed"]),
        ),
        // Lists are printed, and nothing else happens.
        ("measure --list", Ok(None)),
        ("measure --list cpuid", Err(&["--list", "ROWS"])),
        ("measure --list --json", Err(&["--list", "--json"])),
        ("userspace --list --on lab", Err(&["--list", "--on"])),
        ("trace --list-phases", Ok(None)),
        ("trace --list-phases cpuid", Err(&["--list-phases", "ROWS"])),
        (
            "trace --list-phases --phases f",
            Err(&["--list-phases", "--phases"]),
        ),
        // Twice the same.
        ("measure --seed 1,1", Err(&["--seed", "1 twice"])),
        ("trace cpuid --seed 3,2,3", Err(&["--seed", "3 twice"])),
        (
            "gate --kernel k --base b --seed 1,1",
            Err(&["--seed", "1 twice"]),
        ),
        (
            "trace cpuid --without f,g=0,f=0",
            Err(&["--without", "f twice"]),
        ),
        ("lab run --seed 1,2 -- true", Err(&["one --seed"])),
        ("lab shell --seed 1,2", Err(&["one --seed"])),
        (
            "lab run --seed 2 --kernel 6.1 --timeout 9 -- true",
            Ok(None),
        ),
        // Tables of kick.
        ("kick --eventfds 5 --disks 2", Ok(None)),
        ("kick scaling --eventfds 5", Ok(None)),
        ("kick kicks disks --disks 5", Ok(None)),
        ("kick kicks --eventfds 5", Err(&["--eventfds", "scaling"])),
        ("kick kicks scaling --disks 5", Err(&["--disks", "`disks`"])),
        ("kick disks --eventfds 5", Err(&["--eventfds", "scaling"])),
        (
            "kick --check lost --eventfds 5",
            Err(&["--eventfds", "scaling"]),
        ),
        ("kick scaling --check lost --eventfds 5", Ok(None)),
        // Views of a trace.
        (
            "trace cpuid --tree --min 5 --seed 1 --cpu EPYC --watchdog 9",
            Ok(None),
        ),
        ("trace cpuid --min 5", Err(&["--min", "--tree"])),
        ("trace cpuid --all --phases f --flamegraph g", Ok(None)),
        ("trace cpuid --all --json", Err(&["--all", "--json"])),
        ("trace cpuid --all --tree", Err(&["--all", "--tree"])),
        (
            "trace cpuid --all --annotate f",
            Err(&["--all", "--annotate"]),
        ),
        ("trace cpuid --all --folded", Err(&["--all", "--folded"])),
        (
            "trace cpuid --phases f --tree",
            Err(&["--phases", "--annotate"]),
        ),
        ("trace cpuid --phases f --folded --perfetto g", Ok(None)),
        (
            "trace cpuid --without f --all",
            Err(&["--all", "--without"]),
        ),
        (
            "trace cpuid --without f --phases g",
            Err(&["--phases", "--without"]),
        ),
        ("trace cpuid --plugin idles", Ok(None)),
        (
            "trace cpuid --plugin idles --json",
            Err(&["--json", "--plugin idles"]),
        ),
        (
            "trace cpuid --plugin absent --without f",
            Err(&["--without", "--plugin absent"]),
        ),
        ("trace --recording r cpuid --json --phases f", Ok(None)),
        (
            "trace --recording r --kernel 6.12",
            Err(&["--kernel", "--recording"]),
        ),
        (
            "trace --recording r --seed 1",
            Err(&["--seed", "--recording"]),
        ),
        (
            "trace --recording r --cmdline x",
            Err(&["--cmdline", "--recording"]),
        ),
        (
            "trace --recording r --qemu q",
            Err(&["--qemu", "--recording"]),
        ),
        (
            "trace --recording r --cpu c",
            Err(&["--cpu", "--recording"]),
        ),
        (
            "trace --recording r --timeout 1",
            Err(&["--timeout", "--recording"]),
        ),
        (
            "trace --recording r --rounds 5",
            Err(&["--rounds", "--recording"]),
        ),
        (
            "trace --recording r --out o",
            Err(&["--out", "--recording"]),
        ),
        (
            "trace --recording r --watchdog 5",
            Err(&["--watchdog", "--recording"]),
        ),
        (
            "trace --recording r --vmlinux v",
            Err(&["--vmlinux", "--recording"]),
        ),
        (
            "trace --recording r --vmm qemu",
            Err(&["--vmm", "--recording"]),
        ),
        (
            "trace --recording r --without f",
            Err(&["--without", "--recording"]),
        ),
        (
            "trace --recording r --plugin idles",
            Err(&["--plugin", "--recording"]),
        ),
        // Two recordings are compared as they are.
        ("diff a b --all --gate 0 --phases f", Ok(None)),
        (
            "diff cpuid --kernel a --kernel b --seed 1 --rounds 5 --cpu c",
            Ok(None),
        ),
        (
            "diff a b --seed 1",
            Err(&["--seed", "--kernel or --cmdline"]),
        ),
        (
            "diff a b --rounds 1",
            Err(&["--rounds", "--kernel or --cmdline"]),
        ),
        (
            "diff a b --qemu q",
            Err(&["--qemu", "--kernel or --cmdline"]),
        ),
        ("diff a b --cpu c", Err(&["--cpu", "--kernel or --cmdline"])),
        (
            "diff a b --timeout 1",
            Err(&["--timeout", "--kernel or --cmdline"]),
        ),
        ("diff a b --json --all", Err(&["--all", "--json"])),
        ("gate --kernel k --base 6.1 --base-modules d", Ok(None)),
        (
            "gate --kernel k --base /tmp --base-modules d",
            Err(&["--base-modules", "recording"]),
        ),
        (
            "gate --kernel k --base /tmp@condition --base-modules d",
            Err(&["--base-modules", "recording"]),
        ),
        ("doctor --all", Ok(None)),
        ("doctor --json --all", Err(&["--all", "--json"])),
        ("show r --json", Ok(None)),
        ("lab qemu --fetch", Ok(None)),
        ("image -o f cpuid --samples 9", Ok(None)),
    ];
    for (line, told) in cases {
        match (judged(line), told) {
            (Ok(on), Ok(expected)) => assert_eq!(on, *expected, "{line}"),
            (Err(said), Err(pieces)) => {
                assert!(!said.starts_with("clap:"), "{line}: {said}");
                for piece in *pieces {
                    assert!(said.contains(piece), "{line}: no '{piece}' in: {said}");
                }
            }
            (said, told) => panic!("{line}: {said:?} instead of {told:?}"),
        }
    }
}

#[test]
fn options_of_the_host_are_told_to_who_falls_back_to_the_lab() {
    let on_host = |line: &str| {
        let command = Cli::command();
        let matches = command.clone().get_matches_from(line.split_whitespace());
        check(&command, &matches)
            .expect("it can have an effect")
            .on_host
    };
    assert_eq!(on_host("exitpath measure --runs 3"), ["--runs"]);
    assert!(on_host("exitpath measure --samples 3").is_empty());
    assert!(on_host("exitpath kick --watchdog 3").is_empty());
    let vmm = on_host("exitpath measure --vmm qemu --order-seed 3");
    assert_eq!(vmm, ["--order-seed"]);
}
