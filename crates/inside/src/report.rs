//! What a command inside tells: the plan it reads, what it has begun, its report, and what names addresses.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use exitpath_lab_start::places::PLAN;
use exitpath_lab_start::{firmware, system};
use exitpath_runner::work::{PLAN_FILE, RESULT_FILE, Vdso};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// How `/proc/PID/maps` calls the vDSO.
const VDSO: &str = "[vdso]";
/// The kernel's symbols.
const KALLSYMS: &str = "/proc/kallsyms";

/// The plan.
pub(crate) fn plan<T: DeserializeOwned>() -> Result<T, Error> {
    let plan = std::fs::read(PLAN_FILE).map_err(|error| Error::Plan(error.to_string()))?;
    serde_json::from_slice(&plan).map_err(|error| Error::Plan(error.to_string()))
}

/// The plan of a machine that stops until there is one.
pub(crate) fn wait_for_plan<T: DeserializeOwned>() -> Result<T, Error> {
    let ports = |may| system::may_use_ports(may).map_err(|error| Error::Plan(error.to_string()));
    ports(true)?;
    let plan = firmware::wait_for(PLAN).map_err(Error::Plan)?;
    // The kernel would copy their bitmap on each return to user space.
    ports(false)?;
    serde_json::from_slice(&plan).map_err(|error| Error::Plan(error.to_string()))
}

/// Says what is begun, in a line.
pub(crate) fn begun(what: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{what}").and_then(|()| stdout.flush());
    written.map_err(|cause| Error::File {
        action: "write",
        path: "the standard output",
        cause,
    })
}

/// Writes the report. Each byte of it costs an exit of the emulator on its way out, so it is packed.
pub(crate) fn write(report: &impl Serialize) -> Result<(), Error> {
    let failed = |cause| Error::File {
        action: "write",
        path: RESULT_FILE,
        cause,
    };
    let file = File::create(RESULT_FILE).map_err(failed)?;
    let mut packed = GzEncoder::new(file, Compression::fast());
    serde_json::to_writer(BufWriter::new(&mut packed), report)
        .map_err(|error| failed(error.into()))?;
    packed.finish().map_err(failed)?;
    Ok(())
}

/// This process's vDSO; `None` where there is none to be read.
pub(crate) fn vdso() -> Option<Vdso> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(VDSO))?;
    let (range, _) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let at = |text| u64::from_str_radix(text, 16).ok();
    let (address, end) = (at(start)?, at(end)?);
    let mut bytes = vec![0; usize::try_from(end.checked_sub(address)?).ok()?];
    let memory = File::open("/proc/self/mem").ok()?;
    memory.read_exact_at(&mut bytes, address).ok()?;
    Some(Vdso { address, bytes })
}

/// The symbols of the kernel's code.
pub(crate) fn kallsyms() -> Result<String, Error> {
    let text = std::fs::read_to_string(KALLSYMS).map_err(|cause| Error::File {
        action: "read",
        path: KALLSYMS,
        cause,
    })?;
    Ok(code_symbols(&text))
}

/// The lines of `/proc/kallsyms` that name code: types t, T, w and W (nm(1)).
fn code_symbols(kallsyms: &str) -> String {
    let is_code = |line: &&str| {
        let kind = line.split(' ').nth(1);
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case("t") || kind.eq_ignore_ascii_case("w"))
    };
    kallsyms.split_inclusive('\n').filter(is_code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_kernels_symbols_those_of_code_are_kept() {
        let all = "ffffffff81000000 T _text\nffffffff82000000 d data\n\
                   ffffffffc0000010 t inner\t[kvm]\nffffffff81000010 W weak\n";
        let code = "ffffffff81000000 T _text\n\
                    ffffffffc0000010 t inner\t[kvm]\nffffffff81000010 W weak\n";
        assert_eq!(code_symbols(all), code);
    }

    #[test]
    fn the_vdso_is_a_library() {
        let vdso = vdso().expect("every process on x86 has one");
        assert!(vdso.bytes.starts_with(b"\x7fELF"), "{:x}", vdso.address);
    }
}
