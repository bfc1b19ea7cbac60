//! The bytes of a manifest.
//!
//! Layout: magic, header length (u32, little-endian), header (JSON), hash of all that, body (zstd of JSON lines), and, if the
//! backup is encrypted, an authentication code of all that. Nothing here is secret: copying and pruning need no key.

use std::collections::BTreeSet;
use std::io::{self, Read as _};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use dr_encryption::{KeyId, ObjectCipher};

use super::{Encryption, Entry, FORMAT, Header, Pack, PackInfo, Part, Stats, version1};
use crate::encryption::{FEATURE, SaltText};
use crate::{Error, Hash, Label, Result};

const MAGIC: &[u8; 8] = b"dr-base1";
/// Bytes before the header: magic and its length.
const PREFIX_BYTES: usize = 8 + 4;
/// Bytes from the start of a manifest that usually hold the header.
pub(crate) const HEADER_GUESS_BYTES: u64 = 16 << 10;
/// A longer header is damage, not a header.
const LONGEST_HEADER_BYTES: usize = 16 << 20;
/// Manifests are small and read rarely; a better level than that of frames costs nothing that is noticed.
const LEVEL: i32 = 3;
/// Bytes of the authentication code at the end of an encrypted manifest.
const CODE_BYTES: usize = 32;

/// What the body of a manifest says.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) packs: Vec<Pack>,
    pub(crate) parts: Vec<Part>,
    /// Format 1 keeps the tree in the body itself.
    pub(crate) entries: Option<Vec<Entry>>,
}

/// A line of the body.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Pack {
        /// Left out for the backup's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<Label>,
        number: u32,
        bytes: u64,
        hash: Hash,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        salt: Option<SaltText>,
    },
    Part(Part),
}

/// Writes a manifest. Of `stats`, what concerns packs is filled in.
pub(crate) fn encode(
    label: &Label,
    source: Value,
    mut stats: Stats,
    packs: &[Pack],
    parts: &[Part],
    seal: Option<(&KeyId, SaltText, &ObjectCipher)>,
) -> io::Result<(Bytes, Header)> {
    let mut plain = Vec::new();
    let mut references = BTreeSet::new();
    let mut line = |line: &Line| {
        serde_json::to_writer(&mut plain, line)?;
        plain.push(b'\n');
        Ok::<(), io::Error>(())
    };
    for pack in packs {
        let own = pack.label == *label;
        if own {
            stats.packs += 1;
            stats.stored_bytes += pack.info.bytes;
        } else {
            stats.referenced_packs += 1;
            references.insert(pack.label.clone());
        }
        line(&Line::Pack {
            label: (!own).then(|| pack.label.clone()),
            number: pack.number,
            bytes: pack.info.bytes,
            hash: pack.info.hash,
            salt: pack.salt,
        })?;
    }
    for part in parts {
        line(&Line::Part(*part))?;
    }
    let stored = zstd::bulk::compress(&plain, LEVEL)?;
    let header = Header {
        format: FORMAT,
        required_features: seal.iter().map(|_| FEATURE.to_owned()).collect(),
        label: label.clone(),
        source,
        stats,
        references: references.into_iter().collect(),
        encryption: seal.map(|(key, salt, _)| Encryption {
            key: key.to_string(),
            salt,
        }),
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
    if let Some((_, _, cipher)) = seal {
        let code = cipher.hash(&bytes);
        bytes.put_slice(code.as_bytes());
    }
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
    if !(1..=FORMAT).contains(&needs.format) {
        return Err(unsupported(format!("format {}", needs.format)));
    }
    let mut features = needs.required_features.into_iter();
    match features.find(|feature| needs.format == 1 || feature != FEATURE) {
        Some(feature) => Err(unsupported(feature)),
        None => Ok(()),
    }
}

/// Decompresses what must become `plain_bytes`; says what is wrong.
pub(crate) fn unpack(stored: &[u8], plain_bytes: u64) -> std::result::Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    zstd::stream::read::Decoder::with_buffer(stored)
        .and_then(|decoder| {
            decoder
                .take(plain_bytes.saturating_add(1))
                .read_to_end(&mut plain)
        })
        .map_err(|error| format!("it cannot be decompressed: {error}"))?;
    if plain.len() as u64 == plain_bytes {
        Ok(plain)
    } else {
        Err("it has the wrong length".to_owned())
    }
}

/// Checks that who wrote an encrypted manifest had the key.
pub(crate) fn authenticate(object: &str, bytes: &[u8], cipher: &ObjectCipher) -> Result<()> {
    let authentic = bytes
        .split_last_chunk::<CODE_BYTES>()
        // Compared in constant time.
        .is_some_and(|(before, code)| cipher.hash(before) == *code);
    if authentic {
        Ok(())
    } else {
        Err(Error::damaged(
            object,
            "its authentication code is wrong: it was changed by somebody without the key",
        ))
    }
}

/// Reads and checks a whole manifest, except whether it is authentic.
pub(crate) fn decode(object: &str, bytes: &[u8]) -> Result<(Header, Tables)> {
    let header = decode_header(object, bytes)?;
    let mut stored = &bytes[header_end(object, bytes)?..];
    if header.encryption.is_some() {
        stored = stored
            .split_last_chunk::<CODE_BYTES>()
            .ok_or_else(|| Error::damaged(object, "it ends inside its body"))?
            .0;
    }
    if stored.len() as u64 != header.body_bytes || Hash::of(stored) != header.body_hash {
        return Err(Error::damaged(object, "its body does not match its hash"));
    }
    let plain = unpack(stored, header.body_plain_bytes)
        .map_err(|what| Error::damaged(object, format!("its body: {what}")))?;
    if header.format == 1 {
        let (packs, entries) = version1::read(object, &header, &plain)?;
        let tables = Tables {
            packs,
            parts: Vec::new(),
            entries: Some(entries),
        };
        return Ok((header, tables));
    }
    let mut tables = Tables {
        packs: Vec::new(),
        parts: Vec::new(),
        entries: None,
    };
    for line in plain
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line: Line = serde_json::from_slice(line)
            .map_err(|error| Error::damaged(object, format!("its body cannot be read: {error}")))?;
        match line {
            Line::Pack {
                label,
                number,
                bytes,
                hash,
                salt,
            } => tables.packs.push(Pack {
                label: label.unwrap_or_else(|| header.label.clone()),
                number,
                info: PackInfo { bytes, hash },
                salt,
            }),
            Line::Part(part) => tables.parts.push(part),
        }
    }
    Ok((header, tables))
}
