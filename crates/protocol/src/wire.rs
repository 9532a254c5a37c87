//! How results come out of the lab: checksummed frames over a debug console port.
//!
//! The lab's init writes bytes to an I/O port that QEMU passes on as they are. A frame is the
//! four bytes `xpth`, a kind, a little-endian `u32` length, the payload, and the CRC-32 of kind,
//! length and payload. The last frame is [`Kind::Exit`]; a stream that ends before it comes from
//! a lab that died, and nothing in it is taken for a result.

use serde::{Deserialize, Serialize};

/// The I/O port that ends QEMU when something is written to it, on x86.
pub const EXIT_PORT: u16 = 0x501;

const MAGIC: [u8; 4] = *b"xpth";
const HEADER: usize = 9;
/// Largest payload of one frame, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 16;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A [`Hello`] as JSON: the kernel has booted and init runs.
    Hello,
    /// Bytes of the command's standard output.
    Stdout,
    /// Bytes of the command's standard error.
    Stderr,
    /// Bytes of the result file.
    Output,
    /// An [`Exit`] as JSON: the command has ended. The last frame.
    Exit,
    /// A [`Failure`] as JSON: init could not do its part. Also a last frame.
    Failure,
    /// A [`FileName`] as JSON: a file of a recording that a command made inside.
    File,
    /// Bytes of the file named last.
    FileBytes,
    /// A `KernelSays` of exitpath-host as JSON: what the kernel says of itself. One before
    /// the last frame; before the command where it runs in the host's root file system.
    Says,
}

impl Kind {
    const ALL: [(Kind, u8); 9] = [
        (Kind::Hello, 1),
        (Kind::Stdout, 2),
        (Kind::Stderr, 3),
        (Kind::Output, 4),
        (Kind::Exit, 5),
        (Kind::Failure, 6),
        (Kind::File, 7),
        (Kind::FileBytes, 8),
        (Kind::Says, 9),
    ];

    fn code(self) -> u8 {
        Kind::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or(0, |&(_, code)| code)
    }

    fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL
            .iter()
            .find(|(_, known)| *known == code)
            .map(|&(kind, _)| kind)
    }
}

/// The first frame's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `uname -r` in the lab.
    pub release: String,
    /// The kernel's command line.
    pub cmdline: String,
    /// CPUs online.
    pub cpus: u32,
    /// Modules loaded by init, in order.
    pub modules: Vec<String>,
    /// Modules the kernel did not take, with its reasons.
    pub refused: Vec<String>,
    /// Of these, the first that it did not take because of its parameters: the module and they.
    pub bad_parameters: Option<(String, String)>,
    /// Whether `/dev/kvm` can be opened.
    pub kvm: bool,
}

/// The last frame's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The command's exit status, 128 plus the signal where one killed it.
    pub status: i32,
    /// Bytes of the result file, so that one cut short is noticed.
    pub output_bytes: u64,
}

/// Which file comes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileName {
    /// The folder it is in, as the command saw it.
    pub folder: String,
    /// Its name there.
    pub name: String,
}

/// Why init gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it was about to do.
    pub stage: String,
    /// What went wrong.
    pub reason: String,
}

/// A whole and checked frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: Kind,
    /// The content.
    pub payload: Vec<u8>,
}

/// One frame as bytes.
///
/// # Panics
/// If the payload is larger than [`MAX_PAYLOAD`]; callers split.
pub fn encode(kind: Kind, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= MAX_PAYLOAD, "payload larger than a frame");
    let mut bytes = Vec::with_capacity(HEADER + payload.len() + 4);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(kind.code());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    let sum = crc32fast::hash(&bytes[MAGIC.len()..]);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Takes a byte stream apart, in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more bytes come.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words. The stream cannot be read any further then.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        if self.buffer.len() < HEADER {
            return Ok(None);
        }
        if self.buffer[..4] != MAGIC {
            return Err("bytes that are no frame".to_owned());
        }
        let kind = Kind::from_code(self.buffer[4])
            .ok_or_else(|| format!("a frame of unknown kind {}", self.buffer[4]))?;
        let length = u32::from_le_bytes(self.buffer[5..9].try_into().expect("four bytes")) as usize;
        if length > MAX_PAYLOAD {
            return Err(format!("a frame of {length} bytes"));
        }
        let end = HEADER + length;
        if self.buffer.len() < end + 4 {
            return Ok(None);
        }
        let sum = u32::from_le_bytes(self.buffer[end..end + 4].try_into().expect("four bytes"));
        if sum != crc32fast::hash(&self.buffer[4..end]) {
            return Err("a frame with a wrong checksum".to_owned());
        }
        let payload = self.buffer[HEADER..end].to_vec();
        self.buffer.drain(..end + 4);
        Ok(Some(Frame { kind, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], step: usize) -> Result<Vec<Frame>, String> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(step.max(1)) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
            step in 1usize..64,
        ) {
            let bytes: Vec<u8> =
                payloads.iter().flat_map(|payload| encode(Kind::Output, payload)).collect();
            let frames = decode(&bytes, step).expect("whole frames");
            let got: Vec<_> = frames.into_iter().map(|frame| frame.payload).collect();
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn a_flipped_bit_is_never_taken_for_a_frame(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            bit in any::<usize>(),
        ) {
            let mut bytes = encode(Kind::Stdout, &payload);
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let frames = decode(&bytes, 7).unwrap_or_default();
            prop_assert!(frames.is_empty(), "{frames:?}");
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes, 5);
        }
    }
}
