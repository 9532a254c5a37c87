//! QEMU's monitor (QMP): what is asked of it, and what it tells by itself.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::descriptors::send_with;

/// Longest that a single look for input waits, so that others have their turn.
const TURN: Duration = Duration::from_millis(50);
/// Most bytes of a line that has no end yet.
const LONGEST: usize = 1 << 20;

/// A monitor whose QEMU is at the other end.
pub(crate) struct Monitor {
    stream: UnixStream,
    input: Vec<u8>,
    /// Events that nobody has asked for yet.
    events: Vec<Value>,
    ended: bool,
}

impl Monitor {
    pub(crate) fn new(stream: UnixStream) -> Monitor {
        Monitor {
            stream,
            input: Vec::new(),
            events: Vec::new(),
            ended: false,
        }
    }

    /// Whether its QEMU has ended, as far as that was noticed.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Asks for something and waits for the answer. `meanwhile` is called again and again, and its error ends
    /// the wait.
    ///
    /// # Errors
    /// That of `meanwhile`; in words, what QEMU refuses, or that it has ended.
    pub(crate) fn execute<E: From<String>>(
        &mut self,
        command: &str,
        arguments: Value,
        meanwhile: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Value, E> {
        let mut asked = json!({ "execute": command, "arguments": arguments }).to_string();
        asked.push('\n');
        let sent = self.stream.write_all(asked.as_bytes());
        self.answer(command, sent, meanwhile)
    }

    /// Gives QEMU a descriptor that it knows by this name from then on.
    ///
    /// # Errors
    /// As [`Monitor::execute`].
    pub(crate) fn give<E: From<String>>(
        &mut self,
        name: &str,
        fd: OwnedFd,
        meanwhile: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let arguments = json!({ "fdname": name });
        let mut asked = json!({ "execute": "getfd", "arguments": arguments }).to_string();
        asked.push('\n');
        let sent = send_with(&self.stream, asked.as_bytes(), &fd);
        self.answer("getfd", sent, meanwhile).map(drop)
    }

    /// Waits for the answer to a command.
    fn answer<E: From<String>>(
        &mut self,
        command: &str,
        sent: std::io::Result<()>,
        meanwhile: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Value, E> {
        if let Err(error) = sent {
            self.ended |= error.kind() == ErrorKind::BrokenPipe;
            return Err(format!("{command} cannot be asked for: {error}").into());
        }
        loop {
            meanwhile()?;
            let Some(line) = self.line()? else {
                continue;
            };
            if let Some(answer) = line.get("return") {
                return Ok(answer.clone());
            }
            if let Some(error) = line.get("error") {
                let why = error["desc"].as_str().unwrap_or("without a reason");
                return Err(format!("{command} is refused: {why}").into());
            }
            self.keep(line);
        }
    }

    /// Waits for an event that `wanted` makes something of.
    ///
    /// # Errors
    /// That of `meanwhile`, or that QEMU has ended.
    pub(crate) fn event<T, E: From<String>>(
        &mut self,
        wanted: impl Fn(&Value) -> Option<T>,
        meanwhile: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<T, E> {
        loop {
            if let Some(found) = self.told(&wanted) {
                return Ok(found);
            }
            meanwhile()?;
            if let Some(line) = self.line()? {
                self.keep(line);
            }
        }
    }

    /// An event that has come and that `wanted` makes something of. Those before it are forgotten.
    fn told<T>(&mut self, wanted: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let found =
            (self.events.iter().enumerate()).find_map(|(at, event)| Some((at, wanted(event)?)));
        let (at, found) = found?;
        self.events.drain(..=at);
        Some(found)
    }

    fn keep(&mut self, line: Value) {
        if line.get("event").is_some() {
            self.events.push(line);
        }
    }

    /// The next line; `None` where none comes in its turn.
    fn line(&mut self) -> Result<Option<Value>, String> {
        loop {
            if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                if let Ok(line) = serde_json::from_slice(&line) {
                    return Ok(Some(line));
                }
                continue;
            }
            if self.input.len() > LONGEST {
                return Err("its monitor says too much".to_owned());
            }
            let wait = self.stream.set_read_timeout(Some(TURN));
            let mut buffer = [0; 4096];
            match wait.and_then(|()| self.stream.read(&mut buffer)) {
                Ok(0) => {
                    self.ended = true;
                    return Err("it ended".to_owned());
                }
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(None),
                    ErrorKind::Interrupted => {}
                    // It had not read all that it was asked.
                    ErrorKind::ConnectionReset => {
                        self.ended = true;
                        return Err("it ended".to_owned());
                    }
                    _ => return Err(error.to_string()),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Monitor, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        (Monitor::new(ours), theirs)
    }

    fn no_hurry() -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn answers_are_told_from_events() {
        let (mut monitor, mut theirs) = pair();
        let says = b"{\"QMP\": {}}\r\n{\"event\": \"STOP\"}\r\n{\"return\": {\"a\": 1}}\r\n{\"event\": \"RESUME\"}\r\n";
        theirs.write_all(says).expect("written");
        let answer = monitor.execute("query", json!({}), &mut no_hurry);
        assert_eq!(answer, Ok(json!({"a": 1})));
        let name = |event: &Value| Some(event["event"].as_str()?.to_owned());
        assert_eq!(monitor.event(name, &mut no_hurry), Ok("STOP".to_owned()));
        assert_eq!(monitor.told(name), None);
        assert_eq!(monitor.event(name, &mut no_hurry), Ok("RESUME".to_owned()));
    }

    #[test]
    fn refusals_and_the_end_are_errors_in_words() {
        let (mut monitor, mut theirs) = pair();
        let says = b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n";
        theirs.write_all(says).expect("written");
        let refused = monitor.execute("cont", json!({}), &mut no_hurry);
        assert_eq!(refused, Err("cont is refused: not now".to_owned()));
        let bored = monitor.event(|_| Some(()), &mut || Err("long enough".to_owned()));
        assert_eq!(bored, Err("long enough".to_owned()));
        drop(theirs);
        let ended = monitor.event(|_| Some(()), &mut no_hurry);
        assert_eq!(ended, Err("it ended".to_owned()));
        assert!(monitor.has_ended());
    }
}
