//! The program inside a lab (`exitpath-inside`): part of this program where it was built with it, else a file.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use exitpath_protocol::{BUILD, MARK, READY_SYMBOL, STEP_SYMBOL};
use object::{Object, ObjectSymbol};

use crate::error::{Error, Result};

/// Empty where this program was built without it.
static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inside"));
/// Its name as a file.
const FILE: &str = "exitpath-inside";

/// The program's bytes.
///
/// # Errors
/// [`Error::NoInside`] where it is nowhere, [`Error::OtherInside`] where what is there was built from other
/// sources than this program.
pub fn inside() -> Result<Cow<'static, [u8]>> {
    if !EMBEDDED.is_empty() {
        check(EMBEDDED, Path::new("the program inside this one"))?;
        return Ok(Cow::Borrowed(EMBEDDED));
    }
    let found = inside_file().ok_or_else(|| Error::NoInside { searched: places() })?;
    let bytes = std::fs::read(&found).map_err(Error::io("read", &found))?;
    check(&bytes, &found)?;
    Ok(Cow::Owned(bytes))
}

/// Its file, where it is one.
pub fn inside_file() -> Option<PathBuf> {
    let mut places = places().into_iter().filter(|_| EMBEDDED.is_empty());
    places.find(|place| place.is_file())
}

/// Where it may be: beside this program, or where an installation has it.
fn places() -> Vec<PathBuf> {
    let this = std::env::current_exe().and_then(|path| path.canonicalize());
    let Some(folder) = this.ok().and_then(|path| path.parent().map(PathBuf::from)) else {
        return Vec::new();
    };
    vec![
        folder.join(FILE),
        // Cargo's tests are in a folder below.
        folder.join("..").join(FILE),
        folder.join("../libexec/exitpath").join(FILE),
    ]
}

/// Refuses one that other sources were made into: it would measure something else, or not understand.
fn check(bytes: &[u8], path: &Path) -> Result<()> {
    let mark = format!("{MARK}{BUILD}");
    if memchr::memmem::find(bytes, mark.as_bytes()).is_none() {
        return Err(Error::OtherInside {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Address of an instruction in it that is executed once everything is loaded, before anything is measured.
///
/// # Errors
/// As [`inside`].
pub fn ready_address() -> Result<u64> {
    address(READY_SYMBOL)
}

/// Address of an instruction in it that is executed before each step of a run in steps, and behind it.
///
/// # Errors
/// As [`inside`].
pub fn step_address() -> Result<u64> {
    address(STEP_SYMBOL)
}

fn address(name: &str) -> Result<u64> {
    let bytes = inside()?;
    let file = object::File::parse(&*bytes);
    let address = file.ok().and_then(|file| {
        let mut symbols = file.symbols();
        symbols
            .find(|symbol| symbol.name() == Ok(name))
            .map(|symbol| symbol.address())
    });
    address.ok_or_else(|| Error::Patch {
        why: format!("the program inside has no symbol {name}: build it with its symbols"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_other_sources_is_refused() {
        let own = format!("\x7fELF…{MARK}{BUILD}\0…");
        assert!(check(own.as_bytes(), Path::new("own")).is_ok());
        let other = format!("\x7fELF…{MARK}0123456789abcdef\0…");
        let refused = check(other.as_bytes(), Path::new("/bin/other"));
        let said = refused.expect_err("another build").to_string();
        assert!(
            said.contains("/bin/other") && said.contains("make build"),
            "{said}"
        );
    }
}
