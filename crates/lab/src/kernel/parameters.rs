//! Parameters of modules on a kernel's command line.
//!
//! The kernel reads those of what is built in, and modprobe(8) hands on the others; in the lab, init
//! does. A name that nobody knows would be ignored by both, so names are checked before anything boots:
//! a module's file has the names of its parameters, and a kernel's image those of what is built in,
//! with the module before them.

use std::collections::BTreeSet;
use std::fs;

use exitpath_host::cmdline::{OF_EVERY_MODULE, Word, normal, words};
use memchr::memmem;

use crate::error::{Error, Result};
use crate::kernel::at_hand::BootFile;
use crate::kernel::modules::Modules;

/// Modules of KVM on this architecture, which a name near to theirs is taken for.
const OF_KVM: [&str; 3] = ["kvm", "kvm_amd", "kvm_intel"];
/// Names that a message proposes, at most.
const NEAR: usize = 5;

/// What the module is to be given of this command line.
pub(crate) fn of_module(cmdline: &str, module: &str) -> String {
    let words = words(cmdline);
    let of_it = words
        .iter()
        .filter(|word| word.of_module().is_some_and(|(of, _)| of == normal(module)));
    let parameters: Vec<String> = of_it.filter_map(Word::for_module).collect();
    parameters.join(" ")
}

/// A kernel with its modules, as far as parameters go.
#[derive(Debug)]
pub struct Known {
    modules: Option<Modules>,
    /// The image, unpacked; `None` where it is not.
    image: Option<Vec<u8>>,
}

impl Known {
    /// Reads what is needed to judge the parameters of modules on this command line.
    ///
    /// # Errors
    /// [`Error::Io`] if the modules' folder or the image cannot be read.
    pub fn read(
        cmdline: &str,
        kernel: &BootFile,
        modules: Option<&std::path::Path>,
    ) -> Result<Known> {
        // Where nothing is asked there is nothing to be known.
        let modules = modules.filter(|_| !cmdline.trim().is_empty());
        let modules = modules.map(Modules::index).transpose()?;
        let of_files = |word: &Word| {
            let named = word.of_module();
            named.is_some_and(|(name, _)| modules.as_ref().is_some_and(|m| m.is_file(&name)))
        };
        let asked = words(cmdline);
        let wanted = asked
            .iter()
            .any(|word| word.of_module().is_some() && !of_files(word));
        let image = (wanted && kernel.is_vmlinux)
            .then(|| fs::read(&kernel.path).map_err(Error::io("read", &kernel.path)))
            .transpose()?;
        Ok(Known { modules, image })
    }

    /// Refuses parameters that no module has.
    ///
    /// # Errors
    /// [`Error::UnknownParameter`] and [`Error::UnknownModule`]; [`Error::Damaged`] and the like for a
    /// module that cannot be read.
    pub fn check(&self, cmdline: &str) -> Result<()> {
        for word in words(cmdline) {
            let Some((module, parameter)) = word.of_module() else {
                continue;
            };
            if OF_EVERY_MODULE.contains(&parameter.as_str()) || self.in_image(&word) == Some(true) {
                continue;
            }
            let has = match self.modules.as_ref().filter(|known| known.is_file(&module)) {
                Some(known) => known.parameters(&module)?,
                None => match self.of_image(&module) {
                    Some(has) if !has.is_empty() => has,
                    // Something else of the kernel's than a module, or of an init's (`rd.break`).
                    _ => match self.misspelt(&module) {
                        near if near.is_empty() => continue,
                        near => {
                            let word = word.to_string();
                            return Err(Error::UnknownModule { word, module, near });
                        }
                    },
                },
            };
            if !has.contains(&parameter) {
                let near = nearest(&parameter, has.iter().map(String::as_str));
                return Err(Error::UnknownParameter {
                    word: word.to_string(),
                    module,
                    parameter,
                    near,
                });
            }
        }
        Ok(())
    }

    /// Whether the kernel may know a parameter though no module of that name is there.
    pub fn may_know(&self, word: &Word) -> bool {
        let of_file = word.of_module().is_some_and(|(module, _)| {
            let known = self.modules.as_ref();
            known.is_some_and(|known| known.is_file(&module) || known.is_listed(&module))
        });
        !of_file && self.in_image(word).unwrap_or(true)
    }

    /// Whether the name, with its module, is a text in the image. `None` without one.
    fn in_image(&self, word: &Word) -> Option<bool> {
        let image = self.image.as_deref()?;
        let (module, parameter) = word.of_module()?;
        let names = [format!("{module}.{parameter}"), word.name.clone()];
        Some(names.iter().any(|name| {
            memmem::find_iter(image, name)
                .any(|at| matches!(image.get(at + name.len()), None | Some(0 | b'=')))
        }))
    }

    /// The parameters of a module that is built in; none where nothing of that name is. `None`
    /// without an image.
    fn of_image(&self, module: &str) -> Option<BTreeSet<String>> {
        let image = self.image.as_deref()?;
        let start = format!("{module}.");
        let names = memmem::find_iter(image, &start).filter(|&at| begins(image, at));
        let names = names.filter_map(|at| {
            let rest = &image[at + start.len()..];
            let length = rest.iter().position(|&byte| byte == 0)?;
            let name = std::str::from_utf8(&rest[..length]).ok()?;
            let plain = |sign: char| sign.is_ascii_alphanumeric() || "_-".contains(sign);
            // Files' names look like that, too.
            let file = ["c", "h", "ko", "o", "S"].contains(&name);
            (!name.is_empty() && name.chars().all(plain) && !file).then(|| normal(name))
        });
        Some(names.collect())
    }

    /// The modules of KVM that a name is near to, where it is no module's.
    fn misspelt(&self, module: &str) -> Vec<String> {
        let listed = self
            .modules
            .as_ref()
            .is_some_and(|known| known.is_listed(module) || known.is_built_in(module));
        if listed || OF_KVM.contains(&module) {
            return Vec::new();
        }
        let near =
            |known: &&&str| strsim::damerau_levenshtein(module, known) <= 1 + known.len() / 5;
        let near = OF_KVM.iter().filter(near);
        near.map(|&known| known.to_owned()).collect()
    }
}

/// Whether a text begins here, and not in the midst of a word.
fn begins(image: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| image.get(before));
    before.is_none_or(|&byte| !(byte.is_ascii_alphanumeric() || b"_-./".contains(&byte)))
}

/// The names near to another one, nearest first.
fn nearest<'n>(wanted: &str, among: impl Iterator<Item = &'n str>) -> Vec<String> {
    let mut scored: Vec<(bool, usize, &str)> = among
        .map(|name| {
            let contained = name.contains(wanted) || wanted.contains(name);
            (!contained, strsim::damerau_levenshtein(wanted, name), name)
        })
        .filter(|&(apart, distance, name)| !apart || distance <= name.len().max(wanted.len()) / 2)
        .collect();
    scored.sort_unstable();
    let names = scored.into_iter().take(NEAR);
    names.map(|(_, _, name)| name.to_owned()).collect()
}
