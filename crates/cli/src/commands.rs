//! Commands and their flags, as clap reads them. What a flag does is in the module of its command in the
//! crate `exitpath`; when it has an effect, in [`crate::effects`].

// A comment would become part of the help, which says what each is.
#![allow(missing_docs, reason = "the help is the documentation")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::ablate::Ablate;
use crate::live::Attach;
use crate::options::{Emulator, LabOptions, Measuring, Sampling};
use crate::status;

/// Measures how long a KVM exit takes and explains where every cycle of it goes.
#[derive(Debug, Parser)]
#[command(name = "exitpath", version, after_help = status::ALL)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The table of exits: how long each takes and who handles it
    #[command(after_help = status::MEASURES)]
    Measure(Measure),
    /// The VMM's half of an exit, layer by layer
    #[command(after_help = status::MEASURES, mut_arg("samples", fewer_samples))]
    Userspace(Userspace),
    /// The guest programs as an image that any VMM can boot, for the same table there
    #[command(after_help = status::IMAGE)]
    Image(Image),
    /// Notifications: what a kick costs, when its consumer runs, many ioeventfds, disks, completions
    #[command(after_help = status::MEASURES, mut_arg("samples", fewer_samples))]
    Kick(Kick),
    /// The exact path of one exit, every instruction of it, from a kernel in the lab
    #[command(after_help = status::MEASURES, mut_arg("seeds", |arg| arg.help("Seeds, one boot each [default: 1]")))]
    Trace(Trace),
    /// What optional work on an exit's way costs: it is switched off, in all combinations, and measured again
    #[command(after_help = status::MEASURES, mut_arg("seeds", |arg| arg.help("Seeds, one boot each [default: 1]")))]
    Ablate(Ablate),
    /// The unit costs of what an exit's way is made of, and how often it is used
    #[command(after_help = status::MEASURES, mut_arg("samples", primitives_samples))]
    Primitives(Primitives),
    /// Exits of virtual machines that are running, under any VMM: how many, why, and where their time goes
    #[command(after_help = status::ATTACH)]
    Attach(Attach),
    /// What two traces differ in, to the function: of two recordings, kernels or command lines
    #[command(after_help = status::DIFF)]
    Diff(Diff),
    /// Whether a kernel's exits take more instructions than another's: for git bisect and CI
    #[command(after_help = status::GATE, mut_arg("seeds", of_the_base("1,2,3")), mut_arg("cpu", of_the_base("EPYC-Milan")))]
    Gate(Gate),
    /// What this machine can be trusted for, and what to do about it
    #[command(after_help = status::DOCTOR)]
    Doctor(Doctor),
    /// Show the table of a recording
    #[command(after_help = status::SHOW)]
    Show(Show),
    /// Kernels for the lab, a shell in it, any command in it
    #[command(subcommand)]
    Lab(LabCommand),
}

/// Rungs and kicks differ less from sample to sample than it takes to record them.
fn fewer_samples(arg: clap::Arg) -> clap::Arg {
    arg.help("Bracketed samples in each run [default: 1000 on a host, 100 in the lab]")
}

/// They take the same each time.
fn primitives_samples(arg: clap::Arg) -> clap::Arg {
    arg.help("Bracketed samples in each run [default: 1000 on a host, 50 in the lab]")
}

/// Adds to an option's help that a base that is a recording says it.
fn of_the_base(default: &'static str) -> impl FnOnce(clap::Arg) -> clap::Arg {
    move |arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help
            .split(" [default")
            .next()
            .unwrap_or_default()
            .to_owned();
        arg.help(format!(
            "{help} [default: {default}, or what a recorded base has]"
        ))
    }
}

#[derive(Debug, Args)]
pub struct Measure {
    /// Rows to measure [default: all]; `exitpath measure --list` names them
    pub rows: Vec<String>,
    /// List the rows and exit
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub measuring: Measuring,
    /// Measure under a real VMM: `qemu` is this machine's; else a QEMU's path, or a command in which
    /// {image} stands for the image's path
    #[arg(long, value_name = "VMM")]
    pub vmm: Option<String>,
    /// Compare with kvm-unit-tests' vmexit under the same QEMU in the lab: the folder of a checkout in
    /// which x86/vmexit.flat was built
    #[arg(long, value_name = "DIR")]
    pub kvm_unit_tests: Option<PathBuf>,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub lab: LabOptions,
}

#[derive(Debug, Args)]
pub struct Userspace {
    /// Rungs to measure, with those they are compared with [default: all]; `--list` names them
    pub rungs: Vec<String>,
    /// List the rungs and exit
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub measuring: Measuring,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub lab: LabOptions,
}

/// A table of `exitpath kick`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KickTable {
    /// What a kick costs the guest, and how long its consumer takes to run
    Kicks,
    /// What a kick costs with more and more ioeventfds
    Scaling,
    /// Requests per second of several disks
    Disks,
    /// How long it takes to tell the guest
    Completions,
}

#[derive(Debug, Args)]
pub struct Kick {
    /// Tables to make [default: all]
    #[arg(value_enum, value_name = "TABLE")]
    pub tables: Vec<KickTable>,
    /// List the rows of all tables, which `exitpath trace` can trace, and exit
    #[arg(long)]
    pub list: bool,
    /// Most ioeventfds to register, in steps of 1, 2, 4 …
    #[arg(long, value_name = "N", default_value_t = exitpath_exits::kicks::MOST_EVENTFDS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(exitpath_exits::kicks::MOST_EVENTFDS)))]
    pub eventfds: u32,
    /// Most disks, in steps of 1, 2, 4, 8
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub disks: u32,
    /// Measure what is there to go wrong: lost, behind or stalled
    #[arg(long, hide = true, value_parser = ["lost", "behind", "stalled"])]
    pub check: Option<String>,
    #[command(flatten)]
    pub measuring: Measuring,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub lab: LabOptions,
}

#[derive(Debug, Args)]
pub struct Image {
    /// Rows it holds [default: all that need nothing of the VMM but to be there]
    pub rows: Vec<String>,
    /// File to write: an ELF that boots by PVH, by multiboot, or as a 64-bit Linux
    #[arg(short, long, value_name = "FILE", required = true)]
    pub output: PathBuf,
    /// Bracketed samples it takes of each row [default: 1000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub samples: Option<u32>,
    /// Without a multiboot header, which QEMU prefers: so it has to use PVH
    #[arg(long, hide = true)]
    pub no_multiboot: bool,
}

#[derive(Debug, Args)]
pub struct Primitives {
    /// Primitives to measure [default: all]; `--list` names them
    pub primitives: Vec<String>,
    /// List the primitives and exit
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub measuring: Measuring,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub lab: LabOptions,
}

#[derive(Debug, Args)]
pub struct Trace {
    /// Rows to trace; `exitpath measure --list` names them
    #[arg(required_unless_present_any = ["recording", "list_phases"])]
    pub rows: Vec<String>,
    /// Show an earlier recording instead of tracing; DIR@CONDITION: of several conditions this one
    #[arg(long, value_name = "DIR")]
    pub recording: Option<PathBuf>,
    /// Rounds to record
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub rounds: u32,
    /// Folder for the recording [default: a new one in $XDG_DATA_HOME/exitpath]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Let these kernel functions return at once (NAME=0: with 0), and hold the change against the
    /// trace with them
    #[arg(long, value_name = "FUNCTION", value_delimiter = ',',
        conflicts_with_all = ["tree", "annotate", "folded", "flamegraph", "perfetto", "vmm"])]
    pub without: Vec<String>,
    /// Trace under a real VMM in the lab, with exitpath's own beside it: `qemu` is this machine's; else
    /// a QEMU's path, or a command in which {image} stands for the image's path
    #[arg(long, value_name = "VMM", conflicts_with = "without")]
    pub vmm: Option<String>,
    /// Seconds a guest may go without progress
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub watchdog: u64,
    /// What the plugin does: nothing but its recording may differ
    #[arg(long, value_enum, default_value = "records", hide = true)]
    pub plugin: PluginUse,
    #[command(flatten)]
    pub view: TraceView,
    #[command(flatten)]
    pub lab: LabOptions,
}

/// How a traced path is shown.
#[derive(Debug, Args)]
pub struct TraceView {
    /// Print JSON: an object for a row, an array of them for several
    #[arg(long, help_heading = "Views", conflicts_with_all = ["tree", "annotate", "folded"])]
    pub json: bool,
    /// The round as a tree of calls
    #[arg(long, help_heading = "Views")]
    pub tree: bool,
    /// Leave out of the tree what is below this many instructions
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Views")]
    pub min: u64,
    /// A function's instructions, with how often each ran and source lines where known
    #[arg(long, value_name = "FUNCTION", help_heading = "Views")]
    pub annotate: Option<String>,
    /// Folded stacks, for tools that draw them
    #[arg(long, help_heading = "Views")]
    pub folded: bool,
    /// Write a flame graph
    #[arg(long, value_name = "FILE.svg", help_heading = "Views")]
    pub flamegraph: Option<PathBuf>,
    /// Write a timeline for ui.perfetto.dev, one instruction to the microsecond
    #[arg(long, value_name = "FILE.json", help_heading = "Views")]
    pub perfetto: Option<PathBuf>,
    /// Show all functions
    #[arg(long, help_heading = "Views")]
    pub all: bool,
    /// Functions to phases, before the built-in table: `phase: function pattern*`, one a line
    #[arg(long, value_name = "FILE", help_heading = "Views")]
    pub phases: Option<PathBuf>,
    /// Print the built-in table of phases and exit
    #[arg(long, help_heading = "Views")]
    pub list_phases: bool,
    /// Kernel with debug information, for source lines [default: what `exitpath lab kernels --debug` fetched]
    #[arg(long, value_name = "FILE", help_heading = "Views")]
    pub vmlinux: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Diff {
    /// Two recordings of `exitpath trace` (or DIR@CONDITION of one); or, with two --kernel or --cmdline, rows to trace
    #[arg(value_name = "RECORDING|ROW", required = true)]
    pub names: Vec<String>,
    /// Kernel to trace, given twice: a version, a bzImage or vmlinux, or a kernel's .deb; given
    /// once: for both command lines
    #[arg(long, value_name = "VERSION|FILE", help_heading = "Lab")]
    pub kernel: Vec<String>,
    /// Folder of the modules of a kernel given as an image; it goes to the kernel of its release
    #[arg(long, value_name = "DIR", help_heading = "Lab", requires = "kernel")]
    pub modules: Vec<PathBuf>,
    /// Appended to the kernel's command line, given twice: one each; given once: for both kernels
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "Lab",
        allow_hyphen_values = true
    )]
    pub cmdline: Vec<String>,
    #[command(flatten)]
    pub trace: TraceOptions,
    /// Print one JSON object
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print Markdown, for a pull request
    #[arg(long)]
    pub markdown: bool,
    /// Show all functions
    #[arg(long)]
    pub all: bool,
    /// Fail (status 1) if a row grew by more than so many instructions, or by more than so many of a class
    /// of costly ones
    #[arg(long, value_name = "N")]
    pub gate: Option<u64>,
    /// Functions to phases, before the built-in table
    #[arg(long, value_name = "FILE")]
    pub phases: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Gate {
    /// Rows to judge by [default: those of the base, or cpuid and inl_from_qemu]
    pub rows: Vec<String>,
    /// The kernel to judge: a version, a bzImage or vmlinux, or a kernel's .deb
    #[arg(long, value_name = "VERSION|FILE", required = true)]
    pub kernel: String,
    /// Folder of its modules, where it is given as an image
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
    /// What it is held against: a recording of `exitpath trace`, or another kernel
    #[arg(long, value_name = "RECORDING|KERNEL", required = true)]
    pub base: String,
    /// Folder of the base's modules, where it is given as an image
    #[arg(long, value_name = "DIR")]
    pub base_modules: Option<PathBuf>,
    /// Instructions by which a row may grow
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_growth: u64,
    /// Instructions by which any class of costly ones may grow in a row (a NOP that became VERW is no
    /// instruction more) [default: that of --max-growth]
    #[arg(long, value_name = "N")]
    pub max_class_growth: Option<u64>,
    /// Appended to the kernel's command line [default: what a recorded base has]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    #[command(flatten)]
    pub trace: TraceOptions,
    /// Folder for the recording of the kernel judged [default: none is kept]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// What two traces to be compared have in common.
#[derive(Debug, Args)]
pub struct TraceOptions {
    /// Rounds to record of each row [default: 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536), help_heading = "Lab")]
    pub rounds: Option<u32>,
    #[command(flatten)]
    pub emulator: Emulator,
}

/// What the plugin does, for the proof that it does not disturb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PluginUse {
    /// There is none
    Absent,
    /// It is loaded and never armed
    Idles,
    /// It records
    Records,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Show findings that are as they should be, too
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct Show {
    /// The recording's folder; DIR@CONDITION: of several conditions this one
    pub recording: PathBuf,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// List the kernels there are, or fetch one into the cache
    #[command(after_help = status::FETCH)]
    Kernels {
        /// Fetch this one: a version or the start of one, such as 6.12
        version: Option<String>,
        /// Fetch its debug symbols as well, for source lines and inlined functions: 0.9 GB to
        /// download, 0.7 GB to keep [default version: the one the lab boots]
        #[arg(long)]
        debug: bool,
    },
    /// Say which QEMU the lab uses, and what a newer one would change; fetch one
    #[command(after_help = status::FETCH)]
    Qemu {
        /// Fetch a QEMU that boots two CPUs (10 or later) into the cache, unless there is one: all labs
        /// use it from then on. Nothing is installed, and nothing needs root
        #[arg(long)]
        fetch: bool,
    },
    /// List the labs that have booted and are kept, so that the next of their kind does not boot
    #[command(after_help = status::CACHE)]
    Cache {
        /// Remove all of them
        #[arg(long)]
        clear: bool,
    },
    /// A shell in the lab, with this machine's files under a tmpfs
    #[command(after_help = status::RUN, mut_arg("seeds", one_seed), mut_arg("timeout", no_limit))]
    Shell {
        #[command(flatten)]
        lab: LabRun,
    },
    /// A command in the lab, with this machine's files under a tmpfs; its exit status is passed on
    #[command(after_help = status::RUN, mut_arg("seeds", one_seed), mut_arg("timeout", no_limit))]
    Run {
        #[command(flatten)]
        lab: LabRun,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn one_seed(arg: clap::Arg) -> clap::Arg {
    arg.help("Seed of the lab [default: 1]")
}

fn no_limit(arg: clap::Arg) -> clap::Arg {
    arg.help("Most seconds the lab may take [default: no limit]")
}

#[derive(Debug, Args)]
pub struct LabRun {
    #[command(flatten)]
    pub lab: LabOptions,
    /// CPUs of the lab; two need QEMU 10
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub cpus: u32,
    /// Memory of the lab in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..))]
    pub memory: u32,
}
