//! Modules in the order in which they can be loaded.

use std::fs;
use std::path::Path;

use exitpath_host::cmdline::words;
use exitpath_lab::Error;
use exitpath_lab::kernels::BootFile;
use exitpath_lab::modules::{Modules, load_order};
use exitpath_lab::parameters::Known;
use exitpath_testing::{Need, skipped};

use crate::forge;

fn write(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn names(dir: &Path, wanted: &[&str]) -> Vec<String> {
    load_order(dir, wanted)
        .unwrap()
        .into_iter()
        .map(|module| module.name)
        .collect()
}

fn kvm() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    write(
        at,
        "kernel/arch/x86/kvm/kvm-amd.ko",
        &forge::module("kvm_amd", "kvm,ccp,rng-core"),
    );
    write(
        at,
        "kernel/arch/x86/kvm/kvm.ko",
        &forge::module("kvm", "irqbypass"),
    );
    write(
        at,
        "kernel/virt/lib/irqbypass.ko",
        &forge::module("irqbypass", ""),
    );
    write(
        at,
        "kernel/drivers/crypto/ccp/ccp.ko",
        &forge::module("ccp", "rng-core"),
    );
    write(
        at,
        "modules.builtin",
        b"kernel/drivers/char/hw_random/rng-core.ko\n",
    );
    dir
}

#[test]
fn each_comes_after_what_it_depends_on_and_once() {
    let dir = kvm();
    assert_eq!(
        names(dir.path(), &["kvm_amd"]),
        ["irqbypass", "kvm", "ccp", "kvm_amd"]
    );
    assert_eq!(
        names(dir.path(), &["kvm", "kvm-amd", "kvm"]),
        ["irqbypass", "kvm", "ccp", "kvm_amd"]
    );
    assert_eq!(names(dir.path(), &["ccp", "rng_core"]), ["ccp"]);
    assert!(names(dir.path(), &["rng-core"]).is_empty());
    let modules = Modules::index(dir.path()).unwrap();
    assert!(modules.is_built_in("rng-core") && modules.is_built_in("rng_core"));
    assert!(modules.is_file("kvm_amd") && modules.is_file("kvm-amd"));
    assert!(!modules.is_file("kvm_intel"));
}

#[test]
fn compressed_ones_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let b = forge::module("b", "c");
    write(at, "a.ko.gz", &forge::gzip(&forge::module("a", "b")));
    let mut expected = vec!["b", "a"];
    match (
        forge::packed_by("xz", &b),
        forge::packed_by("zstd", &forge::module("c", "")),
    ) {
        (Some(b), Some(c)) => {
            write(at, "x/b.ko.xz", &b);
            write(at, "x/c.ko.zst", &c);
            expected.insert(0, "c");
        }
        _ => {
            skipped(Need::Tools, "xz and zstd are not both installed");
            write(at, "x/b.ko", &forge::module("b", ""));
        }
    }
    let modules = load_order(at, &["a"]).unwrap();
    let names: Vec<_> = modules.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, expected);
    assert_eq!(modules.last().unwrap().bytes, forge::module("a", "b"));
}

#[test]
fn a_circle_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (name, depends) in [
        ("start", "a"),
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("self", "self"),
    ] {
        write(
            dir.path(),
            &format!("{name}.ko"),
            &forge::module(name, depends),
        );
    }
    match load_order(dir.path(), &["start"]) {
        Err(Error::ModuleCycle(circle)) => assert_eq!(circle, ["a", "b", "c", "a"]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        load_order(dir.path(), &["self"]),
        Err(Error::ModuleCycle(_))
    ));
}

#[test]
fn a_missing_one_is_named_with_who_wants_it() {
    let dir = kvm();
    let error = load_order(dir.path(), &["kvm_intel"]).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(
            error,
            Error::ModuleNotFound {
                wanted_by: None,
                ..
            }
        ),
        "{text}"
    );
    assert!(text.contains("'kvm_intel' in ") && text.contains(&dir.path().display().to_string()));
    fs::remove_file(dir.path().join("kernel/virt/lib/irqbypass.ko")).unwrap();
    let text = load_order(dir.path(), &["kvm_amd"])
        .unwrap_err()
        .to_string();
    assert!(text.contains("'irqbypass' (needed by 'kvm')"), "{text}");
    assert!(matches!(
        load_order(&dir.path().join("none"), &["a"]),
        Err(Error::Io { .. })
    ));
}

#[test]
fn what_is_no_module_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let module = forge::module("m", "");
    write(dir.path(), "text.ko", b"text");
    write(dir.path(), "empty.ko", b"");
    write(dir.path(), "cut.ko", &module[..module.len() - 100]);
    write(dir.path(), "program.ko", &forge::vmlinux("6.9", false));
    let packed = forge::gzip(&module);
    write(dir.path(), "cut_gz.ko.gz", &packed[..packed.len() - 10]);
    write(dir.path(), "bz.ko", b"BZh91AY&SY");
    for name in ["text", "empty", "cut", "program", "cut_gz"] {
        let result = load_order(dir.path(), &[name]);
        assert!(
            matches!(result, Err(Error::Damaged { .. })),
            "{name}: {result:?}"
        );
    }
    assert!(matches!(
        load_order(dir.path(), &["bz"]),
        Err(Error::Packed { .. })
    ));
}

#[test]
fn the_folders_symlinks_are_not_followed() {
    let dir = kvm();
    std::os::unix::fs::symlink("/", dir.path().join("build")).unwrap();
    std::os::unix::fs::symlink(".", dir.path().join("kernel/again")).unwrap();
    assert_eq!(names(dir.path(), &["kvm"]), ["irqbypass", "kvm"]);
}

#[test]
fn parameters_are_those_that_a_module_or_the_image_has() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let parameters = "parm=npt:Enable NPT (bool)\0parmtype=npt:bool\0parmtype=sev-es:bool\0";
    let kvm_amd = forge::module_of("6.9", "kvm_amd", "", parameters);
    write(at, "kernel/arch/x86/kvm/kvm-amd.ko", &kvm_amd);
    write(at, "modules.order", b"kernel/drivers/gpu/i915.ko\n");
    write(at, "modules.builtin", b"kernel/arch/x86/kvm/kvm.ko\n");
    write(
        at,
        "vmlinux",
        b"\0kvm.enable_pmu\0kvm.c\0cgroup.memory=\0printk.time\0",
    );
    let kernel = BootFile {
        path: at.join("vmlinux"),
        is_vmlinux: true,
    };
    let check = |cmdline: &str| {
        let known = Known::read(cmdline, &kernel, Some(at)).unwrap();
        known.check(cmdline)
    };
    for fine in [
        "",
        "quiet root=/dev/a.b",
        "kvm-amd.npt=0 kvm_amd.sev_es=1 kvm_amd.sev-es kvm_amd.dyndbg=+p",
        "kvm.enable-pmu=1",
        "cgroup.memory=nokmem printk.time=1",
        // For whoever reads them; that they have no effect here is said after the boot.
        "i915.modeset=0 systemd.unit=rescue.target rd.break",
        "-- kvm.nonsense=1",
    ] {
        check(fine).unwrap_or_else(|error| panic!("{fine}: {error}"));
    }
    for (wrong, pieces) in [
        ("kvm_amd.npd=0", ["module kvm_amd", "'npd'; near it: npt"]),
        (
            "quiet kvm.enable_pmuu=1",
            ["module kvm ", "near it: enable_pmu"],
        ),
        ("printk.tyme=1", ["module printk", "near it: time"]),
        ("kvm_amt.npt=0", ["no module 'kvm_amt'", "near it: kvm_amd"]),
    ] {
        let error = check(wrong).unwrap_err().to_string();
        for piece in pieces {
            assert!(error.contains(piece), "no '{piece}' in {error}");
        }
    }
    let may_know = |cmdline: &str| {
        let known = Known::read(cmdline, &kernel, Some(at)).unwrap();
        known.may_know(&words(cmdline)[0])
    };
    assert!(may_know("cgroup.memory=nokmem"));
    assert!(!may_know("rd.break") && !may_know("i915.modeset=0"));
}
