//! Noticing that a lab does nothing any more: it says nothing, while its clock runs on.
//!
//! An idle machine with counted time jumps from timer to timer: minutes of its time are seconds of
//! ours. So a lab that has gone minutes by its own clock without a word is not slow but dead. QEMU's
//! monitor tells that clock, as its machine's RTC follows it (`-rtc clock=vm`); the machine
//! itself does not notice that it is asked.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Asks for the RTC's time. The first command leaves negotiation, and is refused from then on.
const ASK: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"qom-get\",\"arguments\":\
{\"path\":\"/machine\",\"property\":\"rtc-time\"}}\n";
/// How long a lab may be silent in real time before its clock is looked at, and how often then.
const SHORT: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(500);
/// The former while the kernel boots, which takes seconds and says nothing.
const BOOT: Duration = Duration::from_secs(15);
/// Most bytes of an answer that has no end yet.
const LONGEST: usize = 1 << 20;

/// How long a lab has been silent, by its own clock.
pub(crate) struct Silence {
    monitor: UnixStream,
    input: Vec<u8>,
    /// When it last said something.
    heard: Instant,
    /// When its clock was last asked for.
    asked: Option<Instant>,
    /// What its clock said first since it was last heard.
    first: Option<i64>,
}

impl Silence {
    /// Of a lab whose QEMU has its monitor at the other end.
    pub(crate) fn new(monitor: UnixStream) -> std::io::Result<Silence> {
        monitor.set_nonblocking(true)?;
        Ok(Silence {
            monitor,
            input: Vec::new(),
            heard: Instant::now(),
            asked: None,
            first: None,
        })
    }

    /// The lab said something.
    pub(crate) fn broken(&mut self) {
        self.heard = Instant::now();
        self.first = None;
    }

    /// Seconds that have passed by the lab's clock without a word, as far as they are known. To be
    /// asked often: it does not wait for answers.
    pub(crate) fn seconds(&mut self, booted: bool) -> i64 {
        let long = if booted { SHORT } else { BOOT };
        if self.heard.elapsed() < long {
            return 0;
        }
        let asked_before = self.asked.is_some_and(|asked| asked > self.heard);
        let seconds = match self.clock() {
            // An answer to what was asked before the last word.
            Some(_) if !asked_before => 0,
            Some(now) => now - *self.first.get_or_insert(now),
            None => 0,
        };
        if self.asked.is_none_or(|asked| asked.elapsed() >= AGAIN) {
            self.asked = Some(Instant::now());
            // A monitor that does not take it has no say.
            let _ = self.monitor.write_all(ASK);
        }
        seconds
    }

    /// The last of the answers that have come.
    fn clock(&mut self) -> Option<i64> {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = self.monitor.read(&mut buffer) {
            self.input.extend_from_slice(&buffer[..length]);
        }
        let end = self.input.iter().rposition(|&byte| byte == b'\n');
        let Some(end) = end else {
            if self.input.len() > LONGEST {
                self.input.clear();
            }
            return None;
        };
        let lines: Vec<u8> = self.input.drain(..=end).collect();
        let mut answers = lines.split(|&byte| byte == b'\n').rev();
        answers.find_map(|line| time(&serde_json::from_slice(line).ok()?))
    }
}

/// Seconds since 1970 of an answer that is a time (`struct tm`).
fn time(answer: &Value) -> Option<i64> {
    let tm = &answer["return"];
    let field = |name: &str| tm[name].as_i64();
    let (year, month) = (field("tm_year")? + 1900, field("tm_mon")? + 1);
    let days = days(year, month, field("tm_mday")?);
    let hours = days * 24 + field("tm_hour")?;
    Some((hours * 60 + field("tm_min")?) * 60 + field("tm_sec")?)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the odd day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + leaps + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_from_the_monitors_answer() {
        let tm = |text: &str| time(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(
            tm(
                r#"{"return": {"tm_year": 126, "tm_sec": 34, "tm_hour": 0, "tm_min": 4, "tm_mon": 0, "tm_mday": 1}}"#
            ),
            Some(1_767_225_600 + 274)
        );
        assert_eq!(
            tm(
                r#"{"return": {"tm_year": 100, "tm_sec": 0, "tm_hour": 0, "tm_min": 0, "tm_mon": 2, "tm_mday": 1}}"#
            ),
            Some(951_868_800)
        );
        assert_eq!(tm(r#"{"return": {}}"#), None);
        assert_eq!(tm(r#"{"error": {"class": "CommandNotFound"}}"#), None);
    }

    #[test]
    fn silence_is_what_passed_by_the_labs_clock_since_its_last_word() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut silence = Silence::new(ours).expect("a socket");
        let mut says = |second: i64| {
            let answer = format!(
                "{{\"timestamp\": 0, \"event\": \"RTC_CHANGE\"}}\r\n{{\"return\": {{}}}}\r\n\
                 {{\"return\": {{\"tm_year\": 126, \"tm_mon\": 0, \"tm_mday\": 1, \"tm_hour\": 0, \
                 \"tm_min\": {}, \"tm_sec\": {}}}}}\r\n",
                second / 60,
                second % 60
            );
            theirs.write_all(answer.as_bytes()).expect("written");
        };
        says(1000);
        assert_eq!(silence.seconds(true), 0, "it was heard of just now");
        let past = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        silence.heard = past(60).expect("an hour of uptime");
        assert_eq!(silence.seconds(true), 0, "nothing was asked yet");
        says(1100);
        assert_eq!(silence.seconds(true), 0, "the first answer");
        says(1450);
        assert_eq!(silence.seconds(true), 350);
        assert_eq!(silence.seconds(true), 0, "no answer is no news");
        silence.broken();
        says(2000);
        assert_eq!(silence.seconds(true), 0, "it said something");
        silence.heard = past(10).expect("an hour of uptime");
        silence.asked = past(5);
        says(2001);
        assert_eq!(silence.seconds(true), 0);
        says(2400);
        assert_eq!(silence.seconds(false), 0, "a boot may take longer");
        assert_eq!(silence.seconds(true), 399);
    }
}
