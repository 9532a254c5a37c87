//! What a VMM needs in the lab: its program, the libraries, and the files it opens by itself.
//!
//! Nothing of it is shared from the host while the lab runs: timings of 9p are the real machine's,
//! and a lab whose VMM waits for them is not repeatable. So all is in the initramfs.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::image::initramfs::Initramfs;
use crate::machine::qemu::program::Qemu;

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
/// Folders that the lab's kernel fills: what is there outside is not there inside.
const THE_KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// What a lab's initramfs has besides: the job, its init, and the plan of what is measured.
const THE_LABS_OWN: [&str; 3] = ["/lab", "/init", "/plan.json"];
/// Folders that a lab with the host's root does not share with it.
const NOT_SHARED: [&str; 3] = ["/proc", "/dev", "/run"];

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
/// [`Error::NotAProgram`] if there is no such program; [`Error::NotInTheLab`] for files in places that
/// are the lab's own; what [`Initramfs::add_program`] says.
pub fn add_command(files: &mut Initramfs, command: &[String]) -> Result<Vec<String>> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::NotAProgram {
            path: PathBuf::new(),
            why: "no program is named".to_owned(),
        });
    };
    let program = find_program(program)?;
    check_place(&program, &THE_KERNELS)?;
    check_place(&program, &THE_LABS_OWN)?;
    files.add_program(&program)?;
    for argument in arguments {
        for part in argument.split(['=', ',']) {
            let path = Path::new(part);
            if !path.is_absolute() || !path.exists() {
                continue;
            }
            check_place(path, &THE_LABS_OWN)?;
            // A device or a setting is the lab's; a file in /dev/shm would only be missed.
            if THE_KERNELS.iter().any(|own| path.starts_with(own)) {
                check_file(path)?;
            } else {
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

/// Refuses a place that is one of these or below it.
fn check_place(path: &Path, owned: &[&'static str]) -> Result<()> {
    match owned.iter().find(|own| path.starts_with(own)) {
        Some(own) => Err(Error::NotInTheLab {
            path: path.to_owned(),
            own,
        }),
        None => Ok(()),
    }
}

/// Refuses what the program of a command in the host's root cannot be: a file in a folder that is not
/// shared.
///
/// # Errors
/// [`Error::NotInTheLab`].
pub fn check_program(path: &Path) -> Result<()> {
    check_place(path, &NOT_SHARED)?;
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    check_place(&real, &NOT_SHARED)
}

/// Refuses a file that exists outside in a folder that is not shared, so that a command in the
/// host's root would miss it. Devices, sockets, and what `/proc` and `/sys` hold, are the lab's own.
///
/// # Errors
/// [`Error::NotInTheLab`].
pub fn check_file(path: &Path) -> Result<()> {
    match path.canonicalize() {
        Ok(real) if real.is_file() => check_place(&real, &NOT_SHARED[1..]),
        _ => Ok(()),
    }
}

/// Refuses a folder below one that is not shared, as that in which a command begins.
///
/// # Errors
/// [`Error::NotInTheLab`].
pub fn check_folder(path: &Path) -> Result<()> {
    if NOT_SHARED.iter().any(|own| path == Path::new(own)) {
        return Ok(());
    }
    check_place(path, &NOT_SHARED)
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
        // In /tmp, which the lab has too.
        let dir = tempfile::tempdir_in("/tmp").expect("a folder");
        let at = |name: &str| dir.path().join(name).display().to_string();
        for name in ["config", "disk"] {
            std::fs::write(at(name), name).expect("a file");
        }
        std::fs::write(at("vmm"), "#!/bin/sh\n").expect("a script");
        let command = format!(
            "{} --config={} -drive file={},if=none /proc/self/exe /dev/null /nonexistent -k {{image}}",
            at("vmm"),
            at("config"),
            at("disk")
        );
        let mut files = Initramfs::new();
        let there = add_command(&mut files, &words(&command)).expect("a shell");
        assert_eq!(there, words(&command));
        assert!(files.contains(at("vmm")) && files.contains("/bin/sh"));
        assert!(files.contains(at("config")) && files.contains(at("disk")));
        for absent in ["/proc/self/exe", "/dev/null", "/nonexistent"] {
            assert!(!files.contains(absent), "{absent}");
        }
        let there = add_command(&mut files, &words("sh -c true")).expect("a shell");
        assert!(
            there[0].starts_with('/') && there[0].ends_with("/sh"),
            "{there:?}"
        );
    }

    #[test]
    fn what_the_lab_would_miss_is_refused_by_name() {
        let shared = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
        let path = shared.path();
        let refused = |what: Result<()>| {
            let error = what.expect_err("refused").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(error.contains("/dev of its own"), "{error}");
        };
        let mut files = Initramfs::new();
        for command in [
            format!("sh --config={}", path.display()),
            path.display().to_string(),
        ] {
            refused(add_command(&mut files, &words(&command)).map(drop));
        }
        refused(check_file(path));
        refused(check_program(path));
        refused(check_folder(path));
        // By another name, too.
        let dir = tempfile::tempdir().expect("a folder");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(path, &link).expect("a symlink");
        refused(check_file(&link));
        for own in [
            "/dev/null",
            "/proc/cpuinfo",
            "/run/nonexistent",
            "/etc/passwd",
        ] {
            assert!(check_file(Path::new(own)).is_ok(), "{own}");
        }
        assert!(check_program(Path::new("/proc/self/fd/0")).is_err());
        assert!(check_folder(Path::new("/run")).is_ok());
        let error = add_command(&mut files, &words("/proc/self/exe")).expect_err("refused");
        assert!(error.to_string().contains("/proc of its own"), "{error}");
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
