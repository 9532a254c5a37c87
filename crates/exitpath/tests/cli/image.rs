//! The image by itself: what it is, and that it boots in each of the four ways.

use std::process::Command;

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::common::{Said, exitpath, qemu_in_path};

/// The last 64 KiB of a PC's first megabyte, where a CPU begins at 0xfff0, with code there.
fn firmware(code: &[u8]) -> Vec<u8> {
    let mut firmware = vec![0x90; 0x1_0000];
    firmware[0xfff0..0xfff0 + code.len()].copy_from_slice(code);
    firmware
}

/// What a VMM that loads flat files does: data and code segment 0x1000, and to the file's first
/// byte.
fn that_jumps_to_real_mode_code() -> Vec<u8> {
    // mov ax, 0x1000; mov ds, ax; jmp 0x1000:0
    firmware(&[0xb8, 0x00, 0x10, 0x8e, 0xd8, 0xea, 0x00, 0x00, 0x00, 0x10])
}

/// What a VMM does that enters an ELF file as a 64-bit Linux: long mode, the first 8 MiB mapped to
/// themselves by tables in low memory, and to the file's entry.
fn that_jumps_to_64_bit_code(entry: u32) -> Vec<u8> {
    let mut code = vec![0x31, 0xc0, 0x8e, 0xd8]; // xor ax, ax; mov ds, ax
    code.extend([0xc7, 0x06, 0x00, 0x10, 0x03, 0x20]); // mov word [0x1000], 0x2003
    code.extend([0xc7, 0x06, 0x00, 0x20, 0x03, 0x30]); // mov word [0x2000], 0x3003
    for n in 0..4 {
        code.extend([0xc6, 0x06, 8 * n, 0x30, 0x83]); // mov byte [0x3000 + 8 * n], 0x83
        code.extend([0xc6, 0x06, 8 * n + 2, 0x30, 0x20 * n]); // its address, n * 2 MiB
    }
    code.extend([0x66, 0xb8, 0x00, 0x10, 0x00, 0x00]); // mov eax, 0x1000
    code.extend([0x0f, 0x22, 0xd8]); // mov cr3, eax
    code.extend([0x66, 0xb8, 0x20, 0x00, 0x00, 0x00]); // mov eax, PAE
    code.extend([0x0f, 0x22, 0xe0]); // mov cr4, eax
    code.extend([0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0]); // mov ecx, EFER
    code.extend([0x66, 0xb8, 0x00, 0x01, 0x00, 0x00]); // mov eax, LME
    code.extend([0x66, 0x31, 0xd2, 0x0f, 0x30]); // xor edx, edx; wrmsr
    code.extend([0x2e, 0x0f, 0x01, 0x16, 0xe0, 0xfe]); // lgdt cs:[0xfee0]
    code.extend([0x66, 0xb8, 0x11, 0x00, 0x00, 0x80]); // mov eax, PG | PE
    code.extend([0x0f, 0x22, 0xc0]); // mov cr0, eax
    code.extend([0x66, 0xea]); // jmp 8:entry
    code.extend(entry.to_le_bytes());
    code.extend([0x08, 0x00]);
    // jmp 0xf000:0xff00: below 1 MiB, where the tables map it.
    let mut firmware = firmware(&[0xea, 0x00, 0xff, 0x00, 0xf0]);
    firmware[0xff00..0xff00 + code.len()].copy_from_slice(&code);
    let gdt = [0u64, 0x00af_9b00_0000_ffff].map(u64::to_le_bytes).concat();
    firmware[0xfec0..0xfed0].copy_from_slice(&gdt);
    let gdtr = [&15u16.to_le_bytes()[..], &0xf_fec0u32.to_le_bytes()].concat();
    firmware[0xfee0..0xfee6].copy_from_slice(&gdtr);
    firmware
}

#[test]
fn it_boots_in_all_four_ways_with_nothing_in_low_memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let image = dir.path().join("image.elf");
    let firmware = dir.path().join("firmware.bin");
    for (more, entered) in [
        (&[][..], "1"),
        (&["--no-multiboot"][..], "0"),
        (&[][..], "2"),
        (&[][..], "3"),
    ] {
        let mut make = exitpath(&["image", "empty", "nop", "--samples", "20", "-o"]);
        let said = Said::of(make.arg(&image).args(more));
        assert_eq!(said.status, Some(0), "{}", said.stderr);

        let bytes = std::fs::read(&image).expect("it was written");
        let header = elf::FileHeader64::<Endianness>::parse(&*bytes).expect("an ELF for 64 bits");
        let endian = header.endian().expect("an ELF");
        let segments = header.program_headers(endian, &*bytes).expect("segments");
        let of_type = |kind| segments.iter().filter(move |s| s.p_type(endian) == kind);
        assert_eq!(of_type(elf::PT_NOTE).count(), 1);
        for segment in of_type(elf::PT_LOAD) {
            assert!(
                segment.p_paddr(endian) >= 0x10_0000,
                "VMMs put their structures there"
            );
        }

        let Some(qemu) = qemu_in_path() else { return };
        let mut boot = Command::new(qemu);
        boot.args([
            "-accel",
            "tcg",
            "-icount",
            "shift=0",
            "-nodefaults",
            "-no-reboot",
        ]);
        boot.args(["-display", "none", "-serial", "stdio"]);
        boot.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        let entry = u32::try_from(header.e_entry(endian)).expect("below 4 GiB");
        let (code, how) = match entered {
            "2" => (that_jumps_to_64_bit_code(entry), "loader"),
            "3" => (
                that_jumps_to_real_mode_code(),
                "loader,addr=0x10000,force-raw=on",
            ),
            _ => (Vec::new(), ""),
        };
        if code.is_empty() {
            boot.arg("-kernel").arg(&image);
        } else {
            std::fs::write(&firmware, code).expect("a file");
            let file = format!("{how},file={}", image.display());
            boot.args(["-device", &file, "-bios"]).arg(&firmware);
        }
        let said = Said::of(&mut boot);
        let first = format!("xp1 0 boot {entered} 2 ");
        assert!(said.stdout.contains(&first), "{}", said.stdout);
        // Time is counted: the bracket is the same each time, and a NOP is one more.
        let samples = |difference: u64| {
            said.stdout.lines().any(|line| {
                let words = line.split(" samples ").nth(1);
                let pair = words.and_then(|words| words.strip_suffix(line.split("*20").nth(1)?));
                let pair = pair.and_then(|pair| pair.strip_suffix("*20")?.split_once(','));
                let pair = pair.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                pair.is_some_and(|(empty, op): (u64, u64)| op == empty + difference)
            })
        };
        assert!(samples(0) && samples(1), "{}", said.stdout);
        assert!(said.stdout.contains(" bye 2 "), "{}", said.stdout);
        // What it writes to isa-debug-exit, as QEMU reports it.
        assert_eq!(said.status, Some(33), "{}", said.stderr);
    }
}

#[test]
fn what_cannot_be_in_an_image_or_be_written_is_refused_in_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let there = dir.path().join("image.elf");
    let fails = |row: &str, pieces: &[&str]| {
        Said::of(exitpath(&["image", row, "-o"]).arg(&there)).fails(2, pieces);
        assert!(!there.exists());
    };
    fails("ipi", &["ipi", "two vCPUs"]);
    fails("pci-io-wildcard-eventfd", &["ioeventfd"]);
    fails("signal_mask", &["signal_mask", "exitpath's own VMM"]);
    fails("nosuchrow", &["nosuchrow", "--list"]);
    let nowhere = dir.path().join("no/such/folder/image.elf");
    Said::of(exitpath(&["image", "-o"]).arg(nowhere)).fails(2, &["cannot write", "-o"]);
}
