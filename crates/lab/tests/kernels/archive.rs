//! apt's private state and the kernels of an archive, over an archive made for the purpose.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use exitpath_lab::Error;
use exitpath_lab::bzimage::file_sha256;
use exitpath_lab::cache::Cache;
use exitpath_lab::debug_files::DebugFiles;
use exitpath_lab::kernel::apt::Apt;
use exitpath_lab::kernels::{Flavour, Kernels, Listing};

use crate::{forge, have};

/// Whether the machine's apt keeps lists compressed. Images of containers are set up so, plain
/// machines are not; a test must not depend on which of them it runs on.
const KEEPS_COMPRESSED: [bool; 2] = [true, false];

/// A Debian mirror in a folder, an `/etc/apt` that names it, and a cache.
struct Mirror {
    dir: tempfile::TempDir,
}

impl Mirror {
    /// `bookworm` with 6.1 in two versions and a cloud one, and backports with 6.12; for a
    /// plain machine's apt.
    fn new() -> Self {
        Self::for_apt_that(false)
    }

    /// The same for an apt that keeps lists compressed or does not.
    fn for_apt_that(keeps_compressed: bool) -> Self {
        let mirror = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let image =
            |release: &str, version: &str| forge::kernel_deb(&mirror.pool(), release, version);
        let debs = [
            image("6.1.0-9-amd64", "6.1.27-1"),
            image("6.1.0-56-amd64", "6.1.192-2"),
            forge::debug_deb(&mirror.pool(), "6.1.0-56-amd64", "6.1.192-2"),
            // Of another version than the kernel.
            forge::debug_deb(&mirror.pool(), "6.1.0-9-amd64", "6.1.27-2"),
            image("6.1.0-56-cloud-amd64", "6.1.192-2"),
            mirror.meta("6.1.192-2", "6.1.0-56-amd64"),
        ];
        mirror.suite("bookworm", &debs);
        let debs = [image("6.12.43+deb12-amd64", "6.12.43-1~bpo12+1")];
        mirror.suite("bookworm-backports", &debs);
        let list = format!(
            "deb [trusted=yes] file:{} bookworm main\n\
             deb https://unreachable.invalid/other bookworm main\n",
            mirror.archive().display()
        );
        fs::create_dir_all(mirror.etc()).unwrap();
        fs::write(mirror.etc().join("sources.list"), list).unwrap();
        // Nothing of this machine's settings but these.
        let settings = format!(
            "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
             Acquire::GzipIndexes \"{keeps_compressed}\";\n"
        );
        fs::write(mirror.etc().join("apt.conf"), settings).unwrap();
        mirror
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("mirror/debian")
    }

    fn pool(&self) -> PathBuf {
        let pool = self.archive().join("pool");
        fs::create_dir_all(&pool).unwrap();
        pool
    }

    fn etc(&self) -> PathBuf {
        self.dir.path().join("etc")
    }

    fn meta(&self, version: &str, release: &str) -> PathBuf {
        let depends = format!("linux-image-{release} (= {version})");
        forge::deb(&self.pool(), ("linux-image-amd64", version, &depends), &[])
    }

    /// Writes a suite's lists, with hashes but not signed.
    fn suite(&self, suite: &str, debs: &[PathBuf]) {
        let mut packages = String::new();
        for deb in debs {
            let control = exitpath_lab::deb::control(deb).unwrap();
            let depends = match control.depends.as_str() {
                "" => String::new(),
                depends => format!("Depends: {depends}\n"),
            };
            packages += &format!(
                "Package: {}\nVersion: {}\nArchitecture: amd64\n{depends}Filename: pool/{}\n\
                 Size: {}\nSHA256: {}\nDescription: forged\n\n",
                control.package,
                control.version,
                deb.file_name().unwrap().display(),
                fs::metadata(deb).unwrap().len(),
                file_sha256(deb).unwrap(),
            );
        }
        let dists = self.archive().join("dists").join(suite);
        let list = dists.join("main/binary-amd64/Packages");
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        fs::write(&list, &packages).unwrap();
        let release = format!(
            "Origin: Debian\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\n\
             Components: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n\
             SHA256:\n {} {} main/binary-amd64/Packages\n",
            file_sha256(&list).unwrap(),
            packages.len(),
        );
        fs::write(dists.join("Release"), release).unwrap();
    }

    fn break_it(&self) {
        fs::rename(self.archive(), self.dir.path().join("gone")).unwrap();
    }

    fn cache(&self) -> Cache {
        Cache::at(self.dir.path().join("cache")).unwrap()
    }

    fn kernels(&self) -> Kernels {
        Kernels::new(self.cache()).with_sources_of(self.etc())
    }
}

fn can_run() -> bool {
    have(&[
        "/usr/bin/apt-get",
        "/usr/bin/apt-cache",
        "/usr/bin/dpkg-deb",
    ])
}

fn releases(listing: &Listing) -> Vec<(&str, bool)> {
    listing
        .kernels
        .iter()
        .map(|k| (k.release.as_str(), k.cached))
        .collect()
}

/// Makes the lists as old as they have to be to be fetched again.
fn age_lists(cache: &Cache) {
    let stamp = fs::File::options()
        .write(true)
        .open(cache.root().join("apt/refreshed"))
        .unwrap();
    stamp
        .set_modified(SystemTime::now() - Duration::from_secs(2 * 24 * 3600))
        .unwrap();
}

#[test]
fn kernels_are_listed_found_and_fetched() {
    if !can_run() {
        return;
    }
    let mirror = Mirror::new();
    let kernels = mirror.kernels();
    let listing = kernels.list().unwrap();
    assert_eq!(listing.note, None);
    let all = [
        "6.12.43+deb12-amd64",
        "6.1.0-56-amd64",
        "6.1.0-9-amd64",
        "6.1.0-56-cloud-amd64",
    ];
    assert_eq!(releases(&listing), all.map(|release| (release, false)));
    assert_eq!(listing.kernels[0].suite, "bookworm-backports");
    assert_eq!(listing.kernels[0].version, "6.12.43-1~bpo12+1");
    assert_eq!(listing.kernels[3].flavour, Flavour::Cloud);

    // Nothing named: what Debian would install, not the newest of all.
    let kernel = kernels.resolve(None, None).unwrap();
    assert_eq!(kernel.release.as_deref(), Some("6.1.0-56-amd64"));
    assert_eq!(
        kernel.origin,
        "Debian linux-image-6.1.0-56-amd64 6.1.192-2 (bookworm)"
    );
    assert!(
        kernel
            .modules
            .unwrap()
            .join("kernel/arch/x86/kvm/kvm.ko")
            .is_file()
    );

    let resolve = |spec: &str| kernels.resolve(Some(spec), None);
    let release = |spec: &str| resolve(spec).unwrap().release.unwrap();
    assert_eq!(release("6.1"), "6.1.0-56-amd64");
    assert_eq!(release("6.1.0-9"), "6.1.0-9-amd64");
    assert_eq!(release("6.12"), "6.12.43+deb12-amd64");
    assert_eq!(release("6"), "6.12.43+deb12-amd64");
    // A newer one that was asked for by number does not become the default.
    assert_eq!(
        kernels.resolve(None, None).unwrap().release.unwrap(),
        "6.1.0-56-amd64"
    );

    let error = resolve("6.1.0-99-amd64").unwrap_err().to_string();
    assert!(
        error.contains("nearest known: 6.1.0-56-amd64, 6.1.0-9-amd64"),
        "{error}"
    );
    let error = resolve("5.10").unwrap_err().to_string();
    assert!(
        error.contains("6.1.0-56-amd64, 6.12.43+deb12-amd64"),
        "{error}"
    );
}

#[test]
fn a_kernel_in_several_packages_is_fetched_whole_or_not_offered() {
    if !can_run() {
        return;
    }
    let mirror = Mirror::new();
    let (whole, lacking) = ("7.3.4+deb13-amd64", "7.2.9+deb13-amd64");
    // Whole by itself: what it depends on has left the archive.
    let early = "6.18.5+deb13-amd64";
    let mut debs = forge::kernel_debs(&mirror.pool(), whole, "7.3.4-1");
    debs.extend(forge::kernel_debs(&mirror.pool(), lacking, "7.2.9-1"));
    let needs = format!("kmod, linux-base-{early} (= 6.18.5-1)");
    debs.push(forge::image_deb(&mirror.pool(), early, "6.18.5-1", &needs));
    debs.retain(|deb| {
        let name = deb.file_name().unwrap().to_string_lossy();
        !name.starts_with(&format!("linux-modules-{lacking}"))
    });
    mirror.suite("bookworm-backports", &debs);
    let kernels = mirror.kernels();

    let listing = kernels.list().unwrap();
    let known: Vec<&str> = listing.kernels.iter().map(|k| &*k.release).collect();
    assert!(
        known.contains(&whole) && !known.contains(&lacking),
        "{known:?}"
    );
    let kernel = kernels.resolve(Some("7.3"), None).unwrap();
    assert_eq!(kernel.release.as_deref(), Some(whole));
    let modules = kernel.modules.unwrap();
    for file in ["modules.builtin", "kernel/arch/x86/kvm/kvm.ko"] {
        assert!(modules.join(file).is_file(), "{file}");
    }
    assert!(
        kernel
            .config
            .is_some_and(|config| config.ends_with(format!("{whole}/config")))
    );
    assert!(
        kernel
            .origin
            .starts_with("Debian linux-image-7.3.4+deb13-amd64 7.3.4-1")
    );
    let release = kernels.resolve(Some("6.18"), None).unwrap().release;
    assert_eq!(release.as_deref(), Some(early));
    // From the cache.
    mirror.break_it();
    assert!(mirror.kernels().resolve(Some(whole), None).is_ok());
    let error = kernels.resolve(Some("7.2"), None).unwrap_err().to_string();
    assert!(
        error.contains("nearest known: 7.3.4+deb13-amd64, 6.18.5+deb13-amd64, 6.1.0-56-amd64"),
        "{error}"
    );
}

#[test]
fn the_cache_serves_without_the_archive() {
    if can_run() {
        for keeps_compressed in KEEPS_COMPRESSED {
            serves_without_the_archive(&Mirror::for_apt_that(keeps_compressed));
        }
    }
}

fn serves_without_the_archive(mirror: &Mirror) {
    let kernels = mirror.kernels();
    kernels.resolve(Some("6.12"), None).unwrap();
    mirror.break_it();
    age_lists(&mirror.cache());

    // Old lists, and a line that says so.
    let listing = kernels.list().unwrap();
    assert_eq!(listing.kernels.len(), 4);
    assert!(
        listing
            .note
            .is_some_and(|note| note.contains("could not be fetched"))
    );
    let release = kernels
        .resolve(Some("6.12"), None)
        .unwrap()
        .release
        .unwrap();
    assert_eq!(release, "6.12.43+deb12-amd64");
    let error = kernels.resolve(Some("6.1.0-9"), None).unwrap_err();
    assert!(matches!(error, Error::Apt { .. }), "{error}");
    assert!(
        error.to_string().contains("name a kernel by its path"),
        "{error}"
    );
    assert!(!error.to_string().contains('\n'), "{error}");

    // No lists at all: what is in the cache, and why not more.
    fs::remove_dir_all(mirror.cache().root().join("apt")).unwrap();
    let listing = kernels.list().unwrap();
    assert_eq!(releases(&listing), [("6.12.43+deb12-amd64", true)]);
    assert!(
        listing
            .note
            .is_some_and(|note| note.contains("apt-get update failed"))
    );
    // Better this one than none.
    assert!(kernels.resolve(None, None).is_ok());
    let error = kernels.resolve(Some("6.1"), None).unwrap_err();
    assert!(matches!(error, Error::Apt { .. }), "{error}");
}

#[test]
fn a_newest_kernel_that_was_fetched_by_number_becomes_the_default() {
    if !can_run() {
        return;
    }
    let mirror = Mirror::new();
    let kernels = mirror.kernels();
    kernels.resolve(Some("6.1.0-56-amd64"), None).unwrap();
    kernels.resolve(None, None).unwrap();
    mirror.break_it();
    fs::remove_dir_all(mirror.cache().root().join("apt")).unwrap();
    assert_eq!(
        kernels.resolve(None, None).unwrap().release.unwrap(),
        "6.1.0-56-amd64"
    );
}

#[test]
fn lists_are_fetched_when_they_are_old_or_of_other_sources() {
    if can_run() {
        for keeps_compressed in KEEPS_COMPRESSED {
            lists_are_fetched_when_they_should_be(&Mirror::for_apt_that(keeps_compressed));
        }
    }
}

fn lists_are_fetched_when_they_should_be(mirror: &Mirror) {
    let cache = mirror.cache();
    let open = || Apt::with_sources_of(&cache, &mirror.etc()).unwrap();
    let has_new = || {
        open().refresh().unwrap();
        !open()
            .versions(&["linux-image-6.1.0-77-amd64"])
            .unwrap()
            .is_empty()
    };
    assert!(!has_new());
    let deb = forge::kernel_deb(&mirror.pool(), "6.1.0-77-amd64", "6.1.200-1");
    mirror.suite("bookworm", &[deb]);
    assert!(!has_new(), "they are fresh");
    age_lists(&cache);
    assert!(has_new());

    let deb = forge::kernel_deb(&mirror.pool(), "6.1.0-78-amd64", "6.1.201-1");
    mirror.suite("trixie", &[deb]);
    let list = format!(
        "deb [trusted=yes] file:{} trixie main\n",
        mirror.archive().display()
    );
    fs::write(mirror.etc().join("sources.list"), list).unwrap();
    // There is no trixie-backports here: one line, and the rest serves.
    let note = open().refresh().unwrap();
    assert!(note.is_some_and(|note| note.contains("could not be fetched")));
    let names = open().names("linux-image-6").unwrap();
    assert!(
        names.contains(&"linux-image-6.1.0-78-amd64".to_owned()),
        "{names:?}"
    );
    assert!(
        !names.contains(&"linux-image-6.1.0-77-amd64".to_owned()),
        "{names:?}"
    );
}

#[test]
fn packages_are_downloaded_whole_or_not_at_all() {
    if !can_run() {
        return;
    }
    let mirror = Mirror::new();
    let cache = mirror.cache();
    let apt = Apt::with_sources_of(&cache, &mirror.etc()).unwrap();
    apt.refresh().unwrap();
    let into = mirror.dir.path().join("into");
    let names = [
        "linux-image-amd64",
        "linux-image-6.12.43+deb12-amd64/bookworm-backports",
    ];
    let paths = apt.download(&names, &into).unwrap();
    assert_eq!(paths.len(), 2);
    for (path, name) in paths
        .iter()
        .zip(["linux-image-amd64", "linux-image-6.12.43+deb12-amd64"])
    {
        assert_eq!(exitpath_lab::deb::control(path).unwrap().package, name);
    }
    assert_eq!(
        apt.depends("linux-image-amd64").unwrap(),
        "linux-image-6.1.0-56-amd64 (= 6.1.192-2)"
    );

    // One cut short by something else is fetched again.
    let whole = fs::read(&paths[0]).unwrap();
    fs::write(&paths[0], &whole[..10]).unwrap();
    assert_eq!(apt.download(&names, &into).unwrap(), paths);
    assert_eq!(fs::read(&paths[0]).unwrap(), whole);

    // One that is not what the list promises is not taken.
    fs::remove_file(&paths[0]).unwrap();
    fs::write(
        mirror.pool().join(paths[0].file_name().unwrap()),
        vec![0; whole.len()],
    )
    .unwrap();
    let error = apt.download(&names, &into).unwrap_err();
    assert!(matches!(error, Error::Apt { .. }), "{error}");
    assert!(!paths[0].exists());
    let left = fs::read_dir(&into).unwrap().count();
    assert_eq!(left, 1, "only the other one is there");

    let error = apt.download(&["no-such-package"], &into).unwrap_err();
    assert!(error.to_string().contains("no-such-package"), "{error}");
}

#[test]
fn debug_symbols_are_fetched_for_the_very_version() {
    if !can_run() {
        return;
    }
    let mirror = Mirror::new();
    let kernels = mirror.kernels();
    let resolve = |spec: &str| kernels.resolve(Some(spec), None).unwrap();
    let kernel = resolve("6.1.0-56");
    assert_eq!(kernel.debug_files(), None);
    let files = kernels.fetch_debug_files(&kernel).unwrap();
    assert_eq!(fs::read(&files.vmlinux).unwrap(), b"6.1.192-2");
    let modules: Vec<_> = files
        .modules
        .iter()
        .map(|m| m.file_name().unwrap())
        .collect();
    assert_eq!(modules, ["kvm.ko", "kvm-amd.ko", "irqbypass.ko"]);
    assert_eq!(fs::read(&files.modules[1]).unwrap(), b"kvm-amd");
    let kernel_folder = kernel.bzimage.ancestors().nth(2).unwrap();
    assert!(files.vmlinux.starts_with(kernel_folder));
    assert!(!kernel_folder.join("usr/share").exists());
    let of_release = files.modules[0].ancestors().nth(4).unwrap();
    assert!(!of_release.join("kernel/drivers").exists());

    // Found again, by any way to the kernel, and without the archive.
    assert_eq!(kernel.debug_files().as_ref(), Some(&files));
    assert_eq!(DebugFiles::of(&files.vmlinux).unwrap(), files);
    let error = kernels.fetch_debug_files(&resolve("6.1.0-9")).unwrap_err();
    assert!(matches!(error, Error::NoDebugPackage { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("6.1.0-9-amd64-dbg 6.1.27-1 (only 6.1.27-2)"),
        "{error}"
    );
    let error = kernels.fetch_debug_files(&resolve("6.12")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has no linux-image-6.12.43+deb12-amd64-dbg"),
        "{error}"
    );
    mirror.break_it();
    assert_eq!(kernels.fetch_debug_files(&kernel).unwrap(), files);
    assert_eq!(resolve("6.1.0-56").debug_files(), Some(files));
}

#[test]
fn debug_symbols_that_do_not_arrive_whole_leave_nothing() {
    if !can_run() {
        return;
    }
    let mirror = Mirror::new();
    let kernels = mirror.kernels();
    let kernel = kernels.resolve(Some("6.1.0-56"), None).unwrap();
    let package = ("linux-image-6.1.0-56-amd64-dbg", "6.1.192-2", "");
    // The archive's list is of the new one; so it is the package itself that is wrong.
    let empty = forge::deb(&mirror.pool(), package, &[("usr/share/doc/x", b"x")]);
    mirror.suite("bookworm", &[empty]);
    age_lists(&mirror.cache());
    let error = kernels.fetch_debug_files(&kernel).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("boot/vmlinux"), "{error}");
    assert_eq!(kernel.debug_files(), None);
    assert!(
        !kernel
            .bzimage
            .ancestors()
            .nth(2)
            .unwrap()
            .join("usr")
            .exists()
    );
}

#[test]
fn a_machine_without_a_debian_archive_is_told_so() {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let list = "deb http://archive.example/ubuntu noble main\n";
    fs::write(dir.path().join("sources.list"), list).unwrap();
    let cache = Cache::at(dir.path().join("cache")).unwrap();
    let error = Apt::with_sources_of(&cache, dir.path()).unwrap_err();
    assert!(matches!(error, Error::NoArchive { .. }), "{error}");
    let kernels = Kernels::new(cache).with_sources_of(dir.path());
    let listing = kernels.list().unwrap();
    assert!(listing.kernels.is_empty() && listing.note.is_some());
    let error = kernels.resolve(None, None).unwrap_err();
    assert!(error.to_string().contains("by its path"), "{error}");
}

#[test]
fn the_machines_hooks_and_state_are_not_used() {
    if !can_run() {
        return;
    }
    let mirror = Mirror::new();
    let cache = mirror.cache();
    Apt::with_sources_of(&cache, &mirror.etc()).unwrap();
    let settings = std::process::Command::new("apt-config")
        .env("APT_CONFIG", cache.root().join("apt/apt.conf"))
        .arg("dump")
        .output()
        .unwrap();
    let settings = String::from_utf8(settings.stdout).unwrap();
    let lower = settings.to_ascii_lowercase();
    assert!(!lower.contains("invoke"), "{settings}");
    for place in [
        "Dir::State",
        "Dir::State::lists",
        "Dir::State::status",
        "Dir::Cache",
    ] {
        let start = format!("{place} \"{}", cache.root().display());
        assert!(
            settings.lines().any(|line| line.starts_with(&start)),
            "{place}: {settings}"
        );
    }
}
