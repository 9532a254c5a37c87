//! Makes kernels, modules and packages that are just real enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the forged kernels' payloads are compressed with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packing {
    Gzip,
    /// The payload as it is: for kinds that are not known.
    Raw,
}

/// A bzImage with the release and payload; the unpacked size is added as the build does.
pub(crate) fn bzimage(release: &str, payload: &[u8], packing: Packing) -> Vec<u8> {
    let payload = match packing {
        Packing::Gzip => gzip(payload),
        Packing::Raw => [payload, &(payload.len() as u32).to_le_bytes()].concat(),
    };
    bzimage_of_payload(release, &payload)
}

/// A bzImage with the bytes given as its payload, whatever they are.
pub(crate) fn bzimage_of_payload(release: &str, payload: &[u8]) -> Vec<u8> {
    const SETUP: usize = 1024;
    let mut image = vec![0; SETUP];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x0100u16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let version = format!("{release} (builder@host) #1 SMP");
    image[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
    image.extend_from_slice(&[0; 16]);
    image.extend_from_slice(payload);
    image.resize(image.len().next_multiple_of(16), 0);
    let paragraphs = (image.len() - SETUP) as u32 / 16;
    image[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    image
}

/// A vmlinux with the release in its banner, with or without a PVH entry.
pub(crate) fn vmlinux(release: &str, pvh: bool) -> Vec<u8> {
    let kind: u32 = if pvh { 18 } else { 3 };
    let mut note = Vec::new();
    for word in [4u32, 4, kind] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(b"Xen\0\x00\x00\x00\x01");
    let banner = format!("Linux version %s (%s)\0Linux version {release} (me@host) #1\0");
    let start = 64 + 2 * 56;
    let mut elf = elf_header(2, 62, 2, 0, 0);
    elf.extend(segment(1, start, note.len() + banner.len()));
    elf.extend(segment(4, start, note.len()));
    elf.extend(note);
    elf.extend(banner.as_bytes());
    elf
}

/// A kernel module with the dependencies, written as the build does: `a,b`.
pub(crate) fn module(name: &str, depends: &str) -> Vec<u8> {
    module_of("6.9", name, depends, "")
}

/// The same of a release, and with further entries: `parm=a:b`, each with a NUL at its end.
pub(crate) fn module_of(release: &str, name: &str, depends: &str, more: &str) -> Vec<u8> {
    let info = format!(
        "license=GPL\0depends={depends}\0retpoline=Y\0name={name}\0\
         vermagic={release} SMP mod_unload \0{more}"
    );
    let names = b"\0.modinfo\0.shstrtab\0";
    let (info_at, names_at) = (64, 64 + info.len());
    let sections_at = (names_at + names.len()).next_multiple_of(8);
    let mut elf = elf_header(1, 62, 0, sections_at, 3);
    elf.extend(info.as_bytes());
    elf.extend(names);
    elf.resize(sections_at, 0);
    elf.extend([0; 64]);
    elf.extend(section(1, 1, info_at, info.len()));
    elf.extend(section(10, 3, names_at, names.len()));
    elf
}

fn elf_header(
    kind: u16,
    machine: u16,
    segments: u16,
    sections_at: usize,
    sections: u16,
) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(kind.to_le_bytes());
    elf.extend(machine.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    elf.extend(0u64.to_le_bytes());
    elf.extend((if segments > 0 { 64u64 } else { 0 }).to_le_bytes());
    elf.extend((sections_at as u64).to_le_bytes());
    elf.extend(0u32.to_le_bytes());
    for half in [64, 56, segments, 64, sections, sections.saturating_sub(1)] {
        elf.extend(half.to_le_bytes());
    }
    elf
}

fn segment(kind: u32, offset: usize, size: usize) -> Vec<u8> {
    let mut header = [kind.to_le_bytes(), 4u32.to_le_bytes()].concat();
    let (offset, size) = (offset as u64, size as u64);
    for word in [offset, offset, offset, size, size, 4] {
        header.extend(word.to_le_bytes());
    }
    header
}

fn section(name: u32, kind: u32, offset: usize, size: usize) -> Vec<u8> {
    let mut header = [name.to_le_bytes(), kind.to_le_bytes()].concat();
    for word in [0, 0, offset as u64, size as u64, 0, 1, 0] {
        header.extend(word.to_le_bytes());
    }
    header
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `bytes` through a compressor of this machine; nothing if that is not installed.
pub(crate) fn packed_by(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, bytes).unwrap();
    let output = Command::new(program).arg("-qc").arg(&plain).output().ok()?;
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(output.stdout)
}

/// A Debian package with the files, `dir/NAME_VERSION_amd64.deb`. Needs dpkg-deb.
pub(crate) fn deb(
    dir: &Path,
    (name, version, depends): (&str, &str, &str),
    files: &[(&str, &[u8])],
) -> PathBuf {
    let tree = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let control = tree.path().join("DEBIAN");
    fs::create_dir_all(&control).unwrap();
    let depends = if depends.is_empty() {
        String::new()
    } else {
        format!("Depends: {depends}\n")
    };
    let text = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody <n@n>\n\
         {depends}Description: forged\n"
    );
    fs::write(control.join("control"), text).unwrap();
    let path = dir.join(format!("{name}_{version}_amd64.deb"));
    let status = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zgzip", "--build"])
        .args([tree.path(), &path])
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success());
    path
}

/// The package of a kernel with a module or two. Needs dpkg-deb.
pub(crate) fn kernel_deb(dir: &Path, release: &str, version: &str) -> PathBuf {
    image_deb(dir, release, version, "kmod")
}

/// The same with other dependencies.
pub(crate) fn image_deb(dir: &Path, release: &str, version: &str, depends: &str) -> PathBuf {
    let image = bzimage(release, &vmlinux(release, true), Packing::Gzip);
    let modules = format!("lib/modules/{release}");
    let at = |path: &str| format!("{modules}/{path}");
    deb(
        dir,
        (&format!("linux-image-{release}"), version, depends),
        &[
            (&format!("boot/vmlinuz-{release}"), &image),
            (&format!("boot/config-{release}"), b"CONFIG_KVM=m\n"),
            (
                &format!("boot/System.map-{release}"),
                b"ffffffffffffffff B elsewhere\n",
            ),
            (&at("modules.builtin"), b"kernel/drivers/virtio/virtio.ko\n"),
            (
                &at("kernel/arch/x86/kvm/kvm.ko"),
                &module("kvm", "irqbypass"),
            ),
            (
                &at("kernel/virt/lib/irqbypass.ko"),
                &module("irqbypass", ""),
            ),
            (&at("kernel/drivers/gpu/drm/drm.ko"), &module("drm", "")),
            ("usr/share/doc/linux/copyright", b"long"),
        ],
    )
}

/// The packages of a kernel as Debian makes them from 6.19 on: an empty one, and what it depends on.
/// Needs dpkg-deb.
pub(crate) fn kernel_debs(dir: &Path, release: &str, version: &str) -> Vec<PathBuf> {
    let image = bzimage(release, &vmlinux(release, true), Packing::Gzip);
    let at = |path: &str| format!("usr/lib/modules/{release}/{path}");
    let of = |part: &str| format!("linux-{part}-{release}");
    let needs = |part: &str| format!("{} (= {version})", of(part));
    let all = ["base", "binary", "modules"].map(needs).join(", ");
    let depends = format!("dracut | initramfs-tools (>= 0.120), {all}");
    vec![
        deb(dir, (&of("image"), version, &depends), &[]),
        deb(
            dir,
            (&of("base"), version, ""),
            &[
                (&at("config"), b"CONFIG_KVM=m\n"),
                (&at("modules.builtin"), b"kernel/drivers/virtio/virtio.ko\n"),
            ],
        ),
        deb(
            dir,
            (&of("binary"), version, &needs("base")),
            &[(&at("vmlinuz"), &image)],
        ),
        deb(
            dir,
            (&of("modules"), version, &format!("kmod, {}", needs("base"))),
            &[
                (
                    &at("kernel/arch/x86/kvm/kvm.ko"),
                    &module("kvm", "irqbypass"),
                ),
                (
                    &at("kernel/virt/lib/irqbypass.ko"),
                    &module("irqbypass", ""),
                ),
            ],
        ),
    ]
}

/// A package of debug symbols, with more in it than is wanted. Its vmlinux says whose it is.
pub(crate) fn debug_deb(dir: &Path, release: &str, version: &str) -> PathBuf {
    let module = |path: &str| format!("usr/lib/debug/lib/modules/{release}/kernel/{path}");
    let vmlinux = format!("usr/lib/debug/boot/vmlinux-{release}");
    deb(
        dir,
        (&format!("linux-image-{release}-dbg"), version, ""),
        &[
            (&vmlinux, version.as_bytes()),
            (&module("arch/x86/kvm/kvm.ko"), b"kvm"),
            (&module("arch/x86/kvm/kvm-amd.ko"), b"kvm-amd"),
            (&module("arch/x86/kvm/kvm-intel.ko"), b"kvm-intel"),
            (&module("virt/lib/irqbypass.ko"), b"irqbypass"),
            (&module("drivers/gpu/drm/drm.ko"), b"drm"),
            ("usr/share/doc/linux/copyright", b"long"),
        ],
    )
}
