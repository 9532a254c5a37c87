//! The image by itself: what it is, and that it boots by either of two protocols.

use std::process::Command;

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::common::{Said, exitpath, installed_qemu};

/// What a VMM that loads flat files does, as the last bytes of a PC's memory: data and code segment
/// 0x1000, and to the file's first byte.
fn firmware_that_jumps_to_real_mode_code() -> Vec<u8> {
    // mov ax, 0x1000; mov ds, ax; jmp 0x1000:0
    let code = [0xb8, 0x00, 0x10, 0x8e, 0xd8, 0xea, 0x00, 0x00, 0x00, 0x10];
    let mut firmware = vec![0x90; 0x1_0000];
    firmware[0xfff0..0xfffa].copy_from_slice(&code);
    firmware
}

#[test]
fn it_boots_by_multiboot_by_pvh_and_flat_with_nothing_in_low_memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let image = dir.path().join("image.elf");
    let firmware = dir.path().join("firmware.bin");
    std::fs::write(&firmware, firmware_that_jumps_to_real_mode_code()).expect("a file");
    for (more, entered) in [
        (&[][..], "1"),
        (&["--no-multiboot"][..], "0"),
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

        let Some(qemu) = installed_qemu() else { return };
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
        if entered == "3" {
            let file = format!("loader,addr=0x10000,force-raw=on,file={}", image.display());
            boot.args(["-device", &file, "-bios"]).arg(&firmware);
        } else {
            boot.arg("-kernel").arg(&image);
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
