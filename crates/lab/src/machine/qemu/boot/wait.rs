//! Reading a running lab, from its start to its last frame.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use exitpath_host::KernelSays;
use exitpath_protocol::wire::{Decoder, Exit, Failure, FileName, Frame, Hello, Kind};

use crate::descriptors::readable;
use crate::error::{Error, Result};
use crate::machine::qemu::complaint::{self, Complaint};
use crate::machine::qemu::console::Console;
use crate::machine::qemu::lab::{Kept, Lab, SILENCE, Sink};
use crate::machine::qemu::silence::Silence;

/// How long a kernel may take to reach init, in QEMU's CPU time. It takes 10 s on a slow machine.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// Bytes of files that are taken out of a lab.
const MOST_KEPT: usize = 1 << 30;
/// How long a kernel may take to reach init where the machine gives QEMU hardly any time.
pub(super) const MOST_WAITED: Duration = Duration::from_secs(1800);
/// How long the rest of a complaint may take to come out.
const REST: Duration = Duration::from_secs(2);

/// The CPU time that a process has used, where it says so (proc(5), `stat`).
fn cpu_time(process: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // SAFETY: a plain library call.
    let in_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    ticks(&stat)?
        .checked_mul(1000)?
        .checked_div(in_second)
        .map(Duration::from_millis)
}

/// User and system time in such a line, in clock ticks: fields 14 and 15. The second is the process's name,
/// in which anything may stand.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    field()?.checked_add(field()?)
}

/// Reads a running lab until its last frame.
pub(super) struct Wait<'a> {
    /// QEMU's process.
    pub(super) qemu: u32,
    pub(super) lab: &'a Lab,
    pub(super) began: Instant,
    pub(super) decoder: Decoder,
    pub(super) console: Console,
    pub(super) hello: Option<Hello>,
    pub(super) says: Option<KernelSays>,
    pub(super) output: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) kept: Vec<Kept>,
    pub(super) sink: &'a mut dyn Sink,
    pub(super) silence: Silence,
    /// When its kernel's complaint was first seen.
    pub(super) complained: Option<Instant>,
    /// Patches the kernel; gone once it has.
    pub(super) patcher: Option<JoinHandle<std::result::Result<(), String>>>,
}

impl Wait<'_> {
    pub(super) fn until_exit(
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
                            None if self.console.names_plugin() => {
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
                    // What the plugin wrote before the last frame is in the pipes by now.
                    while console_open && readable(&console, 0) {
                        match console.read(&mut buffer) {
                            Ok(0) | Err(_) => console_open = false,
                            Ok(length) => self.console.push(&buffer[..length]),
                        }
                    }
                    self.check_complaint()?;
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
        if let (Some(said), Some(_)) = (self.console.plugins_complaint(), &self.hello) {
            return Err(Error::Assists { said });
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
        // A busy machine may give QEMU little of its time, which is not the kernel's fault.
        let is_late =
            || passed > MOST_WAITED || cpu_time(self.qemu).is_none_or(|used| used > BOOT_LIMIT);
        if !booted && passed > BOOT_LIMIT && is_late() {
            return Err(self.console.died(&format!(
                "has not booted its kernel within {} s of its CPU's time, or {} s in all",
                BOOT_LIMIT.as_secs(),
                MOST_WAITED.as_secs()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let line = "4711 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0";
        assert_eq!(ticks(line), Some(300));
        assert_eq!(ticks("4711 (short) S 1"), None);
        assert_eq!(ticks(""), None);
        let own = cpu_time(std::process::id()).expect("this process");
        assert!(own < Duration::from_secs(3600));
        assert_eq!(cpu_time(0), None);
    }
}
