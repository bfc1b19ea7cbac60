//! Filling a hole in a timeline's log with pieces.
//!
//! Log that a chain has passed over, or whose objects are gone, is history: what comes after it is there and was promised. So
//! it needs no place in a chain, and whoever has the bytes may put them there. At the end of the log only a chain will do, because
//! there a seal has to be able to keep it out.

use bytes::Bytes;
use dr_encryption::Keys;
use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::{ErrorKind, ObjectStore};

use super::piece::{PieceFacts, Span, decode_piece, encode_piece};
use super::{Cipher, Error, MAX_PIECE_BYTES};
use crate::operation::Patience;
use crate::publish::{Published, publish};

/// Puts `log`, which begins at `start`, into the store as pieces. The caller MUST know that log behind it is there.
///
/// Safe to repeat. Nothing that is there is replaced.
///
/// # Errors
///
/// [`Error::CorruptPiece`] if there is a piece with other log; [`Error::Store`].
pub async fn fill(
    store: &dyn ObjectStore,
    (system_identifier, timeline): (SystemIdentifier, TimelineId),
    start: Lsn,
    log: &Bytes,
    facts: &PieceFacts,
    (writer, keys): (&str, &Keys),
    patience: Patience,
) -> Result<(), Error> {
    let subject = || format!("cluster {system_identifier}, timeline {timeline}");
    let mut rest = log.clone();
    let mut from = start;
    while !rest.is_empty() {
        // No piece crosses the boundary of a segment, of whatever length those are.
        let slot = Lsn((from.0 / MAX_PIECE_BYTES + 1) * MAX_PIECE_BYTES);
        let length = usize::try_from(slot.bytes_since(from)).unwrap_or(usize::MAX);
        let part = rest.split_to(length.min(rest.len()));
        let span = Span {
            from,
            to: from.advance(part.len() as u64),
        };
        let key = span.key(system_identifier, timeline);
        let cipher = Cipher::draw(keys).map_err(|error| {
            let failed = dr_provider::Error::new(ErrorKind::Failed, "encrypt", key.to_string());
            Error::store(subject(), failed.because(error))
        })?;
        let (ours, facts, name) = (part.clone(), facts.clone(), writer.to_owned());
        let encode = move || {
            let cipher = cipher.as_ref();
            encode_piece(
                system_identifier,
                timeline,
                from,
                &ours,
                &facts,
                &name,
                cipher,
            )
        };
        let damaged = |why: String| Error::CorruptPiece {
            key: span.key(system_identifier, timeline).to_string(),
            location: store.location().to_owned(),
            why,
        };
        let body = tokio::task::spawn_blocking(encode).await;
        let body = body.map_err(|error| damaged(error.to_string()))?;
        let published = publish(store, key, body, patience).await;
        if let Published::Theirs(theirs) =
            published.map_err(|error| Error::store(subject(), error))?
        {
            let there = decode_piece(&theirs, system_identifier, timeline, span, keys);
            let key = span.key(system_identifier, timeline);
            let (_, there) = there.map_err(|flaw| flaw.of_piece(&key, store.location()))?;
            if there != part {
                return Err(damaged("it holds another log".to_owned()));
            }
        }
        from = span.to;
    }
    Ok(())
}
