//! Writing down what is executed, between the markers that say so.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::Write;

use crate::stream::{Encoder, HEADER, Marker, Unread};

/// Bytes of stream that are kept before they are written.
const BUFFER: usize = 1 << 16;
/// Most distinct instructions that are told apart: what a lab executes in a window is some 10,000,
/// and a table of this many takes 200 MB.
const MOST_INSTRUCTIONS: usize = 1 << 22;

/// An instruction's address and machine code, and how much of the latter there is.
type Key = (u64, [u8; 16], u8);

pub(crate) struct Recorder {
    /// Whether markers are ignored.
    idle: bool,
    /// Whether all code is instrumented, or will be as soon as QEMU comes to it.
    armed: bool,
    /// Whether a window is open.
    recording: bool,
    known: HashMap<Key, u32>,
    encoder: Encoder,
    buffer: Vec<u8>,
    out: File,
    lost: u64,
}

impl Recorder {
    /// Writes to `out`; where `idle`, markers are ignored. `None` if nothing can be written there.
    pub(crate) fn new(out: File, idle: bool) -> Option<Recorder> {
        let mut new = Recorder {
            idle,
            armed: false,
            recording: false,
            known: HashMap::new(),
            encoder: Encoder::default(),
            buffer: HEADER.to_vec(),
            out,
            lost: 0,
        };
        new.flush();
        (new.lost == 0).then_some(new)
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.armed
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.recording
    }

    fn flush(&mut self) {
        // A full pipe makes this wait, and QEMU with it; virtual time does not pass meanwhile.
        if self.out.write_all(&self.buffer).is_err() {
            self.lost += 1;
        }
        self.buffer.clear();
    }

    /// An instruction is about to be executed; `None` for one that has no id.
    #[inline]
    pub(crate) fn executed(&mut self, cpu: usize, id: Option<u32>) {
        if !self.recording {
            return;
        }
        match id {
            Some(id) => self.encoder.instruction(cpu as u32, id, &mut self.buffer),
            None => self.lost += 1,
        }
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    /// A guest has exited on a CPU.
    pub(crate) fn exited(&mut self, cpu: usize, reason: Result<[u64; 3], Unread>) {
        self.encoder.on(cpu as u32, &mut self.buffer);
        match reason {
            Ok(reason) => self.encoder.exit(reason, &mut self.buffer),
            Err(why) => self.encoder.unread(why, &mut self.buffer),
        }
    }

    /// The id of an instruction; `None` where it cannot have one.
    pub(crate) fn identify(&mut self, address: u64, code: [u8; 16], length: usize) -> Option<u32> {
        let full = self.known.len() >= MOST_INSTRUCTIONS;
        match self.known.entry((address, code, length as u8)) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(_) if full => None,
            Entry::Vacant(new) => {
                let code = code.get(..length)?;
                let id = self.encoder.define(address, code, &mut self.buffer)?;
                Some(*new.insert(id))
            }
        }
    }

    /// A marker is about to be executed. Whether all code is to be translated anew.
    pub(crate) fn mark(&mut self, marker: Marker) -> bool {
        match marker {
            Marker::Arm if !self.armed && !self.idle => {
                self.armed = true;
                return true;
            }
            Marker::Start if self.armed && !self.recording => {
                self.recording = true;
                self.encoder.start(&mut self.buffer);
            }
            Marker::Stop if self.recording => {
                self.recording = false;
                let lost = self.lost;
                self.encoder.stop(lost, &mut self.buffer);
                self.flush();
            }
            _ => {}
        }
        false
    }
}
