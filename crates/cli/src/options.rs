//! Options that several commands have.

// A comment would become part of the help, which says what each is.
#![allow(missing_docs, reason = "the help is the documentation")]

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use exitpath_recording::Machine;

/// Where to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// This machine's KVM, in time
    Host,
    /// A kernel under QEMU with counted time, in instructions
    Lab,
}

impl From<On> for Machine {
    fn from(on: On) -> Machine {
        match on {
            On::Host => Machine::Host,
            On::Lab => Machine::Lab,
        }
    }
}

/// Where is measured, and what becomes of the result.
#[derive(Debug, Args)]
pub struct Measuring {
    /// Where to measure [default: host where guests really run on the CPU, else lab]
    #[arg(long, value_enum)]
    pub on: Option<On>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    /// Folder for the recording [default: a new one in $XDG_DATA_HOME/exitpath]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// How much is measured, and in which order.
#[derive(Debug, Args)]
pub struct Sampling {
    /// Fresh VMs for each row, on a host
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Bracketed samples in each run [default: 1000 on a host, 250 in the lab]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub samples: Option<u32>,
    /// Seed of the random order of runs [default: random on a host, 1 in the lab]
    #[arg(long, value_name = "N")]
    pub order_seed: Option<u64>,
    /// Seconds a guest may go without progress
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub watchdog: u64,
}

/// What the lab is made of.
#[derive(Debug, Args)]
pub struct LabOptions {
    /// Kernel: a version, a bzImage or vmlinux, or a kernel's .deb [default: Debian's current one]
    #[arg(long, value_name = "VERSION|FILE", help_heading = "Lab")]
    pub kernel: Option<String>,
    /// Folder of the modules of a kernel given as an image
    #[arg(long, value_name = "DIR", help_heading = "Lab", requires = "kernel")]
    pub modules: Option<PathBuf>,
    /// Appended to the kernel's command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        help_heading = "Lab",
        allow_hyphen_values = true
    )]
    pub cmdline: String,
    #[command(flatten)]
    pub emulator: Emulator,
}

/// What the lab's kernels run on.
#[derive(Debug, Clone, Args)]
pub struct Emulator {
    /// QEMU to use [default: the newest of PATH and the one that `exitpath lab qemu --fetch` got]
    #[arg(long, value_name = "PATH", help_heading = "Lab")]
    pub qemu: Option<PathBuf>,
    /// QEMU's CPU model; it needs svm and npt [default: EPYC-Milan]
    #[arg(long, value_name = "MODEL", help_heading = "Lab")]
    pub cpu: Option<String>,
    /// SVM as QEMU emulates it: without next RIP, decode assists and flush by ASID, which exitpath supplies otherwise
    #[arg(long, help_heading = "Lab")]
    pub bare_svm: bool,
    /// Seeds, one boot each [default: 1,2,3]
    #[arg(
        long = "seed",
        value_name = "N",
        value_delimiter = ',',
        help_heading = "Lab"
    )]
    pub seeds: Vec<u64>,
    /// Most seconds a boot may take [default: 600]
    #[arg(long, value_name = "S", help_heading = "Lab", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
    /// Boot, even where a lab has booted before and is at hand as it was then (`exitpath lab cache`)
    #[arg(long, help_heading = "Lab")]
    pub fresh: bool,
}

impl Emulator {
    /// The seeds given, or else these.
    pub fn seeds(&self, default: &[u64]) -> Vec<u64> {
        if self.seeds.is_empty() {
            default.to_vec()
        } else {
            self.seeds.clone()
        }
    }
}
