//! Symbols from text and bytes: made up ones, this test's own program, any bytes at all.

use std::fs;

use exitpath_names::{Error, Mapping, cover, elf, kallsyms, load_bias, maps};
use exitpath_recording::{Instruction, Space, Symbol};
use exitpath_testing::{Need, skipped};
use proptest::prelude::*;

/// From 6.1 and 6.12, shortened; modules' symbols are not in order there, either.
const KALLSYMS: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T startup_64
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000040 T secondary_startup_64
ffffffff810004c0 t __pfx_verify_cpu
ffffffff810004d0 t verify_cpu
ffffffff819fa010 T __memset
ffffffff819fa010 W memset
ffffffff819fa030 T __noinstr_text_start
ffffffff819fa030 t exc_divide_error
ffffffff819fa060 T __noinstr_text_end
ffffffff819fa100 t __do_sys_getppid
ffffffff819fa100 T __ia32_sys_getppid
ffffffff819fa100 T __x64_sys_getppid
ffffffff82000000 T _etext
ffffffff82000000 d __func__.0
ffffffffc02b1000 t svm_vcpu_run\t[kvm_amd]
ffffffffc02b0000 t svm_prepare\t[kvm_amd]
ffffffffc02b3000 r svm_x86_ops\t[kvm_amd]
ffffffffc0230000 t kvm_init\t[kvm]
";

fn names(symbols: &[Symbol]) -> Vec<(u64, u64, &str, &str)> {
    let row = |s: &Symbol| (s.address & 0xffff_ffff, s.size);
    let all = symbols.iter();
    all.map(|s| (row(s).0, row(s).1, s.name.as_str(), s.module.as_str()))
        .collect()
}

#[test]
fn kernel_functions_have_names_and_sizes() {
    let symbols = kallsyms(KALLSYMS).unwrap();
    assert!(symbols.iter().all(|s| s.space == Space::Kernel));
    assert_eq!(
        names(&symbols),
        [
            (0x8100_0000, 0x40, "startup_64", "vmlinux"),
            (0x8100_0040, 0x480, "secondary_startup_64", "vmlinux"),
            (0x8100_04c0, 0x10, "__pfx_verify_cpu", "vmlinux"),
            (0x8100_04d0, 0x9f_9b40, "verify_cpu", "vmlinux"),
            (0x819f_a010, 0x20, "memset", "vmlinux"),
            (0x819f_a030, 0x30, "exc_divide_error", "vmlinux"),
            (0x819f_a100, 0x60_5f00, "__x64_sys_getppid", "vmlinux"),
            // The next module's is no measure of how long it is.
            (0xc023_0000, 0x1_0000, "kvm_init", "kvm"),
            (0xc02b_0000, 0x1000, "svm_prepare", "kvm_amd"),
            (0xc02b_1000, 0x2000, "svm_vcpu_run", "kvm_amd"),
        ]
    );
}

#[test]
fn hidden_addresses_are_told_from_no_symbols() {
    let hidden: String = KALLSYMS
        .lines()
        .map(|line| format!("{:016x}{}\n", 0, &line[16..]))
        .collect();
    let error = kallsyms(&hidden).unwrap_err();
    assert!(matches!(error, Error::HiddenAddresses), "{error}");
    for text in ["", "\n\n", "nonsense", "ffffffff82000000 D jiffies\n"] {
        let error = kallsyms(text).unwrap_err();
        assert!(matches!(error, Error::NoKernelSymbols { .. }), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

/// A function whose name and place are known.
#[inline(never)]
fn landmark(x: u64) -> u64 {
    std::hint::black_box(x).wrapping_mul(3)
}

/// This test's program, and the address that `landmark` has in the file.
fn own_program() -> (Vec<u8>, u64, Mapping) {
    let bytes = fs::read("/proc/self/exe").unwrap();
    let path = fs::read_link("/proc/self/exe").unwrap();
    let here = landmark as fn(u64) -> u64 as usize as u64;
    let all = maps(&fs::read_to_string("/proc/self/maps").unwrap());
    let mapping = all
        .into_iter()
        .find(|m| m.start <= here && here < m.end)
        .unwrap();
    assert_eq!(mapping.file, path.to_str().unwrap());
    assert!(!mapping.deleted);
    (bytes, here, mapping)
}

#[test]
fn the_own_program_is_named_where_it_runs() {
    let (bytes, here, mapping) = own_program();
    assert_eq!(landmark(2), 6);
    let bias = load_bias(&mapping, &bytes).unwrap();
    let symbols = elf(&bytes, "symbols", bias).unwrap();
    let own = symbols.iter().find(|s| s.address == here).unwrap();
    assert_eq!(own.name, "symbols::landmark");
    assert_eq!((own.space, own.module.as_str()), (Space::User, "symbols"));
    assert!((1..200).contains(&own.size), "{own:?}");
    for pair in symbols.windows(2) {
        assert!(
            pair[0].address + pair[0].size <= pair[1].address,
            "{pair:?}"
        );
    }
    assert!(!symbols.iter().any(|s| s.name.starts_with("_ZN")));
}

#[test]
fn the_c_library_has_its_public_names() {
    // Not the one this test is linked with, which may be a static one.
    let folders = ["/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let mut paths = folders.iter().map(|folder| format!("{folder}/libc.so.6"));
    let Some(bytes) = paths.find_map(|path| fs::read(path).ok()) else {
        return skipped(Need::Tools, "there is no shared C library");
    };
    let symbols = elf(&bytes, "libc.so.6", 0x7f00_0000_0000).unwrap();
    for name in ["ioctl", "read", "write", "clock_gettime"] {
        let named = symbols.iter().filter(|s| s.name == name);
        assert_eq!(named.count(), 1, "{name}");
    }
    assert!(!symbols.iter().any(|s| s.name == "__ioctl"));
    assert!(symbols.iter().all(|s| s.address > 0x7f00_0000_0000));
    assert!(symbols.iter().all(|s| s.size > 0));
}

#[test]
fn another_file_is_refused() {
    let (bytes, _, mut mapping) = own_program();
    assert!(matches!(
        load_bias(&mapping, b"#!/bin/sh"),
        Err(Error::NotElf { .. })
    ));
    mapping.offset = 1 << 40;
    let error = load_bias(&mapping, &bytes).unwrap_err();
    assert!(matches!(error, Error::NotMapped { .. }), "{error}");
    assert!(matches!(elf(b"\x7fELF", "x", 0), Err(Error::NotElf { .. })));
}

#[test]
fn only_named_executable_mappings_count() {
    let text = "\
00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus daemon
00651000-00652000 r--p 00051000 08:02 173521      /usr/bin/dbus daemon
7f1200000000-7f1200021000 rwxp 00000000 00:00 0
7f12b2000000-7f12b2021000 r-xp 00026000 fe:00 18   /tmp/a\\012b (deleted)
7ffd0bf9f000-7ffd0bfa1000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
nonsense
";
    let all = maps(text);
    let rows: Vec<_> = all
        .iter()
        .map(|m| (m.start, m.offset, m.file.as_str(), m.deleted))
        .collect();
    assert_eq!(
        rows,
        [
            (0x40_0000, 0, "/usr/bin/dbus daemon", false),
            (0x7f12_b200_0000, 0x26000, "/tmp/a\nb", true),
            (0x7ffd_0bf9_f000, 0, "[vdso]", false),
            (0xffff_ffff_ff60_0000, 0, "[vsyscall]", false),
        ]
    );
}

fn symbol(space: Space, address: u64, size: u64, name: &str) -> Symbol {
    Symbol {
        space,
        address,
        size,
        name: name.into(),
        module: "m".into(),
        condition: None,
    }
}

fn at(addresses: &[u64]) -> Vec<Instruction> {
    let instruction = |address: &u64| Instruction {
        address: *address,
        bytes: vec![0x90],
    };
    addresses.iter().map(instruction).collect()
}

#[test]
fn what_no_instruction_lies_in_is_left_out() {
    const HIGH: u64 = 0xffff_ffff_8000_0000;
    let symbols = vec![
        symbol(Space::Kernel, HIGH, 16, "first"),
        symbol(Space::Kernel, HIGH + 16, 16, "second"),
        symbol(Space::User, 0x1000, 16, "user"),
        symbol(Space::User, 0x1010, 16, "unused"),
        symbol(Space::Guest, 0x1000, 8, "guest"),
        symbol(Space::Guest, 0x1008, 8, "not run"),
        // No symbol of user space, whatever it says.
        symbol(Space::User, HIGH + 16, 16, "odd"),
    ];
    let kept = cover(symbols, &at(&[HIGH + 31, 0x1004, HIGH + 17, 0x1004]));
    let kept: Vec<_> = kept.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(kept, ["guest", "user", "second"]);
    assert_eq!(cover(Vec::new(), &at(&[1])), []);
}

#[test]
fn overlaps_are_taken_away() {
    let symbols = vec![
        symbol(Space::User, 100, 50, "outer"),
        symbol(Space::User, 110, 10, "inner"),
        symbol(Space::User, 140, 20, "next"),
        symbol(Space::User, 140, 20, "_next"),
        symbol(Space::User, 140, 10, "a"),
        symbol(Space::User, 150, 0, "empty"),
        symbol(Space::Guest, 145, 20, "guest"),
    ];
    let kept = cover(symbols, &at(&[100, 115, 139, 150]));
    let rows: Vec<_> = kept
        .iter()
        .map(|s| (s.name.as_str(), s.address, s.size))
        .collect();
    assert_eq!(
        rows,
        [("guest", 145, 20), ("outer", 100, 40), ("next", 140, 20)]
    );
}

fn any_symbol() -> impl Strategy<Value = Symbol> {
    let spaces = prop_oneof![Just(Space::Guest), Just(Space::User), Just(Space::Kernel)];
    let near = prop_oneof![0..40_u64, (u64::MAX - 40)..=u64::MAX, any::<u64>()];
    (spaces, near.clone(), near, "[a_.]{0,3}")
        .prop_map(|(space, address, size, name)| symbol(space, address, size, &name))
}

/// Failures are not kept: the tests are not beside the library's root, where proptest would.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(count)
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_text_is_no_panic(text in "(?s).{0,200}") {
        let _ = kallsyms(&text);
        let _ = maps(&text);
    }

    #[test]
    fn any_symbols_are_without_overlap(
        rows in prop::collection::vec((any::<u64>(), 0..24_u64, "[tTwWdDaA]", "[a-z_]{1,9}", 0..3_u8), 1..40)
    ) {
        let text: String = rows
            .iter()
            .map(|(high, low, kind, name, module)| {
                // Some near to each other, some anywhere.
                let address = if *low < 20 { 0xffff_ffff_8000_0000 + low } else { *high };
                let module = ["", "\t[kvm]", "\t[ccp]"][usize::from(*module)];
                format!("{address:016x} {kind} {name}{module}\n")
            })
            .collect();
        if let Ok(symbols) = kallsyms(&text) {
            for pair in symbols.windows(2) {
                prop_assert!(pair[0].size <= pair[1].address - pair[0].address);
            }
        }
    }

    #[test]
    fn any_maps_lines_are_no_panic(
        text in "[0-9a-f]{1,18}-[0-9a-f]{1,18} [r-][w-][x-]p [0-9a-f]{1,9} 00:00 [0-9]{0,3} {0,3}[a-z/\\[\\]()\\\\ ]{0,12}"
    ) {
        for mapping in maps(&text) {
            prop_assert!(mapping.start < mapping.end);
            let _ = load_bias(&mapping, text.as_bytes());
        }
    }

    #[test]
    fn any_cover_is_in_order_and_needed(
        symbols in prop::collection::vec(any_symbol(), 0..12),
        addresses in prop::collection::vec(prop_oneof![0..80_u64, any::<u64>()], 0..12),
    ) {
        let kept = cover(symbols, &at(&addresses));
        for pair in kept.windows(2) {
            prop_assert!(pair[0].space <= pair[1].space);
            if pair[0].space == pair[1].space {
                prop_assert!(pair[0].address < pair[1].address);
                prop_assert!(pair[0].size <= pair[1].address - pair[0].address);
            }
        }
        for symbol in &kept {
            let inside = |a: &u64| *a >= symbol.address && *a - symbol.address < symbol.size;
            prop_assert!(addresses.iter().any(inside));
        }
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = elf(&bytes, "x", 0);
        let mut headed = b"\x7fELF\x02\x01\x01\0".to_vec();
        headed.extend(bytes);
        let _ = elf(&headed, "x", u64::MAX);
        let _ = load_bias(&maps("1000-2000 r-xp 0 0:0 0 x")[0], &headed);
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_damaged_program_is_no_panic(
        changes in prop::collection::vec((0..4_usize, any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        // Small, and with both kinds of headers.
        let Ok(mut bytes) = fs::read("/bin/true") else {
            return Ok(());
        };
        let tables = bytes.len() - bytes.len().min(0x800);
        for (where_, index, value) in changes {
            let place = match where_ {
                0 => index.index(0x40),
                1 => index.index(0x400),
                2 => tables + index.index(bytes.len() - tables),
                _ => index.index(bytes.len()),
            };
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = elf(&bytes, "true", 0x1000);
        let _ = load_bias(&maps("1000-2000 r-xp 2000 0:0 0 true")[0], &bytes);
    }
}
