//! From the stream of instructions to windows, segments and paths, as a recording has them.

use std::collections::HashMap;

use exitpath_lab_plugin::stream::Unread;
use exitpath_recording::{Block, Exit, Instruction, Part, Path, Segment, Trace, Window};

use crate::arch::x86_64 as arch;
use crate::stream::decoder::{Decoder, Record};

/// What a window may be. Which one it is shows where the guest first reads its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The run it is of.
    pub run: u32,
    /// Addresses of the guest's clock reads: begin and end of the bracket without the operation,
    /// begin and end of the one with it.
    pub clocks: [u64; 4],
    /// Samples in it.
    pub samples: u32,
}

/// Collects the windows of one boot.
#[derive(Debug)]
pub struct Collector {
    decoder: Decoder,
    windows: Builder,
}

#[derive(Debug)]
struct Builder {
    expected: Vec<Expected>,
    /// The window in progress, once it is known which it is.
    current: Option<Expected>,
    trace: Trace,
    /// Why the reasons of exits are not known, where that is so.
    unread: Option<Unread>,
    /// Ids of instructions that enter the guest.
    entries: Vec<u32>,
    /// Whether each CPU is in a guest; `None` before its first instruction.
    in_guest: Vec<Option<bool>>,
    /// The segment in progress.
    blocks: Vec<Block>,
    /// The clock read that comes next.
    clock: usize,
    known: HashMap<Path, u32>,
}

impl Collector {
    /// A collector for a boot that will have some of these windows.
    pub fn new(expected: Vec<Expected>) -> Collector {
        Collector {
            decoder: Decoder::default(),
            windows: Builder {
                expected,
                current: None,
                trace: Trace::default(),
                unread: None,
                entries: Vec::new(),
                in_guest: Vec::new(),
                blocks: Vec::new(),
                clock: 0,
                known: HashMap::new(),
            },
        }
    }

    /// Takes bytes of the stream as they come.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        let windows = &mut self.windows;
        self.decoder.push(bytes, |record| windows.record(record))
    }

    /// Why the trace has no reasons of exits, in words; `None` if it has them.
    pub fn unread(&self) -> Option<&'static str> {
        self.windows.unread.map(Unread::why)
    }

    /// The windows, if those of all these runs are there, in this order and whole. Names and
    /// locations are not, and reasons of exits only if every one of them could be read.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn finish(self, runs: &[u32]) -> Result<Trace, String> {
        let (begun, whole) = self.decoder.windows();
        let wanted = runs.len();
        if begun == 0 && wanted > 0 {
            return Err("nothing arrived: the plugin was never armed".to_owned());
        }
        if begun != wanted as u64 || !whole {
            return Err(format!(
                "it ends in window {begun} of {wanted}: the stream was cut short"
            ));
        }
        let windows = &self.windows.trace.windows;
        if !windows.iter().map(|window| &window.run).eq(runs) {
            return Err("its windows are of other runs than those that were done".to_owned());
        }
        let mut trace = self.windows.trace;
        if self.windows.unread.is_some() {
            forget_exits(&mut trace);
        }
        Ok(trace)
    }
}

/// A trace knows the reasons of all exits or of none.
fn forget_exits(trace: &mut Trace) {
    for window in &mut trace.windows {
        window.exits = None;
    }
}

impl Builder {
    fn record(&mut self, record: Record<'_>) -> Result<(), String> {
        match record {
            Record::Define { address, bytes } => {
                if arch::enters_guest(bytes) {
                    self.entries.push(self.trace.instructions.len() as u32);
                }
                self.trace.instructions.push(Instruction {
                    address,
                    bytes: bytes.to_vec(),
                });
            }
            Record::Run { cpu, first, count } => self.run(cpu, first, count)?,
            Record::Start => {
                self.current = None;
                self.in_guest.clear();
                self.clock = 0;
                self.trace.windows.push(Window {
                    exits: Some(Vec::new()),
                    ..Window::default()
                });
            }
            Record::Exit { code, info1, info2 } => {
                if let Some(window) = self.trace.windows.last_mut()
                    && let Some(exits) = &mut window.exits
                {
                    exits.push(Exit {
                        segment: window.segments.len() as u32,
                        code,
                        info1,
                        info2,
                    });
                }
            }
            Record::Unread(why) => self.unread = Some(why),
            Record::Stop => {
                self.end_segment(Part::Between);
                let Some(current) = self.current else {
                    return Err("a window in which no guest read its clock".to_owned());
                };
                let mut segments = 0;
                if let Some(window) = self.trace.windows.last_mut() {
                    window.run = current.run;
                    segments = window.segments.len();
                }
                let wanted = current.samples as usize * 4 + 1;
                if segments != wanted {
                    return Err(format!(
                        "a window of {segments} segments where the guest makes {wanted}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Adds a run to the segment in progress, which ends where the guest reads its clock.
    fn run(&mut self, cpu: u32, first: u32, count: u32) -> Result<(), String> {
        let end = first + count;
        let mut at = first;
        while at < end {
            if self.is_in_guest(cpu, at) {
                let instruction = &self.trace.instructions[at as usize];
                let clock = if arch::reads_clock(&instruction.bytes) {
                    let address = instruction.address;
                    if self.current.is_none() {
                        let begins = |expected: &&Expected| expected.clocks[0] == address;
                        self.current = self.expected.iter().find(begins).copied();
                    }
                    let clocks = self.current.map(|current| current.clocks);
                    clocks.and_then(|clocks| clocks.iter().position(|&clock| clock == address))
                } else {
                    None
                };
                self.add(cpu, at, 1);
                if let Some(clock) = clock {
                    if clock != self.clock {
                        return Err(format!(
                            "the guest made clock read {clock} of its sample where {} was due, in segment {}",
                            self.clock,
                            self.trace
                                .windows
                                .last()
                                .map_or(0, |window| window.segments.len())
                        ));
                    }
                    self.clock = (clock + 1) % 4;
                    self.end_segment(match clock {
                        1 => Part::Empty,
                        3 => Part::Op,
                        _ => Part::Between,
                    });
                }
                at += 1;
            } else {
                // In the host all is the same up to an entry.
                let entry = self
                    .entries
                    .iter()
                    .copied()
                    .find(|id| (at..end).contains(id));
                let until = entry.map_or(end, |entry| entry + 1);
                self.add(cpu, at, until - at);
                if entry.is_some() {
                    self.in_guest[cpu as usize] = Some(true);
                }
                at = until;
            }
        }
        Ok(())
    }

    /// Whether an instruction is the guest's. A CPU gets into its guest by an entry and is out of it
    /// at the first address of the kernel; one that was in its guest when the window began shows
    /// that by where it goes on.
    fn is_in_guest(&mut self, cpu: u32, id: u32) -> bool {
        let address = self.trace.instructions[id as usize].address;
        let cpu = cpu as usize;
        if self.in_guest.len() <= cpu {
            self.in_guest.resize(cpu + 1, None);
        }
        let state = &mut self.in_guest[cpu];
        let is_in_guest = match *state {
            None => arch::may_be_guest(address),
            Some(in_guest) => in_guest && arch::stays_in_guest(address),
        };
        *state = Some(is_in_guest);
        is_in_guest
    }

    fn add(&mut self, cpu: u32, first: u32, count: u32) {
        if let Some(last) = self.blocks.last_mut()
            && last.cpu == cpu
            && last.first + last.count == first
        {
            last.count += count;
        } else {
            self.blocks.push(Block { cpu, first, count });
        }
    }

    fn end_segment(&mut self, part: Part) {
        let path = Path {
            blocks: std::mem::take(&mut self.blocks),
        };
        let next = self.trace.paths.len() as u32;
        let id = *self.known.entry(path).or_insert_with_key(|path| {
            self.trace.paths.push(path.clone());
            next
        });
        if let Some(window) = self.trace.windows.last_mut() {
            window.segments.push(Segment { part, path: id });
        }
    }
}

/// Makes one trace of those of several boots. Ids become those of the instructions in the order of
/// their addresses, so that they do not depend on the order in which QEMU translated code.
pub fn merge(traces: Vec<Trace>) -> Trace {
    let mut instructions: Vec<Instruction> = traces.iter().flat_map(executed).collect();
    instructions.sort_unstable();
    instructions.dedup();
    let mut merged = Trace::default();
    let mut known: HashMap<Path, u32> = HashMap::new();
    for trace in traces {
        let new_ids: Vec<u32> = trace
            .instructions
            .iter()
            .map(|instruction| instructions.partition_point(|known| known < instruction) as u32)
            .collect();
        let new_paths: Vec<u32> = trace
            .paths
            .iter()
            .map(|path| {
                let path = renumbered(path, &new_ids);
                *known.entry(path).or_insert_with_key(|path| {
                    merged.paths.push(path.clone());
                    merged.paths.len() as u32 - 1
                })
            })
            .collect();
        merged
            .windows
            .extend(trace.windows.into_iter().map(|window| {
                Window {
                    run: window.run,
                    segments: window
                        .segments
                        .into_iter()
                        .map(|segment| Segment {
                            part: segment.part,
                            path: new_paths[segment.path as usize],
                        })
                        .collect(),
                    exits: window.exits,
                }
            }));
    }
    merged.instructions = instructions;
    if merged.windows.iter().any(|window| window.exits.is_none()) {
        forget_exits(&mut merged);
    }
    merged
}

/// The instructions on some path: code is also translated where it is not reached in a window.
fn executed(trace: &Trace) -> Vec<Instruction> {
    let mut used = vec![false; trace.instructions.len()];
    for block in trace.paths.iter().flat_map(|path| &path.blocks) {
        used[block.first as usize..][..block.count as usize].fill(true);
    }
    let with_use = trace.instructions.iter().zip(used);
    with_use
        .filter(|(_, used)| *used)
        .map(|(instruction, _)| instruction.clone())
        .collect()
}

fn renumbered(path: &Path, new_ids: &[u32]) -> Path {
    let mut blocks: Vec<Block> = Vec::new();
    for block in &path.blocks {
        for id in block.first..block.first + block.count {
            let id = new_ids[id as usize];
            match blocks.last_mut() {
                Some(last) if last.cpu == block.cpu && last.first + last.count == id => {
                    last.count += 1;
                }
                _ => blocks.push(Block {
                    cpu: block.cpu,
                    first: id,
                    count: 1,
                }),
            }
        }
    }
    Path { blocks }
}
