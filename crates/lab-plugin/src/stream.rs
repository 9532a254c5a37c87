//! The stream of instructions, as it leaves QEMU: its format and the encoder.
//!
//! It begins with [`HEADER`]. Then come records: a tag byte and fields, numbers as LEB128 unless
//! it says otherwise.
//!
//! | tag | record | fields |
//! |---|---|---|
//! | 1 | DEFINE | address (u64, little endian), length (one byte, 1 to 15), so many bytes of machine code. Defines the next instruction id, from 0. |
//! | 2 | RUN | first id, as the difference to the id that would have followed the previous run (zigzag); number of instructions. These ids one by one were begun. |
//! | 3 | CPU | index. Runs from here on are this CPU's; CPU 0's before the first of these. |
//! | 4 | START | number of the window, counting from 0 |
//! | 5 | STOP | instructions in this window, ids defined so far, records lost since the header |
//! | 6 | EXIT | exit code, EXITINFO1, EXITINFO2. A guest exited for this reason; what follows runs in the host. |
//! | 7 | UNREAD | why, a [`Unread`]. A guest exited, and the reason cannot be read. |
//!
//! A stream is whole if it ends with the STOP of the last window that was asked for.

/// The stream's first bytes: what it is, and its version.
pub const HEADER: [u8; 8] = *b"xpthins2";
/// Tag of a DEFINE record.
pub const DEFINE: u8 = 1;
/// Tag of a RUN record.
pub const RUN: u8 = 2;
/// Tag of a CPU record.
pub const CPU: u8 = 3;
/// Tag of a START record.
pub const START: u8 = 4;
/// Tag of a STOP record.
pub const STOP: u8 = 5;
/// Tag of an EXIT record.
pub const EXIT: u8 = 6;
/// Tag of an UNREAD record.
pub const UNREAD: u8 = 7;
/// Longest instruction of x86, in bytes.
pub const LONGEST: usize = 15;

/// Why the reason of an exit cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// QEMU does not export what reads a register or the machine's memory.
    Symbols,
    /// What was read from RAX is the address of no VMCB.
    Address,
}

impl Unread {
    /// All of them.
    pub const ALL: [Unread; 2] = [Unread::Symbols, Unread::Address];

    /// In words, as the end of a sentence.
    pub const fn why(self) -> &'static str {
        match self {
            Unread::Symbols => {
                "this QEMU does not export current_cpu, cpu_physical_memory_rw or x86_cpu_gdb_read_register"
            }
            Unread::Address => "RAX was the address of no VMCB when a guest exited",
        }
    }
}

/// An instruction that does nothing and tells the plugin something: `nop dword ptr [rax + rax +
/// disp32]`, whose displacement no compiler chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Instrument all code from now on.
    Arm,
    /// A window begins.
    Start,
    /// It ends.
    Stop,
}

impl Marker {
    /// All of them.
    pub const ALL: [Marker; 3] = [Marker::Arm, Marker::Start, Marker::Stop];

    /// Its displacement.
    pub const fn displacement(self) -> u32 {
        let number = match self {
            Marker::Arm => 1,
            Marker::Start => 2,
            Marker::Stop => 3,
        };
        0x7870_7400 + number
    }

    /// Its machine code.
    pub const fn bytes(self) -> [u8; 8] {
        let [a, b, c, d] = self.displacement().to_le_bytes();
        [0x0f, 0x1f, 0x84, 0x00, a, b, c, d]
    }

    /// The marker that these bytes are.
    pub fn find(bytes: &[u8]) -> Option<Marker> {
        Marker::ALL
            .into_iter()
            .find(|marker| bytes == marker.bytes())
    }
}

/// Makes a stream of what happens. It keeps the run in progress and nothing else.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Id that would follow the last run written.
    next: u32,
    /// The run in progress: first id and length.
    run: Option<(u32, u32)>,
    cpu: u32,
    windows: u64,
    defined: u64,
    instructions: u64,
}

impl Encoder {
    /// Defines the next id; `None` where `bytes` is no instruction or there are no more ids.
    pub fn define(&mut self, address: u64, bytes: &[u8], out: &mut Vec<u8>) -> Option<u32> {
        let id = u32::try_from(self.defined).ok()?;
        if bytes.is_empty() || bytes.len() > LONGEST {
            return None;
        }
        self.defined += 1;
        out.push(DEFINE);
        out.extend_from_slice(&address.to_le_bytes());
        out.push(bytes.len() as u8);
        out.extend_from_slice(bytes);
        Some(id)
    }

    /// A window begins.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        out.push(START);
        number(self.windows, out);
        self.windows += 1;
        self.instructions = 0;
    }

    /// An instruction begins on a CPU.
    #[inline]
    pub fn instruction(&mut self, cpu: u32, id: u32, out: &mut Vec<u8>) {
        self.instructions += 1;
        if cpu == self.cpu
            && let Some((first, count)) = &mut self.run
            && id.wrapping_sub(*first) == *count
        {
            *count += 1;
            return;
        }
        self.on(cpu, out);
        self.run = Some((id, 1));
    }

    /// What follows happens on this CPU.
    pub fn on(&mut self, cpu: u32, out: &mut Vec<u8>) {
        self.end_run(out);
        if cpu != self.cpu {
            self.cpu = cpu;
            out.push(CPU);
            number(cpu.into(), out);
        }
    }

    /// A guest exited: exit code, EXITINFO1 and EXITINFO2.
    pub fn exit(&mut self, reason: [u64; 3], out: &mut Vec<u8>) {
        self.end_run(out);
        out.push(EXIT);
        for field in reason {
            number(field, out);
        }
    }

    /// A guest exited for a reason that cannot be read.
    pub fn unread(&mut self, why: Unread, out: &mut Vec<u8>) {
        self.end_run(out);
        out.push(UNREAD);
        number(why as u64, out);
    }

    /// The window ends; `lost` records could not be written.
    pub fn stop(&mut self, lost: u64, out: &mut Vec<u8>) {
        self.end_run(out);
        out.push(STOP);
        number(self.instructions, out);
        number(self.defined, out);
        number(lost, out);
    }

    fn end_run(&mut self, out: &mut Vec<u8>) {
        let Some((first, count)) = self.run.take() else {
            return;
        };
        out.push(RUN);
        let difference = i64::from(first) - i64::from(self.next);
        number(((difference << 1) ^ (difference >> 63)) as u64, out);
        number(count.into(), out);
        self.next = first.wrapping_add(count);
    }
}

/// LEB128: seven bits a byte, least significant first, the top bit says that more follow.
fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_instructions_are_one_run() {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        encoder.start(&mut out);
        for id in [5, 6, 7, 3, 4, 8] {
            encoder.instruction(0, id, &mut out);
        }
        encoder.instruction(1, 9, &mut out);
        encoder.stop(0, &mut out);
        // +5 from 0; -5 from 8; +3 from 5; CPU 1, +0 from 9.
        let runs = [
            START, 0, RUN, 10, 3, RUN, 9, 2, RUN, 6, 1, CPU, 1, RUN, 0, 1, STOP, 7, 0, 0,
        ];
        assert_eq!(out, runs);
    }

    #[test]
    fn an_exit_stands_between_the_runs() {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        encoder.start(&mut out);
        encoder.instruction(0, 5, &mut out);
        encoder.exit([0x400, 4, 0xd000_0000], &mut out);
        encoder.instruction(0, 6, &mut out);
        encoder.unread(Unread::Address, &mut out);
        encoder.stop(0, &mut out);
        let records = [
            &[START, 0, RUN, 10, 1][..],
            &[EXIT, 0x80, 0x08, 4, 0x80, 0x80, 0x80, 0x80, 0x0d],
            &[RUN, 0, 1, UNREAD, 1, STOP, 2, 0, 0],
        ];
        assert_eq!(out, records.concat());
    }

    #[test]
    fn markers_are_found_by_all_of_their_bytes() {
        for marker in Marker::ALL {
            assert_eq!(Marker::find(&marker.bytes()), Some(marker));
            assert_eq!(Marker::find(&marker.bytes()[..7]), None);
        }
        assert_eq!(Marker::find(&[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn what_is_no_instruction_gets_no_id() {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        assert_eq!(encoder.define(0, &[], &mut out), None);
        assert_eq!(encoder.define(0, &[0; 16], &mut out), None);
        assert!(out.is_empty());
        assert_eq!(encoder.define(1, &[0x90], &mut out), Some(0));
        assert_eq!(encoder.define(2, &[0x90], &mut out), Some(1));
    }
}
