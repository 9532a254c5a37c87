//! A lab's QEMU as a process: what it is told, what it is handed, and its end.

use std::fmt::Write;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use exitpath_lab_plugin::assists::Features;
use exitpath_lab_start::places::{CONSOLE_PORT, PAYLOAD, PLAN, STOP_PORT};
use exitpath_protocol::job::{Job, ROOT_TAG};
use exitpath_protocol::wire::EXIT_PORT;

use crate::descriptors::{enlarge, pipe, sockets};
use crate::error::{Error, Result};
use crate::machine::qemu::child;
use crate::machine::qemu::console::Terminal;
use crate::machine::qemu::lab::Lab;
use crate::machine::qemu::plugin::{self, Plugin};
use crate::machine::qemu::silence::Silence;

/// What every lab's kernel is told. `nokaslr` keeps addresses from one boot to the next;
/// mitigations are the kernel's own default.
pub(super) const CMDLINE: &str = "console=ttyS0 nokaslr panic=-1 quiet";

/// What a lab is to do.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) job: &'a Job,
    /// The job with all files, as the lab is handed it.
    pub(super) payload: &'a File,
    /// The plan of a job that waits for one, or what stands for none.
    pub(super) plan: &'a File,
}

/// How a machine begins, and how far it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It boots, and goes on.
    Whole,
    /// It boots until it stops itself.
    Boots,
    /// It goes on where another one has stopped, until it stops itself again.
    Prepares,
    /// It goes on where another one has stopped, to its end.
    Restored,
}

impl Lab {
    /// The ends of all that joins a lab with its QEMU: ours, and its.
    pub(super) fn ends<'a>(
        &self,
        work: &Work<'a>,
        initramfs: &'a File,
        memory: Option<&'a File>,
    ) -> Result<(Ours, Theirs<'a>)> {
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
        let (monitor, qemu_monitor) = sockets()?;
        let silence = Silence::new(monitor).map_err(Error::io("create", "a socket"))?;
        let ours = Ours {
            out,
            console,
            stream,
            silence,
        };
        let theirs = Theirs {
            out: out_write,
            console: console_write,
            plugin,
            // A terminal's lab goes by real time, so that its clock tells nothing.
            monitor: Some(qemu_monitor).filter(|_| !work.job.terminal),
            control: None,
            stub: None,
            initramfs,
            payload: work.payload,
            plan: work.plan,
            memory,
        };
        Ok((ours, theirs))
    }

    /// What QEMU is told. Descriptors apart, it decides how the machine boots.
    pub(super) fn arguments(&self, phase: Phase, job: &Job, fds: &Fds) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |more: &[&str]| arguments.extend(more.iter().map(|&one| one.to_owned()));
        let file = |fd: RawFd| format!("/dev/fd/{fd}");
        if let Some((object, records)) = fds.plugin {
            let mut plugin = file(object);
            let of_plugin = |name: &&String| Features::NAMES.contains(&name.as_str());
            for name in self.cpu.supplied.iter().filter(of_plugin) {
                let _ = write!(plugin, ",{name}=on");
            }
            if let Some((does, stream)) = records {
                let _ = write!(plugin, ",fd={stream}");
                if does == Plugin::Idles {
                    plugin.push_str(",idle=on");
                }
            }
            add(&["-plugin", &plugin]);
        }
        if let Some(stub) = fds.stub {
            add(&["-chardev", &format!("socket,id=gdb,fd={stub}")]);
            add(&["-gdb", "chardev:gdb"]);
        }
        for (name, fd) in [("monitor", fds.monitor), ("control", fds.control)] {
            if let Some(fd) = fd {
                add(&["-chardev", &format!("socket,id={name},fd={fd}")]);
                add(&["-mon", &format!("chardev={name},mode=control")]);
            }
        }
        // Under counted time, idle time is skipped; a person at a shell wants it to pass.
        let icount = match job.terminal {
            true => "shift=0,sleep=on",
            false => "shift=0,sleep=off",
        };
        let machine = match fds.memory {
            Some(memory) => {
                // What is saved is shared with us; what is only used stays as it is.
                let share = if phase == Phase::Restored {
                    "off"
                } else {
                    "on"
                };
                let (size, memory) = (self.memory_mib, file(memory));
                let options = format!("id=ram,size={size}M,mem-path={memory},share={share}");
                add(&["-object", &format!("memory-backend-file,{options}")]);
                "pc,memory-backend=ram"
            }
            None => "pc",
        };
        add(&[
            "-M",
            machine,
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
        ]);
        add(&["-accel", "tcg,thread=single", "-icount", icount]);
        add(&[
            "-rtc",
            "base=2026-01-01,clock=vm",
            "-nic",
            "none",
            "-display",
            "none",
        ]);
        add(&["-seed", &self.seed.to_string()]);
        add(&["-cpu", &self.cpu.argument, "-smp", &self.cpus.to_string()]);
        add(&["-m", &self.memory_mib.to_string()]);
        add(&[
            "-device",
            &format!("isa-debug-exit,iobase={EXIT_PORT},iosize=4"),
        ]);
        add(&["-device", &format!("pvpanic,ioport={STOP_PORT}")]);
        add(&["-chardev", &format!("file,id=out,path={}", file(fds.out))]);
        add(&[
            "-device",
            &format!("isa-debugcon,iobase={CONSOLE_PORT},chardev=out"),
        ]);
        add(&["-kernel", &self.kernel.path.to_string_lossy()]);
        add(&["-initrd", &file(fds.initramfs)]);
        add(&["-append", format!("{CMDLINE} {}", self.cmdline).trim()]);
        for (name, fd) in [(PAYLOAD, fds.payload), (PLAN, fds.plan)] {
            add(&["-fw_cfg", &format!("name={name},file={}", file(fd))]);
        }
        let console = match job.terminal {
            true => "stdio,id=console,signal=off".to_owned(),
            false => format!("file,id=console,path={}", file(fds.console)),
        };
        add(&["-chardev", &console, "-serial", "chardev:console"]);
        if job.share_root {
            let root = "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap";
            add(&["-fsdev", root, "-device"]);
            add(&[&format!("virtio-9p-pci,fsdev=root,mount_tag={ROOT_TAG}")]);
        }
        if matches!(phase, Phase::Boots | Phase::Prepares) {
            add(&["-action", "panic=pause"]);
        }
        if matches!(phase, Phase::Prepares | Phase::Restored) {
            add(&["-incoming", "defer"]);
        }
        arguments
    }

    pub(super) fn spawn(&self, phase: Phase, job: &Job, ends: Theirs<'_>) -> Result<child::Guard> {
        let fds = ends.fds();
        let given = fds.all();
        let mut command = self.qemu.command();
        command.args(self.arguments(phase, job, &fds));
        let terminal = job.terminal;
        let standard = || {
            if terminal {
                Stdio::inherit()
            } else {
                Stdio::null()
            }
        };
        command.stdin(standard()).stdout(standard());
        let console = ends.console.try_clone();
        command.stderr(console.map_err(Error::io("duplicate", "a pipe"))?);

        // Ctrl-C goes to exitpath, which ends the lab in order. At a shell it goes to the lab as a character, and QEMU
        // must stay in the terminal's foreground.
        child::tie(&mut command, given, !terminal);
        let child = command.spawn().map_err(|error| Error::QemuUnusable {
            path: self.qemu.path.clone(),
            why: error.to_string(),
        })?;
        Ok(child::Guard(child))
    }
}

/// Our ends of what joins a lab with its QEMU.
pub(super) struct Ours {
    pub(super) out: OwnedFd,
    pub(super) console: OwnedFd,
    pub(super) stream: Option<OwnedFd>,
    pub(super) silence: Silence,
}

/// QEMU's ends.
pub(super) struct Theirs<'a> {
    pub(super) out: OwnedFd,
    pub(super) console: OwnedFd,
    /// The plugin, and where it records, if it does.
    pub(super) plugin: Option<(File, Option<(Plugin, OwnedFd)>)>,
    pub(super) monitor: Option<UnixStream>,
    /// A second monitor, by which it is told to save or to restore.
    pub(super) control: Option<UnixStream>,
    pub(super) stub: Option<UnixStream>,
    pub(super) initramfs: &'a File,
    pub(super) payload: &'a File,
    pub(super) plan: &'a File,
    pub(super) memory: Option<&'a File>,
}

/// Their numbers.
#[derive(Default)]
pub(super) struct Fds {
    pub(super) out: RawFd,
    pub(super) console: RawFd,
    pub(super) initramfs: RawFd,
    pub(super) payload: RawFd,
    pub(super) plan: RawFd,
    pub(super) plugin: Option<(RawFd, Option<(Plugin, RawFd)>)>,
    pub(super) monitor: Option<RawFd>,
    pub(super) control: Option<RawFd>,
    pub(super) stub: Option<RawFd>,
    pub(super) memory: Option<RawFd>,
}

impl Theirs<'_> {
    pub(super) fn fds(&self) -> Fds {
        let socket = |socket: &Option<UnixStream>| socket.as_ref().map(AsRawFd::as_raw_fd);
        Fds {
            out: self.out.as_raw_fd(),
            console: self.console.as_raw_fd(),
            initramfs: self.initramfs.as_raw_fd(),
            payload: self.payload.as_raw_fd(),
            plan: self.plan.as_raw_fd(),
            plugin: self.plugin.as_ref().map(|(object, records)| {
                let stream = |(does, stream): &(Plugin, OwnedFd)| (*does, stream.as_raw_fd());
                (object.as_raw_fd(), records.as_ref().map(stream))
            }),
            monitor: socket(&self.monitor),
            control: socket(&self.control),
            stub: socket(&self.stub),
            memory: self.memory.map(AsRawFd::as_raw_fd),
        }
    }
}

impl Fds {
    pub(super) fn all(&self) -> Vec<RawFd> {
        let plugin = self.plugin.map(|(object, records)| {
            let stream = records.map(|(_, stream)| stream);
            [object].into_iter().chain(stream)
        });
        let more = [self.monitor, self.control, self.stub, self.memory];
        [
            self.out,
            self.console,
            self.initramfs,
            self.payload,
            self.plan,
        ]
        .into_iter()
        .chain(plugin.into_iter().flatten())
        .chain(more.into_iter().flatten())
        .collect()
    }
}

/// A lab's QEMU, which ends when the lab is no longer wanted, for whatever reason.
pub(super) struct Guard {
    pub(super) child: child::Guard,
    /// Put back after QEMU has ended.
    pub(super) _terminal: Option<Terminal>,
}

impl Guard {
    /// Gives QEMU a moment to end: it does so right after the last frame.
    pub(super) fn end_by_itself(&mut self) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
