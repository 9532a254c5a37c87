//! A lab in a machine that has booted: restored from a snapshot, which is taken first if there is none.
//!
//! The machine stops itself once its modules are loaded (`exitpath-lab-start`), at one instruction, so that nothing of a
//! snapshot depends on how fast this machine is. Its memory is a file that QEMU leaves alone when it saves the rest
//! (QEMU's `x-ignore-shared`); another QEMU maps that for itself, and reads a few hundred kilobytes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use exitpath_protocol::job::Job;
use serde_json::{Value, json};

use super::wait::Wait;
use super::watch::{MOST_WAITED, Watch};
use super::{Fds, Guard, Phase, Work, outcome};
use crate::descriptors::{pipe, readable, sealed_file};
use crate::error::{Error, Result};
use crate::image::payload::NONE;
use crate::machine::qemu::lab::{Lab, Outcome, Sink};
use crate::machine::qemu::monitor::Monitor;
use crate::snapshot::{About, Key, Snapshot, Snapshots};

/// Files of QEMU's firmware that such a machine has.
const FIRMWARE: [&str; 4] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin"];
/// Where they are for a QEMU that is installed.
const INSTALLED: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// Why a machine does not come to where it should.
enum Halt {
    /// Something that ends the lab.
    Lab(Error),
    /// What its monitor says, or that it has ended.
    Monitor(String),
}

impl From<String> for Halt {
    fn from(what: String) -> Halt {
        Halt::Monitor(what)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Lab(error)
    }
}

impl Lab {
    /// Restores the machine, booting it if need be, and has it do its work.
    pub(super) fn restored(
        &self,
        snapshots: &Snapshots,
        initramfs: &[u8],
        work: &Work<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        let key = self.key(snapshots, initramfs)?;
        let mut lock = None;
        // Another one may be booting it just now.
        for _ in 0..2 {
            if let Some(snapshot) = snapshots.find(&key) {
                match self.go_on(&snapshot, work, sink) {
                    Err(Error::Restore { why }) => snapshots.discard(&key, &why),
                    done => return done,
                }
            }
            if lock.is_none() {
                lock = snapshots.lock(&key, &self.interrupted)?;
            }
        }
        let snapshot = self.boot(initramfs)?;
        thread::scope(|scope| {
            scope.spawn(|| {
                snapshots.keep(&key, &snapshot, &self.about(snapshots));
                drop(lock);
            });
            self.go_on(&snapshot, work, sink)
        })
    }

    /// Everything that decides how the machine is once it has booted.
    fn key(&self, snapshots: &Snapshots, initramfs: &[u8]) -> Result<Key> {
        let mut key = Key::default();
        key.add("qemu", &self.qemu.version);
        key.add_identity(&self.qemu.path);
        let folders = match self.qemu.data_folders() {
            [] => INSTALLED.map(Path::new).to_vec(),
            own => own.iter().map(AsRef::as_ref).collect(),
        };
        for file in FIRMWARE {
            for folder in &folders {
                key.add_identity(&folder.join(file));
            }
        }
        let fds = Fds {
            memory: Some(0),
            ..Fds::default()
        };
        for argument in self.arguments(Phase::Boots, &Job::default(), &fds) {
            key.add("argument", &argument);
        }
        key.add_content("kernel", &self.kernel.path, &snapshots.memos())?;
        key.add_bytes("initramfs", initramfs);
        Ok(key)
    }

    fn about(&self, snapshots: &Snapshots) -> About {
        About {
            kernel: snapshots.kernel().to_owned(),
            cmdline: self.cmdline.clone(),
            qemu: self.qemu.version.clone(),
            cpu: self.cpu.clone(),
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            seed: self.seed,
        }
    }

    /// Boots, until the machine stops itself.
    fn boot(&self, initramfs: &[u8]) -> Result<Snapshot> {
        let began = Instant::now();
        let bytes = u64::from(self.memory_mib) << 20;
        let memory = Snapshot::room(bytes)?;
        let image = sealed_file("initramfs", initramfs)?;
        let nothing = sealed_file("payload", NONE)?;
        let (job, payload) = (&Job::default(), &nothing);
        let alone = Lab {
            plugin: None,
            ..self.clone()
        };
        let (ours, mut theirs) = alone.ends(&Work { job, payload }, &image, Some(&memory))?;
        let (control, qemu_control) = socket()?;
        let (from, to) = pipe()?;
        theirs.control = Some(qemu_control);
        let child = Guard {
            child: alone.spawn(Phase::Boots, job, theirs)?,
            _terminal: None,
        };
        let console = File::from(ours.console);
        let mut watch = Watch::new(child.child.id(), self, began, ours.silence, console);
        let mut control = Monitor::new(control);
        let state = save(&mut control, &mut watch, File::from(from), to);
        let state = state.map_err(|halt| match halt {
            Halt::Lab(error) => error,
            Halt::Monitor(why) => gone(&mut watch, &control)
                .unwrap_or_else(|| watch.console.died(&format!("cannot be saved: {why}"))),
        })?;
        // QEMU has nothing to add.
        drop(child);
        Ok(Snapshot::new(memory, bytes, state))
    }

    /// Goes on where the machine was stopped.
    fn go_on(&self, snapshot: &Snapshot, work: &Work<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
        let began = Instant::now();
        let checking = snapshot.check()?;
        // What a kernel was started from is in its memory.
        let image = sealed_file("initramfs", NONE)?;
        let (ours, mut theirs) = self.ends(work, &image, Some(&snapshot.memory))?;
        let (control, qemu_control) = socket()?;
        let (from, to) = pipe()?;
        let (stub, qemu_stub) = match &self.patches {
            Some(_) => Some(socket()?),
            None => None,
        }
        .unzip();
        theirs.control = Some(qemu_control);
        theirs.stub = qemu_stub;
        let mut child = Guard {
            child: self.spawn(Phase::Restored, work.job, theirs)?,
            _terminal: None,
        };
        let console = File::from(ours.console);
        let mut watch = Watch::new(child.child.id(), self, began, ours.silence, console);
        let mut control = Monitor::new(control);
        let restored = thread::scope(|scope| {
            // One that does not read it any more says why itself.
            scope.spawn(|| File::from(to).write_all(&snapshot.state));
            restore(&mut control, &mut watch, from)?;
            Ok(checking.finish()?)
        });
        let mut wait = match restored {
            Ok(()) => Wait::new(watch, sink),
            Err(Halt::Lab(error)) => return Err(error),
            Err(Halt::Monitor(why)) => {
                return Err(match gone(&mut watch, &control) {
                    Some(refused @ Error::PluginRefused { .. }) => refused,
                    Some(died) => Error::Restore {
                        why: died.to_string(),
                    },
                    None => Error::Restore { why },
                });
            }
        };
        match self.patches.clone().zip(stub) {
            // The patcher lets it go.
            Some((patches, stub)) => {
                let until = Instant::now() + MOST_WAITED;
                wait.patcher = Some(thread::spawn(move || patches.apply(stub, until)));
            }
            None => {
                let going = control.execute("cont", json!({}), &mut || attend(&mut wait.watch));
                match going {
                    Err(Halt::Lab(error)) => return Err(error),
                    Err(Halt::Monitor(why)) => return Err(Error::Restore { why }),
                    Ok(_) => {}
                }
            }
        }
        outcome(wait, ours.out, ours.stream, &mut child)
    }
}

fn socket() -> Result<(UnixStream, UnixStream)> {
    UnixStream::pair().map_err(Error::io("create", "a socket"))
}

/// What is done while a monitor is waited for.
fn attend(watch: &mut Watch<'_>) -> std::result::Result<(), Halt> {
    while watch.console_file().is_some_and(|console| readable(console, 0)) {
        watch.read_console(&mut [0; 4096]);
    }
    Ok(watch.check()?)
}

/// What to say of a QEMU that has ended; `None` where it has not.
fn gone(watch: &mut Watch<'_>, control: &Monitor) -> Option<Error> {
    let gone = control.has_ended();
    gone.then(|| {
        watch.read_rest(&mut [0; 4096]);
        watch.ended()
    })
}

/// Tells QEMU that its memory stays where it is, and that it is to say how far it is.
fn prepare(control: &mut Monitor, watch: &mut Watch<'_>) -> std::result::Result<(), Halt> {
    let on = |name: &str| json!({ "capability": name, "state": true });
    let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
    control.execute("qmp_capabilities", json!({}), &mut || attend(watch))?;
    control.execute("migrate-set-capabilities", capabilities, &mut || attend(watch))?;
    Ok(())
}

/// Waits until QEMU has written or read all of its state.
fn finish(control: &mut Monitor, watch: &mut Watch<'_>) -> std::result::Result<(), Halt> {
    let status = |event: &Value| {
        let is_of_it = event["event"] == "MIGRATION";
        let status = event["data"]["status"].as_str().filter(|_| is_of_it)?;
        ["completed", "failed"].contains(&status).then(|| status.to_owned())
    };
    match control.event(status, &mut || attend(watch))?.as_str() {
        "completed" => Ok(()),
        status => Err(Halt::Monitor(format!("its state has {status}"))),
    }
}

/// Waits until the machine stops itself, and takes its state.
fn save(
    control: &mut Monitor,
    watch: &mut Watch<'_>,
    mut from: File,
    to: OwnedFd,
) -> std::result::Result<Vec<u8>, Halt> {
    prepare(control, watch)?;
    let stopped = |event: &Value| (event["event"] == "STOP").then_some(());
    control.event(stopped, &mut || attend(watch))?;
    control.give("state", to, &mut || attend(watch))?;
    let uri = json!({ "uri": "fd:state" });
    control.execute("migrate", uri, &mut || attend(watch))?;
    let (mut state, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        if !readable(&from, 50) {
            attend(watch)?;
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => state.extend_from_slice(&buffer[..length]),
            Err(error) => return Err(error.to_string().into()),
        }
    }
    finish(control, watch)?;
    Ok(state)
}

/// Has QEMU read its state; the machine is stopped as it was.
fn restore(
    control: &mut Monitor,
    watch: &mut Watch<'_>,
    from: OwnedFd,
) -> std::result::Result<(), Halt> {
    prepare(control, watch)?;
    control.give("state", from, &mut || attend(watch))?;
    let uri = json!({ "uri": "fd:state" });
    control.execute("migrate-incoming", uri, &mut || attend(watch))?;
    finish(control, watch)
}
