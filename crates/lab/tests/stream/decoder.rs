//! The decoder alone.

use exitpath_lab::stream::{Decoder, Record};
use exitpath_lab_plugin::stream::Unread;
use proptest::prelude::*;

use crate::Stream;

/// What a stream says, with runs taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    defined: Vec<(u64, Vec<u8>)>,
    /// Windows of CPU and id.
    windows: Vec<Vec<(u32, u32)>>,
    exits: Vec<Result<[u64; 3], Unread>>,
}

fn decode(bytes: &[u8], step: usize) -> Result<(Said, (u64, bool)), String> {
    let mut decoder = Decoder::default();
    let mut said = Said::default();
    for piece in bytes.chunks(step.max(1)) {
        decoder.push(piece, |record| {
            match record {
                Record::Define { address, bytes } => said.defined.push((address, bytes.to_vec())),
                Record::Start => said.windows.push(Vec::new()),
                Record::Stop => {}
                Record::Exit { code, info1, info2 } => said.exits.push(Ok([code, info1, info2])),
                Record::Unread(why) => said.exits.push(Err(why)),
                Record::Run { cpu, first, count } => {
                    let window = said.windows.last_mut().expect("runs are in windows");
                    window.extend((first..first + count).map(|id| (cpu, id)));
                }
            }
            Ok(())
        })?;
    }
    Ok((said, decoder.windows()))
}

prop_compose! {
    /// A stream and what it says.
    fn stream()(
        code in prop::collection::vec(
            (any::<u64>(), prop::collection::vec(any::<u8>(), 1..=15)), 1..40),
        windows in prop::collection::vec(
            prop::collection::vec((0u32..3, any::<u32>()), 0..200), 0..4),
        exits in prop::collection::vec(
            prop_oneof![
                any::<[u64; 3]>().prop_map(Ok),
                prop::sample::select(&Unread::ALL[..]).prop_map(Err),
            ], 0..20),
    ) -> (Vec<u8>, Said) {
        let mut stream = Stream::new();
        for (address, bytes) in &code {
            stream.define(*address, bytes);
        }
        let ids = code.len() as u32;
        let windows: Vec<Vec<(u32, u32)>> = windows
            .into_iter()
            .map(|window| window.into_iter().map(|(cpu, id)| (cpu, id % ids)).collect())
            .collect();
        let mut exits_to_come = exits.iter();
        for window in &windows {
            stream.start();
            for &(cpu, id) in window {
                stream.execute(cpu, [id]);
                // Some behind the first instructions, the others behind the last.
                if let Some(exit) = exits_to_come.next() {
                    stream.exit(*exit);
                }
            }
            for exit in exits_to_come.by_ref() {
                stream.exit(*exit);
            }
            stream.stop();
        }
        let exits = if windows.is_empty() { Vec::new() } else { exits };
        (stream.bytes, Said { defined: code, windows, exits })
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut((bytes, wrote) in stream(), step in 1usize..64) {
        let (said, (windows, whole)) = decode(&bytes, step).expect("a whole stream");
        prop_assert_eq!(windows, wrote.windows.len() as u64);
        prop_assert!(whole);
        prop_assert_eq!(said, wrote);
    }

    #[test]
    fn a_stream_cut_short_is_no_whole_one((bytes, wrote) in stream(), at in any::<prop::sample::Index>()) {
        let cut = &bytes[..at.index(bytes.len())];
        if let Ok((said, (windows, whole))) = decode(cut, 16) {
            // Cut between two windows it is whole so far, and its windows are fewer.
            let fewer = windows < wrote.windows.len() as u64;
            let only_code = wrote.windows.is_empty();
            prop_assert!(!whole || fewer || only_code, "{said:?}");
        }
    }

    #[test]
    fn altered_streams_are_survived(
        (mut bytes, _) in stream(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        step in 1usize..64,
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode(&bytes, step);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut with_header = Stream::new().bytes;
        with_header.extend_from_slice(&bytes);
        let _ = decode(&bytes, 7);
        let _ = decode(&with_header, 7);
    }
}

fn error(bytes: &[u8]) -> String {
    let mut all = Stream::new().bytes;
    all.extend_from_slice(bytes);
    decode(&all, 1000).expect_err("refused")
}

#[test]
fn each_lie_is_called_by_its_name() {
    assert!(decode(b"something else", 100).is_err());
    assert!(error(&[9]).contains("unknown kind"));
    assert!(error(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 16]).contains("16 bytes"));
    // A run before any window, of ids that are not there, and of none.
    assert!(error(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x90, 2, 0, 1]).contains("outside"));
    assert!(error(&[4, 0, 2, 0, 1]).contains("0 are defined"));
    assert!(error(&[4, 0, 2, 0, 0]).contains("a run"));
    assert!(error(&[4, 1]).contains("out of turn"));
    assert!(error(&[3, 0x80, 0x10]).contains("CPU 2048"));
    assert!(error(&[4, 0, 5, 7, 0, 0]).contains("0 instructions arrived where 7"));
    assert!(error(&[4, 0, 5, 0, 0, 2]).contains("2 records were lost"));
    assert!(
        error(&[4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).contains("too large")
    );
}
