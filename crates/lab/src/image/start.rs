//! What a lab's kernel boots from: the first program, and the modules that it loads.

use exitpath_lab_start::places::{INIT, MODULES, ORDER};

use crate::error::Result;
use crate::image::initramfs::Initramfs;
use crate::kernel::modules::ModuleFile;

/// The first program, `exitpath-lab-start`.
pub(crate) static START: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/start"));

/// A module and its parameters, as the kernel reads them.
pub(crate) type Module = (ModuleFile, String);

/// The initramfs of a kernel with these modules, in this order.
///
/// # Errors
/// As [`Initramfs::to_vec`].
pub(crate) fn initramfs(modules: &[Module]) -> Result<Vec<u8>> {
    let mut files = Initramfs::new();
    files.device("/dev/console", 0o600, 5, 1)?;
    files.file(INIT, 0o755, START)?;
    let mut order = String::new();
    for (module, parameters) in modules {
        let path = format!("{MODULES}/{}.ko", module.name);
        files.file(path, 0o644, &*module.bytes)?;
        order.push_str(&format!("{} {parameters}\n", module.name));
    }
    files.file(ORDER, 0o644, order)?;
    files.to_vec()
}
