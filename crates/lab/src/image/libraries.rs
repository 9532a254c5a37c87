//! Which shared libraries a program needs, and where the dynamic linker finds them.
//!
//! The rules are those of ld.so(8): the folders in the program's own RPATH or RUNPATH,
//! then those of `/etc/ld.so.conf`, then the usual ones. Not looked at are
//! `LD_LIBRARY_PATH` and variants for certain CPUs (`glibc-hwcaps`): the lab's CPU is another.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{
    DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, ET_DYN, ET_EXEC, FileHeader64,
};
use object::read::StringTable;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

use crate::error::{Error, Result};
use crate::kernel::bzimage::is_elf;

/// Where the dynamic linker looks libraries up before it looks into folders.
pub(crate) const LINKER_CACHE: &str = "/etc/ld.so.cache";
const LINKER_CONFIGURATION: &str = "/etc/ld.so.conf";

/// Folders that dynamic linkers look into without being told to: Debian's, then others'.
const USUAL_FOLDERS: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
];

/// How deep configuration files may include others.
const INCLUDES: usize = 8;

/// How libraries are found.
#[derive(Debug)]
pub(crate) struct Libraries {
    /// Searched before all others.
    first: Vec<PathBuf>,
    /// From the linker's configuration.
    configured: Vec<PathBuf>,
}

impl Libraries {
    /// As this machine's dynamic linker finds them, but in the folders `first` before all.
    pub(crate) fn of_this_machine(first: &[PathBuf]) -> Self {
        let mut configured = Vec::new();
        read_configuration(Path::new(LINKER_CONFIGURATION), INCLUDES, &mut configured);
        Self {
            first: first.to_vec(),
            configured,
        }
    }

    /// The program (or library) itself, its interpreter, and every library that it needs,
    /// and those need, each once.
    pub(crate) fn needed_by(&self, program: &Path) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut scripts = 0;
        let mut program = program.to_owned();
        while let Some(interpreter) = script_interpreter(&program)? {
            found.push(program.clone());
            scripts += 1;
            if scripts > INCLUDES {
                return Err(not_a_program(
                    &program,
                    "its interpreter is a script without an end",
                ));
            }
            program = interpreter;
        }
        let main = Needs::of(&program)?;
        found.push(program.clone());
        found.extend(main.interpreter.clone());
        // Libraries need the interpreter by its file's name: it is loaded already.
        let loaded = main
            .interpreter
            .as_ref()
            .and_then(|path| path.file_name()?.to_str());
        let mut names: BTreeSet<String> = loaded.map(str::to_owned).into_iter().collect();
        // Breadth first, as the linker does; each with the RPATHs it inherits.
        let mut todo = vec![(program, main, Vec::<PathBuf>::new())];
        while !todo.is_empty() {
            let mut next = Vec::new();
            for (user, needs, inherited) in todo {
                // A RUNPATH is for an object's own needs, an RPATH for those of all below.
                let rpath = if needs.runpath.is_empty() {
                    [needs.rpath.clone(), inherited].concat()
                } else {
                    Vec::new()
                };
                for name in &needs.libraries {
                    if !names.insert(name.clone()) {
                        continue;
                    }
                    let path = self.find(name, &user, &needs, &rpath)?;
                    if found.contains(&path) {
                        continue;
                    }
                    found.push(path.clone());
                    let theirs = Needs::of(&path)?;
                    next.push((path, theirs, rpath.clone()));
                }
            }
            todo = next;
        }
        Ok(found)
    }

    fn find(&self, name: &str, user: &Path, needs: &Needs, rpath: &[PathBuf]) -> Result<PathBuf> {
        let fits = |path: &Path| machine_of(path).is_some_and(|m| m == needs.machine);
        let usual = USUAL_FOLDERS.map(PathBuf::from);
        let mut folders: Vec<PathBuf> = Vec::new();
        if name.contains('/') {
            let path = std::path::absolute(name).map_err(Error::io("find", name))?;
            if fits(&path) {
                return Ok(path);
            }
            folders.extend(path.parent().map(Path::to_owned));
        } else {
            let all = [rpath, &self.first, &needs.runpath, &self.configured, &usual];
            for folder in all.into_iter().flatten() {
                let path = folder.join(name);
                if fits(&path) {
                    return Ok(path);
                }
                if !folders.contains(folder) {
                    folders.push(folder.clone());
                }
            }
        }
        Err(Error::LibraryNotFound {
            library: name.into(),
            needed_by: user.into(),
            searched: folders,
        })
    }

    /// Whether some of the files are where the linker only looks because its
    /// configuration, and so [`LINKER_CACHE`], says so.
    pub(crate) fn need_linker_cache(&self, files: &[PathBuf]) -> bool {
        let only_configured = |folder: &Path| {
            self.configured.iter().any(|c| c == folder)
                && !USUAL_FOLDERS.iter().any(|usual| Path::new(usual) == folder)
        };
        files
            .iter()
            .skip(1)
            .filter_map(|file| file.parent())
            .any(only_configured)
    }
}

/// Why an ELF file cannot be understood.
type Unreadable = Box<dyn std::error::Error>;

/// What an ELF file says it needs.
#[derive(Debug, Default)]
struct Needs {
    machine: u16,
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
    rpath: Vec<PathBuf>,
    runpath: Vec<PathBuf>,
}

impl Needs {
    fn of(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        if !is_elf(&bytes) {
            return Err(not_a_program(
                path,
                "it is neither an ELF file nor a script",
            ));
        }
        let needs = Self::parse(&bytes, path);
        needs.map_err(|e| not_a_program(path, &format!("{e} (it has to be for 64 bits)")))
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, Unreadable> {
        let header = FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let kind = header.e_type(endian);
        if kind != ET_EXEC && kind != ET_DYN {
            return Err(Unreadable::from("it is an object file, not a linked one"));
        }
        let mut needs = Self {
            machine: header.e_machine(endian).0,
            ..Self::default()
        };
        let segments = header.program_headers(endian, bytes)?;
        for segment in segments {
            if let Some(interpreter) = segment.interpreter(endian, bytes)? {
                needs.interpreter = Some(text(interpreter)?.into());
            }
            let Some(dynamic) = segment.dynamic(endian, bytes)? else {
                continue;
            };
            let value = |wanted| {
                let entry = dynamic.iter().find(|entry| entry.d_tag(endian) == wanted);
                entry.map(|entry| entry.d_val(endian))
            };
            let (Some(address), Some(size)) = (value(DT_STRTAB), value(DT_STRSZ)) else {
                continue;
            };
            let strings = segments
                .iter()
                .find_map(|s| s.data_range(endian, bytes, address, size).ok().flatten())
                .ok_or(Unreadable::from("its table of strings is missing"))?;
            let strings = StringTable::new(strings, 0, strings.len() as u64);
            let entries = dynamic
                .iter()
                .take_while(|entry| entry.d_tag(endian) != DT_NULL);
            for entry in entries {
                let tag = entry.d_tag(endian);
                if ![DT_NEEDED, DT_RPATH, DT_RUNPATH].contains(&tag) {
                    continue;
                }
                let string = entry.string(endian, strings)?;
                match tag {
                    DT_NEEDED => needs.libraries.push(text(string)?.to_owned()),
                    DT_RPATH => needs.rpath = search_path(text(string)?, path),
                    _ => needs.runpath = search_path(text(string)?, path),
                }
            }
        }
        Ok(needs)
    }
}

fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(bytes).map_err(|_| Unreadable::from("it has a path that is not UTF-8"))
}

/// The folders of an RPATH, with `$ORIGIN` and its like put in.
fn search_path(list: &str, object: &Path) -> Vec<PathBuf> {
    let origin = object.canonicalize().unwrap_or_else(|_| object.to_owned());
    let origin = origin
        .parent()
        .unwrap_or(Path::new("/"))
        .display()
        .to_string();
    let mut folders = Vec::new();
    for folder in list.split(':').filter(|folder| !folder.is_empty()) {
        let with = |name: &str, value: &str, text: &str| {
            text.replace(&format!("${{{name}}}"), value)
                .replace(&format!("${name}"), value)
        };
        let folder = with("PLATFORM", "x86_64", &with("ORIGIN", &origin, folder));
        // Distributions differ in what LIB stands for.
        if folder.contains("$LIB") || folder.contains("${LIB}") {
            folders.push(with("LIB", "lib/x86_64-linux-gnu", &folder).into());
            folders.push(with("LIB", "lib64", &folder).into());
        } else {
            folders.push(folder.into());
        }
    }
    folders
}

/// The program that a script names in its first line, if the file is a script.
fn script_interpreter(path: &Path) -> Result<Option<PathBuf>> {
    use std::io::Read;
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    let mut start = Vec::new();
    file.take(256)
        .read_to_end(&mut start)
        .map_err(Error::io("read", path))?;
    let Some(line) = start.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
    let program = String::from_utf8_lossy(line)
        .split_whitespace()
        .next()
        .map(PathBuf::from);
    program
        .map(Some)
        .ok_or_else(|| not_a_program(path, "its first line names no interpreter"))
}

/// The CPU architecture of a 64-bit ELF file.
fn machine_of(path: &Path) -> Option<u16> {
    use std::io::Read;
    let mut start = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(64)
        .read_to_end(&mut start)
        .ok()?;
    let header = FileHeader64::<Endianness>::parse(start.as_slice()).ok()?;
    Some(header.e_machine(header.endian().ok()?).0)
}

/// The folders in a configuration file of ldconfig, and in those it includes.
fn read_configuration(path: &Path, depth: usize, folders: &mut Vec<PathBuf>) {
    // A file that cannot be read configures nothing, for ldconfig too.
    let Ok(text) = fs::read_to_string(path) else {
        return;
    };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split_whitespace();
        match words.next() {
            None | Some("hwcap") => {}
            Some("include") => {
                let here = path.parent().unwrap_or(Path::new("/"));
                for file in words.flat_map(|pattern| matching_files(&here.join(pattern))) {
                    if depth > 0 {
                        read_configuration(&file, depth - 1, folders);
                    }
                }
            }
            Some(_) => folders.push(line.into()),
        }
    }
}

/// The files that a pattern with at most one `*`, in its last part, means; sorted.
fn matching_files(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let Some((start, end)) = name.split_once('*') else {
        return vec![pattern.into()];
    };
    let Some(Ok(entries)) = pattern.parent().map(fs::read_dir) else {
        return Vec::new();
    };
    let fits = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
    };
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(fits)
        .collect();
    files.sort();
    files
}

fn not_a_program(path: &Path, why: &str) -> Error {
    Error::NotAProgram {
        path: path.into(),
        why: why.into(),
    }
}
