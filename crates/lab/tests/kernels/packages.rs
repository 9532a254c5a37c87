//! Unpacking packages, and kernels given by path.

use std::fs;
use std::path::{Path, PathBuf};

use exitpath_lab::Error;
use exitpath_lab::cache::Cache;
use exitpath_lab::deb;
use exitpath_lab::debug_files::DebugFiles;
use exitpath_lab::kernels::{Kernel, Kernels};

use crate::forge::{self, Packing};
use crate::have;

const DPKG_DEB: &str = "/usr/bin/dpkg-deb";
const RELEASE: &str = "6.9.0-1-amd64";

struct Lab {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        Self { dir, cache }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn resolve(&self, path: &Path, modules: Option<&Path>) -> Result<Kernel, Error> {
        Kernels::new(self.cache.clone()).resolve(Some(path.to_str().unwrap()), modules)
    }
}

#[test]
fn a_package_gives_its_kernel_with_all_that_belongs_to_it() {
    if !have(&[DPKG_DEB]) {
        return;
    }
    let lab = Lab::new();
    let deb = forge::kernel_deb(lab.dir.path(), RELEASE, "6.9.1-1");
    let kernel = lab.resolve(&deb, None).unwrap();
    assert_eq!(kernel.release.as_deref(), Some(RELEASE));
    assert!(
        kernel
            .config
            .as_ref()
            .is_some_and(|path| path.ends_with(format!("config-{RELEASE}")))
    );
    assert_eq!(kernel.system_map, None, "Debian's is one line");
    assert!(kernel.origin.contains("6.9.1-1") && kernel.origin.contains(".deb"));
    let modules = kernel.modules.clone().unwrap();
    assert!(modules.join("kernel/arch/x86/kvm/kvm.ko").is_file());
    assert!(!modules.join("kernel/drivers/gpu").exists());
    assert!(!lab.cache.root().join("usr").exists());

    let boot = kernel.boot_file(&lab.cache).unwrap();
    assert!(boot.is_vmlinux);
    assert_eq!(fs::read(boot.path).unwrap(), forge::vmlinux(RELEASE, true));

    // The second time, nothing is unpacked: a mark in the folder stays.
    fs::write(modules.join("mark"), "").unwrap();
    lab.resolve(&deb, None).unwrap();
    assert!(modules.join("mark").exists());
}

#[test]
fn packages_without_a_kernel_are_told_apart() {
    if !have(&[DPKG_DEB]) {
        return;
    }
    let lab = Lab::new();
    let meta = (
        "linux-image-amd64",
        "6.9.1",
        "linux-image-6.9.0-1-amd64 (= 6.9.1-1)",
    );
    let error = lab
        .resolve(&forge::deb(lab.dir.path(), meta, &[]), None)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("depends on linux-image-6.9.0-1-amd64"),
        "{error}"
    );
    let other = forge::deb(
        lab.dir.path(),
        ("hello", "1", ""),
        &[("usr/bin/hello", b"hi")],
    );
    let error = lab.resolve(&other, None).unwrap_err();
    assert!(matches!(error, Error::NotAKernel { .. }));
    assert!(
        error.to_string().contains("hello has no boot/vmlinuz"),
        "{error}"
    );
}

#[test]
fn a_package_that_stands_for_others_takes_them_from_beside_it() {
    if !have(&[DPKG_DEB]) {
        return;
    }
    let lab = Lab::new();
    let debs = forge::kernel_debs(lab.dir.path(), RELEASE, "6.9.1-1");
    // Of another version, and so of no use.
    fs::create_dir(lab.path("other")).unwrap();
    let others = forge::kernel_debs(&lab.path("other"), RELEASE, "6.9.2-1");
    fs::copy(
        &others[3],
        lab.dir.path().join(others[3].file_name().unwrap()),
    )
    .unwrap();
    for given in [&debs[0], &debs[2]] {
        let kernel = lab.resolve(given, None).unwrap();
        assert_eq!(kernel.release.as_deref(), Some(RELEASE));
        let modules = kernel.modules.unwrap();
        assert!(modules.join("kernel/arch/x86/kvm/kvm.ko").is_file());
        assert!(modules.join("modules.builtin").is_file());
        assert!(kernel.config.is_some());
    }

    // Neither beside it nor, in this folder, in an archive.
    fs::remove_file(&debs[3]).unwrap();
    let etc = lab.path("no-apt");
    fs::create_dir(&etc).unwrap();
    let kernels = Kernels::new(Cache::at(lab.path("cache2")).unwrap()).with_sources_of(etc);
    let error = kernels.resolve(debs[0].to_str(), None).unwrap_err();
    assert!(matches!(error, Error::PartsMissing { .. }), "{error}");
    let missing = format!("put linux-modules-{RELEASE}=6.9.1-1 into its folder");
    assert!(error.to_string().contains(&missing), "{error}");
    assert!(!error.to_string().contains("linux-binary"), "{error}");
}

#[test]
fn modules_of_another_release_are_refused() {
    let lab = Lab::new();
    let image = forge::bzimage(RELEASE, &forge::vmlinux(RELEASE, true), Packing::Gzip);
    let path = lab.put("bzImage", &image);
    let built = |name: &str, release: &str| {
        let module = forge::module_of(release, "kvm", "", "");
        lab.put(&format!("{name}/arch/x86/kvm/kvm.ko"), &module);
        lab.path(name)
    };
    let own = built("own", RELEASE);
    assert_eq!(lab.resolve(&path, Some(&own)).unwrap().modules, Some(own));
    let other = built("other", "6.9.0-2-amd64");
    let installed = lab.path("root");
    lab.put("root/lib/modules/6.8.0-1-amd64/modules.order", b"");
    for (dir, release) in [(other, "6.9.0-2-amd64"), (installed, "6.8.0-1-amd64")] {
        let error = lab.resolve(&path, Some(&dir)).unwrap_err();
        assert!(matches!(error, Error::OtherModules { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(release) && said.contains(RELEASE), "{said}");
    }
}

#[test]
fn a_truncated_package_is_damage_and_leaves_nothing() {
    if !have(&[DPKG_DEB]) {
        return;
    }
    let lab = Lab::new();
    let deb = forge::kernel_deb(lab.dir.path(), RELEASE, "6.9.1-1");
    let whole = fs::read(&deb).unwrap();
    for length in [
        8,
        60,
        100,
        300,
        whole.len() / 2,
        whole.len() - 200,
        whole.len() - 20,
    ] {
        let cut = lab.put("cut.deb", &whole[..length]);
        let error = lab.resolve(&cut, None).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{length}: {error}");
        assert!(
            error.to_string().contains("fetch or build it again"),
            "{error}"
        );
        assert!(!error.to_string().contains("Broken pipe"), "{error}");
    }
    assert_eq!(
        fs::read_dir(lab.cache.root().join("kernels")).map_or(0, Iterator::count),
        0
    );
    let empty = lab.put("empty.deb", b"");
    assert!(matches!(
        lab.resolve(&empty, None),
        Err(Error::NotAKernel { .. })
    ));
}

#[test]
fn any_package_can_be_unpacked_in_part() {
    if !have(&[DPKG_DEB]) {
        return;
    }
    let lab = Lab::new();
    let files: [(&str, &[u8]); 2] = [("usr/bin/a", b"a"), ("usr/share/b", b"b")];
    let path = forge::deb(lab.dir.path(), ("hello", "1:2-3", "libc6, x"), &files);
    let control = deb::control(&path).unwrap();
    assert_eq!(
        (control.package.as_str(), control.version.as_str()),
        ("hello", "1:2-3")
    );
    assert_eq!(control.depends, "libc6, x");
    let to = lab.path("out");
    let moved = |path: &Path| {
        path.strip_prefix("usr/bin")
            .ok()
            .map(|p| Path::new("moved").join(p))
    };
    assert_eq!(deb::unpack(&path, &to, moved).unwrap(), 1);
    assert_eq!(fs::read(to.join("moved/a")).unwrap(), b"a");
    assert!(!to.join("usr").exists());
    assert_eq!(
        deb::unpack(&path, &to, |path| Some(path.to_owned())).unwrap(),
        2
    );
    assert!(to.join("usr/share/b").is_file());
    assert!(deb::unpack(&path, &to, |_| Some("../evil".into())).is_ok_and(|count| count == 0));
}

#[test]
fn a_bzimage_is_taken_with_what_lies_beside_it() {
    let lab = Lab::new();
    let image = forge::bzimage(RELEASE, &forge::vmlinux(RELEASE, true), Packing::Gzip);

    let path = lab.put("boot/vmlinuz-x", &image);
    let config = lab.put(&format!("boot/config-{RELEASE}"), b"");
    let map = lab.put(&format!("boot/System.map-{RELEASE}"), &[b'x'; 5000]);
    let module = lab.put(&format!("lib/modules/{RELEASE}/m.ko"), b"");
    let kernel = lab.resolve(&path, None).unwrap();
    let modules = module.parent().map(Path::to_owned);
    let expected = Kernel {
        release: Some(RELEASE.into()),
        bzimage: path.clone(),
        modules: modules.clone(),
        config: Some(config),
        system_map: Some(map),
        origin: path.display().to_string(),
    };
    assert_eq!(kernel, expected);

    let path = lab.put("tree/arch/x86/boot/bzImage", &image);
    let config = lab.put("tree/.config", b"");
    assert_eq!(lab.resolve(&path, None).unwrap().modules, None);
    lab.put("tree/modules.order", b"");
    let kernel = lab.resolve(&path, None).unwrap();
    assert_eq!(kernel.config, Some(config));
    assert_eq!(kernel.modules, Some(lab.path("tree")));

    // What `make INSTALL_MOD_PATH=… modules_install` made, and a folder taken as it is.
    for dir in [
        lab.path(""),
        lab.path("lib/modules"),
        modules.clone().unwrap(),
    ] {
        assert_eq!(lab.resolve(&path, Some(&dir)).unwrap().modules, modules);
    }
    assert_eq!(
        lab.resolve(&path, Some(&lab.path("tree"))).unwrap().modules,
        Some(lab.path("tree"))
    );
    assert!(matches!(
        lab.resolve(&path, Some(&lab.path("no"))),
        Err(Error::Io { .. })
    ));
}

#[test]
fn a_vmlinux_is_booted_as_it_is_if_it_can_be() {
    let lab = Lab::new();
    let path = lab.put("tree/vmlinux", &forge::vmlinux(RELEASE, true));
    let kernel = lab.resolve(&path, None).unwrap();
    assert_eq!(kernel.release.as_deref(), Some(RELEASE));
    let boot = kernel.boot_file(&lab.cache).unwrap();
    assert!(boot.is_vmlinux && boot.path == path);
    let path = lab.put("tree/other", &forge::vmlinux(RELEASE, false));
    let error = lab.resolve(&path, None).unwrap_err();
    assert!(error.to_string().contains("CONFIG_PVH"), "{error}");
}

#[test]
fn debug_files_are_found_where_the_kernel_is() {
    let lab = Lab::new();
    let image = forge::bzimage(RELEASE, &forge::vmlinux(RELEASE, true), Packing::Gzip);

    // Installed, with the package of debug symbols installed beside it.
    let path = lab.put("root/boot/vmlinuz-x", &image);
    let kernel = lab.resolve(&path, None).unwrap();
    assert_eq!(kernel.debug_files(), None);
    let debug = "root/usr/lib/debug";
    let vmlinux = lab.put(&format!("{debug}/boot/vmlinux-{RELEASE}"), b"");
    let modules = format!("{debug}/lib/modules/{RELEASE}/kernel");
    let module = lab.put(&format!("{modules}/arch/x86/kvm/kvm.ko"), b"");
    let files = kernel.debug_files().unwrap();
    assert_eq!((files.vmlinux, files.modules), (vmlinux, vec![module]));

    // In the tree it was built in; also if the tree's vmlinux is what was given.
    let path = lab.put("tree/arch/x86/boot/bzImage", &image);
    let vmlinux = lab.put("tree/vmlinux", &forge::vmlinux(RELEASE, true));
    let module = lab.put("tree/drivers/crypto/ccp/ccp.ko", b"");
    let files = lab.resolve(&path, None).unwrap().debug_files().unwrap();
    assert_eq!(files.vmlinux, vmlinux);
    assert_eq!(files.modules, [module]);
    let given = lab.resolve(&vmlinux, None).unwrap();
    assert_eq!(given.debug_files(), Some(files.clone()));
    assert_eq!(DebugFiles::of(&vmlinux).unwrap(), files);

    // No kernel of an archive: nothing to fetch.
    let path = lab.put("other/bzImage", &image);
    let kernel = lab.resolve(&path, None).unwrap();
    let error = Kernels::new(lab.cache.clone()).fetch_debug_files(&kernel);
    let error = error.unwrap_err();
    assert!(matches!(error, Error::NotOfTheArchive { .. }), "{error}");
    assert!(!error.to_string().contains('\n'));
    let error = DebugFiles::of(&lab.path("no/vmlinux")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn a_bzimage_is_booted_itself_if_its_vmlinux_cannot_be() {
    let lab = Lab::new();
    let payloads = [
        forge::bzimage(RELEASE, &forge::vmlinux(RELEASE, false), Packing::Gzip),
        forge::bzimage(RELEASE, b"BZh91AY&SY", Packing::Raw),
    ];
    for image in payloads {
        let path = lab.put("bzImage", &image);
        let boot = lab
            .resolve(&path, None)
            .unwrap()
            .boot_file(&lab.cache)
            .unwrap();
        assert!(!boot.is_vmlinux && boot.path == path);
    }
    let damaged = forge::bzimage(RELEASE, b"not an ELF file", Packing::Gzip);
    let kernel = lab.resolve(&lab.put("bzImage", &damaged), None).unwrap();
    assert!(matches!(
        kernel.boot_file(&lab.cache),
        Err(Error::Damaged { .. })
    ));
}

#[test]
fn what_is_no_kernel_is_refused_with_a_reason() {
    let lab = Lab::new();
    let error = lab
        .resolve(&lab.put("README", b"hello\n"), None)
        .unwrap_err();
    assert!(matches!(error, Error::NotAKernel { .. }), "{error}");
    let error = lab.resolve(&lab.path(""), None).unwrap_err();
    assert!(
        error.to_string().contains("arch/x86/boot/bzImage"),
        "{error}"
    );
    let error = lab.resolve(&lab.path("nothing/here"), None).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}
