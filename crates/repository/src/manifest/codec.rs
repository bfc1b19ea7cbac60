//! The bytes of a manifest.
//!
//! Layout: magic, header length (u32, little-endian), header (JSON), hash of all that, body (zstd of JSON lines).

use std::io::{self, Read as _};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;

use super::{Entry, FORMAT, Header, Manifest, PackInfo, Stats};
use crate::frame::FRAME_BYTES;
use crate::{Error, Hash, Label, Result, path};

const MAGIC: &[u8; 8] = b"dr-base1";
/// Bytes before the header: magic and its length.
const PREFIX_BYTES: usize = 8 + 4;
/// Bytes from the start of a manifest that usually hold the header.
pub(crate) const HEADER_GUESS_BYTES: u64 = 16 << 10;
/// A longer header is damage, not a header.
const LONGEST_HEADER_BYTES: usize = 16 << 20;
/// Manifests are small and read rarely; a better level than that of frames costs nothing that is noticed.
const LEVEL: i32 = 3;

fn body(packs: &[PackInfo], entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    for pack in packs {
        serde_json::to_writer(&mut plain, pack)?;
        plain.push(b'\n');
    }
    for entry in entries {
        serde_json::to_writer(&mut plain, entry)?;
        plain.push(b'\n');
    }
    Ok(plain)
}

/// Writes a manifest.
pub(crate) fn encode(
    label: &Label,
    source: Value,
    packs: &[PackInfo],
    entries: &[Entry],
) -> io::Result<(Bytes, Header)> {
    let plain = body(packs, entries)?;
    let stored = zstd::bulk::compress(&plain, LEVEL)?;
    let mut stats = Stats {
        packs: packs.len() as u64,
        stored_bytes: packs.iter().map(|pack| pack.bytes).sum(),
        ..Stats::default()
    };
    for entry in entries {
        if let Entry::File(file) = entry {
            stats.files += 1;
            stats.file_bytes += file.size;
        }
    }
    let header = Header {
        format: FORMAT,
        required_features: Vec::new(),
        label: label.clone(),
        source,
        stats,
        body_bytes: stored.len() as u64,
        body_plain_bytes: plain.len() as u64,
        body_hash: Hash::of(&stored),
    };
    let json = serde_json::to_vec(&header)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let mut bytes = BytesMut::new();
    bytes.put_slice(MAGIC);
    bytes.put_u32_le(length);
    bytes.put_slice(&json);
    let hash = Hash::of(&bytes);
    bytes.put_slice(hash.as_bytes());
    bytes.put_slice(&stored);
    Ok((bytes.freeze(), header))
}

/// Returns where the body begins, from the first [`PREFIX_BYTES`] of a manifest.
pub(crate) fn header_end(object: &str, bytes: &[u8]) -> Result<usize> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| Error::damaged(object, "it does not begin as a manifest"))?;
    let length = rest
        .first_chunk::<4>()
        .map(|field| u32::from_le_bytes(*field) as usize);
    match length {
        Some(length) if length <= LONGEST_HEADER_BYTES => Ok(PREFIX_BYTES + length + Hash::BYTES),
        _ => Err(Error::damaged(
            object,
            "the length of its header is not possible",
        )),
    }
}

/// Reads the header out of the first bytes of a manifest, at least up to [`header_end`].
pub(crate) fn decode_header(object: &str, bytes: &[u8]) -> Result<Header> {
    let end = header_end(object, bytes)?;
    let head = bytes
        .get(..end)
        .ok_or_else(|| Error::damaged(object, "it ends inside its header"))?;
    let (hashed, hash) = head.split_at(end - Hash::BYTES);
    if Hash::of(hashed).as_bytes() != hash {
        return Err(Error::damaged(object, "its header does not match its hash"));
    }
    let json = &hashed[PREFIX_BYTES..];
    // Another format may have another header: its number is looked at before anything else is expected of it.
    refuse_unknown(object, json)?;
    serde_json::from_slice(json)
        .map_err(|error| Error::damaged(object, format!("its header cannot be read: {error}")))
}

fn refuse_unknown(object: &str, json: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Needs {
        format: u32,
        required_features: Vec<String>,
    }
    let unsupported = |feature: String| Error::Unsupported {
        object: object.to_owned(),
        feature,
    };
    let needs: Needs = serde_json::from_slice(json)
        .map_err(|error| Error::damaged(object, format!("its header cannot be read: {error}")))?;
    if needs.format != FORMAT {
        return Err(unsupported(format!("format {}", needs.format)));
    }
    match needs.required_features.into_iter().next() {
        Some(feature) => Err(unsupported(feature)),
        None => Ok(()),
    }
}

/// Reads and checks a whole manifest.
pub(crate) fn decode(object: &str, bytes: &[u8]) -> Result<Manifest> {
    let header = decode_header(object, bytes)?;
    let stored = &bytes[header_end(object, bytes)?..];
    if stored.len() as u64 != header.body_bytes || Hash::of(stored) != header.body_hash {
        return Err(Error::damaged(object, "its body does not match its hash"));
    }
    let unreadable = |error: &dyn std::fmt::Display| {
        Error::damaged(object, format!("its body cannot be read: {error}"))
    };
    let mut plain = Vec::new();
    zstd::stream::read::Decoder::with_buffer(stored)
        .and_then(|decoder| {
            decoder
                .take(header.body_plain_bytes + 1)
                .read_to_end(&mut plain)
        })
        .map_err(|error| unreadable(&error))?;
    if plain.len() as u64 != header.body_plain_bytes {
        return Err(Error::damaged(object, "its body has the wrong length"));
    }
    let mut lines = plain
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let unreadable_line = |error: serde_json::Error| unreadable(&error);
    let packs: Vec<PackInfo> = (0..header.stats.packs)
        .map_while(|_| lines.next())
        .map(|line| serde_json::from_slice(line).map_err(unreadable_line))
        .collect::<Result<_>>()?;
    let entries: Vec<Entry> = lines
        .map(|line| serde_json::from_slice(line).map_err(unreadable_line))
        .collect::<Result<_>>()?;
    let manifest = Manifest {
        header,
        packs,
        entries,
    };
    check(object, &manifest)?;
    Ok(manifest)
}

/// Checks what the hashes cannot: that the manifest makes sense. A wrong one would be a bug of its writer.
fn check(object: &str, manifest: &Manifest) -> Result<()> {
    path::check_tree(manifest.entries.iter().map(|entry| (entry.path(), entry)))?;
    for file in manifest.files() {
        let wrong = |what: &str| Error::damaged(object, format!("`{}`: {what}", file.path));
        let mut size = 0;
        for frame in &file.frames {
            let pack = manifest.packs.get(frame.pack as usize);
            let pack = pack.ok_or_else(|| wrong("a frame is in a pack that does not exist"))?;
            let end = frame.offset.checked_add(u64::from(frame.stored_bytes));
            if end.is_none_or(|end| end > pack.bytes) {
                return Err(wrong("a frame lies outside its pack"));
            }
            if frame.plain_bytes as usize > FRAME_BYTES || frame.stored_bytes > frame.plain_bytes {
                return Err(wrong("a frame has an impossible length"));
            }
            size += u64::from(frame.plain_bytes);
        }
        if size != file.size {
            return Err(wrong("its frames do not add up to its size"));
        }
    }
    Ok(())
}
