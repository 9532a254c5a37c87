//! `exitpath attach`: flags of the command that looks at running virtual machines.

// A comment would become part of the help, which says what each is.
#![allow(missing_docs, reason = "the help is the documentation")]

use std::time::Duration;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct Attach {
    /// The virtual machines of this process
    #[arg(long, value_name = "P", conflicts_with = "all")]
    pub pid: Option<u32>,
    /// All virtual machines, those that start meanwhile too
    #[arg(long)]
    pub all: bool,
    /// How long: 10s, 500ms, 5m [default: 10s; where there is a command, until it ends]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// What is kept of each exit
    #[arg(long, value_enum, default_value = "usual")]
    pub keep: Keep,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// A command to run; it is looked at until this ends
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What is kept of each exit of a live virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// Counts and sums
    Light,
    /// Histograms, and time in user space with the way back to the guest
    Usual,
    /// The same, and time in user space to the next KVM_RUN alone
    Exact,
}

/// A time with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| "a time is a number and a unit: 10s, 500ms, 5m")?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err("its unit is ms, s, m or h".to_owned()),
    };
    match milliseconds {
        Some(1..=LONGEST) => Ok(Duration::from_millis(milliseconds.unwrap_or(0))),
        _ => Err("1ms to 24h".to_owned()),
    }
}

/// Milliseconds for which live virtual machines are looked at, at most.
const LONGEST: u64 = 24 * 3_600_000;
