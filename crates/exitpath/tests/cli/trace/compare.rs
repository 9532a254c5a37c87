//! Two kernels that differ in one instruction, and kernels that cannot be judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use exitpath_testing::{Need, skipped};
use object::{Object, ObjectSection, ObjectSymbol};

use super::{Lab, lab, list, number, the};
use crate::common::{Said, exitpath, installed_qemu};

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
                ["1", .., offset, "xchg", "%ax,%ax"] => {
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
    let fake = Unbooted::new(&lab.qemu);
    let unjudged = |kernel: &[&str], pieces: &[&str]| {
        let said = fake.says(&[&["gate", "--base", base], kernel].concat());
        said.fails(125, pieces);
        said.fails(125, &["cannot be judged"]);
        assert_eq!(said.stdout, "", "no verdict");
    };
    unjudged(&["--kernel", "/bin/ls"], &["/bin/ls is not a kernel"]);
    let nowhere = "/nonexistent/bzImage";
    unjudged(&["--kernel", nowhere], &[nowhere]);
    // Another kernel's modules are none of its own.
    let empty = tempfile::tempdir().expect("a folder");
    let empty = empty.path().to_str().expect("a plain path");
    unjudged(
        &["--kernel", lab.release, "--modules", empty],
        &["no module 'kvm_amd'"],
    );
}

/// What ends that lab is not its time limit: the words say what did.
#[test]
fn a_kernel_that_waits_for_ever_before_init_cannot_be_judged() {
    let Some(lab) = lab() else { return };
    let waits = "rdinit=/nonexistent root=/dev/nonexistent rootwait";
    let mut gate = exitpath(&["gate", "cpuid", "--cmdline", waits, "--rounds", "100"]);
    gate.args(["--kernel", lab.release]);
    gate.arg("--base").arg(&lab.recording);
    gate.arg("--qemu").arg(&lab.qemu);
    Said::of(&mut gate).fails(
        125,
        &[
            "does nothing any more",
            "passed by its own clock without a word before its kernel reached init",
        ],
    );
}

#[test]
fn what_is_wrong_with_the_base_is_no_verdict_on_a_kernel() {
    let Some(lab) = lab() else { return };
    let base = lab.recording.to_str().expect("a plain path");
    let fake = Unbooted::new(&lab.qemu);
    let wrong = |args: &[&str], pieces: &[&str]| {
        let said = fake.says(&[&["gate", "--kernel", lab.release], args].concat());
        said.fails(2, pieces);
        assert_eq!(said.stdout, "", "no verdict");
    };
    let of_base = |args: &[&str], pieces: &[&str]| {
        let name = format!("the base {} cannot be used", args[1]);
        wrong(args, &[&[name.as_str()], pieces].concat());
    };
    of_base(&["--base", "/nonexistent/typo.rec"], &["typo.rec"]);
    of_base(&["--base", "/bin/ls"], &["/bin/ls is not a kernel"]);
    let measured =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/lab-6.1-qemu7.2");
    let measured = measured.to_str().expect("a plain path");
    of_base(&["--base", measured], &["has no instructions"]);
    let empty = tempfile::tempdir().expect("a folder");
    let empty = empty.path().to_str().expect("a plain path");
    of_base(&["--base", empty], &[]);
    of_base(
        &["--base", lab.release, "--base-modules", empty],
        &["no module 'kvm_amd'"],
    );
    // What a base was recorded with.
    of_base(
        &["--base", base, "inl_from_kernel"],
        &["no trace of inl_from_kernel"],
    );
    of_base(
        &["--base", base, "--cpu", "EPYC-Rome"],
        &["recorded with -cpu EPYC-Milan, not EPYC-Rome"],
    );
    of_base(
        &["--base", base, "--seed", "1,2"],
        &["recorded with --seed 1, not 1,2"],
    );
    let other =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/trace-6.1-qemu7.2");
    let mut copy = exitpath_store::read(&other).expect("a recording");
    copy.manifest.environment.qemu = Some("1.2.3".to_owned());
    let altered = tempfile::tempdir().expect("a folder");
    let altered = altered.path().join("altered");
    exitpath_store::write(&altered, &copy).expect("a folder to write to");
    let altered = altered.to_str().expect("a plain path");
    of_base(
        &["--base", altered, "cpuid"],
        &["QEMU 1.2.3", "--qemu PATH"],
    );
    // What is wrong with the command line.
    wrong(&["--base", base, "cpiud"], &["no row is called 'cpiud'"]);
    wrong(
        &["--base", base, "--base-modules", empty],
        &["--base-modules", "is a recording"],
    );
    wrong(&["--base", base, "--out", base], &["not an empty folder"]);
}

#[test]
fn both_kernels_are_looked_at_before_one_is_traced() {
    let Some(lab) = lab() else { return };
    let fake = Unbooted::new(&lab.qemu);
    let diff = ["diff", "cpuid", "--kernel", lab.release, "--kernel"];
    let said = fake.says(&[&diff[..], &["/nonexistent/bzImage"]].concat());
    said.fails(2, &["/nonexistent/bzImage"]);
    let empty = tempfile::tempdir().expect("a folder");
    let empty = empty.path().to_str().expect("a plain path");
    let image = lab.image.to_str().expect("a plain path");
    let modules = lab.modules.to_str().expect("a plain path");
    let modules = ["--modules", modules, "--modules", empty];
    let said = fake.says(
        &[
            &["diff", "cpuid", "--kernel", image, "--kernel", image],
            &modules[..],
        ]
        .concat(),
    );
    said.fails(3, &["no module 'kvm_amd'", empty]);
}

/// A QEMU that says its version and tells whether it was asked to boot anything.
struct Unbooted {
    dir: tempfile::TempDir,
    qemu: String,
}

impl Unbooted {
    fn new(qemu: &Path) -> Unbooted {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("qemu");
        let booted = dir.path().join("booted");
        // It answers what it is asked, such as which CPU it has.
        let prefix = qemu.parent().and_then(Path::parent).expect("a folder");
        let share = prefix.join("share").display().to_string();
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in\n*' -kernel '*) echo > '{}'; exit 1 ;;\nesac\n\
             exec '{}' -L '{share}/qemu' -L '{share}/seabios' -L /usr/share/seabios \"$@\"\n",
            booted.display(),
            qemu.display()
        );
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
        let qemu = path.to_str().expect("a plain path").to_owned();
        Unbooted { dir, qemu }
    }

    /// What a command says without having booted anything.
    #[track_caller]
    fn says(&self, args: &[&str]) -> Said {
        let said = Said::of(exitpath(args).args(["--qemu", &self.qemu]));
        assert!(!self.dir.path().join("booted").exists(), "{args:?} booted");
        said
    }
}

/// Where the lab's clock stood in a recording's first boot when the plan was read.
fn begun(recording: &Path) -> u64 {
    let recording = exitpath_store::read(recording).expect("a recording");
    let boots = &recording.manifest.environment.facts["lab.boots"];
    boots[0]["begun_ticks"].as_u64().expect("the clock")
}

#[test]
fn a_row_is_the_same_in_whichever_company() {
    let Some(lab) = lab() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("alone");
    let base = lab.recording.to_str().expect("a plain path");
    let args = ["--kernel", lab.release, "--base", base, "cpuid", "--out"];
    let said = gate(
        lab,
        &[&args[..], &[out.to_str().expect("a plain path")]].concat(),
    );
    assert_eq!(said.status, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(
        said.stdout.ends_with(" unchanged [seeds 1/1]\n"),
        "{}",
        said.stdout
    );
    // Not by chance: up to where the plan is read, the two boots were the same to the instruction.
    assert_eq!(begun(&out), begun(&lab.recording));
}

#[test]
fn a_nop_that_became_a_mitigation_is_a_difference() {
    let Some(qemu) = installed_qemu() else { return };
    let fetched = Said::of(&mut exitpath(&["lab", "kernels", "6.12"]));
    if fetched.status != Some(0) {
        let why = format!("no kernel 6.12 to be had: {}", fetched.stderr);
        return skipped(Need::OtherKernel, why);
    }
    let dir = tempfile::tempdir().expect("a folder");
    let trace = |name: &str, cmdline: &str| {
        let out = dir.path().join(name);
        let args = [
            "trace", "cpuid", "--kernel", "6.12", "--rounds", "50", "--seed", "1",
        ];
        let mut command = exitpath(&args);
        command.args(["--cmdline", cmdline, "--qemu"]).arg(&qemu);
        let said = Said::of(command.arg("--out").arg(&out));
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        out
    };
    let (on, off) = (trace("on", ""), trace("off", "tsa=off"));
    let diff = |args: &[&str]| Said::of(exitpath(&["diff"]).args([&off, &on]).args(args));
    let said = diff(&["--json", "--gate", "0"]);
    assert_eq!(said.status, Some(1), "VERW is new: {}", said.stderr);
    let told = said.json();
    assert_eq!(told["verdict"], "different");
    let row = &list(&told, "rows")[0];
    assert_eq!((number(row, "delta"), &row["paths"]), (0, &"differ".into()));
    assert_eq!(list(row, "functions").len(), 0);
    assert_eq!(
        row["classes"],
        serde_json::json!([{"class": "buffer-clear", "a": 0, "b": 1, "delta": 1}])
    );
    let instructions = list(row, "instructions");
    assert_eq!(instructions.len(), 1, "{row}");
    assert_eq!(instructions[0]["function"], "__svm_vcpu_run");
    let text = |side: &str| {
        instructions[0][side]
            .as_str()
            .expect("an instruction")
            .to_owned()
    };
    assert!(
        text("a").starts_with("nop") && text("b").starts_with("verw"),
        "{row}"
    );
    assert_eq!(diff(&["--gate", "1"]).status, Some(0));
    let words = diff(&[]).stdout;
    assert!(
        words.contains("the same number, 1 instruction differs: __svm_vcpu_run+"),
        "{words}"
    );
}
