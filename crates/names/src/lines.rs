//! Source lines and inlined functions of addresses, from DWARF.

use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use addr2line::Context;
use exitpath_recording::Symbol;
use gimli::Reader as _;

use crate::elf::demangle;
use crate::error::{Error, Result};
use crate::kallsyms::VMLINUX;
use crate::sections::{self, Function, Reader, Region};

/// Of the names that a file and a list of symbols have in common, the part in percent that has to
/// be at the same distance: a few labels of assembly may have a function's name.
const AGREEING: usize = 90;

/// A file's debug information, and where the file's code runs.
pub struct Lines {
    path: PathBuf,
    context: Context<Reader>,
    regions: Vec<Region>,
    /// What to add to an address in the file, for each piece of it; nothing where that is not
    /// known.
    biases: Vec<Option<u64>>,
    /// Piece and address in the file by name; names with several addresses are left out.
    functions: HashMap<String, (usize, u64)>,
}

/// A function at an address: the one that the address is in, or one that is inlined there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The function's name, demangled; empty where it is not known.
    pub function: String,
    /// The file, relative to the folder it was compiled in if that is a parent, or else to the
    /// parent they have in common; empty where it is not known.
    pub file: String,
    /// The line, 0 where it is not known: for the innermost function the address's own, for the
    /// others that of the call which was inlined.
    pub line: u32,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("path", &self.path)
            .field("biases", &self.biases)
            .finish_non_exhaustive()
    }
}

impl Lines {
    /// Reads the debug information of a vmlinux, a kernel module (`.ko`) or a program.
    ///
    /// A linked file is taken to run where it was linked to, until [`Lines::place`] or
    /// [`Lines::place_at`] say otherwise. A module runs nowhere until [`Lines::place`] says where.
    ///
    /// Debug information in other files (split DWARF, dwz) is not looked for.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotElf`], [`Error::NoDebugInformation`] and
    /// [`Error::BadDebugInformation`].
    pub fn open(path: &Path) -> Result<Self> {
        let contents = sections::read(path)?;
        let context = Context::from_dwarf(contents.dwarf).map_err(|e| bad(path, e))?;
        let bias = (!contents.relocatable).then_some(0);
        let pieces = contents.regions.iter().map(|region| region.piece + 1);
        Ok(Self {
            path: path.into(),
            context,
            biases: vec![bias; pieces.max().unwrap_or(0)],
            regions: contents.regions,
            functions: unique(contents.functions),
        })
    }

    /// Takes a linked file to be loaded at this bias: see [`crate::load_bias`].
    #[must_use]
    pub fn place_at(mut self, bias: u64) -> Self {
        self.biases.fill(Some(bias));
        self
    }

    /// Finds out where the file's code runs, from the symbols of `module` among `symbols`, such as
    /// [`crate::kallsyms`] gives them: by the names that are unique in both. Each section of a
    /// kernel module is placed on its own. The more symbols, the surer; those that
    /// [`crate::cover`] keeps suffice for the instructions they cover.
    ///
    /// # Errors
    /// [`Error::AnotherBuild`] if the names in common are at other distances of each other than in
    /// the file, or if there are none: the file is of another build. No symbol of the module at
    /// all is no error: nothing ran of it, and it runs nowhere.
    pub fn place(&mut self, symbols: &[Symbol], module: &str) -> Result<()> {
        let symbols = symbols.iter().filter(|symbol| symbol.module == module);
        let there = unique_names(symbols.map(|symbol| (symbol.name.as_str(), symbol.address)));
        let mut votes: Vec<HashMap<u64, usize>> = vec![HashMap::new(); self.biases.len()];
        for (name, address) in &there {
            if let Some((piece, here)) = self.functions.get(*name) {
                let bias = address.wrapping_sub(*here);
                *votes[*piece].entry(bias).or_default() += 1;
            }
        }
        let (mut agreeing, mut all) = (0, 0);
        for (bias, votes) in self.biases.iter_mut().zip(&votes) {
            let most = votes.iter().max_by_key(|(bias, count)| (**count, **bias));
            *bias = most.map(|(bias, _)| *bias);
            agreeing += most.map_or(0, |(_, count)| *count);
            all += votes.values().sum::<usize>();
        }
        let agree = all > 0 && agreeing * 100 >= all * AGREEING;
        if agree || there.is_empty() {
            return Ok(());
        }
        Err(Error::AnotherBuild {
            path: self.path.clone(),
            module: module.into(),
        })
    }

    /// The functions that an address is in, outermost first; nothing if the address is none of
    /// this file's, or has no line.
    ///
    /// # Errors
    /// [`Error::BadDebugInformation`].
    pub fn locate(&self, address: u64) -> Result<Vec<Frame>> {
        let Some(here) = self.in_file(address) else {
            return Ok(Vec::new());
        };
        self.frames(here).map_err(|e| bad(&self.path, e))
    }

    /// The address in the file of an address at run time.
    fn in_file(&self, address: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let here = address.wrapping_sub(self.biases[region.piece]?);
            let inside = here >= region.start && here - region.start < region.size;
            inside.then_some(here)
        })
    }

    fn frames(&self, here: u64) -> gimli::Result<Vec<Frame>> {
        let unit = self.context.find_dwarf_and_unit(here).skip_all_loads();
        let compiled_in = match unit.and_then(|unit| unit.comp_dir.clone()) {
            Some(folder) => folder.to_string_lossy()?.into_owned(),
            None => String::new(),
        };
        let mut found = self.context.find_frames(here).skip_all_loads()?;
        let mut frames = Vec::new();
        while let Some(frame) = found.next()? {
            let function = match &frame.function {
                Some(name) => demangle(&name.raw_name()?),
                None => String::new(),
            };
            let (file, line) = match &frame.location {
                Some(location) => (location.file, location.line),
                None => (None, None),
            };
            frames.push(Frame {
                function,
                file: file.map_or_else(String::new, |file| relative(file, &compiled_in)),
                line: line.unwrap_or(0),
            });
        }
        frames.reverse();
        Ok(frames)
    }
}

/// The lines of a kernel and its modules, placed by its symbols ([`crate::kallsyms`]'s, or those
/// that [`crate::cover`] kept of them). Files of modules without a symbol are not opened.
///
/// # Errors
/// As [`Lines::open`] and [`Lines::place`].
pub fn kernel_lines<P: AsRef<Path>>(
    vmlinux: &Path,
    modules: &[P],
    symbols: &[Symbol],
) -> Result<Vec<Lines>> {
    let modules = modules.iter().map(|path| {
        let name = path.as_ref().file_stem().unwrap_or_default();
        // The kernel's name for a module is that of its file with `_` for `-`.
        (path.as_ref(), name.to_string_lossy().replace('-', "_"))
    });
    let mut lines = Vec::new();
    for (path, module) in [(vmlinux, VMLINUX.to_owned())].into_iter().chain(modules) {
        if symbols.iter().any(|symbol| symbol.module == module) {
            let mut file = Lines::open(path)?;
            file.place(symbols, &module)?;
            lines.push(file);
        }
    }
    Ok(lines)
}

/// The functions whose names have one address in a file.
fn unique(functions: Vec<Function>) -> HashMap<String, (usize, u64)> {
    let named = functions
        .iter()
        .map(|f| (f.name.as_str(), (f.piece, f.address)));
    let unique = unique_names(named);
    let owned = unique
        .iter()
        .map(|(name, place)| ((*name).to_owned(), *place));
    owned.collect()
}

/// The names that stand for one thing only.
fn unique_names<'a, T: Copy + PartialEq>(
    named: impl Iterator<Item = (&'a str, T)>,
) -> HashMap<&'a str, T> {
    let mut things: HashMap<&str, Option<T>> = HashMap::new();
    for (name, thing) in named {
        let known = things.entry(name).or_insert(Some(thing));
        if *known != Some(thing) {
            *known = None;
        }
    }
    let unique = things.into_iter();
    unique
        .filter_map(|(name, thing)| Some((name, thing?)))
        .collect()
}

/// A path without `.` and `..`, and without the folder it was compiled in, or the parent it shares
/// with that: Debian's kernels are compiled below their source, in a folder named after the
/// builder.
fn relative(file: &str, compiled_in: &str) -> String {
    let file = plain(file);
    let folder = plain(compiled_in);
    let shared = file.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    // What only `/` or a first folder has in common is from somewhere else.
    let shared = if shared == folder.len() || shared > 2 {
        shared
    } else {
        0
    };
    let rest: PathBuf = file[shared.min(file.len())..].iter().collect();
    rest.to_string_lossy().into_owned()
}

/// The parts of a path, with `..` worked out.
fn plain(path: &str) -> Vec<Component<'_>> {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in Path::new(path).components() {
        match (part, parts.last()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts
}

fn bad(path: &Path, e: gimli::Error) -> Error {
    Error::BadDebugInformation {
        path: path.into(),
        why: e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_from_where_they_were_compiled() {
        let debian = "debian/build/build_amd64_none_amd64";
        let built = "/build/path/linux-6.1.192/debian/build/build_amd64_none_amd64";
        for (file, folder, short) in [
            (
                "debian/build/build_amd64_none_amd64/arch/x86/kvm/x86.c",
                debian,
                "arch/x86/kvm/x86.c",
            ),
            (
                "debian/build/build_amd64_none_amd64/./include/linux/kvm_host.h",
                debian,
                "include/linux/kvm_host.h",
            ),
            (
                "/build/path/linux-6.1.192/arch/x86/lib/memcpy_64.S",
                built,
                "arch/x86/lib/memcpy_64.S",
            ),
            (
                "/home/ann/vmm/../vmm/src/./main.rs",
                "/home/ann/vmm",
                "src/main.rs",
            ),
            (
                "/rustc/abc/library/core/src/lib.rs",
                "/home/ann/vmm",
                "/rustc/abc/library/core/src/lib.rs",
            ),
            ("/home/ann/x.c", "/home/ben", "/home/ann/x.c"),
            ("src/main.c", "", "src/main.c"),
            ("/src/main.c", "/", "src/main.c"),
            ("../../x.c", "", "../../x.c"),
            ("", "", ""),
        ] {
            assert_eq!(relative(file, folder), short);
        }
    }
}
