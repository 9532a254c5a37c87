//! What a lab is handed once it has booted: a root file system's files, behind an index of them.
//!
//! Eight bytes of magic, the index's length, the index, contents. Numbers are little-endian. An entry of the index is
//! mode, length of the path, length of the content, where the content begins, and the path. A symlink's content is
//! its target, a device's its major and minor number. Folders come before what is in them.

/// The first bytes. A payload that begins otherwise is none, and the machine is stopped until there is one.
pub const MAGIC: [u8; 8] = *b"xpthload";
/// Bytes before the index.
pub const HEADER: usize = 16;
/// Bytes of an entry before its path.
pub const ENTRY: usize = 24;

/// Kinds of entries, in their mode (`st_mode`).
pub const KIND: u32 = 0o170_000;
/// A regular file.
pub const FILE: u32 = 0o100_000;
/// A folder.
pub const FOLDER: u32 = 0o040_000;
/// A symlink.
pub const SYMLINK: u32 = 0o120_000;
/// A character device.
pub const DEVICE: u32 = 0o020_000;

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Kind and permissions.
    pub mode: u32,
    /// Where its content begins in the payload, and how long it is.
    pub content: (u64, u64),
    /// Its path without a leading slash.
    pub path: &'a [u8],
}

impl Entry<'_> {
    /// Adds it to an index.
    pub fn write(&self, index: &mut Vec<u8>) {
        index.extend_from_slice(&self.mode.to_le_bytes());
        index.extend_from_slice(&(self.path.len() as u32).to_le_bytes());
        index.extend_from_slice(&self.content.1.to_le_bytes());
        index.extend_from_slice(&self.content.0.to_le_bytes());
        index.extend_from_slice(self.path);
    }
}

/// The header of a payload whose index has so many bytes.
pub fn header(index: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..].copy_from_slice(&(index as u64).to_le_bytes());
    header
}

/// The length of the index behind this header; `None` if it is none.
pub fn index_length(header: &[u8; HEADER]) -> Option<usize> {
    let (magic, length) = header.split_at(8);
    let length = u64::from_le_bytes(length.try_into().ok()?);
    (magic == MAGIC).then_some(usize::try_from(length).ok()?)
}

/// The entries of an index; the last is `None` if the index is cut off.
pub fn entries(mut index: &[u8]) -> impl Iterator<Item = Option<Entry<'_>>> {
    std::iter::from_fn(move || {
        if index.is_empty() {
            return None;
        }
        let entry = entry(&mut index);
        if entry.is_none() {
            index = &[];
        }
        Some(entry)
    })
}

fn entry<'a>(index: &mut &'a [u8]) -> Option<Entry<'a>> {
    let (fields, rest) = index.split_at_checked(ENTRY)?;
    let short = |at: usize| Some(u32::from_le_bytes(fields[at..at + 4].try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(fields[at..at + 8].try_into().ok()?));
    let (path, rest) = rest.split_at_checked(short(4)? as usize)?;
    *index = rest;
    Some(Entry {
        mode: short(0)?,
        content: (long(16)?, long(8)?),
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entry = |mode, content, path| Entry {
            mode,
            content,
            path,
        };
        let all = [
            entry(FOLDER | 0o755, (0, 0), b"lab".as_slice()),
            entry(FILE | 0o644, (16, 1 << 40), b"lab/job.json"),
        ];
        let mut index = Vec::new();
        for entry in &all {
            entry.write(&mut index);
        }
        let read: Vec<_> = entries(&index).flatten().collect();
        assert_eq!(read, all);
        assert_eq!(index_length(&header(index.len())), Some(index.len()));
        assert_eq!(index_length(b"none............"), None);
    }

    #[test]
    fn an_index_that_is_cut_off_is_noticed() {
        let mut index = Vec::new();
        let path = b"lab".as_slice();
        let entry = Entry {
            mode: FOLDER,
            content: (0, 0),
            path,
        };
        entry.write(&mut index);
        entry.write(&mut index);
        for length in 1..index.len() {
            let read: Vec<_> = entries(&index[..length]).collect();
            let whole = length / 27;
            assert_eq!(read.len(), whole + usize::from(length % 27 > 0), "{length}");
            assert_eq!(
                read.last(),
                Some(&None)
                    .filter(|_| length % 27 > 0)
                    .or(Some(&Some(entry)))
            );
        }
    }
}
