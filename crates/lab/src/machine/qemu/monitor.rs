//! QEMU's monitor: commands and their answers, as JSON (QMP).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long an answer may take. QEMU gives it at once; a busy machine may not give QEMU its time.
const MOST_WAITED: Duration = Duration::from_secs(60);

/// A monitor that has left negotiation.
pub(crate) struct Monitor {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Monitor {
    /// Of a QEMU that has its monitor at the other end.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Monitor> {
        stream.set_read_timeout(Some(MOST_WAITED))?;
        let mut monitor = Monitor {
            stream,
            input: Vec::new(),
        };
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Executes a command. What QEMU refuses is an error with its words.
    pub(crate) fn ask(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.stream.write_all(format!("{line}\n").as_bytes())?;
        let began = Instant::now();
        loop {
            let mut said = self.line()?;
            if let Some(answer) = said.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = said.get("error") {
                let words = error["desc"].as_str().unwrap_or("no reason");
                return Err(io::Error::other(words.to_owned()));
            }
            // A greeting, or an event.
            if began.elapsed() > MOST_WAITED {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn line(&mut self) -> io::Result<Value> {
        loop {
            if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.input.extend_from_slice(&buffer[..length]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_greetings_events_and_refusals() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        let said = "{\"QMP\": {}}\r\n{\"return\": {}}\r\n{\"event\": \"STOP\"}\r\n{\"return\": [1, 2]}\r\n\
                    {\"error\": {\"class\": \"GenericError\", \"desc\": \"no such property\"}}\r\n";
        theirs.write_all(said.as_bytes()).expect("written");
        let mut monitor = Monitor::new(ours).expect("a monitor");
        let answer = monitor
            .ask("query-cpus-fast", &json!({}))
            .expect("an answer");
        assert_eq!(answer, json!([1, 2]));
        let refused = monitor.ask("qom-get", &json!({})).expect_err("refused");
        assert_eq!(refused.to_string(), "no such property");
        drop(theirs);
        assert!(monitor.ask("quit", &json!({})).is_err());
    }
}
