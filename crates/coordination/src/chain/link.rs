//! What stands at a key of a chain, and how the state machines are told.

use bytes::Bytes;
use dr_encryption::Keys;
use dr_model::Lsn;
use dr_provider::{ErrorKind, ObjectStore};

use super::envelope::MAGIC;
use super::{ChainId, ChunkHeader, Flaw, SealRecord, decode, decode_header};
use crate::operation::{Answer, Operation, carry_out, limited};

/// A chunk or a seal; `C` is as much of a chunk as the reader needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Link<C> {
    /// A chunk.
    Chunk(C),
    /// The end.
    Seal(Box<SealRecord>),
}

/// The answer to a state machine that writes or reads links.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply<C> {
    /// The link was created by this operation.
    Created,
    /// The key was taken.
    Exists,
    /// What stands there.
    Found(Link<C>),
    /// Proven that nothing stands there.
    Missing,
    /// Something stands there that is no link of this chain; why.
    Damaged(String),
    /// No useful answer; the effect is unknown.
    Failed,
}

/// Reads a link with a chunk's log from an object's bytes; the error says what is wrong.
pub(crate) fn link_with_log(
    bytes: &Bytes,
    chain: &ChainId,
    at: Lsn,
    keys: &Keys,
) -> Result<Link<(ChunkHeader, Bytes)>, Flaw> {
    if bytes.starts_with(MAGIC) {
        decode(bytes, chain, at, keys).map(Link::Chunk)
    } else {
        let seal = SealRecord::from_bytes(bytes, chain, at)?;
        Ok(Link::Seal(Box::new(seal)))
    }
}

/// Reads a link with a chunk's header only; `None` if more bytes are needed.
pub(crate) fn link_with_header(
    bytes: &Bytes,
    complete: bool,
    chain: &ChainId,
    at: Lsn,
) -> Result<Option<Link<ChunkHeader>>, String> {
    if bytes.starts_with(MAGIC) {
        let header = decode_header(bytes, chain, at)?;
        return match header {
            Some((header, _)) => Ok(Some(Link::Chunk(header))),
            None if complete => Err(format!("it is cut off after {} bytes", bytes.len())),
            None => Ok(None),
        };
    }
    match SealRecord::from_bytes(bytes, chain, at) {
        Ok(seal) => Ok(Some(Link::Seal(Box::new(seal)))),
        Err(_) if !complete => Ok(None),
        Err(why) => Err(why),
    }
}

/// Bytes that hold the header of any chunk that this code writes, and any seal.
const GLANCE_BYTES: u64 = 4096;

/// Reads the link at a key as far as its header.
pub(crate) async fn read_header(
    store: &dyn ObjectStore,
    chain: &ChainId,
    at: Lsn,
    limit: std::time::Duration,
) -> (Reply<ChunkHeader>, Option<dr_provider::Error>) {
    let key = chain.link_key(at);
    let subject = || format!("{}/{key}", store.location());
    let glance = store.get_range(&key, 0, GLANCE_BYTES);
    match limited(limit, "read object", subject, glance).await {
        Ok(bytes) => {
            let complete = (bytes.len() as u64) < GLANCE_BYTES;
            match link_with_header(&bytes, complete, chain, at) {
                Ok(Some(link)) => return (Reply::Found(link), None),
                Ok(None) => {}
                Err(why) => return (Reply::Damaged(why), None),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return (Reply::Missing, None),
        Err(error) => return (Reply::Failed, Some(error)),
    }
    match carry_out(store, Operation::Get(key), limit).await {
        (Answer::Found(bytes), _) => match link_with_header(&bytes, true, chain, at) {
            Ok(Some(link)) => (Reply::Found(link), None),
            Ok(None) => (Reply::Damaged("it is cut off".to_owned()), None),
            Err(why) => (Reply::Damaged(why), None),
        },
        (Answer::Missing, _) => (Reply::Missing, None),
        (_, error) => (Reply::Failed, error),
    }
}
