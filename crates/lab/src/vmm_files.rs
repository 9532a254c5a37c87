//! What a VMM needs in the lab: its program, the libraries, and the files it opens by itself.
//!
//! Nothing of it is shared from the host while the lab runs: timings of 9p are the real machine's,
//! and a lab whose VMM waits for them is not repeatable. So all is in the initramfs.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::initramfs::Initramfs;
use crate::qemu::Qemu;

/// QEMU's firmware for a PC or a microvm that is given a kernel (`hw/i386/` of QEMU 7.2 to 10.0):
/// the BIOS, the option ROMs that start a kernel by multiboot, PVH or Linux's own protocol, with and
/// without DMA, KVM's for the local APIC, and the display that a PC has by default.
const FIRMWARE: [&str; 10] = [
    "bios-256k.bin",
    "bios-microvm.bin",
    "qboot.rom",
    "vgabios-stdvga.bin",
    "kvmvapic.bin",
    "linuxboot.bin",
    "linuxboot_dma.bin",
    "multiboot.bin",
    "multiboot_dma.bin",
    "pvh.bin",
];
/// Where an installed QEMU has its firmware, Debian's being in two packages.
const INSTALLED_DATA: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];
/// Folders that the lab's kernel fills, or that exist there with another meaning.
const THE_LABS_OWN: [&str; 6] = ["/proc", "/sys", "/dev", "/tmp", "/run", "/lab"];

/// A VMM as it is started in the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vmm {
    /// The program's path, on this machine and in the lab.
    pub program: PathBuf,
    /// Arguments that let it find its own files.
    pub arguments: Vec<String>,
}

/// Adds a QEMU with its libraries and the firmware of a PC.
///
/// # Errors
/// [`Error::Io`] where a file of it cannot be read, [`Error::QemuUnusable`] without a BIOS, and
/// what [`Initramfs::add_program`] says.
pub fn add_qemu(files: &mut Initramfs, qemu: &Qemu) -> Result<Vmm> {
    let unpacked = qemu.data_folders();
    let folders: Vec<PathBuf> = if unpacked.is_empty() {
        INSTALLED_DATA.map(PathBuf::from).to_vec()
    } else {
        unpacked.to_vec()
    };
    files.add_program(&qemu.path)?;
    for name in FIRMWARE {
        let found = folders.iter().map(|dir| dir.join(name));
        match found.into_iter().find(|path| path.is_file()) {
            Some(path) => {
                files.add_path(&path)?;
            }
            None if name == FIRMWARE[0] => {
                return Err(Error::QemuUnusable {
                    path: qemu.path.clone(),
                    why: format!(
                        "its firmware {name} is in none of {}: install the package seabios",
                        display(&folders)
                    ),
                });
            }
            // A version that has not got one does not ask for it.
            None => {}
        }
    }
    let arguments = unpacked
        .iter()
        .flat_map(|dir| ["-L".to_owned(), dir.display().to_string()]);
    Ok(Vmm {
        program: std::path::absolute(&qemu.path).map_err(Error::io("find", &qemu.path))?,
        arguments: arguments.collect(),
    })
}

/// Adds the program that a command names first, looked for in `PATH` as a shell does, and the
/// files that are named by absolute paths on the rest of it, if they exist; the command as it is
/// in the lab. What is behind an `=` or a comma counts as a path, too: `--kernel=/boot/vmlinuz`.
///
/// # Errors
/// [`Error::NotAProgram`] if there is no such program; what [`Initramfs::add_program`] says.
pub fn add_command(files: &mut Initramfs, command: &[String]) -> Result<Vec<String>> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::NotAProgram {
            path: PathBuf::new(),
            why: "no program is named".to_owned(),
        });
    };
    let program = find_program(program)?;
    files.add_program(&program)?;
    for argument in arguments {
        for part in argument.split(['=', ',']) {
            let path = Path::new(part);
            let own = THE_LABS_OWN.iter().any(|own| path.starts_with(own));
            if path.is_absolute() && !own && path.exists() {
                // The program of a wrapper needs its libraries, too.
                let added = path.is_file().then(|| files.add_program(path));
                match added {
                    None | Some(Err(Error::NotAProgram { .. })) => {
                        files.add_path(path).map(drop)?
                    }
                    Some(added) => added.map(drop)?,
                }
            }
        }
    }
    let mut there = vec![program.display().to_string()];
    there.extend(arguments.iter().cloned());
    Ok(there)
}

/// The program that a shell would start for this name.
///
/// # Errors
/// [`Error::NotAProgram`] if there is none.
pub fn find_program(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return std::path::absolute(name).map_err(Error::io("find", name));
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NotAProgram {
            path: name.into(),
            why: "it is in no folder of PATH".to_owned(),
        })
}

fn display(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    folders.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn files_that_a_command_names_come_along() {
        // Not in /tmp, which the lab has itself.
        let this = std::env::current_exe().expect("the test's path");
        let dir = tempfile::tempdir_in(this.parent().expect("a folder")).expect("a folder");
        let at = |name: &str| dir.path().join(name).display().to_string();
        for name in ["config", "disk"] {
            std::fs::write(at(name), name).expect("a file");
        }
        let command = format!(
            "sh --config={} -drive file={},if=none /proc/self/exe /nonexistent -k {{image}}",
            at("config"),
            at("disk")
        );
        let mut files = Initramfs::new();
        let there = add_command(&mut files, &words(&command)).expect("a shell");
        assert!(
            there[0].starts_with('/') && there[0].ends_with("/sh"),
            "{there:?}"
        );
        assert_eq!(there[1..], words(&command)[1..]);
        assert!(files.contains(&there[0]));
        assert!(files.contains(at("config")) && files.contains(at("disk")));
        assert!(!files.contains("/proc/self/exe") && !files.contains("/nonexistent"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let mut files = Initramfs::new();
        for (command, says) in [
            ("nosuchprogram x", "no folder of PATH"),
            ("", "no program is named"),
        ] {
            let error = add_command(&mut files, &words(command)).expect_err("no program");
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(add_command(&mut files, &words("/nonexistent/vmm x")).is_err());
    }
}
