//! The archive, its determinism, and programs with their libraries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cpio::newc;
use exitpath_lab::Error;
use exitpath_lab::initramfs::Initramfs;
use exitpath_testing::{Need, skipped};

use crate::have;

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    inode: u32,
    content: Vec<u8>,
    device: (u32, u32),
}

/// Reads an archive back, and checks that nothing in it depends on when or by whom it was made.
fn unpacked(archive: &[u8]) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    let mut rest = archive;
    loop {
        let mut reader = newc::Reader::new(rest).unwrap();
        if reader.entry().is_trailer() {
            return entries;
        }
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        let entry = reader.entry();
        assert_eq!((entry.mtime(), entry.uid(), entry.gid()), (0, 0, 0));
        let device = (entry.rdev_major(), entry.rdev_minor());
        let (mode, inode) = (entry.mode(), entry.ino());
        let name = entry.name().to_owned();
        if let Some((parent, _)) = name.rsplit_once('/') {
            let parent: &Entry = entries.get(parent).expect("folders come first");
            assert_eq!(parent.mode & 0o170_000, 0o040_000, "{name} is in a folder");
        }
        let old = entries.insert(
            name.clone(),
            Entry {
                mode,
                inode,
                content,
                device,
            },
        );
        assert!(old.is_none(), "{name} is there twice");
        rest = reader.finish().unwrap();
    }
}

#[test]
fn every_kind_of_entry_comes_back() {
    let mut initramfs = Initramfs::new();
    initramfs
        .directory("/proc", 0o555)
        .unwrap()
        .device("/dev/console", 0o600, 5, 1)
        .unwrap()
        .file("/init", 0o755, "#!/bin/sh\n")
        .unwrap()
        .file("a/b/c", 0o644, Vec::new())
        .unwrap()
        .symlink("/bin", "usr/bin")
        .unwrap();
    let archive = initramfs.to_vec().unwrap();
    let entries = unpacked(&archive);
    let names: Vec<_> = entries.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "a",
            "a/b",
            "a/b/c",
            "bin",
            "dev",
            "dev/console",
            "init",
            "proc"
        ]
    );
    assert_eq!(initramfs.paths().collect::<Vec<_>>(), names);
    assert_eq!(entries["proc"].mode, 0o040_555);
    assert_eq!(entries["a"].mode, 0o040_755);
    assert_eq!(
        (entries["dev/console"].mode, entries["dev/console"].device),
        (0o020_600, (5, 1))
    );
    assert_eq!(
        (entries["init"].mode, entries["init"].content.as_slice()),
        (0o100_755, &b"#!/bin/sh\n"[..])
    );
    assert_eq!(
        (entries["bin"].mode, entries["bin"].content.as_slice()),
        (0o120_777, &b"usr/bin"[..])
    );
    let inodes: Vec<_> = entries.values().map(|entry| entry.inode).collect();
    assert_eq!(inodes, (1..=8).collect::<Vec<u32>>());
}

#[test]
fn the_order_of_making_it_does_not_matter() {
    let mut one = Initramfs::new();
    one.file("/x/b", 0o644, "b")
        .unwrap()
        .file("/x/a", 0o600, "a")
        .unwrap();
    one.directory("/x", 0o755).unwrap();
    let mut other = Initramfs::new();
    other.file("x/a", 0o600, "other").unwrap();
    other
        .file("x/a", 0o600, "a")
        .unwrap()
        .file("./x/b", 0o644, "b")
        .unwrap();
    assert_eq!(one.to_vec().unwrap(), other.to_vec().unwrap());
    let dir = tempfile::tempdir().unwrap();
    one.to_file(&dir.path().join("initramfs")).unwrap();
    assert_eq!(
        fs::read(dir.path().join("initramfs")).unwrap(),
        one.to_vec().unwrap()
    );
}

#[test]
fn two_things_do_not_fit_in_one_place() {
    let mut initramfs = Initramfs::new();
    initramfs
        .file("/a", 0o644, "")
        .unwrap()
        .directory("/d", 0o755)
        .unwrap();
    let occupied = |result: Result<&mut Initramfs, Error>| {
        assert!(matches!(result, Err(Error::Occupied { .. })));
    };
    occupied(initramfs.directory("/a", 0o755));
    occupied(initramfs.file("/a/b", 0o644, ""));
    occupied(initramfs.file("/d", 0o644, ""));
    occupied(initramfs.symlink("/d", "a"));
    assert!(initramfs.file("/", 0o644, "").is_err());
    assert!(initramfs.file("", 0o644, "").is_err());
    assert!(!initramfs.contains("/a/b") && initramfs.contains("/a"));
}

#[test]
fn symlinks_on_the_way_are_followed() {
    let mut initramfs = Initramfs::new();
    initramfs
        .symlink("/lib", "usr/lib")
        .unwrap()
        .symlink("/usr/lib/m", "/data/../m")
        .unwrap();
    initramfs
        .file("/lib/x/y", 0o644, "")
        .unwrap()
        .file("/lib/m/z", 0o644, "")
        .unwrap();
    initramfs.directory("/lib", 0o700).unwrap();
    let entries = unpacked(&initramfs.to_vec().unwrap());
    assert!(
        entries.contains_key("usr/lib/x/y") && entries.contains_key("m/z"),
        "{entries:?}"
    );
    assert!(initramfs.contains("/lib/x/y"));
    initramfs.symlink("/round", "/round").unwrap();
    assert!(initramfs.file("/round/x", 0o644, "").is_err());
}

/// A folder of this machine with `real/file`, symlinks to it in many ways, and no sockets.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("real/deep")).unwrap();
    fs::write(root.join("real/file"), "content").unwrap();
    fs::set_permissions(root.join("real/file"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::create_dir(root.join("share")).unwrap();
    symlink("../real/file", root.join("share/relative")).unwrap();
    symlink(root.join("real/deep"), root.join("share/absolute")).unwrap();
    symlink("relative", root.join("share/twice")).unwrap();
    symlink("nowhere", root.join("share/dangling")).unwrap();
    symlink(".", root.join("real/deep/itself")).unwrap();
    symlink("share", root.join("alias")).unwrap();
    (dir, root)
}

#[test]
fn a_folder_is_copied_with_what_its_symlinks_lead_to() {
    let (_dir, root) = tree();
    let mut initramfs = Initramfs::new();
    assert_eq!(
        initramfs.add_path(&root.join("alias")).unwrap(),
        2,
        "once by each name"
    );
    let prefix = root.to_str().unwrap().trim_start_matches('/').to_owned();
    let entries = unpacked(&initramfs.to_vec().unwrap());
    let names: Vec<_> = entries
        .keys()
        .filter_map(|name| name.strip_prefix(&format!("{prefix}/")))
        .collect();
    let expected = [
        "alias",
        "real",
        "real/deep",
        "real/deep/itself",
        "real/file",
        "share",
        "share/absolute",
        "share/dangling",
        "share/relative",
        "share/twice",
    ];
    assert_eq!(names, expected);
    let file = &entries[&format!("{prefix}/real/file")];
    assert_eq!(
        (file.mode, file.content.as_slice()),
        (0o100_750, &b"content"[..])
    );
    assert!(initramfs.add_path(&root.join("none")).is_err());
}

#[test]
fn a_folder_in_the_archive_may_be_a_symlink_here() {
    let (_dir, root) = tree();
    let mut initramfs = Initramfs::new();
    // The caller made `alias` a real folder; here it is a symlink to `share`.
    initramfs.directory(root.join("alias"), 0o755).unwrap();
    initramfs.add_path(&root.join("alias/relative")).unwrap();
    let inside = root.strip_prefix("/").unwrap().join("alias/relative");
    let entries = unpacked(&initramfs.to_vec().unwrap());
    assert_eq!(entries[inside.to_str().unwrap()].content, b"../real/file");
    assert!(initramfs.contains(root.join("real/file")));
}

/// The files that ldd names, without symlinks.
fn by_ldd(program: &str) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.lines().flat_map(|line| line.split_whitespace());
    words
        .filter(|word| word.starts_with('/'))
        .map(real)
        .collect()
}

fn real(path: impl AsRef<Path>) -> PathBuf {
    path.as_ref().canonicalize().unwrap()
}

#[test]
fn programs_bring_the_libraries_that_ldd_names() {
    let programs = [
        "/bin/ls",
        "/usr/bin/qemu-system-x86_64",
        "/usr/bin/perl",
        "/usr/bin/zstd",
    ];
    for program in programs {
        if !have(&["/usr/bin/ldd", program]) {
            continue;
        }
        let mut initramfs = Initramfs::new();
        let files = initramfs.add_program(Path::new(program)).unwrap();
        assert_eq!(files[0], Path::new(program));
        let ours: BTreeSet<_> = files[1..].iter().map(real).collect();
        assert_eq!(ours, by_ldd(program), "{program}");
        for file in files {
            assert!(
                initramfs.contains(&file),
                "{} under the linker's name",
                file.display()
            );
            assert!(initramfs.contains(real(&file)), "{} itself", file.display());
        }
    }
}

#[test]
fn ls_comes_with_libc_and_its_interpreter() {
    if !have(&["/bin/ls", "/lib64/ld-linux-x86-64.so.2"]) {
        return;
    }
    let mut initramfs = Initramfs::new();
    initramfs.add_program(Path::new("/bin/ls")).unwrap();
    assert!(initramfs.contains("/lib64/ld-linux-x86-64.so.2"));
    assert!(initramfs.paths().any(|path| path.ends_with("/libc.so.6")));
    let entries = unpacked(&initramfs.to_vec().unwrap());
    let libc = entries
        .iter()
        .find(|(name, _)| name.ends_with("/libc.so.6"))
        .unwrap()
        .1;
    assert!(libc.content.starts_with(b"\x7fELF"));
}

#[test]
fn a_copied_program_runs_where_only_its_files_are() {
    // Unpacked into a folder and run there by its own interpreter, with no other folder to
    // find libraries in: what chroot would show, without being root.
    if !have(&["/bin/ls", "/lib64/ld-linux-x86-64.so.2"]) {
        return;
    }
    let mut initramfs = Initramfs::new();
    let files = initramfs.add_program(Path::new("/bin/ls")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, entry) in unpacked(&initramfs.to_vec().unwrap()) {
        let path = dir.path().join(name);
        match entry.mode & 0o170_000 {
            0o040_000 => fs::create_dir(&path).unwrap(),
            0o120_000 => {
                let target = String::from_utf8(entry.content).unwrap();
                let target = match target.strip_prefix('/') {
                    Some(inside) => dir.path().join(inside),
                    None => target.into(),
                };
                symlink(target, &path).unwrap();
            }
            _ => {
                fs::write(&path, entry.content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode & 0o777)).unwrap();
            }
        }
    }
    let inside = |path: &Path| dir.path().join(path.strip_prefix("/").unwrap());
    let folders: BTreeSet<_> = files[2..]
        .iter()
        .filter_map(|f| inside(f).parent().map(Path::to_owned))
        .collect();
    let folders: Vec<_> = folders
        .iter()
        .map(|folder| folder.to_str().unwrap())
        .collect();
    let output = Command::new(inside(&files[1]))
        .args(["--inhibit-cache", "--library-path", &folders.join(":")])
        .arg(inside(&files[0]))
        .arg(dir.path())
        .output()
        .unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && listed.contains("lib64"),
        "{listed}"
    );
}

#[test]
fn static_programs_and_scripts_are_told_apart() {
    let me = std::env::current_exe().unwrap();
    let mut initramfs = Initramfs::new();
    // Tests are linked statically in this workspace, as exitpath is.
    let files = initramfs.add_program(&me).unwrap();
    if files.len() > 1 {
        skipped(Need::Build, "this test is linked dynamically");
    } else {
        assert_eq!(files, [me]);
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    fs::write(&script, "#!/bin/sh -e\ntrue\n").unwrap();
    let files = initramfs.add_program(&script).unwrap();
    assert_eq!(files[..2], [script.clone(), "/bin/sh".into()]);
    assert!(initramfs.contains("/bin/sh"));
    fs::write(&script, format!("#!{}\n", script.display())).unwrap();
    assert!(matches!(
        initramfs.add_program(&script),
        Err(Error::NotAProgram { .. })
    ));
    fs::write(&script, "just text").unwrap();
    assert!(matches!(
        initramfs.add_program(&script),
        Err(Error::NotAProgram { .. })
    ));
    fs::write(&script, b"\x7fELF\x01\x01\x01").unwrap();
    assert!(matches!(
        initramfs.add_program(&script),
        Err(Error::NotAProgram { .. })
    ));
}

#[test]
fn libraries_are_found_by_rpath_and_missing_ones_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::create_dir(root.join("bin")).unwrap();
    fs::create_dir(root.join("private")).unwrap();
    fs::write(root.join("f.c"), "int f(void) { return 0; }\n").unwrap();
    fs::write(
        root.join("m.c"),
        "int f(void); int main(void) { return f(); }\n",
    )
    .unwrap();
    let compile = |args: &[&str]| {
        Command::new("cc")
            .args(args)
            .current_dir(&root)
            .status()
            .is_ok_and(|s| s.success())
    };
    let library = ["-shared", "-fPIC", "-o", "private/libxf.so", "f.c"];
    let program = |tags| {
        let rpath = "-Wl,-rpath,$ORIGIN/../private";
        compile(&["-o", "bin/m", "m.c", "-Lprivate", "-lxf", rpath, tags])
    };
    if !compile(&library) {
        return skipped(Need::Tools, "there is no C compiler");
    }
    for tags in ["-Wl,--enable-new-dtags", "-Wl,--disable-new-dtags"] {
        assert!(program(tags));
        let mut initramfs = Initramfs::new();
        let files = initramfs.add_program(&root.join("bin/m")).unwrap();
        assert!(
            files
                .iter()
                .any(|file| real(file) == root.join("private/libxf.so")),
            "{files:?}"
        );
        assert!(initramfs.contains(root.join("private/libxf.so")));
    }
    fs::rename(root.join("private"), root.join("moved")).unwrap();
    let mut initramfs = Initramfs::new();
    let error = initramfs.add_program(&root.join("bin/m")).unwrap_err();
    assert!(matches!(&error, Error::LibraryNotFound { library, .. } if library == "libxf.so"));
    assert!(error.to_string().contains("install the package"), "{error}");
    initramfs.library_folder(root.join("moved"));
    assert!(initramfs.add_program(&root.join("bin/m")).is_ok());
}
