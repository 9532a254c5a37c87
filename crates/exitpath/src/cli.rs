//! The command line: names and flags. What they do is in the module of each command's name.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures how long a KVM exit takes and explains where every cycle of it goes.
#[derive(Debug, Parser)]
#[command(name = "exitpath", version, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done, 1 reserved for failed checks, 2 usage or unreadable input, \
                           3 this machine cannot do it, 130 interrupted.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The table of exits: how long each takes and who handles it
    #[command(after_help = EXIT_STATUS)]
    Measure(Measure),
    /// What this machine can be trusted for, and what to do about it
    Doctor(Doctor),
    /// Show the table of a recording
    Show(Show),
    /// Kernels for the lab, a shell in it, any command in it
    #[command(subcommand)]
    Lab(LabCommand),
    /// Runs a plan inside the lab
    #[command(name = crate::measure::worker::NAME, hide = true)]
    Worker,
}

/// Where to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum On {
    /// This machine's KVM, in time
    Host,
    /// A kernel under QEMU with counted time, in instructions
    Lab,
}

#[derive(Debug, Args)]
pub(crate) struct Measure {
    /// Rows to measure [default: all]; `exitpath measure --list` names them
    pub(crate) rows: Vec<String>,
    /// List the rows and exit
    #[arg(long)]
    pub(crate) list: bool,
    /// Where to measure [default: host where guests really run on the CPU, else lab]
    #[arg(long, value_enum)]
    pub(crate) on: Option<On>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// Folder for the recording [default: a new one in $XDG_DATA_HOME/exitpath]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Fresh VMs for each row, on a host
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) runs: u32,
    /// Bracketed samples in each run [default: 1000 on a host, 250 in the lab]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) samples: Option<u32>,
    /// Seed of the random order of runs [default: random on a host, 1 in the lab]
    #[arg(long, value_name = "N")]
    pub(crate) order_seed: Option<u64>,
    /// Seconds a guest may go without progress
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) watchdog: u64,
    #[command(flatten)]
    pub(crate) lab: LabOptions,
}

/// What the lab is made of.
#[derive(Debug, Args)]
pub(crate) struct LabOptions {
    /// Kernel: a version, a bzImage or vmlinux, or a kernel's .deb [default: Debian's current one]
    #[arg(long, value_name = "VERSION|FILE", help_heading = "Lab")]
    pub(crate) kernel: Option<String>,
    /// Folder of the modules of a kernel given as an image
    #[arg(long, value_name = "DIR", help_heading = "Lab", requires = "kernel")]
    pub(crate) modules: Option<PathBuf>,
    /// Appended to the kernel's command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        help_heading = "Lab",
        allow_hyphen_values = true
    )]
    pub(crate) cmdline: String,
    /// QEMU to use [default: the newest of PATH and `make qemu10`'s]
    #[arg(long, value_name = "PATH", help_heading = "Lab")]
    pub(crate) qemu: Option<PathBuf>,
    /// QEMU's CPU model; it needs svm and npt
    #[arg(long, value_name = "MODEL", default_value = exitpath_lab::boot::DEFAULT_CPU, help_heading = "Lab")]
    pub(crate) cpu: String,
    /// Seeds, one boot each
    #[arg(long = "seed", value_name = "N", value_delimiter = ',', default_values_t = [1, 2, 3], help_heading = "Lab")]
    pub(crate) seeds: Vec<u64>,
    /// Most seconds a boot may take
    #[arg(long, value_name = "S", help_heading = "Lab", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Show findings that are as they should be, too
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The recording's folder
    pub(crate) recording: PathBuf,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// List the kernels there are, or fetch one into the cache
    Kernels {
        /// Fetch this one: a version or the start of one, such as 6.12
        version: Option<String>,
    },
    /// Say which QEMU the lab uses; fetch one that boots two CPUs if there is none
    Qemu,
    /// A shell in the lab, with this machine's files under a tmpfs
    Shell {
        #[command(flatten)]
        lab: LabRun,
    },
    /// A command in the lab, with this machine's files under a tmpfs; its exit status is passed on
    Run {
        #[command(flatten)]
        lab: LabRun,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LabRun {
    #[command(flatten)]
    pub(crate) lab: LabOptions,
    /// CPUs of the lab; two need QEMU 10
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) cpus: u32,
    /// Memory of the lab in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..))]
    pub(crate) memory: u32,
}
