//! Whether a lab still does something: what its clock, its console and ours say of it.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::descriptors::readable;
use crate::error::{Error, Result};
use crate::machine::qemu::complaint::{self, Complaint};
use crate::machine::qemu::console::Console;
use crate::machine::qemu::lab::{Lab, SILENCE};
use crate::machine::qemu::silence::Silence;

/// How long a kernel may take to reach init, in QEMU's CPU time. It takes 10 s on a slow machine.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
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

/// Watches over a lab.
pub(super) struct Watch<'a> {
    /// QEMU's process.
    qemu: u32,
    pub(super) lab: &'a Lab,
    began: Instant,
    pub(super) silence: Silence,
    /// What it says besides its results.
    pub(super) console: Console,
    /// Where that comes from; nothing once it has ended.
    from: Option<File>,
    /// Whether it has said that its kernel runs.
    pub(super) booted: bool,
    /// When its kernel's complaint was first seen.
    complained: Option<Instant>,
}

impl<'a> Watch<'a> {
    /// Over a lab of this process that has the other end of `console`, and was begun then.
    pub(super) fn new(
        qemu: u32,
        lab: &'a Lab,
        began: Instant,
        silence: Silence,
        console: File,
    ) -> Watch<'a> {
        Watch {
            qemu,
            lab,
            began,
            silence,
            console: Console::default(),
            from: Some(console),
            booted: false,
            complained: None,
        }
    }

    /// Where the console can be read, while it is open.
    pub(super) fn console_file(&self) -> Option<&File> {
        self.from.as_ref()
    }

    /// Reads what there is of the console.
    pub(super) fn read_console(&mut self, buffer: &mut [u8]) {
        match self.from.as_mut().map(|from| from.read(buffer)) {
            Some(Ok(length)) if length > 0 => self.console.push(&buffer[..length]),
            _ => self.from = None,
        }
    }

    /// Reads the rest of the console of a QEMU that has ended: what it said last may still be in the pipe.
    pub(super) fn read_rest(&mut self, buffer: &mut [u8]) {
        while self.from.as_ref().is_some_and(|from| readable(from, 1000)) {
            self.read_console(buffer);
        }
    }

    /// Reads what there is of the console by now, and whether the lab may end so.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check_rest(&mut self, buffer: &mut [u8]) -> Result<()> {
        while self.from.as_ref().is_some_and(|from| readable(from, 0)) {
            self.read_console(buffer);
        }
        self.check_complaint()
    }

    /// What to say of a QEMU that has ended by itself, after [`Watch::read_rest`].
    pub(super) fn ended(&self) -> Error {
        let plugin = self.console.names_plugin();
        match (self.booted, plugin) {
            (false, true) => Error::PluginRefused {
                qemu: self.lab.qemu.version.clone(),
                said: self.console.tail(),
            },
            (false, false) => self.console.died("ended before its kernel reached init"),
            (true, _) => self.console.died("ended in the middle of its work"),
        }
    }

    /// Whether it may go on.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&mut self) -> Result<()> {
        if self.lab.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        self.check_time()?;
        self.check_complaint()
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
        if let (Some(said), true) = (self.console.plugins_complaint(), self.booted) {
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
        let booted = self.booted;
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
