//! Putting into a region's store what other regions hold of the same log beyond it, before a database is rebuilt there in place.
//!
//! The primary's own region may be the one that heard of it last: its daemon stood still, or wrote more slowly. Other stores hold the same
//! chain, byte for byte, and a standby elsewhere has it in its `pg_wal`. Taken over before the seal, nothing of it is lost.
//!
//! Idempotent because chunks are created only at the tail, and the same bytes there are ours.

use std::sync::Arc;

use bytes::Bytes;
use dr_coordination::chain::{
    ChainId, ChainReader, ChainWriter, Chunk, Facts, Section, Tail, find_tail,
};
use dr_model::{Lsn, RegionName, SegmentSize};
use dr_provider::driver::{Applied, Fence, Verified};
use dr_provider::{Error, Result};
use serde_json::json;

use super::Log;
use crate::driver::PostgresDriver;
use crate::receiver::FULL_BYTES;
use crate::register::patience;

/// Tries of one chunk, in about seven seconds.
const GIVE_UP_AFTER: u32 = 8;

const OPERATION: &str = "gather the log of";

/// What another region holds of a log.
struct Held {
    /// Its store's chain, if it has one.
    tail: Option<Tail>,
    /// Up to where its standby has it, with the length of the segments that it is in.
    standby: Option<(Lsn, SegmentSize)>,
}

impl Held {
    fn end(&self) -> Lsn {
        let stored = self.tail.as_ref().map(|tail| tail.end);
        let received = self.standby.map(|(end, _)| end);
        stored.max(received).unwrap_or(Lsn::INVALID)
    }
}

impl PostgresDriver {
    pub(super) async fn gather_log(
        &self,
        region: &RegionName,
        log: Log,
        others: &[RegionName],
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        let store = Arc::clone(self.store(region)?);
        let chain = ChainId::from(log);
        let Some(own) = find_tail(&*store, &chain, patience()).await? else {
            let why = format!("the store of {region} holds no log of epoch {}", log.epoch);
            return Err(self.failed(OPERATION, why));
        };
        if own.seal.is_some() {
            return Ok(self.gathered(region, own.end, own.end));
        }
        let options = dr_coordination::chain::Options {
            give_up_after: Some(GIVE_UP_AFTER),
            ..self.chain_options("log of another region")
        };
        let mut writer = ChainWriter::open(store, chain, own.origin.start_lsn, options).await?;
        let from = writer.end();
        let mut at = from;
        for other in others {
            let held = self.held_in(other, log).await?;
            let facts = Facts {
                commits: 0,
                last_commit_at: None,
                received_at: match held.tail.as_ref().and_then(|tail| tail.last.as_ref()) {
                    Some(header) => header.received_at,
                    None => own.origin.created_at,
                },
                primary_end: held.end(),
                // What commits waited for elsewhere says nothing of this store.
                promise: None,
            };
            if let Some(tail) = &held.tail {
                let section = Section::new(log.system_identifier, log.timeline, at, tail.end);
                if at < tail.end {
                    let store = Arc::clone(self.store(other)?);
                    let opened = ChainReader::open(store, section, patience()).await;
                    let mut reader = opened.map_err(Error::from)?.with_keys(self.keys());
                    while let Some((start, bytes)) = reader.next().await.map_err(Error::from)? {
                        push(&mut writer, start, bytes, &facts).await?;
                    }
                    at = tail.end;
                }
            }
            if let Some((end, size)) = held.standby {
                while at < end {
                    let bytes = self.read_wal(other, log, size, at, end).await?;
                    let length = bytes.len() as u64;
                    push(&mut writer, at, bytes, &facts).await?;
                    at = at.advance(length);
                }
            }
        }
        let end = writer.flush().await?;
        Ok(self.gathered(region, from, end))
    }

    pub(super) async fn is_log_gathered(
        &self,
        region: &RegionName,
        log: Log,
        others: &[RegionName],
    ) -> Result<Verified> {
        let own = find_tail(&**self.store(region)?, &ChainId::from(log), patience()).await?;
        let Some(own) = own else {
            return Ok(Verified::NotDone {
                seen: format!("the store of {region} holds no log of epoch {}", log.epoch),
            });
        };
        for other in others {
            let held = self.held_in(other, log).await?.end();
            if own.seal.is_none() && own.end < held {
                return Ok(Verified::NotDone {
                    seen: format!(
                        "the store of {region} ends at {}, and {other} holds the log up to {held}",
                        own.end
                    ),
                });
            }
        }
        Ok(Verified::Done(self.gathered(region, own.end, own.end)))
    }

    /// Looks what another region holds of a log. A server that does not answer is no standby; a store that does not is an error.
    async fn held_in(&self, region: &RegionName, log: Log) -> Result<Held> {
        let tail = find_tail(&**self.store(region)?, &ChainId::from(log), patience()).await?;
        let standby = match self.standby_position(region).await {
            Ok((found, size)) if found.in_recovery && found.timeline == log.timeline => {
                Some((found.position, size))
            }
            _ => None,
        };
        Ok(Held { tail, standby })
    }

    fn gathered(&self, region: &RegionName, from: Lsn, end: Lsn) -> Applied {
        let summary = match end.bytes_since(from) {
            0 => format!("nothing is left to gather: the store of {region} ends at {end}"),
            bytes => format!("gathered {bytes} bytes for the store of {region}: {from} to {end}"),
        };
        self.applied(summary, json!({ "from": from, "to": end }))
    }
}

/// Adds bytes to a chain, in chunks that are no longer than those of a receiver.
async fn push(writer: &mut ChainWriter, start: Lsn, bytes: Bytes, facts: &Facts) -> Result<()> {
    let mut at = start;
    let mut left = bytes;
    while !left.is_empty() {
        let log = left.split_to(left.len().min(FULL_BYTES));
        let length = log.len() as u64;
        writer
            .push(Chunk {
                start: at,
                log,
                facts: facts.clone(),
            })
            .await?;
        at = at.advance(length);
    }
    Ok(())
}
