//! Reading a running lab, from its start to its last frame.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::JoinHandle;

use exitpath_host::KernelSays;
use exitpath_protocol::wire::{Decoder, Exit, Failure, FileName, Frame, Hello, Kind};

use super::process::Guard;
use super::watch::Watch;
use crate::descriptors::readable;
use crate::error::{Error, Result};
use crate::machine::qemu::console::Console;
use crate::machine::qemu::lab::{Kept, Outcome, Sink};

/// Bytes of files that are taken out of a lab.
const MOST_KEPT: usize = 1 << 30;

/// Reads a running lab until its last frame.
pub(super) struct Wait<'a> {
    pub(super) watch: Watch<'a>,
    pub(super) decoder: Decoder,
    pub(super) hello: Option<Hello>,
    pub(super) says: Option<KernelSays>,
    pub(super) output: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) kept: Vec<Kept>,
    pub(super) sink: &'a mut dyn Sink,
    /// Patches the kernel; gone once it has.
    pub(super) patcher: Option<JoinHandle<std::result::Result<(), String>>>,
}

impl<'a> Wait<'a> {
    /// For a lab that has said this so far.
    pub(super) fn new(watch: Watch<'a>, sink: &'a mut dyn Sink, said: &[u8]) -> Wait<'a> {
        let mut decoder = Decoder::default();
        decoder.push(said);
        Wait {
            watch,
            decoder,
            hello: None,
            says: None,
            output: Vec::new(),
            stderr: Vec::new(),
            kept: Vec::new(),
            sink,
            patcher: None,
        }
    }

    pub(super) fn until_exit(&mut self, out: OwnedFd, stream: Option<OwnedFd>) -> Result<Exit> {
        let mut out = File::from(out);
        let mut stream = stream.map(File::from);
        let mut buffer = vec![0; 1 << 16];
        loop {
            if let Some(exit) = self.frames()? {
                self.check_patcher()?;
                if self.patcher.is_some() {
                    return Err(Error::Patch {
                        why: "the job was over before the breakpoint was reached".to_owned(),
                    });
                }
                // What the plugin wrote before the last frame is in the pipes by now.
                self.watch.check_rest(&mut buffer)?;
                while stream.as_ref().is_some_and(|stream| readable(stream, 0)) {
                    self.instructions(&mut stream, &mut buffer)?;
                }
                return Ok(exit);
            }
            self.watch.check()?;
            self.check_patcher()?;
            let fd = |file: Option<&File>| libc::pollfd {
                fd: file.map_or(-1, AsRawFd::as_raw_fd),
                events: libc::POLLIN,
                revents: 0,
            };
            let mut fds = [
                fd(Some(&out)),
                fd(self.watch.console_file()),
                fd(stream.as_ref()),
            ];
            // SAFETY: the array is valid for its three entries; negative descriptors are ignored.
            unsafe { libc::poll(fds.as_mut_ptr(), 3, 100) };
            if fds[2].revents != 0 {
                self.instructions(&mut stream, &mut buffer)?;
            }
            if fds[1].revents != 0 {
                self.watch.read_console(&mut buffer);
            }
            if fds[0].revents != 0 {
                match out.read(&mut buffer) {
                    Ok(length) if length > 0 => {
                        self.watch.silence.broken();
                        self.decoder.push(&buffer[..length]);
                    }
                    _ => {
                        self.watch.read_rest(&mut buffer);
                        return Err(self.watch.ended());
                    }
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

    fn frames(&mut self) -> Result<Option<Exit>> {
        loop {
            let frame = self
                .decoder
                .next_frame()
                .map_err(|what| self.watch.console.died(&format!("sent {what}")))?;
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
                    self.watch.booted = true;
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
                        Some(_) => {
                            return Err(self.watch.console.died("sent more than a gigabyte"));
                        }
                        None => return Err(self.watch.console.died("sent bytes of no file")),
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
            self.watch
                .console
                .died(&format!("sent a frame that is no {error}"))
        })
    }
}

/// Waits for the end of a lab, and says what came of it.
pub(super) fn outcome(
    mut wait: Wait<'_>,
    out: OwnedFd,
    stream: Option<OwnedFd>,
    mut child: Guard,
) -> Result<Outcome> {
    let exit = wait.until_exit(out, stream)?;
    child.end_by_itself();
    let (Some(hello), Some(says)) = (wait.hello, wait.says) else {
        let console = wait.watch.console;
        return Err(console.died("sent its results without having said what booted"));
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
        asides: Vec::new(),
    })
}
