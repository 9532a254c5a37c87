//! The plugin's stream: what the encoder writes is what the decoder and the collector make of it,
//! and no bytes are taken for more than they are.

mod decoder;
mod windows;

use exitpath_lab_plugin::stream::{Encoder, HEADER, Unread};

/// A stream being made.
#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) encoder: Encoder,
    pub(crate) bytes: Vec<u8>,
}

impl Stream {
    pub(crate) fn new() -> Stream {
        Stream {
            encoder: Encoder::default(),
            bytes: HEADER.to_vec(),
        }
    }

    pub(crate) fn define(&mut self, address: u64, code: &[u8]) -> u32 {
        self.encoder
            .define(address, code, &mut self.bytes)
            .expect("an instruction")
    }

    pub(crate) fn execute(&mut self, cpu: u32, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            self.encoder.instruction(cpu, id, &mut self.bytes);
        }
    }

    pub(crate) fn exit(&mut self, reason: Result<[u64; 3], Unread>) {
        match reason {
            Ok(reason) => self.encoder.exit(reason, &mut self.bytes),
            Err(why) => self.encoder.unread(why, &mut self.bytes),
        }
    }

    pub(crate) fn start(&mut self) {
        self.encoder.start(&mut self.bytes);
    }

    pub(crate) fn stop(&mut self) {
        self.encoder.stop(0, &mut self.bytes);
    }
}
