//! The same with one of Debian's kernels.
//!
//! It is taken from the user's cache. `EXITPATH_TEST_NETWORK=1` gives leave to fetch what
//! is not there.

use std::time::Instant;

use exitpath_lab::bzimage::{BzImage, has_pvh_note, read_loadable, vmlinux_release};
use exitpath_lab::cache::Cache;
use exitpath_lab::kernels::{Kernel, Kernels};
use exitpath_lab::modules;
use exitpath_testing::{Need, skipped};

/// The kernel and the cache it is in; nothing, with a line that says why, if there is none.
fn kernel(spec: Option<&str>) -> Option<(Kernel, Cache)> {
    let cache = match Cache::open() {
        Ok(cache) => cache,
        Err(e) => {
            skipped(Need::Lab, e);
            return None;
        }
    };
    let may_fetch = std::env::var_os("EXITPATH_TEST_NETWORK").is_some_and(|value| value == "1");
    // An archive that is none keeps it to the cache.
    let nowhere = cache.root().join("no-sources");
    let mut kernels = Kernels::new(cache.clone());
    if !may_fetch {
        kernels = kernels.with_sources_of(nowhere);
    }
    match kernels.resolve(spec, None) {
        Ok(kernel) => Some((kernel, cache)),
        Err(e) => {
            skipped(
                Need::Lab,
                format!("no kernel (EXITPATH_TEST_NETWORK=1 fetches one): {e}"),
            );
            None
        }
    }
}

fn check(spec: Option<&str>) {
    let Some((kernel, cache)) = kernel(spec) else {
        return;
    };
    let release = kernel.release.clone().unwrap();
    let image = BzImage::read(&kernel.bzimage).unwrap();
    assert_eq!(image.release(), Some(release.as_str()));
    assert!(kernel.config.is_some() && kernel.system_map.is_none());

    let start = Instant::now();
    let boot = kernel.boot_file(&cache).unwrap();
    eprintln!("{}: boot file after {:?}", kernel.origin, start.elapsed());
    assert!(boot.is_vmlinux);
    let elf = read_loadable(&boot.path).unwrap();
    assert!(has_pvh_note(&elf));
    assert_eq!(vmlinux_release(&elf), Some(release));

    let start = Instant::now();
    let order = modules::load_order(&kernel.modules.unwrap(), &["kvm_amd", "kvm-intel"]).unwrap();
    eprintln!("modules after {:?}: {order:?}", start.elapsed());
    let at = |name: &str| order.iter().position(|module| module.name == name).unwrap();
    assert!(
        at("irqbypass") < at("kvm") && at("kvm") < at("kvm_amd") && at("kvm") < at("kvm_intel")
    );
    assert!(at("ccp") < at("kvm_amd"));
    assert!(
        order
            .iter()
            .all(|module| module.bytes.starts_with(b"\x7fELF"))
    );
}

#[test]
fn the_newest_kernel_of_debian() {
    check(None);
}

#[test]
fn a_kernel_of_the_backports() {
    check(Some("6.12"));
}
