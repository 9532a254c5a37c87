//! Processes that have virtual machines: how many vCPUs there are, and what each is called.

use std::fs;
use std::path::Path;

const PROC: &str = "/proc";
/// What a vCPU's descriptor is called: `anon_inode:kvm-vcpu:0`.
const VCPU: &str = "anon_inode:kvm-vcpu";

/// vCPUs of all processes that this one may look at.
pub fn vcpus() -> u32 {
    let processes = fs::read_dir(PROC).into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(vcpus_of).sum()
}

/// vCPUs of a process; `None` where this one may not look.
pub fn vcpus_of(pid: u32) -> Option<u32> {
    let open = fs::read_dir(Path::new(PROC).join(pid.to_string()).join("fd")).ok()?;
    let targets = open
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    let vcpus = targets.filter(|target| target.to_string_lossy().starts_with(VCPU));
    Some(vcpus.count() as u32)
}

/// What a virtual machine is called: by QEMU's `-name`, or its `-uuid`, or Firecracker's `--id`; `None` where its command line does not say it,
/// or the process is no more.
pub fn name(pid: u32) -> Option<String> {
    let line = fs::read(Path::new(PROC).join(pid.to_string()).join("cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    named(&line.split('\0').collect::<Vec<_>>())
}

fn named(arguments: &[&str]) -> Option<String> {
    let program = Path::new(arguments.first()?).file_name()?.to_str()?;
    let value = |options: &[&str]| {
        let mut pairs = arguments.windows(2);
        let behind = pairs.find_map(|pair| options.contains(&pair[0]).then_some(pair[1]));
        behind.or_else(|| {
            let mut all = arguments.iter();
            all.find_map(|argument| {
                let (option, value) = argument.split_once('=')?;
                options.contains(&option).then_some(value)
            })
        })
    };
    let found = match program {
        "firecracker" | "jailer" => value(&["--id"]),
        _ => value(&["-name", "--name"]).or_else(|| value(&["-uuid", "--uuid"])),
    }?;
    // guest=NAME,debug-threads=on, or NAME by itself first.
    let mut parts = found.split(',');
    let guest = parts.clone().find_map(|part| part.strip_prefix("guest="));
    let first = parts.next().filter(|part| !part.contains('='));
    guest
        .or(first)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_machine_is_called_what_its_command_line_says() {
        let cases: &[(&[&str], Option<&str>)] = &[
            (
                &[
                    "/usr/bin/qemu-system-x86_64",
                    "-name",
                    "guest=web,debug-threads=on",
                ],
                Some("web"),
            ),
            (&["qemu-system-x86_64", "-name", "db"], Some("db")),
            (
                &[
                    "qemu-system-x86_64",
                    "-name",
                    "debug-threads=on",
                    "-uuid",
                    "1-2",
                ],
                None,
            ),
            (&["qemu-system-x86_64", "-uuid", "1-2"], Some("1-2")),
            (
                &["firecracker", "--id", "f1", "--api-sock", "x"],
                Some("f1"),
            ),
            (&["firecracker", "--id=f2"], Some("f2")),
            (&["crosvm", "run", "kernel"], None),
            (&[""], None),
            (&[], None),
        ];
        for (arguments, expected) in cases {
            assert_eq!(named(arguments).as_deref(), *expected, "{arguments:?}");
        }
    }
}
