//! Recognises and undoes the compressions that kernels and their modules come in.

use std::io::{self, Read};

/// How bytes are compressed, by their magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
    /// The frame format of `lz4 -l`: what Linux means by lz4.
    Lz4Legacy,
    /// Recognised, not supported.
    Other(&'static str),
}

const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// `lz4 -l` cuts its input into blocks of at most this size.
const LZ4_BLOCK: usize = 8 << 20;

/// Memory an xz stream may ask for; `xz -9` asks for 65 MiB.
const XZ_MEMORY_KIB: u32 = 512 << 10;

/// How much to set aside before decompressing anything.
const FIRST_GUESS: usize = 64 << 10;

impl Compression {
    /// Recognises the compression; whatever is unknown counts as not compressed.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        const MAGICS: [(&[u8], Compression); 7] = [
            (&[0x1f, 0x8b, 8], Compression::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&LZ4_MAGIC, Compression::Lz4Legacy),
            (b"BZh", Compression::Other("bzip2")),
            (&[0x5d, 0, 0], Compression::Other("lzma")),
            (&[0x89, b'L', b'Z', b'O'], Compression::Other("lzo")),
        ];
        let known = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic));
        known.map_or(Compression::None, |&(_, compression)| compression)
    }

    /// Undoes the compression; refuses to make more than `limit` bytes.
    ///
    /// # Errors
    /// Damaged or cut short input, more than `limit` bytes, or [`Compression::Other`].
    pub(crate) fn decompress(self, bytes: &[u8], limit: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(bytes.to_vec()),
            Self::Gzip => read_all(flate2::bufread::GzDecoder::new(bytes), limit),
            Self::Xz => read_all(
                lzma_rust2::XzReader::new_mem_limit(bytes, false, XZ_MEMORY_KIB),
                limit,
            ),
            Self::Zstd => {
                let decoder = ruzstd::decoding::StreamingDecoder::new(bytes);
                read_all(decoder.map_err(|e| io::Error::other(e.to_string()))?, limit)
            }
            Self::Lz4Legacy => lz4_legacy(bytes, limit),
            Self::Other(name) => Err(io::Error::new(io::ErrorKind::Unsupported, name)),
        }
    }
}

fn read_all(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(limit.min(FIRST_GUESS));
    reader.take(limit as u64 + 1).read_to_end(&mut out)?;
    if out.len() > limit {
        Err(too_much(limit))
    } else {
        Ok(out)
    }
}

/// Blocks, each preceded by its compressed length, up to the end or a length of zero.
fn lz4_legacy(bytes: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some((word, tail)) = rest.split_first_chunk::<4>() {
        rest = tail;
        let length = u32::from_le_bytes(*word) as usize;
        if *word == LZ4_MAGIC {
            continue; // Another frame begins.
        }
        if length == 0 {
            break;
        }
        let block = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        let plain = lz4_flex::block::decompress(block, LZ4_BLOCK)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        if out.len() + plain.len() > limit {
            return Err(too_much(limit));
        }
        out.extend_from_slice(&plain);
        rest = &rest[length..];
    }
    Ok(out)
}

fn too_much(limit: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("more than {limit} bytes come out of it"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use exitpath_testing::{Need, skipped};

    /// Runs a compressor over `input`; nothing if it is not installed.
    fn packed_by(command: &[&str], input: &[u8]) -> Option<Vec<u8>> {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            Some(child.wait_with_output().unwrap().stdout)
        })
    }

    #[test]
    fn undoes_what_the_tools_did() {
        // Two lz4 blocks; compressible, not constant.
        let plain: Vec<u8> = (0..9_000_000u32).map(|i| (i / 7 % 251) as u8).collect();
        let tools: [(&[&str], Compression); 5] = [
            (&["gzip", "-9"], Compression::Gzip),
            (
                &["xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB"],
                Compression::Xz,
            ),
            (&["zstd", "-q", "-22", "--ultra"], Compression::Zstd),
            (&["lz4", "-q", "-l", "-9"], Compression::Lz4Legacy),
            (&["bzip2"], Compression::Other("bzip2")),
        ];
        for (command, compression) in tools {
            let Some(packed) = packed_by(command, &plain) else {
                skipped(Need::Tools, format!("{} is not installed", command[0]));
                continue;
            };
            assert_eq!(Compression::of(&packed), compression);
            let unpacked = compression.decompress(&packed, plain.len());
            if let Compression::Other(_) = compression {
                assert_eq!(unpacked.unwrap_err().kind(), io::ErrorKind::Unsupported);
                continue;
            }
            assert!(unpacked.unwrap() == plain, "{command:?}");
            let short = compression.decompress(&packed, plain.len() - 1);
            assert!(
                short.unwrap_err().to_string().contains("more than"),
                "{command:?}"
            );
            let cut = compression.decompress(&packed[..packed.len() / 2], plain.len());
            assert!(
                cut.is_err() || cut.unwrap().len() < plain.len(),
                "{command:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn garbage_makes_no_panic(which in 0usize..4, tail: Vec<u8>) {
            let magics: [&[u8]; 4] = [
                &[0x1f, 0x8b, 8],
                &[0xfd, b'7', b'z', b'X', b'Z', 0],
                &[0x28, 0xb5, 0x2f, 0xfd],
                &LZ4_MAGIC,
            ];
            let bytes = [magics[which], &tail].concat();
            let _ = Compression::of(&bytes).decompress(&bytes, 1 << 20);
        }
    }
}
