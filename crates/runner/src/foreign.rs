//! Another VMM as a command: started, read within limits, and ended with all that it started.

use std::fmt;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Most bytes that are kept of what a VMM complains.
const MOST_ERRORS: usize = 1 << 20;
/// Pieces that wait to be looked at.
const MOST_PIECES: usize = 1024;
/// How long one that has said all may take to end by itself.
const GRACE: Duration = Duration::from_millis(500);
/// Bytes at the end of what it said in which its last word is looked for.
const TAIL: usize = 1024;
/// Bytes read at once.
const PIECE: usize = 4096;
/// How often the limits are looked at.
const TURN: Duration = Duration::from_millis(20);

/// How long a VMM may take, and how much it may say.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For all of it.
    pub total: Duration,
    /// Until the first byte on its standard output: firmware may have to run before the guest.
    pub first: Duration,
    /// Without a byte since the last one.
    pub silence: Duration,
    /// Bytes on its standard output.
    pub text: usize,
    /// Whether it has said all it has to, by the end of what it said. One that goes on then (a
    /// reset makes some VMMs boot again) is ended, as one that ended by itself.
    pub is_whole: fn(&str) -> bool,
}

/// Why a VMM did not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// It took longer than this.
    TooLong(Duration),
    /// It printed nothing for this long.
    Silent(Duration),
    /// It printed more than so many bytes.
    TooMuch(usize),
    /// A signal ended it.
    Signal(i32),
    /// The user wants no more of it.
    Interrupted,
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Termination::TooLong(limit) => write!(f, "it ran for more than {} s", limit.as_secs()),
            Termination::Silent(limit) => write!(f, "it printed nothing for {} s", limit.as_secs()),
            Termination::TooMuch(bytes) => write!(f, "it printed more than {bytes} bytes"),
            Termination::Signal(signal) => write!(f, "signal {signal} ended it"),
            Termination::Interrupted => f.write_str("it was interrupted"),
        }
    }
}

/// What a VMM said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its standard output: the guest's serial port.
    pub text: String,
    /// Its standard error.
    pub errors: String,
    /// How it ended, where that was not by itself.
    pub ended: Option<Termination>,
    /// `/proc/PID/maps` at its first word.
    pub maps: String,
}

/// A process and all of its group, which ends when this is dropped; and whether it has.
struct ProcessGroup {
    leader: Child,
    ended: bool,
}

impl ProcessGroup {
    /// Ends what is left of it; the first process's status is its own where it had ended.
    fn end(&mut self) -> Option<ExitStatus> {
        self.ended = true;
        let group = self.leader.id() as libc::pid_t;
        // SAFETY: a plain system call. The child leads this group and is not waited for before, so
        // that the number is nobody else's.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        self.leader.wait().ok()
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // Once waited for, its number may be another's.
        if !self.ended {
            self.end();
        }
    }
}

/// Starts a command and waits for its end, or ends it with all of its process group.
///
/// # Errors
/// [`Error::NoWords`], [`Error::Start`].
pub fn run(argv: &[String], limits: &Limits, interrupted: &AtomicBool) -> Result<Said> {
    let (program, arguments) = argv.split_first().ok_or(Error::NoWords)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let parent = std::process::id();
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(move || end_with(parent)) };
    let child = command.spawn().map_err(|cause| Error::Start {
        program: program.clone(),
        cause,
    })?;
    let mut group = ProcessGroup {
        leader: child,
        ended: false,
    };
    let out = pieces(group.leader.stdout.take());
    let err = pieces(group.leader.stderr.take());
    let begun = Instant::now();
    let mut heard = begun;
    let (mut text, mut errors, mut maps) = (Vec::new(), Vec::new(), String::new());
    let mut closed = false;
    let mut whole: Option<Instant> = None;
    let ended = loop {
        match out.recv_timeout(TURN) {
            Ok(bytes) => {
                heard = Instant::now();
                text.extend(bytes);
                if whole.is_none() {
                    let tail = &text[text.len().saturating_sub(TAIL)..];
                    whole = (limits.is_whole)(&String::from_utf8_lossy(tail)).then_some(heard);
                }
                // At its first word all its libraries are there; at its last one they may be gone.
                if maps.is_empty() {
                    let of_child = format!("/proc/{}/maps", group.leader.id());
                    maps = std::fs::read_to_string(of_child).unwrap_or_default();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                closed = true;
                // One that has closed its output may still run.
                thread::sleep(TURN);
            }
        }
        keep(&mut errors, &err);
        if whole.is_some_and(|said| said.elapsed() > GRACE) {
            break None;
        }
        if text.len() > limits.text {
            break Some(Termination::TooMuch(limits.text));
        }
        if interrupted.load(Ordering::Relaxed) {
            break Some(Termination::Interrupted);
        }
        if begun.elapsed() > limits.total {
            break Some(Termination::TooLong(limits.total));
        }
        let silence = if text.is_empty() {
            limits.first
        } else {
            limits.silence
        };
        if heard.elapsed() > silence {
            break Some(Termination::Silent(silence));
        }
        if closed && has_ended(&group.leader) {
            break None;
        }
    };
    let status = group.end();
    // Where the guest said all, the VMM's own status means nothing: isa-debug-exit sets it, and one
    // that went on was ended here.
    let ended = ended.or_else(|| match whole {
        Some(_) => None,
        None => status?.signal().map(Termination::Signal),
    });
    // What the group had still in its pipes. A process that has left the group may hold them open.
    let until = Instant::now() + GRACE;
    while let Ok(bytes) = err.recv_timeout(TURN) {
        if errors.len() < MOST_ERRORS {
            errors.extend(bytes);
        }
        if Instant::now() > until {
            break;
        }
    }
    Ok(Said {
        text: String::from_utf8_lossy(&text).into_owned(),
        errors: String::from_utf8_lossy(&errors).into_owned(),
        ended,
        maps,
    })
}

/// Makes the calling process end with its parent, however that ends. What it starts itself ends with its
/// group, where the parent is left to end it.
///
/// # Errors
/// The kernel's refusal; ESRCH where the parent has ended already, of which the kernel says nothing any more.
fn end_with(parent: u32) -> std::io::Result<()> {
    // SAFETY: neither call has preconditions.
    let (asked, now) = unsafe {
        let asked = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        (asked, libc::getppid())
    };
    if asked != 0 {
        return Err(std::io::Error::last_os_error());
    }
    if u32::try_from(now) != Ok(parent) {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// Whether a child has ended, without taking its number from it.
fn has_ended(child: &Child) -> bool {
    // SAFETY: all zeroes is a valid siginfo_t, and the call only writes into it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` outlives the call; the child is this process's and was not waited for.
    let done = unsafe { libc::waitid(libc::P_PID, child.id(), &mut info, flags) };
    // SAFETY: the call has filled it in, or it is still zero.
    done != 0 || unsafe { info.si_pid() } != 0
}

/// Takes what there is of a complaint, so that nobody who complains has to wait.
fn keep(errors: &mut Vec<u8>, err: &Receiver<Vec<u8>>) {
    for bytes in err.try_iter().take(MOST_PIECES) {
        if errors.len() < MOST_ERRORS {
            errors.extend(bytes);
        }
    }
}

/// What a pipe brings, as it comes; at most [`MOST_PIECES`] of it wait.
fn pieces(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::sync_channel(MOST_PIECES);
    thread::spawn(move || {
        let mut buffer = [0; PIECE];
        let Some(mut pipe) = pipe else { return };
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if send.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receive
}

/// How a VMM ended where that was not by itself, and the last it complained of; a message's end.
pub fn how_it_ended(ended: Option<&str>, errors: &str) -> String {
    let mut lines = errors.lines().map(str::trim);
    let complaint = lines.rfind(|line| !line.is_empty());
    let ended = ended.map(|ended| format!("; {ended}"));
    let complaint = complaint.map(|line| format!("; the VMM says: {line}"));
    ended.unwrap_or_default() + &complaint.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits that no test waits for, but for a silence after a word: a busy machine may take long to
    /// the first one.
    fn shell(script: &str, silence_ms: u64) -> Said {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let limits = Limits {
            total: Duration::from_secs(120),
            first: Duration::from_secs(60),
            silence: Duration::from_millis(silence_ms),
            text: 1 << 20,
            is_whole: |tail| tail.contains("bye\n"),
        };
        run(&argv, &limits, &AtomicBool::new(false)).expect("a shell")
    }

    #[test]
    fn what_it_said_is_kept_and_how_it_ended() {
        let said = shell("echo one; echo two >&2; exit 33", 60_000);
        assert_eq!((said.text.as_str(), said.ended), ("one\n", None));
        assert_eq!(said.errors, "two\n");
        let said = shell("kill -9 $$", 60_000);
        assert_eq!(said.ended, Some(Termination::Signal(9)));
        let said = shell("yes", 60_000);
        assert_eq!(said.ended, Some(Termination::TooMuch(1 << 20)));
    }

    #[test]
    fn one_whose_parent_has_ended_already_does_not_begin() {
        let spawn = |parent| {
            let mut command = Command::new("true");
            // SAFETY: the closure makes system calls only.
            unsafe { command.pre_exec(move || end_with(parent)) };
            command.status()
        };
        assert!(spawn(std::process::id()).expect("it begins").success());
        let refused = spawn(u32::MAX).expect_err("its parent is another");
        assert_eq!(refused.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn one_that_has_said_all_is_ended_without_a_complaint() {
        // Its end is neither a limit nor its own: it has none.
        let said = shell("echo bye; while :; do echo again; sleep 0.1; done", 60_000);
        assert_eq!(said.ended, None);
        assert!(said.text.starts_with("bye\n"), "{}", said.text);
    }

    #[test]
    fn one_that_leaves_its_group_and_complains_for_ever_is_not_waited_for() {
        // What left the group ends by itself, as its pipe has no reader. Its word on stdout comes after
        // its first complaint.
        let script = "setsid sh -c 'echo complaint >&2; echo word; exec >&-; \
                      while echo complaint >&2; do sleep 0.01; done' & sleep 1000";
        let said = shell(script, 300);
        assert!(matches!(said.ended, Some(Termination::Silent(_))));
        assert!(said.errors.contains("complaint"));
    }

    #[test]
    fn one_that_says_nothing_is_ended_with_all_it_started() {
        let said = shell("sleep 1000 & echo $!; wait", 300);
        assert!(matches!(said.ended, Some(Termination::Silent(_))));
        let started = said.text.trim();
        // Gone, or a zombie that nobody has waited for yet; a killed process may take a moment.
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{started}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        let begun = Instant::now();
        while !is_gone() && begun.elapsed() < Duration::from_secs(20) {
            thread::sleep(TURN);
        }
        assert!(is_gone(), "{started} goes on");
    }
}
