//! What the helps say.

use super::*;

/// Each command's help, with its name.
fn helps() -> Vec<(String, String)> {
    fn add(found: &mut Vec<(String, String)>, path: &str, command: &mut clap::Command) {
        let path = format!("{path} {}", command.get_name());
        found.push((path.clone(), command.render_long_help().to_string()));
        for sub in command.get_subcommands_mut() {
            if sub.get_name() != "help" {
                add(found, &path, sub);
            }
        }
    }
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    add(&mut found, "", &mut command);
    found
}

#[test]
fn each_help_shows_its_own_statuses() {
    for (command, help) in helps() {
        let command = command.trim_start_matches(" exitpath").trim_start();
        if command == "lab" {
            continue;
        }
        let (_, statuses) = help.split_once("Exit status: ").expect("statuses");
        let all = command.is_empty();
        for (status, of) in [("125 ", &["gate"][..]), (" 1 ", &["gate", "diff"])] {
            let has = format!(" {statuses}").contains(status);
            assert_eq!(has, all || of.contains(&command), "{command}: {statuses}");
        }
        if !all {
            assert!(!statuses.contains("`gate`"), "{command}: {statuses}");
        }
        assert!(
            statuses.contains("2 ") && !statuses.contains("  "),
            "{statuses}"
        );
    }
}

#[test]
fn help_says_what_is_taken_where_an_option_is_not_given() {
    let helps = helps();
    let has = |command: &str, option: &str, default: &str| {
        let help = helps.iter().find(|(name, _)| name.trim() == command);
        let (_, help) = help.expect("a command");
        let (_, from) = help.split_once(option).expect("its option");
        let own = from.split("\n      --").next().unwrap_or_default();
        assert!(own.contains(default), "{command} {option}: {own}");
    };
    has("exitpath measure", "--timeout", "[default: 600]");
    has("exitpath measure", "--samples", "250 in the lab]");
    has("exitpath measure", "--seed", "[default: 1,2,3]");
    has("exitpath userspace", "--samples", "100 in the lab]");
    has("exitpath kick", "--samples", "100 in the lab]");
    has("exitpath trace", "--seed", "[default: 1]");
    has(
        "exitpath gate",
        "--seed",
        "[default: 1,2,3, or what a recorded base has]",
    );
    has(
        "exitpath gate",
        "--cpu",
        "[default: EPYC-Milan, or what a recorded base has]",
    );
    has("exitpath lab run", "--timeout", "[default: no limit]");
    has("exitpath lab run", "--seed", "[default: 1]");
}
