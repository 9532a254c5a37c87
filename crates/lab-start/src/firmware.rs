//! What a lab is handed: files of QEMU's firmware configuration (QEMU's `docs/specs/fw_cfg.rst`).
//!
//! Small ones are read byte by byte. For the payload the device writes to the machine's memory by itself, if it is told where. The kernel tells of each page where it
//! is (`/proc/self/pagemap`); one that does not has its bytes read one by one.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::payload::{HEADER, index_length};
use crate::places::{FIRMWARE_PORT, NOTHING, PAYLOAD};
use crate::system::{Pages, read_bytes, write_long, write_word};
use crate::{Failed, Step};

/// The list of files.
const LIST: u16 = 0x19;
/// Bytes of an entry of it, and of its head.
const ENTRY: usize = 64;
const HEAD: usize = 4;

const PAGE: usize = 4096;

/// What is asked of the device.
const FAILED: u32 = 1;
const READ: u32 = 2;
const SKIP: u32 = 4;

/// The payload, and how far it was read.
#[derive(Debug)]
pub struct Payload {
    selector: u16,
    at: u64,
    index: Vec<u8>,
    dma: Option<Dma>,
}

/// How the device is told what to write where.
#[derive(Debug)]
struct Dma {
    pagemap: File,
    command: Pages,
    /// Where that is in the machine's memory.
    address: u64,
}

/// Where a file is, and how long, if the machine has one of this name.
fn find(file: &str) -> Option<(u16, usize)> {
    write_word(FIRMWARE_PORT, LIST);
    let mut head = [0; HEAD];
    read_bytes(FIRMWARE_PORT + 1, &mut head);
    let mut found = None;
    for _ in 0..u32::from_be_bytes(head) {
        let mut entry = [0; ENTRY];
        read_bytes(FIRMWARE_PORT + 1, &mut entry);
        let name = entry[8..].split(|&byte| byte == 0).next();
        if name == Some(file.as_bytes()) {
            let length = u32::from_be_bytes([0, 1, 2, 3].map(|at| entry[at]));
            found = Some((u16::from_be_bytes([entry[4], entry[5]]), length as usize));
        }
    }
    found
}

/// A small file, once the machine has it: it stops as long as there is nothing in its place. Needs the ports.
///
/// # Errors
/// That it went on without.
pub fn wait_for(file: &str) -> Result<Vec<u8>, Failed> {
    for stopped in [false, true] {
        if let Some((selector, length)) = find(file) {
            let mut bytes = vec![0; length];
            write_word(FIRMWARE_PORT, selector);
            read_bytes(FIRMWARE_PORT + 1, &mut bytes);
            if bytes != NOTHING {
                return Ok(bytes);
            }
        }
        if !stopped {
            crate::system::stop();
        }
    }
    Err("the machine went on without having anything to do".to_owned())
}

impl Payload {
    /// The payload, if the machine has one.
    ///
    /// # Errors
    /// What kept it from being read.
    pub fn find() -> Result<Option<Payload>, Failed> {
        let found = find(PAYLOAD).map(|(selector, _)| selector);
        let Some(selector) = found else {
            return Ok(None);
        };
        write_word(FIRMWARE_PORT, selector);
        let mut header = [0; HEADER];
        read_bytes(FIRMWARE_PORT + 1, &mut header);
        let Some(length) = index_length(&header) else {
            return Ok(None);
        };
        let mut payload = Payload {
            selector,
            at: HEADER as u64,
            index: Vec::new(),
            dma: Dma::open().ok(),
        };
        let mut pages = Pages::of(None, length.max(1)).step("making room for the index")?;
        payload.read(payload.at, length, &mut pages)?;
        payload.index = pages.bytes()[..length].to_vec();
        Ok(Some(payload))
    }

    /// The index of what it holds.
    pub fn index(&self) -> &[u8] {
        &self.index
    }

    /// Reads so many bytes from there on into these pages.
    ///
    /// # Errors
    /// What kept it from being read.
    pub fn read(&mut self, from: u64, length: usize, to: &mut Pages) -> Result<(), Failed> {
        if from < self.at {
            write_word(FIRMWARE_PORT, self.selector);
            self.at = 0;
        }
        let skipped = from - self.at;
        self.at = from + length as u64;
        let Some(dma) = &mut self.dma else {
            let mut left = skipped;
            while left > 0 {
                let mut scratch = [0; PAGE];
                let now = left.min(PAGE as u64);
                read_bytes(FIRMWARE_PORT + 1, &mut scratch[..now as usize]);
                left -= now;
            }
            read_bytes(FIRMWARE_PORT + 1, &mut to.bytes()[..length]);
            return Ok(());
        };
        let mut left = skipped;
        while left > 0 {
            let now = left.min(1 << 30);
            dma.command(SKIP, now as u32, 0)?;
            left -= now;
        }
        for (address, length) in dma.places(to, length)? {
            dma.command(READ, length, address)?;
        }
        Ok(())
    }
}

impl Dma {
    fn open() -> Result<Dma, Failed> {
        let pagemap = File::open("/proc/self/pagemap").step("/proc/self/pagemap")?;
        let command = Pages::of(None, PAGE).step("making room for a command")?;
        let address = frames(&pagemap, &command, PAGE)?[0];
        Ok(Dma {
            pagemap,
            command,
            address,
        })
    }

    /// Where these pages are in the machine's memory: places that hang together, and their lengths.
    fn places(&self, pages: &Pages, length: usize) -> Result<Vec<(u64, u32)>, Failed> {
        let mut places: Vec<(u64, u32)> = Vec::new();
        let mut left = length;
        for frame in frames(&self.pagemap, pages, length)? {
            let now = left.min(PAGE) as u32;
            left -= now as usize;
            match places.last_mut() {
                Some((from, length))
                    if *from + u64::from(*length) == frame && *length < 1 << 30 =>
                {
                    *length += now;
                }
                _ => places.push((frame, now)),
            }
        }
        Ok(places)
    }

    /// Has the device do something, which is done when this returns.
    fn command(&mut self, what: u32, length: u32, address: u64) -> Result<(), Failed> {
        let command = &mut self.command.bytes()[..16];
        command[..4].copy_from_slice(&what.to_be_bytes());
        command[4..8].copy_from_slice(&length.to_be_bytes());
        command[8..].copy_from_slice(&address.to_be_bytes());
        write_long(FIRMWARE_PORT + 4, ((self.address >> 32) as u32).to_be());
        write_long(FIRMWARE_PORT + 8, (self.address as u32).to_be());
        let became = u32::from_be_bytes([0, 1, 2, 3].map(|at| command[at]));
        match became & FAILED {
            0 => Ok(()),
            _ => Err("the machine does not hand over its payload".to_owned()),
        }
    }
}

/// Where each of these pages is in the machine's memory (`Documentation/admin-guide/mm/pagemap.rst`).
fn frames(pagemap: &File, pages: &Pages, length: usize) -> Result<Vec<u64>, Failed> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let mut entries = vec![0; length.div_ceil(PAGE) * 8];
    let from = pages.address() / PAGE * 8;
    pagemap
        .read_exact_at(&mut entries, from as u64)
        .step("/proc/self/pagemap")?;
    let entries = entries
        .as_chunks()
        .0
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes));
    let frame = |entry: u64| match (entry & PRESENT, entry & FRAME) {
        (0, _) | (_, 0) => Err("the kernel does not tell where memory is".to_owned()),
        (_, frame) => Ok(frame * PAGE as u64),
    };
    entries.map(frame).collect()
}
