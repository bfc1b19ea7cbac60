//! The bytes of a chunk or piece: header, its hash, payload. `docs/formats/wal.md` describes them for other readers.
//!
//! The hash after the header covers everything before it, and the header holds the hashes of payload and log, so one flipped bit
//! anywhere is noticed: in the header by a reader of headers, in the payload by a reader of logs. Encryption is in
//! [`encryption`](super::encryption).

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use dr_encryption::{Keys, ObjectCipher, TAG_BYTES};
use dr_model::Lsn;
use dr_provider::Key;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::records::check;
use super::{
    ChainId, Chunk, ChunkHeader, Cipher, Encoding, Encryption, FORMAT_VERSION, Flaw, MAX_LOG_BYTES,
};

/// The first bytes of every chunk.
pub(crate) const MAGIC: &[u8; 8] = b"DRCHUNK\n";

const LENGTH_BYTES: usize = 4;
pub(super) const HASH_BYTES: usize = 32;
const MAX_HEADER_BYTES: usize = 64 << 10;
const ZSTD_LEVEL: i32 = 1;

/// The offset under which a payload is sealed: an object has one.
const PAYLOAD_OFFSET: u64 = 0;

thread_local! {
    /// A context costs as much as compressing a small chunk, so each thread keeps one.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// Returns the bytes that are stored for a chunk of `chain`.
///
/// `durable_through` is a position up to which the chain is known to hang together. Without a cipher nothing is encrypted; one
/// that was drawn for another attempt must not be used again.
#[must_use]
pub fn encode(
    chain: &ChainId,
    chunk: &Chunk,
    durable_through: Lsn,
    writer: &str,
    cipher: Option<&Cipher>,
) -> Bytes {
    let sealing = Sealing::new(cipher, &chain.link_key(chunk.start));
    let payload = Payload::of(&chunk.log, &sealing);
    let header = ChunkHeader {
        version: FORMAT_VERSION,
        system_identifier: chain.system_identifier,
        timeline: chain.timeline,
        epoch: chain.epoch,
        start: chunk.start,
        end: chunk.end(),
        commits: chunk.facts.commits,
        last_commit_at: chunk.facts.last_commit_at,
        received_at: chunk.facts.received_at,
        primary_end: chunk.facts.primary_end,
        durable_through,
        promise: chunk.facts.promise.clone(),
        writer: writer.to_owned(),
        encoding: payload.encoding,
        stored_bytes: payload.stored.len() as u64,
        stored_blake3: hash(&payload.stored),
        log_blake3: payload.log_blake3,
        encryption: sealing.stated(),
    };
    wrap(MAGIC, &header, &payload.stored, &sealing)
}

/// How one object is encrypted, if it is.
pub(super) struct Sealing(Option<(Encryption, ObjectCipher)>);

impl Sealing {
    /// Nothing is encrypted.
    pub(super) const NONE: Self = Self(None);

    /// Takes what an object is encrypted with, and its key in the store.
    pub(super) fn new(cipher: Option<&Cipher>, key: &Key) -> Self {
        Self(cipher.map(|cipher| (cipher.stated(), cipher.object(key.as_str()))))
    }

    /// Takes what a header says.
    pub(super) fn stated_by(
        encryption: Option<&Encryption>,
        keys: &Keys,
        key: &Key,
    ) -> Result<Self, Flaw> {
        let open = |encryption: &Encryption| {
            let cipher = encryption.open(keys, key.as_str())?;
            Ok::<_, Flaw>((encryption.clone(), cipher))
        };
        Ok(Self(encryption.map(open).transpose()?))
    }

    pub(super) fn stated(&self) -> Option<Encryption> {
        self.0.as_ref().map(|(encryption, _)| encryption.clone())
    }

    fn hash(&self, plain: &[u8]) -> String {
        match &self.0 {
            Some((_, cipher)) => cipher.hash(plain).to_hex().to_string(),
            None => hash(plain),
        }
    }
}

/// A log in the form in which it is stored.
pub(super) struct Payload {
    pub(super) encoding: Encoding,
    pub(super) stored: Bytes,
    pub(super) log_blake3: String,
}

impl Payload {
    /// Compresses a log, unless that does not make it smaller, and seals it.
    pub(super) fn of(log: &Bytes, sealing: &Sealing) -> Self {
        let log_blake3 = sealing.hash(log);
        let (encoding, stored) = match compress(log).filter(|stored| stored.len() < log.len()) {
            Some(stored) => (Encoding::Zstd, stored.into()),
            None => (Encoding::Raw, log.clone()),
        };
        let stored = match &sealing.0 {
            None => stored,
            Some((_, cipher)) => {
                let mut bytes = BytesMut::from(stored);
                let tag = cipher.seal(PAYLOAD_OFFSET, &mut bytes);
                bytes.put_slice(&tag);
                bytes.freeze()
            }
        };
        Self {
            encoding,
            stored,
            log_blake3,
        }
    }
}

pub(super) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Puts a header, its hash and a payload together.
pub(super) fn wrap(
    magic: &[u8; 8],
    header: &impl Serialize,
    stored: &[u8],
    sealing: &Sealing,
) -> Bytes {
    let header = serde_json::to_vec(header).expect("plain values always have a JSON form");
    let length = u32::try_from(header.len()).expect("a header is a few hundred bytes");
    let before_hash = magic.len() + LENGTH_BYTES + header.len();
    let mut bytes = BytesMut::with_capacity(before_hash + 2 * HASH_BYTES + stored.len());
    bytes.put_slice(magic);
    bytes.put_u32_le(length);
    bytes.put_slice(&header);
    let hash = blake3::hash(&bytes);
    bytes.put_slice(hash.as_bytes());
    if let Some((_, cipher)) = &sealing.0 {
        let code = cipher.hash(&bytes);
        bytes.put_slice(code.as_bytes());
    }
    bytes.put_slice(stored);
    bytes.freeze()
}

fn compress(log: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        // Without memory for a context the log is stored as it is.
        slot.as_mut()?.compress(log).ok()
    })
}

/// Reads the header of the chunk at `start` of `chain` from the first bytes of its object.
///
/// Returns `None` if more bytes are needed, at most 65,580; otherwise the header and where it ends. The error says what is
/// wrong.
pub fn decode_header(
    bytes: &[u8],
    chain: &ChainId,
    start: Lsn,
) -> Result<Option<(ChunkHeader, usize)>, String> {
    let Some((header, offset)) = unwrap::<ChunkHeader>(MAGIC, bytes, "a chunk")? else {
        return Ok(None);
    };
    check(header.version, &header.chain(), chain)?;
    let length = if header.is_lost() {
        header.stored_bytes == 0
    } else {
        header.log_bytes() <= MAX_LOG_BYTES
            && header.stored_bytes <= longest(header.log_bytes(), header.encryption.as_ref())
    };
    let sound = header.start == start && header.end > header.start && length;
    if !sound {
        return Err(format!(
            "its header speaks of {} to {} in {} bytes at key {start}",
            header.start, header.end, header.stored_bytes
        ));
    }
    Ok(Some((header, offset)))
}

/// Returns how long a payload may be.
pub(super) fn longest(log_bytes: u64, encryption: Option<&Encryption>) -> u64 {
    let tag = encryption.map_or(0, |_| TAG_BYTES as u64);
    log_bytes + tag
}

/// Reads a header and checks its hash; with it comes where it ends. `None` if more bytes are needed.
pub(super) fn unwrap<H: DeserializeOwned>(
    magic: &[u8; 8],
    bytes: &[u8],
    what: &str,
) -> Result<Option<(H, usize)>, String> {
    let fixed = magic.len() + LENGTH_BYTES;
    let Some((prefix, rest)) = bytes.split_at_checked(fixed) else {
        return Ok(None);
    };
    let (found, length) = prefix.split_at(magic.len());
    if found != magic {
        return Err(format!("it does not begin as {what}"));
    }
    let length = length
        .iter()
        .rev()
        .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    if length > MAX_HEADER_BYTES {
        return Err(format!("its header of {length} bytes is too long"));
    }
    if rest.len() < length + HASH_BYTES {
        return Ok(None);
    }
    let expected = &rest[length..length + HASH_BYTES];
    if blake3::hash(&bytes[..fixed + length]).as_bytes() != expected {
        return Err("the hash of its header does not match".to_owned());
    }
    let header = serde_json::from_slice(&rest[..length]).map_err(|error| error.to_string())?;
    Ok(Some((header, fixed + length + HASH_BYTES)))
}

/// What a header says of the payload behind it.
pub(super) struct Stated<'a> {
    pub(super) encoding: Encoding,
    pub(super) stored_bytes: u64,
    pub(super) stored_blake3: &'a str,
    pub(super) log_bytes: u64,
    pub(super) log_blake3: &'a str,
}

/// Returns the log of an object whose header ends at `offset`, every byte verified.
pub(super) fn open_payload(
    bytes: &Bytes,
    offset: usize,
    stated: &Stated<'_>,
    sealing: &Sealing,
) -> Result<Bytes, String> {
    let mut begin = offset;
    if let Some((_, cipher)) = &sealing.0 {
        begin += HASH_BYTES;
        let code = bytes.get(offset..begin).unwrap_or_default();
        // Compared in constant time, as hashes are.
        let code = <[u8; HASH_BYTES]>::try_from(code).map(blake3::Hash::from_bytes);
        if code.ok() != Some(cipher.hash(&bytes[..offset])) {
            return Err("the authentication code of its header does not match".to_owned());
        }
    }
    let stored = bytes.slice(begin..);
    if stored.len() as u64 != stated.stored_bytes {
        return Err(format!(
            "{} bytes of payload are there, {} were written",
            stored.len(),
            stated.stored_bytes
        ));
    }
    if hash(&stored) != stated.stored_blake3 {
        return Err("the hash of its payload does not match".to_owned());
    }
    let stored = match &sealing.0 {
        None => stored,
        Some((_, cipher)) => {
            let mut sealed = BytesMut::from(stored);
            let opened = cipher.open(PAYLOAD_OFFSET, &mut sealed);
            let length = opened.map_err(|error| error.to_string())?.len();
            sealed.truncate(length);
            sealed.freeze()
        }
    };
    let log = match stated.encoding {
        Encoding::Raw => stored,
        Encoding::Lost => return Err("it says that its log is lost".to_owned()),
        Encoding::Zstd => {
            let length = usize::try_from(stated.log_bytes)
                .map_err(|_| "its log does not fit the memory".to_owned())?;
            let log = zstd::bulk::decompress(&stored, length).map_err(|error| error.to_string())?;
            Bytes::from(log)
        }
    };
    if log.len() as u64 != stated.log_bytes {
        return Err(format!(
            "its log has {} bytes instead of {}",
            log.len(),
            stated.log_bytes
        ));
    }
    if sealing.hash(&log) != stated.log_blake3 {
        return Err("the hash of its log does not match".to_owned());
    }
    Ok(log)
}

/// Reads a whole chunk and verifies every byte; the error says what is wrong.
pub fn decode(
    bytes: &Bytes,
    chain: &ChainId,
    start: Lsn,
    keys: &Keys,
) -> Result<(ChunkHeader, Bytes), Flaw> {
    let Some((header, offset)) = decode_header(bytes, chain, start)? else {
        return Err(format!("it is cut off after {} bytes", bytes.len()).into());
    };
    let stated = Stated {
        encoding: header.encoding,
        stored_bytes: header.stored_bytes,
        stored_blake3: &header.stored_blake3,
        log_bytes: header.log_bytes(),
        log_blake3: &header.log_blake3,
    };
    let key = chain.link_key(start);
    let sealing = Sealing::stated_by(header.encryption.as_ref(), keys, &key)?;
    let log = open_payload(bytes, offset, &stated, &sealing)?;
    Ok((header, log))
}
