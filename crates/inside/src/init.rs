//! The lab's init: runs inside, as process 1.
//!
//! Mounts what a command needs, runs the job, sends what came of it, and ends the machine. What was process 1
//! before it (`exitpath-lab-start`) has loaded modules and mounted the kernel's file systems. `main` hands over when
//! it finds itself to be process 1 with the job file in place.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use exitpath_host::{KernelSays, Root};

use exitpath_lab_start::places::LOADED;
use exitpath_protocol::job::{EXITPATH, JOB_FILE, Job, PROGRAMS, RECORDINGS, ROOT_TAG};
use exitpath_protocol::wire::{Exit, Failure, FileName, Hello, Kind, MAX_PAYLOAD};

use crate::arch::{give_up, power_off};
use crate::out::Wire;

/// Where the host's root ends up.
const SHARED: &str = "/shared";

/// Whether this process is the init of a lab.
pub(crate) fn is_init() -> bool {
    std::process::id() == 1 && Path::new(JOB_FILE).exists()
}

/// A step of init that failed: what it was, and why.
struct Failed(String, String);

trait Step<T> {
    fn step(self, stage: impl Into<String>) -> Result<T, Failed>;
}

impl<T, E: std::fmt::Display> Step<T> for Result<T, E> {
    fn step(self, stage: impl Into<String>) -> Result<T, Failed> {
        self.map_err(|error| Failed(stage.into(), error.to_string()))
    }
}

/// Does the job and stops the machine. Never returns.
pub(crate) fn main() -> ! {
    let mut wire = Wire::open();
    if let Err(Failed(stage, reason)) = work(&mut wire) {
        wire.send_json(Kind::Failure, &Failure { stage, reason });
    }
    power_off()
}

fn work(wire: &mut Wire) -> Result<(), Failed> {
    for at in ["/tmp", "/run", "/dev/shm", "/dev/pts"] {
        fs::create_dir_all(at).step(format!("creating {at}"))?;
        // What the initramfs brings there is not to be hidden; it can be written to as it is.
        if fs::read_dir(at).is_ok_and(|mut entries| entries.next().is_some()) {
            continue;
        }
        let kind = if at == "/dev/pts" { "devpts" } else { "tmpfs" };
        mount("tmp", at, kind, 0, "").step(format!("mounting {at}"))?;
    }
    // These fail where the kernel lacks them, which is not init's business.
    let _ = mount("t", "/sys/kernel/tracing", "tracefs", 0, "");
    let _ = mount("d", "/sys/kernel/debug", "debugfs", 0, "");

    let job = fs::read(JOB_FILE).step("reading the job")?;
    let job: Job = serde_json::from_slice(&job).step("reading the job")?;
    let became = fs::read_to_string(LOADED).step("reading what modules were loaded")?;
    let (mut loaded, mut refused) = (Vec::new(), Vec::new());
    let mut bad_parameters = None;
    // A kernel that refuses a module is for the other side to judge: it may do without.
    for module in &job.modules {
        let file = format!("{}.ko", module.name);
        match became_of(&module.name, &became) {
            0 => loaded.push(file),
            number => {
                let of_value = matches!(number, libc::EINVAL | libc::ERANGE);
                if of_value && !module.parameters.is_empty() && bad_parameters.is_none() {
                    bad_parameters = Some((module.name.clone(), module.parameters.clone()));
                }
                refused.push(format!("{file}: {}", io::Error::from_raw_os_error(number)));
            }
        }
    }
    wire.send_json(
        Kind::Hello,
        &Hello {
            release: read_line("/proc/sys/kernel/osrelease"),
            cmdline: read_line("/proc/cmdline"),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            modules: loaded,
            refused,
            bad_parameters,
            kvm: File::options()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .is_ok(),
        },
    );
    // Before a command that is not counted, which may take long or change what is said; after one
    // that is, whose memory this would move.
    if job.share_root {
        says(&job, wire);
        share_root()?;
        // Relative paths would mean something else in another one.
        let folder =
            fs::metadata(format!("{SHARED}{}", job.cwd)).step(format!("entering {}", job.cwd))?;
        if !folder.is_dir() {
            return Err(Failed(
                format!("entering {}", job.cwd),
                "it is no folder".to_owned(),
            ));
        }
    }

    let mut command = command(&job);
    let exit = if job.terminal {
        let mut child = command.spawn().step(format!("starting {}", job.argv[0]))?;
        child.wait().step("waiting for the command")?
    } else {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().step(format!("starting {}", job.argv[0]))?;
        forward(&mut child, wire);
        child.wait().step("waiting for the command")?
    };
    let status = exit
        .code()
        .unwrap_or_else(|| 128 + exit.signal().unwrap_or(0));

    let mut output_bytes = 0;
    if let (Some(output), 0) = (&job.output, status) {
        let bytes = fs::read(output).step(format!("reading {output}"))?;
        output_bytes = bytes.len() as u64;
        for piece in bytes.chunks(MAX_PAYLOAD) {
            wire.send(Kind::Output, piece);
        }
    }
    if job.share_root {
        send_recordings(wire);
    } else {
        says(&job, wire);
    }
    wire.send_json(
        Kind::Exit,
        &Exit {
            status,
            output_bytes,
        },
    );
    Ok(())
}

/// The number of the error with which a module was refused, 0 for none; the lines have all of them.
fn became_of(module: &str, lines: &str) -> i32 {
    let mut lines = lines.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(name, _)| *name == module);
    found
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(libc::ENOENT)
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn command(job: &Job) -> Command {
    let mut command = Command::new(&job.argv[0]);
    command
        .args(&job.argv[1..])
        .env_clear()
        .envs(job.env.iter().cloned());
    let (share_root, terminal, cwd) = (job.share_root, job.terminal, job.cwd.clone());
    let fixed_addresses = job.fixed_addresses;
    // SAFETY: the closure runs in the child between fork and exec; init has one thread, so every
    // lock is free, and it makes system calls and allocates only.
    unsafe {
        command.pre_exec(move || {
            give_up();
            if fixed_addresses && libc::personality(libc::ADDR_NO_RANDOMIZE as _) < 0 {
                return Err(io::Error::last_os_error());
            }
            if share_root {
                std::os::unix::fs::chroot(SHARED)?;
            }
            std::env::set_current_dir(&cwd)?;
            if terminal {
                libc::setsid();
                let console = File::options().read(true).write(true).open("/dev/ttyS0")?;
                for fd in 0..3 {
                    libc::dup2(console.as_raw_fd(), fd);
                }
                libc::ioctl(0, libc::TIOCSCTTY, 0);
            }
            Ok(())
        });
    }
    command
}

/// Puts the host's root, shared read-only, under a tmpfs: changes stay in the lab.
fn share_root() -> Result<(), Failed> {
    for dir in ["/host", "/changes", SHARED] {
        fs::create_dir_all(dir).step(format!("creating {dir}"))?;
    }
    let options = "trans=virtio,version=9p2000.L,msize=512000,cache=loose";
    mount(ROOT_TAG, "/host", "9p", libc::MS_RDONLY, options).step("mounting the host's root")?;
    mount("changes", "/changes", "tmpfs", 0, "").step("mounting a tmpfs")?;
    for dir in ["/changes/upper", "/changes/work"] {
        fs::create_dir_all(dir).step(format!("creating {dir}"))?;
    }
    let options = "lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work";
    mount("root", SHARED, "overlay", 0, options).step("mounting the overlay")?;
    for dir in ["proc", "sys", "dev", "run"] {
        let at = format!("{SHARED}/{dir}");
        fs::create_dir_all(&at).step(format!("creating {at}"))?;
        let flags = libc::MS_BIND | libc::MS_REC;
        mount(&format!("/{dir}"), &at, "", flags, "").step(format!("mounting {at}"))?;
    }
    let at = format!("{SHARED}/tmp");
    // It may be a symlink to anywhere, which is the host's business.
    if fs::symlink_metadata(&at).is_err() {
        fs::create_dir(&at).step(format!("creating {at}"))?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o1777)).step("opening /tmp")?;
    }
    // So that `exitpath` in the lab is the exitpath outside.
    fs::create_dir_all(PROGRAMS).step(format!("creating {PROGRAMS}"))?;
    fs::copy(EXITPATH, format!("{PROGRAMS}/exitpath")).step("copying exitpath")?;
    fs::write(RECORDINGS, "").step(format!("creating {RECORDINGS}"))?;
    fs::set_permissions(RECORDINGS, fs::Permissions::from_mode(0o666)).step("opening the list")?;
    // What the command line says of these counts no longer: a kernel that oopsed may hang
    // at any time, and one that stays in its panic would be waited for.
    for (setting, value) in [("panic_on_oops", "1"), ("panic", "-1")] {
        let at = format!("/proc/sys/kernel/{setting}");
        if Path::new(&at).exists() {
            fs::write(&at, value).step(format!("setting {at}"))?;
        }
    }
    Ok(())
}

/// Sends the files of the recordings that were made inside. What cannot be read is not there any more,
/// and no result of the command.
fn send_recordings(wire: &mut Wire) {
    let folders = fs::read_to_string(RECORDINGS).unwrap_or_default();
    for folder in folders.lines() {
        let inside = format!("{SHARED}{folder}");
        for entry in fs::read_dir(inside).into_iter().flatten().flatten() {
            let (Ok(bytes), Ok(name)) = (fs::read(entry.path()), entry.file_name().into_string())
            else {
                continue;
            };
            let folder = folder.to_owned();
            wire.send_json(Kind::File, &FileName { folder, name });
            for piece in bytes.chunks(MAX_PAYLOAD) {
                wire.send(Kind::FileBytes, piece);
            }
        }
    }
}

/// Sends what the command prints, as it prints it, until both pipes are closed.
fn forward(child: &mut Child, wire: &mut Wire) {
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    let mut buffer = vec![0; 4096];
    while stdout.is_some() || stderr.is_some() {
        let fd = |stream: Option<i32>| libc::pollfd {
            fd: stream.unwrap_or(-1),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [
            fd(stdout.as_ref().map(AsRawFd::as_raw_fd)),
            fd(stderr.as_ref().map(AsRawFd::as_raw_fd)),
        ];
        // SAFETY: the array is valid for its two entries; negative descriptors are ignored.
        unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        if fds[0].revents != 0 {
            pass_on(&mut stdout, Kind::Stdout, &mut buffer, wire);
        }
        if fds[1].revents != 0 {
            pass_on(&mut stderr, Kind::Stderr, &mut buffer, wire);
        }
    }
}

fn pass_on(stream: &mut Option<impl Read>, kind: Kind, buffer: &mut [u8], wire: &mut Wire) {
    match stream.as_mut().map(|stream| stream.read(buffer)) {
        Some(Ok(length)) if length > 0 => wire.send(kind, &buffer[..length]),
        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        _ => *stream = None,
    }
}

fn mount(what: &str, at: &str, kind: &str, flags: u64, options: &str) -> io::Result<()> {
    let text = |s: &str| std::ffi::CString::new(s).map_err(io::Error::other);
    let (what, at, kind, options) = (text(what)?, text(at)?, text(kind)?, text(options)?);
    // SAFETY: four NUL-terminated strings that outlive the call.
    let result = unsafe {
        libc::mount(
            what.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends what the kernel says of itself.
fn says(job: &Job, wire: &mut Wire) {
    let modules: Vec<String> = job
        .modules
        .iter()
        .map(|module| module.name.clone())
        .collect();
    let cmdline = read_line("/proc/cmdline");
    let mut says = KernelSays::read(&Root::default(), &cmdline, &modules);
    says.unknown = unknown_parameters();
    says.complaints = complaints(&log());
    // A frame that is cut off would be none.
    let fits = |says: &KernelSays| serde_json::to_vec(says).is_ok_and(|j| j.len() <= MAX_PAYLOAD);
    while !fits(&says) && says.complaints.pop().is_some() {}
    wire.send_json(Kind::Says, &says);
}

/// The kernel hands what it does not know of its command line to init: `name` as an argument,
/// `name=value` as an environment variable. Two of the latter are always there.
fn unknown_parameters() -> Vec<String> {
    let words = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned());
    let variables = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .filter(|variable| !["HOME=/", "TERM=linux"].contains(&variable.as_str()));
    words.chain(variables).collect()
}

/// The kernel's log as far as it is kept.
fn log() -> Vec<String> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg");
    let mut lines = Vec::new();
    let (Ok(mut file), mut record) = (file, vec![0; 8192]) else {
        return lines;
    };
    loop {
        match file.read(&mut record) {
            // `priority,number,microseconds,flags;text`, and lines with a blank before them.
            Ok(length) if length > 0 => {
                let text = String::from_utf8_lossy(&record[..length]);
                let text = text.split_once(';').map_or("", |(_, text)| text);
                lines.extend(text.lines().next().map(str::to_owned));
            }
            // The record was overwritten before it was read: the next one is.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            _ => return lines,
        }
    }
}

/// Lines in which the kernel complains of something that it was told.
fn complaints(log: &[String]) -> Vec<String> {
    const WORDS: [&str; 6] = [
        "unknown",
        "unsupported",
        "not supported",
        "invalid",
        "ignor",
        "malformed",
    ];
    let complains = |line: &&String| {
        let lower = line.to_lowercase();
        // The line itself is no complaint, nor is the list of what init is handed.
        !lower.contains("command line") && WORDS.iter().any(|word| lower.contains(word))
    };
    log.iter().filter(complains).cloned().collect()
}
