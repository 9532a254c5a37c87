//! Booting a lab and waiting for what it says.

mod wait;

use std::fmt::Write;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use exitpath_lab_plugin::assists::Features;
use exitpath_protocol::job::{EXITPATH, JOB_FILE, Job, MODULES_DIR, ModuleToLoad, ROOT_TAG};
use exitpath_protocol::wire::{CONSOLE_PORT, Decoder, EXIT_PORT};

use crate::arch::x86_64;
use crate::descriptors::{enlarge, pipe, sealed_file};
use crate::error::{Error, Result};
use crate::image::initramfs::Initramfs;
use crate::image::inside::inside;
use crate::kernel::modules::Modules;
use crate::kernel::parameters;
use crate::machine::qemu::console::{Console, Terminal};
use crate::machine::qemu::plugin::{self, Plugin};
use crate::machine::qemu::silence::Silence;
use wait::{MOST_WAITED, Wait};

pub use crate::machine::qemu::lab::{DEFAULT_CPU, Discard, Kept, Lab, Outcome, SILENCE, Sink};

/// What every lab's kernel is told. `nokaslr` keeps addresses from one boot to the next;
/// mitigations are the kernel's own default.
const CMDLINE: &str = "console=ttyS0 nokaslr panic=-1 quiet";
/// What was added to a lab's command line, as the kernel said it; `None` where that is none of a lab.
pub fn added_to_cmdline(all: &str) -> Option<&str> {
    all.strip_prefix(CMDLINE).map(str::trim)
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
        let (stream, records) = match self.plugin {
            Some(does) => {
                let (stream, write) = pipe()?;
                enlarge(&stream);
                (Some(stream), Some((does, write)))
            }
            None => (None, None),
        };
        let plugin = match records.is_some() || self.cpu.features().any() {
            true => Some((plugin::object(&self.qemu)?, records)),
            false => None,
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
            qemu: child.child.id(),
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
                thread::spawn(move || patches.apply(stub, Instant::now() + MOST_WAITED))
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
        let mut wanted = vec![x86_64::KVM_MODULE];
        if job.share_root {
            wanted.extend(x86_64::SHARED_ROOT_MODULES);
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
        files.file("/init", 0o755, inside()?)?;
        if job.share_root {
            // Not /proc/self/exe itself: it may be a path that only looks like the running program.
            let this = std::env::current_exe().map_err(Error::io("find", "/proc/self/exe"))?;
            files.file_from(EXITPATH, &this)?;
        }
        files.to_vec()
    }

    fn spawn(
        &self,
        job: &Job,
        initramfs: &File,
        [out, console]: [OwnedFd; 2],
        plugin: Option<(File, Option<(Plugin, OwnedFd)>)>,
        [stub, monitor]: [Option<UnixStream>; 2],
    ) -> Result<Child> {
        let mut command = self.qemu.command();
        let mut given = vec![out.as_raw_fd(), console.as_raw_fd(), initramfs.as_raw_fd()];
        let file = |fd: RawFd| format!("/dev/fd/{fd}");
        let [out_file, console_file, initramfs_file] = [given[0], given[1], given[2]].map(file);
        if let Some((object, records)) = &plugin {
            given.push(object.as_raw_fd());
            let mut argument = file(object.as_raw_fd());
            let of_plugin = |name: &&String| Features::NAMES.contains(&name.as_str());
            for name in self.cpu.supplied.iter().filter(of_plugin) {
                let _ = write!(argument, ",{name}=on");
            }
            if let Some((does, stream)) = records {
                given.push(stream.as_raw_fd());
                let _ = write!(argument, ",fd={}", stream.as_raw_fd());
                if *does == Plugin::Idles {
                    argument.push_str(",idle=on");
                }
            }
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
            .args(["-cpu", &self.cpu.argument, "-smp", &self.cpus.to_string()])
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
