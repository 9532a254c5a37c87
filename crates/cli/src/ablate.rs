//! `exitpath ablate`: its flags.

// A comment would become part of the help, which says what each is.
#![allow(missing_docs, reason = "the help is the documentation")]

use std::path::PathBuf;

use clap::Args;

use crate::options::{LabOptions, On};

#[derive(Debug, Args)]
pub struct Ablate {
    /// Rows; `exitpath measure --list` names them
    #[arg(required_unless_present = "list_knobs")]
    pub rows: Vec<String>,
    /// Only these knobs [default: all in code that are on the row's way, the 16 that cost most; on a host all there are]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub knob: Vec<String>,
    /// Further knobs: a function that returns at once, NAME or NAME=VALUE; calls taken out, CALLER:CALLEE, with =VALUE what they return
    #[arg(long, value_name = "FUNCTION", value_delimiter = ',')]
    pub function: Vec<String>,
    /// Further knobs that take a boot: what is appended to the kernel's command line, `mitigations=off` or `kvm.enable_pmu=0`; of several all
    /// combinations are booted
    #[arg(long, value_name = "TEXT")]
    pub boot: Vec<String>,
    /// List the built-in knobs and exit
    #[arg(long)]
    pub list_knobs: bool,
    /// Where to measure: a host's knobs are others, which can be switched while it runs [default: lab]
    #[arg(long, value_enum)]
    pub on: Option<On>,
    /// Blocks of all combinations, on a host
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    /// Bracketed samples of each combination [default: 200 on a host, 20 in the lab]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub samples: Option<u32>,
    /// Folder for the recording [default: a new one in $XDG_DATA_HOME/exitpath]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print JSON: an object for a row, an array of them for several
    #[arg(long)]
    pub json: bool,
    /// Print Markdown
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Write the waterfall as a picture; of one row
    #[arg(long, value_name = "FILE.svg")]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub lab: LabOptions,
}
