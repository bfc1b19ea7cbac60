//! Which log of a timeline a store holds.

use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;

use super::catalogue::chains_of_timeline;
use super::{ChainId, Error, Tail, find_tail};
use crate::operation::Patience;

/// A piece of log that hangs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Available {
    /// Its first position.
    pub from: Lsn,
    /// The position after its last.
    pub to: Lsn,
}

/// Returns the pieces of a timeline's log that a store holds, in order; pieces that touch are joined.
///
/// Costs a listing and a few reads an epoch. Rests on headers: [`ChainReader`](super::ChainReader) verifies the bytes.
pub async fn available(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
) -> Result<Vec<Available>, Error> {
    let tails = tails(store, system_identifier, timeline, patience).await?;
    let mut pieces: Vec<Available> = tails
        .iter()
        .map(|(_, tail)| Available {
            from: tail.origin.start_lsn,
            to: tail.end,
        })
        .filter(|piece| piece.from < piece.to)
        .collect();
    pieces.sort_unstable_by_key(|piece| (piece.from, piece.to));
    let mut joined: Vec<Available> = Vec::new();
    for piece in pieces {
        match joined.last_mut() {
            Some(last) if piece.from <= last.to => last.to = last.to.max(piece.to),
            _ => joined.push(piece),
        }
    }
    Ok(joined)
}

/// Returns all chains of a timeline with their tails, oldest epoch first.
pub(crate) async fn tails(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
) -> Result<Vec<(ChainId, Tail)>, Error> {
    let subject = || format!("cluster {system_identifier}, timeline {timeline}");
    let chains = chains_of_timeline(store, system_identifier, timeline)
        .await
        .map_err(|error| Error::store(subject(), error))?;
    let mut tails = Vec::new();
    for chain in chains {
        if let Some(tail) = find_tail(store, &chain, patience).await? {
            tails.push((chain, tail));
        }
    }
    Ok(tails)
}
