//! Tests of the chain on stores in memory.

mod compacting;
mod damage;
mod expiring;
mod gaps;
mod growing;
mod listing;
mod reading;
mod requests;
mod sealing;
mod writing;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dr_model::{Epoch, Lsn, ManualClock, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;

use super::{ChainId, ChainWriter, Chunk, Facts, Options, SealRequest};
use crate::testing::{IMPATIENT, actor, at};

pub(super) const CLUSTER: SystemIdentifier = SystemIdentifier(7_300_000_000_000_000_001);
pub(super) const ORIGIN: Lsn = Lsn(0x300_0000);

pub(super) fn chain(epoch: u64) -> ChainId {
    ChainId {
        system_identifier: CLUSTER,
        timeline: TimelineId(1),
        epoch: Epoch(epoch),
    }
}

/// The log of the tests' timeline: every position has its own byte.
pub(super) fn log(from: Lsn, bytes: u64) -> Bytes {
    (from.0..from.0 + bytes)
        .map(|lsn| u8::try_from((lsn ^ (lsn >> 8).wrapping_mul(31)) & 0xFF).unwrap())
        .collect()
}

pub(super) fn chunk(start: Lsn, bytes: u64) -> Chunk {
    let second = i64::try_from(start.0 - ORIGIN.0).unwrap();
    Chunk {
        start,
        log: log(start, bytes),
        facts: Facts {
            commits: 2,
            last_commit_at: Some(at(second)),
            received_at: at(second + 1),
            primary_end: start.advance(bytes),
            promise: None,
        },
    }
}

#[derive(Clone, Default)]
pub(super) struct Boot(pub(super) Arc<Mutex<Duration>>);

impl Boot {
    pub(super) fn advance(&self, step: Duration) {
        *self.0.lock().unwrap() += step;
    }
}

pub(super) fn options(boot: &Boot) -> Options {
    let boot = boot.clone();
    Options {
        patience: IMPATIENT,
        boot_time: Arc::new(move || *boot.0.lock().unwrap()),
        ..Options::new("west", Arc::new(ManualClock::new(at(0))))
    }
}

pub(super) async fn writer(store: &Arc<impl ObjectStore + 'static>) -> ChainWriter {
    ChainWriter::open(store.clone(), chain(1), ORIGIN, options(&Boot::default()))
        .await
        .unwrap()
}

/// Writes pieces of the given lengths at the writer's end and waits until they are durable.
pub(super) async fn write(writer: &mut ChainWriter, lengths: &[u64]) -> Lsn {
    for length in lengths {
        let next = chunk(writer.end(), *length);
        writer.push(next).await.unwrap();
    }
    writer.flush().await.unwrap()
}

pub(super) fn request(successor: u64) -> SealRequest {
    SealRequest {
        successor: Epoch(successor),
        execution: None,
        actor: actor(9),
        at: at(0),
        origin_if_empty: ORIGIN,
    }
}
