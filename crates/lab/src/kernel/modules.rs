//! Finds a kernel's modules and puts them in the order in which they can be loaded.
//!
//! Packages come without `modules.dep`; depmod writes that at installation. So the
//! dependencies are read from where depmod has them: each module's `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection, ObjectSymbol};

use crate::error::{Error, Result};
use crate::kernel::compression::Compression;

/// The largest module there is, `amdgpu.ko` with debug information, has 400 MB.
const MODULE_LIMIT: usize = 1 << 30;

/// One module, ready to be handed to `init_module`.
#[derive(Clone, PartialEq, Eq)]
pub struct ModuleFile {
    /// The name the kernel gives it, always with `_`: `kvm_amd`.
    pub name: String,
    /// The file, decompressed.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for ModuleFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.bytes.len())
    }
}

/// The modules of one kernel: those in files, and those built in.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    /// All that the kernel was built with as files, whether they are here or not.
    listed: BTreeSet<String>,
}

impl Modules {
    /// Lists the modules in a folder such as `/lib/modules/6.1.0-56-amd64`, or any other
    /// with `.ko`, `.ko.gz`, `.ko.xz` or `.ko.zst` files at any depth.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn index(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        index_into(dir, &mut files)?;
        let list = |name: &str| -> BTreeSet<String> {
            let list = fs::read_to_string(dir.join(name)).unwrap_or_default();
            let names = list.lines().map(|line| Path::new(line.trim()));
            names.filter_map(module_name).collect()
        };
        Ok(Self {
            dir: dir.into(),
            files,
            built_in: list("modules.builtin"),
            listed: list("modules.order"),
        })
    }

    /// Whether the module is part of the kernel itself.
    pub fn is_built_in(&self, name: &str) -> bool {
        self.built_in.contains(&normalized(name))
    }

    /// Whether there is a file of the module.
    pub fn is_file(&self, name: &str) -> bool {
        self.files.contains_key(&normalized(name))
    }

    /// Whether the kernel was built with it as a file, be it here or not.
    pub fn is_listed(&self, name: &str) -> bool {
        self.listed.contains(&normalized(name))
    }

    /// The release that the modules are for, as one of KVM's among them says, or else another one.
    /// `None` if none does.
    ///
    /// # Errors
    /// [`Error::Packed`] and [`Error::Io`] for a module that cannot be read.
    pub fn release(&self) -> Result<Option<String>> {
        let of_kvm = ["kvm", "kvm_amd", "kvm_intel"];
        let of_kvm = of_kvm.iter().filter_map(|name| self.files.get(*name));
        let Some(path) = of_kvm.chain(self.files.values()).next() else {
            return Ok(None);
        };
        match read_module(path).and_then(|bytes| ModInfo::of(&bytes, path)) {
            Ok(info) => Ok(info.release),
            // Whoever loads it says so.
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of a module's parameters, with `_`: those that it describes, and those that it only
    /// has (the kernel's `module_param_cb` describes none).
    ///
    /// # Errors
    /// As [`Modules::load_order`].
    pub fn parameters(&self, name: &str) -> Result<BTreeSet<String>> {
        let name = normalized(name);
        let path = self.files.get(&name).ok_or_else(|| Error::ModuleNotFound {
            module: name.clone(),
            wanted_by: None,
            dir: self.dir.clone(),
        })?;
        let bytes = read_module(path)?;
        let mut parameters = ModInfo::of(&bytes, path)?.parameters;
        let elf = object::File::parse(&*bytes).map_err(|error| Error::Damaged {
            path: path.clone(),
            why: error.to_string(),
        })?;
        for symbol in elf.symbols() {
            let name = symbol.name().unwrap_or_default();
            parameters.extend(name.strip_prefix("__param_str_").map(normalized));
        }
        Ok(parameters)
    }

    /// The named modules and all they depend on, each after what it depends on. Those
    /// built in are left out. `-` and `_` in names are the same.
    ///
    /// # Errors
    /// [`Error::ModuleNotFound`], [`Error::ModuleCycle`], [`Error::Damaged`] and
    /// [`Error::Packed`] for a file that cannot be read as a module, and [`Error::Io`].
    pub fn load_order(&self, wanted: &[&str]) -> Result<Vec<ModuleFile>> {
        let mut order = Order {
            modules: self,
            loaded: Vec::new(),
            path: Vec::new(),
        };
        for name in wanted {
            order.add(&normalized(name))?;
        }
        Ok(order.loaded)
    }
}

/// The named modules and all they depend on, from the modules in `dir`, in the order in
/// which they can be loaded. See [`Modules`].
///
/// # Errors
/// As [`Modules::index`] and [`Modules::load_order`].
pub fn load_order(dir: &Path, wanted: &[&str]) -> Result<Vec<ModuleFile>> {
    Modules::index(dir)?.load_order(wanted)
}

/// A depth-first walk over the dependencies.
struct Order<'a> {
    modules: &'a Modules,
    loaded: Vec<ModuleFile>,
    /// From a wanted module to the one being looked at.
    path: Vec<String>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<()> {
        if self.modules.built_in.contains(name) || self.loaded.iter().any(|m| m.name == name) {
            return Ok(());
        }
        if let Some(start) = self.path.iter().position(|n| n == name) {
            let mut circle = self.path.split_off(start);
            circle.push(name.to_owned());
            return Err(Error::ModuleCycle(circle));
        }
        let Some(path) = self.modules.files.get(name) else {
            return Err(Error::ModuleNotFound {
                module: name.to_owned(),
                wanted_by: self.path.last().cloned(),
                dir: self.modules.dir.clone(),
            });
        };
        let bytes = read_module(path)?;
        let info = ModInfo::of(&bytes, path)?;
        self.path.push(name.to_owned());
        for dependency in &info.depends {
            self.add(dependency)?;
        }
        self.path.pop();
        self.loaded.push(ModuleFile {
            name: info.name.unwrap_or_else(|| name.to_owned()),
            bytes,
        });
        Ok(())
    }
}

/// What a module says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct ModInfo {
    name: Option<String>,
    depends: Vec<String>,
    parameters: BTreeSet<String>,
    /// The first word of `vermagic`.
    release: Option<String>,
}

impl ModInfo {
    fn of(module: &[u8], path: &Path) -> Result<Self> {
        let damaged = |why: &str| Error::Damaged {
            path: path.into(),
            why: why.into(),
        };
        let elf = object::File::parse(module).map_err(|_| damaged("it is no ELF file"))?;
        let section = elf
            .section_by_name(".modinfo")
            .ok_or_else(|| damaged("it has no section .modinfo, so it is no kernel module"))?;
        let data = section
            .data()
            .map_err(|_| damaged("its section .modinfo is cut short"))?;
        Ok(Self::parse(data))
    }

    /// Strings `key=value`, each with a NUL at its end.
    fn parse(section: &[u8]) -> Self {
        let mut info = Self::default();
        for entry in section.split(|b| *b == 0) {
            let Ok(entry) = std::str::from_utf8(entry) else {
                continue;
            };
            match entry.split_once('=') {
                Some(("name", name)) => info.name = Some(normalized(name)),
                Some(("depends", names)) => {
                    let names = names.split(',').map(str::trim).filter(|n| !n.is_empty());
                    info.depends.extend(names.map(normalized));
                }
                Some(("vermagic", magic)) => {
                    info.release = magic.split_whitespace().next().map(str::to_owned);
                }
                Some(("parm" | "parmtype", parameter)) => {
                    let name = parameter.split_once(':').map(|(name, _)| normalized(name));
                    info.parameters.extend(name);
                }
                _ => {}
            }
        }
        info
    }
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    match Compression::of(&bytes) {
        Compression::None => Ok(bytes),
        Compression::Other(format) => Err(Error::Packed {
            path: path.into(),
            how: format!("compressed with {format}"),
        }),
        compression => compression
            .decompress(&bytes, MODULE_LIMIT)
            .map_err(|e| Error::Damaged {
                path: path.into(),
                why: e.to_string(),
            }),
    }
}

fn index_into(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let mut entries = fs::read_dir(dir)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(Error::io("read", dir))?;
    // Of two files of one name, take the same one every time.
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(Error::io("read", entry.path()))?;
        // Not through symlinks: `build` and `source` lead to a whole kernel tree.
        if kind.is_dir() {
            index_into(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.path()) {
            files.entry(name).or_insert_with(|| entry.path());
        }
    }
    Ok(())
}

/// The module's name, if the path is that of a module's file.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .find_map(|e| file.strip_suffix(e))?;
    Some(normalized(stem))
}

fn normalized(name: &str) -> String {
    name.replace('-', "_")
}
