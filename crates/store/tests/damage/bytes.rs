//! Bytes of a file that are others than were written.

use std::fs;
use std::path::Path;

use exitpath_recording::Recording;
use exitpath_store::{Error, read, write};
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::tempdir;

use crate::common::by_hand::{small, traced};
use crate::common::{FILES, TRACED_FILES};
use crate::{error, forge, written};

/// Something done to a file.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Truncate(Index),
    Remove(Index, u8),
    Repeat(Index, u8),
    Insert(Index, Vec<u8>),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => any::<(Index, u8)>().prop_map(|(at, with)| Change::Flip(at, with)),
        4 => any::<(Index, u8)>().prop_map(|(at, with)| Change::Set(at, with)),
        1 => any::<Index>().prop_map(Change::Truncate),
        1 => any::<(Index, u8)>().prop_map(|(at, n)| Change::Remove(at, n)),
        1 => any::<(Index, u8)>().prop_map(|(at, n)| Change::Repeat(at, n)),
        1 => any::<(Index, Vec<u8>)>().prop_map(|(at, with)| Change::Insert(at, with)),
    ];
    proptest::collection::vec(change, 1..4)
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    let (Change::Flip(at, _)
    | Change::Set(at, _)
    | Change::Truncate(at)
    | Change::Remove(at, _)
    | Change::Repeat(at, _)
    | Change::Insert(at, _)) = change;
    if bytes.is_empty() {
        return;
    }
    let at = at.index(bytes.len());
    let up_to = |n: u8| bytes.len().min(at + usize::from(n));
    match change {
        Change::Flip(_, with) => bytes[at] ^= with,
        Change::Set(_, with) => bytes[at] = *with,
        Change::Truncate(_) => bytes.truncate(at),
        Change::Remove(_, n) => _ = bytes.drain(at..up_to(*n)),
        Change::Repeat(_, n) => {
            let part = bytes[at..up_to(*n)].to_vec();
            bytes.splice(at..at, part);
        }
        Change::Insert(_, with) => _ = bytes.splice(at..at, with.iter().copied()),
    }
}

proptest! {
    #[test]
    fn changed_files_are_an_error_or_the_same(file in 0..TRACED_FILES.len(), changes in changes()) {
        let (_folder, dir) = written();
        let path = dir.join(TRACED_FILES[file]);
        let mut bytes = fs::read(&path).unwrap();
        changes.iter().for_each(|it| change(&mut bytes, it));
        fs::write(&path, bytes).unwrap();
        if let Ok(recording) = read(&dir) {
            prop_assert_eq!(recording, traced());
        }
    }

    /// With checksums that agree the data may be other, but there is no panic.
    #[test]
    fn forged_tables_are_no_panic(file in 0..TRACED_FILES.len() - 1, changes in changes()) {
        let (_folder, dir) = written();
        let name = TRACED_FILES[file];
        let mut bytes = fs::read(dir.join(name)).unwrap();
        changes.iter().for_each(|it| change(&mut bytes, it));
        forge(&dir, name, &bytes);
        if let Err(error) = read(&dir) {
            prop_assert!(!error.to_string().contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn no_manifest_is_a_panic(bytes in any::<Vec<u8>>()) {
        let (_folder, dir) = written();
        fs::write(dir.join("manifest.json"), bytes).unwrap();
        error(&dir);
    }
}

/// Whether each of these files, with a bit of any byte flipped, is an error or what it was.
fn flip_each_byte(dir: &Path, files: &[&str], recording: &Recording) {
    for name in files {
        let whole = fs::read(dir.join(name)).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(dir.join(name), &bytes).unwrap();
            if let Ok(read) = read(dir) {
                assert!(read == *recording, "{name}, byte {at}");
                assert_eq!(*name, "manifest.json");
            }
        }
        fs::write(dir.join(name), &whole).unwrap();
    }
    assert_eq!(read(dir).unwrap(), *recording);
}

#[test]
fn any_flipped_byte_is_an_error_or_the_same() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("recording");
    write(&dir, &small()).unwrap();
    flip_each_byte(&dir, &FILES, &small());
    // The other tables are the same in both.
    let (_folder, dir) = written();
    flip_each_byte(&dir, &TRACED_FILES[4..], &traced());
}

#[test]
fn any_truncated_file_is_an_error() {
    let (_folder, dir) = written();
    for name in TRACED_FILES {
        let whole = fs::read(dir.join(name)).unwrap();
        // Only the manifest has no length said elsewhere; a few of the others' will do.
        let step = if name == "manifest.json" { 1 } else { 7 };
        // The manifest's last byte is a line feed that it can do without.
        for length in (0..whole.len() - 1).step_by(step) {
            fs::write(dir.join(name), &whole[..length]).unwrap();
            let error = error(&dir);
            assert!(matches!(error, Error::Altered { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        fs::write(dir.join(name), &whole).unwrap();
    }
}
