//! Lines and inlined functions, of this test's own program and of what a C compiler makes: object
//! files are to be relocated as kernel modules are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use exitpath_names::{Error, Frame, Lines, kernel_lines, load_bias, locations, maps};
use exitpath_recording::{Instruction, Location, Space, Symbol};
use exitpath_testing::{Need, skipped};
use proptest::prelude::*;

/// Two functions in two sections, the first with two inlined into it.
const MODULE: &str = "\
static inline __attribute__((always_inline)) int innermost(int x) {
    return x * 1234567;
}
static inline __attribute__((always_inline)) int inner(int *x) {
    return innermost(*x) ^ 5;
}
int outer(int *x) {
    return inner(x);
}
__attribute__((section(\".text.unlikely\"))) int apart(int *x) {
    return *x / 3;
}
";
const TEXT: u64 = 0xffff_ffff_c023_0000;
const UNLIKELY: u64 = 0xffff_ffff_c025_a120;

/// An object file of [`MODULE`] named as a module is; nothing without a compiler.
fn module(dir: &Path, options: &[&str]) -> Option<PathBuf> {
    let (source, object) = (dir.join("module.c"), dir.join("kvm-amd.ko"));
    fs::write(&source, MODULE).unwrap();
    let done = Command::new("cc")
        .current_dir(dir)
        .args(["-O2", "-fno-toplevel-reorder", "-c", "module.c", "-o"])
        .arg(&object)
        .args(options)
        .status();
    if !done.is_ok_and(|status| status.success()) {
        skipped(Need::Tools, format!("no C compiler that takes {options:?}"));
        return None;
    }
    Some(object)
}

fn symbol(address: u64, name: &str, module: &str) -> Symbol {
    Symbol {
        space: Space::Kernel,
        address,
        size: 64,
        name: name.into(),
        module: module.into(),
        condition: None,
    }
}

fn kernel_symbols() -> Vec<Symbol> {
    vec![
        symbol(0xffff_ffff_8100_0000, "outer", "vmlinux"),
        symbol(TEXT, "outer", "kvm_amd"),
        symbol(UNLIKELY, "apart", "kvm_amd"),
    ]
}

/// Distinct answers for the first bytes at an address.
fn frames(lines: &Lines, start: u64) -> Vec<Vec<Frame>> {
    let mut all: Vec<_> = (start..start + 12)
        .map(|address| lines.locate(address).unwrap())
        .collect();
    all.dedup();
    all
}

fn frame(function: &str, line: u32) -> Frame {
    Frame {
        function: function.into(),
        file: "module.c".into(),
        line,
    }
}

#[test]
fn inlined_functions_are_found_in_a_module_where_it_was_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let zstd = &["-g", "-Wa,--compress-debug-sections=zstd"];
    for options in [&["-g"][..], &["-g", "-gz=zlib"], zstd, &["-gdwarf-4"]] {
        let Some(path) = module(dir.path(), options) else {
            continue;
        };
        let mut lines = Lines::open(&path).unwrap();
        assert_eq!(lines.locate(TEXT).unwrap(), [], "it was not placed");
        lines.place(&kernel_symbols(), "kvm_amd").unwrap();
        let outer = frames(&lines, TEXT);
        let inlined = vec![frame("outer", 8), frame("inner", 5), frame("innermost", 2)];
        assert!(outer.contains(&inlined), "{options:?}: {outer:?}");
        let apart = frames(&lines, UNLIKELY);
        assert!(apart.contains(&vec![frame("apart", 11)]), "{apart:?}");
        assert_eq!(lines.locate(TEXT - 1).unwrap(), []);
        assert_eq!(lines.locate(0).unwrap(), []);
        assert_eq!(lines.locate(u64::MAX).unwrap(), []);
    }
}

#[test]
fn a_module_of_another_build_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = module(dir.path(), &["-g"]) else {
        return;
    };
    let mut lines = Lines::open(&path).unwrap();
    let others = [symbol(TEXT, "inner", "kvm_amd")];
    let error = lines.place(&others, "kvm_amd").unwrap_err();
    assert!(matches!(error, Error::AnotherBuild { .. }), "{error}");
    // Nothing ran of it.
    lines.place(&kernel_symbols(), "ccp").unwrap();
    assert_eq!(lines.locate(TEXT).unwrap(), []);
}

#[test]
fn locations_are_in_order_and_leave_the_guest_out() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = module(dir.path(), &["-g"]) else {
        return;
    };
    let mut symbols = kernel_symbols();
    symbols.remove(0);
    let files = kernel_lines(Path::new("/no/vmlinux"), &[path], &symbols).unwrap();
    assert_eq!(files.len(), 1, "no symbol of vmlinux, so it is not opened");
    let guest = Symbol {
        space: Space::Guest,
        ..symbol(0x1000, "operation", "guest")
    };
    symbols.insert(0, guest);
    let inlined = (TEXT..)
        .find(|address| files[0].locate(*address).unwrap().len() == 3)
        .unwrap();
    let at = |address| Instruction {
        address,
        bytes: vec![0x90],
    };
    let instructions = [at(UNLIKELY), at(0x1000), at(TEXT - 1), at(inlined)];
    let found = locations(&instructions, &symbols, &files).unwrap();
    let location = |instruction, depth, function: &str, line| Location {
        instruction,
        depth,
        function: function.into(),
        file: "module.c".into(),
        line,
    };
    assert_eq!(found[0].function, "apart");
    assert_eq!(
        found[1..],
        [
            location(3, 0, "outer", 8),
            location(3, 1, "inner", 5),
            location(3, 2, "innermost", 2),
        ]
    );
}

/// A function whose line is known.
#[inline(never)]
fn landmark(x: u64) -> u64 {
    std::hint::black_box(x).wrapping_mul(3)
}
const LANDMARK: u32 = line!() - 4;

#[test]
fn the_own_program_has_lines_where_it_runs() {
    assert_eq!(landmark(2), 6);
    let here = landmark as fn(u64) -> u64 as usize as u64;
    let path = Path::new("/proc/self/exe");
    let mappings = maps(&fs::read_to_string("/proc/self/maps").unwrap());
    let mut mappings = mappings.into_iter();
    let mapping = mappings.find(|m| m.start <= here && here < m.end).unwrap();
    let bias = load_bias(&mapping, &fs::read(path).unwrap()).unwrap();
    let lines = match Lines::open(path) {
        Ok(lines) => lines.place_at(bias),
        // A release has none.
        Err(Error::NoDebugInformation { .. }) => {
            return skipped(Need::Build, "this test was built without debug information");
        }
        Err(e) => panic!("{e}"),
    };
    let frames = lines.locate(here).unwrap();
    assert!(frames[0].file.ends_with("tests/lines.rs"), "{frames:?}");
    assert!(
        (LANDMARK..LANDMARK + 4).contains(&frames[0].line),
        "{frames:?}"
    );
}

#[test]
fn files_without_lines_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| Lines::open(path).unwrap_err();
    assert!(matches!(open(&dir.path().join("no")), Error::Io { .. }));
    assert!(matches!(open(dir.path()), Error::Io { .. }));
    let text = dir.path().join("text");
    fs::write(&text, "#!/bin/sh\n").unwrap();
    assert!(matches!(open(&text), Error::NotElf { .. }));
    if let Some(path) = module(dir.path(), &["-g0"]) {
        let error = open(&path);
        assert!(matches!(error, Error::NoDebugInformation { .. }), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

/// Damaged files: whatever their bytes say, there is an answer or an error, and soon.
#[test]
fn a_damaged_file_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut wholes = Vec::new();
    for options in [&["-g"][..], &["-g", "-gz=zlib"]] {
        let path = module(dir.path(), options);
        wholes.extend(path.map(|path| fs::read(path).unwrap()));
    }
    if wholes.is_empty() {
        return;
    }
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24);
    let cut = prop::option::of(any::<prop::sample::Index>());
    let which = any::<prop::sample::Index>();
    let path = dir.path().join("damaged.ko");
    let config = ProptestConfig {
        // The test is not beside the library's root, where proptest would keep them.
        failure_persistence: None,
        ..ProptestConfig::with_cases(400)
    };
    proptest!(config, |(damage in damage, cut in cut, which in which)| {
        let mut bytes = wholes[which.index(wholes.len())].clone();
        for (index, value) in damage {
            let place = index.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(mut lines) = Lines::open(&path) {
            let _ = lines.place(&kernel_symbols(), "kvm_amd");
            for address in (TEXT..TEXT + 16).chain(UNLIKELY..UNLIKELY + 16) {
                let _ = lines.locate(address);
            }
        }
    });
}
