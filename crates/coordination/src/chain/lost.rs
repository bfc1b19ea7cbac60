//! Going on behind log that is lost.
//!
//! The primary has dropped log before it was stored. Without the next link nothing that follows could ever hang on the chain, so
//! a chunk without log is put there, which says where it goes on. It is a compare-and-swap on the tail like every other: two
//! writers do not both pass over, and a seal and it exclude each other. Whoever asks which log there is finds a hole.

use dr_model::Lsn;
use dr_provider::ObjectStore;
use jiff::Timestamp;

use super::envelope::{MAGIC, Sealing, hash, wrap};
use super::tail::find_tail_to_write;
use super::{ChainId, ChunkHeader, Encoding, Error, FORMAT_VERSION};
use crate::operation::Patience;
use crate::publish::publish;

/// Makes `chain` go on at `to`, if it ends at `from`; returns where it ends then.
///
/// MUST NOT be used while commits wait for the chain's writer: acknowledging what follows releases those in between. Safe to
/// repeat. Whoever else has written there meanwhile is left alone.
///
/// # Errors
///
/// [`Error::Superseded`] if the chain is sealed; [`Error::Hole`] if it was never begun, so that there is nothing to pass over;
/// [`Error::Corrupt`]; [`Error::Store`].
pub async fn pass_over(
    store: &dyn ObjectStore,
    chain: &ChainId,
    from: Lsn,
    to: Lsn,
    (at, writer): (Timestamp, &str),
    patience: Patience,
) -> Result<Lsn, Error> {
    let tail = || find_tail_to_write(store, chain, patience);
    let hole = || Error::Hole {
        subject: chain.to_string(),
        from,
        to,
        location: store.location().to_owned(),
    };
    let (found, _) = tail().await?.ok_or_else(hole)?;
    if found.seal.is_none() && found.end == from && from < to {
        let header = ChunkHeader {
            version: FORMAT_VERSION,
            system_identifier: chain.system_identifier,
            timeline: chain.timeline,
            epoch: chain.epoch,
            start: from,
            end: to,
            commits: 0,
            last_commit_at: None,
            received_at: at,
            primary_end: to,
            durable_through: from,
            promise: None,
            writer: writer.to_owned(),
            encoding: Encoding::Lost,
            stored_bytes: 0,
            stored_blake3: hash(&[]),
            log_blake3: hash(&[]),
            encryption: None,
        };
        // Whoever wins, the tail is read afterwards.
        publish(
            store,
            chain.link_key(from),
            wrap(MAGIC, &header, &[], &Sealing::NONE),
            patience,
        )
        .await
        .map_err(|error| Error::store(chain, error))?;
    }
    let (found, _) = tail().await?.ok_or_else(hole)?;
    match found.seal {
        Some(seal) => Err(Error::Superseded {
            chain: *chain,
            seal,
        }),
        None => Ok(found.end),
    }
}
