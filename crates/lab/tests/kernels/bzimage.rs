//! The bzImage and the vmlinux in it.

use std::fs;
use std::path::Path;

use exitpath_lab::Error;
use exitpath_lab::bzimage::{
    BzImage, file_has_pvh_note, has_pvh_note, read_loadable, vmlinux_release,
};
use exitpath_lab::cache::Cache;
use exitpath_testing::{Need, skipped};
use proptest::prelude::*;

use crate::forge::{self, Packing};

const RELEASE: &str = "6.9.0-test";

fn parse(bytes: &[u8]) -> Result<BzImage, Error> {
    BzImage::parse(bytes.to_vec(), Path::new("the-kernel"))
}

#[test]
fn the_header_is_read() {
    let image = parse(&forge::bzimage(RELEASE, &[], Packing::Raw)).unwrap();
    assert_eq!(image.release(), Some(RELEASE));
    assert_eq!(image.version(), Some("6.9.0-test (builder@host) #1 SMP"));
    assert_eq!(image.protocol(), 0x020f);
    assert_eq!(image.sha256().len(), 64);
}

#[test]
fn the_vmlinux_comes_out_of_every_compression() {
    let elf = forge::vmlinux(RELEASE, true);
    let image = forge::bzimage(RELEASE, &elf, Packing::Gzip);
    assert_eq!(parse(&image).unwrap().vmlinux().unwrap(), elf);
    let size = (elf.len() as u32).to_le_bytes();
    for program in ["xz", "zstd"] {
        let Some(packed) = forge::packed_by(program, &elf) else {
            skipped(Need::Tools, format!("{program} is not installed"));
            continue;
        };
        let image = forge::bzimage_of_payload(RELEASE, &[packed, size.to_vec()].concat());
        assert_eq!(parse(&image).unwrap().vmlinux().unwrap(), elf, "{program}");
    }
    let image = forge::bzimage(RELEASE, &elf, Packing::Raw);
    assert_eq!(parse(&image).unwrap().vmlinux().unwrap()[..elf.len()], elf);
}

#[test]
fn an_unknown_compression_is_named() {
    for (magic, name) in [
        (&b"BZh91AY"[..], "bzip2"),
        (b"\x89LZO\0\0", "lzo"),
        (b"????", "unknown"),
    ] {
        let image = parse(&forge::bzimage(RELEASE, magic, Packing::Raw)).unwrap();
        let error = image.vmlinux().unwrap_err();
        assert!(matches!(error, Error::Packed { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_payload_of_another_size_is_damage() {
    let elf = forge::vmlinux(RELEASE, true);
    let packed = forge::gzip(&elf);
    for size in [0, elf.len() as u32 - 1, elf.len() as u32 + 1, u32::MAX] {
        let mut payload = packed.clone();
        let end = payload.len() - 4;
        payload[end..].copy_from_slice(&size.to_le_bytes());
        let image = parse(&forge::bzimage_of_payload(RELEASE, &payload)).unwrap();
        assert!(
            matches!(image.vmlinux(), Err(Error::Damaged { .. })),
            "{size}"
        );
    }
    let not_elf = parse(&forge::bzimage(RELEASE, b"not an ELF file", Packing::Gzip)).unwrap();
    assert!(matches!(not_elf.vmlinux(), Err(Error::Damaged { .. })));
}

#[test]
fn other_files_are_said_to_be_what_they_are() {
    let mut arm = vec![0; 4096];
    arm[0x38..0x3c].copy_from_slice(b"ARMd");
    let cases: [(Vec<u8>, &str); 6] = [
        (Vec::new(), "empty"),
        (b"hello".to_vec(), "too short"),
        (vec![0; 4096], "without the header"),
        (arm, "arm64"),
        (
            forge::gzip(
                &(0..60_000u32)
                    .flat_map(u32::to_le_bytes)
                    .collect::<Vec<_>>(),
            ),
            "unpack it",
        ),
        ([&b"!<arch>\n"[..], &[0; 4096]].concat(), "package"),
    ];
    for (bytes, hint) in cases {
        let error = parse(&bytes).unwrap_err();
        assert!(matches!(error, Error::NotAKernel { .. }), "{error}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[test]
fn a_pvh_entry_is_found_by_its_note() {
    assert!(has_pvh_note(&forge::vmlinux(RELEASE, true)));
    assert!(!has_pvh_note(&forge::vmlinux(RELEASE, false)));
    assert!(!has_pvh_note(b"\x7fELF"));
    let dir = tempfile::tempdir().unwrap();
    for has in [true, false] {
        let path = dir.path().join("vmlinux");
        fs::write(&path, forge::vmlinux(RELEASE, has)).unwrap();
        assert_eq!(file_has_pvh_note(&path).unwrap(), has);
    }
    assert_eq!(
        vmlinux_release(&forge::vmlinux(RELEASE, true)).as_deref(),
        Some(RELEASE)
    );
    assert_eq!(vmlinux_release(b"Linux version %s (%s)"), None);
}

#[test]
fn only_what_is_loaded_of_a_vmlinux_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    let elf = forge::vmlinux(RELEASE, true);
    std::fs::write(&path, [elf.clone(), vec![7; 200_000]].concat()).unwrap();
    let read = read_loadable(&path).unwrap();
    assert!(
        read.starts_with(&elf) && read.len() < 100_000,
        "{}",
        read.len()
    );
    std::fs::write(&path, &elf[..elf.len() - 1]).unwrap();
    assert!(matches!(read_loadable(&path), Err(Error::Damaged { .. })));
    std::fs::write(&path, "text").unwrap();
    assert!(matches!(
        read_loadable(&path),
        Err(Error::NotAKernel { .. })
    ));
}

#[test]
fn a_vmlinux_is_unpacked_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path()).unwrap();
    let elf = forge::vmlinux(RELEASE, true);
    let image = parse(&forge::bzimage(RELEASE, &elf, Packing::Gzip)).unwrap();
    let path = image.cached_vmlinux(&cache).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), elf);
    std::fs::write(&path, "mine").unwrap();
    assert_eq!(image.cached_vmlinux(&cache).unwrap(), path);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

proptest! {
    #[test]
    fn no_cut_image_passes(cut in 1usize..4000) {
        let elf = [forge::vmlinux(RELEASE, true), (0..4000u32).flat_map(|i| (i * i).to_le_bytes()).collect()].concat();
        let image = forge::bzimage(RELEASE, &elf, Packing::Gzip);
        let cut = &image[..image.len().saturating_sub(cut + 16)];
        let whole = parse(cut).and_then(|image| image.vmlinux());
        let is_clear = matches!(whole, Err(Error::Damaged { .. } | Error::NotAKernel { .. }));
        prop_assert!(is_clear, "{:?}", whole);
    }

    #[test]
    fn no_flipped_byte_makes_a_panic(at in 0usize..2000, with: u8) {
        let mut image = forge::bzimage(RELEASE, &forge::vmlinux(RELEASE, true), Packing::Gzip);
        let at = at % image.len();
        image[at] = with;
        if let Ok(image) = parse(&image) {
            let _ = (image.release().map(str::len), image.vmlinux().map(|elf| has_pvh_note(&elf)));
        }
    }

    #[test]
    fn no_garbage_makes_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let mut bytes = bytes;
        let _ = (has_pvh_note(&bytes), vmlinux_release(&bytes));
        if bytes.len() > 0x206 {
            bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
            bytes[0x202..0x206].copy_from_slice(b"HdrS");
        }
        let _ = parse(&bytes).map(|image| image.vmlinux().map(|elf| elf.len()));
        bytes.splice(..0, *b"\x7fELF\x02\x01\x01");
        let _ = has_pvh_note(&bytes);
    }
}
