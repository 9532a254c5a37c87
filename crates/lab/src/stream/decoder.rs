//! The stream of instructions that the plugin sends, taken apart; its format is described in
//! [`exitpath_lab_plugin::stream`].

use exitpath_lab_plugin::stream::{
    CPU, DEFINE, EXIT, HEADER, LONGEST, RUN, START, STOP, UNREAD, Unread,
};

/// A record of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// The next id means this instruction.
    Define {
        /// Its virtual address.
        address: u64,
        /// Its machine code.
        bytes: &'a [u8],
    },
    /// Instructions with consecutive ids were begun one after the other.
    Run {
        /// The lab's CPU.
        cpu: u32,
        /// Id of the first.
        first: u32,
        /// How many.
        count: u32,
    },
    /// A guest exited.
    Exit {
        /// The exit code.
        code: u64,
        /// EXITINFO1.
        info1: u64,
        /// EXITINFO2.
        info2: u64,
    },
    /// A guest exited, and why it did cannot be read.
    Unread(Unread),
    /// A window begins.
    Start,
    /// A window ends, with nothing lost.
    Stop,
}

/// Takes a stream apart, in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What is left of earlier pieces: less than one record.
    rest: Vec<u8>,
    begun: bool,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    cpu: u32,
    defined: u64,
    windows: u64,
    in_window: bool,
    instructions: u64,
}

/// Most CPUs of a lab.
const MOST_CPUS: u64 = 256;

impl Decoder {
    /// Adds bytes as they came and hands on each whole record.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words; the stream cannot be read any further then.
    pub fn push(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut joined;
        let all = if self.rest.is_empty() {
            bytes
        } else {
            joined = std::mem::take(&mut self.rest);
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut input = all;
        if !self.begun {
            let Some(header) = input.get(..HEADER.len()) else {
                self.rest = input.to_vec();
                return Ok(());
            };
            if header != HEADER {
                return Err("its beginning is not the plugin's".to_owned());
            }
            self.begun = true;
            input = &input[HEADER.len()..];
        }
        while let Some(length) = self.state.record(input, &mut each)? {
            input = &input[length..];
        }
        self.rest = input.to_vec();
        Ok(())
    }

    /// Windows that have begun, and whether the last one has ended and nothing follows it.
    pub fn windows(&self) -> (u64, bool) {
        let whole = !self.state.in_window && self.rest.is_empty();
        (self.state.windows, whole)
    }
}

impl State {
    /// One record from the beginning of `input`: its length, or `None` if it is not there as a
    /// whole.
    fn record(
        &mut self,
        input: &[u8],
        each: &mut impl FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<Option<usize>, String> {
        let mut fields = Fields { input, at: 0 };
        let Some(tag) = fields.byte() else {
            return Ok(None);
        };
        match tag {
            DEFINE => {
                let Some(address) = fields.take(8) else {
                    return Ok(None);
                };
                let address = u64::from_le_bytes(address.try_into().expect("eight bytes"));
                let Some(length) = fields.byte() else {
                    return Ok(None);
                };
                if !(1..=LONGEST).contains(&usize::from(length)) {
                    return Err(format!("an instruction of {length} bytes"));
                }
                let Some(bytes) = fields.take(length.into()) else {
                    return Ok(None);
                };
                if self.defined >= u64::from(u32::MAX) {
                    return Err("more instructions than there are ids".to_owned());
                }
                self.defined += 1;
                each(Record::Define { address, bytes })?;
            }
            RUN => {
                let (Some(difference), Some(count)) = (fields.number()?, fields.number()?) else {
                    return Ok(None);
                };
                let difference = (difference >> 1) as i64 ^ -((difference & 1) as i64);
                let first = i64::from(self.next).checked_add(difference);
                let first = first.and_then(|first| u64::try_from(first).ok());
                let end = first.and_then(|first| first.checked_add(count));
                let (Some(first), Some(end)) = (first, end) else {
                    return Err("a run of impossible ids".to_owned());
                };
                if count == 0 || end > self.defined {
                    return Err(format!(
                        "a run of ids {first} to {end} where {} are defined",
                        self.defined
                    ));
                }
                if !self.in_window {
                    return Err("instructions outside a window".to_owned());
                }
                self.instructions += count;
                // The last id of all has no successor that fits.
                self.next = end.min(u32::MAX.into()) as u32;
                each(Record::Run {
                    cpu: self.cpu,
                    first: first as u32,
                    count: count.min(u32::MAX.into()) as u32,
                })?;
            }
            CPU => match fields.number()? {
                None => return Ok(None),
                Some(cpu) if cpu < MOST_CPUS => self.cpu = cpu as u32,
                Some(cpu) => return Err(format!("a CPU {cpu}")),
            },
            EXIT | UNREAD if !self.in_window => return Err("an exit outside a window".to_owned()),
            EXIT => {
                let fields = (fields.number()?, fields.number()?, fields.number()?);
                let (Some(code), Some(info1), Some(info2)) = fields else {
                    return Ok(None);
                };
                each(Record::Exit { code, info1, info2 })?;
            }
            UNREAD => match fields.number()? {
                None => return Ok(None),
                Some(number) => {
                    let why = Unread::ALL.into_iter().find(|&why| why as u64 == number);
                    let why = why.ok_or_else(|| format!("an exit unread for reason {number}"))?;
                    each(Record::Unread(why))?;
                }
            },
            START => match fields.number()? {
                None => return Ok(None),
                Some(window) if window == self.windows && !self.in_window => {
                    self.windows += 1;
                    self.in_window = true;
                    self.instructions = 0;
                    each(Record::Start)?;
                }
                Some(window) => return Err(format!("a beginning of window {window} out of turn")),
            },
            STOP => {
                let numbers = (fields.number()?, fields.number()?, fields.number()?);
                let (Some(instructions), Some(defined), Some(lost)) = numbers else {
                    return Ok(None);
                };
                if lost > 0 {
                    return Err(format!("{lost} records were lost"));
                }
                if !self.in_window || instructions != self.instructions || defined != self.defined {
                    return Err(format!(
                        "{} instructions arrived where {instructions} were sent",
                        self.instructions
                    ));
                }
                self.in_window = false;
                each(Record::Stop)?;
            }
            other => return Err(format!("a record of unknown kind {other}")),
        }
        Ok(Some(fields.at))
    }
}

/// Reads fields one after the other; `None` where the input ends before them.
struct Fields<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.input.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.input.get(self.at..)?.get(..length)?;
        self.at += length;
        Some(bytes)
    }

    fn number(&mut self) -> Result<Option<u64>, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.byte() else {
                return Ok(None);
            };
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        Err("a number that is too large".to_owned())
    }
}
