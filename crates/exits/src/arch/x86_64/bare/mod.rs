//! The guest programs as a bootable image: the same code at the same addresses under any VMM.
//!
//! [`elf`] makes one file that a VMM can load in four ways: by PVH (a note in a 64-bit ELF), by
//! multiboot 1 (a header in its first 8 KiB, with addresses), as a 64-bit Linux (the ELF's
//! entry), or as a flat real-mode file (`flat`). It lies at 4 MiB, and nothing of it below 1 MiB, where VMMs put their boot structures;
//! `driver` puts the guest of [`layout`](crate::layout) together there and plays the host's part.
//!
//! # What it says
//!
//! Lines on COM1 (port 0x3f8), each `xp1 NUMBER WORDS #SUM`: lines are numbered from 0, and the sum
//! is the FNV-1a hash (32 bits, eight hexadecimal digits) of all that stands before ` #`. Numbers
//! are decimal. What does not begin with `xp1 ` is somebody else's: firmware, the VMM.
//!
//! | words | meaning |
//! |---|---|
//! | `boot ENTRY ROWS VENDOR` | entered by PVH (0), multiboot (1), as Linux (2) or flat (3); rows that follow; CPUID's vendor |
//! | `row INDEX NAME` | a row begins |
//! | `lacks WHAT` | the CPU does not have what the row needs |
//! | `fault BYTE VECTOR CODE RIP CR2 PROGRESS` | what the program wrote to the control port, the exception's vector plus 1, error code, place, CR2, operations until then |
//! | `samples EMPTY,OP*N …` | raw ticks of the bracket without and with the operation; `*N`: N such samples in a row |
//! | `batch LENGTH EMPTY_N EMPTY_2N OP_N OP_2N` | one repetition of the batch estimator, raw ticks |
//! | `end INDEX done`, `lacking` or `fault` | the row is over, and how |
//! | `broken VECTOR CODE RIP CR2` | an exception in the driver itself, after which it ends |
//! | `bye ROWS` | all is said |
//!
//! Then it writes 0x10 to port 0xf4 (QEMU's isa-debug-exit: status 33), 0xfe to port 0x64 (a reset
//! by the keyboard controller), and halts.

mod driver;
mod flat;

use crate::arch::program::Program;
use crate::arch::x86_64::image::{Image, Segment, gate};
use crate::layout::{CODE_SIZE, GDT, IDT, LOW_CODE_END, RESULTS_SIZE, port};
use crate::row::{Code, Need, Row, Scratch};
use driver::parameter;
use driver::{BASE, CALL, HEADER_SIZE, NEED_SIZE, PARAMETERS_SIZE, RECORD_SIZE, VECTOR};

/// Bytes of the file before what is loaded.
const FILE_FRONT: usize = 0x1000;
/// Bytes of the driver's stack.
const DRIVER_STACK: u64 = 0x2000;
/// Baselines run before what counts, as on a host.
const BASELINES: u64 = 64;
/// Multiboot's magic number, and its flag for addresses in the header (Multiboot Specification
/// 0.6.96, 3.1).
const MULTIBOOT: (u32, u32) = (0x1bad_b002, 1 << 16);
/// Type of the note with the PVH entry's address (Xen's public/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// How much of each row the image measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageContents {
    /// Bracketed samples, unless a row limits itself.
    pub samples: u32,
    /// Iterations before the first sample that counts.
    pub warm_up: u32,
    /// Repetitions of the batch estimator.
    pub batches: u32,
    /// Operations in the shorter batch.
    pub batch_length: u32,
    /// Whether a VMM that can load it by multiboot finds a header for that; QEMU prefers it to PVH.
    pub multiboot: bool,
}

impl ImageContents {
    /// Samples it takes of a row.
    pub fn samples_of(&self, row: &Row) -> u32 {
        let room = (RESULTS_SIZE / 16) as u32;
        self.samples.min(row.max_samples).min(room).max(1)
    }

    /// No image of these rows says more bytes than this, if each number has ten digits at most.
    pub fn most_text(&self, rows: &[&Row]) -> usize {
        let of_row = |row: &&Row| {
            let (samples, batches) = (self.samples_of(row) as usize, self.batches() as usize);
            0x400 + samples * 32 + batches * 128
        };
        0x400 + rows.iter().map(of_row).sum::<usize>()
    }

    fn batches(&self) -> u32 {
        if self.batch_length == 0 {
            return 0;
        }
        self.batches.min((RESULTS_SIZE / 32) as u32)
    }
}

/// Why a row is in no image; `None` where it may be in one.
pub fn obstacle(row: &Row) -> Option<&'static str> {
    if row.rung.is_some() || !crate::ROWS.iter().any(|known| known.name == row.name) {
        return Some("it is about what exitpath's own VMM does on an exit");
    }
    if row.vcpus > 1 {
        return Some("it needs two vCPUs, and the image starts one");
    }
    if row.scratch != Scratch::Unused {
        return Some("the VMM has to unmap or clean pages between its phases");
    }
    if row.irqfd {
        return Some("it needs an irqfd that the VMM registers");
    }
    if !row.ioeventfds.is_empty() {
        return Some("it needs an ioeventfd that the VMM registers");
    }
    None
}

/// The rows an image holds unless others are asked for: those of the default table that it can.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    crate::default_rows().filter(|row| obstacle(row).is_none())
}

/// The image of these rows.
///
/// # Panics
/// If a row has an [`obstacle`], or a program does not lie where RAM is sure to be; tests hold
/// every row to the latter.
pub fn elf(rows: &[&Row], plan: &ImageContents) -> Vec<u8> {
    let driver = driver::driver();
    let mut at = Layout::new(driver.bytes);
    let handler = BASE + driver.handler;

    let mut records = Vec::new();
    for row in rows {
        assert!(obstacle(row).is_none(), "{}: in no image", row.name);
        records.push(row_record(row, plan, &mut at));
    }
    let segments = common_segments(handler);
    let mut list = Vec::new();
    for segment in &segments {
        let from = at.push(&segment.bytes);
        list.extend([segment.at, from, segment.bytes.len() as u64]);
    }
    let list = at.push(&words(&list));
    let row_table = at.push(&records.concat());

    let loaded_end = at.end();
    let most_samples = rows.iter().map(|row| plan.samples_of(row)).max();
    let buffer = loaded_end.next_multiple_of(0x1000);
    let stack_top = (buffer + u64::from(most_samples.unwrap_or(0)) * 16).next_multiple_of(0x1000)
        + DRIVER_STACK;

    for (offset, value) in [
        (parameter::ROWS, row_table),
        (parameter::ROW_COUNT, rows.len() as u64),
        (parameter::BUFFER, buffer),
        (parameter::STACK_TOP, stack_top),
        (parameter::WARM_UP, u64::from(plan.warm_up)),
        (parameter::SEGMENTS, list),
        (parameter::SEGMENT_COUNT, segments.len() as u64),
        (parameter::START_64, BASE + driver.start_64),
        (parameter::BASELINES, BASELINES),
    ] {
        at.set(offset, &value.to_le_bytes());
    }
    at.set(
        parameter::GDTR,
        &descriptor(crate::arch::x86_64::image::GDT_SIZE, GDT),
    );
    at.set(
        parameter::IDTR,
        &descriptor(crate::arch::x86_64::image::IDT_SIZE, IDT),
    );
    if plan.multiboot {
        let (magic, flags) = MULTIBOOT;
        let check = 0u32.wrapping_sub(magic).wrapping_sub(flags);
        let low = |address: u64| u32::try_from(address).expect("the image lies below 4 GiB");
        let header = [
            magic,
            flags,
            check,
            low(BASE),
            low(BASE),
            low(loaded_end),
            low(stack_top),
            low(BASE + driver.multiboot),
        ];
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        at.set(0, &header);
    }
    file(
        &at.bytes,
        stack_top - BASE,
        BASE + driver.linux64,
        BASE + driver.pvh,
        BASE + driver.flat,
    )
}

/// What is loaded at [`BASE`], as it grows.
struct Layout {
    bytes: Vec<u8>,
}

impl Layout {
    fn new(driver: &[u8]) -> Layout {
        assert!(driver.len() > HEADER_SIZE + PARAMETERS_SIZE);
        Layout {
            bytes: driver.to_vec(),
        }
    }

    fn end(&self) -> u64 {
        BASE + self.bytes.len() as u64
    }

    /// Puts bytes behind what is there, at a multiple of 64, and gives their address.
    fn push(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let address = self.end();
        self.bytes.extend_from_slice(bytes);
        address
    }

    fn set(&mut self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

fn row_record(row: &Row, plan: &ImageContents, at: &mut Layout) -> Vec<u8> {
    let name = at.push(row.name.as_bytes());
    let needs: Vec<u8> = row
        .needs
        .iter()
        .flat_map(|&need| need_record(need, at))
        .collect();
    let needs = at.push(&needs);
    let intel = row.program(false);
    let mut record = vec![name, row.name.len() as u64, intel.address];
    let mut variants = vec![intel];
    if let Code::ByVendor { .. } = row.code {
        variants.push(row.program(true));
    }
    let places: Vec<[u64; 4]> = variants
        .iter()
        .map(|program| {
            let code = at.push(&patched_program(program));
            let [low, high] = gate(program.address + program.handler as u64);
            [code, program.code.len() as u64, low, high]
        })
        .collect();
    record.extend(places[0]);
    record.extend(places[places.len() - 1]);
    let cleared = if row.needs.contains(&Need::Ibrs) {
        0x48
    } else {
        0
    };
    record.extend([
        u64::from(plan.samples_of(row)),
        u64::from(plan.batches()),
        u64::from(plan.batch_length),
        needs,
        row.needs.len() as u64,
        cleared,
    ]);
    let record = words(&record);
    assert_eq!(record.len(), RECORD_SIZE);
    record
}

/// The program with its two writes to the control port (ready, and a command it does not know)
/// replaced.
fn patched_program(program: &Program) -> Vec<u8> {
    assert!(
        program.address + CODE_SIZE <= LOW_CODE_END,
        "a program where a PC has no RAM"
    );
    let mut code = program.code.to_vec();
    for value in [port::READY, port::BAD_COMMAND] {
        patch(&mut code, value);
    }
    code
}

/// Makes the one `mov al, value; out CONTROL, al` a `mov al, value` and [`CALL`].
fn patch(code: &mut [u8], value: u8) {
    let find = [0xb0, value, 0xe6, port::CONTROL as u8];
    let mut places = code
        .windows(find.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == find)
        .map(|(at, _)| at);
    let place = places
        .next()
        .expect("guest code writes to the control port");
    assert!(places.next().is_none(), "it does so in one place");
    code[place + 2..place + 4].copy_from_slice(&CALL);
}

/// Tables, stubs and page tables: what all programs share.
fn common_segments(handler: u64) -> Vec<Segment> {
    let empty = crate::find("empty").expect("a row").program(false);
    let mut segments = Image::new(&empty).segments;
    segments.retain(|segment| segment.at != empty.address);
    for segment in &mut segments {
        if segment.at == IDT {
            let [low, high] = gate(handler).map(u64::to_le_bytes);
            let at = usize::from(VECTOR) * 16;
            segment.bytes[at..at + 8].copy_from_slice(&low);
            segment.bytes[at + 8..at + 16].copy_from_slice(&high);
        }
        if segment.at == crate::layout::STUBS {
            patch(&mut segment.bytes, port::FAULT);
        }
    }
    segments
}

fn need_record(need: Need, at: &mut Layout) -> Vec<u8> {
    let (name, places) = (need.name(), need.cpuid());
    let mut record = words(&[at.push(name.as_bytes()), name.len() as u64]);
    record.extend(places.iter().flatten().flat_map(|word| word.to_le_bytes()));
    assert_eq!(record.len(), NEED_SIZE);
    record
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Operand of LGDT and LIDT.
fn descriptor(size: u16, base: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&(size - 1).to_le_bytes());
    bytes[2..].copy_from_slice(&base.to_le_bytes());
    bytes
}

/// A 64-bit ELF (System V ABI, chapters 4 and 5): one segment to load, one of notes.
fn file(loaded: &[u8], memory: u64, entry: u64, pvh_entry: u64, flat_entry: u64) -> Vec<u8> {
    const PROGRAM_HEADER: u64 = 56;
    // Behind the place to which the first bytes jump, as code.
    const PROGRAM_HEADERS: u64 = 0x80;
    let note_at = PROGRAM_HEADERS + 2 * PROGRAM_HEADER;
    let mut note = Vec::new();
    for word in [4, 8, XEN_ELFNOTE_PHYS32_ENTRY] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(b"Xen\0");
    note.extend_from_slice(&pvh_entry.to_le_bytes());

    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, value: u16| file.extend_from_slice(&value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend_from_slice(&value.to_le_bytes());
    half(&mut file, 2); // ET_EXEC
    half(&mut file, 62); // EM_X86_64
    word(&mut file, 1);
    file.extend(words(&[entry, PROGRAM_HEADERS, 0]));
    word(&mut file, 0);
    for value in [64, PROGRAM_HEADER as u16, 2, 64, 0, 0] {
        half(&mut file, value);
    }
    file.resize(PROGRAM_HEADERS as usize, 0);
    word(&mut file, 1); // PT_LOAD
    word(&mut file, 7); // all of it is read, written and executed
    file.extend(words(&[
        FILE_FRONT as u64,
        BASE,
        BASE,
        loaded.len() as u64,
        memory,
        0x1000,
    ]));
    word(&mut file, 4); // PT_NOTE
    word(&mut file, 4);
    let length = note.len() as u64;
    file.extend(words(&[note_at, 0, 0, length, length, 4]));
    file.extend(note);
    file.resize(FILE_FRONT, 0);
    flat::add(&mut file, FILE_FRONT, BASE, loaded.len(), flat_entry);
    file.extend_from_slice(loaded);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: ImageContents = ImageContents {
        samples: 250,
        warm_up: 50,
        batches: 5,
        batch_length: 100,
        multiboot: true,
    };

    #[test]
    fn every_row_that_can_be_in_an_image_is_and_fits() {
        let rows: Vec<&Row> = crate::ROWS
            .iter()
            .filter(|row| obstacle(row).is_none())
            .collect();
        assert!(rows.len() > 40, "{}", rows.len());
        let image = elf(&rows, &PLAN);
        // Memory that it takes, by its program header; see `file`.
        let memory = u64::from_le_bytes(image[0xa8..0xb0].try_into().expect("8 bytes"));
        let size = image.len() as u64 - FILE_FRONT as u64;
        assert!(size < memory && BASE + memory <= crate::layout::SCRATCH);
        // Kept apart from where kvmtool puts the file, and from what it is copied to.
        let low_end = flat::LOADED + image.len() as u64;
        assert!(low_end < LOW_CODE_END, "{low_end:#x}");
    }

    #[test]
    fn a_program_differs_by_its_two_words_to_the_vmm_only() {
        for row in crate::ROWS.iter().filter(|row| obstacle(row).is_none()) {
            for program in [row.program(false), row.program(true)] {
                let patched = patched_program(&program);
                let differs = std::iter::zip(program.code, &patched)
                    .filter(|(before, after)| before != after)
                    .count();
                assert_eq!(
                    (patched.len(), differs),
                    (program.code.len(), 4),
                    "{}",
                    row.name
                );
            }
        }
    }

    #[test]
    fn what_needs_the_vmm_is_in_no_image() {
        for (row, why) in [
            ("ipi", "two vCPUs"),
            ("nested_page_fault", "pages"),
            ("irqfd_loopback", "irqfd"),
            ("pci-io-wildcard-eventfd", "ioeventfd"),
        ] {
            let row = crate::find(row).expect("a row");
            assert!(
                obstacle(row).is_some_and(|what| what.contains(why)),
                "{}",
                row.name
            );
        }
        assert!(rows().all(|row| obstacle(row).is_none()));
    }
}
