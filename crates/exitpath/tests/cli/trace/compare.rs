//! Two kernels that differ in one instruction, and kernels that cannot be judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol};

use super::{Lab, lab, list, number, the};
use crate::common::{Said, exitpath};

/// `xchg %ax,%ax`, a NOP of two bytes.
const WIDE_NOP: [u8; 2] = [0x66, 0x90];
/// Two NOPs of one.
const TWO_NOPS: [u8; 2] = [0x90, 0x90];
/// How a signed module ends.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// A function of `kvm` with a wide NOP in it that runs once, and the NOP's offset.
fn function_with_nop(lab: &Lab) -> (String, u64) {
    let path = lab.row("cpuid");
    let of_kvm = list(&path, "functions")
        .iter()
        .filter(|function| function["module"] == "kvm" && number(function, "calls") == 1);
    for name in of_kvm.filter_map(|function| function["name"].as_str()) {
        let text = lab.view(&["cpuid", "--annotate", name]);
        let offset = text.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["1", _, _, offset, "xchg", "%ax,%ax"] => {
                    u64::from_str_radix(offset.strip_prefix("+0x")?, 16).ok()
                }
                _ => None,
            }
        });
        if let Some(offset) = offset {
            return (name.to_owned(), offset);
        }
    }
    panic!("no function of kvm on the path of cpuid has a NOP of two bytes");
}

/// A copy of the kernel's modules in which this function takes one instruction more.
fn with_one_more(lab: &Lab, function: &str, offset: u64, dir: &Path) -> PathBuf {
    let copy = dir.join("modules");
    let copied = Command::new("cp")
        .arg("-r")
        .args([lab.modules, &copy])
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
    let release = fs::read_dir(&copy).expect("releases").flatten().next();
    let release = release.expect("a release").path();
    let file = release.join("kernel/arch/x86/kvm/kvm.ko");
    if !file.exists() {
        // Debian 13 compresses modules.
        let mut unpack = Command::new("xz");
        unpack.arg("-d").arg(file.with_extension("ko.xz"));
        assert!(unpack.status().is_ok_and(|status| status.success()));
    }
    let mut module = unsigned(fs::read(&file).expect("the module"));
    let elf = object::File::parse(module.as_slice()).expect("an ELF file");
    let symbol = elf.symbol_by_name(function).expect("its symbol");
    let section = symbol.section_index().expect("its section");
    let section = elf.section_by_index(section).expect("its section");
    let (start, _) = section.file_range().expect("bytes in the file");
    let at = usize::try_from(start + symbol.address() + offset).expect("a place in memory");
    let nop = &mut module[at..at + WIDE_NOP.len()];
    assert_eq!(nop, WIDE_NOP, "{function}+{offset:#x}");
    nop.copy_from_slice(&TWO_NOPS);
    fs::write(&file, module).expect("a module");
    copy
}

/// Without its signature, which would be wrong: that is refused, and none is not.
fn unsigned(mut module: Vec<u8>) -> Vec<u8> {
    if let Some(signed) = module.strip_suffix(SIGNED) {
        // Before the last words are 12 bytes on the signature, which end in its length.
        let (signed, length) = signed.split_at(signed.len() - 4);
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        module.truncate(signed.len() - 8 - length as usize);
    }
    module
}

/// Judges a kernel, with as many rounds as the recording has: other rounds or rows are another boot, in
/// which KVM's memory lies elsewhere, and that is worth an instruction at times.
fn gate(lab: &Lab, args: &[&str]) -> Said {
    let mut command = exitpath(&["gate", "--rounds", "100", "--qemu"]);
    Said::of(command.arg(&lab.qemu).args(args))
}

#[test]
fn one_instruction_more_is_found_and_named() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let (function, offset) = function_with_nop(lab);
    let patched = with_one_more(lab, &function, offset, dir.path());
    let [image, modules, patched, base] = [lab.image, lab.modules, &patched, &lab.recording]
        .map(|path| path.to_str().expect("a plain path"));

    let args = ["diff", "--seed", "1", "--rounds", "100", "--json"];
    let said = Said::of(
        exitpath(&args)
            .args(super::ROWS)
            .args(["--kernel", image, "--modules", modules])
            .args(["--kernel", image, "--modules", patched])
            .args(["--gate", "0", "--qemu"])
            .arg(&lab.qemu),
    );
    assert_eq!(said.status, Some(1), "it grew: {}", said.stderr);
    let diff = said.json();
    assert_eq!(diff["comparable"], true);
    assert_eq!(diff["verdict"], "different");
    assert_eq!(diff["unit"], "instructions");
    let row = the(list(&diff, "rows"), "name", "cpuid");
    let timed = number(&lab.row("cpuid"), "guest_timed");
    assert_eq!((number(row, "a"), number(row, "b")), (timed, timed + 1));
    assert_eq!(number(row, "delta"), 1);
    assert_eq!(number(row, "seeds_agreeing"), 1);
    let functions = list(row, "functions");
    // Callers follow it: they differ with everything they call, and not by themselves.
    assert!(
        functions[1..]
            .iter()
            .all(|other| number(other, "delta") == 0)
    );
    assert_eq!(functions[0]["name"], function.as_str());
    assert_eq!(functions[0]["module"], "kvm");
    assert_eq!(number(&functions[0], "delta"), 1);
    assert_eq!(functions[0]["presence"], "both");

    // The same, as a bisection asks it.
    let out = dir.path().join("judged");
    let out = out.to_str().expect("a plain path");
    let kernel = ["--kernel", image, "--modules", patched, "--base", base];
    let said = gate(lab, &kernel);
    assert_eq!(said.status, Some(1), "{}", said.stderr);
    assert_eq!(said.stdout.lines().count(), 2, "{}", said.stdout);
    let line = said.stdout.lines().find(|line| line.starts_with("cpuid "));
    let line = line.unwrap_or_else(|| panic!("no cpuid: {}", said.stdout));
    let named = format!("(+1): {function} +1 [seeds 1/1]");
    assert!(line.ends_with(&named), "{line}");
    let one = ["--max-growth", "100", "--out", out, "cpuid"];
    let allowed = gate(lab, &[&kernel[..], &one].concat());
    assert_eq!(allowed.status, Some(0), "{}", allowed.stderr);
    let line = allowed.stdout.trim_end();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("cpuid "), "{line}");
    assert!(line.contains(&format!("{function} +1")), "{line}");

    // That recording has one row, and the base has two.
    let said = Said::of(&mut exitpath(&["diff", "--json", base, out]));
    said.fails(2, &["cannot be compared", "only A has inl_from_qemu"]);
    let diff = said.json();
    assert_eq!(diff["comparable"], false);
    assert_eq!(diff["verdict"], serde_json::Value::Null);
    let reason = diff["reason"].as_str().expect("a reason");
    assert!(reason.contains("inl_from_qemu"), "{reason}");
}

#[test]
fn a_kernel_is_what_its_own_recording_says() {
    let Some(lab) = lab() else { return };
    let base = lab.recording.to_str().expect("a plain path");
    let said = gate(lab, &["--kernel", lab.release, "--base", base]);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let mut lines: Vec<&str> = said.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 2, "both rows of the base: {lines:?}");
    for (line, row) in lines.iter().zip(super::ROWS) {
        assert!(line.starts_with(&format!("{row} ")), "{line}");
        assert!(line.ends_with("unchanged [seeds 1/1]"), "{line}");
    }
    let diff = Said::of(&mut exitpath(&[
        "diff", "--json", "--gate", "0", base, base,
    ]));
    assert_eq!(diff.status, Some(0), "{}", diff.stderr);
    assert_eq!(diff.json()["verdict"], "same");
}

#[test]
fn what_cannot_be_judged_is_skipped_by_a_bisection() {
    let Some(lab) = lab() else { return };
    let base = lab.recording.to_str().expect("a plain path");
    let gate = |args: &[&str]| gate(lab, args);
    let unjudged = |said: Said, pieces: &[&str]| {
        said.fails(125, pieces);
        said.fails(125, &["cannot be judged"]);
        assert_eq!(said.stdout, "", "no verdict");
    };
    let kernel = ["--kernel", lab.release];
    unjudged(
        gate(&["--kernel", "/bin/ls", "--base", base]),
        &["/bin/ls is not a kernel"],
    );
    unjudged(
        gate(&["--kernel", "/nonexistent/bzImage", "--base", base]),
        &["/nonexistent/bzImage"],
    );
    unjudged(
        gate(&[&kernel[..], &["--base", base, "inl_from_kernel"]].concat()),
        &["the base has no trace of inl_from_kernel"],
    );
    let measured =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/lab-6.1-qemu7.2");
    let measured = measured.to_str().expect("a plain path");
    unjudged(
        gate(&[&kernel[..], &["--base", measured]].concat()),
        &["has no instructions"],
    );
    // Another CPU model than the base's: told before anything boots.
    unjudged(
        gate(
            &[
                &kernel[..],
                &["--base", base, "cpuid", "--cpu", "EPYC-Rome"],
            ]
            .concat(),
        ),
        &["the base was recorded with -cpu EPYC-Milan, not EPYC-Rome"],
    );
}
