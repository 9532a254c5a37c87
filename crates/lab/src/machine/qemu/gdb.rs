//! Overwriting a running kernel's code from outside, over QEMU's gdbstub.
//!
//! A client of the GDB remote serial protocol (GDB manual, appendix E) with the five packets that
//! this takes. The machine is stopped at a breakpoint meanwhile, so its virtual time does not pass.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::hex::hex;

/// Bytes to be replaced, once the program inside is about to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// What is patched, for messages.
    pub name: String,
    /// Virtual address in the kernel.
    pub address: u64,
    /// What has to be there now.
    pub old: Vec<u8>,
    /// What is there afterwards, as long as `old`.
    pub new: Vec<u8>,
}

impl Patch {
    /// What takes this one back.
    #[must_use]
    pub fn undone(&self) -> Patch {
        Patch {
            old: self.new.clone(),
            new: self.old.clone(),
            ..self.clone()
        }
    }
}

/// Patches, and when to apply them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patches {
    /// Virtual address of an instruction that the job executes as often as there are steps.
    pub breakpoint: u64,
    /// What to replace, in order, each time that it is reached.
    pub steps: Vec<Vec<Patch>>,
}

/// How long the stub may take to answer while the machine is stopped.
const ANSWER: Duration = Duration::from_secs(20);
/// Most bytes of an answer.
const LONGEST_ANSWER: usize = 1 << 16;

impl Patches {
    /// Lets the machine run up to the breakpoint, patches and checks, as often as there are steps, and lets it go.
    /// To reach the breakpoint it may take `most` each time.
    ///
    /// # Errors
    /// What went wrong, in words. A place that does not hold what it should is left as it is.
    pub(crate) fn apply(&self, stub: UnixStream, most: Duration) -> Result<(), String> {
        let mut client = Client {
            stub,
            until: Instant::now() + most.min(ANSWER),
            input: Vec::new(),
        };
        for (at, step) in self.steps.iter().enumerate() {
            if at > 0 {
                // Where the machine stands there is no breakpoint, or it would stop there for ever.
                client.go("s")?;
            }
            client.ask_ok(&format!("Z0,{:x},1", self.breakpoint))?;
            client.until = Instant::now() + most;
            client.go("c")?;
            client.until = Instant::now() + ANSWER;
            client.patch(step)?;
            client.ask_ok(&format!("z0,{:x},1", self.breakpoint))?;
        }
        client.ask_ok("D")
    }
}

struct Client {
    stub: UnixStream,
    until: Instant,
    /// Bytes received and not yet used.
    input: Vec<u8>,
}

impl Client {
    /// Lets the machine run, or go one instruction further, until it stops for that reason.
    fn go(&mut self, how: &str) -> Result<(), String> {
        self.send(how)?;
        let stopped = self.receive()?;
        match stopped.starts_with("T05") || stopped.starts_with("S05") {
            true => Ok(()),
            false => Err(format!("the machine stopped for another reason: {stopped}")),
        }
    }

    /// Replaces what these say, each checked before and after.
    fn patch(&mut self, patches: &[Patch]) -> Result<(), String> {
        for patch in patches {
            let found = self.read(patch)?;
            if found != patch.old {
                return Err(format!(
                    "{} has {} at {:#x} and not {}: left as it is",
                    patch.name,
                    hex(&found),
                    patch.address,
                    hex(&patch.old)
                ));
            }
            self.ask_ok(&format!(
                "M{:x},{:x}:{}",
                patch.address,
                patch.new.len(),
                hex(&patch.new)
            ))?;
            if self.read(patch)? != patch.new {
                return Err(format!("{} was not overwritten", patch.name));
            }
        }
        Ok(())
    }

    fn read(&mut self, patch: &Patch) -> Result<Vec<u8>, String> {
        self.send(&format!("m{:x},{:x}", patch.address, patch.old.len()))?;
        let answer = self.receive()?;
        unhex(&answer)
            .filter(|bytes| bytes.len() == patch.old.len())
            .ok_or_else(|| {
                format!(
                    "{} at {:#x} cannot be read: the stub says {answer}",
                    patch.name, patch.address
                )
            })
    }

    fn ask_ok(&mut self, packet: &str) -> Result<(), String> {
        self.send(packet)?;
        match self.receive()?.as_str() {
            "OK" => Ok(()),
            answer => Err(format!("QEMU's gdbstub answers {packet} with '{answer}'")),
        }
    }

    fn send(&mut self, packet: &str) -> Result<(), String> {
        let sum = checksum(packet.as_bytes());
        let framed = format!("${packet}#{sum:02x}");
        self.stub
            .write_all(framed.as_bytes())
            .map_err(|error| format!("QEMU's gdbstub does not take a packet: {error}"))
    }

    /// The next packet's content; acknowledgements are passed over.
    fn receive(&mut self) -> Result<String, String> {
        loop {
            if let Some(packet) = self.packet()? {
                let _ = self.stub.write_all(b"+");
                return Ok(packet);
            }
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("QEMU's gdbstub does not answer".to_owned());
            }
            // Not longer at a time, so that the end of the lab is noticed.
            let wait = left.min(Duration::from_millis(500));
            let mut buffer = [0; 4096];
            let read = self
                .stub
                .set_read_timeout(Some(wait))
                .and_then(|()| self.stub.read(&mut buffer));
            match read {
                Ok(0) => return Err("QEMU ended".to_owned()),
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock
                            | std::io::ErrorKind::TimedOut
                            | std::io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// A whole packet from the input, if there is one.
    fn packet(&mut self) -> Result<Option<String>, String> {
        let Some(start) = self.input.iter().position(|&byte| byte == b'$') else {
            self.input.clear();
            return Ok(None);
        };
        let Some(length) = self.input[start..].iter().position(|&byte| byte == b'#') else {
            if self.input.len() > LONGEST_ANSWER {
                return Err("QEMU's gdbstub sends no end of a packet".to_owned());
            }
            return Ok(None);
        };
        let end = start + length;
        let Some(sum) = self.input.get(end + 1..end + 3) else {
            return Ok(None);
        };
        let content = self.input[start + 1..end].to_vec();
        let sum = std::str::from_utf8(sum).ok();
        let sum = sum.and_then(|sum| u8::from_str_radix(sum, 16).ok());
        if sum != Some(checksum(&content)) {
            return Err("QEMU's gdbstub sent a packet with a wrong checksum".to_owned());
        }
        self.input.drain(..end + 3);
        Ok(Some(String::from_utf8_lossy(&content).into_owned()))
    }
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !text.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// A stub that says these answers, one for each packet.
    fn stub(answers: &'static [&'static str]) -> (UnixStream, thread::JoinHandle<Vec<String>>) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        let asked = thread::spawn(move || {
            let mut asked = Vec::new();
            let mut input: Vec<u8> = Vec::new();
            for answer in answers {
                let end = loop {
                    if let Some(end) = input.iter().position(|&byte| byte == b'#')
                        && input.len() >= end + 3
                    {
                        break end;
                    }
                    let mut buffer = [0; 64];
                    match theirs.read(&mut buffer) {
                        Ok(length) if length > 0 => input.extend_from_slice(&buffer[..length]),
                        _ => return asked,
                    }
                };
                let packet: Vec<u8> = input.drain(..end + 3).collect();
                let text = String::from_utf8_lossy(&packet).into_owned();
                asked.push(text.trim_start_matches('+').to_owned());
                let sum = checksum(answer.as_bytes());
                let _ = theirs.write_all(format!("+${answer}#{sum:02x}").as_bytes());
            }
            asked
        });
        (ours, asked)
    }

    fn patches() -> Patches {
        Patches {
            breakpoint: 0x40_1000,
            steps: vec![vec![patch()]],
        }
    }

    fn patch() -> Patch {
        Patch {
            name: "f".to_owned(),
            address: 0xffff_ffff_8100_0000,
            old: vec![0x0f, 0x1f],
            new: vec![0xc3, 0x90],
        }
    }

    /// Never waited for, however busy the machine.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn stops_checks_writes_checks_and_lets_go() {
        let (stream, asked) = stub(&["OK", "T05thread:01;", "0f1f", "OK", "c390", "OK", "OK"]);
        patches().apply(stream, LONG).expect("patched");
        let asked = asked.join().expect("the stub");
        let packets: Vec<&str> = asked
            .iter()
            .map(|packet| packet.split('#').next().unwrap_or(""))
            .collect();
        assert_eq!(
            packets,
            [
                "$Z0,401000,1",
                "$c",
                "$mffffffff81000000,2",
                "$Mffffffff81000000,2:c390",
                "$mffffffff81000000,2",
                "$z0,401000,1",
                "$D"
            ]
        );
    }

    #[test]
    fn each_step_is_at_another_arrival() {
        let (stream, asked) = stub(&[
            "OK", "T05", "0f1f", "OK", "c390", "OK", "T05", "OK", "T05", "c390", "OK", "0f1f",
            "OK", "OK",
        ]);
        let both = Patches {
            steps: vec![vec![patch()], vec![patch().undone()]],
            ..patches()
        };
        both.apply(stream, LONG).expect("patched");
        let asked = asked.join().expect("the stub");
        // A breakpoint where the machine stands would stop it there again.
        let first: Vec<&str> = asked[5..9].iter().map(|packet| &packet[..3]).collect();
        assert_eq!(first, ["$z0", "$s#", "$Z0", "$c#"]);
        let undone = "$Mffffffff81000000,2:0f1f";
        assert!(asked[10].starts_with(undone), "{asked:?}");
    }

    #[test]
    fn other_bytes_are_left_alone() {
        let (stream, asked) = stub(&["OK", "T05", "e8ff"]);
        let error = patches().apply(stream, LONG).expect_err("refused");
        assert!(error.contains("has e8ff"), "{error}");
        assert_eq!(asked.join().expect("the stub").len(), 3);
    }

    #[test]
    fn silence_errors_and_noise_end_in_words() {
        let (stream, _asked) = stub(&["E14"]);
        assert!(patches().apply(stream, LONG).is_err());
        let (stream, _open) = UnixStream::pair().expect("a pair of sockets");
        let error = patches()
            .apply(stream, Duration::ZERO)
            .expect_err("silence");
        assert!(error.contains("does not answer"), "{error}");
        let (stream, mut other) = UnixStream::pair().expect("a pair of sockets");
        other.write_all(b"$OK#00").expect("written");
        let error = patches().apply(stream, LONG).expect_err("noise");
        assert!(error.contains("checksum"), "{error}");
    }
}
