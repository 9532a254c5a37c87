//! A snapshot as a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::descriptors::{data, sealed_file};
use crate::error::{Error, Result};

/// Of the layout of the file, of what is in it, and of how a machine is restored from it.
const FORMAT: u32 = 1;
/// The last bytes but for the header's length and checksum.
const MAGIC: [u8; 8] = *b"xpthsnap";
/// Bytes of the file's end: the header's length and checksum, and [`MAGIC`].
const END: usize = 16;
/// Longest header.
const LONGEST: u64 = 1 << 20;

const PAGE: usize = 4096;
/// Bytes that are looked at at a time.
const PIECE: usize = 1 << 20;

/// What was booted, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Where the kernel is from.
    pub kernel: String,
    /// What was added to its command line.
    pub cmdline: String,
    /// QEMU's version.
    pub qemu: String,
    /// Its CPU model, and whether that is as QEMU emulates it.
    pub cpu: String,
    /// CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The seed.
    pub seed: u64,
    /// Whether the program inside is ready to measure; else the kernel has booted, and that is all.
    pub ready: bool,
}

/// What is said behind the memory and the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    format: u32,
    /// What decides the state: see [`crate::snapshot::Key`].
    pub(crate) key: String,
    pub(crate) about: About,
    /// When it was made, in milliseconds since 1970.
    pub(crate) made: u64,
    memory_bytes: u64,
    memory_sum: u32,
    state_bytes: u64,
    state_sum: u32,
    /// What it has said.
    said: Vec<u8>,
}

/// A machine that has booted.
pub(crate) struct Snapshot {
    /// Its memory, from the file's start on. Not to be written to.
    pub(crate) memory: File,
    /// What else there is of it, as QEMU wrote it.
    pub(crate) state: Vec<u8>,
    /// What it has said so far, of results.
    pub(crate) said: Vec<u8>,
    /// Bytes of memory, and what they sum up to if they are to be checked.
    expected: (u64, Option<u32>),
}

/// What looks through a snapshot's memory, while its machine comes up.
pub(crate) struct Checking(Option<std::thread::JoinHandle<io::Result<bool>>>);

impl Checking {
    /// Waits for the end.
    ///
    /// # Errors
    /// That the memory is not what it was, in words.
    pub(crate) fn finish(self) -> std::result::Result<(), String> {
        match self.0.map(|thread| thread.join()) {
            None | Some(Ok(Ok(true))) => Ok(()),
            Some(Ok(Ok(false))) => Err("its memory has a wrong checksum".to_owned()),
            Some(Ok(Err(error))) => Err(error.to_string()),
            Some(Err(_)) => Err("checking it panicked".to_owned()),
        }
    }
}

impl Snapshot {
    /// Room for the memory of a machine that is going to boot: so many bytes.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel has none to give.
    pub(crate) fn room(bytes: u64) -> Result<File> {
        let file = sealed_file("memory", &[])?;
        (file.set_len(bytes)).map_err(Error::io("enlarge", "a file in memory"))?;
        Ok(file)
    }

    /// Of a machine that has just stopped.
    pub(crate) fn new(memory: File, bytes: u64, state: Vec<u8>, said: Vec<u8>) -> Snapshot {
        Snapshot {
            memory,
            state,
            said,
            expected: (bytes, None),
        }
    }

    /// Bytes of its memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.expected.0
    }

    /// Its memory once more, which may be written to.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel has none to give, or it cannot be read.
    pub(crate) fn copy_of_memory(&self) -> Result<File> {
        let copy = Snapshot::room(self.expected.0)?;
        let copied = sum(&self.memory, self.expected.0, |at, bytes| {
            copy.write_all_at(bytes, at)
        });
        copied.map_err(Error::io("copy", "a snapshot"))?;
        Ok(copy)
    }

    /// Writes it to an empty file. Pages of zeros are left out: they are holes.
    pub(crate) fn write(
        &self,
        key: &str,
        about: &About,
        made: u64,
        out: &mut File,
    ) -> io::Result<()> {
        let (memory_bytes, _) = self.expected;
        let memory_sum = sum(&self.memory, memory_bytes, |at, bytes| {
            out.write_all_at(bytes, at)
        })?;
        out.write_all_at(&self.state, memory_bytes)?;
        let header = Header {
            format: FORMAT,
            key: key.to_owned(),
            about: about.clone(),
            made,
            memory_bytes,
            memory_sum,
            state_bytes: self.state.len() as u64,
            state_sum: crc32fast::hash(&self.state),
            said: self.said.clone(),
        };
        let mut end = serde_json::to_vec(&header)?;
        let (length, header_sum) = (end.len() as u32, crc32fast::hash(&end));
        end.extend_from_slice(&length.to_le_bytes());
        end.extend_from_slice(&header_sum.to_le_bytes());
        end.extend_from_slice(&MAGIC);
        out.write_all_at(&end, memory_bytes + header.state_bytes)?;
        out.flush()
    }

    /// What a file says it is.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn header(file: &File) -> std::result::Result<Header, String> {
        let said = |error: io::Error| error.to_string();
        let length = file.metadata().map_err(said)?.len();
        let short = || "it is cut short".to_owned();
        let end_at = length.checked_sub(END as u64).ok_or_else(short)?;
        let mut end = [0; END];
        file.read_exact_at(&mut end, end_at).map_err(said)?;
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| end[at + byte]));
        let (header_bytes, header_sum) = (u64::from(number(0)), number(4));
        if end[8..] != MAGIC || header_bytes > LONGEST {
            return Err("it has no end".to_owned());
        }
        let header_at = end_at.checked_sub(header_bytes).ok_or_else(short)?;
        let mut header = vec![0; header_bytes as usize];
        file.read_exact_at(&mut header, header_at).map_err(said)?;
        if crc32fast::hash(&header) != header_sum {
            return Err("its header has a wrong checksum".to_owned());
        }
        let header: Header = serde_json::from_slice(&header).map_err(|error| error.to_string())?;
        match header.memory_bytes.checked_add(header.state_bytes) {
            Some(sum) if sum == header_at && header.format == FORMAT => Ok(header),
            _ => Err("its parts have another size".to_owned()),
        }
    }

    /// Opens what a file has, if it is of this key. Its memory is not looked at yet.
    ///
    /// # Errors
    /// As [`Snapshot::header`].
    pub(crate) fn open(file: File, key: &str) -> std::result::Result<(Snapshot, Header), String> {
        let header = Snapshot::header(&file)?;
        if header.key != key {
            return Err("it is of another machine".to_owned());
        }
        let length = usize::try_from(header.state_bytes).map_err(|error| error.to_string())?;
        let mut state = vec![0; length];
        let read = file.read_exact_at(&mut state, header.memory_bytes);
        read.map_err(|error| error.to_string())?;
        if crc32fast::hash(&state) != header.state_sum {
            return Err("its state has a wrong checksum".to_owned());
        }
        let snapshot = Snapshot {
            memory: file,
            state,
            said: header.said.clone(),
            expected: (header.memory_bytes, Some(header.memory_sum)),
        };
        Ok((snapshot, header))
    }

    /// Begins to look through the memory.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no further descriptor.
    pub(crate) fn check(&self) -> Result<Checking> {
        let (bytes, Some(expected)) = self.expected else {
            return Ok(Checking(None));
        };
        let memory = self
            .memory
            .try_clone()
            .map_err(Error::io("duplicate", "a snapshot"))?;
        let thread =
            std::thread::spawn(move || Ok(sum(&memory, bytes, |_, _| Ok(()))? == expected));
        Ok(Checking(Some(thread)))
    }
}

/// The checksum of what is in so many bytes of a file besides pages of zeros. Each piece goes to `each` with its place.
fn sum(
    file: &File,
    bytes: u64,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<u32> {
    const ZEROS: [u8; PAGE] = [0; PAGE];
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; PIECE];
    // Where the last piece ended: whether data is cut into pieces here or there makes no difference.
    let mut last = None;
    for range in data(file, bytes)? {
        let mut from = range.start;
        while from < range.end {
            let length = PIECE.min((range.end - from) as usize);
            file.read_exact_at(&mut buffer[..length], from)?;
            let is_zero = |page: usize| {
                let page = &buffer[page..length.min(page + PAGE)];
                *page == ZEROS[..page.len()]
            };
            let mut at = 0;
            while at < length {
                let begin = at;
                while at < length && !is_zero(at) {
                    at += PAGE;
                }
                let piece = &buffer[begin..at.min(length)];
                if !piece.is_empty() {
                    let place = from + begin as u64;
                    if last != Some(place) {
                        hasher.update(&place.to_le_bytes());
                    }
                    hasher.update(piece);
                    each(place, piece)?;
                    last = Some(place + piece.len() as u64);
                }
                while at < length && is_zero(at) {
                    at += PAGE;
                }
            }
            from += length as u64;
        }
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            kernel: "6.1".to_owned(),
            cmdline: String::new(),
            qemu: "7.2".to_owned(),
            cpu: "EPYC".to_owned(),
            cpus: 1,
            memory_mib: 8,
            seed: 1,
            ready: true,
        }
    }

    /// Eight MiB with something in three places, and its file.
    fn written() -> (Snapshot, File) {
        let memory = Snapshot::room(8 << 20).expect("memory");
        for (at, byte) in [(0, 1), (PIECE as u64 - 1, 2), (5 << 20, 3)] {
            memory.write_all_at(&[byte; 2], at).expect("written");
        }
        let snapshot = Snapshot::new(memory, 8 << 20, b"state".to_vec(), b"said".to_vec());
        let mut file = tempfile::tempfile().expect("a file");
        snapshot
            .write("key", &about(), 7, &mut file)
            .expect("written");
        (snapshot, file)
    }

    #[test]
    fn what_is_written_is_opened() {
        let (_, file) = written();
        let copy = file.try_clone().expect("a descriptor");
        let (opened, header) = Snapshot::open(copy, "key").expect("whole");
        assert_eq!(
            (opened.state.as_slice(), header.made),
            (b"state".as_slice(), 7)
        );
        assert_eq!(header.about, about());
        assert_eq!(opened.said, b"said");
        opened.check().expect("a thread").finish().expect("whole");
        let mut byte = [0; 2];
        file.read_exact_at(&mut byte, 5 << 20).expect("read");
        assert_eq!(byte, [3, 3]);
        assert!(Snapshot::open(file, "other").is_err());
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let length = written().1.metadata().expect("a file").len();
        let state = 8 << 20;
        for at in [
            0,
            4096,
            (1 << 20) + 1,
            3 << 20,
            5 << 20,
            state,
            state + 4,
            state + 20,
            length - 1,
        ] {
            let (_, file) = written();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("read");
            file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
            let checked = Snapshot::open(file, "key")
                .and_then(|(snapshot, _)| snapshot.check().expect("a thread").finish());
            assert!(checked.is_err(), "{at}");
        }
        for length in [0, 4096, state, length - 1] {
            let (_, file) = written();
            file.set_len(length).expect("shorter");
            assert!(Snapshot::open(file, "key").is_err(), "{length}");
        }
    }
}
