//! What a lab is handed once it has booted, in one piece (`exitpath-lab-start` says how and why).

use exitpath_lab_start::payload::{ENTRY, Entry, HEADER, header};

use crate::error::{Error, Result};
use crate::image::initramfs::Initramfs;

/// These files as a payload.
///
/// # Errors
/// [`Error::Io`] if one cannot be read, [`Error::TooLarge`] for more than a machine can be handed.
pub(crate) fn payload(files: &Initramfs) -> Result<Vec<u8>> {
    let entries = files.entries().collect::<Result<Vec<_>>>()?;
    let length = entries.iter().map(|(path, ..)| ENTRY + path.len()).sum();
    let mut index = Vec::with_capacity(length);
    let mut end = (HEADER + length) as u64;
    for (path, mode, content) in &entries {
        let entry = Entry {
            mode: *mode,
            content: (end, content.len() as u64),
            path: path.as_bytes(),
        };
        entry.write(&mut index);
        end += content.len() as u64;
    }
    if u32::try_from(end).is_err() {
        return Err(Error::TooLarge {
            path: "what the lab is handed".to_owned(),
            bytes: end,
        });
    }
    let mut payload = Vec::with_capacity(end as usize);
    payload.extend_from_slice(&header(index.len()));
    payload.extend_from_slice(&index);
    for (_, _, content) in &entries {
        payload.extend_from_slice(content);
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exitpath_lab_start::payload::{FILE, FOLDER, KIND, entries, index_length};

    #[test]
    fn every_file_is_found_by_the_index() {
        let mut files = Initramfs::new();
        files.file("/lab/job.json", 0o644, "{}").unwrap();
        files.symlink("/lib", "usr/lib").unwrap();
        files.device("/dev/console", 0o600, 5, 1).unwrap();
        let payload = payload(&files).unwrap();
        let length = index_length(payload[..HEADER].try_into().unwrap()).unwrap();
        let found: Vec<(String, u32, &[u8])> = entries(&payload[HEADER..HEADER + length])
            .map(|entry| {
                let entry = entry.expect("a whole index");
                let (from, length) = entry.content;
                let content = &payload[from as usize..(from + length) as usize];
                let path = String::from_utf8(entry.path.to_vec()).unwrap();
                (path, entry.mode & KIND, content)
            })
            .collect();
        let paths: Vec<&str> = found.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(paths, ["dev", "dev/console", "lab", "lab/job.json", "lib"]);
        assert_eq!(found[1].2, [5, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(found[2].1, FOLDER);
        assert_eq!((found[3].1, found[3].2), (FILE, b"{}".as_slice()));
        assert_eq!(found[4].2, b"usr/lib");
    }
}
