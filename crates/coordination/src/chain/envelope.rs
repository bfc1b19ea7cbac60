//! The bytes of a chunk: header, its hash, payload. `docs/formats/chunk.md` describes them for other readers.
//!
//! The hash after the header covers everything before it, and the header holds the hashes of payload and log, so one flipped bit
//! anywhere is noticed: in the header by a reader of headers, in the payload by a reader of logs.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use dr_model::Lsn;

use super::records::check;
use super::{ChainId, Chunk, ChunkHeader, Encoding, FORMAT_VERSION, MAX_LOG_BYTES};

/// The first bytes of every chunk.
pub(crate) const MAGIC: &[u8; 8] = b"DRCHUNK\n";

const LENGTH_BYTES: usize = 4;
const HASH_BYTES: usize = 32;
const MAX_HEADER_BYTES: usize = 64 << 10;
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    /// A context costs as much as compressing a small chunk, so each thread keeps one.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// Returns the bytes that are stored for a chunk of `chain`.
///
/// `durable_through` is a position up to which the chain is known to hang together.
#[must_use]
pub fn encode(chain: &ChainId, chunk: &Chunk, durable_through: Lsn, writer: &str) -> Bytes {
    let compressed = compress(&chunk.log).filter(|stored| stored.len() < chunk.log.len());
    let (encoding, stored) = match &compressed {
        Some(stored) => (Encoding::Zstd, stored.as_slice()),
        None => (Encoding::Raw, chunk.log.as_ref()),
    };
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
        encoding,
        stored_bytes: stored.len() as u64,
        stored_blake3: blake3::hash(stored).to_hex().to_string(),
        log_blake3: blake3::hash(&chunk.log).to_hex().to_string(),
    };
    let header = serde_json::to_vec(&header).expect("plain values always have a JSON form");
    let length = u32::try_from(header.len()).expect("a header is a few hundred bytes");
    let before_hash = MAGIC.len() + LENGTH_BYTES + header.len();
    let mut bytes = BytesMut::with_capacity(before_hash + HASH_BYTES + stored.len());
    bytes.put_slice(MAGIC);
    bytes.put_u32_le(length);
    bytes.put_slice(&header);
    let hash = blake3::hash(&bytes);
    bytes.put_slice(hash.as_bytes());
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
/// Returns `None` if more bytes are needed, at most 65,580; otherwise the header and where the payload begins. The error
/// says what is wrong.
pub fn decode_header(
    bytes: &[u8],
    chain: &ChainId,
    start: Lsn,
) -> Result<Option<(ChunkHeader, usize)>, String> {
    let fixed = MAGIC.len() + LENGTH_BYTES;
    let Some((prefix, rest)) = bytes.split_at_checked(fixed) else {
        return Ok(None);
    };
    let (magic, length) = prefix.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err("it does not begin as a chunk".to_owned());
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
    let hash = &rest[length..length + HASH_BYTES];
    if blake3::hash(&bytes[..fixed + length]).as_bytes() != hash {
        return Err("the hash of its header does not match".to_owned());
    }
    let header: ChunkHeader =
        serde_json::from_slice(&rest[..length]).map_err(|error| error.to_string())?;
    check(header.version, &header.chain(), chain)?;
    let sound = header.start == start
        && header.end > header.start
        && header.log_bytes() <= MAX_LOG_BYTES
        && header.stored_bytes <= header.log_bytes();
    if !sound {
        return Err(format!(
            "its header speaks of {} to {} in {} bytes at key {start}",
            header.start, header.end, header.stored_bytes
        ));
    }
    Ok(Some((header, fixed + length + HASH_BYTES)))
}

/// Reads a whole chunk and verifies every byte; the error says what is wrong.
pub fn decode(bytes: &Bytes, chain: &ChainId, start: Lsn) -> Result<(ChunkHeader, Bytes), String> {
    let Some((header, offset)) = decode_header(bytes, chain, start)? else {
        return Err(format!("it is cut off after {} bytes", bytes.len()));
    };
    let stored = bytes.slice(offset..);
    if stored.len() as u64 != header.stored_bytes {
        return Err(format!(
            "{} bytes of payload are there, {} were written",
            stored.len(),
            header.stored_bytes
        ));
    }
    if blake3::hash(&stored).to_hex().as_str() != header.stored_blake3 {
        return Err("the hash of its payload does not match".to_owned());
    }
    let log = match header.encoding {
        Encoding::Raw => stored,
        Encoding::Zstd => {
            let length = usize::try_from(header.log_bytes())
                .map_err(|_| "its log does not fit the memory".to_owned())?;
            let log = zstd::bulk::decompress(&stored, length).map_err(|error| error.to_string())?;
            Bytes::from(log)
        }
    };
    if log.len() as u64 != header.log_bytes() {
        return Err(format!(
            "its log has {} bytes instead of {}",
            log.len(),
            header.log_bytes()
        ));
    }
    if blake3::hash(&log).to_hex().as_str() != header.log_blake3 {
        return Err("the hash of its log does not match".to_owned());
    }
    Ok((header, log))
}
