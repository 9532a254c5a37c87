//! A traced path as a timeline: trace events in the JSON form that Perfetto and Chrome read.
//!
//! Time there is microseconds; here a microsecond stands for an instruction, and the names of the
//! tracks say so. Each CPU of the lab is a process, with a track each for what ran in the guest, the
//! kernel and user space, and one for the phases. A function that calls into another space lasts until
//! that returns, as a function does that calls another.

use std::collections::{BTreeMap, BTreeSet};

use exitpath_analysis::path::RowPath;
use exitpath_recording::{Manifest, Space};
use serde_json::{Value, json};

use crate::calls;
use crate::format::space;

/// The timeline of a path, one event in a line.
pub fn trace(manifest: &Manifest, path: &RowPath) -> String {
    let slices = slices(path);
    let events: Vec<String> = names(&slices)
        .iter()
        .map(Value::to_string)
        .chain(slices.iter().map(|slice| event(path, slice).to_string()))
        .collect();
    let environment = &manifest.environment;
    let about = json!({
        "row": path.row,
        "unit": "instructions",
        "total": path.value().all,
        "baseline": path.baseline.all,
        "delay": path.delay,
        "total_without_skip_emulation": path.value().lean,
        "kernel": environment.kernel,
        "cmdline": environment.cmdline,
        "cpu": environment.cpu,
        "cpus": path.cpus,
        "qemu": environment.qemu,
        "seed": path.seed,
    });
    format!(
        "{{\"traceEvents\": [\n{}\n],\n\"otherData\": {about}}}\n",
        events.join(",\n")
    )
}

/// A row of the picture. In this order from the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Track {
    Phase,
    Guest,
    Kernel,
    User,
}

impl From<Space> for Track {
    fn from(space: Space) -> Self {
        match space {
            Space::Guest => Track::Guest,
            Space::Kernel => Track::Kernel,
            Space::User => Track::User,
        }
    }
}

impl Track {
    fn name(self) -> &'static str {
        match self {
            Track::Phase => "phase",
            Track::Guest => space(Space::Guest),
            Track::Kernel => space(Space::Kernel),
            Track::User => space(Space::User),
        }
    }
}

/// A stretch of the timeline.
struct Slice {
    cpu: u32,
    track: Track,
    node: usize,
    /// Position of its first instruction in the round, and behind its last one.
    begin: u64,
    end: u64,
    /// Its instructions that are in no slice nested into it.
    own: u64,
    /// Of these, skip-emulation.
    skipped: u64,
}

/// What is going on on a CPU.
#[derive(Default)]
struct Cpu {
    /// Nodes that were entered and not left, outermost first, with their slices.
    open: Vec<(usize, usize)>,
    /// The phase's slice.
    phase: Option<usize>,
}

/// In the order of their beginnings, an outer slice before those nested into it.
fn slices(path: &RowPath) -> Vec<Slice> {
    let mut slices: Vec<Slice> = Vec::new();
    // CPUs are not nested into each other: each has its own stack.
    let mut cpus: BTreeMap<u32, Cpu> = BTreeMap::new();
    let mut now = 0_u64;
    for step in path.steps.iter().filter(|step| step.instructions > 0) {
        let begin = now;
        now = now.saturating_add(step.instructions);
        let Some(node) = path.tree.get(step.node) else {
            continue;
        };
        let new = |track, node| Slice {
            cpu: path.tree[step.node].cpu,
            track,
            node,
            begin,
            end: now,
            own: 0,
            skipped: 0,
        };
        let cpu = cpus.entry(node.cpu).or_default();

        let stack: Vec<usize> = calls::stack(&path.tree, step.node)
            .into_iter()
            .filter(|&outer| path.tree[outer].cpu == node.cpu)
            .collect();
        let kept = cpu.open.iter().zip(&stack);
        let kept = kept.take_while(|((open, _), node)| open == *node).count();
        cpu.open.truncate(kept);
        for &entered in stack.iter().skip(kept) {
            cpu.open.push((entered, slices.len()));
            slices.push(new(path.tree[entered].space.into(), entered));
        }

        let goes_on = |slice: &usize| {
            let last = &slices[*slice];
            last.end == begin && path.tree[last.node].phase == node.phase
        };
        let phase = cpu.phase.filter(goes_on).unwrap_or_else(|| {
            slices.push(new(Track::Phase, step.node));
            slices.len() - 1
        });
        cpu.phase = Some(phase);

        for &(_, slice) in &cpu.open {
            slices[slice].end = now;
        }
        slices[phase].end = now;
        let innermost = cpu.open.last().map(|&(_, slice)| slice);
        for slice in innermost.into_iter().chain([phase]) {
            slices[slice].own += step.instructions;
            slices[slice].skipped += if step.skipped { step.instructions } else { 0 };
        }
    }
    slices
}

/// Ids above 0, which is the idle task's; a thread's are not those of another process's.
fn pid(cpu: u32) -> u64 {
    u64::from(cpu) + 1
}

fn tid(cpu: u32, track: Track) -> u64 {
    pid(cpu) * 10 + track as u64
}

/// The tracks' names, and their order.
fn names(slices: &[Slice]) -> Vec<Value> {
    let tracks: BTreeSet<(u32, Track)> = slices.iter().map(|s| (s.cpu, s.track)).collect();
    let cpus: BTreeSet<u32> = tracks.iter().map(|&(cpu, _)| cpu).collect();
    let mut events = Vec::new();
    for cpu in cpus {
        let name = format!("CPU {cpu}: instructions (1 µs = 1 instruction)");
        events.push(json!({
            "ph": "M", "pid": pid(cpu), "name": "process_name", "args": {"name": name},
        }));
        events.push(json!({
            "ph": "M", "pid": pid(cpu), "name": "process_sort_index", "args": {"sort_index": cpu},
        }));
    }
    for (cpu, track) in tracks {
        let (pid, tid, name) = (pid(cpu), tid(cpu, track), track.name());
        events.push(json!({
            "ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name},
        }));
        events.push(json!({
            "ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index",
            "args": {"sort_index": track as u32},
        }));
    }
    events
}

fn event(path: &RowPath, slice: &Slice) -> Value {
    let node = &path.tree[slice.node];
    let mut args = json!({
        "own": slice.own,
        "skip_emulation": slice.skipped,
    });
    let name = if slice.track == Track::Phase {
        &node.phase
    } else {
        args["module"] = node.module.as_str().into();
        args["phase"] = node.phase.as_str().into();
        &node.name
    };
    json!({
        "ph": "X",
        "name": name,
        "cat": slice.track.name(),
        "pid": pid(slice.cpu),
        "tid": tid(slice.cpu, slice.track),
        "ts": slice.begin,
        "dur": slice.end - slice.begin,
        "args": args,
    })
}
