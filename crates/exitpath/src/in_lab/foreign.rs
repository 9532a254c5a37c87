//! Real VMMs in the lab: the hidden command that starts them there, and the boot around it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use exitpath_exits::Row;
use exitpath_host::{Root, noise_difference, noise_snapshot_on};
use exitpath_lab::boot::Lab;
use exitpath_lab::initramfs::Initramfs;
use exitpath_lab::windows::{Collector, Expected};
use exitpath_lab::wire::Hello;
use exitpath_recording::Run;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::boots::{self, Ended};
use super::image_text;
use super::worker::{self, PLAN_FILE, RESULT_FILE, Vdso};
use crate::failure::Failure;
use crate::output;

/// Most bytes that are read of what a VMM prints.
const MOST_TEXT: usize = 4 << 20;
/// Bytes read at once.
const PIECE: usize = 4096;
/// The counter that says how many samples may be interrupted ones.
const INTERRUPTS: &str = "host.cpu_interrupts";
/// What a reader should know of a run whose exits nobody counted.
const NOT_COUNTED: &str = "KVM's statistics of another VMM's guest cannot be read in phase with its \
                           rows; `exitpath trace --vmm` counts exits";
/// The hidden command's name.
pub(crate) const NAME: &str = "vmm-in-lab";

/// What the examination of the lab's machine found.
pub(crate) type Facts = BTreeMap<String, serde_json::Value>;

/// A VMM to be started in the lab, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// What it is for, shown while it runs.
    pub(crate) title: String,
    /// Program and arguments, as they are in the lab.
    pub(crate) argv: Vec<String>,
    /// Seconds of the lab's time it may take.
    pub(crate) seconds: u64,
}

/// What one boot does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VmmPlan {
    /// One after the other.
    pub(crate) starts: Vec<Start>,
    /// Whether the kernel's symbols are wanted.
    pub(crate) names: bool,
}

/// What came of one start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Printed {
    /// Its standard output: the guest's serial port.
    pub(crate) text: String,
    /// Its standard error.
    pub(crate) errors: String,
    /// How it ended, where that was not by itself.
    pub(crate) ended: Option<String>,
    /// `/proc/PID/maps` while it ran.
    pub(crate) maps: String,
    /// Interrupts of the lab's machine meanwhile, its timer's included.
    pub(crate) interrupts: Option<i64>,
}

/// What one boot brings out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VmmReport {
    pub(crate) printed: Vec<Printed>,
    pub(crate) facts: Facts,
    pub(crate) kallsyms: Option<String>,
    pub(crate) vdso: Option<Vdso>,
}

/// What a boot brought out.
pub(crate) struct VmmBooted {
    pub(crate) hello: Hello,
    pub(crate) report: VmmReport,
    pub(crate) collector: Option<Collector>,
    pub(crate) broken: Option<String>,
}

/// Boots a lab in which these VMMs are started, with `files` to run them.
pub(crate) fn boot(
    lab: Lab,
    mut files: Initramfs,
    plan: &VmmPlan,
    expected: Option<Vec<Expected>>,
    bar: &ProgressBar,
) -> Result<VmmBooted, Failure> {
    let json = serde_json::to_vec(plan).expect("plain data always serialises");
    files.file(PLAN_FILE, 0o644, json)?;
    let Ended {
        outcome,
        collector,
        broken,
    } = boots::run_command(lab, files, NAME, expected, bar)?;
    let report = serde_json::from_reader(BufReader::new(GzDecoder::new(&*outcome.output)));
    let report = report.map_err(|error| {
        Failure::Cannot(format!(
            "the lab's result cannot be read ({error}): report this as a bug"
        ))
    })?;
    Ok(VmmBooted {
        hello: outcome.hello,
        report,
        collector,
        broken,
    })
}

/// The hidden command.
pub(crate) fn run() -> Result<(), Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::Usage(format!(
            "{NAME} is for the lab's own use ({PLAN_FILE}: {error})"
        ))
    };
    let plan = std::fs::read(PLAN_FILE).map_err(|error| broken(&error))?;
    let plan: VmmPlan = serde_json::from_slice(&plan).map_err(|error| broken(&error))?;
    let mut printed = Vec::new();
    for start in &plan.starts {
        output::print(&start.title)?;
        printed.push(one(start)?);
    }
    let facts = exitpath_host::examine(&Root::default(), None).facts;
    let kallsyms = plan.names.then(worker::kallsyms).transpose()?;
    let report = VmmReport {
        printed,
        facts,
        kallsyms,
        vdso: plan.names.then(worker::vdso).flatten(),
    };
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::Cannot(format!("cannot write {RESULT_FILE}: {error}"))
    };
    let file = File::create(RESULT_FILE).map_err(|error| cannot(&error))?;
    let mut packed = GzEncoder::new(file, Compression::fast());
    serde_json::to_writer(BufWriter::new(&mut packed), &report).map_err(|error| cannot(&error))?;
    packed.finish().map_err(|error| cannot(&error))?;
    Ok(())
}

/// Starts a VMM and waits for its end, or ends it.
fn one(start: &Start) -> Result<Printed, Failure> {
    let before = noise_snapshot_on(&Root::default(), 0);
    let until = Instant::now() + Duration::from_secs(start.seconds);
    let mut child = Command::new(&start.argv[0])
        .args(&start.argv[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::Cannot(format!("cannot start {}: {error}", start.argv[0])))?;
    let (out, err) = (pieces(child.stdout.take()), pieces(child.stderr.take()));
    let (mut text, mut maps) = (Vec::new(), String::new());
    let mut ended = None;
    loop {
        match out.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(bytes) => text.extend(bytes),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                ended = Some(format!("it ran for more than {} s", start.seconds));
                break;
            }
        }
        // At its first word all its libraries are there; at its last one they may be gone.
        if maps.is_empty() {
            let of_child = format!("/proc/{}/maps", child.id());
            maps = std::fs::read_to_string(of_child).unwrap_or_default();
        }
        if text.len() > MOST_TEXT {
            ended = Some(format!("it printed more than {MOST_TEXT} bytes"));
            break;
        }
    }
    // One that has closed its output may still run.
    while ended.is_none() && matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > until {
            ended = Some(format!("it ran for more than {} s", start.seconds));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let status = child.wait();
    // Where the guest said all, the VMM's own status means nothing: isa-debug-exit sets it.
    if let (None, Ok(status)) = (&ended, status)
        && let Some(signal) = status.signal()
    {
        ended = Some(format!("signal {signal} ended it"));
    }
    let mut errors = Vec::new();
    // A process that it started may have its standard error, and be alive.
    while let Ok(bytes) = err.recv_timeout(Duration::from_millis(100)) {
        errors.extend(bytes);
    }
    let after = noise_snapshot_on(&Root::default(), 0);
    Ok(Printed {
        text: String::from_utf8_lossy(&text).into_owned(),
        errors: String::from_utf8_lossy(&errors).into_owned(),
        ended,
        maps,
        interrupts: noise_difference(&before, &after).remove(INTERRUPTS),
    })
}

/// What a pipe brings, as it comes; at most [`MOST_TEXT`] bytes of it wait.
fn pieces(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::sync_channel(MOST_TEXT / PIECE);
    thread::spawn(move || {
        let mut buffer = [0; PIECE];
        let Some(mut pipe) = pipe else { return };
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if send.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receive
}

impl Printed {
    /// What the image said, as the runs of these rows.
    ///
    /// # Errors
    /// What it did not say, and how the VMM ended, in words.
    pub(crate) fn runs(&self, rows: &[&'static Row]) -> Result<Vec<Run>, String> {
        let mut runs = image_text::runs(&self.text, rows)
            .map_err(|what| format!("{what}{}", self.how_it_ended()))?;
        for run in &mut runs {
            run.notes.push(NOT_COUNTED.to_owned());
            // Of the VMM's whole life, so no fewer than hit this row.
            let interrupts = self
                .interrupts
                .map(|number| (INTERRUPTS.to_owned(), number));
            run.counters.extend(interrupts);
        }
        Ok(runs)
    }

    /// How the VMM ended where that was not by itself, and the last it complained of; a message's
    /// end.
    pub(crate) fn how_it_ended(&self) -> String {
        let mut text = String::new();
        if let Some(ended) = &self.ended {
            let _ = write!(text, "; {ended}");
        }
        let complaint = self
            .errors
            .lines()
            .map(str::trim)
            .rfind(|line| !line.is_empty());
        if let Some(complaint) = complaint {
            let _ = write!(text, "; the VMM says: {complaint}");
        }
        text
    }
}
