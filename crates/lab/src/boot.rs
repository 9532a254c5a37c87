//! Booting a lab and waiting for what it says.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use exitpath_host::KernelSays;

use crate::complaint::{self, Complaint};
use crate::console::{Console, Terminal};
use crate::descriptors::{enlarge, pipe, readable, sealed_file};
use crate::error::{Error, Result};
use crate::gdb::Patches;
use crate::init::{CONSOLE_PORT, EXIT_PORT};
use crate::initramfs::Initramfs;
use crate::job::{JOB_FILE, Job, MODULES_DIR, ModuleToLoad, ROOT_TAG};
use crate::kernels::BootFile;
use crate::modules::Modules;
use crate::parameters;
use crate::plugin::{self, Plugin};
use crate::qemu::Qemu;
use crate::silence::Silence;
use crate::wire::{Decoder, Exit, Failure, FileName, Frame, Hello, Kind};

/// Named CPU model of the lab unless another is chosen: SVM and nested paging, a family the
/// kernel knows.
pub const DEFAULT_CPU: &str = "EPYC-Milan";
/// What every lab's kernel is told. `nokaslr` keeps addresses from one boot to the next;
/// mitigations are the kernel's own default.
const CMDLINE: &str = "console=ttyS0 nokaslr panic=-1 quiet";
/// How long a kernel may take to reach init, in real time. It takes 10 s on a slow machine.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// Seconds of a lab's own clock after which one that has said nothing does nothing any more: a boot
/// takes 4, a row some. An idle lab takes seconds of real time for them.
pub const SILENCE: u64 = 300;
/// Bytes of files that are taken out of a lab.
const MOST_KEPT: usize = 1 << 30;
/// How long the rest of a complaint may take to come out.
const REST: Duration = Duration::from_secs(2);

/// Everything that decides what a lab does.
#[derive(Debug, Clone)]
pub struct Lab {
    /// The emulator.
    pub qemu: Qemu,
    /// What it boots.
    pub kernel: BootFile,
    /// The kernel's modules; `None` where it has everything built in.
    pub modules: Option<std::path::PathBuf>,
    /// QEMU's `-cpu`.
    pub cpu: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Appended to the kernel's command line.
    pub cmdline: String,
    /// QEMU's `-seed`: where the kernel and libc get their randomness from.
    pub seed: u64,
    /// The plugin to load, if any.
    pub plugin: Option<Plugin>,
    /// What to overwrite in the kernel before the job begins, if anything.
    pub patches: Option<Patches>,
    /// Limit on the whole boot in real time; `None` for a shell.
    pub limit: Option<Duration>,
    /// Seconds of the lab's own clock without a word after which it is taken for dead, and
    /// whether its kernel's complaints end it. `None` where a command of the user's runs, which may sleep.
    pub silence: Option<u64>,
    /// Set from outside when the user wants to stop.
    pub interrupted: Arc<AtomicBool>,
}

/// What a lab brought out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What booted.
    pub hello: Hello,
    /// What the kernel says of itself.
    pub says: KernelSays,
    /// The command's exit status.
    pub status: i32,
    /// The job's output file; empty where there was none or the command failed.
    pub output: Vec<u8>,
    /// The last of what the command wrote to standard error, for messages.
    pub stderr: String,
    /// Files of recordings that commands made inside.
    pub kept: Vec<Kept>,
}

/// A file that came out of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The folder it was in, the same as outside.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Where a lab's output goes while it runs.
pub trait Sink {
    /// Bytes of the command's standard output.
    fn stdout(&mut self, bytes: &[u8]);
    /// Bytes of the command's standard error.
    fn stderr(&mut self, bytes: &[u8]);
    /// The kernel has booted.
    fn booted(&mut self, _hello: &Hello) {}
    /// What the kernel says of itself.
    fn says(&mut self, _says: &KernelSays) {}
    /// Bytes of the plugin's stream.
    ///
    /// # Errors
    /// What is wrong with them, in words; that ends the lab.
    fn instructions(&mut self, _bytes: &[u8]) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// Throws output away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl Sink for Discard {
    fn stdout(&mut self, _: &[u8]) {}
    fn stderr(&mut self, _: &[u8]) {}
}

impl Lab {
    /// Boots, runs `job` with `files` in the initramfs, and waits for the end.
    ///
    /// `files` must not have anything at `/init` and in `/lab`.
    ///
    /// # Errors
    /// Whatever kept the lab from its last frame: the kernel did not boot, init failed, QEMU
    /// died, time ran out, the user interrupted. Never half a result.
    pub fn run(&self, files: Initramfs, job: Job, sink: &mut dyn Sink) -> Result<Outcome> {
        let image = sealed_file("initramfs", &self.initramfs(files, job.clone())?)?;
        let (out, out_write) = pipe()?;
        let (console, console_write) = pipe()?;
        let (stream, plugin) = match self.plugin {
            Some(does) => {
                let (stream, write) = pipe()?;
                enlarge(&stream);
                let object = plugin::object(&self.qemu)?;
                (Some(stream), Some((does, object, write)))
            }
            None => (None, None),
        };
        let stub = match &self.patches {
            Some(_) => Some(UnixStream::pair().map_err(Error::io("create", "a socket"))?),
            None => None,
        };
        let (stub, qemu_stub) = stub.unzip();
        let (monitor, qemu_monitor) =
            UnixStream::pair().map_err(Error::io("create", "a socket"))?;
        let silence = Silence::new(monitor).map_err(Error::io("create", "a socket"))?;
        let terminal = job.terminal.then(Terminal::save).flatten();
        let mut child = Guard {
            child: self.spawn(
                &job,
                &image,
                [out_write, console_write],
                plugin,
                [qemu_stub, Some(qemu_monitor)],
            )?,
            _terminal: terminal,
        };
        let mut wait = Wait {
            lab: self,
            began: Instant::now(),
            decoder: Decoder::default(),
            console: Console::default(),
            hello: None,
            says: None,
            output: Vec::new(),
            stderr: Vec::new(),
            kept: Vec::new(),
            sink,
            silence,
            complained: None,
            patcher: self.patches.clone().zip(stub).map(|(patches, stub)| {
                thread::spawn(move || patches.apply(stub, Instant::now() + BOOT_LIMIT))
            }),
        };
        let exit = wait.until_exit(out, console, stream)?;
        child.end_by_itself();
        let (Some(hello), Some(says)) = (wait.hello, wait.says) else {
            return Err(wait
                .console
                .died("sent its results without having said what booted"));
        };
        if exit.status == 0 && exit.output_bytes != wait.output.len() as u64 {
            return Err(Error::LabDied {
                what: format!(
                    "announced {} bytes of results and sent {}",
                    exit.output_bytes,
                    wait.output.len()
                ),
                console: String::new(),
            });
        }
        Ok(Outcome {
            hello,
            says,
            status: exit.status,
            output: wait.output,
            stderr: String::from_utf8_lossy(&wait.stderr).into_owned(),
            kept: wait.kept,
        })
    }

    fn initramfs(&self, mut files: Initramfs, mut job: Job) -> Result<Vec<u8>> {
        let mut wanted = vec!["kvm_amd"];
        if job.share_root {
            wanted.extend(["virtio_pci", "9pnet_virtio", "9p", "overlay"]);
        }
        if let Some(dir) = &self.modules {
            for module in Modules::index(dir)?.load_order(&wanted)? {
                let path = format!("{MODULES_DIR}/{}.ko", module.name);
                files.file(path, 0o644, module.bytes)?;
                job.modules.push(ModuleToLoad {
                    parameters: parameters::of_module(&self.cmdline, &module.name),
                    name: module.name,
                });
            }
        }
        // A symlink may have led there.
        if let Some((path, own)) = files.hidden() {
            return Err(Error::NotInTheLab { path, own });
        }
        let json = serde_json::to_vec(&job).expect("plain data always serialises");
        files.file(JOB_FILE, 0o644, json)?;
        files.device("/dev/console", 0o600, 5, 1)?;
        // Not /proc/self/exe itself: it may be a path that only looks like the running program.
        let this = std::env::current_exe().map_err(Error::io("find", "/proc/self/exe"))?;
        if !is_static(&this)? {
            files.add_program(&this)?;
        }
        files.file_from("/init", &this)?;
        files.to_vec()
    }

    fn spawn(
        &self,
        job: &Job,
        initramfs: &File,
        [out, console]: [OwnedFd; 2],
        plugin: Option<(Plugin, File, OwnedFd)>,
        [stub, monitor]: [Option<UnixStream>; 2],
    ) -> Result<Child> {
        let mut command = self.qemu.command();
        let mut given = vec![out.as_raw_fd(), console.as_raw_fd(), initramfs.as_raw_fd()];
        let file = |fd: RawFd| format!("/dev/fd/{fd}");
        let [out_file, console_file, initramfs_file] = [given[0], given[1], given[2]].map(file);
        if let Some((does, object, stream)) = &plugin {
            let (object, stream) = (object.as_raw_fd(), stream.as_raw_fd());
            given.extend([object, stream]);
            let idle = match does {
                Plugin::Records => "",
                Plugin::Idles => ",idle=on",
            };
            let argument = format!("{},fd={stream}{idle}", file(object));
            command.arg("-plugin").arg(argument);
        }
        if let Some(stub) = &stub {
            let stub = stub.as_raw_fd();
            given.push(stub);
            // Stopped at first, until the breakpoint is set.
            command.args(["-chardev", &format!("socket,id=gdb,fd={stub}")]);
            command.args(["-gdb", "chardev:gdb", "-S"]);
        }
        // A terminal's lab goes by real time, so that its clock tells nothing.
        if let Some(monitor) = monitor.as_ref().filter(|_| !job.terminal) {
            let monitor = monitor.as_raw_fd();
            given.push(monitor);
            command.args(["-chardev", &format!("socket,id=monitor,fd={monitor}")]);
            command.args(["-mon", "chardev=monitor,mode=control"]);
        }
        let cmdline = format!("{CMDLINE} {}", self.cmdline);
        // Under counted time, idle time is skipped; a person at a shell wants it to pass.
        let icount = if job.terminal {
            "shift=0,sleep=on"
        } else {
            "shift=0,sleep=off"
        };
        command
            .args(["-M", "pc", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-accel", "tcg,thread=single", "-icount", icount])
            .args([
                "-rtc",
                "base=2026-01-01,clock=vm",
                "-nic",
                "none",
                "-display",
                "none",
            ])
            .args(["-seed", &self.seed.to_string()])
            .args(["-cpu", &self.cpu, "-smp", &self.cpus.to_string()])
            .args(["-m", &self.memory_mib.to_string()])
            .arg("-device")
            .arg(format!("isa-debug-exit,iobase={EXIT_PORT},iosize=4"))
            .args([
                "-chardev",
                &format!("file,id=out,path={out_file}"),
                "-device",
            ])
            .arg(format!("isa-debugcon,iobase={CONSOLE_PORT},chardev=out"))
            .arg("-kernel")
            .arg(&self.kernel.path)
            .args(["-initrd", &initramfs_file, "-append", cmdline.trim()]);
        let console_chardev = if job.terminal {
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit());
            "stdio,id=console,signal=off".to_owned()
        } else {
            command.stdin(Stdio::null()).stdout(Stdio::null());
            format!("file,id=console,path={console_file}")
        };
        command.args(["-chardev", &console_chardev, "-serial", "chardev:console"]);
        if job.share_root {
            command.args([
                "-fsdev",
                "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            ]);
            command.args([
                "-device",
                &format!("virtio-9p-pci,fsdev=root,mount_tag={ROOT_TAG}"),
            ]);
        }
        command.stderr(
            console
                .try_clone()
                .map_err(Error::io("duplicate", "a pipe"))?,
        );

        let parent = std::process::id();
        let terminal = job.terminal;
        // SAFETY: the closure makes system calls only.
        unsafe {
            command.pre_exec(move || {
                // The lab must not outlive the command that began it, however that ends.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() as u32 != parent {
                    return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
                }
                // Ctrl-C goes to exitpath, which ends the lab in order. At a shell it goes to the
                // lab as a character, and QEMU must stay in the terminal's foreground.
                if !terminal {
                    libc::setpgid(0, 0);
                }
                // QEMU opens these by their numbers; no other child inherits them.
                for &fd in &given {
                    if libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        command.spawn().map_err(|error| Error::QemuUnusable {
            path: self.qemu.path.clone(),
            why: error.to_string(),
        })
    }
}

/// Ends QEMU when the lab is no longer wanted, for whatever reason.
struct Guard {
    child: Child,
    /// Put back after QEMU has ended.
    _terminal: Option<Terminal>,
}

impl Guard {
    /// Gives QEMU a moment to end: it does so right after the last frame.
    fn end_by_itself(&mut self) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a running lab until its last frame.
struct Wait<'a> {
    lab: &'a Lab,
    began: Instant,
    decoder: Decoder,
    console: Console,
    hello: Option<Hello>,
    says: Option<KernelSays>,
    output: Vec<u8>,
    stderr: Vec<u8>,
    kept: Vec<Kept>,
    sink: &'a mut dyn Sink,
    silence: Silence,
    /// When its kernel's complaint was first seen.
    complained: Option<Instant>,
    /// Patches the kernel; gone once it has.
    patcher: Option<JoinHandle<std::result::Result<(), String>>>,
}

impl Wait<'_> {
    fn until_exit(
        &mut self,
        out: OwnedFd,
        console: OwnedFd,
        stream: Option<OwnedFd>,
    ) -> Result<Exit> {
        let (mut out, mut console) = (File::from(out), File::from(console));
        let mut stream = stream.map(File::from);
        let mut console_open = true;
        let mut buffer = vec![0; 1 << 16];
        loop {
            if self.lab.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            self.check_time()?;
            self.check_patcher()?;
            self.check_complaint()?;
            let fd = |file: Option<&File>| libc::pollfd {
                fd: file.map_or(-1, AsRawFd::as_raw_fd),
                events: libc::POLLIN,
                revents: 0,
            };
            let mut fds = [
                fd(Some(&out)),
                fd(console_open.then_some(&console)),
                fd(stream.as_ref()),
            ];
            // SAFETY: the array is valid for its three entries; negative descriptors are ignored.
            unsafe { libc::poll(fds.as_mut_ptr(), 3, 100) };
            if fds[2].revents != 0 {
                self.instructions(&mut stream, &mut buffer)?;
            }
            if fds[1].revents != 0 {
                match console.read(&mut buffer) {
                    Ok(0) | Err(_) => console_open = false,
                    Ok(length) => self.console.push(&buffer[..length]),
                }
            }
            if fds[0].revents != 0 {
                match out.read(&mut buffer) {
                    Ok(length) if length > 0 => {
                        self.silence.broken();
                        self.decoder.push(&buffer[..length]);
                    }
                    _ => {
                        // What QEMU said last may still be in the pipe.
                        while console_open && readable(&console, 1000) {
                            match console.read(&mut buffer) {
                                Ok(0) | Err(_) => console_open = false,
                                Ok(length) => self.console.push(&buffer[..length]),
                            }
                        }
                        return Err(self.console.died(match self.hello {
                            None if self.lab.plugin.is_some() && self.console.names_plugin() => {
                                return Err(Error::PluginRefused {
                                    qemu: self.lab.qemu.version.clone(),
                                    said: self.console.tail(),
                                });
                            }
                            None => "ended before its kernel reached init",
                            Some(_) => "ended in the middle of its work",
                        }));
                    }
                }
                if let Some(exit) = self.frames()? {
                    self.check_patcher()?;
                    if self.patcher.is_some() {
                        return Err(Error::Patch {
                            why: "the job was over before the breakpoint was reached".to_owned(),
                        });
                    }
                    // What the plugin wrote before the last frame is in the pipe by now.
                    while stream.as_ref().is_some_and(|stream| readable(stream, 0)) {
                        self.instructions(&mut stream, &mut buffer)?;
                    }
                    return Ok(exit);
                }
            }
        }
    }

    /// Whether the patcher, if it has ended, has done its work.
    fn check_patcher(&mut self) -> Result<()> {
        let Some(patcher) = self.patcher.take_if(|patcher| patcher.is_finished()) else {
            return Ok(());
        };
        match patcher.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(Error::Patch { why }),
            Err(_) => Err(Error::Patch {
                why: "the client panicked: report this as a bug of exitpath".to_owned(),
            }),
        }
    }

    /// Hands on a piece of the plugin's stream; at its end there is none any more.
    fn instructions(&mut self, stream: &mut Option<File>, buffer: &mut [u8]) -> Result<()> {
        match stream.as_mut().map(|stream| stream.read(buffer)) {
            Some(Ok(length)) if length > 0 => self
                .sink
                .instructions(&buffer[..length])
                .map_err(|what| Error::Stream { what }),
            _ => {
                *stream = None;
                Ok(())
            }
        }
    }

    /// Whether the kernel has complained that it cannot go on, and did not end by itself.
    fn check_complaint(&mut self) -> Result<()> {
        let fatal = |complaint: &Complaint| {
            // What a user's command does to its kernel is the user's; init has it end at an oops.
            complaint.kind == complaint::Kind::Halted || self.lab.silence.is_some()
        };
        if !self.console.has_news() && self.complained.is_none() {
            return Ok(());
        }
        let Some(complaint) = self.console.complaint().filter(fatal) else {
            return Ok(());
        };
        let since = self.complained.get_or_insert_with(Instant::now).elapsed();
        if complaint.whole || since > REST {
            return Err(self.console.died_of(complaint));
        }
        Ok(())
    }

    fn check_time(&mut self) -> Result<()> {
        let passed = self.began.elapsed();
        let booted = self.hello.is_some();
        let limit = if booted {
            self.lab.silence
        } else {
            Some(SILENCE)
        };
        if let Some(limit) = limit {
            let silent = self.silence.seconds(booted);
            if u64::try_from(silent).is_ok_and(|silent| silent > limit) {
                let before = if booted {
                    ""
                } else {
                    " before its kernel reached init"
                };
                return Err(self.console.died(&format!(
                    "does nothing any more: {silent} s passed by its own clock without a word{before}"
                )));
            }
        }
        if self.hello.is_none() && passed > BOOT_LIMIT {
            return Err(self.console.died(&format!(
                "has not booted its kernel within {} s (a busy machine: give one --seed)",
                BOOT_LIMIT.as_secs()
            )));
        }
        match self.lab.limit {
            Some(limit) if passed > limit => Err(self.console.died(&format!(
                "has not finished within {} s (--timeout gives it longer)",
                limit.as_secs()
            ))),
            _ => Ok(()),
        }
    }

    fn frames(&mut self) -> Result<Option<Exit>> {
        loop {
            let frame = self
                .decoder
                .next_frame()
                .map_err(|what| self.console.died(&format!("sent {what}")))?;
            let Some(Frame { kind, payload }) = frame else {
                return Ok(None);
            };
            match kind {
                Kind::Hello => {
                    let hello: Hello = self.json(&payload)?;
                    if let Some((module, parameters)) = hello.bad_parameters {
                        return Err(Error::ParametersRefused { module, parameters });
                    }
                    self.sink.booted(&hello);
                    self.hello = Some(hello);
                }
                Kind::Says => {
                    let says = self.json(&payload)?;
                    self.sink.says(&says);
                    self.says = Some(says);
                }
                Kind::Stdout => self.sink.stdout(&payload),
                Kind::Stderr => {
                    self.sink.stderr(&payload);
                    self.stderr.extend_from_slice(&payload);
                    let excess = self.stderr.len().saturating_sub(Console::KEPT);
                    self.stderr.drain(..excess);
                }
                Kind::Output => self.output.extend_from_slice(&payload),
                Kind::File => {
                    let FileName { folder, name } = self.json(&payload)?;
                    self.kept.push(Kept {
                        folder: folder.into(),
                        name,
                        bytes: Vec::new(),
                    });
                }
                Kind::FileBytes => {
                    let kept: usize = self.kept.iter().map(|file| file.bytes.len()).sum();
                    match self.kept.last_mut() {
                        Some(file) if kept + payload.len() <= MOST_KEPT => {
                            file.bytes.extend_from_slice(&payload);
                        }
                        Some(_) => return Err(self.console.died("sent more than a gigabyte")),
                        None => return Err(self.console.died("sent bytes of no file")),
                    }
                }
                Kind::Exit => return self.json(&payload).map(Some),
                Kind::Failure => {
                    let Failure { stage, reason } = self.json(&payload)?;
                    return Err(Error::Init { stage, reason });
                }
            }
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, payload: &[u8]) -> Result<T> {
        serde_json::from_slice(payload).map_err(|error| {
            self.console
                .died(&format!("sent a frame that is no {error}"))
        })
    }
}

/// Whether a program needs no dynamic linker.
fn is_static(program: &Path) -> Result<bool> {
    use object::read::elf::{FileHeader, ProgramHeader};
    let bytes = std::fs::read(program).map_err(Error::io("read", program))?;
    let not_elf = |error: object::Error| Error::NotAProgram {
        path: program.to_owned(),
        why: error.to_string(),
    };
    let header =
        object::elf::FileHeader64::<object::Endianness>::parse(&*bytes).map_err(not_elf)?;
    let endian = header.endian().map_err(not_elf)?;
    let headers = header.program_headers(endian, &*bytes).map_err(not_elf)?;
    Ok(!headers
        .iter()
        .any(|header| header.p_type(endian) == object::elf::PT_INTERP))
}
