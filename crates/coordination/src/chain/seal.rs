//! Seals a chain in a real store.

use std::time::Duration;

use dr_model::{Epoch, ExecutionId, Lsn};
use dr_provider::{ErrorKind, ObjectStore};
use jiff::Timestamp;

use super::floor::floor;
use super::link::{Reply, read_header};
use super::sealer::{End, Sealer, Task};
use super::tail::{corrupt, find_tail_to_write};
use super::{ChainId, ChunkHeader, Error, FORMAT_VERSION, Origin, SealRecord, Tail, boot_time};
use crate::Actor;
use crate::operation::{Answer, Operation, Patience, back_off, carry_out};
use crate::publish::publish;

/// Who seals for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRequest {
    /// The epoch that follows.
    pub successor: Epoch,
    /// The execution that seals.
    pub execution: Option<ExecutionId>,
    /// Who seals.
    pub actor: Actor,
    /// The time, for people.
    pub at: Timestamp,
    /// Where the chain is made to begin, and end, if nobody has ever written it in this store.
    pub origin_if_empty: Lsn,
}

/// A chain that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The chain.
    pub chain: ChainId,
    /// Its end: with the chain's timeline, exactly what was promised.
    pub lsn: Lsn,
    /// The seal as it stands there, perhaps from an earlier try.
    pub seal: SealRecord,
    /// The last chunk: commit time, receive time, the primary's WAL end, the promise. `None` if the chain is empty.
    pub last: Option<ChunkHeader>,
}

/// How old the tail may be at which a seal is created: half of the grace after which links are removed, as for writers.
const AGE_LIMIT: Duration = Duration::from_secs(1800);

/// How many chunks may come in between before the tail is found anew, which passes over many at a time: two requests for each
/// never catch up with a writer that has several under way, nor soon with what it left.
const MET_LIMIT: usize = 4;

/// Ends a chain: after this no writer of it acknowledges anything beyond [`Sealed::lsn`].
///
/// The tail is found anew here. A position from elsewhere will not do: even what a writer acknowledges may lie inside a
/// chunk of another writer, and a seal at a key that the chain passes over would end nothing.
///
/// Sealing again for the same successor succeeds with the same position.
///
/// # Errors
///
/// [`Error::Superseded`] if it is sealed for another successor; [`Error::Corrupt`]; [`Error::Store`] if the store does not
/// answer, after which the seal may be in unless the source is definite: seal again.
pub async fn seal(
    store: &dyn ObjectStore,
    chain: &ChainId,
    request: &SealRequest,
    patience: Patience,
) -> Result<Sealed, Error> {
    let clock = boot_time();
    loop {
        let begun = clock();
        let (tail, from) = open_tail(store, chain, request, patience).await?;
        let is_fresh = || clock().saturating_sub(begun) <= AGE_LIMIT;
        let Some(sealed) = seal_at(store, chain, request, patience, tail, &is_fresh).await? else {
            continue;
        };
        // If links from where this began have been removed meanwhile, what was met there need not be the chain.
        if floor(store, chain, patience)
            .await?
            .is_none_or(|floor| floor <= from)
        {
            return Ok(sealed);
        }
    }
}

/// Finds the tail of a chain, which is begun if nobody has, and where the walk to it began.
async fn open_tail(
    store: &dyn ObjectStore,
    chain: &ChainId,
    request: &SealRequest,
    patience: Patience,
) -> Result<(Tail, Lsn), Error> {
    loop {
        if let Some(found) = find_tail_to_write(store, chain, patience).await? {
            return Ok(found);
        }
        let origin = Origin {
            version: FORMAT_VERSION,
            system_identifier: chain.system_identifier,
            timeline: chain.timeline,
            epoch: chain.epoch,
            start_lsn: request.origin_if_empty,
            created_at: request.at,
            writer: request.actor.to_string(),
        };
        // Whoever wins, the origin is read afterwards.
        publish(store, chain.origin_key(), origin.to_bytes(), patience)
            .await
            .map_err(|error| Error::store(chain, error))?;
    }
}

/// Seals at a tail, or wherever it has moved to; `None` if it was found too long ago, or has moved on too often since.
async fn seal_at(
    store: &dyn ObjectStore,
    chain: &ChainId,
    request: &SealRequest,
    patience: Patience,
    tail: Tail,
    is_fresh: &(dyn Fn() -> bool + Sync),
) -> Result<Option<Sealed>, Error> {
    let seal = SealRecord {
        version: FORMAT_VERSION,
        system_identifier: chain.system_identifier,
        timeline: chain.timeline,
        epoch: chain.epoch,
        lsn: tail.end,
        successor: request.successor,
        execution: request.execution.clone(),
        sealed_by: request.actor.clone(),
        sealed_at: request.at,
    };
    let mut sealer = Sealer::new(seal, tail.last);
    let mut attempt = 0;
    let mut ambiguous = false;
    let mut met = 0;
    loop {
        back_off(attempt).await;
        if !is_fresh() || met == MET_LIMIT {
            return Ok(None);
        }
        let creating = matches!(sealer.next(), Task::Create(_));
        let (reply, error) = carry_out_task(store, chain, sealer.next(), patience).await;
        let failed = matches!(reply, Reply::Failed);
        met += usize::from(matches!(reply, Reply::Found(_)));
        match sealer.feed(reply) {
            Some(End::Sealed(seal)) => {
                return Ok(Some(Sealed {
                    chain: *chain,
                    lsn: seal.lsn,
                    seal: *seal,
                    last: sealer.last().cloned(),
                }));
            }
            Some(End::Superseded(seal)) => {
                return Err(Error::Superseded {
                    chain: *chain,
                    seal,
                });
            }
            Some(End::Damaged { at, why }) => return Err(corrupt(store, chain, at, why)),
            None if !failed => attempt = 0,
            None => {
                let error = error.unwrap_or_else(|| {
                    dr_provider::Error::new(ErrorKind::Failed, "seal", chain.to_string())
                });
                ambiguous |= creating && error.kind() == ErrorKind::Unknown;
                attempt += 1;
                if error.is_permanent() || attempt >= patience.attempts {
                    return Err(Error::store(
                        chain,
                        at_least_unknown(error, ambiguous, chain),
                    ));
                }
            }
        }
    }
}

/// Makes an error say that the effect is unknown if an earlier try may have had it.
fn at_least_unknown(
    error: dr_provider::Error,
    ambiguous: bool,
    chain: &ChainId,
) -> dr_provider::Error {
    if ambiguous && error.kind() != ErrorKind::Unknown {
        dr_provider::Error::new(ErrorKind::Unknown, "seal", chain.to_string()).because(error)
    } else {
        error
    }
}

async fn carry_out_task(
    store: &dyn ObjectStore,
    chain: &ChainId,
    task: Task,
    patience: Patience,
) -> (Reply<ChunkHeader>, Option<dr_provider::Error>) {
    match task {
        Task::Read(at) => read_header(store, chain, at, patience.timeout).await,
        Task::Create(seal) => {
            let operation = Operation::Create(chain.link_key(seal.lsn), seal.to_bytes());
            let (answer, error) = carry_out(store, operation, patience.timeout).await;
            let reply = match answer {
                Answer::Created => Reply::Created,
                Answer::Exists => Reply::Exists,
                Answer::Found(_) | Answer::Missing | Answer::Failed(_) => Reply::Failed,
            };
            (reply, error)
        }
    }
}
