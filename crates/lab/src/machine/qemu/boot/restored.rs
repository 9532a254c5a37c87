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
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use exitpath_lab_start::places::NOTHING;
use exitpath_protocol::job::Job;
use serde_json::{Value, json};

use super::process::{Fds, Guard, Phase, Work};
use super::stopped::{Said, set_clock};
use super::wait::{Wait, outcome};
use super::watch::{MOST_WAITED, Watch};
use crate::descriptors::{pipe, readable, sealed_file, sockets};
use crate::error::{Error, Result};
use crate::machine::qemu::lab::{Discard, Lab, Outcome, Sink};
use crate::machine::qemu::monitor::Monitor;
use crate::machine::qemu::plugin;
use crate::snapshot::{About, Key, Snapshot, Snapshots};

/// Files of QEMU's firmware that such a machine has.
const FIRMWARE: [&str; 4] = [
    "bios-256k.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "pvh.bin",
];
/// Where they are for a QEMU that is installed.
const INSTALLED: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// Snapshots of one lab that may turn out to be of no use.
const MOST_DISCARDED: u32 = 2;

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

/// A job that waits for its plan.
#[derive(Clone, Copy)]
pub(super) struct Waits<'a> {
    /// All that it is handed before.
    pub(super) handed: &'a [u8],
    /// See [`Plan::asides`](crate::machine::qemu::lab::Plan::asides).
    pub(super) asides: &'a [(&'static str, &'a [u8])],
}

/// Keeps a snapshot, and then lets go of its lock.
type Keep<'a> = dyn Fn(&Key, &Arc<Snapshot>, Option<File>) + 'a;

/// What a lab goes on with.
enum Kept {
    Machine(Arc<Snapshot>),
    /// Nothing: making it came to the end of the job.
    Ended(Box<Outcome>),
}

/// What became of a machine that was to stop itself.
enum Reached {
    Stop(Snapshot),
    /// It came to its end before.
    End(Box<Outcome>),
}

/// A machine that another QEMU goes on with.
struct Resumed<'a> {
    child: Guard,
    watch: Watch<'a>,
    control: Monitor,
    out: OwnedFd,
    stream: Option<OwnedFd>,
    stub: Option<UnixStream>,
}

impl Lab {
    /// Restores the machine, making what it is restored from if need be, and has it do its work. A job that waits for
    /// its plan is restored where it waits.
    pub(super) fn restored(
        &self,
        snapshots: &Snapshots,
        initramfs: &[u8],
        waits: Option<Waits<'_>>,
        work: &Work<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        let booted = self.key(snapshots, initramfs)?;
        let ready = waits.map(|waits| {
            let mut ready = booted.clone();
            ready.add_bytes("handed", waits.handed);
            ready
        });
        let mut discarded = 0;
        loop {
            let done = thread::scope(|scope| {
                let keep = |key: &Key, snapshot: &Arc<Snapshot>, lock: Option<File>| {
                    let (key, snapshot) = (key.clone(), snapshot.clone());
                    scope.spawn(move || {
                        snapshots.keep(&key, &snapshot, &self.about(snapshots, &snapshot));
                        drop(lock);
                    });
                };
                let boots = || {
                    self.kept(snapshots, &booted, &keep, || {
                        Ok(Reached::Stop(self.boot(initramfs)?))
                    })
                };
                let from = match &ready {
                    None => boots()?,
                    Some(ready) => self.kept(snapshots, ready, &keep, || {
                        let Kept::Machine(from) = boots()? else {
                            return Err(Error::Interrupted);
                        };
                        match self.prepare(&from, work, sink) {
                            Err(Error::Restore { why }) => {
                                snapshots.discard(&booted, &why);
                                Err(Error::Restore { why })
                            }
                            reached => reached,
                        }
                    })?,
                };
                let from = match from {
                    Kept::Machine(from) => from,
                    Kept::Ended(outcome) => return Ok(*outcome),
                };
                let (Some(waits), Some(key)) = (waits, &ready) else {
                    return self.go_on(&from, work, sink);
                };
                let aside = |&(name, plan)| {
                    let (from, key) = (from.clone(), key);
                    scope.spawn(move || self.aside(snapshots, key, &from, name, plan, work))
                };
                let asides: Vec<_> = waits.asides.iter().map(aside).collect();
                let mut outcome = self.go_on(&from, work, sink)?;
                for aside in asides {
                    let done = aside.join().map_err(|_| Error::Interrupted)?;
                    outcome.asides.push(done?);
                }
                Ok(outcome)
            });
            match done {
                // What was restored, and what that was made from.
                Err(Error::Restore { why }) if discarded < MOST_DISCARDED => {
                    discarded += 1;
                    snapshots.discard(ready.as_ref().unwrap_or(&booted), &why);
                }
                done => return done,
            }
        }
    }

    /// What comes of a plan that says what the machine is like, in a machine of its own if that is not known yet.
    fn aside(
        &self,
        snapshots: &Snapshots,
        key: &Key,
        from: &Snapshot,
        name: &str,
        plan: &[u8],
        work: &Work<'_>,
    ) -> Result<Vec<u8>> {
        if let Some(known) = snapshots.aside(key, name) {
            return Ok(known);
        }
        let alone = Lab {
            plugin: None,
            patches: None,
            ..self.clone()
        };
        let plan = &sealed_file("plan", plan)?;
        let outcome = alone.go_on(from, &Work { plan, ..*work }, &mut Discard)?;
        if outcome.status == 0 {
            snapshots.keep_aside(key, name, &outcome.output);
        }
        Ok(outcome.output)
    }

    /// The snapshot of this key, made if need be, by one at a time.
    fn kept(
        &self,
        snapshots: &Snapshots,
        key: &Key,
        keep: &Keep<'_>,
        make: impl FnOnce() -> Result<Reached>,
    ) -> Result<Kept> {
        if let Some(found) = snapshots.find(key) {
            return Ok(Kept::Machine(Arc::new(found)));
        }
        let lock = snapshots.lock(key, &self.interrupted)?;
        // Another one may have made it meanwhile.
        if let Some(found) = snapshots.find(key) {
            return Ok(Kept::Machine(Arc::new(found)));
        }
        match make()? {
            Reached::End(outcome) => Ok(Kept::Ended(outcome)),
            Reached::Stop(snapshot) => {
                let snapshot = Arc::new(snapshot);
                keep(key, &snapshot, lock);
                Ok(Kept::Machine(snapshot))
            }
        }
    }

    /// Everything that decides how the machine is once it has booted.
    fn key(&self, snapshots: &Snapshots, initramfs: &[u8]) -> Result<Key> {
        let mut key = Key::default();
        key.add("qemu", &self.qemu.version);
        key.add_installed(&self.qemu.path);
        let folders = match self.qemu.data_folders() {
            [] => INSTALLED.map(Path::new).to_vec(),
            own => own.iter().map(AsRef::as_ref).collect(),
        };
        for file in FIRMWARE {
            for folder in &folders {
                key.add_installed(&folder.join(file));
            }
        }
        let fds = Fds {
            memory: Some(0),
            ..Fds::default()
        };
        for argument in self.arguments(Phase::Boots, &Job::default(), &fds) {
            key.add("argument", &argument);
        }
        if self.cpu.features().any() {
            key.add_bytes("plugin", plugin::bytes(&self.qemu)?);
            key.add("supplied", &self.cpu.supplied.join(" "));
        }
        key.add_content("kernel", &self.kernel.path, snapshots.cache())?;
        key.add_bytes("initramfs", initramfs);
        Ok(key)
    }

    fn about(&self, snapshots: &Snapshots, snapshot: &Snapshot) -> About {
        About {
            kernel: snapshots.kernel().to_owned(),
            cmdline: self.cmdline.clone(),
            qemu: self.qemu.version.clone(),
            cpu: self.cpu.to_string(),
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            seed: self.seed,
            // One that waits for its plan has said that it is there.
            ready: !snapshot.said.is_empty(),
        }
    }

    /// Boots, until the machine stops itself.
    fn boot(&self, initramfs: &[u8]) -> Result<Snapshot> {
        let began = Instant::now();
        let bytes = u64::from(self.memory_mib) << 20;
        let memory = Snapshot::room(bytes)?;
        let image = sealed_file("initramfs", initramfs)?;
        let nothing = sealed_file("nothing", NOTHING)?;
        let alone = Lab {
            plugin: None,
            ..self.clone()
        };
        let work = Work {
            job: &Job::default(),
            payload: &nothing,
            plan: &nothing,
        };
        let (ours, mut theirs) = alone.ends(&work, &image, Some(&memory))?;
        let (control, qemu_control) = sockets()?;
        theirs.control = Some(qemu_control);
        let child = Guard {
            child: alone.spawn(Phase::Boots, work.job, theirs)?,
            _terminal: None,
        };
        let console = File::from(ours.console);
        let mut watch = Watch::new(child.child.0.id(), self, began, ours.silence, console);
        let mut control = Monitor::new(control);
        let mut said = Said::new(ours.out);
        let state =
            tell(&mut control, &mut watch).and_then(|()| save(&mut control, &mut watch, &mut said));
        let state = state.map_err(|halt| match halt {
            Halt::Lab(error) => error,
            Halt::Monitor(why) => gone(&mut watch, &control)
                .unwrap_or_else(|| watch.console.died(&format!("cannot be saved: {why}"))),
        })?;
        // QEMU has nothing to add.
        drop(child);
        Ok(Snapshot::new(memory, bytes, state, said.bytes))
    }

    /// Goes on where a machine was stopped, until it stops itself again because it waits for a plan.
    fn prepare(&self, from: &Snapshot, work: &Work<'_>, sink: &mut dyn Sink) -> Result<Reached> {
        let memory = from.copy_of_memory()?;
        let nothing = sealed_file("nothing", NOTHING)?;
        let alone = Lab {
            plugin: None,
            patches: None,
            ..self.clone()
        };
        let work = Work {
            plan: &nothing,
            ..*work
        };
        let mut resumed = alone.resume(Phase::Prepares, from, &memory, &work)?;
        resumed.go()?;
        let Resumed {
            child,
            mut watch,
            mut control,
            out,
            ..
        } = resumed;
        let mut said = Said::new(out);
        match save(&mut control, &mut watch, &mut said) {
            Ok(state) => {
                drop(child);
                let bytes = from.memory_bytes();
                Ok(Reached::Stop(Snapshot::new(
                    memory, bytes, state, said.bytes,
                )))
            }
            Err(Halt::Lab(error)) => Err(error),
            Err(Halt::Monitor(why)) => match gone(&mut watch, &control) {
                // What it said until then says why.
                Some(_) => {
                    said.take_in();
                    let wait = Wait::new(watch, sink, &said.bytes);
                    let ended = outcome(wait, said.from.into(), None, child)?;
                    Ok(Reached::End(Box::new(ended)))
                }
                None => Err(Error::Restore { why }),
            },
        }
    }

    /// Goes on where a machine was stopped, to its end.
    fn go_on(&self, from: &Snapshot, work: &Work<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
        let mut resumed = self.resume(Phase::Restored, from, &from.memory, work)?;
        let patcher = match self.patches.clone().zip(resumed.stub.take()) {
            // It lets the machine go.
            Some((patches, stub)) => Some(thread::spawn(move || patches.apply(stub, MOST_WAITED))),
            None => {
                resumed.go()?;
                None
            }
        };
        let mut wait = Wait::new(resumed.watch, sink, &from.said);
        wait.patcher = patcher;
        outcome(wait, resumed.out, resumed.stream, resumed.child)
    }

    /// A machine as it was stopped, in another QEMU.
    fn resume(
        &self,
        phase: Phase,
        from: &Snapshot,
        memory: &File,
        work: &Work<'_>,
    ) -> Result<Resumed<'_>> {
        let began = Instant::now();
        let checking = from.check()?;
        // What a kernel was started from is in its memory.
        let image = sealed_file("nothing", NOTHING)?;
        let (ours, mut theirs) = self.ends(work, &image, Some(memory))?;
        let (control, qemu_control) = sockets()?;
        let (stub, qemu_stub) = match &self.patches {
            Some(_) => Some(sockets()?),
            None => None,
        }
        .unzip();
        theirs.control = Some(qemu_control);
        theirs.stub = qemu_stub;
        let child = Guard {
            child: self.spawn(phase, work.job, theirs)?,
            _terminal: None,
        };
        let console = File::from(ours.console);
        let mut watch = Watch::new(child.child.0.id(), self, began, ours.silence, console);
        let mut control = Monitor::new(control);
        let (read, write) = pipe()?;
        let restored = thread::scope(|scope| {
            // One that does not read it any more says why itself.
            scope.spawn(|| File::from(write).write_all(&from.state));
            restore(&mut control, &mut watch, read)?;
            Ok(checking.finish()?)
        });
        match restored {
            Ok(()) => Ok(Resumed {
                child,
                watch,
                control,
                out: ours.out,
                stream: ours.stream,
                stub,
            }),
            Err(Halt::Lab(error)) => Err(error),
            Err(Halt::Monitor(why)) => Err(match gone(&mut watch, &control) {
                Some(refused @ Error::PluginRefused { .. }) => refused,
                Some(died) => Error::Restore {
                    why: died.to_string(),
                },
                None => Error::Restore { why },
            }),
        }
    }
}

impl Resumed<'_> {
    /// Lets the machine go.
    fn go(&mut self) -> Result<()> {
        let watch = &mut self.watch;
        match self
            .control
            .execute("cont", json!({}), &mut || attend(watch))
        {
            Ok(_) => Ok(()),
            Err(Halt::Lab(error)) => Err(error),
            Err(Halt::Monitor(why)) => Err(Error::Restore { why }),
        }
    }
}

/// What is done while a monitor is waited for.
fn attend(watch: &mut Watch<'_>) -> std::result::Result<(), Halt> {
    while watch
        .console_file()
        .is_some_and(|console| readable(console, 0))
    {
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
fn tell(control: &mut Monitor, watch: &mut Watch<'_>) -> std::result::Result<(), Halt> {
    let on = |name: &str| json!({ "capability": name, "state": true });
    let capabilities = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
    control.execute("qmp_capabilities", json!({}), &mut || attend(watch))?;
    control.execute("migrate-set-capabilities", capabilities, &mut || {
        attend(watch)
    })?;
    Ok(())
}

/// Waits until QEMU has written or read all of its state.
fn finish(control: &mut Monitor, watch: &mut Watch<'_>) -> std::result::Result<(), Halt> {
    let status = |event: &Value| {
        let is_of_it = event["event"] == "MIGRATION";
        let status = event["data"]["status"].as_str().filter(|_| is_of_it)?;
        ["completed", "failed"]
            .contains(&status)
            .then(|| status.to_owned())
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
    said: &mut Said,
) -> std::result::Result<Vec<u8>, Halt> {
    let stopped = |event: &Value| (event["event"] == "STOP").then_some(());
    control.event(stopped, &mut || {
        said.take_in();
        attend(watch)
    })?;
    let (from, to) = pipe()?;
    let mut from = File::from(from);
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
    said.take_in();
    let clock = said
        .clock()
        .ok_or_else(|| "it does not say its clock".to_owned())?;
    set_clock(&mut state, clock)?;
    Ok(state)
}

/// Has QEMU read its state; the machine is stopped as it was.
fn restore(
    control: &mut Monitor,
    watch: &mut Watch<'_>,
    from: OwnedFd,
) -> std::result::Result<(), Halt> {
    tell(control, watch)?;
    control.give("state", from, &mut || attend(watch))?;
    let uri = json!({ "uri": "fd:state" });
    control.execute("migrate-incoming", uri, &mut || attend(watch))?;
    finish(control, watch)
}
